//! A JPEG's segments, told by their markers (ITU-T T.81 B.1.1). Those of a picture within a segment, such as a thumbnail's, don't
//! count; bytes between segments are passed over, and so is what scans consist of.

const START_OF_SCAN: u8 = 0xda;
const END: u8 = 0xd9;
const HUFFMAN_TABLES: u8 = 0xc4;

/// The file up to its first scan's data, which is all that its size and orientation are read from; all of it where there is no scan.
pub(super) fn head(jpeg: &[u8]) -> &[u8] {
    let scan = Segments::of(jpeg).find(|segment| segment.marker == START_OF_SCAN);
    scan.map_or(jpeg, |scan| &jpeg[..scan.end])
}

/// Whether there is an end-of-image marker: a file without it was cut short.
pub(super) fn has_end(jpeg: &[u8]) -> bool {
    Segments::of(jpeg).any(|segment| segment.marker == END)
}

/// Whether Huffman tables come before the first scan; `None` if there is no scan.
pub(super) fn has_tables(jpeg: &[u8]) -> Option<bool> {
    let first = Segments::of(jpeg).find(|segment| [HUFFMAN_TABLES, START_OF_SCAN].contains(&segment.marker))?;
    Some(first.marker == HUFFMAN_TABLES)
}

struct Segment {
    marker: u8,
    /// Where it ends, or the head of a scan.
    end: usize,
}

struct Segments<'a> {
    jpeg: &'a [u8],
    at: usize,
}

impl<'a> Segments<'a> {
    fn of(jpeg: &'a [u8]) -> Self {
        Self { jpeg, at: 0 }
    }
}

impl Iterator for Segments<'_> {
    type Item = Segment;

    fn next(&mut self) -> Option<Segment> {
        loop {
            self.at += memchr::memchr(0xff, self.jpeg.get(self.at..)?)? + 1;
            let (marker, end) = match self.jpeg[self.at..] {
                // Stuffing, fill bytes and markers without a segment.
                [0x00 | 0x01 | 0xd0..=0xd8 | 0xff, ..] => continue,
                [END, ..] => (END, self.at + 1),
                [marker, high, low, ..] => (marker, self.at + 1 + usize::from(u16::from_be_bytes([high, low]))),
                _ => return None,
            };
            self.at = end;
            return (end <= self.jpeg.len()).then_some(Segment { marker, end });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thumbnails_markers_are_not_the_pictures() {
        let thumbnail = [0xff, 0xd8, 0xff, 0xda, 0, 2, 0xff, 0xd9];
        let head_of = [&[0xff, 0xd8, 0xff, 0xe1, 0, 10][..], &thumbnail, &[0xff, 0xff, 0xda, 0, 3, 9]].concat();
        let scan = [1, 2, 0xff, 0, 3, 0xff, 0xd0, 4];
        let whole = [&head_of[..], &scan, &[0xff, 0xd9, 0, 0]].concat();
        for end in 0..=whole.len() {
            let cut = &whole[..end];
            assert_eq!(has_end(cut), end >= whole.len() - 2, "{end} bytes");
            assert_eq!(head(cut).len(), end.min(head_of.len()), "{end} bytes");
            assert_eq!(has_tables(cut), (end >= head_of.len()).then_some(false), "{end} bytes");
        }
    }
}
