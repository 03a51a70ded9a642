//! One configuration at work: prepared in full first, then started, then stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::manager::Pulse;
use super::metrics::Metrics;
use super::pipeline::{Classifier, Open, Shared, film};
use super::report::Reporter;
use super::{DaemonError, Identity};
use crate::bundle::{Bundle, BundleError, slots};
use crate::camera::{Camera, CameraError, Folder, Policy, Simulated, Slot};
use crate::config::{Config, ConfigError, Source};
use crate::decide::{Decider, Tags};
use crate::prompts;
use crate::prompts::pack::{Pack, PackError};
use crate::publish::{Link, ModelName, PromptsName, Topics};
use crate::vision::golden::{Golden, GoldenError};
use crate::vision::{EncoderOptions, Vision, VisionError};

/// What the main loop is told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Control {
    /// A signal to end.
    Stop,
    /// SIGHUP.
    Reload,
    /// The session of this epoch has classified its last frame.
    Finished(u64),
}

/// Why a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Stopped,
    Finished,
    Reloaded,
}

/// Everything a session needs, loaded and checked.
pub struct Prepared {
    config: Config,
    bundle: Bundle,
    vision: Vision,
    decider: Decider,
    camera: Box<dyn Camera>,
}

impl Prepared {
    /// Loads and checks all that `config` names, the broker excepted.
    ///
    /// # Errors
    /// [`PrepareError`] naming what is missing and the cure. A bundle in a slot that cannot be used, or whose golden frames
    /// disagree, is an error only when the other slot's cannot be used either.
    pub fn new(config: Config) -> Result<Self, PrepareError> {
        let Some(other) = slots::fallback(&config.bundle) else {
            let in_slot = slots::is_current(&config.bundle);
            return Self::with(config, in_slot);
        };
        Self::with(config.clone(), true).or_else(|error| match error {
            PrepareError::Config(_) | PrepareError::Camera(_) => Err(error),
            _ => {
                log::error!("{error}; falling back on the bundle before, {}", other.display());
                Self::with(Config { bundle: other, ..config }, true)
            }
        })
    }

    /// `self_test`: a bundle that came by `bundle install` proves itself at every start.
    fn with(config: Config, self_test: bool) -> Result<Self, PrepareError> {
        let bundle = Bundle::open(&config.bundle)?;
        let pack = match &config.pack {
            Some(path) => Pack::read(path)?,
            None => prompts::built_in()?,
        };
        pack.fits(&bundle.manifest().name, &bundle.text_id())?;
        let options = EncoderOptions { threads: config.threads, ..EncoderOptions::default() };
        let mut vision = Vision::load(&bundle, config.limits, &options)?;
        if self_test {
            Golden::read(&bundle)?.compare(&mut vision)?;
        }
        let decider = Decider::new(pack, bundle.manifest().model.logit_scale);
        let camera = open_camera(&config.camera.source)?;
        Ok(Self { config, bundle, vision, decider, camera })
    }

    /// The bundle that will be used.
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// The prompt pack that will be used.
    pub fn pack(&self) -> &Pack {
        self.decider.pack()
    }

    fn reporter(&self, identity: Arc<Identity>) -> Reporter {
        let manifest = self.bundle.manifest();
        let header = self.decider.pack().header();
        Reporter {
            identity,
            topics: Topics::new(&self.config.mqtt.root, &self.config.vehicle, &self.config.camera.name),
            model: ModelName {
                name: manifest.name.clone(),
                architecture: manifest.model.architecture.clone(),
                sha256: self.bundle.id().to_owned(),
                kernel: self.vision.encoder().kernel().to_owned(),
            },
            prompts: PromptsName {
                name: header.set.clone(),
                sha256: self.decider.pack().id().to_owned(),
                labels: header.labels.iter().map(|label| label.name.clone()).collect(),
            },
            top_k: self.config.top_k,
        }
    }
}

fn open_camera(source: &Source) -> Result<Box<dyn Camera>, CameraError> {
    Ok(match source {
        Source::Folder(options) => Box::new(Folder::open(options.clone())?),
        Source::Simulated(options) => Box::new(Simulated::new(*options)),
    })
}

/// A source with an end loses nothing; a live one gives way to its newest frame.
fn policy(source: &Source) -> Policy {
    match source {
        Source::Folder(options) if options.once => Policy::Every,
        Source::Simulated(options) if options.frames.is_some() => Policy::Every,
        _ => Policy::Newest,
    }
}

/// A running configuration.
pub(super) struct Session {
    shared: Arc<Shared>,
    reporter: Arc<Reporter>,
    threads: Vec<JoinHandle<()>>,
    epoch: u64,
    health_interval: Duration,
    health_due: std::cell::Cell<Instant>,
}

impl Session {
    /// Connects and starts filming. `control` is told when the source has ended.
    pub fn start(prepared: Prepared, identity: Arc<Identity>, control: Sender<Control>) -> Result<Self, DaemonError> {
        static EPOCH: AtomicU64 = AtomicU64::new(0);
        let epoch = EPOCH.fetch_add(1, Ordering::Relaxed);
        let reporter = Arc::new(prepared.reporter(identity));
        let link = Link::start(&prepared.config.mqtt, reporter.offline("lost"))?;
        link.publish(reporter.online());
        link.publish(reporter.config(&prepared.config.published));
        let labels = &prepared.decider.pack().header().labels;
        labels.iter().for_each(|label| link.publish(reporter.inactive(&label.name)));

        let policy = policy(&prepared.config.camera.source);
        let stopping = AtomicBool::new(false);
        let (slot, pulse, metrics) = (Slot::new(policy), Pulse::default(), Metrics::new());
        let shared = Arc::new(Shared { slot, policy, stopping, pulse, metrics, link });
        let tags = Tags::new(labels);
        let Prepared { config, vision, decider, camera, .. } = prepared;
        let classifier = Classifier { vision, decider, tags, reporter: Arc::clone(&reporter) };
        let source = config.camera.source;
        let open: Open = Box::new(move || open_camera(&source));
        let threads = vec![
            spawn("camera", {
                let shared = Arc::clone(&shared);
                move || film(&shared, camera, &open)
            })?,
            spawn("classify", {
                let shared = Arc::clone(&shared);
                move || {
                    classifier.run(&shared);
                    // The main loop may be gone already, when this very stop ended it.
                    let _ = control.send(Control::Finished(epoch));
                }
            })?,
        ];
        let (health_interval, health_due) =
            (config.health_interval, std::cell::Cell::new(Instant::now() + config.health_interval));
        Ok(Self { shared, reporter, threads, epoch, health_interval, health_due })
    }

    /// Tells this session's `Finished` from that of one it replaced.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether its threads still come round.
    pub fn pulse(&self) -> &Pulse {
        &self.shared.pulse
    }

    /// Time until the next health message.
    pub fn until_health(&self) -> Duration {
        self.health_due.get().saturating_duration_since(Instant::now())
    }

    /// Publishes `health` now and sets the time of the next.
    pub fn publish_health(&self) {
        self.health_due.set(Instant::now() + self.health_interval);
        let dropped = self.shared.slot.dropped();
        self.shared.link.publish(self.reporter.health(self.shared.metrics.read(), dropped, self.shared.link.stats()));
    }

    /// Ends the threads and says goodbye, within two seconds.
    pub fn stop(self, ended: Ended) {
        self.publish_health();
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.slot.close();
        for thread in self.threads {
            if thread.join().is_err() {
                log::error!("a thread had failed; this is a bug in remoteclipd");
            }
        }
        let reason = match ended {
            Ended::Stopped => "stopped",
            Ended::Finished => "finished",
            Ended::Reloaded => "reloading",
        };
        let unsent = self.shared.link.stats();
        if unsent.unsent + unsent.waiting > 0 {
            log::warn!(
                "{} messages were not sent for want of a link, {} events still waited",
                unsent.unsent,
                unsent.waiting
            );
        }
        match Arc::into_inner(self.shared) {
            Some(shared) => shared.link.stop(self.reporter.offline(reason)),
            None => log::error!("the link is still in use; the broker will publish the last will"),
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, DaemonError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(DaemonError::Thread)
}

/// Why a configuration cannot be put to work.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The file itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The prompts.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// The image tower.
    #[error(transparent)]
    Vision(#[from] VisionError),
    /// The bundle's self-test.
    #[error(transparent)]
    Golden(#[from] GoldenError),
    /// The camera.
    #[error(transparent)]
    Camera(#[from] CameraError),
}
