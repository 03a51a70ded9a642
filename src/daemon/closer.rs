//! Into which tiles a frame is cut, where that depends on how high it was taken.

use crate::config::TilesConfig;
use crate::position::Position;
use crate::position::ground::Errors;
use crate::vision::{Cut, Tiling};

/// The tiling of a frame taken there, for a model that sees squares of so many pixels. Where the frame's ground is not known
/// the configuration's own cut stands: as few tiles as cover the frame. Nobody is asked for the place unless it matters.
pub(super) fn tiling(tiles: &TilesConfig, locate: impl FnOnce() -> Option<Position>, square: u32) -> Tiling {
    let share = || {
        let sampling = tiles.sampling?;
        let across = sampling.lens.ground_across(&locate()?, &Errors::default())?;
        Some(sampling.metres * f64::from(square) / across)
    };
    share().map_or(tiles.tiling, |share| Tiling { cut: Cut::Share(share), ..tiles.tiling })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sampling;
    use crate::decide::Aggregate;
    use crate::position::ground::Intrinsics;
    use crate::position::{Orientation, Source};

    fn at(height: Option<f64>, pitch: Option<f64>) -> Position {
        let camera = pitch.map(|pitch| Orientation { yaw: 0.0, pitch, roll: 0.0 });
        Position {
            longitude: 0.0,
            latitude: 0.0,
            altitude: None,
            height,
            accuracy: None,
            age: None,
            camera,
            source: Source::Exif,
        }
    }

    #[test]
    fn the_higher_the_smaller_the_tiles() {
        let lens = Intrinsics { horizontal_fov: 90.0 }; // 200 m across from 100 m
        let tiling = Tiling { cut: Cut::Share(1.0), overlap: 0.0, most: 64 };
        let tiles = TilesConfig { tiling, sampling: Some(Sampling { metres: 0.25, lens }), aggregate: Aggregate::Max };
        // 0.25 m × 200 pixels are 50 m of ground.
        let side =
            |position: &Position| super::tiling(&tiles, || Some(position.clone()), 200).areas((4000, 3000))[0].width;
        assert_eq!(side(&at(Some(100.0), Some(-90.0))), 1000);
        assert_eq!(side(&at(Some(100.0), None)), 1000, "a camera of unknown orientation looks down");
        assert_eq!(side(&at(Some(200.0), None)), 500);
        assert_eq!(side(&at(Some(100.0), Some(-30.0))), 500, "what it looks at is 200 m away");
        for unknown in [at(None, None), at(Some(-3.0), None), at(Some(f64::NAN), None), at(Some(100.0), Some(5.0))] {
            assert_eq!(side(&unknown), 3000, "{unknown:?}");
        }
        assert_eq!(super::tiling(&tiles, || None, 200), tiling);
    }
}
