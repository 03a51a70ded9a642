//! The configuration file: TOML → `raw` (every key known, or an error) → [`Config`] (every value sane).
//!
//! Promise: a [`Config`] that exists can be acted on; what cannot is a [`ConfigError`] that names file, field and cure.
//! Secrets come from files and variables that it names; what it publishes hides passwords within URLs.

mod camera;
mod pace;
mod position;
mod raw;
mod tiles;

use std::path::{Path, PathBuf};
use std::time::Duration;

use minisign_verify::PublicKey;

use crate::decide::{LONGEST_MEMORY, Rules, Thresholds};
use crate::position::PositionOptions;
use crate::vision::{Limits, SimilarOptions};
pub use camera::{CameraConfig, Source};
pub use pace::PaceConfig;
use raw::{Positive, RawCommands, RawConfig, RawMqtt, RawSpool, RawTags, RawTls, RawVision};
pub use tiles::{Sampling, TilesConfig};

/// Where the daemon looks when it is told nothing else.
pub const DEFAULT_PATH: &str = "/etc/remoteclipd/remoteclipd.toml";
/// Holds the broker's password when no `mqtt.password_file` is set.
pub const PASSWORD_VARIABLE: &str = "REMOTECLIPD_MQTT_PASSWORD";
/// A spool holds two kinds of messages in files of at least 64 KiB.
const SMALLEST_SPOOL: u64 = 256 << 10;
/// A few events a minute, and the state beside them.
const LEAST_BUDGET: u64 = 4096;

/// A validated configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Who publishes: a topic level.
    pub vehicle: String,
    /// Where frames come from.
    pub camera: CameraConfig,
    /// The bundle's folder.
    pub bundle: PathBuf,
    /// Threads of the image tower.
    pub threads: usize,
    /// What a picture may cost.
    pub limits: Limits,
    /// The parts of each frame to look at, when it is not only the whole.
    pub tiles: Option<TilesConfig>,
    /// When a frame shows what the last one did and is let go.
    pub similar: Option<SimilarOptions>,
    /// How hard the classifier may work, when there is a limit.
    pub pace: Option<PaceConfig>,
    /// A prompt pack to use instead of the built-in one.
    pub pack: Option<PathBuf>,
    /// How many scores a result carries.
    pub top_k: usize,
    /// Whether each result is followed by its embedding.
    pub embeddings: bool,
    /// When a tag is entered and left.
    pub rules: Rules,
    /// The broker.
    pub mqtt: MqttConfig,
    /// How often `health` is published.
    pub health_interval: Duration,
    /// Folder of the board's thermal zones.
    pub thermal: PathBuf,
    /// Folder for what must survive a restart.
    pub state: PathBuf,
    /// Where events wait for the broker.
    pub spool: SpoolConfig,
    /// Commands from the ground, when they are obeyed.
    pub commands: Option<CommandsConfig>,
    /// Where frames were taken.
    pub position: PositionOptions,
    /// The whole file with defaults filled in, as it is published on the `config` topic.
    pub published: serde_json::Value,
}

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

/// Commands from the ground.
#[derive(Debug, Clone)]
pub struct CommandsConfig {
    /// Whose signature a prompt pack must carry; without it none is accepted.
    pub public_key: Option<PublicKey>,
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

/// Where events wait for the broker, and how much may.
#[derive(Debug, Clone)]
pub struct SpoolConfig {
    /// The folder; `None` keeps everything in memory.
    pub path: Option<PathBuf>,
    /// Bytes on disk.
    pub max_bytes: u64,
    /// How long a message is worth sending.
    pub max_age: Duration,
    /// Whether results go through the spool as well.
    pub results: bool,
}

impl SpoolConfig {
    /// In memory only: what a command-line tool needs.
    pub fn memory() -> Self {
        Self { path: None, max_bytes: 1 << 20, max_age: Duration::from_secs(3600), results: false }
    }
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

impl Config {
    /// Reads and validates a configuration file. Relative paths in it count from the working directory.
    ///
    /// # Errors
    /// [`ConfigError`] naming file, field and cure.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|reason| ConfigError::Invalid { path: path.to_owned(), reason })
    }

    /// Parses and validates the text of a configuration file; the error names field and cure.
    ///
    /// # Errors
    /// The field and the cure.
    pub fn parse(text: &str) -> Result<Self, String> {
        let raw: RawConfig = toml::from_str(text).map_err(|error| error.to_string())?;
        let published = serde_json::to_value(&raw).map_err(|error| error.to_string())?;
        let vehicle = topic_level("vehicle.id", &raw.vehicle.id)?;
        let RawVision { bundle, threads, max_bytes, max_pixels, max_memory, tiles, similar } = raw.vision;
        if !(1..=64).contains(&threads) {
            return Err(format!("vision.threads = {threads} must be between 1 and 64"));
        }
        if !(1..=10).contains(&raw.decide.top_k) {
            return Err(format!("decide.top_k = {} must be between 1 and 10", raw.decide.top_k));
        }
        let limits = Limits {
            bytes: max_bytes.positive("vision.max_bytes")?,
            pixels: max_pixels.positive("vision.max_pixels")?,
            memory: max_memory.positive("vision.max_memory")?,
        };
        let spool = spool(&raw.spool, &raw.state.path)?;
        let camera = camera::camera(raw.camera, &limits, &raw.state.path)?;
        if matches!(camera.source, Source::Mqtt(_)) && !(spool.results && spool.path.is_some()) {
            return Err(
                "camera.mqtt acknowledges a frame once its result is on disk: set spool.results = true (and not \
                        spool.enabled = false)"
                    .to_owned(),
            );
        }
        let tiles = tiles.map(|raw| tiles::tiles(raw, camera.lens)).transpose()?;
        Ok(Self {
            camera,
            bundle,
            threads,
            limits,
            tiles,
            similar: similar.as_ref().map(tiles::similar).transpose()?,
            pace: raw.pace.as_ref().map(pace::pace).transpose()?,
            thermal: raw.health.thermal_path,
            pack: raw.prompts.pack,
            top_k: raw.decide.top_k,
            embeddings: raw.publish.embedding,
            rules: rules(raw.tags)?,
            mqtt: mqtt(raw.mqtt, &vehicle)?,
            health_interval: seconds("health.interval_s", raw.health.interval_s, 1.0)?,
            spool,
            state: raw.state.path,
            commands: commands(raw.commands)?,
            position: position::position(raw.position)?,
            vehicle,
            published,
        })
    }
}

fn rules(raw: RawTags) -> Result<Rules, String> {
    let [consensus, window] = raw.consensus;
    if !(1 <= consensus && consensus <= window && window <= LONGEST_MEMORY) {
        return Err(format!(
            "tags.consensus = [{consensus}, {window}] must be [N, M] with 1 <= N <= M <= {LONGEST_MEMORY}: N of the last M frames"
        ));
    }
    if !(0.0..=1.0).contains(&raw.margin) {
        return Err(format!("tags.margin = {} must be between 0 and 1", raw.margin));
    }
    for (name, label) in &raw.label {
        let in_range = |value: Option<f32>| value.is_none_or(|value| value > 0.0 && value <= 1.0);
        if !in_range(label.threshold) || label.hysteresis.is_some_and(|value| !(0.0..1.0).contains(&value)) {
            return Err(format!(
                "tags.label.\"{name}\": threshold must be above 0 and at most 1, hysteresis at least 0 and below the threshold"
            ));
        }
    }
    let thresholds = raw
        .label
        .into_iter()
        .map(|(name, label)| (name, Thresholds { enter: label.threshold, hysteresis: label.hysteresis }));
    Ok(Rules {
        consensus,
        window,
        min_duration: seconds("tags.min_duration_s", raw.min_duration_s, 0.0)?,
        cooldown: seconds("tags.cooldown_s", raw.cooldown_s, 0.0)?,
        margin: raw.margin,
        thresholds: thresholds.collect(),
    })
}

fn mqtt(raw: RawMqtt, vehicle: &str) -> Result<MqttConfig, String> {
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

fn commands(raw: RawCommands) -> Result<Option<CommandsConfig>, String> {
    let public_key = raw.public_key.as_deref().map(PublicKey::from_base64).transpose().map_err(|_| {
        "commands.public_key is not a minisign public key (the line of minisign.pub that begins with RW)".to_owned()
    })?;
    Ok(raw.enabled.then_some(CommandsConfig { public_key }))
}

fn spool(raw: &RawSpool, state: &Path) -> Result<SpoolConfig, String> {
    if raw.max_bytes < SMALLEST_SPOOL {
        return Err(format!("spool.max_bytes = {} must be at least {SMALLEST_SPOOL}", raw.max_bytes));
    }
    Ok(SpoolConfig {
        path: raw.enabled.then(|| state.join("spool")),
        max_bytes: raw.max_bytes,
        max_age: Duration::from_secs(raw.max_age_s.positive("spool.max_age_s")?),
        results: raw.results,
    })
}

/// A name that can stand as one level of an MQTT topic (MQTT 5, 4.7).
fn topic_level(field: &str, value: &str) -> Result<String, String> {
    let fit = !value.is_empty()
        && value.len() <= 64
        && !value.starts_with('$')
        && !value.contains(['/', '+', '#', ' '])
        && !value.contains(char::is_control);
    if fit {
        Ok(value.to_owned())
    } else {
        Err(format!(
            "{field} = \"{value}\" must be 1 to 64 bytes without spaces, / + # or a leading $ (it is an MQTT topic level)"
        ))
    }
}

fn seconds(field: &str, value: f64, least: f64) -> Result<Duration, String> {
    if (least..=3600.0).contains(&value) {
        Ok(Duration::from_secs_f64(value))
    } else {
        Err(format!("{field} = {value} must be between {least} and 3600 seconds"))
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read config {path}: {source}; name one with --config (config/remoteclipd.toml is an example)")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not a valid configuration.
    #[error("config {path}: {reason}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Field and cure.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALLEST: &str = "[vehicle]\nid = \"uav-1\"\n[camera.simulated]\n";

    #[test]
    fn the_smallest_config_has_sane_defaults() {
        let config = Config::parse(SMALLEST).unwrap();
        assert_eq!(config.mqtt.client_id, "remoteclipd-uav-1");
        assert_eq!((config.mqtt.port, config.top_k), (1883, 5));
        assert_eq!(config.published["mqtt"]["host"], "localhost");
    }

    #[test]
    fn the_shipped_example_is_valid() {
        Config::read(Path::new("config/remoteclipd.toml")).unwrap();
    }

    #[test]
    fn tls_changes_the_default_port() {
        let config = Config::parse(&format!("{SMALLEST}[mqtt.tls]\nca_file = \"ca.pem\"")).unwrap();
        assert_eq!(config.mqtt.port, 8883);
    }

    #[test]
    fn each_mistake_names_its_field() {
        for (lines, named) in [
            ("[mqtt]\nhots = \"x\"", "hots"),
            ("[mqtt]\nroot = \"a/#\"", "mqtt.root"),
            ("[mqtt]\nport = 70000", "port"),
            ("[mqtt]\nkeep_alive_s = 1", "mqtt.keep_alive_s"),
            ("[mqtt]\nack_timeout_s = 0", "mqtt.ack_timeout_s"),
            ("[mqtt]\npayload = \"xml\"", "payload"),
            ("[mqtt]\nmax_results_per_second = 0.0", "mqtt.max_results_per_second"),
            ("[mqtt]\nmax_bytes_per_minute = 10", "mqtt.max_bytes_per_minute"),
            ("[mqtt.tls]\ncert_file = \"c\"", "mqtt.tls.key_file"),
            ("[mqtt.tls]\nkey_file = \"k\"", "mqtt.tls.cert_file"),
            ("[tags]\nconsensus = [3, 2]", "tags.consensus"),
            ("[tags]\nmargin = 2.0", "tags.margin"),
            ("[commands]\npublic_key = \"RWx\"", "commands.public_key"),
            ("[tags]\ncooldown_s = -1.0", "tags.cooldown_s"),
            ("[tags.label.\"parking lot\"]\nthreshold = 1.5", "parking lot"),
            ("[spool]\nmax_bytes = 10", "spool.max_bytes"),
            ("[spool]\nmax_age_s = 0", "spool.max_age_s"),
            ("[mqtt]\npassword_file = \"p\"", "mqtt.username"),
            ("[vision]\nthreads = 0", "vision.threads"),
            ("[vision]\nmax_pixels = 0", "vision.max_pixels"),
            ("[vision.similar]\nthreshold = 0.0", "vision.similar.threshold"),
            ("[vision.similar]\nat_most_s = 0.0", "vision.similar.at_most_s"),
            ("[pace]\nframes_per_second = 0.0", "pace.frames_per_second"),
            ("[pace]\nduty_cycle = 1.5", "pace.duty_cycle"),
            ("[pace]\nmax_temperature_c = 200.0", "pace.max_temperature_c"),
            ("[vision.tiles]", "one of grid = [columns, rows], size"),
            ("[vision.tiles]\ngrid = [2, 2]\nsize = 500", "one of grid = [columns, rows], size"),
            ("[vision.tiles]\ngsd_m = 0.1", "camera.horizontal_fov_deg"),
            ("[vision.tiles]\ngsd_m = 0.0", "vision.tiles.gsd_m"),
            ("[vision.tiles]\ngrid = [1, 1]", "vision.tiles.grid"),
            ("[vision.tiles]\ngrid = [5, 4]", "vision.tiles.max_tiles"),
            ("[vision.tiles]\nsize = 3", "vision.tiles.size"),
            ("[vision.tiles]\nsize = 300\nmax_tiles = 65", "vision.tiles.max_tiles"),
            ("[vision.tiles]\ngrid = [2, 2]\noverlap = 0.6", "vision.tiles.overlap"),
            ("[vision.tiles]\ngrid = [2, 2]\naggregate = \"top_k\"", "vision.tiles.k"),
            ("[vision.tiles]\ngrid = [2, 2]\nk = 2", "vision.tiles.k"),
            ("[vision.tiles]\ngrid = [2, 2]\naggregate = \"sum\"", "sum"),
            ("[decide]\ntop_k = 0", "decide.top_k"),
            ("[health]\ninterval_s = 0.1", "health.interval_s"),
            ("[camera.folder]\npath = \"x\"", "exclude each other"),
            ("[position]\nmavlink = \"tcp://0.0.0.0:1\"", "position.mavlink"),
            ("[position]\nmavlink = \"udp://0.0.0.0:1\"\nsystem_id = 0", "position.system_id"),
            ("[position]\nmavlink = \"udp://0.0.0.0:1\"\nmount_pitch_deg = 181.0", "position.mount_pitch_deg"),
            ("[position]\nmax_age_s = 0.0", "position.max_age_s"),
            ("[position]\nonly_while_armed = true", "position.mavlink"),
            ("[position]\nreport = true", "position.mavlink"),
            ("[position]\nmount_pitch_deg = -90.0", "position.mavlink"),
            ("[camera.pipe]\ncommand = [\"x\"]", "exclude each other"),
        ] {
            let error = Config::parse(&format!("{SMALLEST}{lines}")).unwrap_err();
            assert!(error.contains(named), "{lines}: {error}");
        }
        for (text, named) in [
            ("[camera.simulated]", "vehicle"),
            ("[vehicle]\nid = \"a b\"\n[camera.simulated]", "vehicle.id"),
            ("[vehicle]\nid = \"a\"\n[camera]\nname = \"x\"", "no source"),
            ("[vehicle]\nid = \"a\"\n[camera.simulated]\nscene = \"moon\"", "moon"),
            ("[vehicle]\nid = \"a\"\n[camera.simulated]\nwidth = 1", "camera.simulated.width"),
            ("[vehicle]\nid = \"a\"\n[camera.simulated]\nframes_per_second = 0.0", "frames_per_second"),
        ] {
            let error = Config::parse(text).unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
        }
        for (table, named) in [
            ("[camera.folder]\npath = \"x\"\npoll_s = 0.0", "camera.folder.poll_s"),
            ("[camera.pipe]\ncommand = []", "camera.pipe.command"),
            ("[camera.pipe]\ncommand = [\"x\"]\nformat = \"h264\"", "none of mjpeg"),
            ("[camera.pipe]\ncommand = [\"x\"]\nformat = \"nv12\"\nwidth = 4", "camera.pipe.height"),
            ("[camera.pipe]\ncommand = [\"x\"]\nformat = \"rgb24\"\nwidth = 0\nheight = 1", "must be above 0"),
            (
                "[camera.pipe]\ncommand = [\"x\"]\nformat = \"rgb24\"\nwidth = 60000\nheight = 60000",
                "vision.max_pixels",
            ),
            ("[camera.pipe]\ncommand = [\"x\"]\nwidth = 4", "take them out"),
            ("[camera.pipe]\ncommand = [\"x\"]\ntimeout_s = 0.0", "camera.pipe.timeout_s"),
            ("[camera.v4l2]\nformat = \"h264\"", "neither mjpeg nor yuyv"),
            ("[camera.v4l2]\ncolours = \"bt709\"", "take it out"),
            ("[camera.v4l2]\nheight = 0", "camera.v4l2.height"),
            ("[camera.v4l2]\nframes_per_second = 0", "camera.v4l2.frames_per_second"),
            ("[camera.video]", "either url or path"),
            ("[camera.video]\nurl = \"flight.mp4\"", "camera.video.path"),
            ("[camera.video]\npath = \"x\"\nframes_per_second = 0.0", "camera.video.frames_per_second"),
            ("[camera.video]\nurl = \"rtsp://x\"\ntransport = \"ftp\"", "transport"),
            ("[camera.http]\nurl = \"https://x\"", "camera.video"),
            ("[camera.http]\nurl = \"http://x\"\nusername = \"u\"", "camera.http.username"),
            ("[camera.http]\nurl = \"http://x\"\ninterval_s = 0.0", "camera.http.interval_s"),
            ("[camera.mqtt]\ntopic = \"x\"", "spool.results = true"),
            ("[camera.mqtt]\ntopic = \"x\"\n[spool]\nresults = true\nenabled = false", "spool.enabled"),
            ("[camera.mqtt]\ntopic = \"$share/g/x\"", "camera.mqtt.group"),
            ("[camera.mqtt]\ntopic = \"x\"\ngroup = \"a/b\"", "camera.mqtt.group"),
        ] {
            let error = Config::parse(&format!("[vehicle]\nid = \"a\"\n{table}")).unwrap_err();
            assert!(error.contains(named), "{table}: {error}");
        }
    }

    #[test]
    fn passwords_are_not_published() {
        for table in [
            "[camera.pipe]\ncommand = [\"x\", \"rtsp://u:secret@cam\"]",
            "[camera.video]\nurl = \"rtsp://u:secret@cam\"",
            "[camera.http]\nurl = \"http://u:secret@cam\"",
        ] {
            let config = Config::parse(&format!("[vehicle]\nid = \"a\"\n{table}")).unwrap();
            assert!(!config.published.to_string().contains("secret"), "{}", config.published);
        }
    }

    #[test]
    fn the_shipped_examples_are_valid() {
        for entry in std::fs::read_dir("config/examples").unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                Config::read(&path).unwrap();
            }
        }
    }
}
