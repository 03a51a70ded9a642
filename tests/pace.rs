//! How many frames are classified and how long each of them waits: similar frames, the pace, and the promise on latency.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use std::path::Path;
use std::time::Duration;

use image::codecs::jpeg::JpegEncoder;
use jiff::Timestamp;
use remoteclipd::camera::{Camera, Next, Picture, Scene, Simulated, SimulatedOptions};
use serde_json::Value;
use support::{Broker, Daemon, Subscriber};

/// Runs a daemon to its end: its results and its last health.
fn run_to_the_end(lines: &str) -> Option<(Vec<Value>, Value)> {
    let broker = Broker::start("")?;
    let mut subscriber = Subscriber::new(broker.port);
    let mut daemon = Daemon::start(broker.port, lines);
    subscriber.status("offline");
    assert!(daemon.wait());
    let count = |topics: Vec<String>, end: &str| topics.iter().filter(|topic| topic.ends_with(end)).count();
    let results = count(subscriber.seen_topics(), "/nadir/result");
    let results = (0..results).map(|_| subscriber.on("/nadir/result").payload).collect();
    let healths = count(subscriber.seen_topics(), "/health");
    let health = (0..healths).map(|_| subscriber.on("/health").payload).last().expect("health");
    Some((results, health))
}

/// The same view again and again, as a camera that hovers delivers it: only the compression differs.
fn hover(folder: &Path, place: &str, scene: Scene) {
    let options = SimulatedOptions { scene: Some(scene), ..SimulatedOptions::default() };
    let Next::Frame(frame) = Simulated::new(options).next(Duration::from_secs(10)).unwrap() else { panic!("no frame") };
    let Picture::Rgb(image) = frame.picture else { panic!("not pixels") };
    for (number, quality) in [95, 90, 85, 80].into_iter().enumerate() {
        let file = std::fs::File::create(folder.join(format!("{place}-{number}.jpg"))).unwrap();
        image.write_with_encoder(JpegEncoder::new_with_quality(file, quality)).unwrap();
    }
}

#[test]
fn a_hovering_drone_is_not_told_of_the_same_field_again_and_again() {
    let frames = tempfile::tempdir().unwrap();
    hover(frames.path(), "first", Scene::ParkingLot);
    hover(frames.path(), "second", Scene::Beach);
    let folder = format!("[camera.folder]\npath = {:?}\nonce = true\n", frames.path());
    let similar = format!("{folder}[vision.similar]\nat_most_s = 600.0\n");
    let Some((results, health)) = run_to_the_end(&similar) else { return };
    let names: Vec<_> = results.iter().map(|result| result["frame"].as_str().unwrap()).collect();
    assert_eq!(names, ["first-0.jpg", "second-0.jpg"]);
    assert_eq!((&health["frames"], &health["frames_similar"]), (&2.into(), &6.into()), "{health}");
    let Some((results, health)) = run_to_the_end(&folder) else { return };
    assert_eq!((results.len(), &health["frames_similar"]), (8, &0.into()), "off by default");
}

#[test]
fn of_a_drone_that_flies_on_no_frame_is_skipped() {
    let lines = "[camera.simulated]\nframes = 10\nframes_per_second = 1000.0\n[vision.similar]\nat_most_s = 600.0\n";
    let Some((results, health)) = run_to_the_end(lines) else { return };
    assert_eq!((results.len(), &health["frames_similar"]), (10, &0.into()), "{health}");
}

#[test]
fn a_hot_board_slows_the_classifier_down_and_health_says_so() {
    let Some(broker) = Broker::start("") else { return };
    let zones = tempfile::tempdir().unwrap();
    std::fs::create_dir(zones.path().join("thermal_zone0")).unwrap();
    let heat = |millidegrees: &str| std::fs::write(zones.path().join("thermal_zone0/temp"), millidegrees).unwrap();
    heat("77500\n");
    let mut subscriber = Subscriber::new(broker.port);
    let lines = format!(
        "[camera.simulated]\nframes_per_second = 20.0\n[pace]\nframes_per_second = 8.0\nmax_temperature_c = 80.0\n\
         [health]\ninterval_s = 1.0\nthermal_path = {:?}\n",
        zones.path()
    );
    let _daemon = Daemon::start(broker.port, &lines);
    let mut paced = |state: &str| {
        let is = |message: &support::Received| message.payload["pace"]["state"] == state;
        subscriber.next(state, |message| message.topic.ends_with("/health") && is(message)).payload
    };
    let slowed = paced("slowed");
    assert_eq!((slowed["pace"]["factor"].as_f64(), slowed["temperature_c"].as_f64()), (Some(0.25), Some(77.5)));
    assert!(slowed["pace"]["reason"].as_str().unwrap().contains("77.5 °C"), "{slowed}");
    heat("41000\n");
    assert_eq!(paced("full")["pace"]["factor"], 1.0);
}

#[test]
fn no_more_frames_are_classified_than_asked_for() {
    let Some(broker) = Broker::start("") else { return };
    let mut subscriber = Subscriber::new(broker.port);
    let lines = "[camera.simulated]\nframes_per_second = 100.0\n[pace]\nframes_per_second = 4.0\n";
    let _daemon = Daemon::start(broker.port, lines);
    let mut published =
        || -> Timestamp { subscriber.on("/nadir/result").payload["published_at"].as_str().unwrap().parse().unwrap() };
    let first = published();
    let last = (0..8).map(|_| published()).last().unwrap();
    // Eight quarters of a second from take to take; the first result may have come late after its take.
    let seconds = last.duration_since(first).as_secs_f64();
    assert!(seconds > 1.5, "{seconds}");
}

/// A frame is taken when the one before is done, and it is the newest: it came while that one was worked on, so it waits
/// for at most one model period and then takes one itself.
#[test]
fn with_frames_faster_than_the_model_none_waits_longer_than_two_model_periods() {
    let Some(broker) = Broker::start("") else { return };
    let mut subscriber = Subscriber::new(broker.port);
    // Thirty-seven squares a frame make any model slow.
    let lines = "[camera.simulated]\nframes_per_second = 30.0\n[vision.tiles]\ngrid = [6, 6]\nmax_tiles = 36\n";
    let _daemon = Daemon::start(broker.port, lines);
    let results: Vec<Value> = (0..12).map(|_| subscriber.on("/nadir/result").payload).collect();
    let latency = |result: &Value, of: &str| result["latency_ms"][of].as_f64().unwrap();
    let work = |result: &Value| latency(result, "decode") + latency(result, "resize") + latency(result, "encode");
    let pairs = || results[1..].windows(2);
    // What a frame took, of its own work and that of the one before it. The machine may be busy with other things now and
    // then, with a few frames, but frames that queue would all be late.
    let shares: Vec<f64> = pairs().map(|pair| latency(&pair[1], "total") / (work(&pair[0]) + work(&pair[1]))).collect();
    let late = shares.iter().filter(|share| **share > 1.2).count();
    assert!(late * 4 <= shares.len(), "{shares:.2?}");
    // On a busy machine an interval may pass without a frame, of which there is no latency then.
    let health = subscriber.next("health", |message| {
        let health = &message.payload;
        message.topic.ends_with("/health")
            && health["frames_dropped"].as_u64() > Some(0)
            && !health["latency_ms"].is_null()
    });
    assert!(health.payload["latency_ms"]["median"].as_f64().unwrap() > 0.0, "{}", health.payload);
}
