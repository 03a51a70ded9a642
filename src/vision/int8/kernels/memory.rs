//! Memory by the system's own calls: what loading took is given back, packed weights are mapped from their file, or lie on large pages.
//!
//! While a model is loaded, its file, the parsed tensors and the packed weights exist side by side; glibc keeps what is
//! freed between blocks still in use, so that an 89 MB bundle would stay resident twice over.
#![allow(
    unsafe_code,
    reason = "calls into the C library, bytes that belong to a file, and disjoint pieces of one mapping"
)]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use memmap2::{Mmap, MmapOptions, MmapRaw};

use crate::vision::int8::aligned::LINE;

/// A part of a file's bytes, in memory only as far as they were read, and shared by all who map the file.
#[derive(Debug, Clone)]
pub struct Mapped {
    map: Arc<Mmap>,
    range: Range<usize>,
}

impl Mapped {
    /// All of `file`, which nobody may write to as long as it is mapped: a new one is to take its name instead.
    ///
    /// # Errors
    /// The system's.
    pub fn whole(file: &File) -> io::Result<Mapped> {
        // SAFETY: the bytes are read as bytes, whose every value is good. Whoever breaks the rule above changes results, which
        // the self-test finds, or has the system end the process for reading behind the end.
        let map = unsafe { Mmap::map(file)? };
        let range = 0..map.len();
        Ok(Mapped { map: Arc::new(map), range })
    }

    /// A part of these bytes, or `None` where it reaches beyond them.
    pub fn part(&self, range: Range<usize>) -> Option<Mapped> {
        self.bytes().get(range.clone())?;
        let from = self.range.start;
        Some(Mapped { map: self.map.clone(), range: from + range.start..from + range.end })
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.map[self.range.clone()]
    }

    /// The bytes as signed ones.
    pub fn signed(&self) -> &[i8] {
        let bytes = self.bytes();
        // SAFETY: both kinds are one byte, and each value of the one is a value of the other.
        unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len()) }
    }
}

/// Memory for large weights, one behind the other in as few mappings as hold them, which the system is asked to make of large pages.
///
/// Weights are read from end to end with every picture: small pages, some twenty thousand of them in ViT-B-32, are more than a
/// processor remembers the places of.
#[derive(Debug, Default)]
pub struct Arena {
    region: Option<Arc<MmapRaw>>,
    used: usize,
}

/// Bytes of an [`Arena`], which stay as long as this does.
#[derive(Debug)]
pub struct Piece {
    region: Arc<MmapRaw>,
    range: Range<usize>,
}

impl Arena {
    /// Bytes of a mapping: addresses only, as long as nothing is written there.
    const REGION: usize = 256 << 20;

    /// Bytes of a large page, on x86-64 and on aarch64 with small pages of 4 KiB.
    const PAGE: usize = 2 << 20;

    /// `len` bytes of zeros.
    ///
    /// # Errors
    /// The system's.
    pub fn take(&mut self, len: usize) -> io::Result<Piece> {
        let region = match &self.region {
            Some(region) if len <= region.len() - self.used => region,
            _ => {
                let (region, used) = Self::region(len)?;
                self.used = used;
                self.region.insert(Arc::new(region))
            }
        };
        let range = self.used..self.used + len;
        // Pieces begin on lines of a cache.
        self.used = range.end.next_multiple_of(LINE).min(region.len());
        Ok(Piece { region: region.clone(), range })
    }

    /// A mapping with room for `len` bytes, and where in it to begin.
    fn region(len: usize) -> io::Result<(MmapRaw, usize)> {
        let map = |len: usize| MmapOptions::new().len(len + Self::PAGE).no_reserve_swap().map_anon();
        // A system may count addresses, too: then no more than is needed.
        let map = map(Self::REGION.max(len)).or_else(|_| map(len))?;
        // Where the system has none, small pages do as well.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        let used = map.as_ptr().align_offset(Self::PAGE).min(Self::PAGE);
        Ok((map.into(), used))
    }
}

impl Piece {
    /// The bytes.
    pub fn get(&self) -> &[i8] {
        // SAFETY: the range lies inside the mapping, which lives as long as this; nobody else was given these bytes.
        unsafe { std::slice::from_raw_parts(self.region.as_ptr().add(self.range.start).cast(), self.range.len()) }
    }

    /// The bytes, to be written.
    pub fn get_mut(&mut self) -> &mut [i8] {
        // SAFETY: as above, and this is the only reference to them.
        unsafe {
            std::slice::from_raw_parts_mut(self.region.as_mut_ptr().add(self.range.start).cast(), self.range.len())
        }
    }
}

/// Returns freed memory to the system, where the C library can.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn trim() {
    unsafe extern "C" {
        fn malloc_trim(pad: usize) -> i32;
    }
    // SAFETY: the function is thread-safe, takes no pointer and touches only memory that nobody owns.
    unsafe { malloc_trim(0) };
}

/// Returns freed memory to the system, where the C library can; here it cannot.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn trim() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_zero_on_lines_and_apart() {
        let mut arena = Arena::default();
        let mut pieces: Vec<Piece> = [1, 63, 64, 65, 3 << 20].map(|len| arena.take(len).unwrap()).into();
        for (at, piece) in pieces.iter_mut().enumerate() {
            assert!(piece.get().iter().all(|byte| *byte == 0) && piece.get().as_ptr().addr().is_multiple_of(64));
            piece.get_mut().fill(at as i8 + 1);
        }
        drop(arena);
        for (at, piece) in pieces.iter().enumerate() {
            assert!(piece.get().iter().all(|byte| *byte == at as i8 + 1));
        }
        assert_eq!(pieces.iter().map(|piece| piece.get().len()).sum::<usize>(), 193 + (3 << 20));
    }

    #[test]
    fn what_a_mapping_has_no_room_for_gets_another() {
        let mut arena = Arena::default();
        let mut pieces: Vec<Piece> =
            [1, Arena::REGION + 1, Arena::REGION - 7, 100].map(|len| arena.take(len).unwrap()).into();
        for piece in &mut pieces {
            // The ends, not all: memory that nobody writes to takes none.
            let len = piece.get().len();
            piece.get_mut()[len - 1] = 1;
            assert_eq!(piece.get()[len - 1], 1);
        }
    }
}
