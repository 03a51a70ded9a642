//! CLIP's resize and crop: the shorter side to the model's size with an anti-aliased filter, then the centre square.
//!
//! As torchvision's `Resize(size)` and `CenterCrop(size)` on a Pillow image do, which OpenCLIP's `image_transform` uses.
//! Mean and standard deviation are applied by the encoder, so that its first layer may take the bytes as they are.

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use image::RgbImage;

use super::decode::Decoded;
use super::tiles::Area;
use crate::bundle::Resize;

/// Brings pictures to the model's square. Keeps its buffers from frame to frame.
pub struct Preprocessor {
    size: u32,
    options: ResizeOptions,
    resizer: Resizer,
}

impl Preprocessor {
    /// The model's side in pixels.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// For a model that takes `size` × `size` pixels, resized with `filter`.
    pub fn new(size: u32, filter: Resize) -> Self {
        let filter = match filter {
            // Catmull-Rom is the bicubic with a = -0.5 that Pillow uses.
            Resize::Bicubic => FilterType::CatmullRom,
            Resize::Bilinear => FilterType::Bilinear,
        };
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter));
        Self { size, options, resizer: Resizer::new() }
    }

    /// The model's square of a picture: `size` × `size` RGB.
    ///
    /// # Errors
    /// [`PreprocessError`] for a picture so long and thin that its resized form would be over 2^24 pixels.
    pub fn square(&mut self, picture: &Decoded) -> Result<RgbImage, PreprocessError> {
        let (width, height) = resized(picture.full.0, picture.full.1, self.size).ok_or_else(|| shape(picture))?;
        let target = self.resize(picture, picture.window, (width, height))?;
        Ok(centre(&target, self.size))
    }

    /// The model's square of a part of a picture, the whole of that part: one that is not square is squeezed.
    ///
    /// # Errors
    /// [`PreprocessError`] for a part that is empty or not inside the picture.
    pub fn part(&mut self, picture: &Decoded, area: &Area) -> Result<RgbImage, PreprocessError> {
        let within =
            |start: u32, length: u32, of: u32| length > 0 && start.checked_add(length).is_some_and(|end| end <= of);
        if !within(area.left, area.width, picture.full.0) || !within(area.top, area.height, picture.full.1) {
            return Err(shape(picture));
        }
        let [left, top, width, height] = picture.window;
        let (across, down) = (width / f64::from(picture.full.0), height / f64::from(picture.full.1));
        let window = [
            left + f64::from(area.left) * across,
            top + f64::from(area.top) * down,
            f64::from(area.width) * across,
            f64::from(area.height) * down,
        ];
        self.resize(picture, window, (self.size, self.size))
    }

    /// Brings a window of the stored picture to `width` × `height`. No row above or below the window is looked at.
    fn resize(
        &mut self,
        picture: &Decoded,
        [left, top, across, down]: [f64; 4],
        (width, height): (u32, u32),
    ) -> Result<RgbImage, PreprocessError> {
        let shape = || shape(picture);
        let (stored_width, stored_height) = picture.image.dimensions();
        let (first, last) = (top.floor() as u32, ((top + down).ceil() as u32).min(stored_height));
        let row = stored_width as usize * 3;
        let rows = picture.image.as_raw().get(first as usize * row..last as usize * row).ok_or_else(shape)?;
        let count = last - first;
        let source = TypedImageRef::<U8x3>::from_buffer(stored_width, count, rows).map_err(|_| shape())?;
        // By the functions that name the kind of pixel: those that find it out bring the code of all thirteen kinds.
        // Two calls, since Pillow takes the width first and this crate, for bytes, the height; between the two passes
        // values are clipped to 0..=255, so at hard edges the order shows.
        let across = across.min(f64::from(stored_width) - left);
        let narrowing = self.options.crop(left, 0.0, across, f64::from(count));
        let mut narrowed = TypedImage::<U8x3>::new(width, count);
        self.resizer.resize_typed(&source, &mut narrowed, &narrowing).map_err(|_| shape())?;
        let top = top - f64::from(first);
        let lowering = self.options.crop(0.0, top, f64::from(width), down.min(f64::from(count) - top));
        let mut target = RgbImage::new(width, height);
        let mut lowered = TypedImage::<U8x3>::from_buffer(width, height, &mut target).map_err(|_| shape())?;
        self.resizer.resize_typed(&narrowed, &mut lowered, &lowering).map_err(|_| shape())?;
        Ok(target)
    }
}

fn shape(picture: &Decoded) -> PreprocessError {
    PreprocessError::Shape { width: picture.full.0, height: picture.full.1 }
}

/// Width and height after torchvision's `Resize(size)`: the longer side is truncated, not rounded.
fn resized(width: u32, height: u32, size: u32) -> Option<(u32, u32)> {
    const MOST: u64 = 1 << 24;
    let (short, long) = (width.min(height), width.max(height));
    let other = (u64::from(size) * u64::from(long)).checked_div(u64::from(short))?;
    if other * u64::from(size) > MOST {
        return None;
    }
    let other = u32::try_from(other).ok()?;
    Some(if width <= height { (size, other) } else { (other, size) })
}

/// The centre square, placed as torchvision's `CenterCrop` places it.
fn centre(picture: &RgbImage, size: u32) -> RgbImage {
    let (width, height) = picture.dimensions();
    let (left, top) = (offset(width - size) as usize, offset(height - size) as usize);
    let (row, part) = (width as usize * 3, size as usize * 3);
    let mut square = RgbImage::new(size, size);
    for (target, source) in square.chunks_exact_mut(part).zip(picture.chunks_exact(row).skip(top)) {
        target.copy_from_slice(&source[left * 3..left * 3 + part]);
    }
    square
}

/// Half of `spare`, with Python's rounding of a half to the even neighbour.
fn offset(spare: u32) -> u32 {
    let half = spare / 2;
    half + (spare % 2) * (half % 2)
}

/// Why a picture could not be brought to the model's size.
#[derive(Debug, thiserror::Error)]
pub enum PreprocessError {
    /// No usable shape.
    #[error("a picture of {width} x {height} pixels cannot be brought to the model's square; crop it first")]
    Shape {
        /// Its width.
        width: u32,
        /// Its height.
        height: u32,
    },
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use image::Rgb;

    use super::*;

    #[test]
    fn sizes_are_torchvisions() {
        // Taken from torchvision.transforms.functional._compute_resized_output_size.
        for ((width, height), expected) in [
            ((640, 480), (298, 224)),
            ((480, 640), (224, 298)),
            ((333, 500), (224, 336)),
            ((224, 224), (224, 224)),
            ((10, 11), (224, 246)),
        ] {
            assert_eq!(resized(width, height, 224), Some(expected));
        }
        assert_eq!(resized(100_000, 1, 224), None);
        assert_eq!(resized(0, 5, 224), None);
    }

    #[test]
    fn halves_round_to_even_as_in_python() {
        assert_eq!([1, 3, 5, 7, 75, 74].map(offset), [0, 2, 2, 4, 38, 37]);
    }

    #[test]
    fn the_square_is_the_centre() {
        let mut image = RgbImage::from_pixel(300, 100, Rgb([0, 0, 0]));
        for y in 0..100 {
            for x in 100..200 {
                image.put_pixel(x, y, Rgb([200, 100, 50]));
            }
        }
        let square = Preprocessor::new(100, Resize::Bicubic).square(&Decoded::whole(Cow::Owned(image))).unwrap();
        assert!(square.pixels().all(|pixel| *pixel == Rgb([200, 100, 50])));
    }

    #[test]
    fn a_part_is_what_a_picture_cut_out_there_would_be() {
        let image = RgbImage::from_fn(301, 202, |x, y| Rgb([(x * y / 7) as u8, (x * 3) as u8, (y ^ x) as u8]));
        let area = Area { left: 57, top: 31, width: 150, height: 150 };
        let cut = image::imageops::crop_imm(&image, area.left, area.top, area.width, area.height).to_image();
        let mut preprocessor = Preprocessor::new(64, Resize::Bicubic);
        let part = preprocessor.part(&Decoded::whole(Cow::Borrowed(&image)), &area).unwrap();
        let alone = preprocessor.square(&Decoded::whole(Cow::Owned(cut))).unwrap();
        // Left and right of the part the filter reaches into the picture, which an edge hides from a cut.
        let inner = |square: &RgbImage| image::imageops::crop_imm(square, 2, 0, 60, 64).to_image();
        assert_eq!(inner(&part), inner(&alone));
    }

    #[test]
    fn a_part_outside_the_picture_is_an_error() {
        let image = RgbImage::new(30, 20);
        let area = Area { left: 0, top: 15, width: 10, height: 10 };
        assert!(Preprocessor::new(8, Resize::Bicubic).part(&Decoded::whole(Cow::Owned(image)), &area).is_err());
    }

    #[test]
    fn impossible_shapes_are_errors() {
        let mut preprocessor = Preprocessor::new(224, Resize::Bicubic);
        for (width, height) in [(0, 0), (100_000, 1)] {
            let error =
                preprocessor.square(&Decoded::whole(Cow::Owned(RgbImage::new(width, height)))).unwrap_err().to_string();
            assert!(error.contains("crop it first"), "{error}");
        }
    }
}
