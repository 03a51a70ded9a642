//! What the service manager (systemd) is told, by sd_notify(3): ready, stopping, and that frames still move.
//!
//! Promise: the watchdog is fed only after both threads of a frame's way have come round since it was last fed: the camera
//! has delivered or said that it has nothing, and the classifier has finished a frame or found none. A source that is
//! idle, a camera that is being opened again and a broker that is away keep both coming round; a driver, an engine or a
//! lock that hangs does not, and the manager starts us anew. Without a manager all of this does nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// Marks that the threads of a frame's way leave as they come round.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    camera: AtomicBool,
    classifier: AtomicBool,
    delivering: AtomicBool,
}

impl Pulse {
    /// The camera has answered.
    pub fn camera(&self) {
        self.camera.store(true, Ordering::Relaxed);
    }

    /// The camera's thread waits for the classifier, or has ended: what moves now depends on the classifier alone.
    pub fn delivering(&self, delivering: bool) {
        self.delivering.store(delivering, Ordering::Relaxed);
    }

    /// The classifier has finished a frame, or there is none to be had.
    pub fn classifier(&self) {
        self.classifier.store(true, Ordering::Relaxed);
    }

    /// Whether both came round since this last said so.
    pub fn beat(&self) -> bool {
        let camera = self.camera.load(Ordering::Relaxed) || self.delivering.load(Ordering::Relaxed);
        let beat = camera && self.classifier.load(Ordering::Relaxed);
        if beat {
            self.camera.store(false, Ordering::Relaxed);
            self.classifier.store(false, Ordering::Relaxed);
        }
        beat
    }
}

/// The service manager's watchdog, if it watches us.
#[derive(Debug)]
pub(super) struct Watchdog {
    interval: Option<Duration>,
    due: Instant,
    missed: u32,
}

impl Watchdog {
    /// As the manager's variables ask for.
    pub fn new() -> Self {
        // Four chances within the manager's limit.
        let interval = sd_notify::watchdog_enabled().map(|limit| limit / 4);
        Self { interval, due: Instant::now() + interval.unwrap_or_default(), missed: 0 }
    }

    /// Time until it wants to be fed; `None` when nobody watches.
    pub fn until_due(&self) -> Option<Duration> {
        self.interval.map(|_| self.due.saturating_duration_since(Instant::now()))
    }

    /// Feeds it if it is due and `pulse` beats.
    pub fn feed(&mut self, pulse: &Pulse) {
        let Some(interval) = self.interval else { return };
        if Instant::now() < self.due {
            return;
        }
        self.due = Instant::now() + interval;
        if pulse.beat() {
            self.missed = 0;
            return tell(NotifyState::Watchdog);
        }
        self.missed += 1;
        // Half of the limit has gone.
        if self.missed == 2 {
            log::warn!("camera or classifier has not come round for {:.1} s", (interval * 2).as_secs_f32());
        }
    }
}

/// Frames are being taken.
pub(super) fn ready() {
    tell(NotifyState::Ready);
}

/// The end has begun.
pub(super) fn stopping() {
    tell(NotifyState::Stopping);
}

fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        log::warn!("the service manager cannot be told: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::Pulse;

    #[test]
    fn it_beats_only_when_both_threads_came_round_again() {
        let pulse = Pulse::default();
        assert!(!pulse.beat());
        pulse.camera();
        assert!(!pulse.beat(), "the classifier hangs");
        pulse.classifier();
        assert!(pulse.beat());
        pulse.classifier();
        assert!(!pulse.beat(), "the camera hangs");
        pulse.camera();
        assert!(pulse.beat());
    }

    #[test]
    fn a_camera_that_waits_for_the_classifier_does_not_hang() {
        let pulse = Pulse::default();
        pulse.delivering(true);
        assert!(!pulse.beat(), "the classifier hangs");
        pulse.classifier();
        assert!(pulse.beat());
        pulse.delivering(false);
        pulse.classifier();
        assert!(!pulse.beat(), "the camera hangs");
    }
}
