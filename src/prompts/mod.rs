//! Text prompts: from a prompt set (TOML, for people) to a prompt pack (embeddings, for the drone).
//!
//! `set` reads and validates what a person wrote, `text` is the text tower that embeds it, `pack` is the result: one
//! small file that needs no text model to be used. The build script embeds the set named by `REMOTECLIPD_PROMPTS` with
//! the bundle named by `REMOTECLIPD_BUNDLE` and the pack becomes part of the binary.

pub mod pack;
pub mod set;
pub mod signed;
#[cfg(feature = "host")]
pub mod text;

use pack::{Pack, PackError};

/// The pack that the build script made.
///
/// # Errors
/// [`PackError`] only if the build was tampered with: the build script has read the same bytes back.
pub fn built_in() -> Result<Pack, PackError> {
    Pack::from_bytes(include_bytes!(concat!(env!("OUT_DIR"), "/prompts.pack")))
}
