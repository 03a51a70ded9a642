//! Waiting between two tries: twice as long each time, up to a bound, and never at the same moment as everybody else.

use std::time::Duration;

#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    wait: Duration,
}

impl Backoff {
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, wait: first.min(longest) }
    }

    /// The next wait: between half and all of the current step ("equal jitter"), which then doubles.
    pub fn next(&mut self) -> Duration {
        let share = f64::from(uuid::Uuid::new_v4().as_bytes()[0]) / 510.0;
        let wait = self.wait.mul_f64(0.5 + share);
        self.wait = (self.wait * 2).min(self.longest);
        wait
    }

    pub fn reset(&mut self) {
        self.wait = self.first.min(self.longest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_bound_with_jitter() {
        let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(2));
        let mut step = Duration::from_millis(250);
        for _ in 0..8 {
            let wait = backoff.next();
            assert!(wait >= step / 2 && wait <= step, "{wait:?} of {step:?}");
            step = (step * 2).min(Duration::from_secs(2));
        }
        backoff.reset();
        assert!(backoff.next() <= Duration::from_millis(250));
    }
}
