//! Our operators as tract sees them.
//!
//! All of them take and give row-major f32 tensors of fixed shape, hold their weights packed and share one
//! [`Runtime`](super::runtime::Runtime). A value that is not finite in an input is an error that names the operator
//! and the row.

mod attention;
mod attention_pool;
mod conv;
mod depthwise;
mod embed;
mod linear;
mod norm;
mod pixels;
mod winograd;

use std::sync::atomic::{AtomicUsize, Ordering};

use tract_onnx::tract_hir::internal::*;

pub use attention::{Attention, Heads};
pub use attention_pool::{AttentionPool, Projection};
pub use conv::Conv;
pub use depthwise::{Depthwise, DepthwiseWeights};
pub use embed::Embed;
pub use linear::Linear;
pub use norm::{LayerNorm, Norm};
pub use pixels::PixelConv;
pub use winograd::{Winograd, WinogradWeights};

/// Height and width of a kernel, its strides and the zeros around the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Window {
    /// Kernel height and width.
    pub kernel: (usize, usize),
    /// Rows and columns from one output pixel to the next.
    pub stride: (usize, usize),
    /// Rows above and columns left of the image.
    pub before: (usize, usize),
    /// Rows below and columns right of the image.
    pub after: (usize, usize),
}

impl Window {
    /// Whether a pixel's output depends on that pixel alone.
    pub fn is_pointwise(&self) -> bool {
        *self == Window { kernel: (1, 1), stride: (1, 1), before: (0, 0), after: (0, 0) }
    }

    /// Height and width of the padded image.
    pub fn padded(&self, (height, width): (usize, usize)) -> (usize, usize) {
        (self.before.0 + height + self.after.0, self.before.1 + width + self.after.1)
    }

    /// Height and width of the output.
    pub fn output(&self, image: (usize, usize)) -> (usize, usize) {
        let (height, width) = self.padded(image);
        ((height - self.kernel.0) / self.stride.0 + 1, (width - self.kernel.1) / self.stride.1 + 1)
    }
}

/// Remembers a row that could not be quantised, from whichever thread met it.
struct BadRow(AtomicUsize);

impl BadRow {
    fn new() -> BadRow {
        BadRow(AtomicUsize::new(usize::MAX))
    }

    fn set(&self, row: usize) {
        self.0.fetch_min(row, Ordering::Relaxed);
    }

    fn check(&self, op: &str) -> TractResult<()> {
        match self.0.load(Ordering::Relaxed) {
            usize::MAX => Ok(()),
            row => bail!("{op}: row {row} of the input holds a value that is not finite"),
        }
    }
}

/// Two ops are equal when they share weights: tract only asks so as to merge identical nodes.
macro_rules! equal_by_identity {
    ($op:ty, $shared:ident) => {
        impl PartialEq for $op {
            fn eq(&self, other: &Self) -> bool {
                Arc::ptr_eq(&self.$shared, &other.$shared)
            }
        }
        impl Eq for $op {}
    };
}
pub(super) use equal_by_identity;
