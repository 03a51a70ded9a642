//! A small picture of a frame, for `snapshot`.

use image::RgbImage;
use image::codecs::jpeg::JpegEncoder;

use crate::camera::Picture;
use crate::vision::{DecodeError, Limits, pixels};

/// Many clients refuse packets over 10 KiB.
const LARGEST: usize = 9 << 10;
/// Longer side in pixels and JPEG quality, tried in this order until the picture is small enough.
const FORMS: [(u32, u8); 5] = [(320, 70), (320, 45), (240, 45), (160, 40), (96, 30)];

/// A JPEG of at most 9 KiB.
pub(super) fn thumbnail(picture: &Picture, limits: &Limits) -> Result<Vec<u8>, DecodeError> {
    let decoded = pixels(picture, limits, |_| Some(FORMS[0].0))?;
    let mut jpeg = Vec::new();
    for (side, quality) in FORMS {
        jpeg.clear();
        let small = shrink(&decoded.image, side);
        JpegEncoder::new_with_quality(&mut jpeg, quality).encode_image(&small)?;
        if jpeg.len() <= LARGEST {
            break;
        }
    }
    Ok(jpeg)
}

fn shrink(image: &RgbImage, side: u32) -> RgbImage {
    let scale = f64::from(side) / f64::from(image.width().max(image.height()).max(1));
    let fit = |length: u32| ((f64::from(length) * scale.min(1.0)).round() as u32).max(1);
    image::imageops::thumbnail(image, fit(image.width()), fit(image.height()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vision::decode;

    #[test]
    fn even_noise_becomes_a_small_jpeg() {
        let mut value = 1u32;
        let noise = RgbImage::from_fn(1000, 600, |_, _| {
            value = value.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            image::Rgb(value.to_be_bytes()[..3].try_into().unwrap())
        });
        let jpeg = thumbnail(&Picture::Rgb(noise), &Limits::default()).unwrap();
        assert!(jpeg.len() <= LARGEST, "{}", jpeg.len());
        let back = decode(&jpeg, &Limits::default()).unwrap();
        assert!(back.width() > back.height());
    }
}
