//! The two threads either side of the slot: the camera's, and the one that classifies and publishes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::manager::Pulse;
use super::metrics::Metrics;
use super::report::{Classified, Reporter};
use crate::camera::{Camera, CameraError, Frame, Next, Policy, Slot};
use crate::decide::{Decider, Tags};
use crate::publish::Link;
use crate::vision::{Vision, VisionError};

/// How long a thread may take to notice a stop.
const PATIENCE: Duration = Duration::from_millis(100);
/// First wait before a lost camera is opened again; doubles up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Opens the camera, again if need be.
pub(super) type Open = Box<dyn Fn() -> Result<Box<dyn Camera>, CameraError> + Send>;

/// What both threads share.
pub(super) struct Shared {
    pub slot: Slot,
    pub policy: Policy,
    pub stopping: AtomicBool,
    pub pulse: Pulse,
    pub metrics: Metrics,
    pub link: Link,
}

impl Shared {
    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// The camera's thread sleeps in small steps; false when a stop came.
    fn sleep(&self, time: Duration) -> bool {
        let mut left = time;
        while !left.is_zero() && !self.stopping() {
            self.pulse.camera();
            let step = left.min(PATIENCE);
            thread::sleep(step);
            left -= step;
        }
        !self.stopping()
    }
}

/// The camera's thread: frames into the slot, until the source ends or a stop.
pub(super) fn film(shared: &Shared, mut camera: Box<dyn Camera>, open: &Open) {
    while !shared.stopping() {
        let answer = camera.next(PATIENCE);
        shared.pulse.camera();
        match answer {
            Ok(Next::Frame(frame)) => {
                shared.pulse.delivering(true);
                shared.slot.put(frame);
                shared.pulse.delivering(false);
            }
            Ok(Next::Idle) => {}
            Ok(Next::End) => break,
            Err(error @ CameraError::Frame { .. }) => fail(shared, "unreadable_frame", &error),
            Err(error @ CameraError::Source { .. }) => {
                log::error!("{error}; trying to open it again");
                shared.metrics.failed("camera_lost");
                match reopen(shared, open) {
                    Some(opened) => camera = opened,
                    None => break,
                }
            }
        }
    }
    shared.pulse.delivering(true);
    shared.slot.close();
}

fn reopen(shared: &Shared, open: &Open) -> Option<Box<dyn Camera>> {
    let mut wait = FIRST_WAIT;
    while shared.sleep(wait) {
        match open() {
            Ok(camera) => {
                log::info!("the camera is back");
                return Some(camera);
            }
            Err(error) => log::debug!("{error}"),
        }
        wait = (wait * 2).min(LONGEST_WAIT);
    }
    None
}

/// What the classifying thread owns.
pub(super) struct Classifier {
    pub vision: Vision,
    pub decider: Decider,
    pub tags: Tags,
    pub reporter: Arc<Reporter>,
}

impl Classifier {
    /// Frames out of the slot, results to the link, until the slot is closed and empty or a stop.
    pub fn run(mut self, shared: &Shared) {
        while !shared.stopping() {
            shared.pulse.classifier();
            // A source that is read once must lose nothing, so it waits for the broker; a live one goes on without.
            if shared.policy == Policy::Every && !shared.link.connected() {
                thread::sleep(PATIENCE / 10);
                continue;
            }
            match shared.slot.take(PATIENCE) {
                Ok(Some(frame)) => self.classify(shared, &frame),
                Ok(None) => {}
                Err(crate::camera::Closed) => break,
            }
        }
    }

    fn classify(&mut self, shared: &Shared, frame: &Frame) {
        let embedded = match self.vision.embed(&frame.picture) {
            Ok(embedded) => embedded,
            Err(error) => return fail(shared, cause(&error), &format_args!("frame {}: {error}", frame.name)),
        };
        let scores = match self.decider.score(&embedded.vector) {
            Ok(scores) => scores,
            Err(error) => return fail(shared, "scoring", &error),
        };
        let changes = self.tags.update(&scores.labels);
        let classified = Classified { frame, scores: &scores, timings: embedded.timings };
        shared.link.publish(self.reporter.result(&classified, &self.tags, &self.decider));
        for change in changes {
            for message in self.reporter.change(&classified, change, &self.decider) {
                shared.link.publish(message);
            }
        }
        shared.metrics.classified(frame.arrived.elapsed());
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
