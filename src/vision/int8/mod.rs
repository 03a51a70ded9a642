//! Int8 inside tract: the image tower's layers as our own operators.
//!
//! A bundle's `image.onnx` holds int8 weights behind `DequantizeLinear`. [`import`] keeps them from being folded,
//! [`rewrite`] turns "int8 weight → MatMul, Gemm or Conv" and what stands around it into [`ops`], and those run on the
//! [`kernels`] of this machine. Activations are quantised when they are known, weights once, when the model was made; as a
//! kernel reads them, [`store`] keeps them for the next start.

mod aligned;
mod attend;
mod glue;
pub mod import;
pub mod kernels;
mod ops;
mod packed;
mod product;
pub mod rewrite;
mod runtime;
pub mod store;
#[cfg(test)]
mod tests;
mod weight;

pub use kernels::KernelChoice;
pub use kernels::pool::Pool;
pub use runtime::Runtime;
