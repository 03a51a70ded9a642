//! One configuration at work: prepared in full first, then started, then stopped.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::closer;
use super::commands::{Answer, Commands, Vehicle, configured_pack};
use super::manager::Pulse;
use super::metrics::Metrics;
use super::pace::Pace;
use super::pipeline::{Classifier, Open, Order, Shared, film};
use super::report::Reporter;
use super::retask::Retask;
use super::{DaemonError, Identity};
use crate::bundle::{Bundle, BundleError, slots};
use crate::camera::{
    Camera, CameraError, Folder, Frame, Http, Mqtt, Next, Pipe, Policy, Simulated, Slot, Video, VideoInput,
    VideoOptions,
};
use crate::config::{Config, ConfigError, MqttConfig, Source};
use crate::decide::{Decider, Tags};
use crate::position::{Listener, Locator, Position, SrtError, Telemetry};
use crate::prompts::pack::{Pack, PackError};
use crate::publish::spool::Spool;
use crate::publish::{
    Credentials, CredentialsError, Inbound, Inbox, Link, Message, ModelName, PromptsName, Setup, Topics, listener,
};
use crate::vision::golden::{Golden, GoldenError};
use crate::vision::{EncoderOptions, Limits, Similar, View, Vision, VisionError};

/// What the main loop is told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Control {
    /// A signal to end.
    Stop,
    /// SIGHUP.
    Reload,
    /// The session of this epoch has classified its last frame.
    Finished(u64),
    /// A command from the ground.
    Command(Inbound),
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
    credentials: Credentials,
    retask: Option<Retask>,
    locator: Locator,
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
        let configured = configured_pack(&config)?;
        configured.fits(&bundle.manifest().name, &bundle.text_id())?;
        refuse_unknown_labels(&config, &configured)?;
        let retask = config.commands.as_ref().map(|_| Retask::load(&config.state));
        let pack = commanded_pack(&config, retask.as_ref(), &bundle).unwrap_or(configured);
        let batch = config.tiles.map_or(1, |tiles| tiles.tiling.batch());
        let options = EncoderOptions { threads: config.threads, batch, ..EncoderOptions::default() };
        let mut vision = Vision::load(&bundle, config.limits, &options)?;
        if self_test {
            Golden::read(&bundle)?.compare(&mut vision)?;
        }
        let decider = Decider::new(pack, bundle.manifest().model.logit_scale);
        let credentials = Credentials::read(&config.mqtt)?;
        let camera = open_camera(&config.camera.source, &config.mqtt, &credentials)?;
        let locator = Locator::new(config.position.clone())?;
        Ok(Self { config, bundle, vision, decider, camera, credentials, retask, locator })
    }

    /// The bundle that will be used.
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// Takes one frame, waiting for it at most so long, and what the model would be shown of it.
    ///
    /// # Errors
    /// [`PhotographError`] when no frame comes, or one that cannot be used.
    pub fn photograph(&mut self, patience: Duration) -> Result<Photograph, PhotographError> {
        let deadline = Instant::now() + patience;
        let frame = loop {
            match self.camera.next(deadline.saturating_duration_since(Instant::now()))? {
                Next::Frame(frame) => break frame,
                Next::Idle if Instant::now() < deadline => {}
                Next::Idle => return Err(PhotographError::Silent { waited: patience }),
                Next::End => return Err(PhotographError::End),
            }
        };
        self.locator.admit(&frame);
        let position = self.locator.locate(&frame);
        let square = self.vision.square();
        let tiling = self.config.tiles.map(|tiles| closer::tiling(&tiles, || position.clone(), square));
        let view = self.vision.look(&frame.picture, tiling.as_ref())?;
        Ok(Photograph { frame, view, position, limits: self.config.limits })
    }

    /// The prompt pack that will be used.
    pub fn pack(&self) -> &Pack {
        self.decider.pack()
    }

    fn reporter(&self, identity: Arc<Identity>) -> Reporter {
        let manifest = self.bundle.manifest();
        Reporter {
            identity,
            topics: Topics::new(&self.config.mqtt.root, &self.config.vehicle, &self.config.camera.name),
            model: ModelName {
                name: manifest.name.clone(),
                architecture: manifest.model.architecture.clone(),
                sha256: self.bundle.id().to_owned(),
                kernel: self.vision.encoder().kernel().to_owned(),
            },
            prompts: RwLock::new(PromptsName::of(self.decider.pack())),
            paused: AtomicBool::new(false),
            top_k: self.config.top_k,
            embeddings: self.config.embeddings,
            lens: self.config.camera.lens,
            thermal: self.config.thermal.clone(),
        }
    }
}

/// One frame, not yet classified.
pub struct Photograph {
    /// As it came.
    pub frame: Box<Frame>,
    /// As the model would see it.
    pub view: View,
    /// Where it was taken, by its own account.
    pub position: Option<Position>,
    /// What it may cost to decode.
    pub limits: Limits,
}

/// Why there is no frame to be looked at.
#[derive(Debug, thiserror::Error)]
pub enum PhotographError {
    /// The camera failed.
    #[error(transparent)]
    Camera(#[from] CameraError),
    /// The frame cannot be decoded or has an impossible shape.
    #[error(transparent)]
    Vision(#[from] VisionError),
    /// Nothing came.
    #[error("no frame within {} s; is the camera running, or a file being put into its folder?", .waited.as_secs())]
    Silent {
        /// How long it was waited for.
        waited: Duration,
    },
    /// The source has ended.
    #[error("the source has no frame at all; put a picture into its folder, or allow more than 0 frames")]
    End,
}

/// The pack that a command has put in place of the configuration's, if it can still be used.
fn commanded_pack(config: &Config, retask: Option<&Retask>, bundle: &Bundle) -> Option<Pack> {
    let key = config.commands.as_ref()?.public_key.as_ref()?;
    match retask?.pack(key) {
        Ok(pack) => pack.filter(|pack| match pack.fits(&bundle.manifest().name, &bundle.text_id()) {
            Ok(()) => true,
            Err(error) => {
                log::error!("prompts received in flight: {error}; the configuration's are used");
                false
            }
        }),
        Err(error) => {
            log::error!("prompts received in flight: {error}; the configuration's are used");
            None
        }
    }
}

/// A misspelt label in `tags.label` must not pass unnoticed.
fn refuse_unknown_labels(config: &Config, pack: &Pack) -> Result<(), PrepareError> {
    let header = pack.header();
    let known = |name: &str| header.labels.iter().any(|label| label.name == name);
    match config.rules.thresholds.keys().find(|name| !known(name)) {
        Some(label) => Err(PrepareError::Label { label: label.clone(), set: header.set.clone() }),
        None => Ok(()),
    }
}

fn open_camera(source: &Source, mqtt: &MqttConfig, credentials: &Credentials) -> Result<Box<dyn Camera>, CameraError> {
    Ok(match source {
        Source::Folder(options) => Box::new(Folder::open(options.clone())?),
        Source::Simulated(options) => Box::new(Simulated::new(*options)),
        Source::Pipe(options) => Box::new(Pipe::open(options.clone())?),
        #[cfg(feature = "v4l2")]
        Source::V4l2(options) => Box::new(crate::camera::V4l2::new(options.clone())),
        Source::Video(options) => Box::new(Video::open(options)?),
        Source::Http(options) => Box::new(Http::open(options.clone())?),
        Source::Mqtt(topic) => {
            // A session of its own beside the one that publishes.
            let mqtt = MqttConfig { client_id: format!("{}-camera", mqtt.client_id), ..mqtt.clone() };
            Box::new(Mqtt::new(listener(&mqtt, credentials), topic.clone()))
        }
    })
}

/// A source with an end loses nothing; a live one gives way to its newest frame.
fn policy(source: &Source) -> Policy {
    match source {
        Source::Folder(options) if options.once || options.journal.is_some() => Policy::Every,
        Source::Simulated(options) if options.frames.is_some() => Policy::Every,
        // Whoever publishes decides what is worth looking at.
        Source::Mqtt(_) => Policy::Every,
        Source::Pipe(options) if options.once => Policy::Every,
        Source::Video(VideoOptions { input: VideoInput::File { real_time: false, .. }, .. }) => Policy::Every,
        _ => Policy::Newest,
    }
}

/// Results of a live camera that wait for a slow link: later ones are worth more.
const LIVE_BACKLOG: usize = 32;
/// Of a source with an end, whose results must all arrive.
const WHOLE_BACKLOG: usize = 4096;

/// A running configuration.
pub(super) struct Session {
    shared: Arc<Shared>,
    reporter: Arc<Reporter>,
    threads: Vec<JoinHandle<()>>,
    epoch: u64,
    health_interval: Duration,
    health_due: std::cell::Cell<Instant>,
    commands: Option<Commands>,
    telemetry: Option<Arc<Telemetry>>,
    _listener: Option<Listener>,
}

/// Commands go to the main loop, like signals.
fn inbox(reporter: &Reporter, control: Sender<Control>) -> Inbox {
    let deliver = move |inbound| {
        // The main loop may have ended already.
        let _ = control.send(Control::Command(inbound));
    };
    Inbox { filter: reporter.topics.commands(), deliver: Box::new(deliver) }
}

impl Vehicle for Session {
    fn order(&self, order: Order) {
        self.shared.order(order);
    }

    fn set_paused(&self, paused: bool) {
        self.reporter.paused.store(paused, Ordering::Relaxed);
        self.shared.link.publish(self.reporter.online());
    }

    fn paused(&self) -> bool {
        self.reporter.paused.load(Ordering::Relaxed)
    }

    fn report(&self) -> serde_json::Value {
        let value =
            |message: Message| serde_json::from_slice::<serde_json::Value>(&message.payload).unwrap_or_default();
        serde_json::json!({"status": value(self.reporter.online()), "health": value(self.health())})
    }
}

impl Session {
    /// Carries out a command and answers it.
    pub fn command(&mut self, inbound: &Inbound) {
        let Some(mut commands) = self.commands.take() else { return };
        let name = inbound.topic.rsplit('/').next().unwrap_or_default();
        let answer = commands.carry_out(name, &inbound.payload, self);
        self.commands = Some(commands);
        if let Answer::Reply { id, outcome } = answer {
            match &outcome {
                Ok(_) => log::info!("command {name}: carried out"),
                Err(reason) => log::warn!("command {name}: refused: {reason}"),
            }
            self.shared.link.publish(self.reporter.reply(name, id, outcome));
        }
    }

    fn health(&self) -> Message {
        let dropped = self.shared.slot.dropped();
        let position = self.telemetry.as_ref().map(|telemetry| telemetry.health(Instant::now()));
        self.reporter.health(self.shared.metrics.read(), dropped, self.shared.link.stats(), position)
    }

    /// Connects and starts filming. `control` is told when the source has ended.
    pub fn start(prepared: Prepared, identity: Arc<Identity>, control: Sender<Control>) -> Result<Self, DaemonError> {
        static EPOCH: AtomicU64 = AtomicU64::new(0);
        let epoch = EPOCH.fetch_add(1, Ordering::Relaxed);
        let reporter = Arc::new(prepared.reporter(identity));
        let policy = policy(&prepared.config.camera.source);
        let link = Link::start(Setup {
            mqtt: &prepared.config.mqtt,
            credentials: prepared.credentials.clone(),
            will: reporter.offline("lost"),
            spool: Spool::open(&prepared.config.spool).map_err(DaemonError::Thread)?,
            backlog: if policy == Policy::Every { WHOLE_BACKLOG } else { LIVE_BACKLOG },
            inbox: prepared.retask.as_ref().map(|_| inbox(&reporter, control.clone())),
        })
        .map_err(DaemonError::Thread)?;
        link.publish(reporter.online());
        link.publish(reporter.config(&prepared.config.published));
        let labels = &prepared.decider.pack().header().labels;
        labels.iter().for_each(|label| link.publish(reporter.inactive(&label.name)));

        let stopping = AtomicBool::new(false);
        let shared = Arc::new(Shared {
            slot: Slot::new(policy),
            policy,
            stopping,
            pulse: Pulse::default(),
            metrics: Metrics::new(),
            link,
            orders: Mutex::default(),
        });
        let rules = match &prepared.retask {
            Some(retask) => retask.rules(&prepared.config.rules),
            None => prepared.config.rules.clone(),
        };
        let tags = Tags::new(labels, rules);
        let Prepared { config, bundle, vision, decider, camera, credentials, retask, locator } = prepared;
        let telemetry = locator.telemetry().cloned();
        let listener = telemetry.clone().map(Listener::start).transpose().map_err(DaemonError::Thread)?;
        let commands = retask.map(|retask| Commands::new(&config, &bundle, decider.pack().clone(), retask));
        let classifier = Classifier {
            vision,
            tiles: config.tiles,
            similar: config.similar.map(Similar::new),
            pace: config.pace.map(Pace::new),
            thermal: config.thermal,
            decider,
            tags,
            started: Instant::now(),
            limits: config.limits,
            snapshots: Vec::new(),
            reporter: Arc::clone(&reporter),
            locator,
        };
        let (source, mqtt) = (config.camera.source, config.mqtt);
        let open: Open = Box::new(move || open_camera(&source, &mqtt, &credentials));
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
        Ok(Self {
            shared,
            reporter,
            threads,
            epoch,
            health_interval,
            health_due,
            commands,
            telemetry,
            _listener: listener,
        })
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
        self.shared.link.publish(self.health());
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
        let stats = self.shared.link.stats();
        if stats.unsent > 0 {
            log::warn!("{} results and figures were not sent for want of a link", stats.unsent);
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
    /// Thresholds for a label that is not there.
    #[error("tags.label.\"{label}\": prompt set \"{set}\" has no such label; `remoteclipd prompts show` lists them")]
    Label {
        /// The label.
        label: String,
        /// The prompt set in use.
        set: String,
    },
    /// The broker's password or certificates.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The subtitles.
    #[error(transparent)]
    Position(#[from] SrtError),
}
