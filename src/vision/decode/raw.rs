//! Raw video → RGB.

use image::RgbImage;

use crate::camera::{Colours, Layout, RawVideo};

/// Converts a frame; `None` if it has not the bytes that its format asks for. Chroma is repeated, not interpolated: what is
/// smaller than two pixels does not survive the resize to the model's size.
pub(super) fn rgb(video: &RawVideo) -> Option<RgbImage> {
    let format = video.format;
    if video.bytes.len() as u64 != format.bytes() {
        return None;
    }
    let (width, height) = (format.width as usize, format.height as usize);
    if format.layout == Layout::Rgb24 {
        return RgbImage::from_raw(format.width, format.height, video.bytes.clone());
    }
    let (conversion, half) = (Conversion::of(format.colours), width.div_ceil(2));
    let (luma, chroma) = video.bytes.split_at(if format.layout == Layout::Yuyv { 0 } else { width * height });
    let mut image = RgbImage::new(format.width, format.height);
    for (y, row) in image.chunks_exact_mut((width * 3).max(1)).enumerate() {
        let pixels = row.chunks_exact_mut(3).enumerate();
        match format.layout {
            Layout::Yuv420 => {
                let (u, v) = chroma.split_at(half * height.div_ceil(2));
                let (luma, u, v) = (&luma[y * width..], &u[y / 2 * half..], &v[y / 2 * half..]);
                pixels.for_each(|(x, pixel)| conversion.write(pixel, luma[x], u[x / 2], v[x / 2]));
            }
            Layout::Nv12 => {
                let (luma, uv) = (&luma[y * width..], &chroma[y / 2 * half * 2..]);
                pixels.for_each(|(x, pixel)| conversion.write(pixel, luma[x], uv[x & !1], uv[x | 1]));
            }
            Layout::Yuyv | Layout::Rgb24 => {
                let packed = &chroma[y * half * 4..];
                pixels.for_each(|(x, pixel)| {
                    let pair = x / 2 * 4;
                    conversion.write(pixel, packed[x * 2], packed[pair + 1], packed[pair + 3]);
                });
            }
        }
    }
    Some(image)
}

/// Y'CbCr → R'G'B' (ITU-R BT.601-7, BT.709-6, JFIF 1.02), coefficients in 1/65,536.
#[derive(Debug, Clone, Copy)]
struct Conversion {
    black: i32,
    luma: i32,
    red_v: i32,
    green_u: i32,
    green_v: i32,
    blue_u: i32,
}

impl Conversion {
    fn of(colours: Colours) -> Self {
        let (red, blue) = if colours == Colours::Bt709 { (0.2126, 0.0722) } else { (0.299, 0.114) };
        // Luma spans 219 steps above 16, chroma 224 about 128; in JPEG both span all 255.
        let (black, luma, chroma) =
            if colours == Colours::Jpeg { (0, 1.0, 1.0) } else { (16, 255.0 / 219.0, 255.0 / 224.0) };
        let green = 1.0 - red - blue;
        let fixed = |value: f64| (value * 65_536.0).round() as i32;
        Self {
            black,
            luma: fixed(luma),
            red_v: fixed(2.0 * (1.0 - red) * chroma),
            green_u: fixed(-2.0 * (1.0 - blue) * blue / green * chroma),
            green_v: fixed(-2.0 * (1.0 - red) * red / green * chroma),
            blue_u: fixed(2.0 * (1.0 - blue) * chroma),
        }
    }

    #[inline]
    fn write(self, pixel: &mut [u8], luma: u8, u: u8, v: u8) {
        let grey = (i32::from(luma) - self.black) * self.luma + 32_768;
        let (u, v) = (i32::from(u) - 128, i32::from(v) - 128);
        pixel[0] = level(grey + self.red_v * v);
        pixel[1] = level(grey + self.green_u * u + self.green_v * v);
        pixel[2] = level(grey + self.blue_u * u);
    }
}

#[inline]
fn level(fixed: i32) -> u8 {
    (fixed >> 16).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::camera::RawFormat;

    fn video(layout: Layout, colours: Colours, width: u32, height: u32, bytes: &[u8]) -> RawVideo {
        RawVideo { format: RawFormat { layout, width, height, colours }, bytes: bytes.to_vec() }
    }

    /// The colour of a picture of two by two equal samples.
    fn one(layout: Layout, colours: Colours, [y, u, v]: [u8; 3]) -> [u8; 3] {
        let bytes = match layout {
            Layout::Yuyv => vec![y, u, y, v, y, u, y, v],
            _ => vec![y, y, y, y, u, v],
        };
        let image = rgb(&video(layout, colours, 2, 2, &bytes)).unwrap();
        assert!(image.pixels().all(|pixel| pixel == image.get_pixel(0, 0)));
        image.get_pixel(0, 0).0
    }

    #[test]
    fn colours_are_those_of_the_standards() {
        // Full-scale red, green, blue, white and black in the Y'CbCr of each standard.
        let tables: [(Colours, [[u8; 3]; 5]); 3] = [
            (Colours::Bt601, [[81, 90, 240], [145, 54, 34], [41, 240, 110], [235, 128, 128], [16, 128, 128]]),
            (Colours::Bt709, [[63, 102, 240], [173, 42, 26], [32, 240, 118], [235, 128, 128], [16, 128, 128]]),
            (Colours::Jpeg, [[76, 85, 255], [150, 44, 21], [29, 255, 107], [255, 128, 128], [0, 128, 128]]),
        ];
        let colours = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0]];
        for (standard, samples) in tables {
            for (sample, colour) in samples.into_iter().zip(colours) {
                for layout in [Layout::Yuv420, Layout::Nv12, Layout::Yuyv] {
                    let found = one(layout, standard, sample);
                    let near = found.iter().zip(colour).all(|(a, b): (&u8, u8)| a.abs_diff(b) <= 2);
                    assert!(near, "{layout:?} {standard:?}: {sample:?} became {found:?}, not {colour:?}");
                }
            }
        }
    }

    #[test]
    fn every_pixel_finds_its_own_samples() {
        // 3 x 3, luma 0 to 8 in JPEG's range, chroma grey: each pixel is as grey as its number.
        let grey = |image: RgbImage| image.pixels().map(|pixel| pixel[1]).collect::<Vec<_>>();
        let luma: Vec<u8> = (0..9).collect();
        for layout in [Layout::Yuv420, Layout::Nv12] {
            let bytes = [&luma[..], &[128; 8]].concat();
            assert_eq!(grey(rgb(&video(layout, Colours::Jpeg, 3, 3, &bytes)).unwrap()), luma);
        }
        let packed: Vec<u8> = luma.chunks(3).flat_map(|row| [row[0], 128, row[1], 128, row[2], 128, 99, 128]).collect();
        assert_eq!(grey(rgb(&video(Layout::Yuyv, Colours::Jpeg, 3, 3, &packed)).unwrap()), luma);
        let rgb24: Vec<u8> = (0..12).collect();
        assert_eq!(rgb(&video(Layout::Rgb24, Colours::Bt601, 2, 2, &rgb24)).unwrap().into_raw(), rgb24);
    }

    #[test]
    fn a_frame_of_other_size_is_none() {
        for bytes in [0, 5, 7] {
            assert!(rgb(&video(Layout::Yuv420, Colours::Bt601, 2, 2, &vec![0; bytes])).is_none());
        }
    }
}
