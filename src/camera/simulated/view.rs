//! Where the camera is and which ground each of its pixels shows.

use super::geometry::{Point, heading};
use super::noise::Dice;

/// Pixels of ground along the shorter side of a frame: 80 m.
const SHORTER_SIDE: f32 = 320.0;
/// Pixels of ground flown from frame to frame.
const STRIDE: f32 = 11.0;
/// Part of a full turn made from frame to frame.
const TURN: f32 = 0.005;

/// Where the camera hangs and which way is up in its pictures.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pose {
    place: Point,
    right: Point,
}

impl Pose {
    /// `steps` frames after the camera was above the centre of the ground; negative before.
    pub(super) fn over(seed: u64, steps: f32) -> Self {
        let mut dice = Dice::new(seed);
        let turn = dice.between(0.0, 1.0) + steps * dice.pick([-TURN, TURN]);
        let right = heading(turn);
        let sideways = dice.between(-0.3, 0.3);
        // Forwards is up in the picture.
        Self { place: (right.across() * -1.0 + right * sideways) * (steps * STRIDE), right }
    }
}

/// A pose with the size of the frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct View {
    corner: Point,
    right: Point,
    down: Point,
}

impl View {
    pub(super) fn new(pose: Pose, (width, height): (u32, u32)) -> Self {
        let scale = SHORTER_SIDE / width.min(height) as f32;
        let right = pose.right * scale;
        let down = right.across();
        let centre = (width as f32 * 0.5 - 0.5, height as f32 * 0.5 - 0.5);
        Self { corner: pose.place - right * centre.0 - down * centre.1, right, down }
    }

    /// The point on the ground that a pixel of the frame shows.
    #[inline]
    pub(super) fn ground(&self, x: u32, y: u32) -> Point {
        self.corner + self.right * x as f32 + self.down * y as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::camera::simulated::geometry::at;

    #[test]
    fn the_centre_of_the_frame_is_the_camera_s_place() {
        let pose = Pose { place: at(3.0, -4.0), right: at(1.0, 0.0) };
        let view = View::new(pose, (641, 481));
        assert!((view.ground(320, 240) - pose.place).length() < 1e-3);
        assert!((view.ground(320, 0) - at(3.0, -164.0)).length() < 1.0);
    }
}
