//! `[vision.tiles]` and `[vision.similar]`: which parts of a frame are looked at, and which frames are let go.

use super::raw::{RawAggregate, RawSimilar, RawTiles};
use super::seconds;
use crate::decide::Aggregate;
use crate::position::ground::Intrinsics;
use crate::vision::{Cut, SimilarOptions, Tiling};

/// Of a frame at once; each costs as much as a frame.
const MOST_TILES: usize = 64;

/// The parts of each frame to look at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TilesConfig {
    /// Where they are, as long as nothing else is known of the frame.
    pub tiling: Tiling,
    /// With it they are made larger or smaller with the height of the camera.
    pub sampling: Option<Sampling>,
    /// How their scores become the frame's.
    pub aggregate: Aggregate,
}

/// A wanted ground sampling distance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Ground that a pixel of the model's square shows, in metres.
    pub metres: f64,
    /// What tells how much ground a frame shows.
    pub lens: Intrinsics,
}

pub(super) fn tiles(raw: RawTiles, lens: Option<Intrinsics>) -> Result<TilesConfig, String> {
    if !(1..=MOST_TILES).contains(&raw.max_tiles) {
        return Err(format!("vision.tiles.max_tiles = {} must be between 1 and {MOST_TILES}", raw.max_tiles));
    }
    if !(0.0..=0.5).contains(&raw.overlap) {
        return Err(format!("vision.tiles.overlap = {} must be between 0 and 0.5", raw.overlap));
    }
    let sampling = raw.gsd_m.map(|metres| sampling(metres, lens)).transpose()?;
    let cut = match (raw.grid, raw.size, sampling) {
        (Some([columns, rows]), None, None) => {
            let count = u64::from(columns) * u64::from(rows);
            if !(2..=raw.max_tiles as u64).contains(&count) {
                return Err(format!(
                    "vision.tiles.grid = [{columns}, {rows}] makes {count} tiles; it must be [columns, rows] with 2 to {} (vision.tiles.max_tiles)",
                    raw.max_tiles
                ));
            }
            Cut::Grid { columns, rows }
        }
        (None, Some(size), None) if size < 32 => {
            return Err(format!("vision.tiles.size = {size} must be at least 32 pixels of the frame"));
        }
        (None, Some(size), None) => Cut::Size(size),
        (None, None, Some(_)) => Cut::Share(1.0),
        _ => {
            return Err("vision.tiles needs one of grid = [columns, rows], size = pixels and gsd_m = metres".to_owned());
        }
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
    Ok(TilesConfig { tiling: Tiling { cut, overlap: raw.overlap, most: raw.max_tiles }, sampling, aggregate })
}

fn sampling(metres: f64, lens: Option<Intrinsics>) -> Result<Sampling, String> {
    if !(0.001..=1000.0).contains(&metres) {
        return Err(format!("vision.tiles.gsd_m = {metres} must be between 0.001 and 1000 metres a pixel"));
    }
    let lens = lens.ok_or("vision.tiles.gsd_m needs camera.horizontal_fov_deg, the lens that it is reckoned with")?;
    Ok(Sampling { metres, lens })
}

pub(super) fn similar(raw: &RawSimilar) -> Result<SimilarOptions, String> {
    if !(raw.threshold > 0.0 && raw.threshold <= 255.0) {
        return Err(format!("vision.similar.threshold = {} must be above 0 and at most 255 levels", raw.threshold));
    }
    let at_most = seconds("vision.similar.at_most_s", raw.at_most_s, 0.1)?;
    Ok(SimilarOptions { threshold: raw.threshold, at_most })
}
