//! A stream of bytes → frames: one file a form.
//!
//! Promise: however the bytes are cut into chunks the same frames come out, nothing panics, and no more is kept than one
//! frame within the limits. What is no frame is told (and then counted) as a flaw, and the stream goes on behind it.

mod mjpeg;
mod multipart;
mod raw;
mod y4m;

pub use mjpeg::Mjpeg;
pub use multipart::Multipart;
pub use raw::Raw;
pub use y4m::Y4m;

use std::num::NonZeroU32;
use std::time::Duration;

use super::{Picture, RawFormat};

/// A frame, or what was wrong with the bytes where one should have been.
pub type Piece = Result<Picture, String>;

/// The form of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamFormat {
    /// JPEG files, one after the other.
    Mjpeg,
    /// YUV4MPEG2, which states its size itself.
    Y4m,
    /// Raw frames of a size agreed upon.
    Raw(RawFormat),
}

/// Frames a second, as a fraction: 30000/1001 is that of NTSC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameRate {
    numerator: NonZeroU32,
    denominator: NonZeroU32,
}

impl FrameRate {
    /// When frame `index` is due, counted from frame 0.
    pub fn time_of(self, index: u64) -> Duration {
        let nanoseconds = u128::from(index) * u128::from(self.denominator.get()) * 1_000_000_000;
        let nanoseconds = nanoseconds / u128::from(self.numerator.get());
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }
}

/// What a frame may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLimits {
    /// Largest encoded frame in bytes (`vision.max_bytes`).
    pub bytes: u64,
    /// Largest width × height of a raw one (`vision.max_pixels`).
    pub pixels: u64,
}

/// Cuts a stream into frames.
#[derive(Debug)]
pub enum Splitter {
    /// JPEG files.
    Mjpeg(Mjpeg),
    /// Parts of a multipart stream.
    Multipart(Multipart),
    /// YUV4MPEG2.
    Y4m(Y4m),
    /// Raw frames.
    Raw(Raw),
}

impl Splitter {
    /// At the start of a stream.
    pub fn new(format: StreamFormat, limits: FrameLimits) -> Self {
        match format {
            StreamFormat::Mjpeg => Self::Mjpeg(Mjpeg::new(limits.bytes)),
            StreamFormat::Y4m => Self::Y4m(Y4m::new(limits.pixels)),
            StreamFormat::Raw(format) => Self::Raw(Raw::new(format)),
        }
    }

    /// Takes from the front of `input` until a piece is whole; `None` when all of it is taken.
    pub fn take(&mut self, input: &mut &[u8]) -> Option<Piece> {
        match self {
            Self::Mjpeg(mjpeg) => mjpeg.take(input),
            Self::Multipart(multipart) => multipart.take(input),
            Self::Y4m(y4m) => y4m.take(input),
            Self::Raw(raw) => raw.take(input),
        }
    }

    /// The rate that the stream states, once its header is read.
    pub fn rate(&self) -> Option<FrameRate> {
        match self {
            Self::Y4m(y4m) => y4m.rate(),
            _ => None,
        }
    }

    /// The stream has ended: the flaw, if it was within a frame.
    pub fn finish(&mut self) -> Option<Piece> {
        let bytes = match self {
            Self::Mjpeg(mjpeg) => mjpeg.unfinished(),
            Self::Multipart(multipart) => multipart.unfinished(),
            Self::Y4m(y4m) => y4m.unfinished(),
            Self::Raw(raw) => raw.unfinished(),
        };
        (bytes > 0).then(|| Err(format!("the stream ended {bytes} bytes into a frame")))
    }
}

#[cfg(test)]
mod tests;
