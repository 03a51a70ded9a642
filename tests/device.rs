//! `eval --via`: a data set through a running daemon and a real broker, and through a scripted device that is late, silent
//! or the wrong one.
#![cfg(feature = "host")]
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use image::{Rgb, RgbImage};
use remoteclipd::bundle::Bundle;
use remoteclipd::publish::{EmbeddingPayload, Int8Vector};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::{Client, MqttOptions};
use serde_json::{Value, json};
use support::{Broker, Daemon, Subscriber, binary, wait_for};

/// Two classes of pictures, four each, in `<folder>/data`.
fn data(folder: &Path) -> PathBuf {
    let data = folder.join("data");
    for (class, green) in [("forest", 120), ("river", 60)] {
        std::fs::create_dir_all(data.join(class)).unwrap();
        for i in 0..4u32 {
            let picture = RgbImage::from_fn(160, 120, |x, y| Rgb([(x * (i + 1)) as u8, green, (y * 2 + i * 9) as u8]));
            picture.save(data.join(format!("{class}/{i}.png"))).unwrap();
        }
    }
    data
}

fn eval(folder: &Path, data: &Path, args: &[&str]) -> Output {
    let mut command = binary();
    command.arg("eval").arg("--data").arg(data).args(["--no-gates", "--json", "--resamples", "0", "--cache"]);
    command.arg(folder.join("cache")).args(args).output().unwrap()
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A daemon that watches `<folder>/frames`, and where it is.
fn daemon(folder: &Path, broker: &Broker, embedding: bool) -> (Daemon, PathBuf, String) {
    let frames = folder.join("frames");
    std::fs::create_dir_all(&frames).unwrap();
    let lines = format!("[camera.folder]\npath = {frames:?}\n[publish]\nembedding = {embedding}\n");
    let mut subscriber = Subscriber::new(broker.port);
    let daemon = Daemon::start(broker.port, &lines);
    subscriber.status("online");
    (daemon, frames, format!("mqtt://127.0.0.1:{}", broker.port))
}

#[test]
fn a_daemon_gives_what_this_program_gives_and_its_folder_is_left_empty() {
    let Some(broker) = Broker::start("") else { return };
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let (_daemon, frames, via) = daemon(folder.path(), &broker, true);
    let [here, there] = ["here", "there"].map(|name| folder.path().join(name));
    let local = eval(folder.path(), &data, &["--embeddings-out", text(&here)]);
    assert!(local.status.success(), "{}", said(&local));
    let args = [
        "--via",
        &via,
        "--via-folder",
        text(&frames),
        "--via-patience",
        "120",
        "--embeddings-out",
        text(&there),
        "--reference",
        text(&here),
    ];
    let output = eval(folder.path(), &data, &args);
    assert!(output.status.success(), "{}", said(&output));
    let report = report(&output);
    assert_eq!((&report["device"]["sent"], &report["device"]["answered"]), (&8.into(), &8.into()));
    assert_eq!(report["images"], 8);
    // The way as int8 costs a little, another decoder or kernel would cost more.
    assert!(report["parity"]["cosine"]["min"].as_f64().unwrap() > 0.9998, "{}", report["parity"]);
    assert_eq!(report["parity"]["top1_agreement"], 1.0);
    assert!(report["device"]["engine"].as_str().unwrap().contains("remoteclip/v1/uav-1"), "{report}");
    assert!(report["device"]["latency_ms"][0].as_f64().unwrap() > 0.0);
    assert_eq!(std::fs::read_dir(&frames).unwrap().count(), 0, "what was laid in is taken out");
}

#[test]
fn a_device_that_cannot_be_judged_is_no_verdict_and_the_cure_is_told() {
    let Some(broker) = Broker::start("") else { return };
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let (_daemon, frames, via) = daemon(folder.path(), &broker, false);
    let refused = |args: &[&str], named: &str| {
        let output = eval(folder.path(), &data, args);
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains(named), "{named}: {}", said(&output));
    };
    let frames = text(&frames);
    refused(&["--via", &via, "--via-folder", frames], "publish.embedding = true");
    refused(&["--via", &via, "--via-folder", frames, "--bundle", "models/vit-tiny"], "not the one to be judged");
    refused(&["--via", &format!("{via}/uav-2"), "--via-folder", frames], "vehicle uav-2");
    refused(&["--via", &via, "--via-folder", "/nowhere"], "--via-folder /nowhere");
    refused(&["--via", "board", "--via-folder", frames], "mqtt://HOST");
    let closed = format!("mqtt://127.0.0.1:{}", support::free_port());
    refused(&["--via", &closed, "--via-folder", frames], "refused");
}

/// A device of our own making, which answers as it is told to.
struct Scripted {
    client: Client,
    frames: PathBuf,
    seen: BTreeSet<String>,
}

const PREFIX: &str = "remoteclip/v1/scripted";

impl Scripted {
    fn start(broker: &Broker, frames: &Path) -> Self {
        let (client, mut connection) = Client::new(MqttOptions::new("scripted", "127.0.0.1", broker.port), 64);
        std::thread::spawn(move || connection.iter().for_each(drop));
        let bundle = Bundle::open("models/default").unwrap();
        let status = json!({"state": "online", "version": "0", "model": {"name": "default", "sha256": bundle.id(), "kernel": "none"}});
        let camera = json!({"name": "nadir", "folder": {"path": "/device/frames", "once": false}});
        let config = json!({"camera": camera, "publish": {"embedding": true}});
        let scripted = Self { client, frames: frames.to_owned(), seen: BTreeSet::new() };
        for (name, payload) in [("status", status), ("config", config)] {
            scripted.publish(&format!("{PREFIX}/{name}"), true, &payload);
        }
        scripted
    }

    fn publish(&self, topic: &str, retain: bool, payload: &Value) {
        self.client.publish(topic, QoS::AtLeastOnce, retain, payload.to_string()).unwrap();
    }

    /// The next frame that is laid into the folder.
    fn frame(&mut self) -> String {
        let frame = wait_for("a frame", || {
            let names = std::fs::read_dir(&self.frames).unwrap().flatten();
            names
                .map(|entry| entry.file_name().into_string().unwrap())
                .find(|name| !name.starts_with('.') && !self.seen.contains(name))
        });
        self.seen.insert(frame.clone());
        frame
    }

    fn answer(&self, frame: &str) {
        let bundle = Bundle::open("models/default").unwrap();
        let vector: Vec<f32> = (0..512).map(|i| if i == frame.len() { 1.0 } else { 0.01 }).collect();
        let embedding = EmbeddingPayload {
            schema: "remoteclip.embedding/1".to_owned(),
            result_id: String::new(),
            captured_at: jiff::Timestamp::UNIX_EPOCH,
            frame: frame.to_owned(),
            model: bundle.id()[..16].to_owned(),
            vector: Int8Vector::of(&vector),
        };
        let result = json!({"frame": frame, "latency_ms": {"total": 7.0}});
        self.publish(&format!("{PREFIX}/nadir/result"), false, &result);
        self.publish(&format!("{PREFIX}/nadir/embedding"), false, &serde_json::to_value(embedding).unwrap());
    }
}

#[test]
fn a_late_answer_is_told_from_a_missing_one_and_both_fail() {
    let Some(broker) = Broker::start("") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (data, frames) = (data(folder.path()), folder.path().join("frames"));
    std::fs::create_dir_all(&frames).unwrap();
    let mut device = Scripted::start(&broker, &frames);
    let device = std::thread::spawn(move || {
        let mut held = String::new();
        for picture in 0..8 {
            let frame = device.frame();
            match picture {
                1 => {}            // never answered
                2 => held = frame, // answered when its time is over and the next frame is there
                3 => {
                    device.answer(&held);
                    device.answer(&frame);
                }
                _ => device.answer(&frame),
            }
        }
        // Until the last answer is out.
        std::thread::sleep(Duration::from_secs(1));
    });
    let via = format!("mqtt://127.0.0.1:{}/scripted", broker.port);
    let output = eval(folder.path(), &data, &["--via", &via, "--via-folder", text(&frames), "--via-patience", "6"]);
    device.join().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let device = &report(&output)["device"];
    assert_eq!((&device["missing"], &device["late"]), (&json!(["forest/1.png"]), &json!(["forest/2.png"])));
    assert_eq!((&device["answered"], &device["latency_ms"]), (&6.into(), &json!([7.0, 7.0, 7.0])));
    assert!(said(&output).contains("forest/1.png") && said(&output).contains("forest/2.png"), "{}", said(&output));
    assert_eq!(std::fs::read_dir(&frames).unwrap().count(), 0);
}

#[test]
fn a_device_that_goes_away_is_no_verdict() {
    let Some(broker) = Broker::start("") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (data, frames) = (data(folder.path()), folder.path().join("frames"));
    std::fs::create_dir_all(&frames).unwrap();
    let mut device = Scripted::start(&broker, &frames);
    let device = std::thread::spawn(move || {
        let frame = device.frame();
        device.answer(&frame);
        device.frame();
        device.publish(&format!("{PREFIX}/status"), true, &json!({"state": "offline", "reason": "lost"}));
        std::thread::sleep(Duration::from_secs(1));
    });
    let via = format!("mqtt://127.0.0.1:{}", broker.port);
    let output = eval(folder.path(), &data, &["--via", &via, "--via-folder", text(&frames)]);
    device.join().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("went offline (lost) after 1 answers"), "{}", said(&output));
    assert_eq!(std::fs::read_dir(&frames).unwrap().count(), 0);
}
