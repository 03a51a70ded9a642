//! Weights in the one form they are held in: bytes in the order a kernel reads them, beside their scales and sums.

use std::io;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::aligned::Aligned;
use super::kernels::memory::{Arena, Mapped, Piece};
use super::kernels::room::Room;
use super::kernels::{Kernel, Layout, Panels};

/// The largest `k` whose sums of products of bytes fit 32 bits: 255 · 128 · `MAX_K` < 2³¹.
pub const MAX_K: usize = 65_000;

/// From how many bytes on a matrix lies on large pages: a quarter of one.
const LARGE: usize = 512 << 10;

/// How the inner dimension of a product is cut.
///
/// A group has an activation scale of its own (the three channels of a picture); a segment is a run of bytes that lie
/// together in memory (one kernel row of a convolution read in place). Every segment is padded to the kernel's depth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inner {
    /// Groups with their own scale.
    pub groups: usize,
    /// Segments in a group.
    pub segments: usize,
    /// Values in a segment, before padding.
    pub run: usize,
}

impl Inner {
    /// One group, one segment: a plain matrix product.
    pub fn plain(k: usize) -> Inner {
        Inner { groups: 1, segments: 1, run: k }
    }

    /// Values in all.
    pub fn len(&self) -> usize {
        self.groups * self.segments * self.run
    }

    /// Bytes of one segment under `layout`.
    pub fn padded_run(&self, layout: Layout) -> usize {
        self.run.next_multiple_of(layout.depth)
    }
}

/// A weight matrix packed for one kernel: `[panel][group][segment][step][column][depth]`.
#[derive(Debug)]
pub struct Packed {
    /// The weight's in the model.
    pub name: String,
    /// How the inner dimension is cut.
    pub inner: Inner,
    /// Output channels.
    pub columns: usize,
    bytes: Bytes,
    group_bytes: usize,
    /// Depth groups in a segment.
    pub steps: usize,
    panel_columns: usize,
    /// One scale a column, 0 beyond the last.
    scale: Vec<f32>,
    /// Sums of the weights of each column, `[group][column]`.
    sums: Vec<i32>,
    /// One for each panel and group; it says nothing where the kernel does not ask for it.
    rooms: Vec<Room>,
}

impl Packed {
    /// Packs a matrix with one scale a column, `k` counting `[group][segment][run]`; large ones into `arena`.
    ///
    /// # Errors
    /// When the inner dimension is so long that 32-bit sums could overflow, or memory is short, in words.
    pub fn new(
        (kernel, arena): (&Kernel, &mut Arena),
        name: &str,
        inner: Inner,
        scale: &[f32],
        matrix: &Matrix,
    ) -> Result<Packed, String> {
        let layout = kernel.layout;
        let columns = scale.len();
        let size = Size::of(layout, inner, columns)?;
        let padded = size.panels * layout.columns;
        let mut bytes = Bytes::zeroed(size.bytes(inner), arena).map_err(|error| format!("{name}: {error}"))?;
        let mut sums = vec![0i32; inner.groups * padded];
        // The segments follow one another through all panels, as the bytes do.
        for (at, out) in bytes.packing().chunks_exact_mut(size.segment_bytes).enumerate() {
            let (panel, group, segment) =
                (at / inner.segments / inner.groups, at / inner.segments % inner.groups, at % inner.segments);
            let first = panel * layout.columns;
            let columns = first..columns.min(first + layout.columns);
            let places = &matrix.places[(group * inner.segments + segment) * inner.run..][..inner.run];
            let sums = &mut sums[group * padded..][columns.clone()];
            pack_segment(layout, matrix, places, columns, out, sums);
        }
        let room = |panel| Room::of(layout, panel, inner.segments, size.steps);
        let rooms = bytes.get().chunks_exact(size.group_bytes).map(room).collect();
        Ok(Self::of(name, layout, (inner, size), scale, bytes, sums, rooms))
    }

    /// The same from what [`Packed::parts`] gave for this kernel.
    ///
    /// # Errors
    /// When the parts are not those of such a matrix, in words.
    pub fn restored(
        kernel: &Kernel,
        name: &str,
        inner: Inner,
        scale: &[f32],
        (bytes, sums, rooms): (Mapped, Vec<i32>, &[u8]),
    ) -> Result<Packed, String> {
        let layout = kernel.layout;
        let size = Size::of(layout, inner, scale.len())?;
        let groups = size.panels * inner.groups;
        if bytes.signed().len() != size.bytes(inner) || sums.len() != groups * layout.columns {
            return Err(format!("{name}: packed weights of another size"));
        }
        let len = Room::len(layout, inner.segments, size.steps);
        let room = |at: usize| Room::restored(layout, rooms.get(at * len..(at + 1) * len)?, inner.segments, size.steps);
        let rooms = (0..groups).map(room).collect::<Option<Vec<Room>>>().filter(|_| rooms.len() == groups * len);
        let rooms = rooms.ok_or_else(|| format!("{name}: packed weights without what they need to fit 16 bits"))?;
        Ok(Self::of(name, layout, (inner, size), scale, Bytes::Mapped(bytes), sums, rooms))
    }

    fn of(
        name: &str,
        layout: Layout,
        (inner, size): (Inner, Size),
        scale: &[f32],
        bytes: Bytes,
        sums: Vec<i32>,
        rooms: Vec<Room>,
    ) -> Packed {
        let mut padded = scale.to_vec();
        padded.resize(size.panels * layout.columns, 0.0);
        Packed {
            name: name.to_owned(),
            inner,
            columns: scale.len(),
            bytes,
            group_bytes: size.group_bytes,
            steps: size.steps,
            panel_columns: layout.columns,
            scale: padded,
            sums,
            rooms,
        }
    }

    /// What [`Packed::restored`] takes: the bytes, the sums, and the rooms of all panels and groups.
    pub fn parts(&self) -> (&[i8], &[i32], Vec<u8>) {
        (self.bytes.get(), &self.sums, self.rooms.iter().flat_map(Room::bytes).copied().collect())
    }

    /// Columns, rounded up to whole panels.
    pub fn padded_columns(&self) -> usize {
        self.scale.len()
    }

    /// Bytes of packed weights.
    pub fn len(&self) -> usize {
        self.bytes.get().len()
    }

    /// Some panels of one group, at least one.
    #[inline(always)]
    pub fn panels(&self, panels: Range<usize>, group: usize) -> Panels<'_> {
        let (first, groups) = (panels.start * self.inner.groups + group, self.inner.groups);
        Panels {
            bytes: &self.bytes.get()[first * self.group_bytes..],
            count: panels.len(),
            stride: groups * self.group_bytes,
            rooms: &self.rooms[first..],
            room_stride: groups,
        }
    }

    /// The bytes of at most `count` panels from `panel` on, to be fetched early: empty past the last panel.
    pub fn upcoming(&self, panel: usize, count: usize) -> &[i8] {
        let all = self.bytes.get();
        let panel_bytes = self.inner.groups * self.group_bytes;
        let from = (panel * panel_bytes).min(all.len());
        &all[from..(from + count * panel_bytes).min(all.len())]
    }

    /// Weight scales of some panels.
    pub fn scale(&self, panels: Range<usize>) -> &[f32] {
        &self.scale[panels.start * self.panel_columns..panels.end * self.panel_columns]
    }

    /// Weight sums of some panels in one group.
    pub fn sums(&self, panels: Range<usize>, group: usize) -> &[i32] {
        let sums = &self.sums[group * self.scale.len()..][..self.scale.len()];
        &sums[panels.start * self.panel_columns..panels.end * self.panel_columns]
    }
}

/// What a packed matrix takes.
#[derive(Clone, Copy)]
struct Size {
    panels: usize,
    /// Depth groups in a segment.
    steps: usize,
    segment_bytes: usize,
    group_bytes: usize,
}

impl Size {
    fn of(layout: Layout, inner: Inner, columns: usize) -> Result<Size, String> {
        if inner.len() > MAX_K {
            return Err(format!("{} inputs to one output; at most {MAX_K} fit 32-bit sums", inner.len()));
        }
        let segment_bytes = inner.padded_run(layout) * layout.columns;
        Ok(Size {
            panels: columns.div_ceil(layout.columns),
            steps: inner.padded_run(layout) / layout.depth,
            segment_bytes,
            group_bytes: inner.segments * segment_bytes,
        })
    }

    fn bytes(&self, inner: Inner) -> usize {
        self.panels * inner.groups * self.group_bytes
    }
}

/// Where [`Packed::new`] finds weights.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    /// All weights.
    pub values: &'a [i8],
    /// Where each `k` of column 0 stands.
    pub places: &'a [usize],
    /// From one column's to the next's.
    pub stride: usize,
}

/// Fills `[step][column][depth]` and adds to the columns' sums.
fn pack_segment(
    layout: Layout,
    matrix: &Matrix,
    places: &[usize],
    columns: Range<usize>,
    out: &mut [i8],
    sums: &mut [i32],
) {
    for (places, out) in places.chunks(layout.depth).zip(out.chunks_exact_mut(layout.columns * layout.depth)) {
        // Columns that lie side by side, as a transformer's do, are most of the bytes there are: loading is as fast as this.
        let values = matrix.values.get(columns.start..).filter(|_| matrix.stride == 1).unwrap_or_default();
        let done = match (layout.depth, layout.columns) {
            (4, 16) => interleave::<4, 16>(values, places, out, sums),
            (4, 32) => interleave::<4, 32>(values, places, out, sums),
            (8, 16) => interleave::<8, 16>(values, places, out, sums),
            (16, 4) => interleave::<16, 4>(values, places, out, sums),
            _ => false,
        };
        if done {
            continue;
        }
        for (at, place) in places.iter().enumerate() {
            let column = matrix.values[place + columns.start * matrix.stride..].iter().step_by(matrix.stride);
            let outs = out[at..].iter_mut().step_by(layout.depth);
            for ((out, weight), sum) in outs.zip(column).zip(&mut *sums) {
                *out = *weight;
                *sum += i32::from(*weight);
            }
        }
    }
}

/// One step of `C` columns that lie side by side, in a form that compilers make vector code of. False, and nothing done,
/// where there are fewer columns or places.
fn interleave<const D: usize, const C: usize>(
    values: &[i8],
    places: &[usize],
    out: &mut [i8],
    sums: &mut [i32],
) -> bool {
    let (Ok(places), Ok(sums)) = (<&[usize; D]>::try_from(places), <&mut [i32; C]>::try_from(sums)) else {
        return false;
    };
    let mut rows = [[0i8; C]; D];
    for (row, place) in rows.iter_mut().zip(places) {
        let Some(values) = values.get(*place..).and_then(|values| values.first_chunk()) else { return false };
        *row = *values;
    }
    for row in &rows {
        sums.iter_mut().zip(row).for_each(|(sum, weight)| *sum += i32::from(*weight));
    }
    for (at, out) in out.as_chunks_mut::<D>().0.iter_mut().enumerate() {
        out.iter_mut().zip(&rows).for_each(|(out, row)| *out = row[at]);
    }
    true
}

/// Packed bytes, in this process's memory or in a file's.
#[derive(Debug)]
enum Bytes {
    Small(Aligned<i8>),
    Large(Piece),
    Mapped(Mapped),
}

impl Bytes {
    fn zeroed(len: usize, arena: &mut Arena) -> io::Result<Bytes> {
        if len < LARGE { Ok(Bytes::Small(Aligned::zeroed(len))) } else { arena.take(len).map(Bytes::Large) }
    }

    /// The bytes to be written, which those of a file are not.
    fn packing(&mut self) -> &mut [i8] {
        match self {
            Bytes::Small(bytes) => bytes.get_mut(),
            Bytes::Large(bytes) => bytes.get_mut(),
            Bytes::Mapped(_) => &mut [],
        }
    }

    fn get(&self) -> &[i8] {
        match self {
            Bytes::Small(bytes) => bytes.get(),
            Bytes::Large(bytes) => bytes.get(),
            Bytes::Mapped(bytes) => bytes.signed(),
        }
    }
}
