//! `remoteclipd watch`: the ground side in a terminal. Who is there, in what state, what they see, what is missing.

mod fleet;
mod schema;
mod table;

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{Client, Event};

use self::fleet::Fleet;
use self::schema::Schemas;
use crate::config::{MqttConfig, TlsConfig};
use crate::publish::{Credentials, decode_payload, listener};

/// How often the table is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(500);
/// Wait after a failed connection.
const RECONNECT: Duration = Duration::from_secs(1);

/// Options of `watch`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Broker's name or address
    #[arg(long, value_name = "HOST", default_value = "localhost")]
    host: String,
    /// Broker's port; 1883, or 8883 with --ca-file
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// First level or levels of the topics
    #[arg(long, value_name = "ROOT", default_value = "remoteclip")]
    root: String,
    /// Only this vehicle
    #[arg(long, value_name = "ID", default_value = "+")]
    vehicle: String,
    /// User name; the password comes from --password-file or REMOTECLIPD_MQTT_PASSWORD
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// File whose first line is the password
    #[arg(long, value_name = "FILE", requires = "username")]
    password_file: Option<PathBuf>,
    /// PEM file of the authorities to trust; turns TLS on
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// PEM certificate to show to the broker
    #[arg(long, value_name = "FILE", requires_all = ["ca_file", "key_file"])]
    cert_file: Option<PathBuf>,
    /// Its private key
    #[arg(long, value_name = "FILE", requires = "cert_file")]
    key_file: Option<PathBuf>,
    /// One JSON object a message instead of the table
    #[arg(long)]
    json: bool,
    /// End after so many seconds; exit code 1 when a message broke its schema
    #[arg(long, value_name = "S")]
    seconds: Option<u64>,
}

impl Args {
    fn mqtt(&self) -> MqttConfig {
        let tls = self.ca_file.clone().map(|ca_file| TlsConfig {
            ca_file: Some(ca_file),
            client: self.cert_file.clone().zip(self.key_file.clone()),
        });
        MqttConfig {
            username: self.username.clone(),
            password_file: self.password_file.clone(),
            client_id: format!("remoteclipd-watch-{}", uuid::Uuid::new_v4().simple()),
            ..MqttConfig::of(&self.host, self.port, &self.root, tls)
        }
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mqtt = args.mqtt();
    let filter = format!("{}/v1/{}/#", args.root, args.vehicle);
    let events = listen(&mqtt, filter)?;
    let schemas = Schemas::new()?;
    let mut fleet = Fleet::default();
    let end = args.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut drawn = Instant::now();
    let mut trouble = Some("connecting".to_owned());
    while end.is_none_or(|end| Instant::now() < end) {
        match events.recv_timeout(DRAW_EVERY) {
            Ok(Ok(None)) => trouble = None,
            Ok(Ok(Some((topic, payload)))) => {
                let seen = see(&mut fleet, &schemas, &args.root, &topic, &payload);
                if args.json && !print(&seen) {
                    return Ok(ExitCode::SUCCESS);
                }
            }
            Ok(Err(error)) => trouble = Some(error),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if !args.json && drawn.elapsed() >= DRAW_EVERY {
            drawn = Instant::now();
            if !draw(&fleet, &mqtt, trouble.as_deref()) {
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
    if let Some(trouble) = trouble {
        anyhow::bail!("{}:{}: {trouble}", mqtt.host, mqtt.port);
    }
    Ok(if fleet.invalid() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `None` when the broker has accepted us, a topic and a payload, or what ended the connection.
type Heard = Result<Option<(String, Vec<u8>)>, String>;

/// Listens in a thread of its own, because rumqttc must not be interrupted, and subscribes after each connect.
fn listen(mqtt: &MqttConfig, filter: String) -> anyhow::Result<Receiver<Heard>> {
    let (client, mut connection) = Client::new(listener(mqtt, &Credentials::read(mqtt)?), 16);
    let (sender, events) = channel();
    std::thread::Builder::new().name("mqtt".to_owned()).spawn(move || {
        for event in connection.iter() {
            let heard = match event {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    client.try_subscribe(&filter, QoS::AtLeastOnce).map(|()| None).map_err(|error| error.to_string())
                }
                Ok(Event::Incoming(Packet::Publish(publish))) => {
                    Ok(Some((String::from_utf8_lossy(&publish.topic).into_owned(), publish.payload.to_vec())))
                }
                Ok(_) => continue,
                Err(error) => Err(error.to_string()),
            };
            let lost = heard.is_err();
            if sender.send(heard).is_err() {
                return;
            }
            if lost {
                std::thread::sleep(RECONNECT);
            }
        }
    })?;
    Ok(events)
}

/// Takes a message into account; what to tell about it with `--json`.
fn see(fleet: &mut Fleet, schemas: &Schemas, root: &str, topic: &str, payload: &[u8]) -> serde_json::Value {
    let Some(place) = fleet::Place::of(root, topic) else { return serde_json::Value::Null };
    let value = decode_payload(payload);
    let error = value.as_ref().and_then(|value| schemas.check(value).err());
    let missing = fleet.see(&place, value.as_ref(), error.is_some(), Timestamp::now());
    let mut told = BTreeMap::from([
        ("topic", serde_json::json!(topic)),
        ("vehicle", serde_json::json!(place.vehicle)),
        ("missing", serde_json::json!(missing)),
        ("valid", serde_json::json!(error.is_none())),
    ]);
    match value {
        Some(value) => told.insert("payload", value),
        None => told.insert("bytes", serde_json::json!(payload.len())),
    };
    if let Some(error) = error {
        told.insert("error", serde_json::json!(error));
    }
    serde_json::json!(told)
}

/// False when nobody reads any more.
fn print(seen: &serde_json::Value) -> bool {
    seen.is_null() || writeln!(std::io::stdout(), "{seen}").is_ok()
}

fn draw(fleet: &Fleet, mqtt: &MqttConfig, trouble: Option<&str>) -> bool {
    let mut out = std::io::stdout().lock();
    let home = if out.is_terminal() { "\x1b[H\x1b[J" } else { "" };
    let head = match trouble {
        Some(trouble) => format!("{}:{}  {trouble}", mqtt.host, mqtt.port),
        None => format!("{}:{}", mqtt.host, mqtt.port),
    };
    write!(out, "{home}{head}\n{}", table::render(fleet, Timestamp::now())).and_then(|()| out.flush()).is_ok()
}
