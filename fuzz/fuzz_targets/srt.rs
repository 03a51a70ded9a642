//! Any text as a subtitle file.
#![no_main]

use std::path::Path;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use remoteclipd::position::srt::Subtitles;

fuzz_target!(|text: &str| {
    let subtitles = Subtitles::parse(Path::new("fuzz.srt"), text);
    for second in 0..10 {
        if let Some(position) = subtitles.at(Duration::from_secs(second), Duration::from_secs(1)) {
            assert!((-180.0..=180.0).contains(&position.longitude) && (-90.0..=90.0).contains(&position.latitude));
        }
    }
});
