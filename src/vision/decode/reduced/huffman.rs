//! Huffman codes and the bits they are read from. Made for stepping over coefficients, several in one look-up.

/// Bits looked at in one step: the tables of a picture's two AC codes take 32 KiB.
const PEEK: u32 = 12;
/// Zero bytes behind the data, so that eight can always be read.
pub(super) const PADDING: usize = 16;

/// A code table.
pub(super) struct Huffman {
    /// For [`PEEK`] bits: the first symbol, or 0 for a longer code.
    symbols: Box<[Symbol; 1 << PEEK]>,
    /// For [`PEEK`] bits: as many AC symbols as can be seen, stepped over together, as `bits | advance << 8 | flags`: how many
    /// bits they take and how many coefficients they pass.
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

/// `bits | size << 5 | run << 9`: bits that the code and the coefficient's value take, those of the value alone, and how many
/// coefficients of 0 stand before it or [`TO_THE_END`].
type Symbol = u16;
/// The run that a block's end mark stands for: more than there are coefficients.
const TO_THE_END: usize = 127;
/// Behind a block's end mark the next coefficient's place is this or more, which nothing else makes it.
pub(super) const ENDED: usize = TO_THE_END + 1;

impl Huffman {
    /// `counts`: 16 numbers of codes by length, then the symbols (T.81 B.2.4.2).
    pub(super) fn new(table: &[u8]) -> Option<Self> {
        let (counts, symbols) = table.split_at_checked(16)?;
        // For `PEEK` bits: the first symbol and its code's length (`symbol | length << 8`), 0 for a longer code.
        let mut seen = [0u16; 1 << PEEK];
        let (mut limits, mut offsets) = ([0; 17], [0; 17]);
        let (mut code, mut at) = (0u32, 0usize);
        for length in 1..=16u32 {
            let count = usize::from(counts[length as usize - 1]);
            offsets[length as usize] = at as i32 - code as i32;
            for _ in 0..count {
                if code >= 1 << length {
                    return None;
                }
                if length <= PEEK {
                    let first = (code << (PEEK - length)) as usize;
                    let entry = u16::from(symbols[at]) | (length as u16) << 8;
                    seen[first..first + (1 << (PEEK - length))].fill(entry);
                }
                code += 1;
                at += 1;
            }
            limits[length as usize] = code << (16 - length);
            code <<= 1;
        }
        let mut steps = Box::new([0; 1 << PEEK]);
        for (peeked, to) in steps.iter_mut().enumerate() {
            *to = step(&seen, peeked);
        }
        let symbol = |entry: u16| if entry == 0 { 0 } else { symbol(entry as u8, u32::from(entry >> 8)) };
        Some(Self { symbols: Box::new(seen.map(symbol)), steps, limits, offsets, values: symbols.to_vec() })
    }
}

/// A symbol of the file with the length of its code.
fn symbol(value: u8, length: u32) -> Symbol {
    let (run, size) = (usize::from(value >> 4), u16::from(value & 15));
    let run = if is_end(run, size.into()) { TO_THE_END } else { run };
    (length as u16 + size) | size << 5 | (run as u16) << 9
}

/// Whether a symbol is the block's end mark.
fn is_end(run: usize, size: u32) -> bool {
    size == 0 && run != 15
}

/// As many symbols of AC coefficients as are seen whole in `peeked`. Only codes need to be seen: the bits of a value that
/// is stepped over may lie beyond.
fn step(seen: &[u16; 1 << PEEK], peeked: usize) -> u16 {
    let (mut bits, mut advance) = (0u32, 0u32);
    loop {
        let entry = seen[peeked << bits & ((1 << PEEK) - 1)];
        let length = u32::from(entry >> 8);
        if length == 0 || bits + length > PEEK {
            break;
        }
        let (run, size) = (u32::from(entry >> 4 & 15), u32::from(entry & 15));
        if is_end(run as usize, size) {
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

/// The bits of one restart interval, without stuffing, [`PADDING`] zeros behind them. What is rarely called takes it by
/// value: a reference would keep it out of registers.
#[derive(Clone, Copy)]
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

    /// The next coefficient: its value (T.81 figure F.12), and how many of 0 stand before it or [`TO_THE_END`]. `None`: no such
    /// code.
    #[inline(always)]
    pub(super) fn coefficient(&mut self, table: &Huffman) -> Option<(i32, usize)> {
        self.fill();
        let mut symbol = table.symbols[self.peek()];
        if symbol == 0 {
            symbol = self.long_symbol(table)?;
        }
        let (bits, size) = (u32::from(symbol & 31), u32::from(symbol >> 5 & 15));
        let value = self.buffer.wrapping_shl(bits - size);
        self.skip(bits);
        let raw = ((value >> 1) >> (63 - size)) as i32;
        let negative = (value >> 63) as i32 - 1; // a mask: the first bit of a negative value is 0
        Some((raw - (negative & ((1 << size) - 1)), usize::from(symbol >> 9)))
    }

    #[cold]
    fn long_symbol(self, table: &Huffman) -> Option<Symbol> {
        let code = (self.buffer >> 48) as u32;
        let length = (PEEK as usize + 1..=16).find(|length| code < table.limits[*length])?;
        let place = (code >> (16 - length)) as i32 + table.offsets[length];
        Some(symbol(*table.values.get(usize::try_from(place).ok()?)?, length as u32))
    }

    /// Whether more was read than there was.
    pub(super) fn overrun(&self) -> bool {
        self.at.saturating_sub(self.count as usize / 8) > self.data.len() - PADDING
    }

    /// Steps over the rest of a block's coefficients, of which `next` is the next in the scan's order.
    #[inline(always)]
    pub(super) fn step_over(&mut self, ac: &Huffman, mut next: usize) -> Option<()> {
        while next < 64 {
            self.fill();
            // As many as a filled buffer is sure to hold. The one way out is at the block's end: a core does not guess it.
            for _ in 0..2 {
                let before = (self.buffer, self.count, next);
                let step = ac.steps[self.peek()];
                self.skip(u32::from(step & 0xff));
                next += usize::from(step >> 8);
                if next >= 64 {
                    let ended = step & END != 0 && before.2 + usize::from(step >> 8 & 0x7f) < 64;
                    if !ended && next > 64 {
                        (self.buffer, self.count, next) = before;
                        (*self, next) = self.one_step(ac, next)?;
                    }
                    break;
                }
            }
        }
        const { assert!((END >> 8) as usize == ENDED) };
        (next == 64 || next >= ENDED).then_some(())
    }

    /// Steps over one coefficient: at a block's end the next symbols seen may be the next block's.
    #[cold]
    fn one_step(mut self, ac: &Huffman, next: usize) -> Option<(Self, usize)> {
        let (_, run) = self.coefficient(ac)?;
        Some((self, next + run + 1))
    }
}
