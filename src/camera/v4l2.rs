//! A camera that the kernel knows by itself (V4L2, `/dev/video0`): the JPEGs that a USB camera makes, or raw YUYV, out of the
//! driver's buffers mapped into memory (streaming I/O, <https://docs.kernel.org/userspace-api/media/v4l/mmap.html>).
//!
//! Promise: the device is opened when the first frame is asked for and given back when the source is dropped. A frame is
//! copied once, out of its buffer, which goes back to the driver at once. A camera that is not there, in use, unplugged or
//! silent for too long is [`CameraError::Source`]: the daemon opens it anew, waiting longer each time.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use linuxvideo::format::{PixFormat, PixelFormat};
use linuxvideo::stream::{ReadBufferView, ReadStream};
use linuxvideo::{BufType, Device, Fract, VideoCaptureDevice};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::stream::{FrameLimits, Piece};
use super::{Camera, CameraError, Colours, Layout, Next, Numbered, Picture, RawFormat, RawVideo};

/// Which device, and what it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct V4l2Options {
    /// The device's node.
    pub device: PathBuf,
    /// What its frames are.
    pub format: V4l2Format,
    /// Width asked for in pixels; the driver gives the nearest it has.
    pub width: u32,
    /// Height asked for in pixels; the driver gives the nearest it has.
    pub height: u32,
    /// Frames a second asked for; `None` leaves it to the driver.
    pub frames_per_second: Option<u32>,
    /// How long no frame may come.
    pub timeout: Duration,
    /// What a frame may cost.
    pub limits: FrameLimits,
}

/// What a camera's frames are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum V4l2Format {
    /// JPEG files (`MJPG`).
    Mjpeg,
    /// Packed Y U Y V (`YUYV`), and what its samples mean.
    Yuyv(Colours),
}

impl V4l2Format {
    fn fourcc(self) -> PixelFormat {
        PixelFormat::from_fourcc(match self {
            Self::Mjpeg => *b"MJPG",
            Self::Yuyv(_) => *b"YUYV",
        })
    }
}

/// A V4L2 device as a source of frames.
#[derive(Debug)]
pub struct V4l2 {
    options: V4l2Options,
    numbered: Numbered,
    capture: Option<Capture>,
    waiting_since: Instant,
}

impl V4l2 {
    /// Opens nothing yet: a new configuration is prepared while the old one still holds the camera, and a camera may be
    /// plugged in later.
    pub fn new(options: V4l2Options) -> Self {
        Self { options, numbered: Numbered::new("v4l2"), capture: None, waiting_since: Instant::now() }
    }

    fn lost(&self, reason: String) -> CameraError {
        CameraError::Source { place: self.options.device.clone(), reason }
    }
}

impl Camera for V4l2 {
    fn next(&mut self, patience: Duration) -> Result<Next, CameraError> {
        if self.capture.is_none() {
            self.capture = Some(Capture::start(&self.options).map_err(|reason| self.lost(reason))?);
            self.waiting_since = Instant::now();
        }
        let Some(capture) = &mut self.capture else { return Ok(Next::Idle) };
        match capture.piece(patience) {
            Ok(Some(piece)) => {
                if piece.is_ok() {
                    self.waiting_since = Instant::now();
                }
                self.numbered.hand_over(piece)
            }
            Ok(None) if self.waiting_since.elapsed() <= self.options.timeout => Ok(Next::Idle),
            Ok(None) => {
                self.capture = None;
                Err(self.lost(format!("no frame for {} s (timeout_s)", self.options.timeout.as_secs_f64())))
            }
            Err(error) => {
                self.capture = None;
                Err(self.lost(format!("{error}; was it unplugged?")))
            }
        }
    }
}

/// A device that is filming.
struct Capture {
    stream: ReadStream,
    max_bytes: u64,
    /// Of raw frames: what they are, and from one row to the next in bytes.
    raw: Option<(RawFormat, usize)>,
}

impl std::fmt::Debug for Capture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Capture").field("raw", &self.raw).finish_non_exhaustive()
    }
}

impl Capture {
    /// Opens the device, agrees on a format and lets it film; or says why not, with the cure.
    fn start(options: &V4l2Options) -> Result<Self, String> {
        let device = Device::open(&options.device).map_err(|error| unopened(&options.device, &error))?;
        let wanted = options.format.fourcc();
        let offered: Vec<PixelFormat> =
            device.formats(BufType::VIDEO_CAPTURE).map_while(Result::ok).map(|format| format.pixel_format()).collect();
        if offered.is_empty() {
            return Err(
                "it films nothing that a program can read: USB cameras have a second node for metadata, try the \
                        other one; cameras on a Raspberry Pi's ribbon cable go by camera.pipe and rpicam-vid"
                    .to_owned(),
            );
        }
        if !offered.contains(&wanted) {
            let offered: Vec<_> = offered.iter().map(ToString::to_string).collect();
            return Err(format!(
                "it has no {wanted}, only {}: set camera.v4l2.format (mjpeg is MJPG, yuyv is YUYV), or go by camera.pipe",
                offered.join(", ")
            ));
        }
        let asked = PixFormat::new(options.width, options.height, wanted);
        let capture = device.video_capture(asked).map_err(|error| unstarted(&error))?;
        let raw = agreed(options, capture.format())?;
        set_rate(options, &capture);
        let stream = capture.into_stream().map_err(|error| unstarted(&error))?;
        Ok(Self { stream, max_bytes: options.limits.bytes, raw })
    }

    /// The next frame; `None` if it does not come in time.
    fn piece(&mut self, patience: Duration) -> io::Result<Option<Piece>> {
        let timeout = Timespec::try_from(patience).ok();
        match poll(&mut [PollFd::new(&self.stream, PollFlags::IN)], timeout.as_ref()) {
            Ok(0) | Err(Errno::INTR) => return Ok(None),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let (max_bytes, raw) = (self.max_bytes, self.raw);
        self.stream.dequeue(|view| Ok(piece(&view, max_bytes, raw))).map(Some)
    }
}

/// A filled buffer as a frame of its own.
fn piece(view: &ReadBufferView<'_>, max_bytes: u64, raw: Option<(RawFormat, usize)>) -> Piece {
    if view.is_error() {
        return Err("the driver says that this frame is damaged".to_owned());
    }
    let Some((format, stride)) = raw else {
        if view.len() as u64 > max_bytes {
            return Err(format!("frame of {} bytes is over vision.max_bytes = {max_bytes}", view.len()));
        }
        return Ok(Picture::Encoded(view.to_vec()));
    };
    let (row, height) = (format.bytes() as usize / format.height as usize, format.height as usize);
    if view.len() < stride * (height - 1) + row {
        return Err(format!("the driver gave {} bytes of a frame of {}", view.len(), stride * height));
    }
    let bytes = view.chunks(stride).take(height).flat_map(|line| &line[..row]).copied().collect();
    Ok(Picture::Raw(RawVideo { format, bytes }))
}

/// What the driver gives instead of what was asked for, as far as it can be used.
fn agreed(options: &V4l2Options, given: &PixFormat) -> Result<Option<(RawFormat, usize)>, String> {
    let (width, height) = (given.width(), given.height());
    if given.pixel_format() != options.format.fourcc() {
        return Err(format!("it gives {} when asked for {}", given.pixel_format(), options.format.fourcc()));
    }
    if (width, height) != (options.width, options.height) {
        let device = options.device.display();
        log::info!(
            "camera {device}: frames of {width} x {height}, the nearest to {} x {}",
            options.width,
            options.height
        );
    }
    let V4l2Format::Yuyv(colours) = options.format else { return Ok(None) };
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 || pixels > options.limits.pixels {
        return Err(format!(
            "its {width} x {height} pixels are none or over vision.max_pixels = {}",
            options.limits.pixels
        ));
    }
    let format = RawFormat { layout: Layout::Yuyv, width, height, colours };
    let row = format.bytes() as usize / height as usize;
    Ok(Some((format, row.max(given.bytes_per_line() as usize))))
}

/// Not every driver can be asked for a rate; its own is no reason not to film.
fn set_rate(options: &V4l2Options, capture: &VideoCaptureDevice) {
    let Some(rate) = options.frames_per_second else { return };
    let device = options.device.display();
    match capture.set_frame_interval(Fract::new(1, rate)) {
        Ok(given) if u64::from(given.numerator()) * u64::from(rate) == u64::from(given.denominator()) => {}
        Ok(given) => log::info!("camera {device}: a frame every {given} s, the nearest to {rate} a second"),
        Err(error) => log::info!("camera {device}: its rate cannot be set ({error})"),
    }
}

fn unopened(device: &Path, error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => {
            let there = nodes();
            let there =
                if there.is_empty() { "none is here".to_owned() } else { format!("here are {}", there.join(", ")) };
            format!("no such device ({there}): plug it in, or correct camera.v4l2.device")
        }
        ErrorKind::PermissionDenied => format!("{error}: add the daemon's user to the group video"),
        _ if error.raw_os_error() == Some(Errno::NOTTY.raw_os_error()) => {
            format!("{} is no V4L2 device: correct camera.v4l2.device (v4l2-ctl --list-devices)", device.display())
        }
        _ => error.to_string(),
    }
}

fn unstarted(error: &io::Error) -> String {
    if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) {
        return "another program has it (`fuser -v` on the device names it)".to_owned();
    }
    error.to_string()
}

fn nodes() -> Vec<String> {
    let entries = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    let mut nodes: Vec<String> = entries
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"video"))
        .map(|entry| entry.path().display().to_string())
        .collect();
    nodes.sort();
    nodes
}
