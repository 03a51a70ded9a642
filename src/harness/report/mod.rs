//! What an evaluation found, in the form that is written.
//!
//! `report.json` is this structure as it stands: `dataset`, `model`, `pretrained`, `task`, `metrics` and `language` are
//! `clip_benchmark`'s fields under its names and in its units (shares of 1), so its tools read the file; the rest is our
//! own. `markdown` and `html` render the same structure for people and add nothing to it.

mod figures;
mod html;
mod markdown;
#[cfg(test)]
mod sample;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::HarnessError;

/// Names the form; raised when a field changes its meaning.
pub const SCHEMA: &str = "remoteclip.eval/1";

/// One evaluation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// The data set's name (`ucm`).
    pub dataset: String,
    /// The architecture, in OpenCLIP's words.
    pub model: String,
    /// Which weights: the bundle's name, or the model an embeddings file names.
    pub pretrained: String,
    /// The first task, under `clip_benchmark`'s name (`zeroshot_classification`, `zeroshot_retrieval`, `linear_probe`)
    /// or ours (`knn`, `few_shot`, `counting`).
    pub task: String,
    /// Every task's metrics under `clip_benchmark`'s names, as shares of 1.
    pub metrics: BTreeMap<String, f64>,
    /// Of the prompts; always `en`.
    pub language: String,

    /// [`SCHEMA`].
    pub schema: String,
    /// `metrics` in percent, rounded to two places, for people and for tables.
    pub percent: BTreeMap<String, f64>,
    /// The split that was evaluated; none for a whole folder.
    pub split: Option<String>,
    /// RFC 3339.
    pub created_at: String,
    /// The program's version.
    pub version: String,
    /// The model that was measured.
    pub subject: Subject,
    /// The words the pictures were compared with.
    pub prompts: Prompts,
    /// Pictures measured.
    pub images: usize,
    /// Captions measured.
    pub captions: usize,
    /// Where the pictures lie; none when only embeddings were given.
    pub root: Option<PathBuf>,
    /// What each task found, in the order they ran.
    pub tasks: Vec<Task>,
    /// Against the reference; none without one.
    pub parity: Option<Parity>,
    /// Where the loss comes from; none unless it was asked for.
    #[serde(default)]
    pub stages: Option<Stages>,
    /// The device that embedded the pictures; none when this program did.
    #[serde(default)]
    pub device: Option<Device>,
    /// The verdict; none when no gate applied.
    pub gates: Option<Gates>,
    /// What is odd about data or reference but does not forbid a verdict.
    pub warnings: Vec<String>,
}

/// The model that was measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Subject {
    /// The bundle's name, or the model an embeddings file names.
    pub name: String,
    /// SHA-256 of the bundle's manifest.
    pub bundle_sha256: Option<String>,
    /// SHA-256 of the checkpoint it was exported from.
    pub checkpoint_sha256: Option<String>,
    /// Who computed the embeddings: the int8 kernel's name here, or what the file says.
    pub engine: Option<String>,
    /// What cosines were multiplied with to become probabilities.
    pub logit_scale: f32,
}

/// The words the pictures were compared with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Prompts {
    /// Class names, as the data has them.
    pub classes: Vec<String>,
    /// What stands in the templates for each class.
    pub class_words: Vec<String>,
    /// Sentences with `{}`; averaged over.
    pub templates: Vec<String>,
    /// SHA-256 over all sentences, as `models/tools/reference.py` computes it.
    pub sha256: Option<String>,
}

/// What one task found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Task {
    /// Its name; see [`Report::task`].
    pub task: String,
    /// How it was done, in one line, where there was a choice (`20 neighbours`, `4 pictures a class, seed 0`).
    pub setting: Option<String>,
    /// Its metrics, of both sides.
    pub metrics: Vec<Metric>,
    /// A row a class, in the order of [`Prompts::classes`]; for tasks that classify.
    pub classes: Vec<ClassRecall>,
    /// For tasks that classify.
    pub confusion: Option<Confusion>,
    /// For zero-shot classification: how far confidence can be believed.
    pub reliability: Option<Reliability>,
}

/// One metric of both sides.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Metric {
    /// `clip_benchmark`'s name where it has one (`acc1`, `image_retrieval_recall@5`).
    pub name: String,
    /// Ours: a share of 1, except for `count_mae`, which is in counted objects.
    pub value: f64,
    /// The reference's.
    pub reference: Option<f64>,
    /// `value - reference`.
    pub difference: Option<f64>,
    /// `value / reference`; none when the reference's is 0.
    pub ratio: Option<f64>,
    /// Where the difference lies with `confidence`, by paired bootstrap over pictures.
    pub difference_interval: Option<[f64; 2]>,
    /// The same for the ratio.
    pub ratio_interval: Option<[f64; 2]>,
    /// False for an error such as `count_mae`.
    pub higher_is_better: bool,
    /// Pictures that the reference had right and we have not, at most ten.
    pub lost: Vec<String>,
}

/// How often a class's pictures were given its name.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ClassRecall {
    /// The class.
    pub name: String,
    /// Its pictures.
    pub images: usize,
    /// Ours, a share of 1; 0 without pictures.
    pub recall: f64,
    /// The reference's.
    pub reference: Option<f64>,
    /// Its pictures that the reference had right and we have not, at most ten.
    pub lost: Vec<String>,
}

/// Who was taken for whom.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Confusion {
    /// Names of rows and columns.
    pub classes: Vec<String>,
    /// `counts[true][predicted]`.
    pub counts: Vec<Vec<usize>>,
    /// The reference's.
    pub reference: Option<Vec<Vec<usize>>>,
}

/// Confidence against accuracy.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reliability {
    /// Ten bins of the winning probability, empty ones included.
    pub bins: Vec<ReliabilityBin>,
    /// Expected calibration error (Guo et al. 2017), a share of 1.
    pub ece: f64,
    /// The reference's bins.
    pub reference_bins: Option<Vec<ReliabilityBin>>,
    /// The reference's error.
    pub reference_ece: Option<f64>,
}

/// Pictures whose winning probability lies in `low..high` (the last bin includes 1).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReliabilityBin {
    /// Lower edge.
    pub low: f64,
    /// Upper edge.
    pub high: f64,
    /// Pictures in it.
    pub images: usize,
    /// Their mean winning probability; 0 without pictures.
    pub confidence: f64,
    /// The share of them that is right; 0 without pictures.
    pub accuracy: f64,
}

/// How near the embeddings and decisions are to the reference's.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Parity {
    /// What the reference says of itself.
    pub reference: ReferenceFacts,
    /// Pictures compared.
    pub images: usize,
    /// Of the pictures' embeddings.
    pub cosine: Cosines,
    /// Of the class prompts' embeddings.
    pub text_cosine: Option<Cosines>,
    /// Of the captions' embeddings.
    pub caption_cosine: Option<Cosines>,
    /// Counts of the pictures' cosines.
    pub histogram: Histogram,
    /// Share of pictures that both sides give one name.
    pub top1_agreement: Option<f64>,
    /// Share of pictures on which both sides decide every label alike, through the daemon's `decide`.
    pub decision_agreement: Option<f64>,
    /// What decided.
    pub decided_by: Option<DecidedBy>,
    /// The pictures of the least cosine, the least first.
    pub worst: Vec<WorstImage>,
    /// Pictures that the sides name differently, the surest first.
    pub disagreements: Vec<WorstImage>,
    /// Reference rows that are nearer to another picture than to their own.
    pub misplaced: Vec<Misplaced>,
    /// Resamples of the bootstrap.
    pub resamples: usize,
    /// Its seed.
    pub seed: u64,
    /// The share of resamples inside an interval (0.95).
    pub confidence: f64,
}

/// The prompt pack through which decisions were compared.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DecidedBy {
    /// The pack's prompt set.
    pub set: String,
    /// The pack's SHA-256.
    pub pack: String,
    /// Its labels.
    pub labels: usize,
    /// Labels over their threshold, ours, summed over pictures.
    pub active: usize,
    /// The same of the reference.
    pub reference_active: usize,
}

/// What a reference says of itself; each as its file's metadata has it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ReferenceFacts {
    /// The file.
    pub path: PathBuf,
    /// SHA-256 of the file.
    pub sha256: String,
    /// Every short entry of its metadata: `bundle`, `architecture`, `checkpoint_sha256`, `device`, `dtype`, …
    pub metadata: BTreeMap<String, String>,
}

/// A distribution of cosines in four figures.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Cosines {
    /// Arithmetic mean.
    pub mean: f64,
    /// The first percentile.
    pub p1: f64,
    /// The median.
    pub median: f64,
    /// The least.
    pub min: f64,
}

/// Counts between edges.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Histogram {
    /// Rising; one more than `counts`.
    pub edges: Vec<f64>,
    /// How many lie between edge `i` and `i + 1`.
    pub counts: Vec<usize>,
}

/// A picture to look at.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WorstImage {
    /// Its name in the data set.
    pub file: String,
    /// Where it lies; none when only embeddings were given.
    pub path: Option<PathBuf>,
    /// Of its two embeddings.
    pub cosine: f64,
    /// Its class, where the data says.
    pub label: Option<String>,
    /// The class we name, and its probability.
    pub ours: Option<Named>,
    /// The class the reference names, and its probability.
    pub reference: Option<Named>,
}

/// A class and its probability.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Named {
    /// The class.
    pub class: String,
    /// CLIP's zero-shot probability.
    pub probability: f64,
}

/// A picture that the reference's row for another picture fits better than its own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Misplaced {
    /// The picture.
    pub file: String,
    /// Its cosine with its own row.
    pub cosine: f64,
    /// Whose row fits.
    pub fits: String,
    /// The cosine with that.
    pub fits_cosine: f64,
}

/// Where the loss comes from: one stage of the way from file to embedding exchanged at a time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Stages {
    /// Pictures that every stage ran on.
    pub images: usize,
    /// The metric that each stage was measured by; none for a task without.
    pub metric: Option<String>,
    /// The reference's, on these pictures.
    pub reference: Option<f64>,
    /// The stages in order.
    pub rows: Vec<StageRow>,
}

/// One stage.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StageRow {
    /// Its name.
    pub stage: String,
    /// What it is.
    pub what: String,
    /// Of its embeddings with the reference's.
    pub cosine: Option<Cosines>,
    /// Of [`Stages::metric`], a share of 1.
    pub value: Option<f64>,
    /// Why it could not be run; none when it was.
    pub absent: Option<String>,
}

/// A running remoteclipd that embedded the pictures.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Device {
    /// Its topics' beginning, kernel and version.
    pub engine: String,
    /// Pictures sent.
    pub sent: usize,
    /// Pictures answered in time.
    pub answered: usize,
    /// Pictures without an answer, by name.
    pub missing: Vec<String>,
    /// Pictures whose answer came too late, by name.
    pub late: Vec<String>,
    /// Milliseconds from a frame's arrival to its result, on the device: median, 99th percentile, largest.
    pub latency_ms: [f64; 3],
}

impl Device {
    /// Whether every picture was answered in time.
    pub fn answered_all(&self) -> bool {
        self.missing.is_empty() && self.late.is_empty()
    }

    /// The same as gates, so that they stand among the others.
    pub fn verdicts(&self) -> [Verdict; 2] {
        [("missing answers", &self.missing), ("late answers", &self.late)].map(|(what, names)| Verdict {
            gate: "device".to_owned(),
            what: what.to_owned(),
            measured: names.len() as f64,
            required: 0.0,
            at_most: true,
            passed: names.is_empty(),
            short_by: names.len() as f64,
            images: names.iter().take(10).cloned().collect(),
        })
    }
}

/// The verdict.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Gates {
    /// Where they were read; `built-in` for those of the program.
    pub file: String,
    /// The tier asked for (`0.99`).
    pub tier: f64,
    /// The highest tier whose every ratio is reached, though it was not asked for.
    pub reached: Option<f64>,
    /// Whether every gate passed.
    pub passed: bool,
    /// Each gate, passed or not.
    pub verdicts: Vec<Verdict>,
}

/// One gate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Verdict {
    /// `ratio`, `cosine`, `agreement`, `recall_drop`, `floor` or `rows`.
    pub gate: String,
    /// What was measured: a metric, a figure of the cosines, a class.
    pub what: String,
    /// The figure found.
    pub measured: f64,
    /// The figure asked for.
    pub required: f64,
    /// Whether `measured` is at most, not at least, `required`.
    pub at_most: bool,
    /// Held.
    pub passed: bool,
    /// How far it falls short; 0 when passed.
    pub short_by: f64,
    /// The pictures that did it, the worst first, at most ten.
    pub images: Vec<String>,
}

impl Report {
    /// Writes `report.json`, `report.md` and `report.html` into `folder`, made if absent.
    ///
    /// # Errors
    /// [`HarnessError::Write`] naming the file.
    pub fn write(&self, folder: &Path) -> Result<(), HarnessError> {
        let json = serde_json::to_string_pretty(self).map_err(|error| HarnessError::Form(error.to_string()))?;
        let files =
            [("report.json", json + "\n"), ("report.md", markdown::render(self)), ("report.html", html::render(self))];
        let written = |path: &Path, result: std::io::Result<()>| {
            result.map_err(|source| HarnessError::Write { path: path.to_owned(), source })
        };
        written(folder, std::fs::create_dir_all(folder))?;
        for (name, text) in files {
            let path = folder.join(name);
            written(&path, std::fs::write(&path, text))?;
        }
        Ok(())
    }

    /// Whether nothing failed: no gate, and no answer of a device.
    pub fn passed(&self) -> bool {
        let gates = self.gates.as_ref().is_none_or(|gates| gates.passed);
        gates && self.device.as_ref().is_none_or(Device::answered_all)
    }

    /// The metric of this name, in any task.
    pub fn metric(&self, name: &str) -> Option<&Metric> {
        self.tasks.iter().flat_map(|task| &task.metrics).find(|metric| metric.name == name)
    }
}
