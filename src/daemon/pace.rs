//! How long the classifier rests after a frame: a wanted rate, a share of the time, and a board that must not get hot.
//!
//! Promise: within ten degrees below the limit the classifier slows down in proportion, so that it gives way before the board
//! throttles itself; at the limit and above a tenth of its work is left. Without a temperature it says so and goes on.

use std::time::Duration;

use crate::config::PaceConfig;
use crate::publish::PacePayload;

/// Kelvin below the limit at which slowing down begins.
const SPAN: f64 = 10.0;
/// What is left at the limit.
const LEAST: f64 = 0.1;

/// The pace of one session.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    config: PaceConfig,
    temperature: Option<f64>,
}

impl Pace {
    pub fn new(config: PaceConfig) -> Self {
        Self { config, temperature: None }
    }

    /// The rest after a frame that kept the classifier busy for so long, on a board of this many degrees Celsius; they are asked
    /// for only where they have a say.
    pub fn rest(&mut self, busy: Duration, temperature: impl FnOnce() -> Option<f64>) -> Duration {
        self.temperature = self.config.max_temperature.and_then(|_| temperature());
        let (busy, factor) = (busy.as_secs_f64(), self.factor());
        let by_rate = self.config.frames_per_second.map_or(0.0, |rate| 1.0 / (rate * factor) - busy);
        let by_share = busy / (self.config.duty_cycle * factor) - busy;
        Duration::from_secs_f64(by_rate.max(by_share).max(0.0))
    }

    /// What the temperature leaves of the pace, 0.1 to 1.
    fn factor(&self) -> f64 {
        match (self.config.max_temperature, self.temperature) {
            (Some(limit), Some(temperature)) => ((limit - temperature) / SPAN).clamp(LEAST, 1.0),
            _ => 1.0,
        }
    }

    /// For `health`.
    pub fn state(&self) -> PacePayload {
        let factor = self.factor();
        let reason = match (self.config.max_temperature, self.temperature) {
            (Some(limit), Some(temperature)) if factor < 1.0 => {
                Some(format!("{temperature:.1} °C; slows down from {:.1} to {limit:.1}", limit - SPAN))
            }
            (Some(_), None) => Some("no thermal zone can be read; the temperature has no say".to_owned()),
            _ => None,
        };
        PacePayload { state: if factor < 1.0 { "slowed" } else { "full" }, factor, reason }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pace(frames_per_second: Option<f64>, duty_cycle: f64, max_temperature: Option<f64>) -> Pace {
        Pace::new(PaceConfig { frames_per_second, duty_cycle, max_temperature })
    }

    /// Frames that take `busy` each, on a clock of our own: how many in a minute, and the share of it that was work.
    fn minute(pace: &mut Pace, busy: Duration, temperature: Option<f64>) -> (f64, f64) {
        let (mut clock, mut frames) = (Duration::ZERO, 0);
        while clock < Duration::from_secs(60) {
            clock += busy + pace.rest(busy, || temperature);
            frames += 1;
        }
        (f64::from(frames) / clock.as_secs_f64(), busy.as_secs_f64() * f64::from(frames) / clock.as_secs_f64())
    }

    const BUSY: Duration = Duration::from_millis(20);

    #[test]
    fn without_limits_there_is_no_rest() {
        assert_eq!(pace(None, 1.0, None).rest(BUSY, || Some(99.0)), Duration::ZERO);
    }

    #[test]
    fn the_rate_and_the_share_are_kept_and_the_stricter_decides() {
        let (rate, _) = minute(&mut pace(Some(4.0), 1.0, None), BUSY, None);
        assert!((rate - 4.0).abs() < 0.01, "{rate}");
        let (_, share) = minute(&mut pace(None, 0.25, None), BUSY, None);
        assert!((share - 0.25).abs() < 0.01, "{share}");
        let (rate, share) = minute(&mut pace(Some(4.0), 0.05, None), BUSY, None);
        assert!((share - 0.05).abs() < 0.01 && rate < 4.0, "{rate} {share}");
        // A model slower than the rate simply goes on.
        assert_eq!(pace(Some(100.0), 1.0, None).rest(BUSY, || None), Duration::ZERO);
    }

    #[test]
    fn it_slows_down_in_proportion_before_the_limit_and_says_why() {
        let mut pace = pace(Some(10.0), 1.0, Some(80.0));
        for (temperature, rate, state) in [
            (60.0, 10.0, "full"),
            (70.0, 10.0, "full"),
            (75.0, 5.0, "slowed"),
            (78.0, 2.0, "slowed"),
            (95.0, 1.0, "slowed"),
        ] {
            let (found, _) = minute(&mut pace, BUSY, Some(temperature));
            assert!((found - rate).abs() < 0.05 * rate, "{temperature} °C: {found}");
            assert_eq!(pace.state().state, state);
            assert_eq!(pace.state().reason.is_some(), state == "slowed");
        }
        assert_eq!(pace.state().reason.unwrap(), "95.0 °C; slows down from 70.0 to 80.0");
    }

    #[test]
    fn a_board_without_a_thermometer_is_told_of() {
        let mut pace = pace(None, 1.0, Some(80.0));
        assert_eq!(pace.rest(BUSY, || None), Duration::ZERO);
        let state = pace.state();
        assert!(state.state == "full" && state.reason.unwrap().contains("no thermal zone"));
    }

    proptest! {
        #[test]
        fn hotter_is_never_faster(busy in 1u64..500, one in 0.0f64..120.0, other in 0.0f64..120.0) {
            let mut pace = pace(Some(5.0), 0.5, Some(85.0));
            let mut rest = |temperature| pace.rest(Duration::from_millis(busy), || Some(temperature));
            prop_assert!(rest(one.min(other)) <= rest(one.max(other)));
        }
    }
}
