//! `[camera]`: which source, and what it needs.

use std::path::Path;
use std::time::Duration;

use super::raw::{RawCamera, RawFolder, RawHttp, RawMqttCamera, RawPipe, RawSimulated, RawV4l2, RawVideo};
use super::{seconds, topic_level};
use crate::camera::stream::{FrameLimits, StreamFormat};
use crate::camera::{
    Address, FolderOptions, HttpOptions, Layout, MqttTopic, PipeOptions, RawFormat, Scene, SimulatedOptions,
    VideoInput, VideoOptions,
};
#[cfg(feature = "v4l2")]
use crate::camera::{V4l2Format, V4l2Options};
use crate::position::ground::Intrinsics;
use crate::vision::Limits;

/// A camera's name and source.
#[derive(Debug, Clone)]
pub struct CameraConfig {
    /// A topic level.
    pub name: String,
    /// Its lens, where it is known.
    pub lens: Option<Intrinsics>,
    /// Where its frames come from.
    pub source: Source,
}

/// Where frames come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// Files of a folder.
    Folder(FolderOptions),
    /// The simulated camera.
    Simulated(SimulatedOptions),
    /// A command's output.
    Pipe(PipeOptions),
    /// A device of the kernel's.
    #[cfg(feature = "v4l2")]
    V4l2(V4l2Options),
    /// A stream or a file, by ffmpeg.
    Video(VideoOptions),
    /// A network camera.
    Http(HttpOptions),
    /// A topic on the broker.
    Mqtt(MqttTopic),
}

pub(super) fn camera(raw: RawCamera, limits: &Limits, state: &Path) -> Result<CameraConfig, String> {
    let name = topic_level("camera.name", &raw.name)?;
    let lens = raw.horizontal_fov_deg.map(lens).transpose()?;
    let limits = FrameLimits { bytes: limits.bytes, pixels: limits.pixels };
    let folder = raw.folder.map(|raw| folder(raw, limits, state).map(Source::Folder));
    let simulated = raw.simulated.map(|raw| simulated(raw).map(Source::Simulated));
    let pipe = raw.pipe.map(|raw| pipe(raw, limits).map(Source::Pipe));
    let v4l2 = raw.v4l2.map(|raw| v4l2(raw, limits));
    let video = raw.video.map(|raw| video(raw, limits).map(Source::Video));
    let http = raw.http.map(|raw| http(raw, limits).map(Source::Http));
    let mqtt = raw.mqtt.map(|raw| mqtt(raw, limits).map(Source::Mqtt));
    let tables = [
        ("folder", folder),
        ("simulated", simulated),
        ("pipe", pipe),
        ("v4l2", v4l2),
        ("video", video),
        ("http", http),
        ("mqtt", mqtt),
    ];
    let names = tables.each_ref().map(|(name, _)| format!("[camera.{name}]")).join(", ");
    let mut sources = tables.into_iter().filter_map(|(name, source)| Some((name, source?)));
    match (sources.next(), sources.next()) {
        (Some((_, source)), None) => Ok(CameraConfig { name, lens, source: source? }),
        (Some((one, _)), Some((other, _))) => {
            Err(format!("camera.{one} and camera.{other} exclude each other; keep one"))
        }
        (None, _) => Err(format!("the camera has no source; add one of {names}")),
    }
}

fn lens(horizontal_fov: f64) -> Result<Intrinsics, String> {
    if !(1.0..=170.0).contains(&horizontal_fov) {
        return Err(format!("camera.horizontal_fov_deg = {horizontal_fov} must be between 1 and 170 degrees"));
    }
    Ok(Intrinsics { horizontal_fov })
}

fn folder(raw: RawFolder, limits: FrameLimits, state: &Path) -> Result<FolderOptions, String> {
    Ok(FolderOptions {
        path: raw.path,
        once: raw.once,
        journal: raw.resume.then(|| state.join("folder")),
        poll: raw.poll_s.map(|poll| seconds("camera.folder.poll_s", poll, 0.1)).transpose()?,
        max_bytes: limits.bytes,
    })
}

fn simulated(raw: RawSimulated) -> Result<SimulatedOptions, String> {
    for (field, value) in [("width", raw.width), ("height", raw.height)] {
        if !(32..=4096).contains(&value) {
            return Err(format!("camera.simulated.{field} = {value} must be between 32 and 4096 pixels"));
        }
    }
    if !(raw.frames_per_second > 0.0 && raw.frames_per_second <= 1000.0) {
        return Err(format!(
            "camera.simulated.frames_per_second = {} must be above 0 and at most 1000",
            raw.frames_per_second
        ));
    }
    let scene = raw.scene.as_deref().map(scene).transpose()?;
    Ok(SimulatedOptions {
        seed: raw.seed,
        width: raw.width,
        height: raw.height,
        frames_per_second: raw.frames_per_second,
        frames: raw.frames,
        scene,
    })
}

fn scene(name: &str) -> Result<Scene, String> {
    Scene::ALL.iter().copied().find(|scene| scene.name() == name).ok_or_else(|| {
        let known: Vec<_> = Scene::ALL.iter().map(|scene| scene.name()).collect();
        format!("camera.simulated.scene = \"{name}\" is none of {}", known.join(", "))
    })
}

fn pipe(raw: RawPipe, limits: FrameLimits) -> Result<PipeOptions, String> {
    if raw.command.first().is_none_or(String::is_empty) {
        return Err("camera.pipe.command is empty; it is a list: the program, then its arguments".to_owned());
    }
    let format = match raw.format.as_str() {
        "mjpeg" => StreamFormat::Mjpeg,
        "y4m" => StreamFormat::Y4m,
        name => StreamFormat::Raw(raw_format(name, &raw, limits)?),
    };
    if !matches!(format, StreamFormat::Raw(_)) && (raw.width, raw.height, raw.colours) != (None, None, None) {
        return Err(format!(
            "camera.pipe.width, height and colours are of raw frames; {} states its own: take them out",
            raw.format
        ));
    }
    Ok(PipeOptions {
        kind: "pipe",
        command: raw.command,
        format,
        once: raw.once,
        timeout: seconds("camera.pipe.timeout_s", raw.timeout_s, 0.1)?,
        limits,
    })
}

fn raw_format(name: &str, raw: &RawPipe, limits: FrameLimits) -> Result<RawFormat, String> {
    let layout = match name {
        "yuv420" => Layout::Yuv420,
        "nv12" => Layout::Nv12,
        "yuyv" => Layout::Yuyv,
        "rgb24" => Layout::Rgb24,
        _ => return Err(format!("camera.pipe.format = \"{name}\" is none of mjpeg, y4m, yuv420, nv12, yuyv, rgb24")),
    };
    let (Some(width), Some(height)) = (raw.width, raw.height) else {
        return Err(format!("camera.pipe.format = \"{name}\" needs camera.pipe.width and camera.pipe.height"));
    };
    let pixels = u64::from(width) * u64::from(height);
    if !(1..=65_535).contains(&width) || !(1..=65_535).contains(&height) || pixels > limits.pixels {
        return Err(format!(
            "camera.pipe.width x height = {width} x {height} must be above 0 and within vision.max_pixels = {}",
            limits.pixels
        ));
    }
    Ok(RawFormat { layout, width, height, colours: raw.colours.unwrap_or_default() })
}

#[cfg(not(feature = "v4l2"))]
fn v4l2(_: RawV4l2, _: FrameLimits) -> Result<Source, String> {
    Err("camera.v4l2 is not in this build: build it with the feature v4l2, or go by camera.pipe".to_owned())
}

#[cfg(feature = "v4l2")]
fn v4l2(raw: RawV4l2, limits: FrameLimits) -> Result<Source, String> {
    let format = match (raw.format.as_str(), raw.colours) {
        ("mjpeg", None) => V4l2Format::Mjpeg,
        ("mjpeg", Some(_)) => {
            return Err("camera.v4l2.colours is of yuyv; mjpeg states its own: take it out".to_owned());
        }
        ("yuyv", colours) => V4l2Format::Yuyv(colours.unwrap_or_default()),
        (name, _) => {
            return Err(format!("camera.v4l2.format = \"{name}\" is neither mjpeg nor yuyv; others go by camera.pipe"));
        }
    };
    for (field, value) in [("width", raw.width), ("height", raw.height)] {
        if !(1..=65_535).contains(&value) {
            return Err(format!("camera.v4l2.{field} = {value} must be between 1 and 65535 pixels"));
        }
    }
    if raw.frames_per_second.is_some_and(|rate| !(1..=1000).contains(&rate)) {
        return Err("camera.v4l2.frames_per_second must be between 1 and 1000".to_owned());
    }
    Ok(Source::V4l2(V4l2Options {
        device: raw.device,
        format,
        width: raw.width,
        height: raw.height,
        frames_per_second: raw.frames_per_second,
        timeout: seconds("camera.v4l2.timeout_s", raw.timeout_s, 0.1)?,
        limits,
    }))
}

fn video(raw: RawVideo, limits: FrameLimits) -> Result<VideoOptions, String> {
    let input = match (raw.url, raw.path) {
        (Some(url), None) if url.contains("://") => VideoInput::Stream { url, transport: raw.transport },
        (Some(url), None) => {
            return Err(format!("camera.video.url = \"{url}\" is no URL; name a file with camera.video.path"));
        }
        (None, Some(path)) => VideoInput::File { path, real_time: raw.real_time },
        _ => return Err("camera.video needs either url or path".to_owned()),
    };
    if raw.frames_per_second.is_some_and(|rate| !(rate > 0.0 && rate <= 1000.0)) {
        return Err("camera.video.frames_per_second must be above 0 and at most 1000".to_owned());
    }
    Ok(VideoOptions {
        input,
        frames_per_second: raw.frames_per_second,
        ffmpeg: raw.ffmpeg,
        timeout: seconds("camera.video.timeout_s", raw.timeout_s, 0.1)?,
        limits,
    })
}

fn http(raw: RawHttp, limits: FrameLimits) -> Result<HttpOptions, String> {
    let address = Address::parse(&raw.url).map_err(|reason| format!("camera.http.url cannot be used: {reason}"))?;
    let login = match (raw.username, raw.password_file) {
        (Some(user), Some(file)) => Some((user, file)),
        (None, None) => None,
        _ => return Err("camera.http.username and password_file need each other".to_owned()),
    };
    Ok(HttpOptions {
        address,
        login,
        interval: raw.interval_s.map(|interval| seconds("camera.http.interval_s", interval, 0.01)).transpose()?,
        timeout: seconds("camera.http.timeout_s", raw.timeout_s, 0.1)?,
        limits,
    })
}

fn mqtt(raw: RawMqttCamera, limits: FrameLimits) -> Result<MqttTopic, String> {
    if raw.topic.is_empty() || raw.topic.starts_with('$') || raw.topic.contains(char::is_control) {
        return Err("camera.mqtt.topic must be an MQTT topic filter; a group goes into camera.mqtt.group".to_owned());
    }
    Ok(MqttTopic {
        topic: raw.topic,
        group: raw.group.map(|group| topic_level("camera.mqtt.group", &group)).transpose()?,
        session: Duration::from_secs(u64::from(raw.session_s)),
        max_bytes: limits.bytes,
    })
}
