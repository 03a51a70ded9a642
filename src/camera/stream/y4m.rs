//! YUV4MPEG2 ("Y4M", yuv4mpeg(5)): raw 4:2:0 video that states its own size; what `ffmpeg -f yuv4mpegpipe` and GStreamer's
//! `y4menc` write.
//!
//! A header line, then for each frame a line that begins with `FRAME` and the samples. There is no way back into step:
//! after a flaw nothing more is taken, and whoever waits for frames starts the stream anew.

use super::{FrameRate, Piece, Raw};
use crate::camera::{Colours, Layout, RawFormat};

/// Longest line. ffmpeg's are below 128 bytes.
const LINE: usize = 1024;
const SIGNATURE: &str = "YUV4MPEG2 ";

/// Cuts YUV4MPEG2 into frames.
#[derive(Debug)]
pub struct Y4m {
    pixels: u64,
    line: Vec<u8>,
    rate: Option<FrameRate>,
    state: State,
}

#[derive(Debug)]
enum State {
    Header,
    FrameLine(RawFormat),
    Samples(Raw, RawFormat),
    Broken,
}

impl Y4m {
    /// At the start of a stream whose frames may have so many pixels.
    pub fn new(pixels: u64) -> Self {
        Self { pixels, line: Vec::new(), rate: None, state: State::Header }
    }

    /// As [`super::Splitter::take`].
    pub fn take(&mut self, input: &mut &[u8]) -> Option<Piece> {
        while !input.is_empty() {
            let outcome = match &mut self.state {
                State::Header => self.header(input),
                State::FrameLine(_) => self.frame_line(input),
                State::Samples(raw, format) => {
                    let piece = raw.take(input)?;
                    self.state = State::FrameLine(*format);
                    return Some(piece);
                }
                State::Broken => {
                    *input = &[];
                    Ok(())
                }
            };
            if let Err(flaw) = outcome {
                self.state = State::Broken;
                return Some(Err(flaw));
            }
        }
        None
    }

    /// The rate that the header states, once it is read; none for one of unknown rate (`F0:0`).
    pub fn rate(&self) -> Option<FrameRate> {
        self.rate
    }

    /// Bytes of a frame begun.
    pub fn unfinished(&self) -> usize {
        match &self.state {
            State::Samples(raw, _) => raw.unfinished(),
            _ => 0,
        }
    }

    fn header(&mut self, input: &mut &[u8]) -> Result<(), String> {
        if let Some(line) = self.line(input)? {
            self.state = State::FrameLine(format(&line, self.pixels)?);
            self.rate = rate(&line);
        }
        Ok(())
    }

    fn frame_line(&mut self, input: &mut &[u8]) -> Result<(), String> {
        let Some(line) = self.line(input)? else { return Ok(()) };
        match &self.state {
            State::FrameLine(format) if line.starts_with("FRAME") => {
                self.state = State::Samples(Raw::new(*format), *format);
                Ok(())
            }
            _ => Err("a YUV4MPEG2 frame does not begin with FRAME: the stream is out of step".to_owned()),
        }
    }

    /// A whole line without its end, once it is there.
    fn line(&mut self, input: &mut &[u8]) -> Result<Option<String>, String> {
        let end = memchr::memchr(b'\n', input);
        let (now, later) = input.split_at(end.map_or(input.len(), |end| end + 1));
        *input = later;
        if self.line.len() + now.len() > LINE {
            self.line = Vec::new();
            return Err("this is no YUV4MPEG2 stream: check the command and camera.pipe.format".to_owned());
        }
        self.line.extend_from_slice(now);
        Ok(end.map(|_| {
            let line = String::from_utf8_lossy(&self.line).trim_end().to_owned();
            self.line.clear();
            line
        }))
    }
}

/// `F30000:1001`: frames a second.
fn rate(line: &str) -> Option<FrameRate> {
    let (numerator, denominator) = line.split(' ').find_map(|field| field.strip_prefix('F'))?.split_once(':')?;
    Some(FrameRate { numerator: numerator.parse().ok()?, denominator: denominator.parse().ok()? })
}

/// The format that a header line states.
fn format(line: &str, pixels: u64) -> Result<RawFormat, String> {
    let fields = line.strip_prefix(SIGNATURE).ok_or_else(|| {
        "the stream does not begin with YUV4MPEG2: check the command and camera.pipe.format".to_owned()
    })?;
    let field = |tag: char| fields.split(' ').find_map(|field| field.strip_prefix(tag));
    let side = |tag| {
        field(tag)
            .and_then(|value| value.parse::<u16>().ok())
            .filter(|side| *side > 0)
            .ok_or_else(|| format!("the YUV4MPEG2 header states no usable {tag}: {line}"))
    };
    let (width, height) = (u32::from(side('W')?), u32::from(side('H')?));
    if u64::from(width) * u64::from(height) > pixels {
        return Err(format!("video of {width} x {height} pixels is over vision.max_pixels = {pixels}"));
    }
    if field('C').is_some_and(|space| !["420", "420jpeg", "420mpeg2", "420paldv"].contains(&space)) {
        return Err(format!("the YUV4MPEG2 stream is not 4:2:0 with eight bits: add -pix_fmt yuv420p ({line})"));
    }
    let full = fields.split(' ').any(|field| field == "XCOLORRANGE=FULL");
    Ok(RawFormat { layout: Layout::Yuv420, width, height, colours: if full { Colours::Jpeg } else { Colours::Bt601 } })
}
