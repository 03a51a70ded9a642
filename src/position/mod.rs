//! Where a frame was taken and how the camera looked: from the frame's own EXIF and XMP, from subtitles beside a video, or from
//! the flight controller over MAVLink.
//!
//! Promise: a position is never invented. Without a fix, with one that is older than `position.max_age_s`, after a jump of the
//! clock and for messages of another vehicle the answer is `None`; every other answer says how old it is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::camera::{Frame, Picture};

pub mod exif;
pub mod ground;
pub mod mavlink;
pub mod srt;
pub mod track;
pub mod xmp;

pub use mavlink::{Endpoint, Listener, MavlinkOptions, Telemetry, TelemetryHealth};
pub use srt::SrtError;

/// Where a frame was taken and how the camera looked.
#[derive(Debug, Clone, PartialEq)]
pub struct Position {
    /// WGS 84, degrees, east positive, -180..=180.
    pub longitude: f64,
    /// WGS 84, degrees, north positive, -90..=90.
    pub latitude: f64,
    /// Metres above mean sea level.
    pub altitude: Option<f64>,
    /// Metres above take-off or ground.
    pub height: Option<f64>,
    /// How the camera looked.
    pub camera: Option<Orientation>,
    /// Who says so.
    pub source: Source,
    /// How far the nearest measurement is from the frame in time; `None` where the source wrote it into the frame itself.
    pub age: Option<Duration>,
    /// Horizontal standard deviation in metres, where the source states one.
    pub accuracy: Option<f64>,
}

/// How a camera looked. Degrees; applied in the order yaw, pitch, roll, as aircraft do.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Orientation {
    /// Clockwise from true north.
    pub yaw: f64,
    /// Above the horizon; -90 is straight down.
    pub pitch: f64,
    /// Clockwise about the line of sight.
    pub roll: f64,
}

impl Orientation {
    /// A direction in the camera's axes (forward, right, down) in north, east and down: roll first, then pitch, then yaw.
    pub(crate) fn turn(&self, [forward, right, down]: [f64; 3]) -> [f64; 3] {
        let [yaw, pitch, roll] = [self.yaw, self.pitch, self.roll].map(|degrees| degrees.to_radians().sin_cos());
        let (right, down) = (right * roll.1 - down * roll.0, right * roll.0 + down * roll.1);
        let (forward, down) = (forward * pitch.1 + down * pitch.0, down * pitch.1 - forward * pitch.0);
        [forward * yaw.1 - right * yaw.0, forward * yaw.0 + right * yaw.1, down]
    }
}

/// Who says where a frame was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The frame itself.
    Exif,
    /// The flight controller.
    Mavlink,
    /// Subtitles beside the video.
    Srt,
}

/// Whether two coordinates can be a place: finite, on the globe, and not the (0, 0) that devices write when they don't know.
pub(crate) fn plausible(longitude: f64, latitude: f64) -> bool {
    // NaN is in no range.
    let on_globe = (-180.0..=180.0).contains(&longitude) && (-90.0..=90.0).contains(&latitude);
    on_globe && (longitude, latitude) != (0.0, 0.0)
}

/// Where positions are to come from, besides the frames themselves.
#[derive(Debug, Clone)]
pub struct PositionOptions {
    /// The flight controller.
    pub mavlink: Option<MavlinkOptions>,
    /// DJI subtitles, counted in the video's own time, or from the source's first frame where it has none.
    pub srt: Option<std::path::PathBuf>,
    /// How far the nearest measurement may be from the frame in time.
    pub max_age: Duration,
    /// Whether frames are classified only while the vehicle is armed.
    pub only_while_armed: bool,
}

/// Finds out where frames were taken.
pub struct Locator {
    options: PositionOptions,
    telemetry: Option<Arc<Telemetry>>,
    subtitles: Option<srt::Subtitles>,
    first_frame: Option<Instant>,
}

impl Locator {
    /// Reads what can be read before the first frame; what is wrong in parts of it is logged.
    ///
    /// # Errors
    /// [`SrtError`] when the subtitles are of no use at all.
    pub fn new(options: PositionOptions) -> Result<Self, SrtError> {
        let subtitles = options.srt.as_deref().map(srt::Subtitles::read).transpose()?;
        for problem in subtitles.iter().flat_map(|subtitles| &subtitles.problems) {
            log::warn!("{problem}");
        }
        let telemetry = options.mavlink.as_ref().map(|mavlink| Arc::new(Telemetry::new(mavlink, options.max_age)));
        Ok(Self { options, telemetry, subtitles, first_frame: None })
    }

    /// A line for the operator's ground station, made only where it is wanted.
    pub fn say(&self, line: impl FnOnce() -> String) {
        if let Some(telemetry) = self.telemetry.as_ref().filter(|telemetry| telemetry.reports()) {
            telemetry.say(line());
        }
    }

    /// What the flight controller says, where one is configured.
    pub fn telemetry(&self) -> Option<&Arc<Telemetry>> {
        self.telemetry.as_ref()
    }

    /// Takes note of a frame; false when it is not to be classified, because the vehicle is not armed.
    pub fn admit(&mut self, frame: &Frame) -> bool {
        self.first_frame.get_or_insert(frame.arrived);
        let Some(telemetry) = self.telemetry.as_ref().filter(|_| self.options.only_while_armed) else { return true };
        let armed = telemetry.armed(Instant::now()) == Some(true);
        if !armed {
            telemetry.skipped();
        }
        armed
    }

    /// Where `frame` was taken: by its own account first, then by the subtitles', then by the flight controller's.
    pub fn locate(&self, frame: &Frame) -> Option<Position> {
        own(frame)
            .or_else(|| self.subtitles.as_ref()?.at(self.media_time(frame)?, self.options.max_age))
            .or_else(|| self.telemetry.as_ref()?.position(taken(frame)?))
    }

    /// Time in the video: its own, or for a source that has none that since the first frame.
    fn media_time(&self, frame: &Frame) -> Option<Duration> {
        frame.media_time.or_else(|| Some(frame.arrived.duration_since(self.first_frame?)))
    }
}

fn own(frame: &Frame) -> Option<Position> {
    match &frame.picture {
        Picture::Encoded(bytes) => exif::position(bytes),
        Picture::Rgb(_) | Picture::Raw(_) => None,
    }
}

/// How far the frame's own account of its time may be ahead of ours; more, and one of the clocks was set in between.
const AHEAD: f64 = 0.5;

/// When a frame was taken, on the monotonic clock. A file may have been written long before it reached us, and the telemetry of
/// now is not that of then.
fn taken(frame: &Frame) -> Option<Instant> {
    let waited = frame.arrived.elapsed().as_secs_f64();
    let before_arrival = Timestamp::now().duration_since(frame.captured_at).as_secs_f64() - waited;
    if before_arrival < -AHEAD {
        return None;
    }
    frame.arrived.checked_sub(Duration::try_from_secs_f64(before_arrival.max(0.0)).ok()?)
}

#[cfg(test)]
mod tests;
