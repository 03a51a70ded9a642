//! The floating-point work around the integer products: quantising, normalising, activation functions, attention.
//!
//! Written once over a register of [`Vector`](super::kernels::vector::Vector) and compiled once per instruction set
//! (`glue_for!` in [`super::kernels`]).

mod activation;
mod attention;
mod attention_pool;
mod depthwise;
mod finish;
mod lanes;
mod norm;
mod quantise;
mod winograd;

pub use activation::Activation;
pub use attention::{Columns, Weigh, centre, transpose, values, weigh};
pub use attention_pool::{AttendOnce, HEADS, Head, PANEL, Projection, attend_once};
pub use depthwise::{Depthwise, depthwise};
pub use finish::{Finish, accumulate, finish};
pub use norm::layer_norm;
pub use quantise::{CENTRE, Levels, NORMALISED_TOGETHER, Quantise, Scale, encode, quantise, range};
pub use winograd::{FromTiles, PLACES, Tiles, winograd_input, winograd_output, winograd_weight};

/// Lanes of the widest register: rows of as many values, or a multiple of that, are whole registers for every kernel.
pub const MAX_LANES: usize = 16;
