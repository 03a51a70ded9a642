//! A camera that looks straight down from a flight over painted ground: software in the loop for tests and the demo.
//!
//! Promise: the pixels of a frame depend on the seed, the size, the scene asked for and the frame's index alone, on every
//! machine ([`noise`]); what each frame shows is known ([`Simulated::scene_at`]).
//!
//! The flight stays eight frames over a place, drifting and turning a little, then crosses into the next: the last frame
//! of one place and the first of the next show the border between them. Each ground is painted once, as a photograph from
//! which the frames are cut.

use std::time::{Duration, Instant};

use image::RgbImage;
use jiff::Timestamp;

use super::{Camera, CameraError, Frame, Next, Picture};
use noise::hash;
use photo::Photo;
use view::{Pose, View};

mod canvas;
mod geometry;
mod noise;
mod photo;
mod scenes;
mod view;

pub use scenes::Scene;

/// Frames that a flight spends over one place.
const STAY: u64 = 8;

/// What the simulated camera flies and how it films.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SimulatedOptions {
    /// Chooses the places; the same seed gives the same flight.
    pub seed: u64,
    /// Width of a frame in pixels.
    pub width: u32,
    /// Height of a frame in pixels.
    pub height: u32,
    /// Frames per second. Zero or infinity: as fast as they are asked for.
    pub frames_per_second: f64,
    /// The flight ends after so many frames. `None`: it goes on for ever.
    pub frames: Option<u64>,
    /// Visits only places of this kind, cutting from one to the next. `None`: all kinds in turn.
    pub scene: Option<Scene>,
}

impl Default for SimulatedOptions {
    /// An endless flight over all scenes, 640 by 480 at two frames a second.
    fn default() -> Self {
        Self { seed: 1, width: 640, height: 480, frames_per_second: 2.0, frames: None, scene: None }
    }
}

/// The simulated camera.
#[derive(Debug)]
pub struct Simulated {
    options: SimulatedOptions,
    index: u64,
    due: Option<Instant>,
    // The ground below and the neighbour it borders on: one for even stops of the flight, one for odd.
    grounds: [Option<Ground>; 2],
}

#[derive(Debug)]
struct Ground {
    stop: u64,
    photo: Photo,
}

impl Simulated {
    /// A camera at the start of its flight.
    pub fn new(options: SimulatedOptions) -> Self {
        Self { options, index: 0, due: None, grounds: [None, None] }
    }

    /// What the frame of this index shows: all of it, or most of it where the flight crosses from one place to the next.
    pub fn scene_at(&self, index: u64) -> Scene {
        self.scene_of(index / STAY)
    }

    fn scene_of(&self, stop: u64) -> Scene {
        let in_turn = self.options.seed.wrapping_add(stop) % Scene::ALL.len() as u64;
        self.options.scene.unwrap_or(Scene::ALL[in_turn as usize])
    }

    /// Draws one frame.
    fn draw(&mut self, index: u64) -> RgbImage {
        let (stop, step) = (index / STAY, index % STAY);
        let mut picture = RgbImage::new(self.options.width, self.options.height);
        let whole = self.options.height;
        self.film(&mut picture, stop, step as f32, 0..whole);
        if self.options.scene.is_none() && step == STAY - 1 {
            self.film(&mut picture, stop + 1, -1.0, 0..whole / 3);
        } else if self.options.scene.is_none() && step == 0 && stop > 0 {
            self.film(&mut picture, stop - 1, STAY as f32, whole - whole / 3..whole);
        }
        expose(&mut picture, self.options.seed as u32 ^ index as u32);
        picture
    }

    /// Films some rows of a picture over one stop of the flight.
    fn film(&mut self, picture: &mut RgbImage, stop: u64, step: f32, rows: std::ops::Range<u32>) {
        let pose = Pose::over(self.seed_of(stop), step - (STAY - 1) as f32 * 0.5);
        let view = View::new(pose, picture.dimensions());
        let ground = self.ground(stop);
        let pixels_above = (rows.start * picture.width()) as usize;
        let count = (rows.len() as u32 * picture.width()) as usize;
        for (x, y, pixel) in picture.enumerate_pixels_mut().skip(pixels_above).take(count) {
            pixel.0 = ground.photo.at(view.ground(x, y));
        }
    }

    fn ground(&mut self, stop: u64) -> &Ground {
        let (scene, seed) = (self.scene_of(stop), self.seed_of(stop));
        let slot = &mut self.grounds[(stop % 2) as usize];
        if slot.as_ref().is_some_and(|ground| ground.stop != stop) {
            *slot = None;
        }
        slot.get_or_insert_with(|| Ground { stop, photo: scene.paint(seed) })
    }

    fn seed_of(&self, stop: u64) -> u64 {
        noise::Dice::new(self.options.seed ^ stop.rotate_left(32)).bits()
    }

    // Waits for the next frame's time; false if that is further away than `patience`. A camera that was not asked in time
    // goes on from now, without a burst of the frames it missed.
    fn wait(&mut self, patience: Duration) -> bool {
        let rate = self.options.frames_per_second;
        if !(rate > 0.0 && rate.is_finite()) {
            return true;
        }
        const LONGEST: f64 = 86_400.0;
        let period = Duration::from_secs_f64((1.0 / rate).min(LONGEST));
        let now = Instant::now();
        let due = self.due.map_or(now, |due| due.max(now));
        std::thread::sleep((due - now).min(patience));
        let reached = due - now <= patience;
        self.due = Some(if reached { due + period } else { due });
        reached
    }
}

impl Camera for Simulated {
    fn next(&mut self, patience: Duration) -> Result<Next, CameraError> {
        if self.options.frames.is_some_and(|frames| self.index >= frames) {
            return Ok(Next::End);
        }
        if !self.wait(patience) {
            return Ok(Next::Idle);
        }
        let index = self.index;
        self.index += 1;
        let captured_at = Timestamp::now();
        let picture = Picture::Rgb(self.draw(index));
        let name = format!("sim-{index:06}");
        let (arrived, media_time) = (Instant::now(), None);
        Ok(Next::Frame(Box::new(Frame { picture, name, captured_at, arrived, media_time, receipt: None })))
    }
}

// The noise of the sensor, new in every frame.
fn expose(picture: &mut RgbImage, seed: u32) {
    for (x, y, pixel) in picture.enumerate_pixels_mut() {
        let bits = hash(seed, x as i32, y as i32);
        for (channel, value) in pixel.0.iter_mut().enumerate() {
            let noise = (bits >> (8 * channel)) as u8 & 7;
            *value = value.saturating_add(noise).saturating_sub(3);
        }
    }
}

#[cfg(test)]
mod tests;
