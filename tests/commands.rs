//! Commands from the ground, as an operator gives them: with `mosquitto_pub`, packs made and signed by the binary itself.
#![cfg(feature = "host")]
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use support::{Broker, Daemon, Subscriber, binary};

struct Ground {
    broker: Broker,
    subscriber: Subscriber,
    requests: u32,
}

impl Ground {
    fn new() -> Option<Self> {
        if !support::have("mosquitto_pub") {
            return None;
        }
        let broker = Broker::start("")?;
        let subscriber = Subscriber::new(broker.port);
        Some(Self { broker, subscriber, requests: 0 })
    }

    fn publish(&self, command: &str, payload: &Path, retain: bool) {
        let topic = format!("remoteclip/v1/uav-1/cmd/{command}");
        let mut publish = Command::new("mosquitto_pub");
        publish.args(["-p", &self.broker.port.to_string(), "-q", "1", "-t", &topic, "-f"]).arg(payload);
        if retain {
            publish.arg("-r");
        }
        assert!(publish.status().unwrap().success());
    }

    /// Sends a request and returns its reply.
    fn ask(&mut self, command: &str, mut request: Value) -> Value {
        self.requests += 1;
        let id = format!("{command}-{}", self.requests);
        request["id"] = json!(id);
        self.send(command, &request);
        self.reply(command, &id)
    }

    fn send(&self, command: &str, request: &Value) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), request.to_string()).unwrap();
        self.publish(command, file.path(), false);
    }

    fn reply(&mut self, command: &str, id: &str) -> Value {
        let topic = format!("/cmd/{command}/reply");
        self.subscriber
            .next("a reply", |message| message.topic.ends_with(&topic) && message.payload["id"] == id)
            .payload
    }
}

fn refused(reply: &Value, named: &str) {
    assert!(reply["ok"] == false && reply["reason"].as_str().unwrap().contains(named), "{reply}");
}

fn commanded(lines: &str) -> String {
    format!(
        "[camera.simulated]\nframes_per_second = 10.0\n[tags]\nconsensus = [1, 1]\n[commands]\nenabled = true\n{lines}"
    )
}

/// A key pair's secret file and its line for the configuration.
fn keygen(folder: &Path, name: &str) -> (PathBuf, String) {
    let key = folder.join(name);
    let output = binary().args(["prompts", "keygen", "--out"]).arg(&key).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (key, String::from_utf8(output.stdout).unwrap())
}

/// The request that re-tasks a vehicle, from a set with these labels.
fn compile(folder: &Path, labels: &[&str], key: &Path, serial: u64) -> Value {
    let set = folder.join("set.toml");
    let labels: String = labels.iter().map(|label| format!("[[label]]\nname = \"{label}\"\n")).collect();
    std::fs::write(&set, format!("name = \"search-{serial}\"\nthreshold = 0.3\n{labels}")).unwrap();
    let out = folder.join("search.pack");
    let mut command = binary();
    command.args(["prompts", "compile"]).arg(&set).arg("--out").arg(&out);
    command.arg("--sign").arg(key).args(["--serial", &serial.to_string()]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&std::fs::read(folder.join("search.pack.json")).unwrap()).unwrap()
}

#[test]
fn without_being_enabled_nothing_is_obeyed() {
    let Some(mut ground) = Ground::new() else { return };
    let daemon = Daemon::start(ground.broker.port, "[camera.simulated]\nframes_per_second = 10.0\n");
    ground.subscriber.on("/nadir/result");
    ground.send("pause", &json!({"id": "1"}));
    ground.subscriber.on("/cmd/pause"); // it was delivered to whoever listens
    for _ in 0..10 {
        ground.subscriber.on("/nadir/result");
    }
    assert!(!daemon.log().contains("command"));
}

#[test]
fn pause_resume_status_snapshot_and_threshold() {
    let Some(mut ground) = Ground::new() else { return };
    let daemon = Daemon::start(ground.broker.port, &commanded(""));
    ground.subscriber.on("/nadir/result");

    assert_eq!(ground.ask("pause", json!({}))["ok"], true);
    ground.subscriber.next("paused", |message| message.payload["paused"] == true);
    refused(&ground.ask("snapshot", json!({})), "resume first");
    let status = ground.ask("status", json!({}));
    assert_eq!(status["result"]["status"]["paused"], true);
    assert_eq!(status["result"]["health"]["spool"]["state"], "durable");
    assert_eq!(ground.ask("resume", json!({}))["ok"], true);
    ground.subscriber.next("resumed", |message| message.payload["paused"] == false);

    let snapshot = ground.ask("snapshot", json!({}));
    assert!(snapshot["result"]["frame"].as_str().unwrap().starts_with("sim-"), "{snapshot}");
    assert!(ground.subscriber.on("/nadir/thumb").payload.is_null(), "a picture, no JSON");

    assert_eq!(ground.ask("threshold", json!({"label": "forest", "threshold": 0.75}))["result"]["threshold"], 0.75);
    refused(&ground.ask("threshold", json!({"label": "zeppelin"})), "no label \"zeppelin\"");
    refused(&ground.ask("threshold", json!({"label": "forest", "threshold": 1.5})), "threshold 1.5");
    refused(&ground.ask("threshold", json!({"label": "forest", "treshold": 0.5})), "treshold");
    refused(&ground.ask("dance", json!({})), "no such command");
    refused(&ground.ask("prompts", json!({"rollback": true})), "commands.public_key");

    // Twice delivered, once answered; without an id, told so; retained, not obeyed.
    ground.send("status", &json!({"id": "twice"}));
    ground.send("status", &json!({"id": "twice"}));
    ground.send("status", &json!({"no": "id"}));
    ground.reply("status", "twice");
    let next = ground.subscriber.on("/cmd/status/reply").payload;
    assert!(next["id"].is_null() && next["reason"].as_str().unwrap().contains("\"id\" is missing"), "{next}");
    let retained = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(retained.path(), "{\"id\":\"old\"}").unwrap();
    ground.publish("pause", retained.path(), true);
    ground.reply("pause", "old"); // live, it is a command like any other …
    let port = ground.broker.port;
    drop(daemon);
    let daemon = Daemon::start(port, &commanded(""));
    support::wait_for("… and at the next connect an old one", || {
        daemon.log().contains("retained command").then_some(())
    });
}

#[test]
fn a_signed_pack_re_tasks_the_vehicle_survives_a_restart_and_can_be_rolled_back() {
    let Some(mut ground) = Ground::new() else { return };
    let keys = tempfile::tempdir().unwrap();
    let (key, public) = keygen(keys.path(), "ours.key");
    let (other_key, _) = keygen(keys.path(), "theirs.key");
    let mut daemon = Daemon::start(ground.broker.port, &commanded(&public));
    let before = ground.subscriber.status("online").payload["prompts"].clone();

    let good = compile(keys.path(), &["forest", "a harbor with boats"], &key, 10);
    let mut forged = compile(keys.path(), &["forest"], &other_key, 11);
    forged["id"] = json!("forged");
    ground.send("prompts", &forged);
    refused(&ground.reply("prompts", "forged"), "signature");
    let mut cut = good.clone();
    cut["pack"] = json!(&good["pack"].as_str().unwrap()[..1000]);
    refused(&ground.ask("prompts", cut), "altered after signing");
    refused(&ground.ask("prompts", json!({"pack": "%"})), "\"pack\" and \"signature\"");
    let status = ground.ask("status", json!({}));
    assert_eq!(status["result"]["status"]["prompts"], before, "a bad pack changes nothing");

    ground.send("prompts", &good);
    assert_eq!(ground.reply("prompts", "prompts-10")["result"]["set"], "search-10");
    let online = ground.subscriber.next("new prompts", |message| message.payload["prompts"]["name"] == "search-10");
    assert_eq!(online.payload["prompts"]["labels"], json!(["forest", "a harbor with boats"]));
    ground.subscriber.on("/label/a-harbor-with-boats");
    let hash = online.payload["prompts"]["sha256"].as_str().unwrap()[..16].to_owned();
    ground.subscriber.next("a result by the new prompts", |message| {
        message.topic.ends_with("/result") && message.payload["prompts"] == hash.as_str()
    });
    // Whoever comes later finds no state of labels that are looked for no more.
    let mut later = Subscriber::new(ground.broker.port);
    later.on("/label/forest");
    assert!(!later.seen_topics().iter().any(|topic| topic.ends_with("/label/parking-lot")));

    let mut again = good.clone();
    again["id"] = json!("again");
    ground.send("prompts", &again);
    refused(&ground.reply("prompts", "again"), "serial 10 is not above 10");

    // Kill -9, and it still has its task.
    daemon.signal("KILL");
    daemon.wait();
    let mut fresh = Subscriber::new(ground.broker.port);
    let mut daemon = Daemon::start_again(&daemon);
    let online = fresh.next("online", |message| !message.retained && message.payload["state"] == "online");
    assert_eq!(online.payload["prompts"]["name"], "search-10");

    let back = ground.ask("prompts", json!({"rollback": true}));
    assert_eq!(back["result"]["sha256"], before["sha256"], "{back}");
    refused(&ground.ask("prompts", json!({"rollback": true})), "nothing to roll back to");
    again["id"] = json!("replayed");
    ground.send("prompts", &again);
    refused(&ground.reply("prompts", "replayed"), "not above 10");
    assert!(daemon.running());
}
