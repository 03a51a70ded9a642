//! Multipart streams (`multipart/x-mixed-replace`, RFC 2046 section 5.1): what network cameras push over HTTP.
//!
//! Cameras bend the rules, so: lines may end in a bare LF, the boundary may be stated with or without its dashes and come
//! with more of them, and a part may or may not state its length. One that does is taken by its length, another ends before
//! the next boundary.

use super::Piece;
use crate::camera::Picture;

/// Headers of one part. Cameras send a hundred bytes.
const HEADERS: usize = 8 << 10;
/// Longest boundary (RFC 2046), and most dashes before it.
const LONGEST: usize = 70;

/// Cuts a multipart stream into its parts.
#[derive(Debug)]
pub struct Multipart {
    /// The boundary without any dashes before it.
    key: Vec<u8>,
    limit: u64,
    state: State,
    /// What is read and not yet judged; bounded by the limit and a boundary.
    kept: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a boundary; what comes is passed over.
    Before,
    /// On the rest of the boundary's line.
    Boundary,
    /// In a part's headers.
    Headers,
    /// In a part of so many bytes.
    Sized(usize),
    /// In a part that ends before a boundary.
    Open,
    /// In a part over the limit; so many bytes of it.
    TooLarge(u64),
}

impl Multipart {
    /// At the start of a stream whose parts may have `limit` bytes; `boundary` as the `Content-Type` header states it.
    /// `None` if that is no boundary.
    pub fn new(boundary: &str, limit: u64) -> Option<Self> {
        let key = boundary.trim_start_matches('-').as_bytes().to_vec();
        let fit = !key.is_empty() && boundary.len() <= LONGEST && !key.contains(&b'\n');
        fit.then(|| Self { key, limit, state: State::Before, kept: Vec::new() })
    }

    /// As [`super::Splitter::take`].
    pub fn take(&mut self, input: &mut &[u8]) -> Option<Piece> {
        while !input.is_empty() {
            let piece = match self.state {
                State::Before => self.before(input),
                State::Boundary => self.boundary_line(input),
                State::Headers => self.headers(input),
                State::Sized(length) => self.sized(input, length),
                State::Open => self.open(input),
                State::TooLarge(left) => self.too_large(input, left),
            };
            if piece.is_some() {
                return piece;
            }
        }
        None
    }

    /// Bytes of a part begun.
    pub fn unfinished(&self) -> usize {
        if matches!(self.state, State::Sized(_) | State::Open) { self.kept.len() } else { 0 }
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.kept = Vec::new();
    }

    /// Moves input up to and with the next `end` byte, at most up to `room`, into `kept`; true if the byte was there.
    fn keep_until(&mut self, input: &mut &[u8], end: u8, room: usize) -> bool {
        let at = memchr::memchr(end, input);
        let count = at.map_or(input.len(), |at| at + 1).min(room);
        let (now, later) = input.split_at(count);
        self.kept.extend_from_slice(now);
        *input = later;
        at.is_some_and(|at| at < count)
    }

    /// Line by line, so that a boundary is found only where a line begins.
    fn before(&mut self, input: &mut &[u8]) -> Option<Piece> {
        let dashes = self.dashes();
        let wanted = (dashes.min(LONGEST) + self.key.len()).saturating_sub(self.kept.len());
        if wanted > 0 {
            if self.keep_until(input, b'\n', wanted) {
                self.kept.clear();
            } else if dashes >= 2 && self.kept[dashes..] == self.key {
                self.enter(State::Boundary);
            }
        } else if let Some(at) = memchr::memchr(b'\n', input) {
            *input = &input[at + 1..];
            self.kept.clear();
        } else {
            *input = &[];
        }
        None
    }

    /// How many dashes what is kept begins with.
    fn dashes(&self) -> usize {
        self.kept.iter().take_while(|byte| **byte == b'-').count()
    }

    fn boundary_line(&mut self, input: &mut &[u8]) -> Option<Piece> {
        if let Some(at) = memchr::memchr(b'\n', input) {
            *input = &input[at + 1..];
            self.enter(State::Headers);
        } else {
            *input = &[];
        }
        None
    }

    fn headers(&mut self, input: &mut &[u8]) -> Option<Piece> {
        let room = HEADERS - self.kept.len();
        if !self.keep_until(input, b'\n', room) {
            return (self.kept.len() == HEADERS).then(|| {
                self.enter(State::Before);
                Err(format!("the headers of a part are over {HEADERS} bytes"))
            });
        }
        if !(self.kept.ends_with(b"\n\n")
            || self.kept.ends_with(b"\n\r\n")
            || [&b"\n"[..], b"\r\n"].contains(&&*self.kept))
        {
            return None;
        }
        let length = content_length(&self.kept);
        match length {
            Some(length) if length > self.limit => {
                self.enter(State::TooLarge(length));
                return Some(Err(self.over()));
            }
            // Some cameras state zero and mean that they do not know.
            Some(length) if length > 0 => self.enter(State::Sized(length as usize)),
            _ => self.enter(State::Open),
        }
        None
    }

    fn sized(&mut self, input: &mut &[u8], length: usize) -> Option<Piece> {
        if self.kept.is_empty() {
            self.kept.reserve_exact(length);
        }
        let (now, later) = input.split_at(input.len().min(length - self.kept.len()));
        self.kept.extend_from_slice(now);
        *input = later;
        (self.kept.len() == length).then(|| self.part())
    }

    fn open(&mut self, input: &mut &[u8]) -> Option<Piece> {
        let most = usize::try_from(self.limit).unwrap_or(usize::MAX).saturating_add(2 * LONGEST + 2);
        let room = most - self.kept.len();
        // Wherever the boundary ends, its last byte is the last one kept.
        let last = self.key.last().copied().unwrap_or_default();
        self.keep_until(input, last, room);
        if let Some(end) = self.end_of_part() {
            self.kept.truncate(end);
            let piece = self.part();
            self.state = State::Boundary;
            return Some(piece);
        }
        (self.kept.len() == most).then(|| {
            self.enter(State::Before);
            Err(self.over())
        })
    }

    /// Where the part ends, if what is kept ends in a boundary: the end of the line before belongs to that.
    fn end_of_part(&self) -> Option<usize> {
        let before = self.kept.strip_suffix(&*self.key)?;
        let dashes = before.iter().rev().take_while(|byte| **byte == b'-').count();
        let part = &before[..before.len() - dashes];
        let line = part.strip_suffix(b"\n").map(|part| part.strip_suffix(b"\r").unwrap_or(part));
        let begins = line.or(part.is_empty().then_some(part))?;
        (dashes >= 2).then_some(begins.len())
    }

    fn too_large(&mut self, input: &mut &[u8], left: u64) -> Option<Piece> {
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
        *input = &input[count..];
        match left - count as u64 {
            0 => self.enter(State::Before),
            left => self.state = State::TooLarge(left),
        }
        None
    }

    fn part(&mut self) -> Piece {
        let part = std::mem::take(&mut self.kept);
        self.state = State::Before;
        if part.len() as u64 > self.limit { Err(self.over()) } else { Ok(Picture::Encoded(part)) }
    }

    fn over(&self) -> String {
        format!("frame is over vision.max_bytes = {}", self.limit)
    }
}

/// The length that a part's headers state.
fn content_length(headers: &[u8]) -> Option<u64> {
    let headers = String::from_utf8_lossy(headers);
    headers.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    })
}
