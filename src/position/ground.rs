//! Which ground a frame, or a tile of it, shows: camera, height and orientation → a GeoJSON polygon over flat ground.
//!
//! Promise: a corner that does not surely look at the ground gives no polygon, never an invented one; what is given states
//! how far off it may be.
//!
//! A pixel's ray, rotated by yaw, pitch and roll into north, east and down, is followed to the plane `height` below the camera
//! (collinearity, Mikhail, Bethel and McGlone, "Introduction to Modern Photogrammetry", 2001, section 4.5, for a lens without
//! distortion and with its axis in the middle of the frame). Metres become degrees by the radii of curvature of the WGS 84
//! ellipsoid at the camera's latitude.

use super::{Orientation, Position};

/// WGS 84: semi-major axis in metres and first eccentricity squared.
const SEMI_MAJOR: f64 = 6_378_137.0;
const ECCENTRICITY_SQUARED: f64 = 6.694_379_990_14e-3;
/// A corner must look below the horizon by so many times the error of its angle.
const SURELY: f64 = 3.0;
/// Where meridians meet, degrees of longitude mean nothing.
const LARGEST_LATITUDE: f64 = 89.0;

/// A camera's lens: pixels are square and its axis is in the middle of the frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Intrinsics {
    /// The angle between the frame's left and right edges, in degrees, above 0 and below 180.
    pub horizontal_fov: f64,
}

impl Intrinsics {
    /// The focal length in pixels of a frame of this width.
    fn focal(&self, width: f64) -> f64 {
        width / 2.0 / (self.horizontal_fov.to_radians() / 2.0).tan()
    }

    /// Metres of ground that a frame's width spans at the distance of what its middle shows; a camera of unknown orientation
    /// is taken to look straight down. `None` without a height, or where the middle does not surely look at the ground.
    pub fn ground_across(&self, position: &Position, errors: &Errors) -> Option<f64> {
        let height = position.height.filter(|height| *height > 0.0 && height.is_finite())?;
        let sine = position.camera.map_or(1.0, |camera| camera.turn([1.0, 0.0, 0.0])[2]);
        let surely = sine.asin().to_degrees() > SURELY * errors.angle;
        surely.then(|| 2.0 * height / sine * (self.horizontal_fov.to_radians() / 2.0).tan())
    }
}

/// Where a camera was and how it looked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pose {
    /// WGS 84 degrees, east positive.
    pub longitude: f64,
    /// WGS 84 degrees, north positive.
    pub latitude: f64,
    /// Metres above the ground.
    pub height: f64,
    /// How it looked.
    pub camera: Orientation,
}

impl Pose {
    /// Of a position that says how high the camera was and how it looked.
    pub fn of(position: &Position) -> Option<Self> {
        let (height, camera) = (position.height?, position.camera?);
        Some(Self { longitude: position.longitude, latitude: position.latitude, height, camera })
    }
}

/// How far off a pose may be, one standard deviation each.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Errors {
    /// Of each angle, in degrees.
    pub angle: f64,
    /// Of the height over the ground, in metres; uneven ground counts here.
    pub height: f64,
    /// Of the place, in metres.
    pub place: f64,
}

impl Default for Errors {
    /// A gimbal's degree, and 5 m for height (a barometer, a field that is not flat) and place (a receiver without correction).
    fn default() -> Self {
        Self { angle: 1.0, height: 5.0, place: 5.0 }
    }
}

/// A piece of ground.
#[derive(Debug, Clone, PartialEq)]
pub struct Footprint {
    /// Longitude and latitude of the corners, counter-clockwise from the frame's upper left one. Past the antimeridian
    /// longitudes go on beyond 180 degrees, so that the piece stays in one.
    pub corners: [[f64; 2]; 4],
    /// Horizontal standard deviation of the worst corner, in metres.
    pub accuracy: f64,
}

/// The ground that `area` (left, top, width, height in pixels) of a frame of this width and height shows; `None` where a corner
/// does not surely look at the ground, or the pose makes no sense.
pub fn footprint(
    pose: &Pose,
    intrinsics: &Intrinsics,
    frame: (u32, u32),
    area: [u32; 4],
    errors: &Errors,
) -> Option<Footprint> {
    let sane = pose.height > 0.0
        && pose.height.is_finite()
        && pose.latitude.abs() <= LARGEST_LATITUDE
        && pose.longitude.abs() <= 180.0
        && (f64::EPSILON..180.0).contains(&intrinsics.horizontal_fov);
    if !sane {
        return None;
    }
    let [left, top, width, height] = area.map(f64::from);
    let (right, bottom) = (left + width, top + height);
    let mut corners = [[0.0; 2]; 4];
    let mut accuracy = 0.0f64;
    // GeoJSON wants the outer ring counter-clockwise; seen from above, the frame's own order is clockwise.
    for (corner, pixel) in corners.iter_mut().zip([(left, top), (left, bottom), (right, bottom), (right, top)]) {
        let spot = Spot::seen(pose, intrinsics, frame, pixel, errors.angle)?;
        accuracy = accuracy.max(spot.error(pose.height, errors));
        *corner = spot.degrees(pose);
    }
    Some(Footprint { corners, accuracy })
}

/// A point on the ground, in metres north and east of the camera.
struct Spot {
    north: f64,
    east: f64,
}

impl Spot {
    /// What a pixel looks at.
    fn seen(pose: &Pose, intrinsics: &Intrinsics, frame: (u32, u32), pixel: (f64, f64), error: f64) -> Option<Self> {
        let (width, height) = (f64::from(frame.0), f64::from(frame.1));
        let focal = intrinsics.focal(width);
        let ray = [1.0, (pixel.0 - width / 2.0) / focal, (pixel.1 - height / 2.0) / focal];
        let [north, east, down] = pose.camera.turn(ray);
        let depression = down.atan2(north.hypot(east)).to_degrees();
        // Not `<`: an angle that is not a number must not pass.
        let surely = depression > SURELY * error;
        surely.then(|| Self { north: north / down * pose.height, east: east / down * pose.height })
    }

    /// Horizontal standard deviation. The distance is `h / tan d` for a depression `d`: an error of the tilt moves it by
    /// `h / sin^2 d`, an error of the height by `1 / tan d`; an error of the yaw moves the spot sideways by the distance.
    fn error(&self, height: f64, errors: &Errors) -> f64 {
        let distance = self.north.hypot(self.east);
        let angle = errors.angle.to_radians();
        let tilt = (height + distance * distance / height) * angle; // h / sin^2 d
        let yaw = distance * angle;
        let uneven = distance / height * errors.height;
        [tilt, yaw, uneven, errors.place].iter().map(|error| error * error).sum::<f64>().sqrt()
    }

    fn degrees(&self, pose: &Pose) -> [f64; 2] {
        let (sine, cosine) = pose.latitude.to_radians().sin_cos();
        let bend = 1.0 - ECCENTRICITY_SQUARED * sine * sine;
        let prime_vertical = SEMI_MAJOR / bend.sqrt();
        let meridional = SEMI_MAJOR * (1.0 - ECCENTRICITY_SQUARED) / (bend * bend.sqrt());
        let east = (self.east / (prime_vertical * cosine)).to_degrees();
        [pose.longitude + east, pose.latitude + (self.north / meridional).to_degrees()]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LENS: Intrinsics = Intrinsics { horizontal_fov: 73.7 };
    const FRAME: (u32, u32) = (4000, 3000);
    const WHOLE: [u32; 4] = [0, 0, 4000, 3000];

    fn pose(height: f64, yaw: f64, pitch: f64) -> Pose {
        Pose { longitude: 8.5, latitude: 47.4, height, camera: Orientation { yaw, pitch, roll: 0.0 } }
    }

    fn seen(pose: &Pose, area: [u32; 4]) -> Option<Footprint> {
        footprint(pose, &LENS, FRAME, area, &Errors::default())
    }

    /// East and north of the camera in metres, by a sphere's arithmetic: good to half a percent.
    fn metres(pose: &Pose, corners: &[[f64; 2]; 4]) -> [[f64; 2]; 4] {
        const DEGREE: f64 = 111_200.0;
        corners.map(|[longitude, latitude]| {
            let east = (longitude - pose.longitude) * DEGREE * pose.latitude.to_radians().cos();
            [east, (latitude - pose.latitude) * DEGREE]
        })
    }

    /// Signed: positive where the corners run counter-clockwise.
    fn area(corners: &[[f64; 2]; 4]) -> f64 {
        (0..4).map(|i| (corners[i], corners[(i + 1) % 4])).map(|(a, b)| a[0] * b[1] - b[0] * a[1]).sum::<f64>() / 2.0
    }

    #[test]
    fn straight_down_and_heading_north_the_top_of_the_frame_is_north() {
        let pose = pose(100.0, 0.0, -90.0);
        // Half of 100 m × 2 tan(73.7° / 2) = 149.9 m across, and three quarters of that.
        let [upper_left, lower_left, lower_right, upper_right] = metres(&pose, &seen(&pose, WHOLE).unwrap().corners);
        for (corner, expected) in [
            (upper_left, [-75.0, 56.2]),
            (lower_left, [-75.0, -56.2]),
            (lower_right, [75.0, -56.2]),
            (upper_right, [75.0, 56.2]),
        ] {
            assert!((corner[0] - expected[0]).hypot(corner[1] - expected[1]) < 0.6, "{corner:?} {expected:?}");
        }
    }

    #[test]
    fn heading_east_the_top_of_the_frame_is_east() {
        let pose = pose(100.0, 90.0, -90.0);
        let [upper_left, .., upper_right] = metres(&pose, &seen(&pose, WHOLE).unwrap().corners);
        assert!(upper_left[0] > 50.0 && upper_left[1] > 70.0, "{upper_left:?}");
        assert!(upper_right[0] > 50.0 && upper_right[1] < -70.0, "{upper_right:?}");
    }

    #[test]
    fn tilted_by_forty_five_degrees_the_middle_is_as_far_as_the_camera_is_high() {
        let pose = pose(100.0, 0.0, -45.0);
        let corners = metres(&pose, &seen(&pose, [1999, 1499, 2, 2]).unwrap().corners);
        for corner in corners {
            assert!(corner[0].abs() < 0.5 && (corner[1] - 100.0).abs() < 1.0, "{corner:?}");
        }
    }

    #[test]
    fn rolled_clockwise_the_camera_looks_to_the_left() {
        let level = pose(100.0, 0.0, -45.0);
        let rolled = Pose { camera: Orientation { roll: 20.0, ..level.camera }, ..level };
        // The lower edge's middle goes to where the lower left was: below is now to the left, west.
        let below = |pose: &Pose| metres(pose, &seen(pose, [1999, 2900, 2, 2]).unwrap().corners)[0][0];
        assert!(below(&level).abs() < 0.5 && below(&rolled) < -10.0, "{} {}", below(&level), below(&rolled));
    }

    #[test]
    fn above_the_horizon_there_is_no_ground() {
        assert!(seen(&pose(100.0, 0.0, 0.0), WHOLE).is_none());
        assert!(seen(&pose(100.0, 0.0, -10.0), WHOLE).is_none(), "the upper edge looks up");
        assert!(seen(&pose(100.0, 0.0, -10.0), [0, 2000, 4000, 1000]).is_some(), "the lower third looks down");
        assert!(seen(&pose(100.0, 0.0, -2.0), [2000, 1500, 1, 1]).is_none(), "two degrees are not sure enough");
        for nonsense in [f64::NAN, f64::INFINITY, 0.0, -5.0] {
            assert!(seen(&pose(nonsense, 0.0, -90.0), WHOLE).is_none());
            assert!(nonsense == 0.0 || nonsense == -5.0 || seen(&pose(100.0, 0.0, nonsense), WHOLE).is_none());
        }
    }

    #[test]
    fn the_error_is_stated_and_grows_with_the_tilt() {
        let errors = Errors { angle: 1.0, height: 0.0, place: 0.0 };
        let accuracy = |pitch| {
            let middle = [1999, 1499, 2, 2];
            footprint(&pose(100.0, 0.0, pitch), &LENS, FRAME, middle, &errors).unwrap().accuracy
        };
        // Straight down a degree is 100 m × tan 1°; at 30° below the horizon the tilt's is 4 times that, the yaw's √3.
        assert!((accuracy(-90.0) - 1.75).abs() < 0.01, "{}", accuracy(-90.0));
        assert!((accuracy(-30.0) - 1.745 * 19f64.sqrt()).abs() < 0.05, "{}", accuracy(-30.0));
        assert!(accuracy(-90.0) < accuracy(-60.0) && accuracy(-60.0) < accuracy(-20.0));
    }

    #[test]
    fn past_the_antimeridian_it_stays_in_one_piece() {
        let pose = Pose { longitude: 179.9999, ..pose(100.0, 0.0, -90.0) };
        let corners = seen(&pose, WHOLE).unwrap().corners;
        assert!(corners[2][0] > 180.0 && corners[2][0] - corners[1][0] < 0.01, "{corners:?}");
    }

    proptest! {
        #[test]
        fn straight_down_the_area_is_that_of_its_pixels(
            height in 10.0f64..500.0, yaw in -360.0f64..360.0, latitude in -80.0f64..80.0,
            left in 0u32..2000, top in 0u32..2000, side in 100u32..1000,
        ) {
            let pose = Pose { latitude, ..pose(height, yaw, -90.0) };
            let found = area(&metres(&pose, &seen(&pose, [left, top, side, side]).unwrap().corners));
            let side = f64::from(side) * height / LENS.focal(f64::from(FRAME.0));
            prop_assert!((found / (side * side) - 1.0).abs() < 0.012, "{} {}", found, side * side);
        }

        #[test]
        fn the_corners_run_counter_clockwise_whatever_the_camera_does(
            yaw in -180.0f64..180.0, pitch in -90.0f64..-20.0, roll in -60.0f64..60.0,
        ) {
            let pose = Pose { camera: Orientation { yaw, pitch, roll }, ..pose(100.0, 0.0, 0.0) };
            if let Some(found) = seen(&pose, [1000, 1000, 800, 600]) {
                prop_assert!(area(&metres(&pose, &found.corners)) > 0.0);
            }
        }

        #[test]
        fn yaw_turns_the_ground_about_the_camera(yaw in -180.0f64..180.0, pitch in -90.0f64..-50.0) {
            let [north, turned] = [0.0, yaw].map(|yaw| {
                let pose = pose(100.0, yaw, pitch);
                metres(&pose, &seen(&pose, [1000, 1000, 800, 600]).unwrap().corners)
            });
            let (sine, cosine) = yaw.to_radians().sin_cos();
            for ([east, north], turned) in north.into_iter().zip(turned) {
                let expected = [east * cosine + north * sine, north * cosine - east * sine];
                let apart = (turned[0] - expected[0]).hypot(turned[1] - expected[1]);
                prop_assert!(apart < 0.01 * east.hypot(north).max(1.0), "{:?} {:?}", turned, expected);
            }
        }
    }
}
