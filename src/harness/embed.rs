//! Pictures → embeddings, through the daemon's `vision`, on all cores.
//!
//! Promise: a picture is in memory only while it is worked on, so ten thousand cost no more than a hundred but their
//! embeddings. Every broken picture is named, not the first alone. What was embedded before a kill is not embedded again.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use sha2::{Digest, Sha256};

use super::HarnessError;
use super::cache::{Cache, Sha};
use super::dataset::DataSet;
use super::progress::Progress;
use super::tensors::Matrix;
use crate::bundle::{Bundle, IMAGE_ONNX};
use crate::camera::Picture;
use crate::vision::{EncoderOptions, Limits, Vision, VisionError};

/// Of broken pictures, in an error.
const MOST_BROKEN: usize = 20;

/// How pictures are embedded.
#[derive(Debug, Clone)]
pub struct Options {
    /// Pictures at a time, each with an image tower of its own.
    pub threads: usize,
    /// Where embeddings are kept from one run to the next; none to keep nothing.
    pub cache: Option<PathBuf>,
    /// Whether to tell how far it is.
    pub progress: bool,
}

/// What came out.
#[derive(Debug, Clone)]
pub struct Embedded {
    /// A unit vector a picture, in the data set's order.
    pub images: Matrix,
    /// SHA-256 of each picture's file, lower-case hex.
    pub sha256: Vec<String>,
    /// How many came from the cache.
    pub cached: usize,
}

/// One picture's result; an error is the picture's own fault.
struct Done {
    image: usize,
    sha: Sha,
    vector: Result<Vec<f32>, String>,
    cached: bool,
}

/// Embeds a data set.
///
/// # Errors
/// [`HarnessError`] naming every picture that cannot be embedded with its cause, or what is wrong with bundle or cache.
pub fn embed(bundle: &Bundle, data: &DataSet, options: &Options) -> Result<Embedded, HarnessError> {
    // Also when all comes from the cache: a damaged bundle must not pass for a good one.
    bundle.verified(IMAGE_ONNX)?;
    let width = bundle.manifest().model.embed_dim;
    let cache = options.cache.as_deref().map(|folder| Cache::open(folder, bundle)).transpose()?;
    let work = Work { bundle, data, cache: cache.as_ref(), next: AtomicUsize::new(0), failed: AtomicBool::new(false) };
    let mut gathered = Gathered::new(data.files.len(), width);
    let mut progress = Progress::new(data.files.len(), options.progress);
    thread::scope(|scope| {
        let (sender, results) = sync_channel(2 * options.threads);
        let work = &work;
        let workers: Vec<_> = (0..options.threads.clamp(1, data.files.len().max(1)))
            .map(|_| {
                let sender = sender.clone();
                scope.spawn(move || work.run(&sender))
            })
            .collect();
        drop(sender);
        let mut kept = Ok(());
        for done in results {
            if let (Some(cache), Ok(vector), false) = (&cache, &done.vector, done.cached) {
                kept = kept.and_then(|()| cache.keep(&done.sha, vector));
            }
            progress.step(done.cached);
            gathered.take(done);
        }
        for worker in workers {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        kept
    })?;
    progress.end();
    gathered.finish(data)
}

/// What the threads share.
struct Work<'a> {
    bundle: &'a Bundle,
    data: &'a DataSet,
    cache: Option<&'a Cache>,
    next: AtomicUsize,
    /// One thread found bundle or machine at fault: the others stop too.
    failed: AtomicBool,
}

impl Work<'_> {
    fn run(&self, results: &SyncSender<Done>) -> Result<(), HarnessError> {
        let mut vision = None;
        while !self.failed.load(Ordering::Relaxed) {
            let image = self.next.fetch_add(1, Ordering::Relaxed);
            if image >= self.data.files.len() {
                break;
            }
            let done = self.one(image, &mut vision).inspect_err(|_| self.failed.store(true, Ordering::Relaxed))?;
            if results.send(done).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// The tower is loaded when the first picture needs it.
    fn one(&self, image: usize, vision: &mut Option<Vision>) -> Result<Done, HarnessError> {
        let path = self.data.path(image);
        let bytes = std::fs::read(&path).map_err(|source| HarnessError::Read { path, source })?;
        let sha: Sha = Sha256::digest(&bytes).into();
        if let Some(vector) = self.cache.map(|cache| cache.find(&sha)).transpose()?.flatten() {
            return Ok(Done { image, sha, vector: Ok(vector), cached: true });
        }
        let vision = match vision {
            Some(vision) => vision,
            None => vision.insert(Vision::load(self.bundle, Limits::default(), &EncoderOptions::default())?),
        };
        let vector = match vision.embed(&Picture::Encoded(bytes)) {
            Ok(embedded) => Ok(embedded.vector),
            Err(error @ (VisionError::Decode(_) | VisionError::Preprocess(_))) => Err(error.to_string()),
            Err(error) => return Err(error.into()),
        };
        Ok(Done { image, sha, vector, cached: false })
    }
}

/// Results as they come, in any order.
struct Gathered {
    width: usize,
    values: Vec<f32>,
    sha256: Vec<String>,
    broken: Vec<(usize, String)>,
    cached: usize,
}

impl Gathered {
    fn new(images: usize, width: usize) -> Self {
        let (values, sha256) = (vec![0.0; images * width], vec![String::new(); images]);
        Self { width, values, sha256, broken: Vec::new(), cached: 0 }
    }

    fn take(&mut self, done: Done) {
        self.sha256[done.image] = hex::encode(done.sha);
        self.cached += usize::from(done.cached);
        match done.vector {
            Ok(vector) => self.values[done.image * self.width..][..self.width].copy_from_slice(&vector),
            Err(cause) => self.broken.push((done.image, cause)),
        }
    }

    fn finish(mut self, data: &DataSet) -> Result<Embedded, HarnessError> {
        if self.broken.is_empty() {
            let images = Matrix::new(self.width, self.values);
            return Ok(Embedded { images, sha256: self.sha256, cached: self.cached });
        }
        self.broken.sort();
        let told = self.broken.iter().take(MOST_BROKEN).map(|(at, cause)| format!("\n  {}: {cause}", data.files[*at]));
        let more = if self.broken.len() > MOST_BROKEN { "\n  …" } else { "" };
        Err(HarnessError::Form(format!(
            "{} of {} pictures below {} cannot be embedded; repair them or take them out:{}{more}",
            self.broken.len(),
            data.files.len(),
            data.root.display(),
            told.collect::<String>()
        )))
    }
}

/// The folder that embeddings are kept in when nothing else is said: `$XDG_CACHE_HOME/remoteclipd`.
pub fn default_cache() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("XDG_CACHE_HOME")
        .or_else(|| Some(set("HOME")?.join(Path::new(".cache"))))
        .map(|folder| folder.join("remoteclipd"))
}
