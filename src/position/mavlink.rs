//! The flight controller's word: MAVLink 1 and 2 (<https://mavlink.io>) over UDP or a serial line.
//!
//! Promise: messages of other systems, bad checksums, cut packets, old and repeated messages and clocks that jump are counted and
//! survived, whatever their number; memory stays flat. A place is taken only while the receiver states a 3D fix.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use mavlink_core::MavHeader;

use super::track::{Blend, Place, SenderClock, Stamp, Track, blend_angle};
use super::{Orientation, Position, Source, plausible};

mod crc_extra;
mod dialect;
mod port;
mod talk;

pub use dialect::Message;
pub use port::Endpoint;

/// Measurements kept of each kind: a minute at the 50 a second that flight controllers send at most.
const KEPT: usize = 3000;
/// How long a fix, and the armed state, count; both are sent once a second or oftener.
const PATIENCE: Duration = Duration::from_secs(5);
/// `GPS_FIX_TYPE_3D_FIX`; above are better ones.
const FIX_3D: u8 = 3;
/// `MAV_MODE_FLAG_SAFETY_ARMED`.
const ARMED: u8 = 128;
/// Lines that wait for being sent; the oldest give way.
const MOST_LINES: usize = 8;

/// How to hear a flight controller.
#[derive(Debug, Clone, PartialEq)]
pub struct MavlinkOptions {
    /// Where it speaks.
    pub endpoint: Endpoint,
    /// The vehicle's system id; others are not listened to.
    pub system_id: u8,
    /// How a camera fixed to the airframe looks: degrees above the nose's direction, -90 straight down.
    pub mount_pitch: Option<f64>,
    /// Whether to send heartbeats, this computer's state and events back.
    pub report: bool,
}

/// What the flight controller has said.
#[derive(Debug)]
pub struct Telemetry {
    options: MavlinkOptions,
    max_age: Duration,
    started: Instant,
    state: Mutex<State>,
    lines: Mutex<VecDeque<String>>,
    skipped: AtomicU64,
}

#[derive(Debug)]
struct State {
    /// The flight controller's; the tracks are in its time.
    clock: SenderClock,
    places: Track<Place>,
    attitudes: Track<Orientation>,
    fix: Option<Heard<Fix>>,
    armed: Option<Heard<bool>>,
    /// The vehicle's clock less ours, milliseconds.
    clock_offset_ms: Option<i64>,
    counts: Counts,
}

/// What was said last, and when.
#[derive(Debug, Clone, Copy)]
struct Heard<T> {
    at: Duration,
    value: T,
}

impl<T> Heard<T> {
    fn fresh(self, now: Duration) -> Option<T> {
        (now.saturating_sub(self.at) <= PATIENCE).then_some(self.value)
    }
}

#[derive(Debug, Clone, Copy)]
struct Fix {
    good: bool,
    accuracy: Option<f64>,
}

/// What came in.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    messages: u64,
    bad: u64,
    wrong_system: u64,
    out_of_order: u64,
    jumped: u64,
}

/// Whether there is a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FixState {
    /// None yet, or the receiver says that it has none.
    None,
    /// One within the age limit.
    Fix,
    /// The last one is older.
    Stale,
}

/// The flight controller in `health`.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct TelemetryHealth {
    /// Always `mavlink`: the one source that can fall silent.
    pub source: Source,
    /// Whether there is a position.
    pub state: FixState,
    /// Milliseconds since the last position.
    pub age_ms: Option<u64>,
    /// Whether the vehicle is armed; null when it has not said so for five seconds.
    pub armed: Option<bool>,
    /// Frames not classified because it was not, since the start.
    pub frames_disarmed: u64,
    /// The vehicle's clock less ours in milliseconds; null while it does not know the time.
    pub clock_offset_ms: Option<i64>,
    /// Messages with a good checksum, since the start.
    pub messages: u64,
    /// Messages with a bad one.
    pub bad: u64,
    /// Messages of other systems, a ground station's among them.
    pub wrong_system: u64,
    /// Measurements not newer than the last.
    pub out_of_order: u64,
    /// Measurements whose time disagreed with all before.
    pub jumped: u64,
}

impl Blend for Orientation {
    fn blend(&self, other: &Self, share: f64) -> Self {
        let angle = |a, b| blend_angle(a, b, share);
        Self {
            yaw: angle(self.yaw, other.yaw),
            pitch: angle(self.pitch, other.pitch),
            roll: angle(self.roll, other.roll),
        }
    }
}

impl Telemetry {
    /// Nothing heard yet.
    pub fn new(options: &MavlinkOptions, max_age: Duration) -> Self {
        let state = State {
            clock: SenderClock::default(),
            places: Track::new(KEPT),
            attitudes: Track::new(KEPT),
            fix: None,
            armed: None,
            clock_offset_ms: None,
            counts: Counts::default(),
        };
        Self {
            options: options.clone(),
            max_age,
            started: Instant::now(),
            state: Mutex::new(state),
            lines: Mutex::default(),
            skipped: AtomicU64::new(0),
        }
    }

    /// Takes in a message that arrived at `now`; false when it is another system's.
    pub fn receive(&self, header: MavHeader, message: &Message, now: Instant) -> bool {
        let now = now.saturating_duration_since(self.started);
        let mut state = self.lock();
        if header.system_id != u32::from(self.options.system_id) {
            state.counts.wrong_system += 1;
            return false;
        }
        state.take(message, now);
        true
    }

    /// Takes in all messages among these bytes, as if they had arrived now.
    pub fn take_in(&self, bytes: &[u8]) {
        let mut ear = talk::Ear::new(bytes);
        while ear.hear(self).is_ok() {}
    }

    /// Where the vehicle was, and how a fixed camera looked.
    pub fn position(&self, taken: Instant) -> Option<Position> {
        let moment = taken.checked_duration_since(self.started)?;
        let state = self.lock();
        let moment = state.clock.sender_time(moment)?;
        let joined = state.places.at(moment, self.max_age)?;
        let look = |mount| Some(turned(state.attitudes.at(moment, self.max_age)?.value, mount));
        Some(Position { camera: self.options.mount_pitch.and_then(look), ..joined.position(Source::Mavlink) })
    }

    /// Whether the vehicle is armed, if it has said so within five seconds.
    pub fn armed(&self, now: Instant) -> Option<bool> {
        self.lock().armed?.fresh(now.saturating_duration_since(self.started))
    }

    /// A frame was not classified because the vehicle was not armed.
    pub fn skipped(&self) {
        self.skipped.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether anything is to be said back.
    pub fn reports(&self) -> bool {
        self.options.report
    }

    /// Has a line said to the operator's ground station.
    pub fn say(&self, line: String) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == MOST_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// What stands in `health`.
    pub fn health(&self, now: Instant) -> TelemetryHealth {
        let now = now.saturating_duration_since(self.started);
        let state = self.lock();
        let newest = state.places.newest().zip(state.clock.sender_time(now));
        let age = newest.map(|(at, now)| now.saturating_sub(at));
        let has_fix = state.fix.is_some_and(|fix| fix.fresh(now).is_none_or(|fix| fix.good));
        TelemetryHealth {
            source: Source::Mavlink,
            state: match age {
                Some(age) if has_fix && age <= self.max_age => FixState::Fix,
                Some(_) if has_fix => FixState::Stale,
                _ => FixState::None,
            },
            age_ms: age.map(|age| age.as_millis() as u64),
            armed: state.armed.and_then(|armed| armed.fresh(now)),
            frames_disarmed: self.skipped.load(Ordering::Relaxed),
            clock_offset_ms: state.clock_offset_ms,
            messages: state.counts.messages,
            bad: state.counts.bad,
            wrong_system: state.counts.wrong_system,
            out_of_order: state.counts.out_of_order,
            jumped: state.counts.jumped,
        }
    }

    fn count(&self, good: u64, bad: u64) {
        let counts = &mut self.lock().counts;
        counts.messages += good;
        counts.bad += bad;
    }

    fn next_line(&self) -> Option<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    // A panic elsewhere leaves plain data behind: the lock stays usable.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, message: &Message, now: Duration) {
        match *message {
            Message::Heartbeat { autopilot, base_mode } if autopilot != dialect::NO_AUTOPILOT => {
                self.armed = Some(Heard { at: now, value: base_mode & ARMED != 0 });
            }
            Message::GpsRaw { fix_type, accuracy_mm } => {
                let accuracy = (accuracy_mm > 0).then(|| f64::from(accuracy_mm) / 1000.0);
                self.fix = Some(Heard { at: now, value: Fix { good: fix_type >= FIX_3D, accuracy } });
            }
            Message::SystemTime { unix_us, boot_ms } => {
                let known = self.believed(boot_ms, now) && unix_us > 0;
                if known {
                    let theirs = i64::try_from(unix_us / 1000).unwrap_or(i64::MAX);
                    self.clock_offset_ms = Some(theirs.saturating_sub(Timestamp::now().as_millisecond()));
                }
            }
            Message::Attitude { boot_ms, angles: [roll, pitch, yaw] } => {
                let [roll, pitch, yaw] = [roll, pitch, yaw].map(|angle| f64::from(angle).to_degrees());
                if self.believed(boot_ms, now) && roll.is_finite() && pitch.is_finite() && yaw.is_finite() {
                    let newer = self.attitudes.push(since_boot(boot_ms), Orientation { yaw, pitch, roll });
                    self.counts.out_of_order += u64::from(!newer);
                }
            }
            Message::GlobalPosition { boot_ms, longitude, latitude, altitude, height } => {
                if !self.believed(boot_ms, now) {
                    return;
                }
                let [longitude, latitude] = [longitude, latitude].map(|degrees| f64::from(degrees) / 1e7);
                let [altitude, height] = [altitude, height].map(|metres| Some(f64::from(metres) / 1000.0));
                let fix = self.fix.and_then(|fix| fix.fresh(now)).filter(|fix| fix.good);
                let Some(Fix { accuracy, .. }) = fix.filter(|_| plausible(longitude, latitude)) else { return };
                let place = Place { longitude, latitude, altitude, height, accuracy };
                let newer = self.places.push(since_boot(boot_ms), place);
                self.counts.out_of_order += u64::from(!newer);
            }
            _ => {}
        }
    }

    /// Whether the time of a measurement can be believed.
    fn believed(&mut self, boot_ms: u32, now: Duration) -> bool {
        let stamp = self.clock.hear(since_boot(boot_ms), now);
        match stamp {
            Stamp::Good => {}
            Stamp::Restarted => {
                self.places.clear();
                self.attitudes.clear();
                log::warn!("position: the flight controller's clock began anew");
            }
            Stamp::Jumped => self.counts.jumped += 1,
        }
        stamp != Stamp::Jumped
    }
}

fn since_boot(boot_ms: u32) -> Duration {
    Duration::from_millis(boot_ms.into())
}

/// How a camera looks that is fixed to an airframe of this attitude, turned up from its nose by `mount` degrees: where its
/// axes forward, right and down point, and the yaw, pitch and roll that would turn them there.
fn turned(airframe: Orientation, mount: f64) -> Orientation {
    let (sine, cosine) = mount.to_radians().sin_cos();
    let axis = airframe.turn([cosine, 0.0, -sine]);
    let right = airframe.turn([0.0, 1.0, 0.0]);
    let below = airframe.turn([sine, 0.0, cosine]);
    let pitch = (-axis[2]).clamp(-1.0, 1.0).asin();
    // Straight down (or up), yaw and roll turn about one axis: all of it is called yaw, so that the picture's top points there.
    let (yaw, roll) = if axis[2].abs() > 1.0 - 1e-9 {
        ((-right[0]).atan2(right[1]), 0.0)
    } else {
        (axis[1].atan2(axis[0]), right[2].atan2(below[2]))
    };
    Orientation { yaw: yaw.to_degrees().rem_euclid(360.0), pitch: pitch.to_degrees(), roll: roll.to_degrees() }
}

/// The thread that hears the flight controller; it ends when this is dropped.
#[derive(Debug)]
pub struct Listener {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Begins to listen; a port that cannot be opened is tried again.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub fn start(telemetry: Arc<Telemetry>) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let run = {
            let stop = Arc::clone(&stop);
            move || talk::run(&telemetry, &stop)
        };
        let thread = std::thread::Builder::new().name("mavlink".to_owned()).spawn(run)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            log::error!("the MAVLink thread had failed; this is a bug in remoteclipd");
        }
    }
}

#[cfg(test)]
mod tests;
