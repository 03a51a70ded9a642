//! The picture intake: whatever the bytes are, an answer or an error.

#![no_main]

use libfuzzer_sys::fuzz_target;
use remoteclipd::camera::{Colours, Layout, Picture, RawFormat, RawVideo};
use remoteclipd::vision::{Limits, pixels};

const LIMITS: Limits = Limits { bytes: 1 << 20, pixels: 1 << 20, memory: 16 << 20 };

fuzz_target!(|bytes: &[u8]| {
    for size in [None, Some(64)] {
        if let Ok(decoded) = pixels(&Picture::Encoded(bytes.to_vec()), &LIMITS, |_| size) {
            assert!(u64::from(decoded.full.0) * u64::from(decoded.full.1) <= LIMITS.pixels);
        }
    }
    if let [layout, width, height, samples @ ..] = bytes {
        let layouts = [Layout::Yuv420, Layout::Nv12, Layout::Yuyv, Layout::Rgb24];
        let colours = [Colours::Bt601, Colours::Bt709, Colours::Jpeg];
        let format = RawFormat {
            layout: layouts[usize::from(layout % 4)],
            width: u32::from(*width),
            height: u32::from(*height),
            colours: colours[usize::from(layout / 4 % 3)],
        };
        let mut whole = samples.to_vec();
        if layout & 0x80 == 0 {
            whole.resize(format.bytes() as usize, 0);
        }
        let fits = whole.len() as u64 == format.bytes();
        let picture = Picture::Raw(RawVideo { format, bytes: whole });
        assert_eq!(pixels(&picture, &LIMITS, |_| None).is_ok(), fits);
    }
});
