//! Raw frames of one size, one after the other.

use super::Piece;
use crate::camera::{Picture, RawFormat, RawVideo};

/// Cuts raw video into frames. Nothing in the bytes marks a frame's start: one byte lost shifts all that follow.
#[derive(Debug)]
pub struct Raw {
    format: RawFormat,
    frame: Vec<u8>,
}

impl Raw {
    /// At the start of a frame of this format.
    pub fn new(format: RawFormat) -> Self {
        Self { format, frame: Vec::new() }
    }

    /// As [`super::Splitter::take`].
    pub fn take(&mut self, input: &mut &[u8]) -> Option<Piece> {
        let whole = usize::try_from(self.format.bytes()).unwrap_or(usize::MAX);
        let (now, later) = input.split_at(input.len().min(whole - self.frame.len()));
        if self.frame.is_empty() && !now.is_empty() {
            self.frame.reserve_exact(whole);
        }
        self.frame.extend_from_slice(now);
        *input = later;
        (whole > 0 && self.frame.len() == whole).then(|| {
            let bytes = std::mem::take(&mut self.frame);
            Ok(Picture::Raw(RawVideo { format: self.format, bytes }))
        })
    }

    /// Bytes of a frame begun.
    pub fn unfinished(&self) -> usize {
        self.frame.len()
    }
}
