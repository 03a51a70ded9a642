//! Streams of JPEGs and of YUV4MPEG2: the same frames in any chunks, none over the limit.

#![no_main]

use libfuzzer_sys::fuzz_target;
use remoteclipd::camera::Picture;
use remoteclipd::camera::stream::{FrameLimits, Splitter, StreamFormat};

const LIMITS: FrameLimits = FrameLimits { bytes: 4096, pixels: 4096 };

fn split(format: StreamFormat, stream: &[u8], chunk: usize) -> Vec<Result<Vec<u8>, String>> {
    let mut splitter = Splitter::new(format, LIMITS);
    let mut pieces = Vec::new();
    for mut part in stream.chunks(chunk) {
        while let Some(piece) = splitter.take(&mut part) {
            pieces.push(piece.map(|picture| match picture {
                Picture::Encoded(bytes) => bytes,
                Picture::Raw(video) => video.bytes,
                Picture::Rgb(image) => image.into_raw(),
            }));
        }
        assert!(part.is_empty());
    }
    pieces.extend(splitter.finish().map(|piece| piece.map(|_| Vec::new())));
    pieces
}

fuzz_target!(|bytes: &[u8]| {
    let [chunk, stream @ ..] = bytes else { return };
    for format in [StreamFormat::Mjpeg, StreamFormat::Y4m] {
        let pieces = split(format, stream, usize::from(*chunk) + 1);
        assert_eq!(pieces, split(format, stream, usize::MAX));
        let largest = pieces.iter().flatten().map(Vec::len).max().unwrap_or_default() as u64;
        assert!(largest <= LIMITS.bytes.max(2 * LIMITS.pixels));
    }
});
