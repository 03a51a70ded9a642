//! The configuration file: TOML → `raw` (every key known, or an error) → [`Config`] (every value sane).
//!
//! Promise: a [`Config`] that exists can be acted on; what cannot is a [`ConfigError`] that names file, field and cure.
//! It holds no secrets, only the names of files and variables they come from, so it may be published as it is.

mod raw;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::camera::{FolderOptions, Scene, SimulatedOptions};
use crate::vision::Limits;
use raw::{Positive, RawCamera, RawConfig, RawMqtt, RawSimulated, RawVision};

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
    /// Threads of the image tower.
    pub threads: usize,
    /// What a picture may cost.
    pub limits: Limits,
    /// A prompt pack to use instead of the built-in one.
    pub pack: Option<PathBuf>,
    /// How many scores a result carries.
    pub top_k: usize,
    /// Whether each result is followed by its embedding.
    pub embeddings: bool,
    /// The broker.
    pub mqtt: MqttConfig,
    /// How often `health` is published.
    pub health_interval: Duration,
    /// The whole file with defaults filled in, as it is published on the `config` topic.
    pub published: serde_json::Value,
}

/// A camera's name and source.
#[derive(Debug, Clone)]
pub struct CameraConfig {
    /// A topic level.
    pub name: String,
    /// Where its frames come from.
    pub source: Source,
}

/// Where frames come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// Files of a folder.
    Folder(FolderOptions),
    /// The simulated camera.
    Simulated(SimulatedOptions),
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
    /// TLS, if the port speaks it.
    pub tls: Option<TlsConfig>,
}

/// TLS to the broker.
#[derive(Debug, Clone)]
pub struct TlsConfig {
    /// PEM file with the certificate authorities to trust; the system's when absent.
    pub ca_file: Option<PathBuf>,
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
        let RawVision { bundle, threads, max_bytes, max_pixels, max_memory } = raw.vision;
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
        Ok(Self {
            camera: camera(raw.camera, limits.bytes)?,
            bundle,
            threads,
            limits,
            pack: raw.prompts.pack,
            top_k: raw.decide.top_k,
            embeddings: raw.publish.embedding,
            mqtt: mqtt(raw.mqtt, &vehicle)?,
            health_interval: seconds("health.interval_s", raw.health.interval_s)?,
            vehicle,
            published,
        })
    }
}

fn camera(raw: RawCamera, max_bytes: u64) -> Result<CameraConfig, String> {
    let source = match (raw.folder, raw.simulated) {
        (Some(folder), None) => Source::Folder(FolderOptions { path: folder.path, once: folder.once, max_bytes }),
        (None, Some(simulated)) => Source::Simulated(simulated_options(simulated)?),
        (None, None) => return Err("the camera has no source; add [camera.folder] or [camera.simulated]".to_owned()),
        (Some(_), Some(_)) => return Err("camera.folder and camera.simulated exclude each other; keep one".to_owned()),
    };
    Ok(CameraConfig { name: topic_level("camera.name", &raw.name)?, source })
}

fn simulated_options(raw: RawSimulated) -> Result<SimulatedOptions, String> {
    for (field, value) in [("width", raw.width), ("height", raw.height)] {
        if !(32..=4096).contains(&value) {
            return Err(format!("camera.simulated.{field} = {value} must be between 32 and 4096 pixels"));
        }
    }
    if !(raw.frames_per_second > 0.0 && raw.frames_per_second <= 1000.0) {
        return Err(format!(
            "camera.simulated.frames_per_second = {} must be above 0 and at most 1000",
            raw.frames_per_second
        ));
    }
    let scene = raw.scene.as_deref().map(scene).transpose()?;
    Ok(SimulatedOptions {
        seed: raw.seed,
        width: raw.width,
        height: raw.height,
        frames_per_second: raw.frames_per_second,
        frames: raw.frames,
        scene,
    })
}

fn scene(name: &str) -> Result<Scene, String> {
    Scene::ALL.iter().copied().find(|scene| scene.name() == name).ok_or_else(|| {
        let known: Vec<_> = Scene::ALL.iter().map(|scene| scene.name()).collect();
        format!("camera.simulated.scene = \"{name}\" is none of {}", known.join(", "))
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
    Ok(MqttConfig {
        host: raw.host,
        port: raw.port.unwrap_or(if raw.tls.is_some() { 8883 } else { 1883 }),
        root: raw.root,
        client_id: raw.client_id.unwrap_or_else(|| format!("remoteclipd-{vehicle}")),
        username: raw.username,
        password_file: raw.password_file,
        keep_alive: seconds("mqtt.keep_alive_s", raw.keep_alive_s)?,
        reconnect_max: seconds("mqtt.reconnect_max_s", raw.reconnect_max_s)?,
        tls: raw.tls.map(|tls| TlsConfig { ca_file: tls.ca_file }),
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

fn seconds(field: &str, value: f64) -> Result<Duration, String> {
    if (1.0..=3600.0).contains(&value) {
        Ok(Duration::from_secs_f64(value))
    } else {
        Err(format!("{field} = {value} must be between 1 and 3600 seconds"))
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
            ("[mqtt]\nkeep_alive_s = 0", "mqtt.keep_alive_s"),
            ("[mqtt]\npassword_file = \"p\"", "mqtt.username"),
            ("[vision]\nthreads = 0", "vision.threads"),
            ("[vision]\nmax_pixels = 0", "vision.max_pixels"),
            ("[decide]\ntop_k = 0", "decide.top_k"),
            ("[health]\ninterval_s = 0.1", "health.interval_s"),
            ("[camera.folder]\npath = \"x\"", "exclude each other"),
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
    }
}
