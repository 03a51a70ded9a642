//! What is published, as JSON. The schemas are in `docs/reference/schema/` and tests hold the two together.
//!
//! Promise: no message is larger than [`MAX_PAYLOAD`] bytes, because many clients give up on messages over 10 KiB and
//! thin links count every byte.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::decide::Transition;
use crate::position::ground::Footprint;
use crate::position::{Orientation, Position, Source, TelemetryHealth};
use crate::prompts::pack::Pack;
use crate::publish::spool::{SpoolState, SpoolStats};

/// Largest result or event, in bytes.
pub const MAX_PAYLOAD: usize = 2048;
/// Hexadecimal digits of a hash in frame messages; `status` carries them whole.
const SHORT_HASH: usize = 16;
/// Longest frame name carried, in characters.
const FRAME_NAME: usize = 128;

/// What every frame message begins with.
#[derive(Debug, Clone, Serialize)]
pub struct Head {
    /// Names form and version of the payload.
    pub schema: &'static str,
    /// Unique for ever: boot id and sequence number. A message that comes twice carries one id.
    pub id: String,
    /// Drawn at random when the daemon starts.
    pub boot_id: String,
    /// Counts this daemon's results and events, from 1, without gaps.
    pub seq: u64,
    /// When the frame was taken, by its source's own account, RFC 3339.
    pub captured_at: Timestamp,
    /// When it reached the daemon, in milliseconds since the daemon started, on a clock that never steps: order and
    /// distances within a boot hold whatever happens to the wall clock.
    pub monotonic_ms: u64,
    /// When the message was made, RFC 3339.
    pub published_at: Timestamp,
    /// Whether the clock was synchronised when the message was made.
    pub clock_synced: bool,
    /// Whether delivery was delayed by a lost link.
    pub replayed: bool,
    /// What the camera calls the frame.
    pub frame: String,
    /// First digits of the bundle's id.
    pub model: String,
    /// First digits of the prompt pack's id.
    pub prompts: String,
}

impl Head {
    /// Shortens an over-long frame name to its end, which tells files apart better than the beginning.
    pub fn frame_name(name: &str) -> String {
        let skip = name.chars().count().saturating_sub(FRAME_NAME);
        name.chars().skip(skip).collect()
    }
}

/// A hash as frame messages carry it.
pub fn short(hash: &str) -> String {
    hash.chars().take(SHORT_HASH).collect()
}

/// A label and its score.
#[derive(Debug, Clone, Serialize)]
pub struct ScorePayload {
    /// The label's name.
    pub label: String,
    /// Probability, 0..1.
    pub score: f32,
}

/// A part of the frame.
#[derive(Debug, Clone, Serialize)]
pub struct TilePayload {
    /// 0 is the whole frame, as the model sees it; the tiles follow row by row.
    pub index: usize,
    /// Left, top, width and height in pixels of the upright frame at its full size.
    #[serde(rename = "box")]
    pub area: [u32; 4],
}

/// Which parts of the frame carry what was found.
#[derive(Debug, Clone, Serialize)]
pub struct TilesPayload {
    /// Indices of the parts that carry a label, best first, for each label of `scores` and `tags`.
    pub carry: BTreeMap<String, Vec<usize>>,
    /// The parts that `carry` names.
    pub parts: Vec<TilePayload>,
}

impl TilesPayload {
    /// Forgets the labels that are not `wanted`, and the parts that no other label names.
    fn keep(&mut self, wanted: impl Fn(&str) -> bool) {
        self.carry.retain(|label, _| wanted(label));
        let carry = &self.carry;
        self.parts.retain(|part| carry.values().flatten().any(|index| *index == part.index));
    }
}

/// Milliseconds a frame spent in each stage.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Latency {
    /// Bytes to pixels.
    pub decode: f64,
    /// Pixels to the model's square.
    pub resize: f64,
    /// The square to the embedding.
    pub encode: f64,
    /// From the frame's arrival to this message, waiting included.
    pub total: f64,
}

/// Where a frame was taken: an RFC 7946 point with what we know of it beside.
#[derive(Debug, Clone, Serialize)]
pub struct PositionPayload {
    /// `Point`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Longitude, latitude and, where known, metres above mean sea level.
    pub coordinates: Vec<f64>,
    /// Who says so.
    pub source: Source,
    /// Milliseconds between the frame and the nearest measurement; null where the frame itself carries it.
    pub age_ms: Option<u64>,
    /// Horizontal standard deviation in metres, where stated.
    pub accuracy_m: Option<f64>,
    /// Metres above take-off or ground.
    pub height_m: Option<f64>,
    /// How the camera looked.
    pub camera: Option<Orientation>,
}

impl From<&Position> for PositionPayload {
    fn from(position: &Position) -> Self {
        // A centimetre on the ground, and what sources state elsewhere: more digits would only cost bytes.
        let place = |degrees: f64| (degrees * 1e7).round() / 1e7;
        let short = |value: f64| (value * 100.0).round() / 100.0;
        let camera =
            |Orientation { yaw, pitch, roll }| Orientation { yaw: short(yaw), pitch: short(pitch), roll: short(roll) };
        let mut coordinates = vec![place(position.longitude), place(position.latitude)];
        coordinates.extend(position.altitude.map(short));
        Self {
            kind: "Point",
            coordinates,
            source: position.source,
            age_ms: position.age.map(|age| age.as_millis() as u64),
            accuracy_m: position.accuracy.map(short),
            height_m: position.height.map(short),
            camera: position.camera.map(camera),
        }
    }
}

/// The ground that the camera saw: an RFC 7946 polygon with how far off it may be beside.
#[derive(Debug, Clone, Serialize)]
pub struct GroundPayload {
    /// `Polygon`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// One ring: longitude before latitude, counter-clockwise, closed, to a centimetre.
    pub coordinates: [[[f64; 2]; 5]; 1],
    /// Horizontal standard deviation of the worst corner, in metres.
    pub accuracy_m: f64,
}

impl From<&Footprint> for GroundPayload {
    fn from(Footprint { corners: [a, b, c, d], accuracy }: &Footprint) -> Self {
        let ring = [a, b, c, d, a].map(|corner| corner.map(|degrees| (degrees * 1e7).round() / 1e7));
        Self { kind: "Polygon", coordinates: [ring], accuracy_m: (accuracy * 10.0).round() / 10.0 }
    }
}

/// One classified frame.
#[derive(Debug, Clone, Serialize)]
pub struct ResultPayload {
    /// The common head; schema `remoteclip.result/1`.
    #[serde(flatten)]
    pub head: Head,
    /// The best label, or null when the background outweighs it.
    pub label: Option<String>,
    /// The highest scores, falling.
    pub scores: Vec<ScorePayload>,
    /// Share of the background texts.
    pub background: f32,
    /// Best score less the next best, background included.
    pub margin: f32,
    /// Active tags.
    pub tags: Vec<String>,
    /// Where in the frame; absent where frames are not cut into tiles.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tiles: Option<TilesPayload>,
    /// Where the time went.
    pub latency_ms: Latency,
    /// Where the frame was taken, or null when unknown.
    pub position: Option<PositionPayload>,
}

/// A tag entered or left.
#[derive(Debug, Clone, Serialize)]
pub struct EventPayload {
    /// The common head; schema `remoteclip.event/1`.
    #[serde(flatten)]
    pub head: Head,
    /// What happened.
    pub event: Transition,
    /// To which label.
    pub label: String,
    /// The score that did it.
    pub score: f32,
    /// Best score less the next best, background included.
    pub margin: f32,
    /// The parts of the frame that carry an entered tag, best first, and none for one that was left; absent where frames
    /// are not cut into tiles.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tiles: Option<Vec<TilePayload>>,
    /// Where the frame was taken, or null when unknown.
    pub position: Option<PositionPayload>,
    /// The ground that was seen: by the best part that carries an entered tag, else by the frame's part that the model sees;
    /// absent where lens, height or orientation are unknown, or a corner does not surely look at the ground.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ground: Option<GroundPayload>,
}

/// Retained state of one tag.
#[derive(Debug, Clone, Serialize)]
pub struct StatePayload {
    /// `remoteclip.label/1`.
    pub schema: &'static str,
    /// The label's name.
    pub label: String,
    /// Whether the tag is active.
    pub active: bool,
    /// Id of the event that made it so; null before the first.
    pub event_id: Option<String>,
    /// Since when, RFC 3339.
    pub since: Timestamp,
}

/// Name and hash of the model in use.
#[derive(Debug, Clone, Serialize)]
pub struct ModelName {
    /// The bundle's name.
    pub name: String,
    /// OpenCLIP's name for the architecture.
    pub architecture: String,
    /// The bundle's id.
    pub sha256: String,
    /// The int8 kernel.
    pub kernel: String,
}

/// Name and hash of the prompts in use.
#[derive(Debug, Clone, Serialize)]
pub struct PromptsName {
    /// The prompt set's name.
    pub name: String,
    /// The pack's id.
    pub sha256: String,
    /// The label names.
    pub labels: Vec<String>,
}

impl PromptsName {
    /// Of a pack.
    pub fn of(pack: &Pack) -> Self {
        let header = pack.header();
        Self {
            name: header.set.clone(),
            sha256: pack.id().to_owned(),
            labels: header.labels.iter().map(|label| label.name.clone()).collect(),
        }
    }
}

/// Retained status of the daemon.
#[derive(Debug, Clone, Serialize)]
pub struct StatusPayload {
    /// `remoteclip.status/1`.
    pub schema: &'static str,
    /// `online` or `offline`.
    pub state: &'static str,
    /// The boot the state belongs to: an offline with another boot id than the last online is an old one.
    pub boot_id: String,
    /// The daemon's version.
    pub version: &'static str,
    /// When the daemon started, RFC 3339.
    pub started_at: Timestamp,
    /// Why it is offline: `stopped`, `finished` or `lost` (the will).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// The model, while online.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelName>,
    /// The prompts, while online.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompts: Option<PromptsName>,
    /// Whether classifying is paused by command, while online.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
}

/// The answer to a command.
#[derive(Debug, Clone, Serialize)]
pub struct ReplyPayload {
    /// `remoteclip.reply/1`.
    pub schema: &'static str,
    /// The request's id; null when it had none.
    pub id: Option<String>,
    /// The command's name.
    pub command: String,
    /// Whether it was carried out.
    pub ok: bool,
    /// Why not.
    pub reason: Option<String>,
    /// What came of it.
    pub result: Option<serde_json::Value>,
    /// The boot that answers.
    pub boot_id: String,
    /// When, RFC 3339.
    pub published_at: Timestamp,
}

/// Periodic figures.
#[derive(Debug, Clone, Serialize)]
pub struct HealthPayload {
    /// `remoteclip.health/1`.
    pub schema: &'static str,
    /// The daemon's boot.
    pub boot_id: String,
    /// When it was made, RFC 3339.
    pub published_at: Timestamp,
    /// Seconds since the daemon started.
    pub uptime_s: u64,
    /// Classified frames a second, since the last health message.
    pub fps: f64,
    /// Median and largest milliseconds from arrival to result, since the last health message; null without frames.
    pub latency_ms: Option<LatencySummary>,
    /// Frames classified since the start.
    pub frames: u64,
    /// Frames replaced by a newer one before they were classified, since the start.
    pub frames_dropped: u64,
    /// Frames not classified because they show what the last one did (`vision.similar`), since the start.
    pub frames_similar: u64,
    /// Frames that could not be classified since the start, by cause.
    pub frames_failed: BTreeMap<String, u64>,
    /// Results not sent because there was no link, since the start.
    pub results_unsent: u64,
    /// Results let go to keep `mqtt.max_results_per_second` or `mqtt.max_bytes_per_minute`, since the start.
    pub results_thinned: u64,
    /// Events waiting for the link, those of earlier boots included.
    pub events_waiting: u64,
    /// Events lost because the spool was full, too old or damaged, since the start.
    pub events_lost: u64,
    /// Events that no broker would take, put aside in `refused.jsonl`, since the start.
    pub events_refused: u64,
    /// Topics the broker refuses at present; their events wait.
    pub refused_topics: u64,
    /// Times the broker accepted a connection, since the start.
    pub connects: u64,
    /// Where events wait.
    pub spool: SpoolPayload,
    /// The flight controller; null where none is configured.
    pub position: Option<TelemetryHealth>,
    /// Resident memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Hottest thermal zone in degrees Celsius; null where there is none.
    pub temperature_c: Option<f64>,
    /// How fast the classifier may go; null without `[pace]` and before the first frame.
    pub pace: Option<PacePayload>,
    /// Whether the clock is synchronised.
    pub clock_synced: bool,
}

/// The classifier's pace in `health`.
#[derive(Debug, Clone, Serialize)]
pub struct PacePayload {
    /// `full`, or `slowed` by the temperature.
    pub state: &'static str,
    /// What the temperature leaves of the pace, 0.1 to 1.
    pub factor: f64,
    /// Why, where there is something to say.
    pub reason: Option<String>,
}

/// The spool in `health`.
#[derive(Debug, Clone, Serialize)]
pub struct SpoolPayload {
    /// Whether new events are safe.
    pub state: SpoolState,
    /// Why not.
    pub reason: Option<String>,
    /// Bytes on disk.
    pub bytes: u64,
    /// Messages that are in memory only, because the disk refuses them.
    pub in_memory: u64,
    /// Results waiting for the link, where `spool.results` keeps them.
    pub results_waiting: u64,
    /// Messages dropped because the spool was full, since the start.
    pub dropped_size: u64,
    /// Messages dropped because they were too old, since the start.
    pub dropped_age: u64,
    /// Messages lost to a damaged file, since the start.
    pub damaged: u64,
}

impl From<SpoolStats> for SpoolPayload {
    fn from(stats: SpoolStats) -> Self {
        Self {
            state: stats.state,
            reason: stats.reason,
            bytes: stats.bytes,
            in_memory: stats.in_memory,
            results_waiting: stats.results,
            dropped_size: stats.dropped_size,
            dropped_age: stats.dropped_age,
            damaged: stats.damaged,
        }
    }
}

/// Latencies over a stretch of time.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct LatencySummary {
    /// Median.
    pub median: f64,
    /// Largest.
    pub max: f64,
}

impl ResultPayload {
    /// As JSON of at most [`MAX_PAYLOAD`] bytes: the lowest scores go first, then the tags.
    pub fn to_bounded_json(mut self) -> Vec<u8> {
        loop {
            let json = to_json(&self);
            if json.len() <= MAX_PAYLOAD || (self.scores.pop().is_none() && self.tags.pop().is_none()) {
                return json;
            }
            let (scores, tags) = (&self.scores, &self.tags);
            let said =
                |label: &str| scores.iter().any(|score| score.label == label) || tags.iter().any(|tag| tag == label);
            self.tiles.iter_mut().for_each(|tiles| tiles.keep(said));
        }
    }
}

/// A payload as JSON.
pub fn to_json(payload: &impl Serialize) -> Vec<u8> {
    // Writing to memory cannot fail, and every payload has string keys; an empty message is better than a dead daemon.
    serde_json::to_vec(payload).unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head(frame: &str) -> Head {
        Head {
            schema: "remoteclip.result/1",
            id: "6f8d0f7e-37d2-4a3c-9b59-5f1b6f0f2f11-7".to_owned(),
            boot_id: "6f8d0f7e-37d2-4a3c-9b59-5f1b6f0f2f11".to_owned(),
            seq: 7,
            captured_at: Timestamp::UNIX_EPOCH,
            monotonic_ms: 1500,
            published_at: Timestamp::UNIX_EPOCH,
            clock_synced: false,
            replayed: false,
            frame: Head::frame_name(frame),
            model: short(&"a".repeat(64)),
            prompts: short(&"b".repeat(64)),
        }
    }

    fn position() -> PositionPayload {
        PositionPayload::from(&Position {
            longitude: -91.994_560_123_4,
            latitude: 46.842_607_987_6,
            altitude: Some(198.309),
            height: Some(39.8),
            camera: Some(Orientation { yaw: 45.0, pitch: -89.9, roll: 0.0 }),
            source: Source::Mavlink,
            age: Some(std::time::Duration::from_micros(120_900)),
            accuracy: Some(1.2345),
        })
    }

    pub(crate) fn result(frame: &str, labels: &[String]) -> ResultPayload {
        ResultPayload {
            head: head(frame),
            label: labels.first().cloned(),
            scores: labels.iter().take(10).map(|label| ScorePayload { label: label.clone(), score: 0.125 }).collect(),
            background: 0.25,
            margin: 0.5,
            tags: labels.to_vec(),
            tiles: None,
            latency_ms: Latency { decode: 1.0, resize: 2.0, encode: 3.0, total: 7.0 },
            position: Some(position()),
        }
    }

    #[test]
    fn a_result_looks_like_this() {
        let result = result("DJI_0018.JPG", &["parking lot".to_owned(), "forest".to_owned()]);
        insta::assert_json_snapshot!(result);
    }

    fn event(tiles: Option<Vec<TilePayload>>) -> EventPayload {
        EventPayload {
            head: Head { schema: "remoteclip.event/1", ..head("DJI_0018.JPG") },
            event: Transition::Enter,
            label: "parking lot".to_owned(),
            score: 0.875,
            margin: 0.75,
            tiles,
            position: None,
            ground: None,
        }
    }

    #[test]
    fn an_event_looks_like_this() {
        let event = event(None);
        insta::assert_json_snapshot!(event);
    }

    #[test]
    fn ground_is_a_closed_polygon_to_a_centimetre() {
        let corners = [[8.12345678, 47.0], [8.0, 46.9], [8.1, 46.9], [8.2, 47.0]];
        insta::assert_json_snapshot!(GroundPayload::from(&Footprint { corners, accuracy: 12.345 }));
    }

    #[test]
    fn a_position_without_anything_beside_it_looks_like_this() {
        let bare = Position {
            longitude: 2.5,
            latitude: 1.5,
            altitude: None,
            height: None,
            camera: None,
            source: Source::Exif,
            age: None,
            accuracy: None,
        };
        insta::assert_json_snapshot!(PositionPayload::from(&bare));
    }

    #[test]
    fn an_event_seen_in_tiles_looks_like_this() {
        let event = event(Some(vec![TilePayload { index: 4, area: [2000, 1000, 2000, 2000] }]));
        insta::assert_json_snapshot!(event);
    }

    /// Of a grid of 63 tiles, four for each label.
    fn tiles(labels: &[String]) -> TilesPayload {
        let carry =
            |(number, label): (usize, &String)| (label.clone(), (0..4).map(|i| (number * 4 + i) % 64).collect());
        let part = |index| TilePayload { index, area: [index as u32 * 100, 12_345, 1024, 1024] };
        let mut tiles =
            TilesPayload { carry: labels.iter().enumerate().map(carry).collect(), parts: (0..64).map(part).collect() };
        tiles.keep(|_| true);
        tiles
    }

    #[test]
    fn a_result_seen_in_tiles_looks_like_this() {
        let labels = ["parking lot".to_owned(), "forest".to_owned()];
        let result = ResultPayload { tiles: Some(tiles(&labels)), ..result("DJI_0018.JPG", &labels) };
        insta::assert_json_snapshot!(result);
    }

    #[test]
    fn a_result_names_no_tile_that_nothing_it_says_is_in() {
        let labels: Vec<String> = (0..30).map(|number| format!("label number {number}")).collect();
        let json = ResultPayload { tiles: Some(tiles(&labels)), ..result("frame", &labels) }.to_bounded_json();
        let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let carry = value["tiles"]["carry"].as_object().unwrap();
        assert!(json.len() <= MAX_PAYLOAD && !carry.is_empty());
        let tags = value["tags"].as_array().unwrap();
        assert!(carry.keys().all(|label| tags.iter().any(|tag| tag == label)), "{value}");
        let named: Vec<_> = carry.values().flat_map(|indices| indices.as_array().unwrap()).collect();
        let parts = value["tiles"]["parts"].as_array().unwrap();
        assert!(named.iter().all(|index| parts.iter().any(|part| part["index"] == **index)));
        assert!(parts.iter().all(|part| named.iter().any(|index| part["index"] == **index)));
    }

    proptest! {
        #[test]
        fn no_result_is_over_the_limit(frame in ".{0,300}", labels in proptest::collection::vec("\\PC{1,16}", 0..60)) {
            let json = result(&frame, &labels).to_bounded_json();
            prop_assert!(json.len() <= MAX_PAYLOAD, "{} bytes", json.len());
            let json = ResultPayload { tiles: Some(tiles(&labels)), ..result(&frame, &labels) }.to_bounded_json();
            prop_assert!(json.len() <= MAX_PAYLOAD, "{} bytes", json.len());
        }
    }
}
