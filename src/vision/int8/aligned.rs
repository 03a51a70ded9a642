//! Buffers that start on a cache line.

/// Bytes of a cache line.
pub const LINE: usize = 64;

/// Values from the start of a cache line on, so that no load of a register's or a line's size crosses one where rows are whole lines.
#[derive(Debug, Default)]
pub struct Aligned<T> {
    store: Vec<T>,
    from: usize,
    len: usize,
}

impl<T: Default + Clone> Aligned<T> {
    /// `len` values, all the type's zero.
    pub fn zeroed(len: usize) -> Aligned<T> {
        let store = vec![T::default(); len + LINE];
        let from = store.as_ptr().align_offset(LINE).min(LINE);
        Aligned { store, from, len }
    }

    /// The values.
    pub fn get(&self) -> &[T] {
        &self.store[self.from..][..self.len]
    }

    /// The values, to be written.
    pub fn get_mut(&mut self) -> &mut [T] {
        &mut self.store[self.from..][..self.len]
    }

    /// The first `len` values; what they are is not said where there were fewer.
    pub fn grown(&mut self, len: usize) -> &mut [T] {
        if self.len < len {
            *self = Aligned::zeroed(len);
        }
        &mut self.get_mut()[..len]
    }
}
