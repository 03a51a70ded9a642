//! Multipart streams: the same parts in any chunks, none over the limit.

#![no_main]

use libfuzzer_sys::fuzz_target;
use remoteclipd::camera::Picture;
use remoteclipd::camera::stream::Multipart;

const LIMIT: u64 = 4096;

fn parts(stream: &[u8], chunk: usize) -> Option<Vec<Result<Vec<u8>, String>>> {
    let mut multipart = Multipart::new("frame", LIMIT)?;
    let mut parts = Vec::new();
    for mut part in stream.chunks(chunk) {
        while let Some(piece) = multipart.take(&mut part) {
            parts.push(piece.map(|picture| match picture {
                Picture::Encoded(bytes) => bytes,
                other => panic!("{other:?}"),
            }));
        }
        assert!(part.is_empty());
    }
    Some(parts)
}

fuzz_target!(|bytes: &[u8]| {
    let [chunk, stream @ ..] = bytes else { return };
    let found = parts(stream, usize::from(*chunk) + 1);
    assert_eq!(found, parts(stream, usize::MAX));
    let largest = found.iter().flatten().flatten().map(Vec::len).max().unwrap_or_default();
    assert!(largest as u64 <= LIMIT);
});
