//! Looking closer: a small thing in one corner of a large frame, through the daemon's front door.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use std::time::Duration;

use image::RgbImage;
use image::imageops::replace;
use remoteclipd::camera::{Camera, Next, Picture, Scene, Simulated, SimulatedOptions};
use serde_json::{Value, json};
use support::{Broker, Daemon, Subscriber};

/// A simulated frame over one scene.
fn scene(scene: Scene, width: u32, height: u32) -> RgbImage {
    let options = SimulatedOptions { width, height, scene: Some(scene), ..SimulatedOptions::default() };
    let Next::Frame(frame) = Simulated::new(options).next(Duration::from_secs(10)).unwrap() else { panic!("no frame") };
    let Picture::Rgb(image) = frame.picture else { panic!("not pixels") };
    image
}

/// A wood of 3200 × 2400 pixels with a parking lot in its lower right corner: a tile of a 4 × 3 grid has room for it.
fn wood_with_a_parking_lot() -> RgbImage {
    let mut frame = RgbImage::new(3200, 2400);
    let wood = scene(Scene::Forest, 640, 480);
    for (column, row) in (0..5).flat_map(|column| (0..5).map(move |row| (column, row))) {
        replace(&mut frame, &wood, column * 640, row * 480);
    }
    replace(&mut frame, &scene(Scene::ParkingLot, 640, 600), 2480, 1700);
    frame
}

/// What comes of these frames: the first result, and the events up to the end.
fn classify(frame: &RgbImage, lines: &str) -> Option<(Value, Vec<Value>)> {
    let broker = Broker::start("")?;
    let frames = tempfile::tempdir().unwrap();
    frame.save(frames.path().join("frame.jpg")).unwrap();
    let mut subscriber = Subscriber::new(broker.port);
    let once = format!("[camera.folder]\npath = {:?}\nonce = true\n", frames.path().to_str().unwrap());
    let mut daemon = Daemon::start(broker.port, &format!("{once}[tags]\nconsensus = [1, 1]\n{lines}"));
    let result = subscriber.on("/nadir/result").payload;
    subscriber.status("offline");
    assert!(daemon.wait());
    let mut events = Vec::new();
    while subscriber.seen_topics().iter().any(|topic| topic.ends_with("/event")) {
        events.push(subscriber.on("/event").payload);
    }
    Some((result, events))
}

fn score(result: &Value, label: &str) -> f64 {
    let scores = result["scores"].as_array().unwrap();
    scores.iter().find(|score| score["label"] == label).map_or(0.0, |score| score["score"].as_f64().unwrap())
}

#[test]
fn a_small_thing_in_a_corner_is_lost_in_the_whole_frame_and_found_in_its_tile() {
    let frame = wood_with_a_parking_lot();
    let Some((whole, events)) = classify(&frame, "") else { return };
    assert!(score(&whole, "parking lot") < 0.1 && whole["tiles"].is_null(), "{whole}");
    assert!(events.iter().all(|event| event["label"] != "parking lot"), "{events:?}");

    let Some((tiled, events)) = classify(&frame, "[vision.tiles]\ngrid = [4, 3]\n") else { return };
    assert!(score(&tiled, "parking lot") > 0.5, "{tiled}");
    assert_eq!(tiled["tiles"]["carry"]["parking lot"][0], 12, "{tiled}");
    let lot = json!({"index": 12, "box": [2400, 1600, 800, 800]});
    assert!(tiled["tiles"]["parts"].as_array().unwrap().contains(&lot), "{tiled}");
    let event = events.iter().find(|event| event["label"] == "parking lot").expect("an event");
    assert_eq!(event["tiles"], json!([lot]), "{event}");
}
