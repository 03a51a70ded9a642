//! What the simulated camera can fly over, and how each is painted: 160 m of ground a side, four pixels to the metre.
//!
//! A scene whose subject is a single thing (a baseball diamond, an aircraft) has it at the centre. Nothing is turned on
//! purpose: the camera's heading turns it.

mod nature;
mod site;
mod town;
mod transport;

use super::photo::Photo;
use site::Site;

/// One kind of place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Scene {
    Forest,
    ParkingLot,
    Beach,
    Freeway,
    BaseballDiamond,
    Farmland,
    Harbor,
    DenseResidential,
    River,
    Runway,
    StorageTanks,
    Bushland,
    TennisCourt,
    Airplane,
    GolfCourse,
    Crossroads,
}

impl Scene {
    /// Every scene, in the order in which a flight meets them.
    pub const ALL: [Self; 16] = [
        Self::Forest,
        Self::ParkingLot,
        Self::Beach,
        Self::Freeway,
        Self::BaseballDiamond,
        Self::Farmland,
        Self::Harbor,
        Self::DenseResidential,
        Self::River,
        Self::Runway,
        Self::StorageTanks,
        Self::Bushland,
        Self::TennisCourt,
        Self::Airplane,
        Self::GolfCourse,
        Self::Crossroads,
    ];

    /// The label by which a prompt set calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Forest => "forest",
            Self::ParkingLot => "parking lot",
            Self::Beach => "beach",
            Self::Freeway => "freeway",
            Self::BaseballDiamond => "baseball diamond",
            Self::Farmland => "farmland",
            Self::Harbor => "harbor",
            Self::DenseResidential => "dense residential area",
            Self::River => "river",
            Self::Runway => "runway",
            Self::StorageTanks => "storage tanks",
            Self::Bushland => "bushland",
            Self::TennisCourt => "tennis court",
            Self::Airplane => "airplane",
            Self::GolfCourse => "golf course",
            Self::Crossroads => "crossroads",
        }
    }

    /// Paints one place of this kind.
    pub(super) fn paint(self, seed: u64) -> Photo {
        let paint = match self {
            Self::Forest => nature::forest,
            Self::ParkingLot => town::parking_lot,
            Self::Beach => nature::beach,
            Self::Freeway => transport::freeway,
            Self::BaseballDiamond => town::baseball_diamond,
            Self::Farmland => nature::farmland,
            Self::Harbor => transport::harbor,
            Self::DenseResidential => town::dense_residential,
            Self::River => nature::river,
            Self::Runway => transport::runway,
            Self::StorageTanks => transport::storage_tanks,
            Self::Bushland => nature::bushland,
            Self::TennisCourt => town::tennis_court,
            Self::Airplane => transport::airplane,
            Self::GolfCourse => nature::golf_course,
            Self::Crossroads => town::crossroads,
        };
        let mut site = Site::new(seed);
        paint(&mut site);
        site.develop()
    }
}
