//! The floating-point work around the integer products: quantising, normalising, activation functions, attention.
//!
//! Written once over a register of [`Vector`](super::kernels::vector::Vector) and compiled once per instruction set
//! (`glue_for!` in [`super::kernels`]).

mod activation;
mod attention;
mod depthwise;
mod finish;
mod norm;
mod quantise;

pub use activation::Activation;
pub use attention::{Attend, attend};
pub use depthwise::{Depthwise, depthwise};
pub use finish::{Finish, accumulate, finish};
pub use norm::layer_norm;
pub use quantise::{Quantise, Scale, encode, quantise, range};

/// Lanes of the widest register.
const MAX_LANES: usize = 16;
