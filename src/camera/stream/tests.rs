use proptest::prelude::*;

use super::*;
use crate::camera::{Colours, Layout, RawVideo};

const LIMITS: FrameLimits = FrameLimits { bytes: 4096, pixels: 2000 };
const RAW: RawFormat = RawFormat { layout: Layout::Rgb24, width: 3, height: 2, colours: Colours::Bt601 };

/// What a multipart stream is made of.
const WORDS: [&[u8]; 11] = [
    b"--frame",
    b"\r\n",
    b"\n",
    b"-",
    b"frame",
    b"Content-Length: 7",
    b"Content-Length: 999999",
    b"\xFF\xD8",
    b"some words",
    &[b'x'; 1500],
    b"\r\n\r\n",
];

/// What comes out of a stream that arrives in chunks of these sizes, over and over.
fn split(format: StreamFormat, stream: &[u8], chunks: &[usize]) -> Vec<Result<Vec<u8>, String>> {
    split_with(Splitter::new(format, LIMITS), stream, chunks)
}

fn parts(stream: &[u8], chunks: &[usize]) -> Vec<Result<Vec<u8>, String>> {
    split_with(Splitter::Multipart(Multipart::new("--frame", LIMITS.bytes).unwrap()), stream, chunks)
}

fn split_with(mut splitter: Splitter, stream: &[u8], chunks: &[usize]) -> Vec<Result<Vec<u8>, String>> {
    let mut pieces = Vec::new();
    let (mut left, mut sizes) = (stream, chunks.iter().cycle());
    while !left.is_empty() {
        let (now, later) = left.split_at(left.len().min(*sizes.next().unwrap()));
        let mut input = now;
        while let Some(piece) = splitter.take(&mut input) {
            pieces.push(piece.map(bytes));
        }
        assert!(input.is_empty());
        assert!(splitter_holds(&splitter) as u64 <= LIMITS.bytes + 200);
        left = later;
    }
    pieces.extend(splitter.finish().map(|piece| piece.map(bytes)));
    pieces
}

fn bytes(picture: Picture) -> Vec<u8> {
    match picture {
        Picture::Encoded(bytes) | Picture::Raw(RawVideo { bytes, .. }) => bytes,
        Picture::Rgb(image) => image.into_raw(),
    }
}

fn splitter_holds(splitter: &Splitter) -> usize {
    match splitter {
        Splitter::Mjpeg(mjpeg) => mjpeg.unfinished(),
        Splitter::Multipart(multipart) => multipart.unfinished(),
        Splitter::Y4m(y4m) => y4m.unfinished(),
        Splitter::Raw(raw) => raw.unfinished(),
    }
}

fn frames(pieces: &[Result<Vec<u8>, String>]) -> Vec<&[u8]> {
    pieces.iter().filter_map(|piece| piece.as_deref().ok()).collect()
}

/// One JPEG as its markers have it: an APP segment with any content, a scan with any content.
fn jpeg(app: &[u8], scan: &[u8]) -> Vec<u8> {
    let mut jpeg = vec![0xFF, 0xD8, 0xFF, 0xE1];
    jpeg.extend((app.len() as u16 + 2).to_be_bytes());
    jpeg.extend(app);
    jpeg.extend([0xFF, 0xDA, 0, 3, 0]);
    for byte in scan {
        jpeg.push(*byte);
        if *byte == 0xFF {
            jpeg.push(0); // stuffed, as an encoder does
        }
    }
    jpeg.extend([0xFF, 0xD9]);
    jpeg
}

fn any_jpeg() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![3 => any::<u8>(), 1 => Just(0xFF), 1 => Just(0xD8), 1 => Just(0xD9)];
    (prop::collection::vec(byte.clone(), 0..300), prop::collection::vec(byte, 0..300))
        .prop_map(|(app, scan)| jpeg(&app, &scan))
}

proptest! {
    #[test]
    fn jpegs_come_out_whole_whatever_is_in_them_and_between_them(
        jpegs in prop::collection::vec((any_jpeg(), prop::collection::vec(0u8..0xFF, 0..50)), 0..8),
        chunks in prop::collection::vec(1usize..600, 1..10),
    ) {
        let mut stream = Vec::new();
        for (jpeg, garbage) in &jpegs {
            stream.extend(garbage);
            stream.extend(jpeg);
        }
        let pieces = split(StreamFormat::Mjpeg, &stream, &chunks);
        let expected: Vec<&[u8]> = jpegs.iter().map(|(jpeg, _)| jpeg.as_slice()).collect();
        prop_assert_eq!(frames(&pieces), expected);
        prop_assert_eq!(pieces.len(), jpegs.len());
    }

    #[test]
    fn any_bytes_in_any_chunks_give_the_same(
        stream in prop::collection::vec(
            prop_oneof![2 => any::<u8>(), 2 => Just(0xFF), 1 => Just(0xD8), 1 => Just(0xD9), 1 => Just(0xDA), 1 => Just(0)],
            0..3000,
        ),
        chunks in prop::collection::vec(1usize..100, 1..10),
    ) {
        for format in [StreamFormat::Mjpeg, StreamFormat::Y4m, StreamFormat::Raw(RAW)] {
            prop_assert_eq!(split(format, &stream, &chunks), split(format, &stream, &[usize::MAX]));
        }
    }

    #[test]
    fn parts_come_out_whole_with_and_without_a_length(
        pictures in prop::collection::vec((any_jpeg(), any::<bool>(), any::<bool>(), 2usize..6), 0..6),
        chunks in prop::collection::vec(1usize..600, 1..10),
    ) {
        let mut stream = b"a preamble\r\n".to_vec();
        for (picture, sized, bare, dashes) in &pictures {
            let end = if *bare { "\n" } else { "\r\n" };
            let length = if *sized { format!("content-LENGTH: {}{end}", picture.len()) } else { String::new() };
            let head = format!("{}frame{end}Content-Type: image/jpeg{end}{length}{end}", "-".repeat(*dashes));
            stream.extend(head.as_bytes());
            stream.extend(picture);
            stream.extend(end.as_bytes());
        }
        stream.extend(b"--frame--\r\n");
        let expected: Vec<_> = pictures.iter().map(|(picture, ..)| Ok(picture.clone())).collect();
        prop_assert_eq!(parts(&stream, &chunks), expected);
    }

    #[test]
    fn any_bytes_in_any_chunks_give_the_same_parts(
        words in prop::collection::vec(prop::sample::select(WORDS.to_vec()), 0..60),
        chunks in prop::collection::vec(1usize..100, 1..10),
    ) {
        let stream = words.concat();
        prop_assert_eq!(parts(&stream, &chunks), parts(&stream, &[usize::MAX]));
    }

    #[test]
    fn y4m_in_any_chunks_gives_its_frames(
        count in 0usize..5,
        cut in 0usize..300,
        chunks in prop::collection::vec(1usize..100, 1..10),
    ) {
        let mut stream = b"YUV4MPEG2 W16 H2 F25:1 Ip A1:1 C420jpeg XYSCSS=420JPEG\n".to_vec();
        for _ in 0..count {
            stream.extend(b"FRAME I\n");
            stream.extend([b'F'; 48]);
        }
        stream.truncate(stream.len().saturating_sub(cut));
        let whole = split(StreamFormat::Y4m, &stream, &[usize::MAX]);
        prop_assert!(frames(&whole).iter().all(|frame| **frame == [b'F'; 48]));
        prop_assert_eq!(split(StreamFormat::Y4m, &stream, &chunks), whole);
    }
}

#[test]
fn a_thumbnail_does_not_end_its_frame() {
    let frame = jpeg(&jpeg(b"small", b"thumbnail"), b"large");
    assert_eq!(split(StreamFormat::Mjpeg, &frame, &[7]), [Ok(frame)]);
}

#[test]
fn a_frame_cut_short_costs_itself_only() {
    let frame = jpeg(b"exif", &[5; 100]);
    let stream = [&frame[..60], &frame[..], &frame[..]].concat();
    let pieces = split(StreamFormat::Mjpeg, &stream, &[10]);
    assert_eq!(frames(&pieces), [&frame, &frame]);
    assert!(pieces[0].as_ref().unwrap_err().contains("the next frame begins"), "{pieces:?}");
}

#[test]
fn a_frame_over_the_limit_is_told_once_and_the_next_one_comes() {
    let (large, small) = (jpeg(&jpeg(b"", b"thumbnail"), &[1; 5000]), jpeg(b"", b"small"));
    let pieces = split(StreamFormat::Mjpeg, &[large, small.clone()].concat(), &[100]);
    assert_eq!(pieces, [Err("frame is over vision.max_bytes = 4096".to_owned()), Ok(small)]);
}

#[test]
fn a_stream_that_is_no_mjpeg_is_told_of_again_and_again() {
    let pieces = split(StreamFormat::Mjpeg, &vec![b'x'; 200 << 10], &[1000]);
    assert_eq!(pieces.len(), 3);
    assert!(pieces[0].as_ref().unwrap_err().contains("check the format"));
}

#[test]
fn the_end_within_a_frame_is_a_flaw() {
    let frame = jpeg(b"exif", b"scan");
    assert_eq!(
        split(StreamFormat::Mjpeg, &frame[..20], &[6]),
        [Err("the stream ended 20 bytes into a frame".to_owned())]
    );
    let raw = split(StreamFormat::Raw(RAW), &[9; 40], &[5]);
    assert_eq!(raw, [Ok(vec![9; 18]), Ok(vec![9; 18]), Err("the stream ended 4 bytes into a frame".to_owned())]);
}

#[test]
fn a_y4m_header_tells_when_a_frame_is_due() {
    let time_of = |rate: &str, index| {
        let mut splitter = Splitter::new(StreamFormat::Y4m, LIMITS);
        assert_eq!(splitter.rate(), None, "before the header");
        splitter.take(&mut format!("YUV4MPEG2 W16 H2 {rate}C420\n").as_bytes());
        splitter.rate().map(|rate| rate.time_of(index).as_micros())
    };
    assert_eq!(time_of("F25:1 ", 50), Some(2_000_000));
    assert_eq!(time_of("F30000:1001 ", 30_000), Some(1_001_000_000));
    for unknown in ["F0:0 ", "F25:0 ", "F25 ", "Fast ", ""] {
        assert_eq!(time_of(unknown, 50), None, "{unknown}");
    }
}

#[test]
fn a_y4m_header_that_cannot_be_used_names_the_cure() {
    for (stream, named) in [
        (&b"\xFF\xD8\xFF\xE0 a JPEG\n"[..], "camera.pipe.format"),
        (b"YUV4MPEG2 W16 F25:1\n", "no usable H"),
        (b"YUV4MPEG2 W1000 H1000\n", "vision.max_pixels"),
        (b"YUV4MPEG2 W16 H2 C444\n", "-pix_fmt yuv420p"),
        (b"YUV4MPEG2 W16 H2\nFRAMF\n", "out of step"),
        (&[b'x'; 2000], "no YUV4MPEG2"),
    ] {
        let pieces = split(StreamFormat::Y4m, stream, &[9]);
        assert!(pieces.len() == 1 && pieces[0].as_ref().unwrap_err().contains(named), "{pieces:?}");
    }
}

#[test]
fn a_part_over_the_limit_is_told_once_and_the_next_one_comes() {
    for length in ["Content-Length: 5000\r\n", ""] {
        let large = [b"--frame\r\n", length.as_bytes(), b"\r\n", &[b'x'; 5000], b"\r\n"].concat();
        let pieces = parts(&[&large[..], b"--frame\r\n\r\nsmall\r\n--frame--"].concat(), &[100]);
        assert_eq!(pieces, [Err("frame is over vision.max_bytes = 4096".to_owned()), Ok(b"small".to_vec())]);
    }
}

#[test]
fn endless_headers_are_given_up() {
    let stream = [b"--frame\r\n", &[b'h'; 9000][..], b"\r\n--frame\r\n\r\nsmall\r\n--frame--"].concat();
    let pieces = parts(&stream, &[64]);
    assert_eq!(pieces, [Err("the headers of a part are over 8192 bytes".to_owned()), Ok(b"small".to_vec())]);
}

#[test]
fn what_cannot_be_a_boundary_is_none() {
    for boundary in ["", "--", "a\nb", &"x".repeat(71)] {
        assert!(Multipart::new(boundary, 1).is_none());
    }
}
