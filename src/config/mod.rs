//! The configuration file: TOML → `raw` (every key known, or an error) → [`Config`] (every value sane).
//!
//! Promise: a [`Config`] that exists can be acted on; what cannot is a [`ConfigError`] that names file, field and cure.
//! Secrets come from files and variables that it names; what it publishes hides passwords within URLs.

mod camera;
mod mqtt;
mod pace;
mod position;
mod raw;
mod spool;
#[cfg(test)]
mod tests;
mod tiles;

use std::path::{Path, PathBuf};
use std::time::Duration;

use minisign_verify::PublicKey;

use crate::decide::{LONGEST_MEMORY, Rules, Thresholds};
use crate::position::PositionOptions;
use crate::vision::{Limits, SimilarOptions};
pub use camera::{CameraConfig, Source};
pub use mqtt::{Encoding, MqttConfig, TlsConfig};
pub use pace::PaceConfig;
use raw::{Positive, RawCommands, RawConfig, RawTags, RawVision};
pub use spool::SpoolConfig;
pub use tiles::{Sampling, TilesConfig};

/// Where the daemon looks when it is told nothing else.
pub const DEFAULT_PATH: &str = "/etc/remoteclipd/remoteclipd.toml";
/// Holds the broker's password when no `mqtt.password_file` is set.
pub const PASSWORD_VARIABLE: &str = "REMOTECLIPD_MQTT_PASSWORD";

/// A validated configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Who publishes: a topic level.
    pub vehicle: String,
    /// Where frames come from.
    pub camera: CameraConfig,
    /// The bundle's folder.
    pub bundle: PathBuf,
    /// Threads that share one frame's work.
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

/// Commands from the ground.
#[derive(Debug, Clone)]
pub struct CommandsConfig {
    /// Whose signature a prompt pack must carry; without it none is accepted.
    pub public_key: Option<PublicKey>,
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
        let spool = spool::spool(&raw.spool, &raw.state.path)?;
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
            mqtt: mqtt::mqtt(raw.mqtt, &vehicle)?,
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

fn commands(raw: RawCommands) -> Result<Option<CommandsConfig>, String> {
    let public_key = raw.public_key.as_deref().map(PublicKey::from_base64).transpose().map_err(|_| {
        "commands.public_key is not a minisign public key (the line of minisign.pub that begins with RW)".to_owned()
    })?;
    Ok(raw.enabled.then_some(CommandsConfig { public_key }))
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
