//! Memory by the system's own calls: what loading took is given back, and packed weights are mapped from their file.
//!
//! While a model is loaded, its file, the parsed tensors and the packed weights exist side by side; glibc keeps what is
//! freed between blocks still in use, so that an 89 MB bundle would stay resident twice over.
#![allow(unsafe_code, reason = "calls into the C library, and bytes that belong to a file")]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use memmap2::Mmap;

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
