//! The markers before a JPEG's scan (ITU-T T.81 annex B), of the kinds that the reduced decoder takes.

use std::sync::Arc;

use super::huffman::{Bits, Huffman};

/// What stands before the scan.
pub(super) struct Header<'a> {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) components: Vec<Component>,
    /// Blocks of an MCU across and down.
    pub(super) mcu: (usize, usize),
    /// MCUs between restart markers; 0 without any.
    restart: usize,
    /// The entropy-coded data and whatever follows it.
    pub(super) scan: &'a [u8],
}

/// A component with the tables its scan names.
pub(super) struct Component {
    /// Blocks across and down in an MCU.
    pub(super) sampling: (usize, usize),
    /// In the order of the scan.
    pub(super) quantisation: [u16; 64],
    dc: Arc<Huffman>,
    pub(super) ac: Arc<Huffman>,
}

impl Component {
    /// Reads a block's DC level, which counts from the one `before` and becomes it.
    #[inline(always)]
    pub(super) fn level(&self, bits: &mut Bits, before: &mut i32) -> Option<()> {
        let (difference, _) = bits.coefficient(&self.dc)?;
        *before = before.wrapping_add(difference);
        Some(())
    }
}

/// What the start of the frame says.
struct Frame {
    width: usize,
    height: usize,
    /// Identifier, sampling and quantisation table of each component.
    components: Vec<(u8, (usize, usize), u8)>,
}

impl<'a> Header<'a> {
    /// MCUs across and down.
    pub(super) fn mcus(&self) -> (usize, usize) {
        (self.width.div_ceil(8 * self.mcu.0), self.height.div_ceil(8 * self.mcu.1))
    }

    /// MCUs from one restart to the next: all of them where there is none.
    pub(super) fn interval(&self) -> usize {
        let (across, down) = self.mcus();
        if self.restart == 0 { across * down } else { self.restart }
    }

    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(&[0xff, 0xd8])?;
        let mut quantisation = [None; 4];
        let mut codes: [Option<&[u8]>; 32] = [None; 32];
        let mut restart = 0;
        let mut frame = None;
        loop {
            let [0xff, marker, tail @ ..] = rest else { return None };
            if *marker == 0xff {
                rest = &rest[1..]; // fill bytes
                continue;
            }
            let length = usize::from(u16::from_be_bytes(*tail.first_chunk()?));
            let segment = tail.get(2..length)?;
            rest = &tail[length..];
            match marker {
                0xc0 | 0xc1 => frame = Some(start_of_frame(segment)?),
                0xc4 => huffman_segments(segment, &mut codes)?,
                0xdb => quantisation_tables(segment, &mut quantisation)?,
                0xdd => restart = usize::from(u16::from_be_bytes(*segment.first_chunk()?)),
                // Adobe's: 1 is YCbCr, which is what three components are without it as well.
                0xee if segment.starts_with(b"Adobe") && *segment.get(11)? != 1 => return None,
                0xe0..=0xef | 0xfe => {}
                0xda => break start_of_scan(segment, frame?, &quantisation, &codes, restart, rest),
                _ => return None,
            }
        }
    }
}

fn start_of_frame(segment: &[u8]) -> Option<Frame> {
    let [8, h1, h0, w1, w0, count, components @ ..] = segment else { return None };
    let (height, width) = (u16::from_be_bytes([*h1, *h0]), u16::from_be_bytes([*w1, *w0]));
    let sampling = |factors: u8| (usize::from(factors >> 4), usize::from(factors & 15));
    let components: Vec<_> =
        components.as_chunks::<3>().0.iter().map(|[id, factors, table]| (*id, sampling(*factors), *table)).collect();
    let (first, others) = components.split_first()?;
    let usual = [0, 2].contains(&others.len())
        && components.len() == usize::from(*count)
        && others.iter().all(|(_, sampling, _)| *sampling == (1, 1))
        && [1, 2].contains(&first.1.0)
        && [1, 2].contains(&first.1.1);
    (usual && width > 0 && height > 0).then(|| Frame { width: width.into(), height: height.into(), components })
}

fn quantisation_tables(mut segment: &[u8], tables: &mut [Option<[u16; 64]>; 4]) -> Option<()> {
    while let [which, rest @ ..] = segment {
        let mut table = [0; 64];
        let wide = which >> 4 == 1;
        let size = if wide { 128 } else { 64 };
        let values = rest.get(..size)?;
        for (i, value) in table.iter_mut().enumerate() {
            *value = if wide { u16::from_be_bytes([values[2 * i], values[2 * i + 1]]) } else { u16::from(values[i]) };
        }
        *tables.get_mut(usize::from(which & 15))? = Some(table);
        segment = &rest[size..];
    }
    Some(())
}

/// Tables stay bytes until the scan names those it uses.
fn huffman_segments<'a>(mut segment: &'a [u8], tables: &mut [Option<&'a [u8]>; 32]) -> Option<()> {
    while let [which, rest @ ..] = segment {
        let symbols: usize = rest.get(..16)?.iter().map(|count| usize::from(*count)).sum();
        *tables.get_mut(usize::from(*which))? = Some(rest.get(..16 + symbols)?);
        segment = &rest[16 + symbols..];
    }
    Some(())
}

fn start_of_scan<'a>(
    segment: &[u8],
    frame: Frame,
    quantisation: &[Option<[u16; 64]>; 4],
    codes: &[Option<&[u8]>; 32],
    restart: usize,
    scan: &'a [u8],
) -> Option<Header<'a>> {
    let (count, selectors) = segment.split_first()?;
    let selectors = selectors.as_chunks::<2>().0;
    if usize::from(*count) != frame.components.len() || selectors.len() < frame.components.len() {
        return None;
    }
    // T.81 A.2.2: a scan of one component is not interleaved, whatever its sampling.
    let alone = frame.components.len() == 1;
    // Both colours use one pair of tables.
    let mut built: [Option<Arc<Huffman>>; 32] = Default::default();
    let component = |((id, sampling, table), [selected, tables]): (&(u8, _, u8), &[u8; 2])| {
        let mut code = |class: usize, which: u8| {
            let at = class * 16 + usize::from(which);
            if built.get(at)?.is_none() {
                let table = codes[at]?;
                // A DC level has a size and no run (T.81 F.1.2.1).
                let is_of_class = class == 1 || table.iter().skip(16).all(|symbol| *symbol < 16);
                built[at] = Some(Arc::new(is_of_class.then(|| Huffman::new(table))??));
            }
            built[at].clone()
        };
        (id == selected).then_some(())?;
        Some(Component {
            sampling: if alone { (1, 1) } else { *sampling },
            quantisation: (*quantisation.get(usize::from(*table))?)?,
            dc: code(0, tables >> 4)?,
            ac: code(1, tables & 15)?,
        })
    };
    let components = frame.components.iter().zip(selectors).map(component).collect::<Option<Vec<_>>>()?;
    let mcu = components.first()?.sampling;
    Some(Header { width: frame.width, height: frame.height, components, mcu, restart, scan })
}
