//! Spool and link without camera and model, so that hundreds of schedules are affordable.

use std::path::Path;
use std::time::Duration;

use remoteclipd::config::{Config, MqttConfig, SpoolConfig};
use remoteclipd::publish::spool::Spool;
use remoteclipd::publish::{Credentials, Link, Message, Setup, Urgency};
use tempfile::TempDir;

/// Times short enough for a test; nothing rests on them but how long it takes.
pub fn mqtt(port: u16) -> MqttConfig {
    let text = format!("[vehicle]\nid = \"uav-1\"\n[camera.simulated]\n[mqtt]\nhost = \"127.0.0.1\"\nport = {port}\n");
    let mut mqtt = Config::parse(&text).unwrap().mqtt;
    mqtt.ack_timeout = Duration::from_millis(300);
    mqtt.reconnect_max = Duration::from_millis(60);
    mqtt.keep_alive = Duration::from_secs(5);
    mqtt
}

pub fn spool_config(path: &Path) -> SpoolConfig {
    SpoolConfig { path: Some(path.to_owned()), max_bytes: 64 << 20, max_age: Duration::from_secs(3600), results: false }
}

pub fn state(text: &str) -> Message {
    let payload = format!("{{\"state\":\"{text}\"}}").into_bytes();
    Message { topic: "remoteclip/v1/uav-1/status".to_owned(), payload, urgency: Urgency::State }
}

pub fn event(camera: &str, id: &str, size: usize) -> Message {
    let pad = "x".repeat(size);
    let payload = format!("{{\"id\":\"{id}\",\"camera\":\"{camera}\",\"replayed\":false,\"pad\":\"{pad}\"}}");
    Message {
        topic: format!("remoteclip/v1/uav-1/{camera}/event"),
        payload: payload.into_bytes(),
        urgency: Urgency::Event,
    }
}

/// The value of a string field; enough for the payloads above.
pub fn field<'a>(payload: &'a [u8], name: &str) -> &'a str {
    let text = std::str::from_utf8(payload).unwrap();
    let start = text.find(&format!("\"{name}\":\"")).unwrap() + name.len() + 4;
    text[start..].split('"').next().unwrap()
}

pub fn replayed(payload: &[u8]) -> bool {
    std::str::from_utf8(payload).unwrap().contains("\"replayed\":true")
}

pub fn start(mqtt: &MqttConfig, spool: &Path) -> Link {
    let spool = Spool::open(&spool_config(spool)).unwrap();
    let setup = Setup {
        mqtt,
        credentials: Credentials::read(mqtt).unwrap(),
        will: state("lost"),
        spool,
        backlog: 16,
        inbox: None,
    };
    let link = Link::start(setup).unwrap();
    link.publish(state("online"));
    link
}

/// A link with a spool of its own.
pub struct Front {
    pub link: Link,
    pub folder: TempDir,
}

impl Front {
    pub fn start(port: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { link: start(&mqtt(port), folder.path()), folder }
    }

    pub fn events(&self, camera: &str, names: &[&str]) {
        names.iter().for_each(|name| self.link.publish(event(camera, name, 20)));
    }

    pub fn refused(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("refused.jsonl")).unwrap_or_default()
    }
}
