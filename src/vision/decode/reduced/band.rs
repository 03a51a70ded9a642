//! Some lines of MCUs, decoded by one thread: which, and how.

use std::ops::Range;
use std::slice::ChunksMut;

use super::header::Header;
use super::huffman::Bits;
use super::intervals::Intervals;
use super::plane::Plane;

/// What stepping over an MCU costs of what decoding it does.
const SKIM: f64 = 0.6;

/// Rows of MCUs for each of at most `threads`: as many that all are ready at about the same time, though each but the first has
/// to step over what stands before its rows in the restart interval that they begin in.
pub(super) fn rows(header: &Header, threads: usize) -> Vec<Range<usize>> {
    let (across, down) = header.mcus();
    let cut = |each: usize| {
        let mut bands = Vec::new();
        let mut first = 0;
        while first < down && bands.len() < threads {
            let skimmed = (first * across % header.interval()) as f64 / across as f64;
            let rows = (each as f64 - skimmed * SKIM) as usize; // none below 0
            bands.push(first..(first + rows).min(down));
            first += rows;
        }
        (first >= down).then_some(bands)
    };
    // All rows are enough for one band.
    (down.div_ceil(threads)..=down).find_map(cut).unwrap_or_default()
}

/// Rows of MCUs on their way to pixels.
pub(super) struct Band<'a> {
    header: &'a Header<'a>,
    /// Of one row of MCUs.
    planes: Vec<Plane>,
    /// The lines of each row to come.
    lines: ChunksMut<'a, u8>,
    /// Pixels in a line.
    width: usize,
}

impl<'a> Band<'a> {
    /// Whose pixels, of blocks of `side`, go to `rgb`, lines of `width` pixels.
    pub(super) fn new(header: &'a Header, side: usize, rgb: &'a mut [u8], width: usize) -> Self {
        let (across, _) = header.mcus();
        let planes = header.components.iter().map(|each| Plane::new(each, header.mcu, side, across)).collect();
        Self { header, planes, lines: rgb.chunks_mut(header.mcu.1 * side * width * 3), width }
    }

    /// Decodes `rows` of MCUs.
    pub(super) fn decode(mut self, intervals: &Intervals, rows: Range<usize>) -> Option<()> {
        let (across, _) = self.header.mcus();
        let (interval, wanted) = (self.header.interval(), rows.start * across..rows.end * across);
        for at in wanted.start / interval..wanted.end.div_ceil(interval) {
            let all = at * interval..wanted.end.min((at + 1) * interval);
            let first = all.start.max(wanted.start);
            let mut bits = Bits::new(intervals.get(at)?);
            let mut before = [0; 3];
            for _ in all.start..first {
                self.skim(&mut bits, &mut before)?;
            }
            for mcu in first..all.end {
                self.mcu(&mut bits, &mut before, mcu % across)?;
                if (mcu + 1) % across == 0 {
                    self.make_lines();
                }
            }
            (!bits.overrun()).then_some(())?;
        }
        Some(())
    }

    /// Steps over an MCU, all but the levels that the next one's count from.
    #[inline(always)]
    fn skim(&self, bits: &mut Bits, before: &mut [i32; 3]) -> Option<()> {
        for (component, before) in self.header.components.iter().zip(before) {
            for _ in 0..component.sampling.0 * component.sampling.1 {
                component.level(bits, before)?;
                bits.step_over(&component.ac, 1)?;
            }
        }
        Some(())
    }

    /// Reads the MCU at `across` of its row.
    #[inline(always)]
    fn mcu(&mut self, bits: &mut Bits, before: &mut [i32; 3], across: usize) -> Option<()> {
        for ((component, plane), before) in self.header.components.iter().zip(&mut self.planes).zip(before) {
            let (blocks_across, blocks_down) = component.sampling;
            for row in 0..blocks_down {
                for column in 0..blocks_across {
                    plane.block(component, bits, before, (across * blocks_across + column, row))?;
                }
            }
        }
        Some(())
    }

    /// The pixels of a row of MCUs that was read.
    fn make_lines(&mut self) {
        self.planes.iter_mut().for_each(Plane::make_pixels);
        if let Some(lines) = self.lines.next() {
            make_rgb(&self.planes, lines, self.width);
        }
    }
}

/// JFIF's colours, in fixed point of 16 bits.
fn make_rgb(planes: &[Plane], rgb: &mut [u8], width: usize) {
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
}
