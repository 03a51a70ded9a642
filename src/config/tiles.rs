//! `[vision.tiles]` and `[vision.similar]`: which parts of a frame are looked at, and which frames are let go.

use super::raw::{RawAggregate, RawSimilar, RawTiles};
use super::seconds;
use crate::decide::Aggregate;
use crate::vision::{Cut, SimilarOptions, Tiling};

/// Of a frame at once; each costs as much as a frame.
const MOST_TILES: usize = 64;

/// The parts of each frame to look at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TilesConfig {
    /// Where they are.
    pub tiling: Tiling,
    /// How their scores become the frame's.
    pub aggregate: Aggregate,
}

pub(super) fn tiles(raw: RawTiles) -> Result<TilesConfig, String> {
    if !(1..=MOST_TILES).contains(&raw.max_tiles) {
        return Err(format!("vision.tiles.max_tiles = {} must be between 1 and {MOST_TILES}", raw.max_tiles));
    }
    if !(0.0..=0.5).contains(&raw.overlap) {
        return Err(format!("vision.tiles.overlap = {} must be between 0 and 0.5", raw.overlap));
    }
    let cut = match (raw.grid, raw.size) {
        (Some([columns, rows]), None) => {
            let count = u64::from(columns) * u64::from(rows);
            if !(2..=raw.max_tiles as u64).contains(&count) {
                return Err(format!(
                    "vision.tiles.grid = [{columns}, {rows}] makes {count} tiles; it must be [columns, rows] with 2 to {} (vision.tiles.max_tiles)",
                    raw.max_tiles
                ));
            }
            Cut::Grid { columns, rows }
        }
        (None, Some(size)) if size < 32 => {
            return Err(format!("vision.tiles.size = {size} must be at least 32 pixels of the frame"));
        }
        (None, Some(size)) => Cut::Size(size),
        _ => return Err("vision.tiles needs either grid = [columns, rows] or size = pixels".to_owned()),
    };
    let aggregate = match (raw.aggregate, raw.k) {
        (RawAggregate::Max, None) => Aggregate::Max,
        (RawAggregate::Mean, None) => Aggregate::Mean,
        (RawAggregate::TopK, Some(k)) if k > 0 => Aggregate::TopK(k),
        (RawAggregate::TopK, _) => {
            return Err("vision.tiles.k must be at least 1 with aggregate = \"top_k\"".to_owned());
        }
        (_, Some(_)) => return Err("vision.tiles.k is for aggregate = \"top_k\" alone; leave it out".to_owned()),
    };
    Ok(TilesConfig { tiling: Tiling { cut, overlap: raw.overlap, most: raw.max_tiles }, aggregate })
}

pub(super) fn similar(raw: &RawSimilar) -> Result<SimilarOptions, String> {
    if !(raw.threshold > 0.0 && raw.threshold <= 255.0) {
        return Err(format!("vision.similar.threshold = {} must be above 0 and at most 255 levels", raw.threshold));
    }
    let at_most = seconds("vision.similar.at_most_s", raw.at_most_s, 0.1)?;
    Ok(SimilarOptions { threshold: raw.threshold, at_most })
}
