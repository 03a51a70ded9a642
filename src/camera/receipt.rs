//! Word back to a source that a frame is done with.

use std::fmt;

/// Handed out with a frame by a source that keeps it until it is settled. Dropped unsettled, it leaves the frame to come
/// again.
pub struct Receipt(Box<dyn FnOnce() + Send>);

impl Receipt {
    /// `settle` is called when nothing more will be done with the frame; it must not block.
    pub fn new(settle: impl FnOnce() + Send + 'static) -> Self {
        Self(Box::new(settle))
    }

    /// What the frame led to is published or in the spool, or it is known that nothing can come of it.
    pub fn settle(self) {
        (self.0)();
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Receipt")
    }
}
