//! Huffman codes and the bits they are read from. Made for stepping over coefficients, several in one look-up.

/// Bits looked at in one step: the two tables of a picture's AC codes fit in 32 KiB.
const PEEK: u32 = 12;
/// Zero bytes behind the data, so that eight can always be read.
pub(super) const PADDING: usize = 16;

/// A code table. A step is `bits | advance << 8 | flags`: how many bits it takes and how many coefficients it passes.
pub(super) struct Huffman {
    /// For [`PEEK`] bits: the first symbol and its code's length (`symbol | length << 8`), 0 for a longer code.
    symbols: Box<[u16; 1 << PEEK]>,
    /// For [`PEEK`] bits: as many whole AC symbols as can be seen, stepped over together; 0 for a longer code.
    steps: Box<[u16; 1 << PEEK]>,
    /// Of codes with 1 to 16 bits: the first code that is too large for the length, left-aligned in 16 bits.
    limits: [u32; 17],
    /// What to add to a code of a length for its place in `values`.
    offsets: [i32; 17],
    values: Vec<u8>,
}

/// A step that ends with the block's end mark.
const END: u16 = 1 << 15;
/// No step: the first code is too long.
const NONE: u16 = 0x7f << 8;

impl Huffman {
    /// `counts`: 16 numbers of codes by length, then the symbols (T.81 B.2.4.2).
    pub(super) fn new(table: &[u8]) -> Option<Self> {
        let (counts, values) = table.split_at_checked(16)?;
        let mut huffman = Self {
            symbols: Box::new([0; 1 << PEEK]),
            steps: Box::new([0; 1 << PEEK]),
            limits: [0; 17],
            offsets: [0; 17],
            values: values.to_vec(),
        };
        let (mut code, mut at) = (0u32, 0usize);
        for length in 1..=16u32 {
            let count = usize::from(counts[length as usize - 1]);
            huffman.offsets[length as usize] = at as i32 - code as i32;
            for _ in 0..count {
                if code >= 1 << length {
                    return None;
                }
                if length <= PEEK {
                    let first = (code << (PEEK - length)) as usize;
                    let entry = u16::from(values[at]) | (length as u16) << 8;
                    huffman.symbols[first..first + (1 << (PEEK - length))].fill(entry);
                }
                code += 1;
                at += 1;
            }
            huffman.limits[length as usize] = code << (16 - length);
            code <<= 1;
        }
        for peeked in 0..1usize << PEEK {
            huffman.steps[peeked] = huffman.step(peeked);
        }
        Some(huffman)
    }

    /// As many symbols of AC coefficients as are seen whole in `peeked`. Only codes need to be seen: the bits of a
    /// value that is stepped over may lie beyond.
    fn step(&self, peeked: usize) -> u16 {
        let (mut bits, mut advance) = (0u32, 0u32);
        loop {
            let entry = self.symbols[peeked << bits & ((1 << PEEK) - 1)];
            let length = u32::from(entry >> 8);
            if length == 0 || bits + length > PEEK {
                break;
            }
            let (run, size) = (u32::from(entry >> 4 & 15), u32::from(entry & 15));
            if size == 0 && run != 15 {
                return (bits + length) as u16 | (advance as u16) << 8 | END;
            }
            if bits + length + size > 28 || advance + run + 1 > 63 {
                break; // two steps must fit in a filled buffer
            }
            bits += length + size;
            advance += run + 1;
            if bits >= PEEK {
                break;
            }
        }
        if bits == 0 { NONE } else { bits as u16 | (advance as u16) << 8 }
    }
}

/// The bits of one restart interval, without stuffing, [`PADDING`] zeros behind them.
pub(super) struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    /// Left-aligned.
    buffer: u64,
    count: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0, buffer: 0, count: 0 }
    }

    /// At least 56 bits, zeros behind the end.
    #[inline(always)]
    pub(super) fn fill(&mut self) {
        let next = match self.data.get(self.at..).and_then(|rest| rest.first_chunk()) {
            Some(bytes) => u64::from_be_bytes(*bytes),
            None => 0,
        };
        self.buffer |= next.wrapping_shr(self.count);
        self.at = self.at.wrapping_add((63 ^ self.count as usize) >> 3);
        self.count |= 56;
    }

    #[inline(always)]
    fn skip(&mut self, bits: u32) {
        self.buffer = self.buffer.wrapping_shl(bits);
        self.count = self.count.wrapping_sub(bits);
    }

    #[inline(always)]
    fn peek(&self) -> usize {
        (self.buffer >> (64 - PEEK)) as usize
    }

    /// One symbol.
    #[inline(always)]
    pub(super) fn symbol(&mut self, table: &Huffman) -> Option<u8> {
        let entry = table.symbols[self.peek()];
        if entry != 0 {
            self.skip(u32::from(entry >> 8));
            return Some(entry as u8);
        }
        self.long_symbol(table)
    }

    #[cold]
    fn long_symbol(&mut self, table: &Huffman) -> Option<u8> {
        let code = (self.buffer >> 48) as u32;
        let length = (PEEK as usize + 1..=16).find(|length| code < table.limits[*length])?;
        let place = (code >> (16 - length)) as i32 + table.offsets[length];
        self.skip(length as u32);
        table.values.get(usize::try_from(place).ok()?).copied()
    }

    /// A value of `size` bits (T.81 figure F.12).
    #[inline(always)]
    pub(super) fn value(&mut self, size: u8) -> i32 {
        let size = u32::from(size & 15);
        let raw = ((self.buffer >> 1) >> (63 - size)) as i32;
        let negative = (self.buffer >> 63) as i32 - 1; // a mask: the first bit of a negative value is 0
        self.skip(size);
        raw.wrapping_sub(negative & ((1 << size) - 1))
    }

    /// Whether more was read than there was.
    pub(super) fn overrun(&self) -> bool {
        self.at.saturating_sub(self.count as usize / 8) > self.data.len() - PADDING
    }

    /// Steps over the rest of a block's coefficients, from `place` in the scan's order.
    #[inline(always)]
    pub(super) fn step_over(&mut self, ac: &Huffman, mut place: usize) -> Option<()> {
        while place < 64 {
            self.fill();
            let first = ac.steps[self.peek()];
            let after = place + usize::from(first >> 8);
            if after <= 64 {
                self.skip(u32::from(first & 0xff));
                let second = ac.steps[self.peek()];
                place = after + usize::from(second >> 8);
                if place <= 64 {
                    self.skip(u32::from(second & 0xff));
                    continue;
                }
                place = after;
                if place == 64 {
                    return Some(());
                }
            }
            let step = ac.steps[self.peek()];
            if step & END != 0 && place + usize::from(step >> 8 & 0x7f) < 64 {
                self.skip(u32::from(step & 0xff));
                return Some(());
            }
            // At a block's end the next symbols seen may be the next block's: one at a time.
            self.fill();
            let symbol = self.symbol(ac)?;
            let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
            if size == 0 && run != 15 {
                return Some(());
            }
            self.skip(size);
            place += run + 1;
        }
        (place == 64).then_some(())
    }
}
