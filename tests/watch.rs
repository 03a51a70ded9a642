//! `remoteclipd watch`, the ground side: what it tells of a vehicle, and of messages that are not what they should be.
#![cfg(feature = "host")]
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use support::{Broker, Daemon, binary};

fn watch(port: u16, args: &[&str]) -> Child {
    let mut command = binary();
    command.args(["watch", "--host", "127.0.0.1", "--port", &port.to_string()]).args(args);
    command.stdout(Stdio::piped()).spawn().unwrap()
}

fn publish(port: u16, topic: &str, payload: &str) {
    let args = ["-p", &port.to_string(), "-q", "1", "-t", topic, "-m", payload];
    assert!(Command::new("mosquitto_pub").args(args).status().unwrap().success());
}

/// Lines of `watch --json` until one is wanted.
fn until(child: &mut Child, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    loop {
        let line = lines.next().expect("watch ended").unwrap();
        let value: Value = serde_json::from_str(&line).unwrap();
        if wanted(&value) {
            return value;
        }
    }
}

#[test]
fn json_tells_every_message_with_its_vehicle_its_gaps_and_whether_it_is_valid() {
    if !support::have("mosquitto_pub") {
        return;
    }
    let Some(broker) = Broker::start("") else { return };
    for (lines, what) in [("", "json"), ("payload = \"cbor\"\n", "cbor")] {
        let daemon = Daemon::start(broker.port, &format!("{lines}[camera.simulated]\nframes_per_second = 10.0\n"));
        let mut child = watch(broker.port, &["--json"]);
        let seen = until(&mut child, |line| line["topic"].as_str().unwrap().ends_with("/result"));
        assert!(seen["valid"] == true && seen["vehicle"] == "uav-1" && seen["missing"] == 0, "{what}: {seen}");
        assert_eq!(seen["payload"]["schema"], "remoteclip.result/1", "{what}");
        child.kill().unwrap();
        child.wait().unwrap();
        drop(daemon);
    }
    let mut child = watch(broker.port, &["--json", "--vehicle", "uav-9"]);
    let port = broker.port;
    let publisher = std::thread::spawn(move || {
        // The first may come before the subscription.
        for _ in 0..50 {
            publish(port, "remoteclip/v1/uav-9/nadir/event", "{\"schema\":\"remoteclip.event/1\",\"seq\":0}");
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    });
    let seen = until(&mut child, |line| line["vehicle"] == "uav-9");
    assert!(seen["valid"] == false && seen["error"].is_string(), "{seen}");
    child.kill().unwrap();
    child.wait().unwrap();
    publisher.join().unwrap();
}

#[test]
fn the_table_shows_state_tags_and_link() {
    let Some(broker) = Broker::start("") else { return };
    let _daemon = Daemon::start(broker.port, "[camera.simulated]\nframes_per_second = 10.0\nscene = \"parking lot\"\n");
    let output = watch(broker.port, &["--seconds", "6"]).wait_with_output().unwrap();
    assert!(output.status.success());
    let shown = String::from_utf8(output.stdout).unwrap();
    let last = shown.rsplit("vehicle ").next().unwrap();
    assert!(last.contains("uav-1") && last.contains("online") && last.contains("parking lot"), "{shown}");
    assert!(!shown.contains('\u{1b}'), "no escape codes where there is no terminal");
}

#[test]
fn a_broker_that_is_away_is_told() {
    let port = support::free_port();
    let output = binary()
        .args(["watch", "--host", "127.0.0.1", "--port", &port.to_string(), "--seconds", "1", "--json"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains(&port.to_string()));
}
