//! A scan cut at its restart markers (T.81 B.1.1.3, B.2.1), its stuffed zeros taken out.

use super::huffman::PADDING;

/// A scan's restart intervals without stuffing, one behind the other.
pub(super) struct Intervals {
    data: Vec<u8>,
    /// Where each begins. It ends, with [`PADDING`] zeros, where the next one does.
    starts: Vec<usize>,
}

impl Intervals {
    /// Those of a scan and whatever follows it; `None` where nothing does, not even the end of the image.
    pub(super) fn of(scan: &[u8]) -> Option<Self> {
        let mut data = Vec::with_capacity(scan.len() + PADDING);
        let mut starts = vec![0];
        let mut rest = scan;
        loop {
            let plain = memchr::memchr(0xff, rest).unwrap_or(rest.len());
            data.extend_from_slice(&rest[..plain]);
            let marker = *rest.get(plain + 1)?;
            rest = &rest[plain + 2..];
            if marker == 0 {
                data.push(0xff);
                continue;
            }
            data.extend_from_slice(&[0; PADDING]);
            starts.push(data.len());
            if !matches!(marker, 0xd0..=0xd7) {
                return Some(Self { data, starts });
            }
        }
    }

    /// The interval `at`, padding included.
    pub(super) fn get(&self, at: usize) -> Option<&[u8]> {
        self.data.get(*self.starts.get(at)?..*self.starts.get(at + 1)?)
    }
}
