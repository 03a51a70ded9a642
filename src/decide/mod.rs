//! Embedding → scores → tags → events.
//!
//! `scores` compares an embedding with the prompt pack, `aggregate` makes one of the scores of a frame's parts, `events`
//! remembers which tags are active and tells when one is entered or left. All are plain arithmetic without clock or input: the
//! harness runs the very same code.

mod aggregate;
mod events;
mod scores;

pub use aggregate::{Aggregate, carriers};
pub use events::{Change, LONGEST_MEMORY, Rules, Tags, Thresholds, Transition};
pub use scores::{DecideError, Decider, LabelScore, Scores};
