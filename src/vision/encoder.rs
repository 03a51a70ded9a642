//! The image tower as a tract plan: the model's square in, an embedding out.
//!
//! The layers with int8 weights run as the operators of [`super::int8`]; whatever surrounds them is tract's. A model
//! with f32 weights runs in tract alone, so that a bundle can be compared with what it was made from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tract_onnx::tract_hir::internal::*;

use super::int8::kernels::Kernel;
use super::int8::store::{self, Key, Store, StoreError};
use super::int8::{self, KernelChoice, Pool, Runtime};

/// What the image tower expects, from the bundle's manifest.
#[derive(Debug, Clone)]
pub struct InputSpec {
    /// Width and height in pixels.
    pub size: usize,
    /// Mean per channel, of values in 0..1, RGB.
    pub mean: [f32; 3],
    /// Standard deviation per channel, RGB.
    pub std: [f32; 3],
}

/// How the plan is made.
#[derive(Debug, Clone)]
pub struct EncoderOptions {
    /// Threads the tower may use, the caller's among them.
    pub threads: usize,
    /// Squares in one call.
    pub batch: usize,
    /// The kernel to run; the machine's best when `None`.
    pub kernel: Option<KernelChoice>,
}

impl Default for EncoderOptions {
    fn default() -> Self {
        Self { threads: 1, batch: 1, kernel: None }
    }
}

/// A loaded image tower.
pub struct Encoder {
    plan: Arc<TypedRunnableModel>,
    runtime: Arc<Runtime>,
    input: InputSpec,
    batch: usize,
    embed_dim: usize,
    macs: u64,
    packed: bool,
}

impl Encoder {
    /// Loads `onnx`.
    ///
    /// # Errors
    /// [`EncoderError::Kernel`] when this machine cannot run the kernel asked for, [`EncoderError::Load`] when the
    /// engine refuses the file.
    pub fn load(onnx: &Path, input: &InputSpec, options: &EncoderOptions) -> Result<Self, EncoderError> {
        let runtime = Self::runtime(options)?;
        int8::import::onnx()
            .model_for_path(onnx)
            .and_then(|model| Self::build(model, None, input, options.batch, runtime))
            .map_err(refused(onnx))
    }

    /// Loads what [`Encoder::pack`] wrote to `folder` for this kernel and the `image.onnx` with this SHA-256; `None` where
    /// it wrote nothing.
    ///
    /// # Errors
    /// [`EncoderError::Store`] when the file cannot be used, whatever the reason; else as [`Encoder::load`].
    pub fn load_packed(
        folder: &Path,
        image_sha256: &str,
        input: &InputSpec,
        options: &EncoderOptions,
    ) -> Result<Option<Self>, EncoderError> {
        let key = Key::new(&Self::chosen(options)?, image_sha256);
        let path = key.path(folder);
        let Some(store) = Store::open(&path, &key)? else { return Ok(None) };
        // Only now, for it starts threads.
        let runtime = Self::runtime(options)?;
        let encoder = store
            .model()
            .map_err(TractError::msg)
            .and_then(|model| int8::import::onnx().model_for_proto_model(&model))
            .and_then(|model| Self::build(model, Some(Arc::new(store)), input, options.batch, runtime))
            .map_err(|error| StoreError::Refused { path, reason: format!("{error:#}") })?;
        Ok(Some(Self { packed: true, ..encoder }))
    }

    /// Writes the weights of `onnx`, whose SHA-256 is given, to `folder` as this machine's kernel reads them; the file's path.
    ///
    /// # Errors
    /// As [`Encoder::load`]; [`EncoderError::Store`] when the file cannot be written.
    pub fn pack(
        onnx: &Path,
        image_sha256: &str,
        input: &InputSpec,
        options: &EncoderOptions,
        folder: &Path,
    ) -> Result<PathBuf, EncoderError> {
        let runtime = Self::runtime(options)?;
        let key = Key::new(&runtime.kernel, image_sha256);
        let reader = int8::import::onnx();
        let proto = reader.proto_model_for_path(onnx).map_err(refused(onnx))?;
        let model = reader.model_for_proto_model(&proto);
        let encoder = model.and_then(|model| Self::build(model, None, input, options.batch, runtime));
        let weights = int8::rewrite::packed(encoder.map_err(refused(onnx))?.plan.model());
        let path = key.path(folder);
        store::write(&path, &key, proto, &weights)?;
        Ok(path)
    }

    /// The same weights, dequantised, in tract's own f32 operators: for telling what int8 arithmetic costs. One square at a
    /// time; four times the memory.
    ///
    /// # Errors
    /// [`EncoderError::Load`] when the engine refuses the file.
    pub fn load_f32(onnx: &Path, input: &InputSpec) -> Result<Self, EncoderError> {
        let runtime = Self::runtime(&EncoderOptions::default())?;
        tract_onnx::onnx()
            .model_for_path(onnx)
            .and_then(|model| Self::typed(model, input, 1)?.into_optimized())
            .and_then(|model| Self::of(model, input, 1, runtime))
            .map_err(refused(onnx))
    }

    /// The same from a model in memory.
    #[cfg(test)]
    pub(super) fn from_proto(
        model: &tract_onnx::pb::ModelProto,
        input: &InputSpec,
        options: &EncoderOptions,
    ) -> TractResult<Self> {
        let runtime = Self::runtime(options)?;
        Self::build(int8::import::onnx().model_for_proto_model(model)?, None, input, options.batch, runtime)
    }

    fn chosen(options: &EncoderOptions) -> Result<Kernel, EncoderError> {
        match options.kernel {
            None => Ok(KernelChoice::best()),
            Some(choice) => choice.kernel().ok_or(EncoderError::Kernel { choice }),
        }
    }

    fn runtime(options: &EncoderOptions) -> Result<Arc<Runtime>, EncoderError> {
        let kernel = Self::chosen(options)?;
        let pool = Pool::new(options.threads.max(1)).map_err(EncoderError::Threads)?;
        Ok(Arc::new(Runtime::new(kernel, pool)))
    }

    fn build(
        model: InferenceModel,
        store: Option<Arc<Store>>,
        input: &InputSpec,
        batch: usize,
        runtime: Arc<Runtime>,
    ) -> TractResult<Self> {
        let context = int8::rewrite::Context {
            runtime: runtime.clone(),
            mean: input.mean,
            std: input.std,
            store,
            arena: Arc::default(),
        };
        let model = int8::rewrite::rewrite(context, Self::typed(model, input, batch)?)?;
        int8::kernels::memory::trim();
        Self::of(model, input, batch, runtime)
    }

    fn typed(model: InferenceModel, input: &InputSpec, batch: usize) -> TractResult<TypedModel> {
        model.with_input_fact(0, f32::fact([batch, 3, input.size, input.size]).into())?.into_typed()
    }

    fn of(model: TypedModel, input: &InputSpec, batch: usize, runtime: Arc<Runtime>) -> TractResult<Self> {
        let embed_dim = model.output_fact(0)?.shape.as_concrete().and_then(|shape| shape.last().copied());
        let embed_dim = embed_dim.context("the output has no fixed width")?;
        let macs = int8::rewrite::macs(&model)? / batch as u64;
        Ok(Self { plan: model.into_runnable()?, runtime, input: input.clone(), batch, embed_dim, macs, packed: false })
    }

    /// Width of the embedding.
    pub fn embed_dim(&self) -> usize {
        self.embed_dim
    }

    /// Its threads, for what comes before the tower.
    pub(super) fn pool(&self) -> &Pool {
        &self.runtime.pool
    }

    /// Bytes that [`Encoder::encode`] takes.
    pub fn input_len(&self) -> usize {
        self.batch * self.input.size * self.input.size * 3
    }

    /// Embeds `batch` squares of row-major RGB; returns `batch × embed_dim` values, not normalised.
    ///
    /// # Errors
    /// [`EncoderError::Shape`] for a wrong number of bytes, [`EncoderError::Run`] when the engine fails or a value
    /// inside the tower is not finite.
    pub fn encode(&mut self, pixels: &[u8]) -> Result<Vec<f32>, EncoderError> {
        let expected = self.input_len();
        if pixels.len() != expected {
            return Err(EncoderError::Shape { found: pixels.len(), expected });
        }
        self.run(pixels).map_err(|error| EncoderError::Run { reason: format!("{error:#}") })
    }

    fn run(&self, pixels: &[u8]) -> TractResult<Vec<f32>> {
        let size = self.input.size;
        let takes_bytes = self.plan.model().input_fact(0)?.datum_type == u8::datum_type();
        let input = match takes_bytes {
            true => Tensor::from_shape(&[self.batch, size, size, 3], pixels)?,
            false => Tensor::from_shape(&[self.batch, 3, size, size], &self.normalised(pixels))?,
        };
        let _frame = self.runtime.pool.frame();
        let output = self.plan.run(tvec!(input.into_tvalue()))?;
        Ok(output[0].try_as_plain_ram()?.as_slice::<f32>()?.to_vec())
    }

    /// `(pixel / 255 - mean) / std`, colour by colour.
    fn normalised(&self, pixels: &[u8]) -> Vec<f32> {
        let InputSpec { size, mean, std } = &self.input;
        let plane = size * size;
        (0..self.batch * 3 * plane)
            .map(|i| {
                let (image, channel, at) = (i / (3 * plane), i / plane % 3, i % plane);
                (f32::from(pixels[(image * plane + at) * 3 + channel]) / 255.0 - mean[channel]) / std[channel]
            })
            .collect()
    }

    /// Whether it runs on weights that were packed beforehand.
    pub fn is_packed(&self) -> bool {
        self.packed
    }

    /// The name of the int8 kernel in use.
    pub fn kernel(&self) -> &'static str {
        self.runtime.kernel.name
    }

    /// Multiply-adds a second that the kernel reaches on one thread with its operands in the first-level cache: the
    /// limit that [`Encoder::macs`] over the time of a frame is measured against.
    pub fn kernel_macs_per_second(&self) -> f64 {
        self.runtime.kernel.macs_per_second()
    }

    /// How often each operator stands in the plan.
    pub fn op_histogram(&self) -> BTreeMap<String, usize> {
        let mut histogram = BTreeMap::new();
        for node in &self.plan.model().nodes {
            *histogram.entry(node.op.name().into_owned()).or_default() += 1;
        }
        histogram
    }

    /// Multiply-adds of one image.
    pub fn macs(&self) -> u64 {
        self.macs
    }
}

/// What the engine said of the file at `path`.
fn refused(path: &Path) -> impl Fn(TractError) -> EncoderError {
    move |error| EncoderError::Load { path: path.to_owned(), reason: format!("{error:#}") }
}

/// Why the image tower cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EncoderError {
    /// The machine lacks the instructions.
    #[error("this machine cannot run the {choice} kernel; leave --kernel out for the best it can")]
    Kernel {
        /// What was asked for.
        choice: KernelChoice,
    },
    /// The system refused a thread.
    #[error("cannot start the encoder's threads: {0}")]
    Threads(std::io::Error),
    /// The packed weights cannot be used or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The engine refused the file.
    #[error("{path} cannot be loaded: {reason}; re-export the bundle with models/tools/export.py")]
    Load {
        /// The file.
        path: PathBuf,
        /// What the engine said.
        reason: String,
    },
    /// A wrong number of bytes was given.
    #[error("the image tower takes {expected} bytes, {found} were given")]
    Shape {
        /// Bytes given.
        found: usize,
        /// Bytes taken.
        expected: usize,
    },
    /// The engine failed.
    #[error("the image tower failed: {reason}")]
    Run {
        /// What the engine said.
        reason: String,
    },
}
