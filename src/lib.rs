//! remoteclipd: tags overhead camera frames on board, with an int8 RemoteCLIP inside tract, and publishes over MQTT.
//!
//! The data walks one way through the rooms:
//!
//! ```text
//! camera ──▶ vision ──▶ decide ──▶ publish
//!              ▲           ▲          ▲
//!            bundle     prompts    position
//! ```
//!
//! `daemon` runs that walk, `config` says how, `cli` is how a person starts it; `explain` asks the same rooms why, `harness`
//! walks the same way over data sets.

pub mod bundle;
pub mod camera;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod decide;
pub mod explain;
#[cfg(feature = "host")]
pub mod harness;
pub mod position;
pub mod prompts;
pub mod publish;
pub mod vision;
