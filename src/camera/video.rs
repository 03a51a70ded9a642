//! A video stream or file, read by running ffmpeg for the user.
//!
//! ffmpeg decodes, thins and sends raw 4:2:0 frames that state their own size ([`super::stream::Y4m`]), in the one colour
//! standard we assume; only what will be classified is converted. Everything else (restart, silence, end) is the pipe's.

use std::path::PathBuf;
use std::time::Duration;

use super::stream::{FrameLimits, StreamFormat};
use super::{Camera, CameraError, Next, Pipe, PipeOptions};

/// What is played, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct VideoOptions {
    /// What is played.
    pub input: VideoInput,
    /// Frames a second to take; `None` takes all.
    pub frames_per_second: Option<f64>,
    /// The ffmpeg to run: a path, or a name looked for in `PATH`.
    pub ffmpeg: String,
    /// How long no frame may come.
    pub timeout: Duration,
    /// What a frame may cost.
    pub limits: FrameLimits,
}

/// What is played.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VideoInput {
    /// A live stream: opened again when it ends.
    Stream {
        /// Anything ffmpeg takes.
        url: String,
        /// How RTSP carries its packets.
        transport: Transport,
    },
    /// A file: the source ends with it.
    File {
        /// The file.
        path: PathBuf,
        /// At its own pace, instead of as fast as frames are taken.
        real_time: bool,
    },
}

/// How RTSP carries its packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Within its own connection: nothing is lost, and it passes firewalls.
    #[default]
    Tcp,
    /// Beside it: less delay on a bad link, at the price of torn frames.
    Udp,
}

impl Transport {
    fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A video as a source of frames.
#[derive(Debug)]
pub struct Video {
    pipe: Pipe,
}

impl Video {
    /// Looks for ffmpeg, and for the file if it is one.
    ///
    /// # Errors
    /// [`CameraError::Source`] with the cure if one of them is not there.
    pub fn open(options: &VideoOptions) -> Result<Self, CameraError> {
        if let VideoInput::File { path, .. } = &options.input
            && let Err(error) = std::fs::File::open(path)
        {
            let reason = format!("{error}; correct camera.video.path");
            return Err(CameraError::Source { place: path.clone(), reason });
        }
        let pipe = PipeOptions {
            kind: "video",
            command: command(options),
            format: StreamFormat::Y4m,
            once: matches!(options.input, VideoInput::File { .. }),
            timeout: options.timeout,
            limits: options.limits,
        };
        match Pipe::open(pipe) {
            Ok(pipe) => Ok(Self { pipe }),
            Err(CameraError::Source { place, .. }) => {
                let cure = "camera.video needs ffmpeg: apt install ffmpeg (Debian's package of that name), or set \
                            camera.video.ffmpeg";
                Err(CameraError::Source { place, reason: cure.to_owned() })
            }
            Err(error) => Err(error),
        }
    }
}

impl Camera for Video {
    fn next(&mut self, patience: Duration) -> Result<Next, CameraError> {
        self.pipe.next(patience)
    }
}

/// ffmpeg's command line (ffmpeg(1), ffmpeg-formats(1), ffmpeg-protocols(1)).
fn command(options: &VideoOptions) -> Vec<String> {
    let mut words: Vec<String> = vec![options.ffmpeg.clone()];
    let mut add = |more: &[&str]| words.extend(more.iter().map(|word| (*word).to_owned()));
    add(&["-nostdin", "-hide_banner", "-nostats", "-loglevel", "warning"]);
    match &options.input {
        VideoInput::Stream { url, transport } => {
            // What is buffered is old by the time it is seen.
            add(&["-fflags", "nobuffer", "-flags", "low_delay"]);
            if url.starts_with("rtsp") {
                add(&["-rtsp_transport", transport.name()]);
            }
            add(&["-i", url]);
        }
        VideoInput::File { path, real_time } => {
            if *real_time {
                add(&["-re"]);
            }
            // A colon or a dash in a name must not be read as a protocol or an option.
            add(&["-i", &format!("file:{}", path.display())]);
        }
    }
    // The rate first, so that only what is sent is scaled.
    let rate = options.frames_per_second.map(|rate| format!("fps={rate},")).unwrap_or_default();
    let filter = format!("{rate}scale=out_color_matrix=bt601:out_range=tv,format=yuv420p");
    add(&["-map", "0:v:0", "-an", "-sn", "-dn", "-vf", &filter, "-f", "yuv4mpegpipe", "pipe:1"]);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(input: VideoInput) -> VideoOptions {
        let limits = FrameLimits { bytes: 1, pixels: 1 };
        let timeout = Duration::from_secs(1);
        VideoOptions { input, frames_per_second: None, ffmpeg: "ffmpeg".to_owned(), timeout, limits }
    }

    #[test]
    fn a_stream_is_read_without_delay_and_a_file_at_any_pace() {
        let rtsp = VideoInput::Stream { url: "rtsp://cam/1".to_owned(), transport: Transport::Tcp };
        let line = command(&VideoOptions { frames_per_second: Some(2.5), ..options(rtsp) }).join(" ");
        assert!(line.contains("-fflags nobuffer -flags low_delay -rtsp_transport tcp -i rtsp://cam/1 "), "{line}");
        assert!(line.contains("-vf fps=2.5,scale="), "{line}");
        let file = VideoInput::File { path: "-x:y.mp4".into(), real_time: true };
        let line = command(&options(file)).join(" ");
        assert!(line.contains(" -re -i file:-x:y.mp4 ") && !line.contains("rtsp") && !line.contains("fps="), "{line}");
    }

    #[test]
    fn what_is_missing_is_named_with_the_cure() {
        let reason = |options: &VideoOptions| match Video::open(options) {
            Err(CameraError::Source { reason, .. }) => reason,
            other => panic!("{other:?}"),
        };
        let stream = VideoInput::Stream { url: "rtsp://cam/1".to_owned(), transport: Transport::Udp };
        let without = VideoOptions { ffmpeg: "no-such-ffmpeg".to_owned(), ..options(stream) };
        assert!(reason(&without).contains("apt install ffmpeg"));
        let file = VideoInput::File { path: "no-such-file.mp4".into(), real_time: false };
        assert!(reason(&options(file)).contains("correct camera.video.path"));
    }
}
