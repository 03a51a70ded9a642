//! A picture as a small JPEG inside a `data:` URL.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::DynamicImage;
use image::codecs::jpeg::JpegEncoder;

use crate::vision::{Limits, decode_for};

/// Longer side in pixels.
const SIDE: u32 = 192;
const QUALITY: u8 = 80;

/// The picture at `path`, at most 192 pixels wide and high; else why not. Within the daemon's limits on what is decoded.
pub(super) fn data_url(path: &Path) -> Result<String, String> {
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    let picture = decode_for(&bytes, &Limits::default(), Some(SIDE)).map_err(|error| error.to_string())?;
    let small = DynamicImage::ImageRgb8(picture.image.into_owned()).thumbnail(SIDE, SIDE).into_rgb8();
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, QUALITY).encode_image(&small).map_err(|error| error.to_string())?;
    Ok(format!("data:image/jpeg;base64,{}", STANDARD.encode(jpeg)))
}
