//! A data set through a running remoteclipd, on a board or anywhere else: each picture is laid into the folder that the
//! device watches, and its result and embedding are taken from the device's topics.
//!
//! Promise: an answer counts only if it came in time and carries the model that is being judged. A picture without one is
//! named, as missing or, where the answer came after its time, as late. Only one picture is under way at a time, so that a
//! device that drops frames under load is not asked to. What was laid into the folder is taken out of it again.

mod address;
mod facts;
mod listener;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

pub use address::Address;
use facts::Device;
use listener::{Listener, Message};

use super::HarnessError;
use super::dataset::DataSet;
use super::embed::Embedded;
use super::progress::Progress;
use super::tensors::Matrix;
use crate::publish::EmbeddingPayload;

/// How long broker and device may take to say who they are.
const PATIENCE: Duration = Duration::from_secs(10);

/// How the device is reached.
#[derive(Debug, Clone)]
pub struct Options {
    /// Broker and vehicle.
    pub address: Address,
    /// The folder that the device watches, as it is reached from here.
    pub folder: PathBuf,
    /// How long an answer may take.
    pub patience: Duration,
    /// Whether to tell how far it is.
    pub progress: bool,
}

/// What the device said.
#[derive(Debug, Clone)]
pub struct Answers {
    /// Which pictures of the data set were answered in time; the rows of `embedded` are theirs.
    pub answered: Vec<usize>,
    /// Their embeddings.
    pub embedded: Embedded,
    /// Names of pictures without an answer.
    pub missing: Vec<String>,
    /// Names of pictures whose answer came after its time.
    pub late: Vec<String>,
    /// The int8 kernel that the device runs, and its program's version.
    pub engine: String,
    /// Milliseconds from a frame's arrival to its result, on the device, in rising order.
    pub latency_ms: Vec<f64>,
}

/// Sends the pictures of `data` and gathers the answers. `model` is the bundle's id that the device must run.
///
/// # Errors
/// [`HarnessError::Form`] when broker, device or folder are not as they must be, or when nothing was answered.
pub fn embed(model: &str, data: &DataSet, options: &Options) -> Result<Answers, HarnessError> {
    let mut listener = Listener::connect(&options.address);
    let device =
        Device::find(&mut listener, &options.address, model, Instant::now() + PATIENCE).map_err(HarnessError::Form)?;
    let topics = ["result", "embedding"].map(|name| format!("{}/{name}", device.camera));
    listener.subscribe(&topics, Instant::now() + PATIENCE).map_err(HarnessError::Form)?;
    let mut run = Run {
        listener,
        device,
        options,
        token: uuid::Uuid::new_v4().simple().to_string()[..8].to_owned(),
        pending: HashMap::new(),
        width: None,
        vectors: Vec::new(),
        latency_ms: Vec::new(),
        laid: Vec::new(),
    };
    let outcome = run.all(data);
    // Whatever happened, the folder is left as it was found; a file that is gone already is no matter.
    run.laid.iter().for_each(|path| drop(std::fs::remove_file(path)));
    outcome.and_then(|()| run.finish(data))
}

/// An answer in the making.
#[derive(Default)]
struct Pending {
    image: usize,
    latency_ms: Option<f64>,
    vector: Option<Vec<f32>>,
    /// Its time is over.
    expired: bool,
    sha256: String,
}

struct Run<'a> {
    listener: Listener,
    device: Device,
    options: &'a Options,
    /// Tells this run's frames from all others.
    token: String,
    pending: HashMap<String, Pending>,
    width: Option<usize>,
    /// Picture, SHA-256, vector.
    vectors: Vec<(usize, String, Vec<f32>)>,
    latency_ms: Vec<f64>,
    laid: Vec<PathBuf>,
}

impl Run<'_> {
    fn all(&mut self, data: &DataSet) -> Result<(), HarnessError> {
        let mut progress = Progress::new(data.files.len(), self.options.progress);
        for image in 0..data.files.len() {
            let frame = self.lay(data, image)?;
            let deadline = Instant::now() + self.options.patience;
            while self.pending.get(&frame).is_some_and(|pending| !pending.whole()) {
                match self.listener.next(deadline).map_err(HarnessError::Form)? {
                    Some(message) => self.take(message)?,
                    None => break,
                }
            }
            self.settle(&frame);
            progress.step(false);
        }
        progress.end();
        // Late answers are told from missing ones; one more deadline for all of them together.
        let deadline = Instant::now() + self.options.patience;
        while self.pending.values().any(|pending| !pending.whole()) {
            match self.listener.next(deadline).map_err(HarnessError::Form)? {
                Some(message) => self.take(message)?,
                None => break,
            }
        }
        Ok(())
    }

    /// Lays a picture into the folder under a name of this run, whole at once.
    fn lay(&mut self, data: &DataSet, image: usize) -> Result<String, HarnessError> {
        let path = data.path(image);
        let bytes = std::fs::read(&path).map_err(|source| HarnessError::Read { path: path.clone(), source })?;
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or("jpg");
        let frame = format!("eval-{}-{image:06}.{ending}", self.token);
        let (hidden, seen) = (self.options.folder.join(format!(".{frame}")), self.options.folder.join(&frame));
        std::fs::write(&hidden, &bytes)
            .and_then(|()| std::fs::rename(&hidden, &seen))
            .map_err(|source| HarnessError::Write { path: seen.clone(), source })?;
        self.laid.push(seen);
        let sha256 = hex::encode(Sha256::digest(&bytes));
        self.pending.insert(frame.clone(), Pending { image, sha256, ..Pending::default() });
        Ok(frame)
    }

    /// Takes a result, an embedding, or the news that the device is gone.
    fn take(&mut self, Message { topic, payload }: Message) -> Result<(), HarnessError> {
        if topic == self.device.status && payload["state"] == "offline" {
            return Err(HarnessError::Form(format!(
                "--via: the device went offline ({}) after {} answers",
                payload["reason"].as_str().unwrap_or("no reason"),
                self.vectors.len()
            )));
        }
        let Some(pending) = payload["frame"].as_str().and_then(|frame| self.pending.get_mut(frame)) else {
            return Ok(());
        };
        if topic.ends_with("/result") {
            pending.latency_ms = payload["latency_ms"]["total"].as_f64();
        } else if topic.ends_with("/embedding") {
            pending.vector = Some(vector(payload, &mut self.width, &self.device).map_err(HarnessError::Form)?);
        }
        Ok(())
    }

    /// An answer that is whole is kept; else its time is over.
    fn settle(&mut self, frame: &str) {
        if let Some(path) = self.laid.pop_if(|_| self.pending.get(frame).is_some_and(Pending::whole)) {
            drop(std::fs::remove_file(path));
        }
        match self.pending.remove(frame) {
            Some(Pending { image, latency_ms: Some(latency), vector: Some(vector), sha256, .. }) => {
                self.vectors.push((image, sha256, vector));
                self.latency_ms.push(latency);
            }
            Some(pending) => drop(self.pending.insert(frame.to_owned(), Pending { expired: true, ..pending })),
            None => {}
        }
    }

    fn finish(mut self, data: &DataSet) -> Result<Answers, HarnessError> {
        let mut unanswered: Vec<&Pending> = self.pending.values().filter(|pending| pending.expired).collect();
        unanswered.sort_by_key(|pending| pending.image);
        let names = |late: bool| {
            let those = unanswered.iter().filter(|pending| pending.whole() == late);
            those.map(|pending| data.files[pending.image].clone()).collect::<Vec<_>>()
        };
        let (missing, late) = (names(false), names(true));
        let Some(width) = self.width.filter(|_| !self.vectors.is_empty()) else {
            return Err(HarnessError::Form(format!(
                "--via: none of {} pictures was answered within {} s: does the device watch the folder that is {} here?",
                data.files.len(),
                self.options.patience.as_secs_f64(),
                self.options.folder.display()
            )));
        };
        self.latency_ms.sort_by(f64::total_cmp);
        let images = Matrix::of_rows(width, self.vectors.iter().map(|(_, _, vector)| vector));
        let sha256 = self.vectors.iter().map(|(_, sha256, _)| sha256.clone()).collect();
        Ok(Answers {
            answered: self.vectors.iter().map(|(image, ..)| *image).collect(),
            embedded: Embedded { images, sha256, cached: 0 },
            missing,
            late,
            engine: self.device.engine,
            latency_ms: self.latency_ms,
        })
    }
}

impl Pending {
    fn whole(&self) -> bool {
        self.latency_ms.is_some() && self.vector.is_some()
    }
}

/// The unit vector of an embedding message.
fn vector(payload: serde_json::Value, width: &mut Option<usize>, device: &Device) -> Result<Vec<f32>, String> {
    let wrong = |what: String| format!("--via: {}/embedding: {what}", device.camera);
    let payload: EmbeddingPayload = serde_json::from_value(payload).map_err(|error| wrong(error.to_string()))?;
    if !device.model.starts_with(&payload.model) {
        return Err(wrong(format!("model {} is not the one judged, {}", payload.model, device.model)));
    }
    let vector = payload.vector.values().ok_or_else(|| wrong("its fields do not belong together".to_owned()))?;
    if *width.get_or_insert(vector.len()) != vector.len() {
        return Err(wrong(format!("{} values, {} before", vector.len(), width.unwrap_or_default())));
    }
    let unit =
        Matrix::new(vector.len().max(1), vector).normalised().map_err(|_| wrong("it is not finite".to_owned()))?;
    Ok(unit.row(0).to_vec())
}

/// Whether `folder` can be written to.
///
/// # Errors
/// [`HarnessError::Form`] with the cure.
pub fn check_folder(folder: &Path) -> Result<(), HarnessError> {
    if folder.is_dir() {
        return Ok(());
    }
    Err(HarnessError::Form(format!(
        "--via-folder {}: there is no such folder; it is the folder that the device watches (camera.folder.path), as it is \
         reached from here",
        folder.display()
    )))
}
