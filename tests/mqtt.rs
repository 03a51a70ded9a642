//! The daemon against a real mosquitto: what an operator's subscriber sees, whatever happens to daemon and broker.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use std::time::{Duration, Instant};

use image::{ImageFormat, RgbImage};
use support::{Broker, Daemon, Subscriber, wait_for};

const FLYING: &str = "[camera.simulated]\nframes_per_second = 10.0\n";

fn watching(folder: &std::path::Path) -> String {
    format!("[camera.folder]\npath = {:?}\n", folder.to_str().unwrap())
}

#[test]
fn every_frame_of_a_folder_read_once_becomes_a_result_and_the_daemon_ends() {
    let Some(broker) = Broker::start("") else { return };
    let Some(ucm) = support::ucm() else { return };
    let frames = tempfile::tempdir().unwrap();
    let names = ["forest01", "parkinglot03", "harbor05", "runway07", "beach09"];
    for name in names {
        let class = name.trim_end_matches(char::is_numeric);
        std::fs::copy(ucm.path().join(format!("ucm/{class}/{name}.jpg")), frames.path().join(format!("{name}.jpg")))
            .unwrap();
    }
    let mut subscriber = Subscriber::new(broker.port);
    let mut daemon = Daemon::start(broker.port, &format!("{}once = true\n", watching(frames.path())));

    let online = subscriber.status("online").payload;
    assert_eq!(online["model"]["name"], "default");
    let labels: Vec<String> = names
        .iter()
        .map(|_| subscriber.on("/nadir/result").payload)
        .map(|result| format!("{} {}", result["frame"].as_str().unwrap(), result["label"].as_str().unwrap_or("-")))
        .collect();
    assert_eq!(
        labels,
        [
            "beach09.jpg beach",
            "forest01.jpg forest",
            "harbor05.jpg harbor",
            "parkinglot03.jpg parking lot",
            "runway07.jpg runway"
        ]
    );
    assert_eq!(subscriber.status("offline").payload["reason"], "finished");
    assert!(daemon.wait());
}

#[test]
fn a_killed_daemon_leaves_its_will() {
    let Some(broker) = Broker::start("") else { return };
    let mut subscriber = Subscriber::new(broker.port);
    let daemon = Daemon::start(broker.port, FLYING);
    let boot = subscriber.status("online").payload["boot_id"].clone();
    daemon.signal("KILL");
    let offline = subscriber.status("offline").payload;
    assert_eq!((&offline["reason"], &offline["boot_id"]), (&"lost".into(), &boot));
    // It is retained: whoever comes later knows too.
    let later = Subscriber::new(broker.port).status("offline");
    assert!(later.retained && later.payload["boot_id"] == boot);
}

#[test]
fn status_config_and_label_state_are_retained() {
    let Some(broker) = Broker::start("") else { return };
    let _daemon = Daemon::start(broker.port, FLYING);
    Subscriber::new(broker.port).on("/nadir/result");
    let mut later = Subscriber::new(broker.port);
    let status = later.status("online");
    assert!(status.retained);
    assert!(!status.payload["prompts"]["labels"].as_array().unwrap().is_empty());
    let config = later.on("/config");
    assert!(config.retained && config.payload["vehicle"]["id"] == "uav-1");
    assert!(later.on("/label/parking-lot").retained);
}

#[test]
fn a_signal_ends_it_within_two_seconds_with_a_clean_goodbye() {
    for signal in ["TERM", "INT"] {
        let Some(broker) = Broker::start("") else { return };
        let mut subscriber = Subscriber::new(broker.port);
        let mut daemon = Daemon::start(broker.port, FLYING);
        subscriber.status("online");
        let asked = Instant::now();
        daemon.signal(signal);
        assert!(daemon.wait());
        assert!(asked.elapsed() < support::stop_within(), "{:?}", asked.elapsed());
        assert_eq!(subscriber.status("offline").payload["reason"], "stopped");
    }
}

#[test]
fn without_a_broker_a_signal_still_ends_it_at_once() {
    let mut daemon = Daemon::start(support::free_port(), FLYING);
    wait_for("the first try to connect", || daemon.log().contains("trying again").then_some(()));
    let asked = Instant::now();
    daemon.signal("TERM");
    assert!(daemon.wait());
    assert!(asked.elapsed() < support::stop_within(), "{:?}", asked.elapsed());
}

#[test]
fn a_broker_that_comes_late_gets_state_and_events_and_classifying_went_on_before() {
    if !support::have("mosquitto") {
        return;
    }
    let port = support::free_port();
    let daemon = Daemon::start(port, FLYING);
    wait_for("the first try to connect", || daemon.log().contains("trying again").then_some(()));
    std::thread::sleep(support::stop_within());
    let broker = Broker::start_on(port, "").unwrap();
    let mut subscriber = Subscriber::new(broker.port);
    subscriber.status("online");
    let health = subscriber.on("/health").payload;
    assert!(health["frames"].as_u64().unwrap() > 0, "{health}");
    assert!(health["results_unsent"].as_u64().unwrap() > 0, "{health}");
    subscriber.on("/nadir/result");
}

#[test]
fn a_broker_that_restarts_without_memory_has_its_state_back() {
    let Some(broker) = Broker::start("") else { return };
    let port = broker.port;
    let _daemon = Daemon::start(port, FLYING);
    Subscriber::new(port).status("online");
    drop(broker);
    let _broker = Broker::start_on(port, "").unwrap();
    let mut subscriber = Subscriber::new(port);
    subscriber.status("online");
    subscriber.on("/config");
    subscriber.on("/nadir/result");
}

#[test]
fn broken_frames_are_counted_by_cause_and_the_daemon_lives() {
    let Some(broker) = Broker::start("") else { return };
    let frames = tempfile::tempdir().unwrap();
    let mut subscriber = Subscriber::new(broker.port);
    let daemon = Daemon::start(broker.port, &watching(frames.path()));
    subscriber.status("online");
    let good = RgbImage::from_pixel(64, 64, image::Rgb([20, 90, 30]));
    // One at a time: under a flood the newest would win.
    for (name, bytes) in [("a.jpg", &b"not a picture"[..]), ("b.jpg", b""), ("c.png", b"\x89PNG\r\n\x1a\ncut")] {
        std::fs::write(frames.path().join(name), bytes).unwrap();
        std::thread::sleep(Duration::from_millis(300));
    }
    good.save_with_format(frames.path().join("good.png"), ImageFormat::Png).unwrap();
    assert_eq!(subscriber.on("/nadir/result").payload["frame"], "good.png");
    let health = subscriber.next("health with failures", |message| {
        message.topic.ends_with("/health") && message.payload["frames_failed"]["unknown_format"] == 2
    });
    assert_eq!(health.payload["frames_failed"]["broken_picture"], 1, "{health:?}");
    assert_eq!(daemon.log().matches("unknown_format").count(), 1, "logged once a cause");
}

#[test]
fn when_frames_come_faster_than_they_can_be_classified_the_newest_wins_and_memory_stays_flat() {
    let Some(broker) = Broker::start("") else { return };
    let mut subscriber = Subscriber::new(broker.port);
    let _daemon =
        Daemon::start(broker.port, "[camera.simulated]\nframes_per_second = 1000.0\nwidth = 64\nheight = 64\n");
    let health = |subscriber: &mut Subscriber, least: u64| {
        subscriber.next("health", |message| {
            message.topic.ends_with("/health") && message.payload["frames_dropped"].as_u64() > Some(least)
        })
    };
    let dropped = |health: &serde_json::Value| health["frames_dropped"].as_u64().unwrap();
    let first = health(&mut subscriber, 0).payload;
    let mut later = first.clone();
    // Waits for each next one, not for all of them: an emulated camera is slow.
    while dropped(&later) < dropped(&first) + 50 {
        later = health(&mut subscriber, dropped(&later)).payload;
    }
    let memory = |health: &serde_json::Value| health["memory_bytes"].as_u64().unwrap();
    assert!(memory(&later) < memory(&first) + (20 << 20), "{first} {later}");
    let frame = |subscriber: &mut Subscriber| {
        let name = subscriber.on("/nadir/result").payload["frame"].as_str().unwrap().to_owned();
        name.trim_start_matches("sim-").parse::<u64>().unwrap()
    };
    let frames: Vec<u64> = (0..20).map(|_| frame(&mut subscriber)).collect();
    assert!(frames.is_sorted(), "{frames:?}");
}

#[test]
fn sighup_takes_a_good_config_and_refuses_a_bad_one() {
    let Some(broker) = Broker::start("") else { return };
    let mut subscriber = Subscriber::new(broker.port);
    let mut daemon = Daemon::start(broker.port, FLYING);
    subscriber.status("online");
    std::fs::write(&daemon.config, "[vehicle]\nid = \"uav-1\"\n[camera.simulated]\nwarp = 9\n").unwrap();
    daemon.signal("HUP");
    wait_for("the refusal", || daemon.log().contains("warp").then_some(()));
    assert!(daemon.running() && daemon.log().contains("stays in use"));
    subscriber.on("/nadir/result");

    support::write_config(&daemon.config, broker.port, &format!("[camera]\nname = \"front\"\n{FLYING}"));
    daemon.signal("HUP");
    subscriber.on("/front/result");
}

#[test]
fn a_password_from_a_file_is_accepted_and_a_wrong_one_is_explained() {
    if !support::have("mosquitto_passwd") {
        return;
    }
    let secrets = tempfile::tempdir().unwrap();
    let users = secrets.path().join("users");
    let made =
        std::process::Command::new("mosquitto_passwd").args(["-b", "-c"]).arg(&users).args(["uav", "s3cret"]).status();
    assert!(made.unwrap().success());
    let Some(broker) = Broker::start(&format!("password_file {}", users.display())) else { return };
    let password = secrets.path().join("password");
    let login = format!("username = \"uav\"\npassword_file = {:?}\n{FLYING}", password.to_str().unwrap());

    std::fs::write(&password, "wrong\n").unwrap();
    let refused = Daemon::start(broker.port, &login);
    wait_for("the refusal", || refused.log().contains("check mqtt.username").then_some(()));

    std::fs::write(&password, "s3cret\n").unwrap();
    let accepted = Daemon::start(broker.port, &login);
    wait_for("the connection", || accepted.log().contains("connected to").then_some(()));
    assert!(!accepted.log().contains("s3cret"));
}

#[test]
fn tls_trusts_the_given_authority_and_no_other() {
    if !support::have("mosquitto") {
        return;
    }
    let keys = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| {
        let path = keys.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let ca = write("ca.pem", made.cert.pem());
    let key = write("key.pem", made.signing_key.serialize_pem());
    let other = write("other.pem", rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap().cert.pem());
    let Some(broker) = Broker::start(&format!("certfile {}\nkeyfile {}", ca.display(), key.display())) else { return };
    let tls = |ca: &std::path::Path| format!("{FLYING}[mqtt.tls]\nca_file = {:?}\n", ca.to_str().unwrap());

    let trusting = Daemon::start(broker.port, &tls(&ca));
    wait_for("the connection", || trusting.log().contains("connected to").then_some(()));
    let wary = Daemon::start(broker.port, &tls(&other));
    wait_for("the refusal", || wary.log().contains("mqtt.tls.ca_file").then_some(()));
}

#[test]
fn mosquitto_sub_sees_what_the_reference_says() {
    let Some(broker) = Broker::start("") else { return };
    if !support::have("mosquitto_sub") {
        return;
    }
    let _daemon = Daemon::start(broker.port, FLYING);
    let output = std::process::Command::new("mosquitto_sub")
        .args(["-p", &broker.port.to_string(), "-t", "remoteclip/v1/uav-1/nadir/result", "-C", "3", "-W", "60", "-v"])
        .output()
        .unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    assert_eq!(lines.lines().count(), 3, "{lines}");
    for line in lines.lines() {
        let payload = line.strip_prefix("remoteclip/v1/uav-1/nadir/result ").unwrap();
        let result: serde_json::Value = serde_json::from_str(payload).unwrap();
        assert_eq!(result["schema"], "remoteclip.result/1");
    }
}
