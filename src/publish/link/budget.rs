//! How much a thin link may be given, in bytes a minute.
//!
//! A bucket of one minute's worth that fills evenly. State and health always go (they are small and few) and are charged;
//! events wait until the bucket is not overdrawn; results go only while it is more than half full, so on a thin link they
//! are thinned first and events never.

use std::time::{Duration, Instant};

/// What a message asks of the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    Always,
    Event,
    Result,
}

#[derive(Debug)]
pub(super) struct Budget {
    per_minute: Option<f64>,
    level: f64,
    at: Instant,
}

impl Budget {
    /// `None` is no limit.
    pub fn new(bytes_per_minute: Option<u64>, now: Instant) -> Self {
        let per_minute = bytes_per_minute.map(|bytes| bytes as f64);
        Self { per_minute, level: per_minute.unwrap_or(0.0), at: now }
    }

    /// How long a message must wait; zero when it may go.
    pub fn wait(&mut self, need: Need, now: Instant) -> Duration {
        let Some(capacity) = self.per_minute else { return Duration::ZERO };
        self.fill(capacity, now);
        let least = match need {
            Need::Always => return Duration::ZERO,
            Need::Event => 0.0,
            Need::Result => capacity / 2.0,
        };
        if self.level > least {
            return Duration::ZERO;
        }
        // A byte more than the least is enough.
        Duration::from_secs_f64(((least - self.level + 1.0) / capacity * 60.0).clamp(0.001, 60.0))
    }

    pub fn spend(&mut self, bytes: usize, now: Instant) {
        if let Some(capacity) = self.per_minute {
            self.fill(capacity, now);
            self.level -= bytes as f64;
        }
    }

    fn fill(&mut self, capacity: f64, now: Instant) {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.level = (self.level + seconds * capacity / 60.0).min(capacity);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_held_back_before_events_and_the_sum_stays_within_the_budget() {
        let start = Instant::now();
        let mut budget = Budget::new(Some(60_000), start);
        let (mut events, mut results) = (0usize, 0usize);
        // Ten minutes in which both are always at hand, a millisecond a step.
        for step in 0..600_000u64 {
            let now = start + Duration::from_millis(step);
            if step % 500 == 0 && budget.wait(Need::Event, now).is_zero() {
                budget.spend(400, now);
                events += 400;
            }
            if budget.wait(Need::Result, now).is_zero() {
                budget.spend(800, now);
                results += 800;
            }
        }
        assert_eq!(events, 400 * 1200, "no event had to wait");
        let total = events + results;
        assert!(total <= 60_000 * 11 && total > 60_000 * 9, "{total}");
    }

    #[test]
    fn when_even_events_are_too_many_they_are_paced() {
        let start = Instant::now();
        let mut budget = Budget::new(Some(6_000), start);
        let mut sent = 0;
        for step in 0..120_000u64 {
            let now = start + Duration::from_millis(step);
            if budget.wait(Need::Event, now).is_zero() {
                budget.spend(500, now);
                sent += 500;
            }
        }
        assert!((12_000..=19_000).contains(&sent), "{sent} in two minutes and one minute's worth before");
    }

    #[test]
    fn no_limit_holds_nothing_back() {
        let now = Instant::now();
        let mut budget = Budget::new(None, now);
        budget.spend(usize::MAX / 2, now);
        assert!(budget.wait(Need::Result, now).is_zero());
    }
}
