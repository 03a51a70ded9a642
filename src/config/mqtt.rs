//! `[mqtt]`: the broker and how to speak to it.

use std::path::PathBuf;
use std::time::Duration;

use super::raw::{RawMqtt, RawTls};
use super::{seconds, topic_level};

/// A few events a minute, and the state beside them.
const LEAST_BUDGET: u64 = 4096;

/// The broker and how to speak to it.
#[derive(Debug, Clone)]
pub struct MqttConfig {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// First level of every topic.
    pub root: String,
    /// MQTT client identifier.
    pub client_id: String,
    /// User name, if the broker asks for one.
    pub username: Option<String>,
    /// File whose first line is the password.
    pub password_file: Option<PathBuf>,
    /// Keep-alive; a dead link is noticed within one and a half of it.
    pub keep_alive: Duration,
    /// Longest wait between two tries to connect.
    pub reconnect_max: Duration,
    /// How long a message may stay unacknowledged before the connection is given up.
    pub ack_timeout: Duration,
    /// How payloads are written.
    pub encoding: Encoding,
    /// Results a second at most.
    pub max_results_per_second: Option<f64>,
    /// Bytes a minute at most.
    pub max_bytes_per_minute: Option<u64>,
    /// TLS, if the port speaks it.
    pub tls: Option<TlsConfig>,
}

/// TLS to the broker.
#[derive(Debug, Clone)]
pub struct TlsConfig {
    /// PEM file with the certificate authorities to trust; the system's when absent.
    pub ca_file: Option<PathBuf>,
    /// PEM files of our own certificate, with its chain, and its private key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// How payloads are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// JSON (RFC 8259).
    #[default]
    Json,
    /// CBOR (RFC 8949) of the same structure.
    Cbor,
}

impl MqttConfig {
    /// The defaults for a broker; the port is TLS's when there is TLS.
    pub fn of(host: &str, port: Option<u16>, root: &str, tls: Option<TlsConfig>) -> Self {
        let raw = RawMqtt::default();
        Self {
            host: host.to_owned(),
            port: port.unwrap_or(if tls.is_some() { 8883 } else { 1883 }),
            root: root.to_owned(),
            client_id: "remoteclipd".to_owned(),
            username: None,
            password_file: None,
            keep_alive: Duration::from_secs_f64(raw.keep_alive_s),
            reconnect_max: Duration::from_secs_f64(raw.reconnect_max_s),
            ack_timeout: Duration::from_secs_f64(raw.ack_timeout_s),
            encoding: raw.payload,
            max_results_per_second: None,
            max_bytes_per_minute: None,
            tls,
        }
    }
}

pub(super) fn mqtt(raw: RawMqtt, vehicle: &str) -> Result<MqttConfig, String> {
    if raw.host.is_empty() {
        return Err("mqtt.host is empty; name the broker".to_owned());
    }
    for level in raw.root.split('/') {
        topic_level("mqtt.root", level)?;
    }
    if raw.password_file.is_some() && raw.username.is_none() {
        return Err("mqtt.password_file needs mqtt.username beside it".to_owned());
    }
    if raw.max_results_per_second.is_some_and(|rate| !(rate > 0.0 && rate <= 1000.0)) {
        return Err("mqtt.max_results_per_second must be above 0 and at most 1000".to_owned());
    }
    if raw.max_bytes_per_minute.is_some_and(|bytes| bytes < LEAST_BUDGET) {
        return Err(format!("mqtt.max_bytes_per_minute must be at least {LEAST_BUDGET}, or no event fits"));
    }
    Ok(MqttConfig {
        host: raw.host,
        port: raw.port.unwrap_or(if raw.tls.is_some() { 8883 } else { 1883 }),
        root: raw.root,
        client_id: raw.client_id.unwrap_or_else(|| format!("remoteclipd-{vehicle}")),
        username: raw.username,
        password_file: raw.password_file,
        // rumqttc panics below five seconds.
        keep_alive: seconds("mqtt.keep_alive_s", raw.keep_alive_s, 5.0)?,
        reconnect_max: seconds("mqtt.reconnect_max_s", raw.reconnect_max_s, 1.0)?,
        ack_timeout: seconds("mqtt.ack_timeout_s", raw.ack_timeout_s, 1.0)?,
        encoding: raw.payload,
        max_results_per_second: raw.max_results_per_second,
        max_bytes_per_minute: raw.max_bytes_per_minute,
        tls: raw.tls.map(tls).transpose()?,
    })
}

fn tls(raw: RawTls) -> Result<TlsConfig, String> {
    let client = match (raw.cert_file, raw.key_file) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        (Some(_), None) => return Err("mqtt.tls.cert_file needs mqtt.tls.key_file beside it".to_owned()),
        (None, Some(_)) => return Err("mqtt.tls.key_file needs mqtt.tls.cert_file beside it".to_owned()),
    };
    Ok(TlsConfig { ca_file: raw.ca_file, client })
}
