//! Frames in. Every source is a [`Camera`]: it hands over one frame at a time and knows nothing of what becomes of it.
//!
//! Promise: a source never panics on what it reads. A file it cannot read is a [`CameraError::Frame`], after which the
//! source goes on; only [`CameraError::Source`] ends it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use stream::FrameRate;

mod folder;
mod http;
mod mqtt;
mod pipe;
mod raw_video;
mod receipt;
mod simulated;
mod slot;
pub mod stream;
#[cfg(feature = "v4l2")]
mod v4l2;
mod video;

pub use folder::{Folder, FolderOptions};
pub use http::{Address, Http, HttpOptions};
pub use mqtt::{AHEAD, Mqtt, MqttTopic};
pub use pipe::{Pipe, PipeOptions};
pub use raw_video::{Colours, Layout, RawFormat, RawVideo};
pub use receipt::Receipt;
pub use simulated::{Scene, Simulated, SimulatedOptions};
pub use slot::{Closed, Policy, Slot};
#[cfg(feature = "v4l2")]
pub use v4l2::{V4l2, V4l2Format, V4l2Options};
pub use video::{Transport, Video, VideoInput, VideoOptions};

/// One frame as its source delivered it.
#[derive(Debug)]
pub struct Frame {
    /// The picture.
    pub picture: Picture,
    /// What the source calls it: a file name, or the source's kind and a running number (`sim-000042`).
    pub name: String,
    /// When it was taken by the source's own account: the file's modification time, or the moment it was drawn; for a
    /// stream, which has no account, the moment it was whole.
    pub captured_at: Timestamp,
    /// When it reached us, on the monotonic clock: latencies count from here.
    pub arrived: Instant,
    /// Time since the video's first frame by the video's own rate, where it is read from its start to its end (Y4M).
    pub media_time: Option<Duration>,
    /// To be settled when the frame is done with, if the source wants to know.
    pub receipt: Option<Receipt>,
}

/// The picture of a frame, still encoded or already in memory.
#[derive(Debug, Clone)]
pub enum Picture {
    /// The bytes of a JPEG, PNG or TIFF file.
    Encoded(Vec<u8>),
    /// Raw video, not converted yet.
    Raw(RawVideo),
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

/// Makes frames of a stream's pieces and numbers them.
#[derive(Debug)]
struct Numbered {
    kind: &'static str,
    index: u64,
    /// Frames a second, where the number of a frame tells its time in the stream.
    rate: Option<FrameRate>,
}

impl Numbered {
    fn new(kind: &'static str) -> Self {
        Self { kind, index: 0, rate: None }
    }

    /// The piece as what [`Camera::next`] answers; it is whole at this moment.
    fn hand_over(&mut self, piece: stream::Piece) -> Result<Next, CameraError> {
        let name = format!("{}-{:06}", self.kind, self.index);
        let media_time = self.rate.map(|rate| rate.time_of(self.index));
        self.index += 1;
        let picture = piece.map_err(|reason| CameraError::Frame { name: name.clone(), reason })?;
        let (captured_at, arrived) = (Timestamp::now(), Instant::now());
        Ok(Next::Frame(Box::new(Frame { picture, name, captured_at, arrived, media_time, receipt: None })))
    }
}
