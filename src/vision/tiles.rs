//! Looking closer: which parts of a frame the model sees besides the whole of it.
//!
//! A large frame squeezed to the model's square loses everything small. Tiles are cut from it at a larger scale and
//! encoded in the same pass. Promise: every pixel of the frame is in a tile; no more tiles than the pass has room for;
//! a tile is square, so that nothing is squeezed or cropped, wherever the frame's shape allows it.

/// How a frame is cut into tiles.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tiling {
    /// Where the cuts go.
    pub cut: Cut,
    /// The share of a tile's side that it has in common with its neighbour, 0 to 0.5, at least.
    pub overlap: f64,
    /// Most tiles of a frame, the whole frame not counted.
    pub most: usize,
}

/// Where the cuts go.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cut {
    /// So many columns and rows, whatever the frame's size.
    Grid {
        /// Tiles side by side.
        columns: u32,
        /// Tiles one above the other.
        rows: u32,
    },
    /// As many tiles as it takes with a side of so many pixels of the frame; larger ones where that would be too many.
    Size(u32),
    /// The same with a side of such a share of the frame's width.
    Share(f64),
}

/// A part of a frame, in pixels of the upright frame at its full size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Area {
    /// Pixels to the left of it.
    pub left: u32,
    /// Pixels above it.
    pub top: u32,
    /// Its width.
    pub width: u32,
    /// Its height.
    pub height: u32,
}

impl Tiling {
    /// Squares in one pass of the image tower: the whole frame and the most tiles it can have.
    pub fn batch(&self) -> usize {
        1 + match self.cut {
            Cut::Grid { columns, rows } => (columns * rows) as usize,
            Cut::Size(_) | Cut::Share(_) => self.most,
        }
    }

    /// The tiles of a frame of this width and height, row by row.
    pub fn areas(&self, (width, height): (u32, u32)) -> Vec<Area> {
        let (columns, rows, least) = match self.cut {
            Cut::Grid { columns, rows } => (columns, rows, 0),
            Cut::Size(side) => self.sized(side, (width, height)),
            Cut::Share(share) => self.sized((share * f64::from(width)).round() as u32, (width, height)),
        };
        let cell = (self.spanning(width, columns), self.spanning(height, rows));
        let side = cell.0.max(cell.1).max(least);
        // A square that the frame has no room for would show the same as its neighbours: then the cell itself.
        let (across, down) = if side <= width.min(height) { (side, side) } else { cell };
        let areas = starts(height, down, rows).flat_map(|top| {
            starts(width, across, columns).map(move |left| Area { left, top, width: across, height: down })
        });
        areas.collect()
    }

    /// The shorter side, in pixels, to which a frame may be reduced without a tile falling below `size` pixels.
    pub fn least_side(&self, frame: (u32, u32), size: u32) -> u32 {
        let smallest = self.areas(frame).iter().map(|area| area.width.min(area.height)).min().unwrap_or(1).max(1);
        let needed = (u64::from(size) * u64::from(frame.0.min(frame.1))).div_ceil(u64::from(smallest));
        u32::try_from(needed).unwrap_or(u32::MAX).max(size)
    }

    /// Columns, rows and the least side of tiles with this side.
    fn sized(&self, side: u32, (width, height): (u32, u32)) -> (u32, u32, u32) {
        let side = side.min(width).min(height).max(1);
        let (columns, rows) = self.fewer(self.count(width, side), self.count(height, side));
        (columns, rows, side)
    }

    /// How many tiles of this side a length takes.
    fn count(&self, length: u32, side: u32) -> u32 {
        let shared = self.overlap * f64::from(side);
        // Less a hair, so that a length that fits exactly does not take one more.
        ((f64::from(length) - shared) / (f64::from(side) - shared) - 1e-9).ceil().max(1.0) as u32
    }

    /// Columns and rows, taken off where the cells are smallest until they are few enough.
    fn fewer(&self, mut columns: u32, mut rows: u32) -> (u32, u32) {
        while columns as usize * rows as usize > self.most.max(1) {
            // Both were counted with one side, so the larger count has the smaller cells to give.
            if columns >= rows { columns -= 1 } else { rows -= 1 }
        }
        (columns, rows)
    }

    /// The side with which so many tiles, overlapping, just span a length.
    fn spanning(&self, length: u32, count: u32) -> u32 {
        let count = f64::from(count);
        ((f64::from(length) / (count - (count - 1.0) * self.overlap)).ceil() as u32).clamp(1, length.max(1))
    }
}

/// Where `count` tiles of this side begin, spread evenly from one end of a length to the other.
fn starts(length: u32, side: u32, count: u32) -> impl Iterator<Item = u32> {
    let spare = u64::from(length.saturating_sub(side));
    let gaps = u64::from(count.saturating_sub(1)).max(1);
    (0..u64::from(count)).map(move |number| (number * spare / gaps) as u32)
}

impl Area {
    /// What CLIP sees of a whole frame: the square in its middle.
    pub fn centre((width, height): (u32, u32)) -> Self {
        let side = width.min(height);
        Self { left: (width - side) / 2, top: (height - side) / 2, width: side, height: side }
    }
}

/// Left, top, width, height.
impl From<Area> for [u32; 4] {
    fn from(Area { left, top, width, height }: Area) -> Self {
        [left, top, width, height]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn grid(columns: u32, rows: u32, overlap: f64) -> Tiling {
        Tiling { cut: Cut::Grid { columns, rows }, overlap, most: 64 }
    }

    fn sized(side: u32, overlap: f64, most: usize) -> Tiling {
        Tiling { cut: Cut::Size(side), overlap, most }
    }

    #[test]
    fn a_grid_has_square_tiles_that_reach_every_edge() {
        let areas = grid(2, 2, 0.0).areas((4000, 3000));
        let square = |left, top| Area { left, top, width: 2000, height: 2000 };
        assert_eq!(areas, [square(0, 0), square(2000, 0), square(0, 1000), square(2000, 1000)]);
    }

    #[test]
    fn where_no_square_fits_the_cell_itself_is_the_tile() {
        let areas = grid(1, 3, 0.0).areas((400, 300));
        let strip = |top| Area { left: 0, top, width: 400, height: 100 };
        assert_eq!(areas, [strip(0), strip(100), strip(200)]);
    }

    #[test]
    fn tiles_of_a_size_become_larger_where_they_would_be_too_many() {
        assert_eq!(sized(1000, 0.0, 16).areas((4000, 3000)).len(), 12);
        let fewer = sized(1000, 0.0, 6).areas((4000, 3000));
        assert!(fewer.len() <= 6 && fewer[0].width > 1000, "{fewer:?}");
        assert_eq!(sized(9000, 0.0, 16).areas((4000, 3000))[0].width, 3000);
    }

    #[test]
    fn a_share_of_the_width_is_the_size_it_makes() {
        let share = |share| Tiling { cut: Cut::Share(share), ..sized(0, 0.1, 16) }.areas((4000, 3000));
        assert_eq!(share(0.25), sized(1000, 0.1, 16).areas((4000, 3000)));
        assert_eq!(share(7.0), sized(9000, 0.1, 16).areas((4000, 3000)));
        assert!(share(1e-9).len() <= 16);
    }

    #[test]
    fn a_frame_is_never_reduced_below_what_its_tiles_need() {
        assert_eq!(grid(2, 2, 0.0).least_side((4000, 3000), 224), 336); // a tile is two thirds of the shorter side
        assert_eq!(grid(4, 3, 0.0).least_side((4000, 3000), 224), 672);
        assert_eq!(sized(9000, 0.0, 4).least_side((4000, 3000), 224), 224);
    }

    proptest! {
        #[test]
        fn every_pixel_is_in_a_tile_and_there_are_no_more_than_the_pass_has_room_for(
            width in 1u32..3000, height in 1u32..3000, overlap in 0.0f64..0.5, side in 1u32..2000,
            (columns, rows) in (1u32..9, 1u32..9), by_size: bool, most in 1usize..40,
        ) {
            let tiling = if by_size { sized(side, overlap, most) } else { grid(columns, rows, overlap) };
            let areas = tiling.areas((width, height));
            prop_assert!(areas.len() < tiling.batch());
            for area in &areas {
                prop_assert!(area.width > 0 && area.left + area.width <= width, "{:?}", area);
                prop_assert!(area.height > 0 && area.top + area.height <= height, "{:?}", area);
            }
            // The tiles are the product of intervals across and down, each of which must leave no gap.
            for (length, mut spans) in [
                (width, areas.iter().map(|area| (area.left, area.width)).collect::<Vec<_>>()),
                (height, areas.iter().map(|area| (area.top, area.height)).collect()),
            ] {
                spans.sort_unstable();
                let reached = spans.iter().fold(0, |reached, (start, side)| {
                    if *start <= reached { reached.max(start + side) } else { reached }
                });
                prop_assert_eq!(reached, length);
            }
        }

        #[test]
        fn neighbours_share_at_least_the_overlap(
            width in 200u32..3000, overlap in 0.0f64..0.5, side in 20u32..200,
        ) {
            let areas = sized(side, overlap, usize::MAX).areas((width, 200));
            let row: Vec<_> = areas.iter().filter(|area| area.top == 0).collect();
            for pair in row.windows(2) {
                let shared = f64::from(pair[0].left + pair[0].width) - f64::from(pair[1].left);
                prop_assert!(shared >= overlap * f64::from(side) - 1.5, "{:?}", pair);
            }
        }
    }
}
