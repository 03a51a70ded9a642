//! The tables of `[camera]`: one a source.

use std::path::PathBuf;

use serde::{Deserialize, Serialize, Serializer};

use crate::camera::{Colours, Transport};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawCamera {
    /// Name of the camera in its topics.
    #[serde(default = "camera_name")]
    pub name: String,
    /// Angle between the frame's left and right edges, in degrees: with it events say which ground they are about.
    pub horizontal_fov_deg: Option<f64>,
    pub folder: Option<RawFolder>,
    pub simulated: Option<RawSimulated>,
    pub pipe: Option<RawPipe>,
    pub v4l2: Option<RawV4l2>,
    pub video: Option<RawVideo>,
    pub http: Option<RawHttp>,
    pub mqtt: Option<RawMqttCamera>,
}

fn camera_name() -> String {
    "nadir".to_owned()
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawFolder {
    /// The folder to watch.
    pub path: PathBuf,
    /// Classify what is there and end, instead of watching.
    #[serde(default)]
    pub once: bool,
    /// Classify every picture, also what came while the daemon was away; what is done is remembered in `state.path`.
    #[serde(default)]
    pub resume: bool,
    /// Also list the folder every so many seconds: for network file systems, which tell of no arrival.
    pub poll_s: Option<f64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawSimulated {
    /// One seed gives one flight, pixel for pixel.
    pub seed: u64,
    /// Frame width in pixels.
    pub width: u32,
    /// Frame height in pixels.
    pub height: u32,
    /// Frames drawn a second.
    pub frames_per_second: f64,
    /// End after this many frames; fly on for ever when absent.
    pub frames: Option<u64>,
    /// Hover over one scene instead of flying the track.
    pub scene: Option<String>,
}

impl Default for RawSimulated {
    fn default() -> Self {
        Self { seed: 1, width: 640, height: 480, frames_per_second: 2.0, frames: None, scene: None }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawPipe {
    /// Program and arguments. No shell sees them.
    #[serde(serialize_with = "all_without_password")]
    pub command: Vec<String>,
    /// What it writes: `mjpeg`, `y4m`, or raw frames as `yuv420`, `nv12`, `yuyv` or `rgb24`.
    #[serde(default = "mjpeg")]
    pub format: String,
    /// Width of a raw frame in pixels.
    pub width: Option<u32>,
    /// Height of a raw frame in pixels.
    pub height: Option<u32>,
    /// What raw YUV samples mean: `bt601`, `bt709` or `jpeg`.
    pub colours: Option<Colours>,
    /// The command's end is the source's, instead of a reason to start it anew.
    #[serde(default)]
    pub once: bool,
    /// Seconds without a frame after which the command is started anew.
    #[serde(default = "patience")]
    pub timeout_s: f64,
}

fn mjpeg() -> String {
    "mjpeg".to_owned()
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawV4l2 {
    /// The device's node.
    pub device: PathBuf,
    /// What its frames are: `mjpeg` or `yuyv`.
    pub format: String,
    /// Width asked for in pixels; the driver gives the nearest it has.
    pub width: u32,
    /// Height asked for in pixels; the driver gives the nearest it has.
    pub height: u32,
    /// Frames a second asked for; the driver's own when absent.
    pub frames_per_second: Option<u32>,
    /// What the samples of `yuyv` mean: `bt601`, `bt709` or `jpeg`.
    pub colours: Option<Colours>,
    /// Seconds without a frame after which the device is opened anew.
    pub timeout_s: f64,
}

impl Default for RawV4l2 {
    fn default() -> Self {
        Self {
            device: "/dev/video0".into(),
            format: mjpeg(),
            width: 1280,
            height: 720,
            frames_per_second: None,
            colours: None,
            timeout_s: patience(),
        }
    }
}

fn patience() -> f64 {
    10.0
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawVideo {
    /// A stream: anything ffmpeg takes, `rtsp://…` first of all.
    #[serde(serialize_with = "without_password")]
    pub url: Option<String>,
    /// Or a video file, of which every frame is classified; then the source ends.
    pub path: Option<PathBuf>,
    /// Play the file at its own pace, as a live source.
    #[serde(default)]
    pub real_time: bool,
    /// Frames a second to take; all of them when absent.
    pub frames_per_second: Option<f64>,
    /// How RTSP carries its packets: `tcp` or `udp`.
    #[serde(default)]
    pub transport: Transport,
    /// The ffmpeg to run.
    #[serde(default = "ffmpeg")]
    pub ffmpeg: String,
    /// Seconds without a frame after which the stream is opened anew.
    #[serde(default = "patience")]
    pub timeout_s: f64,
}

fn ffmpeg() -> String {
    "ffmpeg".to_owned()
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawHttp {
    /// Where the camera's stream or picture is: `http://[user:password@]host[:port]/path`.
    #[serde(serialize_with = "one_without_password")]
    pub url: String,
    /// Seconds between two requests for a picture; a stream when absent.
    pub interval_s: Option<f64>,
    /// User name (Basic authentication).
    pub username: Option<String>,
    /// File whose first line is the password.
    pub password_file: Option<PathBuf>,
    /// Seconds without a frame after which the camera is connected to anew.
    #[serde(default = "patience")]
    pub timeout_s: f64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawMqttCamera {
    /// Topic, or topic filter, on the broker of `[mqtt]`.
    pub topic: String,
    /// Share the frames with all that name the same group: each frame goes to one of them.
    pub group: Option<String>,
    /// Seconds for which the broker keeps this worker's frames while it is away.
    #[serde(default = "session")]
    pub session_s: u32,
}

fn session() -> u32 {
    3600
}

/// The configuration is published: a password within a URL must not be.
fn without_password<S: Serializer>(url: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    url.as_deref().map(redacted).serialize(serializer)
}

fn one_without_password<S: Serializer>(url: &str, serializer: S) -> Result<S::Ok, S::Error> {
    redacted(url).serialize(serializer)
}

fn all_without_password<S: Serializer>(words: &[String], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(words.iter().map(|word| redacted(word)))
}

/// `scheme://user:password@host` with the password as stars, wherever in the text it stands.
fn redacted(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let authority = rest.find(['/', '?', '#', ' ']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(authority);
    let authority = match authority.rsplit_once('@') {
        Some((login, host)) => match login.split_once(':') {
            Some((user, _)) => format!("{user}:***@{host}"),
            None => authority.to_owned(),
        },
        None => authority.to_owned(),
    };
    format!("{scheme}://{authority}{}", redacted(path))
}

#[cfg(test)]
mod tests {
    use super::redacted;

    #[test]
    fn passwords_in_urls_are_hidden() {
        for (text, shown) in [
            ("rtsp://admin:s3:cr@t@10.0.0.2:554/live?x=1", "rtsp://admin:***@10.0.0.2:554/live?x=1"),
            ("rtspsrc location=rtsp://a:b@cam/1 ! queue", "rtspsrc location=rtsp://a:***@cam/1 ! queue"),
            ("http://cam/a@b:c", "http://cam/a@b:c"),
            ("http://cam/?next=http://a:b@c/", "http://cam/?next=http://a:***@c/"),
            ("http://user@cam/", "http://user@cam/"),
            ("/dev/video0", "/dev/video0"),
        ] {
            assert_eq!(redacted(text), shown);
        }
    }
}
