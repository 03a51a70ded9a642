//! The simulated camera is the software-in-the-loop camera of tests and demo: the shipped model must name its scenes.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use std::time::Duration;

use remoteclipd::bundle::Bundle;
use remoteclipd::camera::{Camera, Next, Scene, Simulated, SimulatedOptions};
use remoteclipd::decide::Decider;
use remoteclipd::prompts;
use remoteclipd::vision::{EncoderOptions, Limits, Vision};

/// Frames over one place; the first and the last of them show the border to the neighbouring place.
const STAY: u64 = 8;

/// Whether one of the frames over a place is embedded: under an emulator one does for all.
fn is_seen(frame: u64) -> bool {
    match std::env::var_os("REMOTECLIPD_PARITY_PART") {
        Some(_) => frame == STAY / 2,
        None => !matches!(frame, 0 | 7),
    }
}

#[test]
fn the_default_model_names_the_simulated_scenes() {
    let bundle = Bundle::open("models/default").unwrap();
    let mut vision = Vision::load(&bundle, Limits::default(), &EncoderOptions::default()).unwrap();
    let decider = Decider::new(prompts::built_in().unwrap(), bundle.manifest().model.logit_scale);
    let frames = STAY * Scene::ALL.len() as u64;
    let options =
        SimulatedOptions { frames_per_second: f64::INFINITY, frames: Some(frames), ..SimulatedOptions::default() };
    let truth = Simulated::new(options);
    let mut camera = Simulated::new(options);
    let (mut right, mut wrong) = (0, Vec::new());
    for index in 0..frames {
        let Next::Frame(frame) = camera.next(Duration::from_secs(10)).unwrap() else { panic!("frame {index}") };
        if !is_seen(index % STAY) {
            continue;
        }
        let embedded = vision.embed(&frame.picture).unwrap();
        let best = decider.score(&embedded.vector).unwrap().ranked()[0];
        let found = &decider.pack().header().labels[best.label].name;
        let expected = truth.scene_at(index).name();
        if found == expected {
            right += 1;
        } else {
            wrong.push(format!("frame {index}: {expected} taken for {found}"));
        }
    }
    let share = f64::from(right) / (f64::from(right) + wrong.len() as f64);
    assert!(share >= 0.95, "{:.1} % named right\n{}", share * 100.0, wrong.join("\n"));
}
