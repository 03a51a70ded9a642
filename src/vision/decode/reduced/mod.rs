//! A JPEG at a half, a quarter or an eighth of its size, without first making it whole.
//!
//! A camera's picture has a hundred times the pixels a model takes, and at full size decoding it costs more than the
//! model does. Reduced, each block of 8 × 8 becomes 4 × 4, 2 × 2 or 1 × 1 pixels from its lowest frequencies (as
//! libjpeg's `scale_denom` does), so the other coefficients are only stepped over, never decoded.
//!
//! Promise: takes what cameras write (baseline, 8 bits, one scan, grey or YCbCr in 4:4:4, 4:2:2, 4:4:0 or 4:2:0) and
//! answers `None` to everything else, damaged files included: the full decoder is the one that judges them.
//! Sources: ITU-T T.81 for the format, JFIF 1.02 for the colours.

mod header;
mod huffman;
mod plane;
#[cfg(test)]
mod tests;

use image::RgbImage;

use header::Header;
use huffman::{Bits, PADDING};
use plane::Plane;

/// A picture of which every side is `1 / divisor` of the file's, rounded up.
pub(super) struct Reduced {
    pub(super) image: RgbImage,
    pub(super) divisor: u32,
}

/// Decodes a picture of `width` × `height` at the smallest size whose shorter side still has `least` pixels, or twice as
/// many where each block becomes one pixel: its mean lets through fine patterns that four pixels of it do not. `None`
/// when that is the full size, or when the file is not of the kind this decoder takes.
pub(super) fn decode(bytes: &[u8], (width, height): (u32, u32), least: u32) -> Option<Reduced> {
    // Before anything is read: most pictures that are no photographs end here.
    let shorter = width.min(height) as usize;
    let side = [1, 2, 4].into_iter().find(|side| shorter * side / 8 >= least as usize * 2usize.div_ceil(*side))?;
    let header =
        Header::parse(bytes).filter(|header| (header.width, header.height) == (width as usize, height as usize))?;
    let planes = planes(&header, side)?;
    let (width, height) = ((header.width * side).div_ceil(8), (header.height * side).div_ceil(8));
    let image = RgbImage::from_raw(width as u32, height as u32, rgb(&planes, width, height))?;
    Some(Reduced { image, divisor: 8 / side as u32 })
}

/// Every component, reduced to blocks of `side` pixels of the picture.
fn planes(header: &Header, side: usize) -> Option<Vec<Plane>> {
    let mcus = (header.width.div_ceil(8 * header.mcu.0), header.height.div_ceil(8 * header.mcu.1));
    let count = mcus.0 * mcus.1;
    let mut planes: Vec<_> = header.components.iter().map(|each| Plane::new(each, header.mcu, side, mcus)).collect();
    let interval = if header.restart == 0 { count } else { header.restart };
    let mut first = 0;
    for segment in unstuffed(header.scan) {
        let last = (first + interval).min(count);
        decode_interval(header, &mut planes, &segment, mcus.0, first..last)?;
        first = last;
    }
    (first == count).then_some(planes)
}

/// The scan's restart intervals, stuffing removed, each with [`PADDING`] zeros behind it.
fn unstuffed(scan: &[u8]) -> Vec<Vec<u8>> {
    let mut segments = Vec::new();
    let mut segment = Vec::with_capacity(scan.len() + PADDING);
    let mut rest = scan;
    loop {
        let plain = memchr::memchr(0xff, rest).unwrap_or(rest.len());
        segment.extend_from_slice(&rest[..plain]);
        let marker = rest.get(plain + 1).copied();
        rest = rest.get(plain + 2..).unwrap_or_default();
        if marker == Some(0) {
            segment.push(0xff);
            continue;
        }
        segment.extend_from_slice(&[0; PADDING]);
        segments.push(std::mem::take(&mut segment));
        if !matches!(marker, Some(0xd0..=0xd7)) {
            return segments;
        }
    }
}

fn decode_interval(
    header: &Header,
    planes: &mut [Plane],
    data: &[u8],
    mcus_across: usize,
    mcus: std::ops::Range<usize>,
) -> Option<()> {
    let mut bits = Bits::new(data);
    let mut before = [0i32; 3];
    for mcu in mcus {
        let (across, down) = (mcu % mcus_across, mcu / mcus_across);
        for ((component, plane), before) in header.components.iter().zip(&mut *planes).zip(&mut before) {
            let (blocks_across, blocks_down) = component.sampling;
            for row in 0..blocks_down {
                for column in 0..blocks_across {
                    let at = (across * blocks_across + column, down * blocks_down + row);
                    plane.block(component, &mut bits, before, at)?;
                }
            }
        }
    }
    (!bits.overrun()).then_some(())
}

/// JFIF's colours, in fixed point of 16 bits.
fn rgb(planes: &[Plane], width: usize, height: usize) -> Vec<u8> {
    let mut rgb = vec![0; width * height * 3];
    for (y, row) in rgb.chunks_exact_mut(width * 3).enumerate() {
        let pixels = row.as_chunks_mut::<3>().0.iter_mut();
        match planes {
            [luma, blue, red] => {
                let chroma = blue.row(y).iter().zip(red.row(y));
                for (pixel, (y, (b, r))) in pixels.zip(luma.row(y).iter().zip(chroma)) {
                    let (y, b, r) = (i32::from(*y) << 16 | 1 << 15, i32::from(*b) - 128, i32::from(*r) - 128);
                    let level = |value: i32| (value >> 16).clamp(0, 255) as u8;
                    *pixel = [level(y + 91881 * r), level(y - 22554 * b - 46802 * r), level(y + 116130 * b)];
                }
            }
            grey => {
                for (pixel, y) in pixels.zip(grey.iter().flat_map(|plane| plane.row(y))) {
                    *pixel = [*y; 3];
                }
            }
        }
    }
    rgb
}
