//! What all ops of one encoder share: the kernel, the threads and a scratch buffer.

use std::cell::RefCell;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::glue::Scale;
use super::kernels::Kernel;
use super::kernels::pool::Pool;

thread_local! {
    /// Kept from task to task, so that tasks do not allocate.
    static THREAD_VALUES: RefCell<Vec<f32>> = const { RefCell::new(vec![]) };
}

/// Shared by the ops of one plan, which runs one op at a time.
#[derive(Debug)]
pub struct Runtime {
    /// The instruction set in use.
    pub kernel: Kernel,
    /// The threads.
    pub pool: Pool,
    scratch: Mutex<Scratch>,
}

/// Buffers that an op fills and reads within one evaluation; their contents mean nothing between ops.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Quantised activations.
    pub bytes: Vec<u8>,
    /// Their scales.
    pub scales: Vec<Scale>,
}

impl Scratch {
    /// The buffers, each at least as long as asked for and cut to it.
    pub fn take(&mut self, bytes: usize, scales: usize) -> (&mut [u8], &mut [Scale]) {
        fn grown<T: Default + Clone>(buffer: &mut Vec<T>, len: usize) -> &mut [T] {
            if buffer.len() < len {
                buffer.resize(len, T::default());
            }
            &mut buffer[..len]
        }
        (grown(&mut self.bytes, bytes), grown(&mut self.scales, scales))
    }
}

impl Runtime {
    /// A runtime with empty buffers.
    pub fn new(kernel: Kernel, pool: Pool) -> Runtime {
        Runtime { kernel, pool, scratch: Mutex::default() }
    }

    /// A buffer of `len` values for the present task, for as long as `f` runs.
    pub fn with_thread_values<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
        THREAD_VALUES.with_borrow_mut(|values| {
            if values.len() < len {
                values.resize(len, 0.0);
            }
            f(&mut values[..len])
        })
    }

    /// The buffers; what an op that panicked left in them is overwritten by the next.
    pub fn scratch(&self) -> MutexGuard<'_, Scratch> {
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
