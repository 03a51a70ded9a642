//! What all ops of one encoder share: the kernel, the threads, a scratch buffer and the tensors that they write on.

use std::cell::RefCell;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tract_onnx::tract_hir::internal::*;

use super::aligned::Aligned;
use super::glue::Scale;
use super::kernels::Kernel;
use super::kernels::pool::Pool;

/// Tensors of one length that are kept.
const KEPT_ALIKE: usize = 2;

thread_local! {
    /// Kept from task to task, so that tasks do not allocate.
    static THREAD: RefCell<(Aligned<f32>, Scratch)> = RefCell::default();
}

/// Shared by the ops of one plan, which runs one op at a time.
#[derive(Debug)]
pub struct Runtime {
    /// The instruction set in use.
    pub kernel: Kernel,
    /// The threads.
    pub pool: Pool,
    scratch: Mutex<Scratch>,
    /// Tensors that ops have read for the last time. A new one would have to be cleared, which takes up to a tenth of a frame.
    read: Mutex<Vec<Tensor>>,
}

/// Buffers that an op or one of its tasks fills and reads; their contents mean nothing to the next.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Quantised activations.
    pub bytes: Aligned<u8>,
    /// Their scales.
    pub scales: Vec<Scale>,
}

impl Scratch {
    /// The buffers, each at least as long as asked for and cut to it.
    pub fn take(&mut self, bytes: usize, scales: usize) -> (&mut [u8], &mut [Scale]) {
        if self.scales.len() < scales {
            self.scales.resize(scales, Scale::default());
        }
        (self.bytes.grown(bytes), &mut self.scales[..scales])
    }
}

impl Runtime {
    /// A runtime with empty buffers.
    pub fn new(kernel: Kernel, pool: Pool) -> Runtime {
        Runtime { kernel, pool, scratch: Mutex::default(), read: Mutex::default() }
    }

    /// A tensor for an op to write all of: its values are an earlier op's, or zeros.
    ///
    /// # Errors
    /// tract's, for a shape that memory does not hold.
    pub fn output(&self, shape: &[usize]) -> TractResult<Tensor> {
        let count = shape.iter().product::<usize>();
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(at) = read.iter().rposition(|tensor| tensor.len() == count) else {
            return Tensor::zero::<f32>(shape);
        };
        let mut tensor = read.swap_remove(at);
        tensor.set_shape(shape)?;
        // What an op forgets to write is then noticed by the next.
        if cfg!(debug_assertions) {
            tensor.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?.fill(f32::NAN);
        }
        Ok(tensor)
    }

    /// The same for an op that adds to `residual`, if there is one: that itself where nobody else is to read it, else a copy.
    ///
    /// # Errors
    /// tract's, for a shape that memory does not hold or a residual of another size.
    pub fn output_on(&self, residual: Option<TValue>, shape: &[usize]) -> TractResult<Tensor> {
        let Some(residual) = residual else { return self.output(shape) };
        if residual.is_exclusive() {
            let mut tensor = residual.into_tensor();
            tensor.set_shape(shape)?;
            return Ok(tensor);
        }
        let mut tensor = self.output(shape)?;
        let from = residual.try_as_plain_ram()?;
        let (from, mut to) = (from.as_slice::<f32>()?, tensor.try_as_plain_ram_mut()?);
        let to = to.as_slice_mut::<f32>()?;
        ensure!(from.len() == to.len(), "a residual of {} values for {}", from.len(), to.len());
        to.copy_from_slice(from);
        Ok(tensor)
    }

    /// Takes an op's inputs back, for a later op to write on those that nobody else is to read.
    pub fn give_back(&self, inputs: TVec<TValue>) {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        for input in inputs {
            // Some come from tract's ops, which take none: those must not pile up.
            let alike = read.iter().filter(|tensor| tensor.len() == input.len()).count();
            if alike < KEPT_ALIKE && input.is_exclusive() && input.datum_type() == f32::datum_type() {
                read.push(input.into_tensor());
            }
        }
    }

    /// A buffer of `len` values for the present task, for as long as `f` runs.
    pub fn with_thread_values<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
        Self::with_thread_scratch(|values, _| f(values.grown(len)))
    }

    /// Buffers of the present task, for as long as `f` runs.
    pub fn with_thread_scratch<R>(f: impl FnOnce(&mut Aligned<f32>, &mut Scratch) -> R) -> R {
        THREAD.with_borrow_mut(|(values, scratch)| f(values, scratch))
    }

    /// The buffers; what an op that panicked left in them is overwritten by the next.
    pub fn scratch(&self) -> MutexGuard<'_, Scratch> {
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vision::int8::kernels::KernelChoice;

    #[test]
    fn a_residual_is_written_on_only_where_nobody_else_reads_it() {
        let runtime = Runtime::new(KernelChoice::best(), Pool::new(1).unwrap());
        let values = |tensor: &Tensor| tensor.try_as_plain_ram().unwrap().as_slice::<f32>().unwrap().to_vec();
        let mine = tensor1(&[1f32, 2.0, 3.0, 4.0]).into_tvalue();
        let others = mine.clone();
        let mut sum = runtime.output_on(Some(mine), &[2, 2]).unwrap();
        assert_eq!((sum.shape(), values(&sum)), (&[2, 2][..], vec![1.0, 2.0, 3.0, 4.0]));
        sum.try_as_plain_ram_mut().unwrap().as_slice_mut::<f32>().unwrap().fill(9.0);
        assert_eq!(values(&others), [1.0, 2.0, 3.0, 4.0]);

        let place = others.try_as_plain_ram().unwrap().as_slice::<f32>().unwrap().as_ptr();
        let sum = runtime.output_on(Some(others), &[4, 1]).unwrap();
        assert_eq!(sum.try_as_plain_ram().unwrap().as_slice::<f32>().unwrap().as_ptr(), place);

        let three = || tensor1(&[1f32, 2.0, 3.0]).into_tvalue();
        let shared = three();
        assert!(runtime.output_on(Some(three()), &[2, 2]).is_err());
        assert!(runtime.output_on(Some(shared.clone()), &[2, 2]).is_err());
    }
}
