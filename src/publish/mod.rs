//! Scores and events → MQTT. `topics` says where, `payload` says what, `link` carries it.
//!
//! Promise: publishing never blocks the classifying thread, whatever the broker or the radio does, and what could not be
//! delivered is counted.

mod embedding;
mod link;
mod password;
mod payload;
pub mod spool;
mod tls;
mod topics;

pub use embedding::{EmbeddingPayload, Int8Vector};
pub use link::{
    Credentials, CredentialsError, Inbound, Inbox, Link, LinkStats, Message, Setup, Urgency, WINDOW, decode_payload,
    listener,
};
pub use payload::{
    EventPayload, GroundPayload, Head, HealthPayload, Latency, LatencySummary, MAX_PAYLOAD, ModelName, PacePayload,
    PositionPayload, PromptsName, ReplyPayload, ResultPayload, ScorePayload, SpoolPayload, StatePayload, StatusPayload,
    TilePayload, TilesPayload, short, to_json,
};
pub use topics::Topics;
