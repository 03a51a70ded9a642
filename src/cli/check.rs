//! `remoteclipd check`: everything that can be found wrong before take-off, one line each.

mod camera;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::bundle::Bundle;
use crate::config::{Config, DEFAULT_PATH, MqttConfig, SpoolConfig};
use crate::daemon::Prepared;
use crate::publish::spool::Spool;
use crate::publish::{Credentials, Link, Message, Setup, Urgency};

/// How long the broker may take to accept us.
const BROKER_PATIENCE: Duration = Duration::from_secs(5);

/// Options of `check`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// Also connect to the broker
    #[arg(long)]
    online: bool,
    /// Also take one frame from the camera
    #[arg(long)]
    camera: bool,
    /// With --camera: folder to write the frame to, as it came and as the model sees it
    #[arg(long, value_name = "DIR", requires = "camera")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let all = checks(args);
    println!("{}", if all { "all is well" } else { "not ready; mend the lines marked FAIL" });
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the checks in order; those that rest on a failed one are left out.
fn checks(args: &Args) -> bool {
    let Some(config) = report("config", Config::read(&args.config), |config| {
        format!("{}, vehicle {}, camera {}", args.config.display(), config.vehicle, config.camera.name)
    }) else {
        return false;
    };
    let mut all = report("bundle", Bundle::open(&config.bundle).and_then(verify_all), Clone::clone).is_some();
    let mqtt = config.mqtt.clone();
    if let Some(path) = &config.spool.path {
        all &= report("spool", Spool::check(path), Clone::clone).is_some();
    }
    let prepared = report("camera, model and prompts", Prepared::new(config), |prepared| {
        let header = prepared.pack().header();
        format!(
            "prompt set {} with {} labels fits model {}",
            header.set,
            header.labels.len(),
            prepared.bundle().manifest().name
        )
    });
    all &= prepared.is_some();
    if let Some(mut prepared) = prepared.filter(|_| args.camera) {
        all &= report("frame", camera::photograph(&mut prepared, args.out.as_deref()), Clone::clone).is_some();
    }
    if args.online {
        all &= report("broker", connect(&mqtt), Clone::clone).is_some();
    }
    all
}

fn report<T, E: Into<anyhow::Error>>(what: &str, outcome: Result<T, E>, detail: impl Fn(&T) -> String) -> Option<T> {
    match outcome {
        Ok(value) => {
            println!("ok    {what}: {}", detail(&value));
            Some(value)
        }
        Err(error) => {
            println!("FAIL  {what}: {}", super::sentence(&error.into()));
            None
        }
    }
}

fn verify_all(bundle: Bundle) -> Result<String, crate::bundle::BundleError> {
    for name in bundle.manifest().files.keys() {
        // On the drone the text side may be left out; what is there must be right.
        if bundle.folder().join(name).exists() || name == crate::bundle::IMAGE_ONNX {
            bundle.verified(name)?;
        }
    }
    Ok(format!(
        "{} ({}), every file is the one the manifest vouches for",
        bundle.manifest().name,
        bundle.manifest().model.architecture
    ))
}

fn connect(mqtt: &MqttConfig) -> anyhow::Result<String> {
    // A client id and a will of its own: a running daemon must not notice.
    let mqtt = MqttConfig { client_id: format!("{}-check", mqtt.client_id), ..mqtt.clone() };
    let will = Message { topic: format!("{}/check", mqtt.root), payload: Vec::new(), urgency: Urgency::State };
    let link = Link::start(Setup {
        mqtt: &mqtt,
        credentials: Credentials::read(&mqtt)?,
        will: will.clone(),
        spool: Spool::open(&SpoolConfig::memory())?,
        backlog: 1,
        inbox: None,
    })?;
    let deadline = Instant::now() + BROKER_PATIENCE;
    while !link.connected() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    let connected = link.connected();
    link.stop(will);
    anyhow::ensure!(
        connected,
        "{}:{} did not accept us within {} s (the lines above tell why): correct mqtt.host, port, username or tls, or start the broker",
        mqtt.host,
        mqtt.port,
        BROKER_PATIENCE.as_secs()
    );
    Ok(format!("{}:{} accepted us", mqtt.host, mqtt.port))
}
