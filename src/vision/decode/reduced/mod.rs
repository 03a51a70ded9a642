//! A JPEG at a half, a quarter or an eighth of its size, without first making it whole.
//!
//! A camera's picture has a hundred times the pixels a model takes, and at full size decoding it costs more than the
//! model does. Reduced, each block of 8 × 8 becomes 4 × 4, 2 × 2 or 1 × 1 pixels from its lowest frequencies (as
//! libjpeg's `scale_denom` does), so the other coefficients are only stepped over, never decoded.
//!
//! Promise: takes what cameras write (baseline, 8 bits, one scan, grey or YCbCr in 4:4:4, 4:2:2, 4:4:0 or 4:2:0) and
//! answers `None` to everything else, damaged files included: the full decoder is the one that judges them.
//! Sources: ITU-T T.81 for the format, JFIF 1.02 for the colours.

mod band;
mod header;
mod huffman;
mod intervals;
mod plane;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use image::RgbImage;

use band::Band;
use header::Header;
use intervals::Intervals;

use crate::vision::int8::Pool;

/// A picture of which every side is `1 / divisor` of the file's, rounded up.
pub(super) struct Reduced {
    pub(super) image: RgbImage,
    pub(super) divisor: u32,
}

/// Decodes a picture of `width` × `height` at the smallest size whose shorter side still has `least` pixels, or twice as
/// many where each block becomes one pixel: its mean lets through fine patterns that four pixels of it do not. `None`
/// when that is the full size, or when the file is not of the kind this decoder takes. The pool's threads share the work;
/// the result is the same with any number of them.
pub(super) fn decode(bytes: &[u8], (width, height): (u32, u32), least: u32, pool: &Pool) -> Option<Reduced> {
    // Before anything is read: most pictures that are no photographs end here.
    let shorter = width.min(height) as usize;
    let side = [1, 2, 4].into_iter().find(|side| shorter * side / 8 >= least as usize * 2usize.div_ceil(*side))?;
    let header =
        Header::parse(bytes).filter(|header| (header.width, header.height) == (width as usize, height as usize))?;
    let (width, height) = ((header.width * side).div_ceil(8), (header.height * side).div_ceil(8));
    let mut rgb = vec![0; width * height * 3];
    draw(&header, side, (&mut rgb, width), pool)?;
    let image = RgbImage::from_raw(width as u32, height as u32, rgb)?;
    Some(Reduced { image, divisor: 8 / side as u32 })
}

/// Writes all pixels, lines of `width`, a band a thread.
fn draw(header: &Header, side: usize, (rgb, width): (&mut [u8], usize), pool: &Pool) -> Option<()> {
    let intervals = Intervals::of(header.scan)?;
    let line = header.mcu.1 * side * width * 3;
    let mut rest = rgb;
    let mut jobs = Vec::new();
    for rows in band::rows(header, pool.threads()) {
        let (rgb, below) = rest.split_at_mut((rows.len() * line).min(rest.len()));
        rest = below;
        jobs.push(Mutex::new(Some((Band::new(header, side, rgb, width), rows))));
    }
    let failed = AtomicBool::new(false);
    pool.run(jobs.len(), &|job| {
        let job = jobs[job].lock().unwrap_or_else(PoisonError::into_inner).take();
        if job.and_then(|(band, rows)| band.decode(&intervals, rows)).is_none() {
            failed.store(true, Ordering::Relaxed);
        }
    });
    (!failed.into_inner()).then_some(())
}
