//! What the daemon counts, for `health`.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::publish::{LatencySummary, PacePayload};

/// Latencies kept between two health messages; at more frames than this the newest count.
const KEPT: usize = 4096;

/// Counters shared by the threads of a session.
#[derive(Debug)]
pub(super) struct Metrics {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    frames: u64,
    similar: u64,
    pace: Option<PacePayload>,
    failed: BTreeMap<String, u64>,
    since: Instant,
    frames_since: u64,
    latencies: Vec<f64>,
}

/// A reading, since the start and since the reading before.
#[derive(Debug)]
pub(super) struct Reading {
    pub frames: u64,
    pub similar: u64,
    pub pace: Option<PacePayload>,
    pub failed: BTreeMap<String, u64>,
    pub fps: f64,
    pub latency_ms: Option<LatencySummary>,
}

impl Metrics {
    pub fn new() -> Self {
        let state = State {
            frames: 0,
            similar: 0,
            pace: None,
            failed: BTreeMap::new(),
            since: Instant::now(),
            frames_since: 0,
            latencies: Vec::new(),
        };
        Self { state: Mutex::new(state) }
    }

    /// A frame was classified, `latency` after it arrived.
    pub fn classified(&self, latency: Duration) {
        let mut state = self.lock();
        state.frames += 1;
        state.frames_since += 1;
        if state.latencies.len() == KEPT {
            state.latencies.clear();
        }
        state.latencies.push(latency.as_secs_f64() * 1000.0);
    }

    /// A frame was not classified because it shows what the last one did.
    pub fn similar(&self) {
        self.lock().similar += 1;
    }

    /// How fast the classifier may go.
    pub fn paced(&self, pace: PacePayload) {
        self.lock().pace = Some(pace);
    }

    /// A frame failed; true the first time for this cause.
    pub fn failed(&self, cause: &str) -> bool {
        let mut state = self.lock();
        let count = state.failed.entry(cause.to_owned()).or_default();
        *count += 1;
        *count == 1
    }

    /// Reads the counters and begins the next stretch.
    pub fn read(&self) -> Reading {
        let mut state = self.lock();
        let seconds = state.since.elapsed().as_secs_f64().max(f64::EPSILON);
        let fps = state.frames_since as f64 / seconds;
        let mut latencies = std::mem::take(&mut state.latencies);
        (state.since, state.frames_since) = (Instant::now(), 0);
        latencies.sort_by(f64::total_cmp);
        let latency_ms =
            latencies.last().map(|max| LatencySummary { median: latencies[latencies.len() / 2], max: *max });
        Reading {
            frames: state.frames,
            similar: state.similar,
            pace: state.pace.clone(),
            failed: state.failed.clone(),
            fps,
            latency_ms,
        }
    }

    // A panic elsewhere leaves plain counters behind: the lock stays usable.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_new_once() {
        let metrics = Metrics::new();
        assert!(metrics.failed("broken_picture"));
        assert!(!metrics.failed("broken_picture"));
        assert!(metrics.failed("too_many_pixels"));
        assert_eq!(metrics.read().failed["broken_picture"], 2);
    }

    #[test]
    fn a_reading_begins_the_next_stretch() {
        let metrics = Metrics::new();
        (1..=3).for_each(|ms| metrics.classified(Duration::from_millis(ms)));
        let first = metrics.read();
        assert_eq!((first.frames, first.latency_ms.unwrap().median, first.latency_ms.unwrap().max), (3, 2.0, 3.0));
        let second = metrics.read();
        assert!(second.latency_ms.is_none() && second.frames == 3 && second.fps == 0.0);
    }
}
