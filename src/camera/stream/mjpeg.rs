//! JPEG files one after the other, cut by their markers (ITU-T T.81, annex B).
//!
//! A thumbnail inside an APP segment has an end marker of its own, so the first `FF D9` need not be the frame's: segments
//! are stepped over by their length, and only entropy-coded data is searched. Bytes between two files (the headers of a
//! multipart stream, say) are passed over.
//!
//! After a file that is cut short the next one may be lost as well, where the gap fell into a segment.

use super::Piece;
use crate::camera::Picture;

/// So many bytes without the start of a JPEG are told as one flaw.
const GARBAGE: usize = 64 << 10;

const START: u8 = 0xD8;
const END: u8 = 0xD9;
const SCAN: u8 = 0xDA;

/// Cuts a stream into JPEG files.
#[derive(Debug)]
pub struct Mjpeg {
    limit: u64,
    state: State,
    frame: Vec<u8>,
    /// The frame is over the limit: its markers are followed on, its bytes not kept.
    over: bool,
    passed_over: usize,
}

/// What the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between files; `true` after `FF`.
    Between(bool),
    /// The `FF` of a marker.
    Marker,
    /// A marker's code; `true` within entropy-coded data, where it need not be one.
    Code(bool),
    /// The first byte of the length of a segment with this code.
    LengthHigh(u8),
    /// The second one.
    LengthLow(u8, u8),
    /// A segment's content, so many bytes of it.
    Segment(u8, u16),
    /// Entropy-coded data.
    Entropy,
}

impl Mjpeg {
    /// At the start of a stream whose files may have so many bytes.
    pub fn new(limit: u64) -> Self {
        Self { limit, state: State::Between(false), frame: Vec::new(), over: false, passed_over: 0 }
    }

    /// As [`super::Splitter::take`].
    pub fn take(&mut self, input: &mut &[u8]) -> Option<Piece> {
        while let Some(&byte) = input.first() {
            let (count, next) = match self.state {
                State::Between(false) => {
                    let searched = &input[..input.len().min(GARBAGE - self.passed_over)];
                    match memchr::memchr(0xFF, searched) {
                        Some(at) => (at + 1, State::Between(true)),
                        None => (searched.len(), State::Between(false)),
                    }
                }
                State::Entropy => match memchr::memchr(0xFF, input) {
                    Some(at) => (at + 1, State::Code(true)),
                    None => (input.len(), State::Entropy),
                },
                State::Segment(code, left) => {
                    let count = input.len().min(usize::from(left));
                    (count, after_part(code, left - count as u16))
                }
                _ => {
                    *input = &input[1..];
                    match self.step(byte) {
                        Some(piece) => return Some(piece),
                        None => continue,
                    }
                }
            };
            let (now, later) = input.split_at(count);
            *input = later;
            self.state = next;
            let flaw = if matches!(next, State::Between(_)) { self.pass_over(count) } else { self.keep(now) };
            if flaw.is_some() {
                return flaw;
            }
        }
        None
    }

    /// Bytes of a frame begun.
    pub fn unfinished(&self) -> usize {
        if matches!(self.state, State::Between(_)) || self.over { 0 } else { self.frame.len() }
    }

    /// One byte where one byte decides.
    fn step(&mut self, byte: u8) -> Option<Piece> {
        self.state = match (self.state, byte) {
            (State::Between(_), START) => return self.begin(),
            (State::Between(_), byte) => {
                self.state = State::Between(byte == 0xFF);
                return self.pass_over(1);
            }
            (State::Marker, 0xFF) => State::Code(false),
            (State::Marker, _) | (State::Code(false), 0) => return self.give_up("a marker is missing"),
            (State::Code(within), 0xFF) => State::Code(within),
            (State::Code(_), START) => {
                let flaw = self.give_up("the next frame begins before this one has ended");
                self.begin();
                return flaw;
            }
            (State::Code(_), END) => return self.end(),
            // A stuffed zero, or a restart marker.
            (State::Code(true), 0 | 0xD0..=0xD7) => State::Entropy,
            (State::Code(false), 0x01 | 0xD0..=0xD7) => State::Marker,
            (State::Code(_), code) => State::LengthHigh(code),
            (State::LengthHigh(code), high) => State::LengthLow(code, high),
            (State::LengthLow(code, high), low) => match u16::from_be_bytes([high, low]).checked_sub(2) {
                Some(left) => after_part(code, left),
                None => return self.give_up("a segment has no length"),
            },
            (state @ (State::Segment(..) | State::Entropy), _) => state,
        };
        self.keep(&[byte])
    }

    fn begin(&mut self) -> Option<Piece> {
        self.passed_over = 0;
        self.over = false;
        self.state = State::Marker;
        self.keep(&[0xFF, START])
    }

    fn end(&mut self) -> Option<Piece> {
        let flaw = self.keep(&[END]);
        self.state = State::Between(false);
        let frame = std::mem::take(&mut self.frame);
        if self.over { flaw } else { Some(Ok(Picture::Encoded(frame))) }
    }

    /// The frame is broken; a frame over the limit has been told already.
    fn give_up(&mut self, reason: &str) -> Option<Piece> {
        let flaw = (!self.over).then(|| Err(format!("JPEG broken after {} bytes: {reason}", self.frame.len())));
        self.state = State::Between(false);
        self.frame = Vec::new();
        flaw
    }

    fn keep(&mut self, bytes: &[u8]) -> Option<Piece> {
        if self.over {
            return None;
        }
        if (self.frame.len() + bytes.len()) as u64 > self.limit {
            self.over = true;
            self.frame = Vec::new();
            return Some(Err(format!("frame is over vision.max_bytes = {}", self.limit)));
        }
        self.frame.extend_from_slice(bytes);
        None
    }

    fn pass_over(&mut self, count: usize) -> Option<Piece> {
        self.passed_over += count;
        (self.passed_over >= GARBAGE).then(|| {
            self.passed_over = 0;
            Err(format!("{GARBAGE} bytes without the start of a JPEG: check the format of the stream"))
        })
    }
}

/// Within a segment, or behind it.
fn after_part(code: u8, left: u16) -> State {
    match (left, code) {
        (0, SCAN) => State::Entropy,
        (0, _) => State::Marker,
        (left, code) => State::Segment(code, left),
    }
}
