//! Embedding → scores → tags → events.
//!
//! `scores` compares an embedding with the prompt pack, `events` remembers which tags are active and tells when one is
//! entered or left. Both are plain arithmetic without clock or input: the harness runs the very same code.

mod events;
mod scores;

pub use events::{Change, LONGEST_MEMORY, Rules, Tags, Thresholds, Transition};
pub use scores::{DecideError, Decider, LabelScore, Scores};
