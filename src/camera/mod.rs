//! Frames in. Every source is a [`Camera`]: it hands over one frame at a time and knows nothing of what becomes of it.
//!
//! Promise: a source never panics on what it reads. A file it cannot read is a [`CameraError::Frame`], after which the
//! source goes on; only [`CameraError::Source`] ends it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;

mod folder;
mod simulated;
mod slot;

pub use folder::{Folder, FolderOptions};
pub use simulated::{Scene, Simulated, SimulatedOptions};
pub use slot::{Closed, Policy, Slot};

/// One frame as its source delivered it.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The picture.
    pub picture: Picture,
    /// What the source calls it: a file name, or `sim-000042` for the simulated camera.
    pub name: String,
    /// When it was taken by the source's own account: the file's modification time, or the moment it was drawn.
    pub captured_at: Timestamp,
    /// When it reached us, on the monotonic clock: latencies count from here.
    pub arrived: Instant,
}

/// The picture of a frame, still encoded or already in memory.
#[derive(Debug, Clone)]
pub enum Picture {
    /// The bytes of a JPEG, PNG or TIFF file.
    Encoded(Vec<u8>),
    /// Eight-bit RGB, upright.
    Rgb(image::RgbImage),
}

/// What a source can answer when asked for its next frame.
#[derive(Debug)]
pub enum Next {
    /// A frame.
    Frame(Box<Frame>),
    /// Nothing within the waiting time; ask again.
    Idle,
    /// The source is at its end (a folder read once, a simulated flight with a last frame).
    End,
}

/// A source of frames.
pub trait Camera: Send {
    /// The next frame, waiting at most `patience` for it, so that a stop is noticed in time.
    ///
    /// # Errors
    /// [`CameraError::Frame`] for one bad frame, after which the source may be asked again;
    /// [`CameraError::Source`] when the source itself is gone.
    fn next(&mut self, patience: Duration) -> Result<Next, CameraError>;
}

/// What can go wrong with a source.
#[derive(Debug, thiserror::Error)]
pub enum CameraError {
    /// One frame could not be read; the source lives on.
    #[error("frame {name}: {reason}")]
    Frame {
        /// The frame's name.
        name: String,
        /// What was wrong with it.
        reason: String,
    },
    /// The source cannot be used.
    #[error("camera {place}: {reason}")]
    Source {
        /// The folder or device.
        place: PathBuf,
        /// What is wrong and how to mend it.
        reason: String,
    },
}
