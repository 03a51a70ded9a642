//! The two threads either side of the slot: the camera's, and the one that classifies and publishes.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::closer;
use super::manager::Pulse;
use super::metrics::Metrics;
use super::pace::Pace;
use super::report::{Classified, Parts, Reporter};
use super::snapshot::thumbnail;
use super::vitals;
use crate::camera::{Camera, CameraError, Frame, Next, Policy, Receipt, Slot};
use crate::config::TilesConfig;
use crate::decide::{Aggregate, Change, Decider, Rules, Tags, Transition};
use crate::position::Locator;
use crate::publish::{Head, Link, PromptsName};
use crate::vision::{Area, Limits, Similar, Timings, Vision, VisionError};

/// How long a thread may take to notice a stop.
const PATIENCE: Duration = Duration::from_millis(100);
/// First wait before a lost camera is opened again; doubles up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Opens the camera, again if need be.
pub(super) type Open = Box<dyn Fn() -> Result<Box<dyn Camera>, CameraError> + Send>;

/// What the classifying thread is told between two frames.
pub(super) enum Order {
    /// Look for something else.
    Prompts(Box<(Decider, Rules)>),
    /// Enter and leave tags otherwise.
    Rules(Rules),
    /// Publish a small picture of the next frame, in answer to the request of this id.
    Snapshot(String),
}

/// What both threads share.
pub(super) struct Shared {
    pub slot: Slot,
    pub policy: Policy,
    pub stopping: AtomicBool,
    pub pulse: Pulse,
    pub metrics: Metrics,
    pub link: Link,
    pub orders: Mutex<Vec<Order>>,
}

impl Shared {
    /// Hands an order to the classifying thread.
    pub fn order(&self, order: Order) {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).push(order);
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Sleeps in small steps, feeling the pulse of the thread that does; false when a stop came.
    fn sleep(&self, time: Duration, alive: impl Fn(&Pulse)) -> bool {
        let mut left = time;
        while !left.is_zero() && !self.stopping() {
            alive(&self.pulse);
            let step = left.min(PATIENCE);
            thread::sleep(step);
            left -= step;
        }
        !self.stopping()
    }
}

/// The camera's thread: frames into the slot, until the source ends or a stop.
pub(super) fn film(shared: &Shared, mut camera: Box<dyn Camera>, open: &Open) {
    let mut wait = FIRST_WAIT;
    while !shared.stopping() {
        let answer = camera.next(PATIENCE);
        shared.pulse.camera();
        match answer {
            Ok(Next::Frame(frame)) => {
                if wait > FIRST_WAIT {
                    log::info!("the camera is back");
                    wait = FIRST_WAIT;
                }
                shared.pulse.delivering(true);
                shared.slot.put(frame);
                shared.pulse.delivering(false);
            }
            Ok(Next::Idle) => {}
            Ok(Next::End) => break,
            Err(error @ CameraError::Frame { .. }) => fail(shared, "unreadable_frame", &error),
            Err(error @ CameraError::Source { .. }) => {
                // Said once until frames come again: a camera that is switched off is tried for hours.
                let level = if wait == FIRST_WAIT { log::Level::Error } else { log::Level::Debug };
                log::log!(level, "{error}; trying to open it again");
                shared.metrics.failed("camera_lost");
                drop(camera);
                match reopen(shared, open, &mut wait) {
                    Some(opened) => camera = opened,
                    None => break,
                }
            }
        }
    }
    shared.pulse.delivering(true);
    shared.slot.close();
}

/// Waits and opens the camera, waiting longer each time: a source may well open and still have no frame to give.
fn reopen(shared: &Shared, open: &Open, wait: &mut Duration) -> Option<Box<dyn Camera>> {
    while shared.sleep(*wait, Pulse::camera) {
        *wait = (*wait * 2).min(LONGEST_WAIT);
        match open() {
            Ok(camera) => return Some(camera),
            Err(error) => log::debug!("{error}"),
        }
    }
    None
}

/// A frame's width and height, its parts and a vector for each.
struct Embeddings {
    size: (u32, u32),
    areas: Vec<Area>,
    vectors: Vec<Vec<f32>>,
    timings: Timings,
}

/// What the classifying thread owns.
pub(super) struct Classifier {
    pub vision: Vision,
    pub tiles: Option<TilesConfig>,
    /// Lets frames go that show what the last one did.
    pub similar: Option<Similar>,
    pub pace: Option<Pace>,
    /// The board's thermal zones.
    pub thermal: PathBuf,
    pub decider: Decider,
    pub tags: Tags,
    /// Where the tags' time begins.
    pub started: Instant,
    pub limits: Limits,
    /// Requests for a picture of the next frame.
    pub snapshots: Vec<String>,
    pub reporter: Arc<Reporter>,
    pub locator: Locator,
}

impl Classifier {
    /// Frames out of the slot, results to the link, until the slot is closed and empty or a stop.
    pub fn run(mut self, shared: &Shared) {
        while !shared.stopping() {
            shared.pulse.classifier();
            self.obey(shared);
            if self.reporter.paused.load(Ordering::Relaxed) {
                thread::sleep(PATIENCE / 10);
                continue;
            }
            // A source that is read once must lose nothing, so it waits for the broker; a live one goes on without.
            if shared.policy == Policy::Every && !(shared.link.connected() && shared.link.has_room()) {
                thread::sleep(PATIENCE / 10);
                continue;
            }
            match shared.slot.take(PATIENCE) {
                Ok(Some(frame)) => {
                    let (taken, admitted) = (Instant::now(), self.locator.admit(&frame));
                    if admitted {
                        self.classify(shared, &frame);
                    }
                    // Also when it failed: it would fail again. And before the rest, which may be long.
                    frame.receipt.into_iter().for_each(Receipt::settle);
                    if admitted {
                        self.rest(shared, taken.elapsed());
                    }
                }
                Ok(None) => {}
                Err(crate::camera::Closed) => break,
            }
        }
    }

    /// Keeps the pace, if there is one to keep.
    fn rest(&mut self, shared: &Shared, busy: Duration) {
        let Some(pace) = &mut self.pace else { return };
        let rest = pace.rest(busy, || vitals::temperature(&self.thermal));
        shared.metrics.paced(pace.state());
        shared.sleep(rest, Pulse::classifier);
    }

    /// Carries out what was ordered since the last frame.
    fn obey(&mut self, shared: &Shared) {
        let orders = std::mem::take(&mut *shared.orders.lock().unwrap_or_else(PoisonError::into_inner));
        if !orders.is_empty() {
            // What is asked now was not asked of the last frame.
            self.similar.iter_mut().for_each(Similar::forget);
        }
        for order in orders {
            match order {
                Order::Prompts(order) => self.retask(shared, *order),
                Order::Rules(rules) => self.tags.retune(&self.decider.pack().header().labels, rules),
                Order::Snapshot(id) => self.snapshots.push(id),
            }
        }
    }

    fn retask(&mut self, shared: &Shared, (decider, rules): (Decider, Rules)) {
        let before = std::mem::replace(&mut self.decider, decider);
        let labels = &self.decider.pack().header().labels;
        self.tags = Tags::new(labels, rules);
        self.reporter.set_prompts(PromptsName::of(self.decider.pack()));
        for label in &before.pack().header().labels {
            if labels.iter().all(|other| other.name != label.name) {
                shared.link.publish(self.reporter.forgotten(&label.name));
            }
        }
        labels.iter().for_each(|label| shared.link.publish(self.reporter.inactive(&label.name)));
        shared.link.publish(self.reporter.online());
        log::info!("prompt set {} is in use", self.decider.pack().header().set);
    }

    fn photograph(&mut self, shared: &Shared, frame: &Frame) {
        let picture = thumbnail(&frame.picture, &self.limits).map_err(|error| error.to_string());
        let outcome = picture.map(|jpeg| {
            let result = serde_json::json!({"frame": Head::frame_name(&frame.name), "bytes": jpeg.len()});
            shared.link.publish(self.reporter.thumb(jpeg));
            result
        });
        for id in self.snapshots.drain(..) {
            shared.link.publish(self.reporter.reply("snapshot", Some(id), outcome.clone()));
        }
    }

    fn classify(&mut self, shared: &Shared, frame: &Frame) {
        if !self.snapshots.is_empty() {
            self.photograph(shared, frame);
        }
        let at = frame.arrived.saturating_duration_since(self.started);
        let Embeddings { size, areas, vectors, timings } = match self.embed(frame, at) {
            Ok(Some(embedded)) => embedded,
            Ok(None) => return shared.metrics.similar(),
            Err(error) => return fail(shared, cause(&error), &format_args!("frame {}: {error}", frame.name)),
        };
        let parts = match vectors.iter().map(|vector| self.decider.score(vector)).collect::<Result<Vec<_>, _>>() {
            Ok(parts) => parts,
            Err(error) => return fail(shared, "scoring", &error),
        };
        let scores = self.tiles.map_or(Aggregate::Max, |tiles| tiles.aggregate).combine(&parts);
        let changes = self.tags.update(at, &scores);
        let parts = self.tiles.map(|_| Parts { areas: &areas, scores: &parts });
        // As late as can be: what the flight controller has said since makes the place surer.
        let position = self.locator.locate(frame);
        let position = position.as_ref();
        let (vector, seen) = (&vectors[0], areas[0]);
        let classified = Classified { frame, vector, scores: &scores, size, seen, parts, timings, position };
        let (result, embedding) = self.reporter.result(&classified, &self.tags, &self.decider);
        shared.link.publish(result);
        embedding.into_iter().for_each(|embedding| shared.link.publish(embedding));
        for change in changes {
            self.locator.say(|| self.line(change));
            for message in self.reporter.change(&classified, change, &self.decider) {
                shared.link.publish(message);
            }
        }
        shared.metrics.classified(frame.arrived.elapsed());
    }

    /// A vector for each part of the frame, the whole of it first; `None` where it shows what the last one did.
    fn embed(&mut self, frame: &Frame, at: Duration) -> Result<Option<Embeddings>, VisionError> {
        let square = self.vision.square();
        let tiling = self.tiles.map(|tiles| closer::tiling(&tiles, || self.locator.locate(frame), square));
        let view = self.vision.look(&frame.picture, tiling.as_ref())?;
        if self.similar.as_mut().is_some_and(|similar| similar.skips(at, &view)) {
            return Ok(None);
        }
        let (size, areas) = (view.frame, view.areas.clone());
        let (vectors, timings) = self.vision.embed_view(view)?;
        Ok(Some(Embeddings { size, areas, vectors, timings }))
    }

    /// A change as the operator's ground station shows it.
    fn line(&self, change: Change) -> String {
        let what = if change.transition == Transition::Enter { "enter" } else { "exit" };
        format!("{what} {} {:.2}", self.decider.pack().header().labels[change.label].name, change.score)
    }
}

fn cause(error: &VisionError) -> &'static str {
    match error {
        VisionError::Decode(error) => error.cause(),
        VisionError::Preprocess(_) => "impossible_shape",
        _ => "image_tower",
    }
}

/// Counts a failed frame and logs it, each cause once.
fn fail(shared: &Shared, cause: &str, what: &dyn std::fmt::Display) {
    if shared.metrics.failed(cause) {
        log::warn!("{what} ({cause}; further ones are only counted, see health)");
    }
}
