//! Every kind of camera through the front door: the binary, its example configuration, a real broker, real tools.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod examples;
mod hostile;
mod rtsp;
mod server;
mod v4l2;
mod workers;

#[path = "../support/mod.rs"]
mod support;

use std::path::Path;
use std::process::Command;

/// Runs ffmpeg to its end.
fn ffmpeg(arguments: &[&str]) {
    let output = Command::new("ffmpeg").args(["-nostdin", "-loglevel", "error"]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A JPEG of a grey shade, small and quick to decode.
fn jpeg(shade: u8) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let picture = image::RgbImage::from_pixel(160, 120, image::Rgb([shade; 3]));
    picture.write_to(&mut bytes, image::ImageFormat::Jpeg).unwrap();
    bytes.into_inner()
}

/// An executable script.
fn script(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}
