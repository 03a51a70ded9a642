//! Against the full decoder on pictures of every kind taken, and against damage of every kind.

use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder, ImageFormat, Rgb, RgbImage};
use proptest::prelude::*;

use super::header::Header;
use super::{Reduced, band};
use crate::vision::int8::Pool;

fn decode(bytes: &[u8], size: (u32, u32), least: u32, threads: usize) -> Option<Reduced> {
    super::decode(bytes, size, least, &Pool::new(threads).unwrap())
}

/// Waves and edges, of a shape that fills no block.
fn picture(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let wave = (f64::from(x) / 9.0).sin() * 60.0 + (f64::from(y) / 13.0).cos() * 60.0 + 128.0;
        Rgb([wave as u8, (x * 255 / width) as u8, if (x / 40 + y / 40) % 2 == 0 { 40 } else { 200 }])
    })
}

fn jpeg(image: &RgbImage, quality: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoder = JpegEncoder::new_with_quality(&mut bytes, quality);
    encoder.write_image(image, image.width(), image.height(), ExtendedColorType::Rgb8).unwrap();
    bytes
}

/// The mean of every `divisor` × `divisor` square, the last ones cut.
fn means(image: &RgbImage, divisor: u32) -> RgbImage {
    RgbImage::from_fn(image.width().div_ceil(divisor), image.height().div_ceil(divisor), |x, y| {
        let (right, bottom) = ((x + 1) * divisor, (y + 1) * divisor);
        let mut sums = [0u32; 4];
        for row in y * divisor..bottom.min(image.height()) {
            for column in x * divisor..right.min(image.width()) {
                let Rgb(pixel) = image.get_pixel(column, row);
                (0..3).for_each(|channel| sums[channel] += u32::from(pixel[channel]));
                sums[3] += 1;
            }
        }
        Rgb([0, 1, 2].map(|channel| ((sums[channel] + sums[3] / 2) / sums[3]) as u8))
    })
}

#[test]
fn an_eighth_is_the_mean_of_every_block_and_more_is_close_to_it() {
    let bytes = jpeg(&picture(403, 301), 95);
    let full = image::load_from_memory_with_format(&bytes, ImageFormat::Jpeg).unwrap().into_rgb8();
    for (least, divisor, bound) in [(18, 8, 1.0), (70, 4, 2.5), (150, 2, 2.5)] {
        let reduced = decode(&bytes, (403, 301), least, 1).unwrap();
        assert_eq!(reduced.divisor, divisor);
        let expected = means(&full, divisor);
        assert_eq!(reduced.image.dimensions(), expected.dimensions());
        // Blocks at the right and lower edge hold pixels that are not in the picture, so their means are others.
        let (width, height) = (full.width() / 8 * 8 / divisor, full.height() / 8 * 8 / divisor);
        let mut apart = 0.0;
        for (x, y) in (0..height).flat_map(|y| (0..width).map(move |x| (x, y))) {
            let (Rgb(ours), Rgb(theirs)) = (reduced.image.get_pixel(x, y), expected.get_pixel(x, y));
            apart += (0..3).map(|channel| f64::from(ours[channel].abs_diff(theirs[channel]))).sum::<f64>();
        }
        let mean = apart / f64::from(width * height * 3);
        assert!(mean < bound, "{mean} levels apart at 1/{divisor}");
    }
}

/// Most blocks of a smooth picture end before the last coefficient that is kept.
#[test]
fn a_smooth_picture_stays_smooth() {
    let picture = RgbImage::from_fn(512, 384, |x, y| Rgb([(x / 2) as u8, (y / 2) as u8, ((x + y) / 4) as u8]));
    let bytes = jpeg(&picture, 90);
    for (least, divisor) in [(24, 8), (96, 4), (192, 2)] {
        let reduced = decode(&bytes, (512, 384), least, 1).unwrap();
        assert_eq!(reduced.divisor, divisor);
        for (ours, mean) in reduced.image.pixels().zip(means(&picture, divisor).pixels()) {
            let apart = (0..3).map(|channel| ours.0[channel].abs_diff(mean.0[channel])).max().unwrap();
            assert!(apart <= 5, "{ours:?} for {mean:?} at 1/{divisor}");
        }
    }
}

#[test]
fn the_smallest_size_that_is_large_enough_is_taken() {
    let bytes = jpeg(&picture(403, 301), 80);
    for (least, divisor) in [(1, Some(8)), (18, Some(8)), (19, Some(4)), (75, Some(4)), (76, Some(2)), (150, Some(2))] {
        assert_eq!(decode(&bytes, (403, 301), least, 1).map(|reduced| reduced.divisor), divisor, "{least}");
    }
    assert!(decode(&bytes, (403, 301), 151, 1).is_none());
}

#[test]
fn grey_pictures_are_taken() {
    let grey = image::DynamicImage::ImageRgb8(picture(160, 96)).into_luma8();
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 90).write_image(&grey, 160, 96, ExtendedColorType::L8).unwrap();
    let reduced = decode(&bytes, (160, 96), 12, 1).unwrap().image;
    let mean = grey.pixels().map(|pixel| f64::from(pixel.0[0])).sum::<f64>() / f64::from(160 * 96);
    let ours = reduced.pixels().map(|pixel| f64::from(pixel.0[0])).sum::<f64>() / reduced.pixels().len() as f64;
    assert!((mean - ours).abs() < 1.0 && reduced.pixels().all(|Rgb([r, g, b])| r == g && g == b));
}

/// The picture as `columns` × `rows` restart intervals: their scans, each encoded by itself, one behind the other.
fn with_restarts(image: &RgbImage, (columns, rows): (u32, u32), quality: u8) -> Vec<u8> {
    let (width, height) = image.dimensions();
    let (w, h) = (width / columns, height / rows);
    assert_eq!((w % 8, h % 8, columns == 1 || h == 8), (0, 0, true), "an interval is a run of MCUs");
    let mut bytes = Vec::new();
    for at in 0..columns * rows {
        let part = image::imageops::crop_imm(image, at % columns * w, at / columns * h, w, h).to_image();
        let encoded = jpeg(&part, quality);
        let find = |marker: u8| encoded.windows(2).position(|pair| pair == [0xff, marker]).unwrap();
        let (frame, scan) = (find(0xc0), find(0xda));
        if at == 0 {
            bytes = encoded[..scan + 14].to_vec();
            bytes[frame + 5..frame + 9]
                .copy_from_slice(&[(height as u16).to_be_bytes(), (width as u16).to_be_bytes()].concat());
            let mcus = (w / 8 * h / 8) as u16; // this encoder does not subsample
            let interval = [&[0xff, 0xdd, 0, 4][..], &mcus.to_be_bytes()].concat();
            bytes.splice(frame..frame, interval);
        } else {
            bytes.extend([0xff, 0xd0 + (at - 1) as u8 % 8]);
        }
        bytes.extend(&encoded[scan + 14..encoded.len() - 2]);
    }
    bytes.extend([0xff, 0xd9]);
    bytes
}

#[test]
fn threads_begin_where_intervals_do_and_change_nothing() {
    let image = picture(512, 480);
    let whole = decode(&jpeg(&image, 85), (512, 480), 60, 4).unwrap().image;
    for parts in [(1, 1), (1, 2), (1, 3), (1, 5), (1, 15), (1, 60), (2, 60), (4, 60)] {
        let bytes = with_restarts(&image, parts, 85);
        for threads in [1, 2, 3, 4, 7, 40] {
            let found = decode(&bytes, (512, 480), 60, threads).unwrap().image;
            assert!(found == whole, "{parts:?} intervals, {threads} threads");
        }
        assert!(decode(&bytes[..bytes.len() - 40], (512, 480), 60, 4).is_none(), "{parts:?} intervals, the last cut");
    }
}

#[test]
fn bands_cover_all_rows_and_are_ready_together() {
    let bytes = jpeg(&picture(512, 480), 85);
    let frame = bytes.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    for interval in [0, 1, 32, 64, 65, 96, 64 * 7, 64 * 30, 40_000] {
        let restarts = [&[0xff, 0xdd, 0, 4][..], &u16::to_be_bytes(interval)].concat();
        let bytes = [&bytes[..frame], &restarts, &bytes[frame..]].concat();
        let header = Header::parse(&bytes).unwrap();
        assert_eq!(header.mcus(), (64, 60));
        for threads in 1..70 {
            let bands = band::rows(&header, threads);
            let covered: Vec<_> = bands.iter().cloned().flatten().collect();
            assert_eq!(covered, (0..60).collect::<Vec<_>>(), "every {interval}, {threads} threads");
            assert!((1..=threads).contains(&bands.len()), "every {interval}, {threads} threads");
        }
        let two = band::rows(&header, 2);
        let second = if (1..=64 * 30).contains(&interval) { 28..=31 } else { 42..=44 };
        assert!(two.len() == 2 && second.contains(&two[1].start), "{two:?}, every {interval}");
    }
}

#[test]
fn a_cut_scan_is_left_to_the_full_decoder() {
    let bytes = jpeg(&picture(400, 300), 80);
    for kept in [0, 2, 20, 300, bytes.len() / 2, bytes.len() - 40] {
        assert!(decode(&bytes[..kept], (400, 300), 20, 1).is_none(), "{kept}");
    }
}

proptest! {
    /// No damage makes it panic, and what it gives has the shape it should have, whoever shares the work.
    #[test]
    fn damage_never_panics(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12)) {
        let mut bytes = jpeg(&picture(97, 65), 75);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let found = decode(&bytes, (97, 65), 4, 1).map(|reduced| reduced.image);
        if let Some(image) = &found {
            prop_assert!(image.width() > 0 && image.height() > 0);
        }
        prop_assert!(found == decode(&bytes, (97, 65), 4, 3).map(|reduced| reduced.image), "other with three threads");
    }

    #[test]
    fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut bytes = jpeg(&picture(33, 33), 75);
        let scan = bytes.windows(2).position(|pair| pair == [0xff, 0xda]).unwrap() + 14;
        bytes.truncate(scan);
        bytes.extend(noise);
        decode(&bytes, (33, 33), 4, 1);
    }
}
