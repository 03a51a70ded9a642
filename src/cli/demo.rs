//! `remoteclipd demo`: the whole product on one machine. A broker in this process, the simulated camera, the default
//! bundle, and a subscriber that prints what any other subscriber would receive.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{Client, Connection, Event, MqttOptions};
use rumqttd::{Broker, ConnectionSettings, RouterConfig, ServerSettings};
use serde_json::Value;

use super::classify::bar;
use crate::config::Config;
use crate::daemon;

/// How long broker and subscriber may take to get ready, and the last messages to arrive.
const PATIENCE: Duration = Duration::from_secs(10);

/// Options of `demo`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// End after this many frames; fly until stopped when left out
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    frames: Option<u64>,
    /// Frames a second
    #[arg(long, value_name = "FPS", default_value_t = 4.0)]
    rate: f64,
    /// Seed of the simulated flight
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,
    /// Port of the demo's own broker
    #[arg(long, value_name = "PORT", default_value_t = 1883)]
    port: u16,
    #[command(flatten)]
    bundle: super::model::BundleArgs,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let port = start_broker(args.port)?;
    println!("broker on 127.0.0.1:{}; beside it: mosquitto_sub -p {} -t 'remoteclip/#' -v\n", args.port, args.port);
    let (sender, finished) = channel();
    let (client, connection) = subscribe(port)?;
    thread::Builder::new().name("subscriber".to_owned()).spawn(move || print_all(&client, connection, &sender))?;
    daemon::run(config(args, port)?, None)?;
    let results = summary(&finished)?;
    println!("\n{results} results received");
    Ok(match args.frames {
        Some(frames) if results < frames => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    })
}

fn config(args: &Args, port: u16) -> anyhow::Result<Config> {
    let frames = args.frames.map(|frames| format!("frames = {frames}")).unwrap_or_default();
    let (rate, seed) = (args.rate, args.seed);
    let text = format!(
        "[vehicle]\nid = \"demo\"\n[mqtt]\nport = {port}\nhost = \"127.0.0.1\"\n[health]\ninterval_s = 5.0\n[spool]\nenabled = false\n\
         [camera.simulated]\nseed = {seed}\nframes_per_second = {rate:?}\n{frames}\n"
    );
    let mut config = Config::parse(&text).map_err(anyhow::Error::msg)?;
    config.bundle.clone_from(&args.bundle.bundle);
    Ok(config)
}

/// rumqttd in threads of its own, ready when this returns. It speaks one version of MQTT a port: 3.1.1, which a plain
/// `mosquitto_sub` speaks, on the given one, and 5, which the daemon speaks, on the one it returns.
fn start_broker(port: u16) -> anyhow::Result<u16> {
    let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    // rumqttd only logs a port that is taken, so it is tried first.
    TcpListener::bind(v4)
        .with_context(|| format!("port {port} is taken, perhaps by another broker; choose one with --port"))?;
    let v5 = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let connections = ConnectionSettings {
        connection_timeout_ms: 5000,
        max_payload_size: 1 << 20,
        max_inflight_count: 200,
        auth: None,
        external_auth: None,
        dynamic_filters: true,
    };
    let server = |name: &str, listen| ServerSettings {
        name: name.to_owned(),
        listen,
        tls: None,
        next_connection_delay_ms: 1,
        connections: connections.clone(),
    };
    let router = RouterConfig {
        max_connections: 64,
        max_outgoing_packet_count: 200,
        max_segment_size: 1 << 20,
        max_segment_count: 10,
        ..RouterConfig::default()
    };
    let mut broker = Broker::new(rumqttd::Config {
        router,
        v4: Some([("v4".to_owned(), server("v4", v4))].into()),
        v5: Some([("v5".to_owned(), server("v5", v5))].into()),
        ..rumqttd::Config::default()
    });
    thread::Builder::new().name("broker".to_owned()).spawn(move || {
        if let Err(error) = broker.start() {
            eprintln!("the demo's broker failed: {error}");
        }
    })?;
    let deadline = Instant::now() + PATIENCE;
    while [v4, v5].iter().any(|address| TcpStream::connect(address).is_err()) {
        anyhow::ensure!(Instant::now() < deadline, "the demo's broker did not start");
        thread::sleep(Duration::from_millis(10));
    }
    Ok(v5.port())
}

/// A subscriber to everything, its subscription acknowledged.
fn subscribe(port: u16) -> anyhow::Result<(Client, Connection)> {
    let (client, mut connection) = Client::new(MqttOptions::new("remoteclipd-demo-screen", "127.0.0.1", port), 16);
    client.subscribe("remoteclip/#", QoS::AtLeastOnce)?;
    for event in connection.iter() {
        if matches!(event.context("the demo's subscriber cannot connect")?, Event::Incoming(Packet::SubAck(_))) {
            return Ok((client, connection));
        }
    }
    bail!("the demo's subscriber was disconnected")
}

/// Prints messages until the daemon says that it is offline; then sends the number of results. Holds the client because
/// dropping the last one ends the connection.
fn print_all(_client: &Client, mut connection: Connection, finished: &Sender<u64>) {
    let mut results = 0;
    for event in connection.iter() {
        let Ok(Event::Incoming(Packet::Publish(publish))) = event else { continue };
        let topic = String::from_utf8_lossy(&publish.topic);
        let Ok(payload) = serde_json::from_slice::<Value>(&publish.payload) else { continue };
        match topic.rsplit('/').next() {
            Some("result") => {
                results += 1;
                println!("{}", result_line(&payload));
            }
            Some("event") => println!("{}", event_line(&payload)),
            Some("health") => println!("{}", health_line(&payload)),
            Some("status") => {
                println!("{}", status_line(&payload));
                if payload["state"] == "offline" {
                    // The other side has gone only when the demo is over already.
                    let _ = finished.send(results);
                    return;
                }
            }
            _ => {}
        }
    }
}

fn summary(finished: &Receiver<u64>) -> anyhow::Result<u64> {
    finished.recv_timeout(PATIENCE).context("the daemon's goodbye did not arrive")
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("-")
}

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or(0.0)
}

fn result_line(payload: &Value) -> String {
    let scores: Vec<String> = payload["scores"].as_array().into_iter().flatten().take(2).map(score).collect();
    format!("{}  {}  {:>5.1} ms", text(payload, "frame"), scores.join("  "), number(&payload["latency_ms"], "total"))
}

fn score(value: &Value) -> String {
    let score = number(value, "score");
    format!("{:<24} {:<20} {score:.2}", text(value, "label"), bar(score as f32))
}

fn event_line(payload: &Value) -> String {
    let mark = if payload["event"] == "enter" { "▶ enter" } else { "◀ exit " };
    format!("           {mark} {}", text(payload, "label"))
}

fn health_line(payload: &Value) -> String {
    let memory = number(payload, "memory_bytes") / f64::from(1 << 20);
    format!(
        "           health: {:.1} frames/s, {} dropped, {memory:.0} MiB",
        number(payload, "fps"),
        payload["frames_dropped"]
    )
}

fn status_line(payload: &Value) -> String {
    match payload["state"].as_str() {
        Some("online") => format!(
            "           online: model {} ({}), prompts {} with {} labels",
            text(&payload["model"], "name"),
            text(&payload["model"], "kernel"),
            text(&payload["prompts"], "name"),
            payload["prompts"]["labels"].as_array().map_or(0, Vec::len)
        ),
        _ => format!("           offline: {}", text(payload, "reason")),
    }
}
