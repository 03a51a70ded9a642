//! Bytes → upright 8-bit RGB. JPEG, PNG and TIFF, told apart by their first bytes, never by a name; raw video by its format.

mod raw;
mod reduced;
mod segments;
mod tables;

use std::borrow::Cow;
use std::io::Cursor;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, RgbImage};

use super::int8::Pool;
use crate::camera::Picture;

/// What a picture may cost. Checked against its header, before its pixels are decoded.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest encoded size in bytes.
    pub bytes: u64,
    /// Largest width × height.
    pub pixels: u64,
    /// Largest memory of the decoder, in bytes.
    pub memory: u64,
}

impl Default for Limits {
    /// 32 MiB encoded, 64 megapixels, 384 MiB: a 61-megapixel camera passes, a decompression bomb does not.
    fn default() -> Self {
        Self { bytes: 32 << 20, pixels: 64_000_000, memory: 384 << 20 }
    }
}

/// An upright picture, perhaps smaller than its file's.
pub struct Decoded<'a> {
    /// Row-major 8-bit RGB.
    pub image: Cow<'a, RgbImage>,
    /// Width and height at full size.
    pub full: (u32, u32),
    /// Left, top, width and height of the part of `image` that is the picture: at a reduced size the last column and
    /// row may be of the picture in part only.
    pub window: [f64; 4],
}

impl<'a> Decoded<'a> {
    /// A picture at its full size.
    pub fn whole(image: Cow<'a, RgbImage>) -> Self {
        let (width, height) = image.dimensions();
        Self { image, full: (width, height), window: [0.0, 0.0, f64::from(width), f64::from(height)] }
    }

    fn reduced(reduced: reduced::Reduced, full: (u32, u32)) -> Self {
        let part = |side: u32| f64::from(side) / f64::from(reduced.divisor);
        Self { image: Cow::Owned(reduced.image), full, window: [0.0, 0.0, part(full.0), part(full.1)] }
    }

    fn turned(self, orientation: Orientation) -> Self {
        let (stored_width, stored_height) = (f64::from(self.image.width()), f64::from(self.image.height()));
        let [_, _, mut width, mut height] = self.window;
        // The spare part of the last column and row goes where the turn takes it.
        let (right, bottom) = (stored_width - width, stored_height - height);
        let (left, top) = match orientation {
            Orientation::NoTransforms | Orientation::Rotate90FlipH => (0.0, 0.0),
            Orientation::FlipHorizontal => (right, 0.0),
            Orientation::Rotate180 => (right, bottom),
            Orientation::FlipVertical => (0.0, bottom),
            Orientation::Rotate90 => (bottom, 0.0),
            Orientation::Rotate270FlipH => (bottom, right),
            Orientation::Rotate270 => (0.0, right),
        };
        let mut full = self.full;
        if swaps(orientation) {
            (width, height) = (height, width);
            full = (full.1, full.0);
        }
        let mut image = DynamicImage::ImageRgb8(self.image.into_owned());
        image.apply_orientation(orientation);
        Self { image: Cow::Owned(image.into_rgb8()), full, window: [left, top, width, height] }
    }
}

/// The pixels of a frame, whatever form it came in. `size` is told the upright picture's width and height and answers as for
/// [`decode_for`].
///
/// # Errors
/// As [`decode`], and [`DecodeError::RawSize`].
pub fn pixels<'a>(
    picture: &'a Picture,
    limits: &Limits,
    size: impl FnOnce((u32, u32)) -> Option<u32>,
) -> Result<Decoded<'a>, DecodeError> {
    pixels_by(&Pool::alone(), picture, limits, size)
}

/// [`pixels`] by all threads of a pool, where the file allows that.
pub(super) fn pixels_by<'a>(
    pool: &Pool,
    picture: &'a Picture,
    limits: &Limits,
    size: impl FnOnce((u32, u32)) -> Option<u32>,
) -> Result<Decoded<'a>, DecodeError> {
    match picture {
        Picture::Rgb(image) => Ok(Decoded::whole(Cow::Borrowed(image))),
        Picture::Encoded(bytes) => decode_with(pool, bytes, limits, size),
        Picture::Raw(video) => {
            let (width, height) = (video.format.width, video.format.height);
            if u64::from(width) * u64::from(height) > limits.pixels {
                return Err(DecodeError::TooManyPixels { width, height, limit: limits.pixels });
            }
            let image = raw::rgb(video).ok_or(DecodeError::RawSize {
                bytes: video.bytes.len(),
                width,
                height,
                expected: video.format.bytes(),
            })?;
            Ok(Decoded::whole(Cow::Owned(image)))
        }
    }
}

/// Decodes a picture, turns it upright by its EXIF orientation and drops alpha, as Pillow's `convert("RGB")` does.
///
/// # Errors
/// [`DecodeError`] naming the limit or what the decoder found.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<RgbImage, DecodeError> {
    Ok(decode_for(bytes, limits, None)?.image.into_owned())
}

/// [`decode`] for one who will resize the picture to `size` pixels on its shorter side, if that is given: a JPEG of more
/// than four times the size comes reduced, but never below twice the size, which keeps the result close to that from the
/// full picture (Pillow's `reducing_gap`).
///
/// # Errors
/// As [`decode`].
pub fn decode_for(bytes: &[u8], limits: &Limits, size: Option<u32>) -> Result<Decoded<'static>, DecodeError> {
    decode_with(&Pool::alone(), bytes, limits, |_| size)
}

fn decode_with(
    pool: &Pool,
    bytes: &[u8],
    limits: &Limits,
    size: impl FnOnce((u32, u32)) -> Option<u32>,
) -> Result<Decoded<'static>, DecodeError> {
    if bytes.len() as u64 > limits.bytes {
        return Err(DecodeError::TooManyBytes { bytes: bytes.len() as u64, limit: limits.bytes });
    }
    let format = image::guess_format(bytes).map_err(|_| DecodeError::Format)?;
    if !matches!(format, ImageFormat::Jpeg | ImageFormat::Png | ImageFormat::Tiff) {
        return Err(DecodeError::Format);
    }
    let is_jpeg = format == ImageFormat::Jpeg;
    let bytes = if is_jpeg { tables::complete(bytes) } else { Cow::Borrowed(bytes) };
    // A JPEG's decoder copies all it is given.
    let mut decoder = open(if is_jpeg { segments::head(&bytes) } else { &bytes }, format, limits)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > limits.pixels {
        return Err(DecodeError::TooManyPixels { width, height, limit: limits.pixels });
    }
    let orientation = decoder.orientation()?;
    let upright = if swaps(orientation) { (height, width) } else { (width, height) };
    let reduced = match size(upright) {
        Some(size) if is_jpeg => reduced::decode(&bytes, (width, height), size.saturating_mul(2), pool),
        _ => None,
    };
    let stored = match reduced {
        Some(reduced) => Decoded::reduced(reduced, (width, height)),
        None if is_jpeg && !segments::has_end(&bytes) => return Err(DecodeError::CutShort),
        None => {
            let decoder = if is_jpeg { open(&bytes, format, limits)? } else { decoder };
            Decoded::whole(Cow::Owned(DynamicImage::from_decoder(decoder)?.into_rgb8()))
        }
    };
    Ok(stored.turned(orientation))
}

/// The full decoder, its header read.
fn open<'a>(bytes: &'a [u8], format: ImageFormat, limits: &Limits) -> Result<impl ImageDecoder + 'a, ImageError> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut reader_limits = image::Limits::default();
    reader_limits.max_alloc = Some(limits.memory);
    reader.limits(reader_limits);
    reader.into_decoder()
}

/// Whether a turn makes width of height.
fn swaps(orientation: Orientation) -> bool {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    matches!(orientation, Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH)
}

/// Why a picture was not decoded.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Encoded size over the limit.
    #[error("picture of {bytes} bytes is over vision.max_bytes = {limit}; raise the limit or send smaller ones")]
    TooManyBytes {
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// More pixels than allowed.
    #[error(
        "picture of {width} x {height} pixels is over vision.max_pixels = {limit}; raise the limit or send smaller ones"
    )]
    TooManyPixels {
        /// Its width.
        width: u32,
        /// Its height.
        height: u32,
        /// The limit.
        limit: u64,
    },
    /// A raw frame without the bytes of its size.
    #[error("raw frame of {bytes} bytes; {width} x {height} pixels take {expected}")]
    RawSize {
        /// Bytes there are.
        bytes: usize,
        /// Width stated.
        width: u32,
        /// Height stated.
        height: u32,
        /// Bytes there should be.
        expected: u64,
    },
    /// Not a format we take.
    #[error("not a JPEG, PNG or TIFF picture; convert it to one")]
    Format,
    /// A JPEG without its end.
    #[error("JPEG picture is cut short: its end-of-image marker is missing; fetch it again or save it anew")]
    CutShort,
    /// Broken inside, or beyond the memory limit.
    // Some decoders end their words with a line break.
    #[error(
        "picture cannot be decoded ({}); it is damaged, cut short or too costly: fetch it again or save it anew",
        .0.to_string().trim()
    )]
    Broken(#[from] ImageError),
}

impl DecodeError {
    /// A short, stable name for counting and for logging each cause once.
    pub fn cause(&self) -> &'static str {
        match self {
            Self::TooManyBytes { .. } => "too_many_bytes",
            Self::TooManyPixels { .. } => "too_many_pixels",
            Self::RawSize { .. } => "wrong_raw_size",
            Self::Format => "unknown_format",
            Self::Broken(ImageError::Limits(_)) => "over_memory_limit",
            Self::CutShort | Self::Broken(_) => "broken_picture",
        }
    }
}

#[cfg(test)]
mod tests {
    use image::codecs::jpeg::JpegEncoder;
    use image::{ExtendedColorType, ImageEncoder, Rgb};

    use super::super::preprocess::Preprocessor;
    use super::*;
    use crate::bundle::Resize;

    fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn picture() -> RgbImage {
        RgbImage::from_fn(40, 20, |x, y| Rgb([(x * 6) as u8, (y * 12) as u8, 90]))
    }

    /// A JPEG with an EXIF orientation; 6 asks for a quarter turn clockwise.
    fn turned_jpeg(image: &RgbImage, orientation: u8) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = JpegEncoder::new_with_quality(&mut bytes, 95);
        let mut tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\0\0\0\0\0\0\0\0".to_vec();
        tiff[18] = orientation;
        encoder.set_exif_metadata(tiff).unwrap();
        encoder.write_image(image, image.width(), image.height(), ExtendedColorType::Rgb8).unwrap();
        bytes
    }

    #[test]
    fn every_pixel_form_becomes_rgb8() {
        let rgb = DynamicImage::ImageRgb8(picture());
        let forms = [
            (rgb.clone(), ImageFormat::Png),
            (DynamicImage::ImageRgba8(rgb.to_rgba8()), ImageFormat::Png),
            (DynamicImage::ImageRgb16(rgb.to_rgb16()), ImageFormat::Png),
            (DynamicImage::ImageRgb16(rgb.to_rgb16()), ImageFormat::Tiff),
            (rgb, ImageFormat::Tiff),
        ];
        for (image, format) in forms {
            assert_eq!(decode(&encoded(&image, format), &Limits::default()).unwrap(), picture());
        }
        let grey = DynamicImage::ImageLuma8(DynamicImage::ImageRgb8(picture()).to_luma8());
        assert_eq!(decode(&encoded(&grey, ImageFormat::Jpeg), &Limits::default()).unwrap().dimensions(), (40, 20));
    }

    #[test]
    fn a_motion_jpeg_without_huffman_tables_has_the_standard_ones() {
        let whole = encoded(
            &DynamicImage::ImageRgb8(RgbImage::from_fn(640, 480, |x, y| Rgb([x as u8, y as u8, 90]))),
            ImageFormat::Jpeg,
        );
        let mut without = whole.clone();
        while let Some(at) = without.windows(2).position(|pair| pair == [0xFF, 0xC4]) {
            let length = usize::from(u16::from_be_bytes([without[at + 2], without[at + 3]]));
            without.drain(at..at + 2 + length);
        }
        assert!(without.len() < whole.len() - 400);
        for size in [None, Some(64)] {
            let [ours, theirs] = [&without, &whole].map(|bytes| decode_for(bytes, &Limits::default(), size).unwrap());
            assert!(ours.image == theirs.image, "{size:?}");
        }
    }

    #[test]
    fn exif_orientation_is_honoured() {
        let upright = decode(&turned_jpeg(&picture(), 6), &Limits::default()).unwrap();
        assert_eq!(upright.dimensions(), (20, 40));
        // The top-left of the stored picture comes to the top-right; the gradient along x runs down now.
        assert!(upright.get_pixel(10, 39)[0] > 200 && upright.get_pixel(10, 0)[0] < 40);
    }

    #[test]
    fn a_reduced_picture_is_turned_and_placed_as_the_whole_one() {
        let image = RgbImage::from_fn(637, 413, |x, y| {
            Rgb([(x * 255 / 637) as u8, (y * 255 / 413) as u8, (x / 64 * 25) as u8])
        });
        for orientation in 1..=8 {
            let bytes = turned_jpeg(&image, orientation);
            let whole = decode_for(&bytes, &Limits::default(), None).unwrap();
            let reduced = decode_for(&bytes, &Limits::default(), Some(50)).unwrap();
            assert!(reduced.image.width() < whole.image.width() && reduced.full == whole.full, "{orientation}");
            let mut preprocessor = Preprocessor::new(50, Resize::Bicubic);
            let [ours, theirs] = [&reduced, &whole].map(|picture| preprocessor.square(picture).unwrap());
            let apart: f64 = ours.iter().zip(theirs.iter()).map(|(a, b)| f64::from(a.abs_diff(*b))).sum();
            assert!(apart / (50.0 * 50.0 * 3.0) < 0.6, "{orientation}: {}", apart / 7500.0);
        }
    }

    #[test]
    fn limits_hold_before_the_pixels_are_decoded() {
        let png = encoded(&DynamicImage::ImageRgb8(picture()), ImageFormat::Png);
        let cause = |limits: Limits| decode(&png, &limits).unwrap_err().cause();
        assert_eq!(cause(Limits { bytes: 10, ..Limits::default() }), "too_many_bytes");
        assert_eq!(cause(Limits { pixels: 799, ..Limits::default() }), "too_many_pixels");
        assert_eq!(cause(Limits { memory: 100, ..Limits::default() }), "over_memory_limit");
    }

    #[test]
    fn a_header_that_promises_ten_gigapixels_is_refused() {
        let mut png = encoded(&DynamicImage::ImageRgb8(picture()), ImageFormat::Png);
        png[16..24].copy_from_slice(&[0, 1, 0x86, 0xa0, 0, 1, 0x86, 0xa0]);
        let crc = crc32(&png[12..29]);
        png[29..33].copy_from_slice(&crc.to_be_bytes());
        let cause = decode(&png, &Limits::default()).unwrap_err().cause();
        assert!(["too_many_pixels", "over_memory_limit"].contains(&cause), "{cause}");
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
        })
    }

    #[test]
    fn broken_pictures_have_a_cause() {
        let jpeg = encoded(&DynamicImage::ImageRgb8(picture()), ImageFormat::Jpeg);
        for (bytes, cause) in [
            (&b""[..], "unknown_format"),
            (b"GIF89a........", "unknown_format"),
            (b"hello world", "unknown_format"),
            (&jpeg[..60], "broken_picture"),
            (&jpeg[..jpeg.len() - 2], "broken_picture"),
        ] {
            assert_eq!(decode(bytes, &Limits::default()).unwrap_err().cause(), cause);
        }
    }
}
