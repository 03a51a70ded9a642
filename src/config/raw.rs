//! The configuration file as it is written: every key, its default and its unit. Unknown keys are errors.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Encoding;

mod camera;

pub(super) use camera::*;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawConfig {
    pub vehicle: RawVehicle,
    pub camera: RawCamera,
    #[serde(default)]
    pub vision: RawVision,
    #[serde(default)]
    pub prompts: RawPrompts,
    #[serde(default)]
    pub decide: RawDecide,
    #[serde(default)]
    pub publish: RawPublish,
    #[serde(default)]
    pub tags: RawTags,
    #[serde(default)]
    pub mqtt: RawMqtt,
    #[serde(default)]
    pub health: RawHealth,
    pub pace: Option<RawPace>,
    #[serde(default)]
    pub state: RawState,
    #[serde(default)]
    pub spool: RawSpool,
    #[serde(default)]
    pub commands: RawCommands,
    #[serde(default)]
    pub position: RawPosition,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawVehicle {
    /// Name of the vehicle in every topic. Required: two vehicles with one name would overwrite each other's state.
    pub id: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawVision {
    /// Folder of the model bundle.
    pub bundle: PathBuf,
    /// Threads that share one frame's work.
    pub threads: usize,
    /// Largest encoded picture in bytes.
    pub max_bytes: u64,
    /// Largest width × height.
    pub max_pixels: u64,
    /// Most memory the decoder may take, in bytes.
    pub max_memory: u64,
    /// Look at parts of each frame too, when the table is there.
    pub tiles: Option<RawTiles>,
    /// Let frames go that show what the last one did, when the table is there.
    pub similar: Option<RawSimilar>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawSimilar {
    /// Largest mean difference of brightness, in levels of 0 to 255.
    pub threshold: f64,
    /// Seconds after which a frame is classified in any case.
    pub at_most_s: f64,
}

impl Default for RawSimilar {
    fn default() -> Self {
        Self { threshold: 2.0, at_most_s: 5.0 }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawTiles {
    /// Columns and rows of tiles; or `size`, or `gsd_m`.
    pub grid: Option<[u32; 2]>,
    /// A tile's side in pixels of the frame; or `grid`, or `gsd_m`.
    pub size: Option<u32>,
    /// Ground sampling distance: metres of ground that a pixel of the model's square is to show; or `grid`, or `size`.
    pub gsd_m: Option<f64>,
    /// Share of its side that a tile has in common with its neighbour.
    pub overlap: f64,
    /// Most tiles of a frame; with `size` they become larger instead.
    pub max_tiles: usize,
    /// How the parts' scores become the frame's: `max`, `mean` or `top_k`.
    pub aggregate: RawAggregate,
    /// How many of the best parts `top_k` averages.
    pub k: Option<usize>,
}

impl Default for RawTiles {
    fn default() -> Self {
        Self { grid: None, size: None, gsd_m: None, overlap: 0.0, max_tiles: 16, aggregate: RawAggregate::Max, k: None }
    }
}

#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawAggregate {
    Max,
    Mean,
    TopK,
}

impl Default for RawVision {
    fn default() -> Self {
        let limits = crate::vision::Limits::default();
        Self {
            bundle: PathBuf::from("models/default"),
            threads: 1,
            max_bytes: limits.bytes,
            max_pixels: limits.pixels,
            max_memory: limits.memory,
            tiles: None,
            similar: None,
        }
    }
}

#[derive(Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawPrompts {
    /// A prompt pack to use instead of the one built into the binary.
    pub pack: Option<PathBuf>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawDecide {
    /// How many of the highest scores a result carries.
    pub top_k: usize,
}

impl Default for RawDecide {
    fn default() -> Self {
        Self { top_k: 5 }
    }
}

#[derive(Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawPublish {
    /// Follow each result with its embedding.
    pub embedding: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawTags {
    /// N of the last M frames must agree before a tag changes.
    pub consensus: [u32; 2],
    /// Seconds for which they must agree.
    pub min_duration_s: f64,
    /// Seconds for which a tag that was left is not entered again.
    pub cooldown_s: f64,
    /// How far a score must stand above the background's share to count for a tag.
    pub margin: f32,
    /// Thresholds in place of the prompt pack's, by label.
    pub label: BTreeMap<String, RawThresholds>,
}

impl Default for RawTags {
    fn default() -> Self {
        Self { consensus: [2, 3], min_duration_s: 0.0, cooldown_s: 0.0, margin: 0.0, label: BTreeMap::new() }
    }
}

#[derive(Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawThresholds {
    /// A tag is entered at this score.
    pub threshold: Option<f32>,
    /// And left below the threshold less this.
    pub hysteresis: Option<f32>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawMqtt {
    /// Broker's name or address.
    pub host: String,
    /// Broker's port; 1883, or 8883 with TLS.
    pub port: Option<u16>,
    /// First level, or levels, of every topic.
    pub root: String,
    /// MQTT client identifier; `remoteclipd-<vehicle>` when absent.
    pub client_id: Option<String>,
    /// User name.
    pub username: Option<String>,
    /// File whose first line is the password; else the variable REMOTECLIPD_MQTT_PASSWORD.
    pub password_file: Option<PathBuf>,
    /// Keep-alive in seconds.
    pub keep_alive_s: f64,
    /// Longest wait between two tries to connect, in seconds.
    pub reconnect_max_s: f64,
    /// How long the broker may leave a message unacknowledged before the connection is given up, in seconds.
    pub ack_timeout_s: f64,
    /// How payloads are written: `json` or `cbor`.
    pub payload: Encoding,
    /// Results a second at most; the others are let go.
    pub max_results_per_second: Option<f64>,
    /// Bytes a minute at most, as MQTT counts them: results are thinned first, events wait.
    pub max_bytes_per_minute: Option<u64>,
    /// TLS, when the table is there.
    pub tls: Option<RawTls>,
}

impl Default for RawMqtt {
    fn default() -> Self {
        Self {
            host: "localhost".to_owned(),
            port: None,
            root: "remoteclip".to_owned(),
            client_id: None,
            username: None,
            password_file: None,
            keep_alive_s: 20.0,
            reconnect_max_s: 30.0,
            ack_timeout_s: 20.0,
            payload: Encoding::Json,
            max_results_per_second: None,
            max_bytes_per_minute: None,
            tls: None,
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTls {
    /// PEM file of the certificate authorities to trust; the system's when absent.
    pub ca_file: Option<PathBuf>,
    /// PEM file of this vehicle's certificate and its chain, where the broker asks for one.
    pub cert_file: Option<PathBuf>,
    /// PEM file of that certificate's private key.
    pub key_file: Option<PathBuf>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawState {
    /// Folder for what must survive a restart: the spool, and prompts received in flight.
    pub path: PathBuf,
}

impl Default for RawState {
    fn default() -> Self {
        Self { path: PathBuf::from("/var/lib/remoteclipd") }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawSpool {
    /// Keep events on disk until the broker has them; in memory only when false.
    pub enabled: bool,
    /// Most bytes on disk; beyond, results go first and the oldest first.
    pub max_bytes: u64,
    /// Seconds after which a message is not worth sending, counted while the daemon runs.
    pub max_age_s: u64,
    /// Keep results as well, not only events.
    pub results: bool,
}

impl Default for RawSpool {
    fn default() -> Self {
        Self { enabled: true, max_bytes: 64 << 20, max_age_s: 7 * 24 * 3600, results: false }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawHealth {
    /// Seconds between two `health` messages.
    pub interval_s: f64,
    /// Folder of the board's thermal zones.
    pub thermal_path: PathBuf,
}

impl Default for RawHealth {
    fn default() -> Self {
        Self { interval_s: 10.0, thermal_path: PathBuf::from("/sys/class/thermal") }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawPace {
    /// Frames classified a second at most.
    pub frames_per_second: Option<f64>,
    /// Share of the time that the classifier may work.
    pub duty_cycle: f64,
    /// Degrees Celsius of the hottest thermal zone; slows down from ten below.
    pub max_temperature_c: Option<f64>,
}

impl Default for RawPace {
    fn default() -> Self {
        Self { frames_per_second: None, duty_cycle: 1.0, max_temperature_c: None }
    }
}

#[derive(Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawCommands {
    /// Obey commands from the ground.
    pub enabled: bool,
    /// minisign public key; without it prompts from the ground are refused.
    pub public_key: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawPosition {
    /// Where the flight controller speaks MAVLink: `udp://ADDRESS:PORT` to listen on, or `serial:///dev/TTY:BAUD`.
    pub mavlink: Option<String>,
    /// MAVLink system id of the vehicle; other systems are not listened to.
    pub system_id: u8,
    /// How far the nearest measurement may be from the frame in time, in seconds.
    pub max_age_s: f64,
    /// How a camera fixed to the airframe looks, in degrees above the nose's direction: -90 straight down, 0 ahead.
    pub mount_pitch_deg: Option<f64>,
    /// Classify only while the vehicle says that it is armed.
    pub only_while_armed: bool,
    /// Send heartbeats, this computer's state and events back over MAVLink.
    pub report: bool,
    /// DJI subtitles with the video's places, counted from the source's first frame.
    pub srt: Option<PathBuf>,
}

impl Default for RawPosition {
    fn default() -> Self {
        Self {
            mavlink: None,
            system_id: 1,
            max_age_s: 2.0,
            mount_pitch_deg: None,
            only_while_armed: false,
            report: false,
            srt: None,
        }
    }
}

/// A number that must not be zero.
pub(super) trait Positive {
    /// Itself, or an error that names the field.
    fn positive(self, field: &str) -> Result<u64, String>;
}

impl Positive for u64 {
    fn positive(self, field: &str) -> Result<u64, String> {
        if self == 0 { Err(format!("{field} must be above 0")) } else { Ok(self) }
    }
}
