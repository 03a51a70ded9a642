//! Where frames were taken, through the front door: what the daemon publishes for real photos, for a real flight's log and for
//! a vehicle that pymavlink plays.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Broker, Daemon, Subscriber};

const FLYING: &str = "[camera.simulated]\nframes_per_second = 10.0\nscene = \"parking lot\"\n";

fn free_udp_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn listening(port: u16, lines: &str) -> String {
    format!("{FLYING}[position]\nmavlink = \"udp://127.0.0.1:{port}\"\n{lines}")
}

/// The next result with a position, or without one.
fn result(subscriber: &mut Subscriber, with_position: bool) -> Value {
    result_after(subscriber, 0, with_position)
}

/// The same, of a frame that came so many milliseconds after the daemon's start.
fn result_after(subscriber: &mut Subscriber, ms: u64, with_position: bool) -> Value {
    let wanted = |message: &support::Received| {
        message.topic.ends_with("/result")
            && message.payload["monotonic_ms"].as_u64() >= Some(ms)
            && message.payload["position"].is_null() != with_position
    };
    subscriber.next(if with_position { "a position" } else { "no position" }, wanted).payload
}

/// The position in the next health of which `wanted` holds, and milliseconds since the daemon's start that were over by then.
fn health(subscriber: &mut Subscriber, what: &str, wanted: impl Fn(&Value) -> bool) -> (Value, u64) {
    let message =
        subscriber.next(what, |message| message.topic.ends_with("/health") && wanted(&message.payload["position"]));
    (message.payload["position"].clone(), (message.payload["uptime_s"].as_u64().unwrap() + 1) * 1000)
}

/// Pillow and Python's own XML reader on the same photos: name, longitude, latitude, altitude, height, yaw, pitch, roll.
const PHOTOS: &str = r#"
import json, sys, xml.etree.ElementTree as ET
from PIL import Image
DJI = "{http://www.dji.com/drone-dji/1.0/}"
for path in sys.argv[1:]:
    image = Image.open(path)
    gps = image.getexif().get_ifd(0x8825)
    degrees = lambda parts, letter: float(parts[0] + parts[1] / 60 + parts[2] / 3600) * (-1 if letter in "SW" else 1)
    (packet,) = [data for name, data in image.applist if data.startswith(b"http://ns.adobe.com/xap/1.0/\0")]
    dji = next(ET.fromstring(packet.split(b"\0", 1)[1].decode().strip()).iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description"))
    camera = {name: float(dji.get(DJI + f"Gimbal{name.title()}Degree")) for name in ("yaw", "pitch", "roll")}
    camera["yaw"] %= 360
    print(json.dumps({"coordinates": [degrees(gps[4], gps[3]), degrees(gps[2], gps[1]), float(gps[6])],
                      "height_m": float(dji.get(DJI + "RelativeAltitude")), "camera": camera}))
"#;

fn close(a: &Value, b: &Value, tolerance: f64) -> bool {
    (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() <= tolerance
}

/// Six photos of a drone, in order, and what Python reads in each.
fn photos() -> Option<(Vec<PathBuf>, Vec<Value>)> {
    let folder = support::shared_data("drone")?;
    let mut names: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| path.extension().is_some_and(|extension| extension == "JPG"));
    names.sort();
    let output = Command::new("/usr/bin/python3").args(["-c", PHOTOS]).args(&names).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read: Vec<Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(read.len(), 6);
    Some((names, read))
}

#[test]
fn photos_are_where_python_reads_that_they_were_taken() {
    let Some((names, read)) = photos() else { return };
    let Some(broker) = Broker::start("") else { return };
    let frames = tempfile::tempdir().unwrap();
    names.iter().for_each(|path| {
        std::fs::copy(path, frames.path().join(path.file_name().unwrap())).unwrap();
    });
    // The last in order: the same picture without a word about where.
    image::open(&names[0]).unwrap().thumbnail(200, 200).save(frames.path().join("bare.jpg")).unwrap();

    let mut subscriber = Subscriber::new(broker.port);
    let camera = format!(
        "[camera]\nhorizontal_fov_deg = 73.7\n[camera.folder]\npath = {:?}\nonce = true\n[tags]\nconsensus = [1, 1]\n",
        frames.path()
    );
    let mut daemon = Daemon::start(broker.port, &camera);
    for (name, wanted) in names.iter().zip(&read) {
        let result = subscriber.on("/nadir/result").payload;
        assert_eq!(result["frame"], name.file_name().unwrap().to_str().unwrap());
        let position = &result["position"];
        assert_eq!(
            (&position["type"], &position["source"], &position["age_ms"]),
            (&json!("Point"), &json!("exif"), &Value::Null)
        );
        // A ten-millionth of a degree is a centimetre; metres are published to one too.
        for (at, tolerance) in [(0, 1e-7), (1, 1e-7), (2, 0.011)] {
            assert!(close(&position["coordinates"][at], &wanted["coordinates"][at], tolerance), "{position} {wanted}");
        }
        assert!(close(&position["height_m"], &wanted["height_m"], 0.001), "{position} {wanted}");
        for angle in ["yaw", "pitch", "roll"] {
            assert!(close(&position["camera"][angle], &wanted["camera"][angle], 0.001), "{position} {wanted}");
        }
    }
    assert_eq!(subscriber.on("/nadir/result").payload["position"], Value::Null, "bare.jpg");
    // The events of these frames carry the place of the frame that made them.
    let event = subscriber.on("/nadir/event").payload;
    let at = names.iter().position(|name| event["frame"] == name.file_name().unwrap().to_str().unwrap()).unwrap();
    assert!(close(&event["position"]["coordinates"][0], &read[at]["coordinates"][0], 1e-7), "{event}");
    shows_the_ground_below(&event, &read[at]);
    assert!(daemon.wait());
}

/// The photos are taken straight down: a tile of 128 pixels of the model's at 0.1 m is 12.8 m of ground.
#[test]
fn tiles_have_the_wanted_ground_sampling_distance() {
    let Some((names, read)) = photos() else { return };
    for (name, photo) in names.iter().zip(&read) {
        let folder = tempfile::tempdir().unwrap();
        let (config, frames, state) =
            (folder.path().join("config.toml"), folder.path().join("frames"), folder.path().join("state"));
        std::fs::create_dir(&frames).unwrap();
        std::fs::copy(name, frames.join("photo.jpg")).unwrap();
        let text = format!(
            "[vehicle]\nid = \"a\"\n[state]\npath = {state:?}\n[camera]\nhorizontal_fov_deg = 73.7\n[camera.folder]\n\
             path = {frames:?}\nonce = true\n[vision.tiles]\ngsd_m = 0.1\nmax_tiles = 64\n"
        );
        std::fs::write(&config, text).unwrap();
        let output = support::binary().args(["check", "--camera", "--config"]).arg(&config).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let tile = said.split(" tiles of ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<f64>().ok());
        let across = photo["height_m"].as_f64().unwrap() * 2.0 * (73.7f64 / 2.0).to_radians().tan();
        let wanted = 12.8 / across * 4000.0;
        assert!(tile.is_some_and(|tile| (tile / wanted - 1.0).abs() < 0.01), "{wanted} pixels: {said}");
    }
}

/// Taken straight down: the model's square, 2250 of 4000 pixels wide, lies about the place where the photo was taken.
fn shows_the_ground_below(event: &Value, photo: &Value) {
    let ring: Vec<[f64; 2]> = serde_json::from_value(event["ground"]["coordinates"][0].clone()).unwrap();
    assert_eq!((ring.len(), ring[0]), (5, ring[4]), "{event}");
    let (longitude, latitude): (f64, f64) =
        (photo["coordinates"][0].as_f64().unwrap(), photo["coordinates"][1].as_f64().unwrap());
    let metres =
        |[x, y]: [f64; 2]| [(x - longitude) * 111_320.0 * latitude.to_radians().cos(), (y - latitude) * 111_200.0];
    let corners: Vec<[f64; 2]> = ring[..4].iter().map(|corner| metres(*corner)).collect();
    let middle = [0, 1].map(|axis| corners.iter().map(|corner| corner[axis]).sum::<f64>() / 4.0);
    let side = photo["height_m"].as_f64().unwrap() * 2.0 * (73.7f64 / 2.0).to_radians().tan() * 2250.0 / 4000.0;
    let edge = (corners[0][0] - corners[1][0]).hypot(corners[0][1] - corners[1][1]);
    assert!(middle[0].hypot(middle[1]) < 0.05 * side && (edge / side - 1.0).abs() < 0.05, "{middle:?} {edge} {side}");
}

/// A telemetry log: each packet behind the big-endian microsecond at which it was received.
fn packets(log: &Path) -> Vec<(u64, Vec<u8>)> {
    let log = std::fs::read(log).unwrap();
    let (mut rest, mut packets) = (&log[..], Vec::new());
    while let Some((time, after)) = rest.split_first_chunk::<8>() {
        // This log is MAVLink 1 throughout: marker, length, four bytes, payload, two of checksum.
        let Some([0xFE, length, ..]) = after.get(..8) else { break };
        let end = usize::from(*length) + 8;
        let Some(packet) = after.get(..end) else { break };
        packets.push((u64::from_be_bytes(*time), packet.to_vec()));
        rest = &after[end..];
    }
    packets
}

/// Plays a log from a second on, in its own time, until told to stop.
fn replay(log: &[(u64, Vec<u8>)], from: u64, port: u16) -> (Arc<AtomicBool>, JoinHandle<()>) {
    let begin = log[0].0 + from * 1_000_000;
    let packets: Vec<_> = log.iter().filter(|(time, _)| *time >= begin).cloned().collect();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let run = move || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let started = Instant::now();
        for (time, packet) in packets {
            let due = started + Duration::from_micros(time - begin);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if stopped.load(Ordering::Relaxed) {
                return;
            }
            // Nobody may be listening yet.
            let _ = socket.send_to(&packet, ("127.0.0.1", port));
        }
    };
    (stop, std::thread::spawn(run))
}

/// The places of GLOBAL_POSITION_INT in a log: longitude, latitude, height above sea.
fn track(log: &[(u64, Vec<u8>)]) -> Vec<[f64; 3]> {
    let number = |payload: &[u8], at: usize| f64::from(i32::from_le_bytes(payload[at..at + 4].try_into().unwrap()));
    let ours = log.iter().filter(|(_, packet)| packet[3] == 1 && packet[5] == 33);
    ours.map(|(_, packet)| &packet[6..])
        .map(|payload| [number(payload, 8) / 1e7, number(payload, 4) / 1e7, number(payload, 12) / 1e3])
        .collect()
}

/// Metres from a place to the nearest point of a way.
fn distance(place: [f64; 3], way: &[[f64; 3]]) -> f64 {
    let metres = |[longitude, latitude, altitude]: [f64; 3]| {
        [longitude * 111_320.0 * latitude.to_radians().cos(), latitude * 111_320.0, altitude]
    };
    let place = metres(place);
    let apart = |a: [f64; 3], b: [f64; 3]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
    let to_step = |step: &[[f64; 3]]| {
        let (a, b) = (metres(step[0]), metres(step[1]));
        let along: f64 = (0..3).map(|i| (place[i] - a[i]) * (b[i] - a[i])).sum();
        let share = (along / apart(a, b).powi(2).max(f64::EPSILON)).clamp(0.0, 1.0);
        apart(place, std::array::from_fn(|i| a[i] + share * (b[i] - a[i])))
    };
    way.windows(2).map(to_step).fold(f64::INFINITY, f64::min)
}

#[test]
fn a_real_flight_replayed_is_flown_again_and_its_end_is_noticed() {
    let Some(log) = support::shared_data("telemetry/flight.tlog") else { return };
    let Some(broker) = Broker::start("") else { return };
    let log = packets(&log);
    assert_eq!(log.len(), 76_791);
    let port = free_udp_port();
    let mut subscriber = Subscriber::new(broker.port);
    let _daemon = Daemon::start(broker.port, &listening(port, ""));
    result(&mut subscriber, false);
    // From here on it flies, armed and with a fix.
    let (stop, player) = replay(&log, 500, port);
    let begin = log[0].0 + 499_000_000;
    let way = track(&log[log.partition_point(|(time, _)| *time < begin)..]);
    let mut furthest: f64 = 0.0;
    for _ in 0..20 {
        let position = result(&mut subscriber, true)["position"].clone();
        let coordinates = std::array::from_fn(|i| position["coordinates"][i].as_f64().unwrap());
        furthest = furthest.max(distance(coordinates, &way));
        assert!(position["age_ms"].as_u64().unwrap() <= 2000 && position["source"] == "mavlink", "{position}");
        assert_eq!(position["camera"], Value::Null, "how the camera is mounted was not said");
    }
    println!("furthest from the log's track: {furthest:.3} m");
    assert!(furthest < 0.05, "{furthest} m from the log's track");
    let (heard, _) = health(&mut subscriber, "an armed vehicle", |position| position["armed"] == true);
    assert_eq!(heard["state"], "fix");
    assert!(heard["messages"].as_u64() > Some(50) && heard["wrong_system"].as_u64() > Some(0), "{heard}");
    stop.store(true, Ordering::Relaxed);
    player.join().unwrap();
    let (last, ms) = health(&mut subscriber, "a stale position", |position| position["state"] == "stale");
    assert!(last["age_ms"].as_u64() > Some(2000), "{last}");
    result_after(&mut subscriber, ms, false);
}

#[test]
fn without_a_fix_and_before_it_nothing_is_invented() {
    let Some(log) = support::shared_data("telemetry/flight.tlog") else { return };
    let Some(broker) = Broker::start("") else { return };
    let port = free_udp_port();
    let mut subscriber = Subscriber::new(broker.port);
    let _daemon = Daemon::start(broker.port, &listening(port, ""));
    subscriber.status("online");
    // Its first minute: GPS_RAW_INT with a place but fix type 1, GLOBAL_POSITION_INT at (0, 0).
    let (stop, player) = replay(&packets(&log), 2, port);
    let (heard, ms) = health(&mut subscriber, "messages", |position| position["messages"].as_u64() > Some(100));
    assert_eq!((&heard["state"], &heard["armed"]), (&json!("none"), &json!(false)));
    let later = subscriber.next("a later result", |message| message.payload["monotonic_ms"].as_u64() > Some(ms));
    assert_eq!(later.payload["position"], Value::Null);
    stop.store(true, Ordering::Relaxed);
    player.join().unwrap();
}

/// A vehicle by pymavlink.
struct Vehicle {
    child: Child,
    orders: ChildStdin,
    told: Receiver<Value>,
}

impl Vehicle {
    fn start(arguments: &[&str]) -> Option<Self> {
        let project = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = project.join("target/mavlink-venv/bin/python");
        if !python.exists() {
            support::skip("no pymavlink in target/mavlink-venv (tests/install puts it there)");
            return None;
        }
        let mut child = Command::new(python)
            .arg(project.join("tests/vehicle.py"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (orders, lines) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let (sender, told) = channel();
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                if sender.send(serde_json::from_str(&line).unwrap()).is_err() {
                    return;
                }
            }
        });
        Some(Self { child, orders, told })
    }

    fn order(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }

    /// The next message of this kind that was said to it.
    fn told(&self, kind: &str) -> Value {
        let deadline = Instant::now() + support::PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let message = self.told.recv_timeout(left).unwrap_or_else(|_| panic!("{kind} did not come"));
            if message["mavpackettype"] == kind {
                return message;
            }
        }
    }
}

impl Drop for Vehicle {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A film of six photos of a drone, a second each, with subtitles beside it, is classified as fast as it can be: far from the
/// film's own speed.
#[test]
fn a_recorded_flight_has_the_places_of_its_subtitles() {
    if !support::have("ffmpeg") {
        return;
    }
    let Some(photos) = support::shared_data("drone") else { return };
    let Some(broker) = Broker::start("") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (film, srt) = (folder.path().join("DJI_0012.MP4"), folder.path().join("DJI_0012.SRT"));
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-nostdin", "-loglevel", "error", "-framerate", "1", "-pattern_type", "glob", "-i"]);
    ffmpeg.arg(photos.join("*.JPG")).args(["-vf", "scale=800:-2,fps=30000/1001,format=yuv420p"]).arg(&film);
    assert!(ffmpeg.status().unwrap().success());
    let entry = |second: u32| {
        format!("{second}\n00:00:0{second},000 --> 00:00:0{second},999\n[latitude: {second}.5] [longitude: 2.5]\n\n")
    };
    std::fs::write(&srt, (0..6).map(entry).collect::<String>()).unwrap();
    let mut subscriber = Subscriber::new(broker.port);
    let lines = format!("[camera.video]\npath = {film:?}\nframes_per_second = 2\n[position]\nsrt = {srt:?}\n");
    let _daemon = Daemon::start(broker.port, &lines);
    for index in 0..12 {
        let result = result(&mut subscriber, true);
        assert_eq!(result["frame"], format!("video-{index:06}"));
        // Between two subtitles the place is interpolated; after the last one it is held.
        let latitude = (f64::from(index) / 2.0 + 0.5).min(5.5);
        assert!(close(&result["position"]["coordinates"][1], &json!(latitude), 1e-6), "{index}: {result}");
    }
}

#[test]
fn only_armed_flight_is_classified_and_the_ground_station_is_told() {
    let Some(broker) = Broker::start("") else { return };
    let port = free_udp_port();
    let Some(mut vehicle) = Vehicle::start(&["udp", &port.to_string()]) else { return };
    let mut subscriber = Subscriber::new(broker.port);
    let lines = "only_while_armed = true\nreport = true\nmount_pitch_deg = -90.0\n";
    let _daemon = Daemon::start(broker.port, &listening(port, lines));
    let on_ground = |position: &Value| position["armed"] == false && position["frames_disarmed"].as_u64() > Some(5);
    let (waiting, _) = health(&mut subscriber, "skipped frames", on_ground);
    assert!(subscriber.seen_topics().iter().all(|topic| !topic.ends_with("/result")), "classified on the ground");

    vehicle.order("arm");
    let position = result(&mut subscriber, true)["position"].clone();
    let [longitude, latitude] = [0, 1].map(|i| position["coordinates"][i].as_f64().unwrap());
    assert!((longitude - 149.0 - (latitude + 35.0)).abs() < 1e-6 && latitude > -35.0, "{position}");
    assert_eq!((&position["coordinates"][2], &position["height_m"]), (&json!(600.0), &json!(40.0)));
    assert_eq!(position["accuracy_m"], 0.85);
    assert_eq!(position["camera"], json!({"yaw": 45.0, "pitch": -90.0, "roll": 0.0}));

    let event = subscriber.on("/nadir/event").payload;
    let line = vehicle.told("STATUSTEXT");
    assert_eq!((&line["system"], &line["component"]), (&json!(1), &json!(191)));
    let wanted = format!("{} {} ", event["event"].as_str().unwrap(), event["label"].as_str().unwrap());
    assert!(line["text"].as_str().unwrap().starts_with(&wanted), "{line} {event}");
    assert_eq!(vehicle.told("HEARTBEAT")["type"], 18, "MAV_TYPE_ONBOARD_CONTROLLER");
    assert!(vehicle.told("ONBOARD_COMPUTER_STATUS")["uptime"].as_u64() > Some(0));

    vehicle.order("fix 1");
    result(&mut subscriber, false);
    vehicle.order("disarm");
    health(&mut subscriber, "a disarmed vehicle", |position| {
        position["armed"] == false && position["frames_disarmed"].as_u64() > waiting["frames_disarmed"].as_u64()
    });
}

#[test]
fn a_serial_line_is_heard_too() {
    let Some(broker) = Broker::start("") else { return };
    let Some(vehicle) = Vehicle::start(&["serial"]) else { return };
    let line = vehicle.told.recv_timeout(support::PATIENCE).unwrap()["line"].as_str().unwrap().to_owned();
    let mut subscriber = Subscriber::new(broker.port);
    let lines = format!("{FLYING}[position]\nmavlink = \"serial://{line}:57600\"\nreport = true\n");
    let daemon = Daemon::start(broker.port, &lines);
    assert_eq!(result(&mut subscriber, true)["position"]["coordinates"][2], 600.0);
    vehicle.told("HEARTBEAT");
    drop(vehicle);
    support::wait_for("the lost line", || daemon.log().contains("trying again").then_some(()));
    health(&mut subscriber, "a stale position", |position| position["state"] == "stale");
}

#[test]
fn noise_strangers_and_floods_are_counted_and_cost_nothing() {
    let Some(broker) = Broker::start("") else { return };
    let port = free_udp_port();
    let Some(_vehicle) = Vehicle::start(&["udp", &port.to_string()]) else { return };
    let mut subscriber = Subscriber::new(broker.port);
    let _daemon = Daemon::start(broker.port, &listening(port, ""));
    result(&mut subscriber, true);
    let memory = |subscriber: &mut Subscriber| subscriber.on("/health").payload["memory_bytes"].as_u64().unwrap();
    let before = memory(&mut subscriber);

    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    // HEARTBEAT of system 1 with a bad checksum, the same of system 9 as it should be, a cut one, and noise.
    let bad = [0xFE, 9, 0, 1, 1, 0, 4, 0, 0, 0, 2, 3, 0xD1, 4, 3, 0x8F, 0x41];
    let foreign = mavlink_heartbeat_of(9);
    let noise: Vec<u8> = (0..1400u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for _ in 0..5000 {
        for datagram in [&bad[..], &foreign, &foreign[..9], &noise, &[]] {
            let _ = socket.send_to(datagram, ("127.0.0.1", port));
        }
    }
    let (_, ms) = health(&mut subscriber, "the counts", |position| {
        position["bad"].as_u64() > Some(0) && position["wrong_system"].as_u64() > Some(0)
    });
    // Measured after the flood: the vehicle was heard through it.
    let position = result_after(&mut subscriber, ms + 2000, true)["position"].clone();
    assert_eq!(position["source"], "mavlink");
    let after = memory(&mut subscriber);
    assert!(after < before + (20 << 20), "{before} {after}");
}

/// A HEARTBEAT in MAVLink 1.
fn mavlink_heartbeat_of(system: u8) -> Vec<u8> {
    let mut packet = vec![0xFE, 9, 0, system, 1, 0, 4, 0, 0, 0, 2, 3, 0xD1, 4, 3];
    // CRC-16/MCRF4XX over all but the marker, then the message's CRC_EXTRA, 50.
    let crc = packet[1..].iter().chain(&[50]).fold(0xFFFF_u16, |crc, byte| {
        let mixed = byte ^ (crc as u8);
        let mixed = u16::from(mixed ^ (mixed << 4));
        (crc >> 8) ^ (mixed << 8) ^ (mixed << 3) ^ (mixed >> 4)
    });
    packet.extend(crc.to_le_bytes());
    packet
}
