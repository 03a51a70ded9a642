//! Where a frame was taken and which ground it shows.

pub mod ground;

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
