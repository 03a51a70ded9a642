//! Any bytes as a picture with EXIF and XMP, and as the content of a JPEG's XMP segment.
#![no_main]

use libfuzzer_sys::fuzz_target;
use remoteclipd::position::{exif, xmp};

fuzz_target!(|bytes: &[u8]| {
    if let Some(position) = exif::position(bytes) {
        assert!((-180.0..=180.0).contains(&position.longitude) && (-90.0..=90.0).contains(&position.latitude));
    }
    const HEADER: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";
    if let Ok(length) = u16::try_from(bytes.len() + HEADER.len() + 2) {
        let start = [&[0xFF, 0xD8, 0xFF, 0xE1][..], &length.to_be_bytes()].concat();
        xmp::read(&[&start, HEADER, bytes].concat());
    }
});
