//! A command whose standard output is video: what a camera's own tools, GStreamer or ffmpeg write.
//!
//! Promise: the command is started when the first frame is asked for and gone, with all it has started, when the source
//! is dropped. Output is read as it comes, so the command never waits for a slow model, only for one that must see every
//! frame. A command that ends, or brings no frame for too long, is [`CameraError::Source`]: the daemon opens it anew,
//! waiting longer each time.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use super::stream::{FrameLimits, Splitter, StreamFormat};
use super::{Camera, CameraError, Next, Numbered};
use process::Process;

mod process;

/// A pipe's own size: what one read can give.
const CHUNK: usize = 64 << 10;

/// Which command, and what it writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipeOptions {
    /// What frames are called: the source's kind.
    pub kind: &'static str,
    /// Program and arguments. No shell sees them.
    pub command: Vec<String>,
    /// What it writes.
    pub format: StreamFormat,
    /// Its end is the source's.
    pub once: bool,
    /// How long it may bring no frame.
    pub timeout: Duration,
    /// What a frame may cost.
    pub limits: FrameLimits,
}

/// A command as a source of frames.
#[derive(Debug)]
pub struct Pipe {
    options: PipeOptions,
    numbered: Numbered,
    splitter: Splitter,
    running: Option<Running>,
    over: bool,
    framed: bool,
}

#[derive(Debug)]
struct Running {
    process: Process,
    chunk: Vec<u8>,
    unread: std::ops::Range<usize>,
    waiting_since: Option<Instant>,
}

impl Pipe {
    /// Looks for the program. It is started when the first frame is asked for: a new configuration is prepared while the
    /// old one still holds the camera.
    ///
    /// # Errors
    /// [`CameraError::Source`] if there is no such program.
    pub fn open(options: PipeOptions) -> Result<Self, CameraError> {
        let program = options.command.first().cloned().unwrap_or_default();
        if process::find(&program).is_none() {
            let cure = "there is no such program, or it may not be started: install it, or correct the command";
            return Err(CameraError::Source { place: PathBuf::from(program), reason: cure.to_owned() });
        }
        let splitter = Splitter::new(options.format, options.limits);
        let numbered = Numbered::new(options.kind);
        Ok(Self { options, numbered, splitter, running: None, over: false, framed: false })
    }

    fn lost(&self, reason: String) -> CameraError {
        CameraError::Source { place: self.options.command.first().map(PathBuf::from).unwrap_or_default(), reason }
    }

    fn start(&self) -> Result<Running, CameraError> {
        let process = Process::start(&self.options.command).map_err(|error| self.lost(error.to_string()))?;
        Ok(Running { process, chunk: vec![0; CHUNK], unread: 0..0, waiting_since: None })
    }

    /// A frame out of what has been read.
    fn piece(&mut self) -> Option<Result<Next, CameraError>> {
        let running = self.running.as_mut()?;
        let mut input = &running.chunk[running.unread.clone()];
        let piece = self.splitter.take(&mut input);
        running.unread.start = running.unread.end - input.len();
        let piece = piece?;
        if piece.is_ok() {
            running.waiting_since = None;
            self.framed = true;
        }
        if self.options.once {
            self.numbered.rate = self.splitter.rate();
        }
        Some(self.numbered.hand_over(piece))
    }

    /// Reads on, if anything comes in time.
    fn read(&mut self, patience: Duration) -> Result<(), CameraError> {
        let timeout = self.options.timeout;
        let Some(running) = &mut self.running else { return Ok(()) };
        let since = *running.waiting_since.get_or_insert_with(Instant::now);
        if since.elapsed() > timeout {
            self.running = None;
            return Err(self.lost(format!("no frame for {} s (timeout_s); it is ended", timeout.as_secs_f64())));
        }
        let count = running
            .process
            .wait(patience)
            .and_then(|ready| if ready { running.process.read(&mut running.chunk).map(Some) } else { Ok(None) });
        match count {
            Ok(None) => {}
            Ok(Some(0)) => self.over = true,
            Ok(Some(count)) => running.unread = 0..count,
            Err(error) => return Err(self.lost(error.to_string())),
        }
        Ok(())
    }

    /// The command closed its output: first the frame it broke off, then the end.
    fn finish(&mut self) -> Result<Next, CameraError> {
        if let Some(piece) = self.splitter.finish() {
            self.splitter = Splitter::new(self.options.format, self.options.limits);
            return self.numbered.hand_over(piece);
        }
        let Some(mut running) = self.running.take() else { return Ok(Next::End) };
        let (status, last) = running.process.end();
        let how = format!("the command ended ({}){}", shown(status), said(last));
        // What has brought frames and is to be read once is not read again, however it ended.
        match status {
            Some(status) if self.options.once && status.success() => {}
            _ if self.options.once && self.framed => log::error!("{how}"),
            _ => return Err(self.lost(how)),
        }
        Ok(Next::End)
    }
}

impl Camera for Pipe {
    fn next(&mut self, patience: Duration) -> Result<Next, CameraError> {
        let deadline = Instant::now() + patience;
        if self.running.is_none() && !self.over {
            self.running = Some(self.start()?);
        }
        loop {
            if let Some(answer) = self.piece() {
                return answer;
            }
            if self.over {
                return self.finish();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            self.read(left)?;
            // Also when something came: output without a frame in it must not keep a stop waiting.
            if left.is_zero() {
                return Ok(Next::Idle);
            }
        }
    }
}

fn shown(status: Option<ExitStatus>) -> String {
    status.map_or_else(|| "unknown status".to_owned(), |status| status.to_string())
}

fn said(last: Option<String>) -> String {
    last.map(|line| format!("; it said: {line}")).unwrap_or_default()
}

#[cfg(test)]
mod tests;
