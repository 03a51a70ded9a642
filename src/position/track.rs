//! Measurements in time, and what they say about a moment in between.
//!
//! Promise: an answer rests only on measurements within the age limit, and says how far the nearest one is. Between two of them
//! it is interpolated, beyond the last one nothing is extrapolated. No clock is read here: time is what the caller says.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Position, Source};

/// What can be interpolated.
pub trait Blend {
    /// The value at `share` (0..=1) of the way from `self` to `other`.
    #[must_use]
    fn blend(&self, other: &Self, share: f64) -> Self;
}

/// Measurements in order of time; the oldest give way.
#[derive(Debug, Clone)]
pub struct Track<T> {
    samples: VecDeque<(Duration, T)>,
    most: usize,
}

/// A value at a moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Joined<T> {
    /// The value.
    pub value: T,
    /// How far the nearest measurement is from the moment.
    pub age: Duration,
}

impl<T: Blend + Clone> Track<T> {
    /// Empty, for at most so many measurements.
    pub fn new(most: usize) -> Self {
        Self { samples: VecDeque::new(), most }
    }

    /// Adds a measurement; one that is not newer than the last is refused with `false`.
    pub fn push(&mut self, at: Duration, value: T) -> bool {
        if self.newest().is_some_and(|newest| at <= newest) {
            return false;
        }
        if self.samples.len() >= self.most {
            self.samples.pop_front();
        }
        self.samples.push_back((at, value));
        true
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.samples.clear();
    }

    /// When the last measurement was made.
    pub fn newest(&self) -> Option<Duration> {
        self.samples.back().map(|(at, _)| *at)
    }

    /// How many measurements there are.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// The value at a moment, from measurements at most `max_age` away from it.
    pub fn at(&self, moment: Duration, max_age: Duration) -> Option<Joined<T>> {
        let near = |index: usize| {
            let (at, value) = self.samples.get(index)?;
            let age = at.abs_diff(moment);
            (age <= max_age).then_some((age, value))
        };
        let next = self.samples.partition_point(|(at, _)| *at <= moment);
        match (next.checked_sub(1).and_then(near), near(next)) {
            (Some((since, before)), Some((until, after))) => {
                let share = since.as_secs_f64() / (since + until).as_secs_f64();
                Some(Joined { value: before.blend(after, share), age: since.min(until) })
            }
            (Some((age, value)), None) | (None, Some((age, value))) => Some(Joined { value: value.clone(), age }),
            (None, None) => None,
        }
    }
}

/// From `a` to `b` the shorter way round, as an angle in -180..180 degrees; longitudes likewise.
pub fn blend_angle(a: f64, b: f64, share: f64) -> f64 {
    let turn = wrap(b - a);
    wrap(a + turn * share)
}

fn wrap(degrees: f64) -> f64 {
    // Within range nothing is rounded: a place measured is published as it was.
    if (-180.0..180.0).contains(&degrees) { degrees } else { (degrees + 180.0).rem_euclid(360.0) - 180.0 }
}

/// A straight line from `a` to `b`.
pub fn blend_number(a: f64, b: f64, share: f64) -> f64 {
    a + (b - a) * share
}

/// A straight line, where both ends are known.
pub fn blend_known(a: Option<f64>, b: Option<f64>, share: f64) -> Option<f64> {
    Some(blend_number(a?, b?, share))
}

/// A place on the way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    /// Degrees.
    pub longitude: f64,
    /// Degrees.
    pub latitude: f64,
    /// Metres above mean sea level.
    pub altitude: Option<f64>,
    /// Metres above take-off.
    pub height: Option<f64>,
    /// Metres, one standard deviation.
    pub accuracy: Option<f64>,
}

impl Joined<Place> {
    /// As a position, of a camera that looks who knows where.
    pub fn position(&self, source: Source) -> Position {
        let Place { longitude, latitude, altitude, height, accuracy } = self.value;
        Position { longitude, latitude, altitude, height, camera: None, source, age: Some(self.age), accuracy }
    }
}

impl Blend for Place {
    fn blend(&self, other: &Self, share: f64) -> Self {
        Self {
            longitude: blend_angle(self.longitude, other.longitude, share),
            latitude: blend_number(self.latitude, other.latitude, share),
            altitude: blend_known(self.altitude, other.altitude, share),
            height: blend_known(self.height, other.height, share),
            // Between two places it is no better known than at the worse of them.
            accuracy: self.accuracy.zip(other.accuracy).map(|(a, b)| a.max(b)),
        }
    }
}

/// How far a message may jump ahead of the fastest one before, in seconds: more is a clock that was set, not a quicker link.
const JUMP: f64 = 1.0;
/// How far behind the newest a message may come by another way, in seconds: more is a clock that began anew.
const REORDERED: f64 = 2.0;
/// For how long messages must agree on a new time before it is believed, in seconds.
const CONFIRMED: f64 = 1.0;
/// How well they must agree, in seconds.
const AGREEMENT: f64 = 0.5;
/// How far crystals drift apart: 100 parts per million.
const DRIFT: f64 = 1e-4;

/// Learns the sender's clock from when its messages arrive. The fastest message yet tells the offset between the clocks, so
/// that a message held up on its way counts for when it was sent and not for when it came.
#[derive(Debug, Clone, Default)]
pub struct SenderClock {
    base: Option<Base>,
    suspect: Option<(f64, f64)>,
}

#[derive(Debug, Clone)]
struct Base {
    /// Our time less the sender's.
    offset: f64,
    newest: f64,
    heard: f64,
}

/// What a message's time is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stamp {
    /// It goes on from those before.
    Good,
    /// It is good, but the sender's clock has begun anew: what is known from before can't be joined to it.
    Restarted,
    /// It disagrees with all before and is not to be used.
    Jumped,
}

impl SenderClock {
    /// Judges a message that carries the sender's time `sent` and arrived at `arrived` of ours.
    pub fn hear(&mut self, sent: Duration, arrived: Duration) -> Stamp {
        let (sent, arrived) = (sent.as_secs_f64(), arrived.as_secs_f64());
        let Some(base) = &mut self.base else {
            self.base = Some(Base { offset: arrived - sent, newest: sent, heard: arrived });
            return Stamp::Good;
        };
        let offset = base.offset + (arrived - base.heard).max(0.0) * DRIFT;
        let lag = arrived - sent - offset;
        if lag < -JUMP || sent < base.newest - REORDERED {
            return self.suspect(sent, arrived);
        }
        self.suspect = None;
        *base = Base { offset: offset + lag.min(0.0), newest: base.newest.max(sent), heard: base.heard.max(arrived) };
        Stamp::Good
    }

    /// A single odd message proves nothing; several that agree over a while are a sender that was started anew.
    fn suspect(&mut self, sent: f64, arrived: f64) -> Stamp {
        let (first_sent, first_arrived) = *self.suspect.get_or_insert((sent, arrived));
        let passed = arrived - first_arrived;
        if ((sent - first_sent) - passed).abs() > AGREEMENT {
            self.suspect = Some((sent, arrived));
            return Stamp::Jumped;
        }
        if passed < CONFIRMED {
            return Stamp::Jumped;
        }
        *self = Self { base: Some(Base { offset: arrived - sent, newest: sent, heard: arrived }), suspect: None };
        Stamp::Restarted
    }

    /// What the sender's clock showed at a time of ours; `None` before it was started, or before anything was heard.
    pub fn sender_time(&self, ours: Duration) -> Option<Duration> {
        Duration::try_from_secs_f64(ours.as_secs_f64() - self.base.as_ref()?.offset).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Blend for f64 {
        fn blend(&self, other: &Self, share: f64) -> Self {
            blend_number(*self, *other, share)
        }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn track(samples: &[(u64, f64)]) -> Track<f64> {
        let mut track = Track::new(1000);
        samples.iter().for_each(|&(at, value)| {
            track.push(ms(at), value);
        });
        track
    }

    #[test]
    fn between_two_it_is_interpolated_and_beyond_the_last_it_is_held_for_a_while() {
        let track = track(&[(1000, 10.0), (2000, 20.0)]);
        let at = |moment| track.at(ms(moment), ms(1500)).map(|joined| (joined.value, joined.age));
        assert_eq!(at(1250), Some((12.5, ms(250))));
        assert_eq!(at(2000), Some((20.0, ms(0))));
        assert_eq!(at(3500), Some((20.0, ms(1500))));
        assert_eq!(at(3501), None);
        assert_eq!(at(400), Some((10.0, ms(600))), "a frame just before the first measurement");
        assert_eq!(Track::<f64>::new(4).at(ms(0), ms(1000)), None);
    }

    #[test]
    fn a_measurement_too_far_away_has_no_part_in_it() {
        let track = track(&[(1000, 10.0), (9000, 20.0)]);
        assert_eq!(track.at(ms(1500), ms(1000)), Some(Joined { value: 10.0, age: ms(500) }));
        assert_eq!(track.at(ms(5000), ms(1000)), None);
    }

    #[test]
    fn what_is_not_newer_is_refused_and_the_oldest_give_way() {
        let mut track = Track::new(3);
        assert!(track.push(ms(5), 1.0) && !track.push(ms(5), 2.0) && !track.push(ms(4), 2.0));
        (6..=20).for_each(|at| assert!(track.push(ms(at), 0.0)));
        assert_eq!((track.len(), track.at(ms(5), ms(1))), (3, None));
    }

    #[test]
    fn across_the_antimeridian_and_through_north_it_takes_the_short_way() {
        assert!((blend_angle(179.9, -179.7, 0.25) - -180.0).abs() < 1e-9);
        assert!((blend_angle(-179.9, 179.9, 0.75) - 179.95).abs() < 1e-9);
        assert!((blend_angle(350.0, 10.0, 0.5)).abs() < 1e-9);
    }

    /// Milliseconds of the sender's clock at a time of ours.
    fn sender(clock: &SenderClock, ours: u64) -> u128 {
        (clock.sender_time(ms(ours)).unwrap() + Duration::from_micros(1)).as_millis()
    }

    #[test]
    fn the_fastest_message_tells_the_offset() {
        let mut clock = SenderClock::default();
        assert_eq!(clock.sender_time(ms(1)), None);
        assert_eq!(clock.hear(ms(500), ms(10_100)), Stamp::Good);
        assert_eq!(sender(&clock, 10_100), 500);
        clock.hear(ms(600), ms(10_150));
        assert_eq!(sender(&clock, 10_150), 600, "it was faster");
        clock.hear(ms(700), ms(13_000));
        assert!(sender(&clock, 13_000) >= 3449, "it was held up");
        assert_eq!(clock.sender_time(ms(9000)), None, "before the sender was started");
    }

    #[test]
    fn one_odd_stamp_is_dropped_and_a_restart_believed_after_a_second() {
        let mut clock = SenderClock::default();
        clock.hear(ms(60_000), ms(1000));
        assert_eq!(clock.hear(ms(500_000), ms(1100)), Stamp::Jumped);
        assert_eq!(clock.hear(ms(60_200), ms(1200)), Stamp::Good, "the old time goes on");
        for tick in 0..10 {
            assert_eq!(clock.hear(ms(tick * 100), ms(2000 + tick * 100)), Stamp::Jumped);
        }
        assert_eq!(clock.hear(ms(1000), ms(3000)), Stamp::Restarted);
        assert_eq!((clock.hear(ms(1100), ms(3100)), sender(&clock, 3100)), (Stamp::Good, 1100));
    }

    proptest! {
        #[test]
        fn nothing_outside_the_age_limit_is_ever_used(
            steps in proptest::collection::vec(1u64..3000, 0..40), moment in 0u64..60_000, max_age in 0u64..5000
        ) {
            // Each value is its own time, so that an answer tells which measurements it was made of.
            let times: Vec<u64> = steps.iter().scan(0, |at, step| { *at += step; Some(*at) }).collect();
            let track = track(&times.iter().map(|&at| (at, at as f64)).collect::<Vec<_>>());
            let nearest = times.iter().map(|at| at.abs_diff(moment)).min();
            match track.at(ms(moment), ms(max_age)) {
                Some(joined) => {
                    prop_assert_eq!(Some(joined.age), nearest.map(ms));
                    prop_assert!(joined.age <= ms(max_age));
                    prop_assert!((joined.value - moment as f64).abs() <= max_age as f64 + 1e-6);
                }
                None => prop_assert!(nearest.is_none_or(|nearest| nearest > max_age)),
            }
        }

        #[test]
        fn an_angle_between_two_is_between_them(a in -180.0..180.0, b in -180.0..180.0, share in 0.0..=1.0) {
            let turn = wrap(b - a);
            let part = wrap(blend_angle(a, b, share) - a);
            prop_assert!((-180.0..180.0).contains(&blend_angle(a, b, share)));
            prop_assert!(part.abs() <= turn.abs() + 1e-9 && (part * turn >= 0.0 || part.abs() < 1e-9), "{part} of {turn}");
        }

        #[test]
        fn no_message_was_sent_after_its_arrival(messages in proptest::collection::vec((0u64..100_000, 0u64..500), 1..100)) {
            let mut clock = SenderClock::default();
            let mut arrived = 0;
            for (sent, wait) in messages {
                arrived += wait;
                if clock.hear(ms(sent), ms(arrived)) != Stamp::Jumped {
                    let then = clock.sender_time(ms(arrived)).unwrap();
                    prop_assert!(ms(sent) <= then + Duration::from_micros(1), "{sent} {then:?}");
                }
            }
        }
    }
}
