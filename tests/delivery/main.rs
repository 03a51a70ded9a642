//! Store and forward under faults: every event that was spooled arrives, none is lost, duplicates carry the same id, and
//! each camera's order holds.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod clients;
mod daemon;
mod feeder;
mod front;
mod random;
mod relay;
mod schedules;
mod scripted;
mod scripts;
mod soak;
#[path = "../support/mod.rs"]
mod support;
