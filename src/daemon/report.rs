//! Puts payloads together: who speaks, about which model and prompts, and what is to be said.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use jiff::Timestamp;
use serde_json::Value;

use super::Identity;
use super::clock;
use super::metrics::Reading;
use super::vitals;
use crate::camera::Frame;
use crate::decide::{Change, Decider, Scores, Tags, Transition, carriers};
use crate::position::ground::{self, Errors, Intrinsics, Pose};
use crate::position::{Position, TelemetryHealth};
use crate::publish::{
    EmbeddingPayload, EventPayload, GroundPayload, Head, HealthPayload, Int8Vector, Latency, LinkStats, Message,
    ModelName, PromptsName, ReplyPayload, ResultPayload, ScorePayload, StatePayload, StatusPayload, TilePayload,
    TilesPayload, Topics, Urgency, short, to_json,
};
use crate::vision::{Area, Timings};

/// Writes the messages of one session.
pub(super) struct Reporter {
    pub identity: Arc<Identity>,
    pub topics: Topics,
    pub model: ModelName,
    /// Changed by command, in flight.
    pub prompts: RwLock<PromptsName>,
    pub paused: AtomicBool,
    pub top_k: usize,
    /// Whether each result is followed by its embedding.
    pub embeddings: bool,
    /// The camera's lens, where it is known.
    pub lens: Option<Intrinsics>,
    /// The board's thermal zones.
    pub thermal: PathBuf,
}

/// A frame with everything found out about it.
pub(super) struct Classified<'a> {
    pub frame: &'a Frame,
    /// Of the whole frame.
    pub vector: &'a [f32],
    pub scores: &'a Scores,
    /// Width and height, upright.
    pub size: (u32, u32),
    /// What the model saw of the whole frame.
    pub seen: Area,
    /// The parts of the frame, where it was cut into tiles.
    pub parts: Option<Parts<'a>>,
    pub timings: Timings,
    pub position: Option<&'a Position>,
}

/// What was found in each part of a frame, the whole of it first.
pub(super) struct Parts<'a> {
    pub areas: &'a [Area],
    pub scores: &'a [Scores],
}

impl Parts<'_> {
    /// The parts that carry one of these labels.
    fn tiles(&self, labels: &BTreeMap<usize, String>) -> TilesPayload {
        let carry: BTreeMap<String, Vec<usize>> =
            labels.iter().map(|(label, name)| (name.clone(), carriers(self.scores, *label))).collect();
        let named: BTreeSet<usize> = carry.values().flatten().copied().collect();
        TilesPayload { carry, parts: named.into_iter().map(|index| self.tile(index)).collect() }
    }

    fn tile(&self, index: usize) -> TilePayload {
        TilePayload { index, area: self.areas[index].into() }
    }
}

impl Reporter {
    /// The frame's result, and its embedding where that is wanted.
    pub fn result(&self, classified: &Classified<'_>, tags: &Tags, decider: &Decider) -> (Message, Option<Message>) {
        let labels = &decider.pack().header().labels;
        let score = |ranked: &crate::decide::LabelScore| ScorePayload {
            label: labels[ranked.label].name.clone(),
            score: ranked.score,
        };
        let Classified { frame, vector, scores, parts, timings, position, .. } = classified;
        let said = scores.ranked().into_iter().take(self.top_k).map(|ranked| ranked.label).chain(tags.active());
        let said: BTreeMap<usize, String> = said.map(|label| (label, labels[label].name.clone())).collect();
        let payload = ResultPayload {
            head: self.head("remoteclip.result/1", frame),
            label: scores.top().map(|top| labels[top.label].name.clone()),
            scores: scores.ranked().iter().take(self.top_k).map(score).collect(),
            background: scores.background,
            margin: scores.margin(),
            tags: tags.active().map(|label| labels[label].name.clone()).collect(),
            tiles: parts.as_ref().map(|parts| parts.tiles(&said)),
            latency_ms: latency(frame, timings),
            position: position.map(Into::into),
        };
        let embedding = self.embeddings.then(|| self.embedding(&payload.head, vector));
        let result =
            Message { topic: self.topics.result(), payload: payload.to_bounded_json(), urgency: Urgency::Result };
        (result, embedding)
    }

    /// The embedding of the frame whose result has this head.
    fn embedding(&self, head: &Head, vector: &[f32]) -> Message {
        let payload = EmbeddingPayload {
            schema: "remoteclip.embedding/1".to_owned(),
            result_id: head.id.clone(),
            captured_at: head.captured_at,
            frame: head.frame.clone(),
            model: head.model.clone(),
            vector: Int8Vector::of(vector),
        };
        Message { topic: self.topics.embedding(), payload: to_json(&payload), urgency: Urgency::Result }
    }

    /// The event of a change and the retained state it leaves.
    pub fn change(&self, classified: &Classified<'_>, change: Change, decider: &Decider) -> [Message; 2] {
        let label = decider.pack().header().labels[change.label].name.clone();
        let head = self.head("remoteclip.event/1", classified.frame);
        let state = StatePayload {
            schema: "remoteclip.label/1",
            label: label.clone(),
            active: change.transition == Transition::Enter,
            event_id: Some(head.id.clone()),
            since: head.captured_at,
        };
        let topic = self.topics.label(&label);
        let tiles: Option<Vec<_>> = classified.parts.as_ref().map(|parts| match change.transition {
            Transition::Enter => {
                carriers(parts.scores, change.label).into_iter().map(|index| parts.tile(index)).collect()
            }
            Transition::Exit => Vec::new(),
        });
        let best = tiles.iter().flatten().next().map_or(classified.seen.into(), |tile| tile.area);
        let event = EventPayload {
            head,
            event: change.transition,
            label,
            score: change.score,
            margin: classified.scores.margin(),
            tiles,
            position: classified.position.map(Into::into),
            ground: self.ground(classified, best),
        };
        [
            Message { topic: self.topics.event(), payload: to_json(&event), urgency: Urgency::Event },
            Message { topic, payload: to_json(&state), urgency: Urgency::State },
        ]
    }

    /// The ground that a part of the frame shows.
    fn ground(&self, classified: &Classified<'_>, area: [u32; 4]) -> Option<GroundPayload> {
        let (lens, position) = (self.lens?, classified.position?);
        let errors = Errors { place: position.accuracy.unwrap_or(Errors::default().place), ..Errors::default() };
        ground::footprint(&Pose::of(position)?, &lens, classified.size, area, &errors).as_ref().map(Into::into)
    }

    /// State of a tag before any event: not active.
    pub fn inactive(&self, label: &str) -> Message {
        let state = StatePayload {
            schema: "remoteclip.label/1",
            label: label.to_owned(),
            active: false,
            event_id: None,
            since: Timestamp::now(),
        };
        Message { topic: self.topics.label(label), payload: to_json(&state), urgency: Urgency::State }
    }

    pub fn online(&self) -> Message {
        let payload = StatusPayload {
            model: Some(self.model.clone()),
            prompts: Some(self.prompts().clone()),
            paused: Some(self.paused.load(Ordering::Relaxed)),
            ..self.status("online", None)
        };
        self.status_message(&payload)
    }

    pub fn offline(&self, reason: &'static str) -> Message {
        self.status_message(&self.status("offline", Some(reason)))
    }

    /// Takes the state of a tag away that is looked for no more.
    pub fn forgotten(&self, label: &str) -> Message {
        Message { topic: self.topics.label(label), payload: Vec::new(), urgency: Urgency::State }
    }

    /// Other prompts from now on.
    pub fn set_prompts(&self, prompts: PromptsName) {
        *self.prompts.write().unwrap_or_else(PoisonError::into_inner) = prompts;
    }

    pub fn thumb(&self, jpeg: Vec<u8>) -> Message {
        Message { topic: self.topics.thumb(), payload: jpeg, urgency: Urgency::Now }
    }

    pub fn reply(&self, command: &str, id: Option<String>, outcome: Result<Value, String>) -> Message {
        let (result, reason) = match outcome {
            Ok(result) => (Some(result), None),
            Err(reason) => (None, Some(reason)),
        };
        let payload = ReplyPayload {
            schema: "remoteclip.reply/1",
            id,
            command: command.to_owned(),
            ok: reason.is_none(),
            reason,
            result,
            boot_id: self.identity.boot_id.clone(),
            published_at: Timestamp::now(),
        };
        Message { topic: self.topics.reply(command), payload: to_json(&payload), urgency: Urgency::Event }
    }

    fn prompts(&self) -> RwLockReadGuard<'_, PromptsName> {
        self.prompts.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn config(&self, config: &serde_json::Value) -> Message {
        Message { topic: self.topics.config(), payload: to_json(config), urgency: Urgency::State }
    }

    pub fn health(
        &self,
        reading: Reading,
        dropped: u64,
        link: LinkStats,
        position: Option<TelemetryHealth>,
    ) -> Message {
        let payload = HealthPayload {
            schema: "remoteclip.health/1",
            boot_id: self.identity.boot_id.clone(),
            published_at: Timestamp::now(),
            uptime_s: self.identity.started.elapsed().as_secs(),
            fps: reading.fps,
            latency_ms: reading.latency_ms,
            frames: reading.frames,
            frames_dropped: dropped,
            frames_similar: reading.similar,
            frames_failed: reading.failed,
            results_unsent: link.unsent,
            results_thinned: link.thinned,
            events_waiting: link.spool.events,
            events_lost: link.spool.events_lost,
            events_refused: link.spool.refused,
            refused_topics: link.refused_topics as u64,
            connects: link.connects,
            spool: link.spool.into(),
            position,
            memory_bytes: vitals::resident_memory(),
            temperature_c: vitals::temperature(&self.thermal),
            pace: reading.pace,
            clock_synced: clock::synced(),
        };
        Message { topic: self.topics.health(), payload: to_json(&payload), urgency: Urgency::Now }
    }

    fn head(&self, schema: &'static str, frame: &Frame) -> Head {
        let seq = self.identity.next_seq();
        Head {
            schema,
            id: format!("{}-{seq}", self.identity.boot_id),
            boot_id: self.identity.boot_id.clone(),
            seq,
            captured_at: frame.captured_at,
            monotonic_ms: frame.arrived.saturating_duration_since(self.identity.started).as_millis() as u64,
            published_at: Timestamp::now(),
            clock_synced: clock::synced(),
            replayed: false,
            frame: Head::frame_name(&frame.name),
            model: short(&self.model.sha256),
            prompts: short(&self.prompts().sha256),
        }
    }

    fn status(&self, state: &'static str, reason: Option<&'static str>) -> StatusPayload {
        StatusPayload {
            schema: "remoteclip.status/1",
            state,
            boot_id: self.identity.boot_id.clone(),
            version: env!("CARGO_PKG_VERSION"),
            started_at: self.identity.started_at,
            reason,
            model: None,
            prompts: None,
            paused: None,
        }
    }

    fn status_message(&self, payload: &StatusPayload) -> Message {
        Message { topic: self.topics.status(), payload: to_json(payload), urgency: Urgency::State }
    }
}

fn latency(frame: &Frame, timings: &Timings) -> Latency {
    // Microseconds are plenty, and short numbers keep the message small.
    let ms = |duration: std::time::Duration| (duration.as_secs_f64() * 1e6).round() / 1e3;
    Latency {
        decode: ms(timings.decode),
        resize: ms(timings.resize),
        encode: ms(timings.encode),
        total: ms(frame.arrived.elapsed()),
    }
}
