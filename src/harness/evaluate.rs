//! Embeddings of one side, or of two, → a report.

use std::path::PathBuf;

use super::HarnessError;
use super::bootstrap::Bootstrap;
use super::embeddings::EmbeddingSet;
use super::metrics::neighbours::{self, Gallery};
use super::metrics::probe::{self, Probe};
use super::metrics::{Guesses, counting, retrieval, zeroshot};
use super::parity::{self, Told};
use super::report::{self, Parity, ReferenceFacts, Report};
use super::tables::{self, Outcome};
use crate::decide::Decider;
use crate::prompts::pack::{Header, Pack, PackLabel};

/// Where a label is entered and left when no prompt set says.
const THRESHOLDS: (f32, f32) = (0.5, 0.35);

/// A task, named as `clip_benchmark` names it where it has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum TaskKind {
    /// The class whose prompts are nearest.
    ZeroshotClassification,
    /// Captions to pictures and back.
    ZeroshotRetrieval,
    /// A linear classifier on the embeddings.
    LinearProbe,
    /// The vote of the nearest pictures.
    Knn,
    /// A linear classifier on a few pictures a class.
    FewShot,
    /// How many objects, by prompt ranking.
    Counting,
}

/// What is to be found out.
pub struct Plan<'a> {
    /// The data set's name.
    pub dataset: String,
    /// Its split.
    pub split: Option<String>,
    /// Where its pictures lie.
    pub root: Option<PathBuf>,
    /// Empty for what the data allows: classification with classes, retrieval with captions.
    pub tasks: Vec<TaskKind>,
    /// Pictures a class of `few_shot`, one task each.
    pub shots: Vec<usize>,
    /// How intervals are drawn; its seed also draws the shots.
    pub bootstrap: Bootstrap,
    /// What decides which tags are entered; the class prompts at a threshold of 0.5 when none.
    pub decider: Option<&'a Decider>,
    /// What cosines are multiplied with.
    pub logit_scale: f32,
}

/// One side: what is asked about, and what the probes learn from (themselves, in parts, when there is none).
#[derive(Clone, Copy)]
pub struct Side<'a> {
    /// Asked about.
    pub test: &'a EmbeddingSet,
    /// Learnt from.
    pub train: Option<&'a EmbeddingSet>,
}

/// Evaluates `ours`, against an aligned `reference` where there is one. Gates are judged apart.
///
/// # Errors
/// [`HarnessError::Form`] for a task that the data does not allow.
pub fn evaluate(plan: &Plan, ours: Side, reference: Option<Side>) -> Result<Report, HarnessError> {
    let set = ours.test;
    let mut tasks = Vec::new();
    let mut zero_shot = None;
    for (kind, shots) in plan.steps(set)? {
        let own = plan.run(kind, shots, ours)?;
        let theirs = reference.filter(|side| side.train.is_some() == ours.train.is_some() || !kind.learns());
        let theirs = theirs.map(|side| plan.run(kind, shots, side)).transpose()?;
        tasks.push(tables::task(kind.name(), set, &own, theirs.as_ref(), &plan.bootstrap));
        if kind == TaskKind::ZeroshotClassification {
            zero_shot = own.guesses.zip(theirs.and_then(|theirs| theirs.guesses));
        }
    }
    let parity = reference.map(|side| plan.parity(set, side.test, zero_shot.as_ref())).transpose()?;
    let metrics = tasks.iter().flat_map(|task: &report::Task| &task.metrics);
    let metrics: std::collections::BTreeMap<_, _> = metrics.map(|metric| (metric.name.clone(), metric.value)).collect();
    let share = |name: &str| name != "count_mae";
    let percent = metrics.iter().filter(|(name, _)| share(name));
    let fact = |key: &str| set.metadata.get(key).cloned();
    let name = fact("bundle").or_else(|| fact("model")).unwrap_or_else(|| "unnamed".to_owned());
    Ok(Report {
        dataset: plan.dataset.clone(),
        model: fact("architecture").unwrap_or_else(|| name.clone()),
        pretrained: name.clone(),
        task: tasks.first().map_or_else(String::new, |task| task.task.clone()),
        percent: percent.map(|(name, value)| (name.clone(), (value * 1e4).round() / 1e2)).collect(),
        metrics,
        language: "en".to_owned(),
        schema: report::SCHEMA.to_owned(),
        split: plan.split.clone(),
        created_at: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        subject: report::Subject {
            name,
            bundle_sha256: fact("bundle_sha256"),
            checkpoint_sha256: fact("checkpoint_sha256"),
            engine: fact("device"),
            logit_scale: plan.logit_scale,
        },
        prompts: report::Prompts {
            classes: set.classes.clone(),
            class_words: set.class_words.clone(),
            templates: set.templates.clone(),
            sha256: set.prompts_sha256(),
        },
        images: set.images.len(),
        captions: set.captions.image.len(),
        root: plan.root.clone(),
        tasks,
        parity,
        stages: None,
        device: None,
        gates: None,
        warnings: Vec::new(),
    })
}

impl TaskKind {
    /// Its name in a report.
    pub fn name(self) -> &'static str {
        match self {
            Self::ZeroshotClassification => "zeroshot_classification",
            Self::ZeroshotRetrieval => "zeroshot_retrieval",
            Self::LinearProbe => "linear_probe",
            Self::Knn => "knn",
            Self::FewShot => "few_shot",
            Self::Counting => "counting",
        }
    }

    /// Whether it needs pictures to learn from.
    fn learns(self) -> bool {
        matches!(self, Self::LinearProbe | Self::Knn | Self::FewShot)
    }
}

impl Plan<'_> {
    /// The tasks in order, few-shot once for each number of shots.
    fn steps(&self, set: &EmbeddingSet) -> Result<Vec<(TaskKind, usize)>, HarnessError> {
        let (classes, captions) = (!set.labels.is_empty(), !set.captions.image.is_empty());
        let mut kinds = self.tasks.clone();
        if kinds.is_empty() {
            kinds.extend((classes && !set.texts.is_empty()).then_some(TaskKind::ZeroshotClassification));
            kinds.extend(captions.then_some(TaskKind::ZeroshotRetrieval));
        }
        let refused = |reason: String| Err(HarnessError::Form(reason));
        if set.images.is_empty() || kinds.is_empty() {
            return refused("there is nothing to measure: the data has neither classes nor captions".to_owned());
        }
        for kind in &kinds {
            let lacks = match kind {
                TaskKind::ZeroshotRetrieval if !captions => "captions (--captions)",
                TaskKind::ZeroshotClassification | TaskKind::Counting if set.texts.is_empty() => "text embeddings",
                TaskKind::ZeroshotRetrieval => continue,
                _ if !classes => "a class for each picture",
                _ => continue,
            };
            return refused(format!("--task {} needs {lacks}, which the data does not have", kind.name()));
        }
        let step = |kind: &TaskKind| match kind {
            TaskKind::FewShot => self.shots.iter().map(|shots| (*kind, *shots)).collect(),
            _ => vec![(*kind, 0)],
        };
        Ok(kinds.iter().flat_map(step).collect())
    }

    fn run(&self, kind: TaskKind, shots: usize, side: Side) -> Result<Outcome, HarnessError> {
        let set = side.test;
        let classes = set.classes.len().max(set.labels.iter().max().map_or(0, |most| most + 1));
        let of = |guesses: Guesses, prefix: &str, setting: Option<String>| Outcome {
            estimates: guesses.estimates(prefix, classes),
            guesses: Some(guesses),
            setting,
        };
        Ok(match kind {
            TaskKind::ZeroshotRetrieval => {
                Outcome { estimates: retrieval::estimates(&set.images, &set.captions), guesses: None, setting: None }
            }
            TaskKind::ZeroshotClassification => {
                let templates = set.texts.len();
                of(
                    self.zero_shot(set)?,
                    "",
                    Some(format!("{templates} template{}", if templates == 1 { "" } else { "s" })),
                )
            }
            TaskKind::Counting => {
                let numbers = counting::numbers(&set.classes).map_err(|name| {
                    HarnessError::Form(format!("--task counting needs folders that are counts; \"{name}\" is none"))
                })?;
                let guesses = self.zero_shot(set)?;
                Outcome { estimates: counting::estimates(&guesses, &numbers), guesses: Some(guesses), setting: None }
            }
            TaskKind::Knn => {
                let gallery = side.train.map(|train| Gallery { images: &train.images, labels: &train.labels });
                let from =
                    if gallery.is_some() { "of the train split" } else { "each picture left out of its own vote" };
                let guesses = neighbours::guesses(&set.images, &set.labels, gallery, classes);
                of(guesses, "knn_", Some(format!("{} neighbours, {from}", neighbours::NEIGHBOURS)))
            }
            TaskKind::LinearProbe => of(
                self.probe(side, classes, None),
                "lp_",
                Some(match side.train {
                    Some(train) => format!("ridge on {} pictures of the train split", train.images.len()),
                    None => format!("ridge on half of each class, seed {}", self.bootstrap.seed),
                }),
            ),
            TaskKind::FewShot => {
                let setting = format!("{shots} pictures a class, seed {}", self.bootstrap.seed);
                of(self.probe(side, classes, Some(shots)), &format!("few_shot_{shots}_"), Some(setting))
            }
        })
    }

    fn zero_shot(&self, set: &EmbeddingSet) -> Result<Guesses, HarnessError> {
        let decider = Decider::new(class_pack(set, &self.dataset)?, self.logit_scale);
        Ok(zeroshot::guesses(&set.images, &set.labels, &decider)?)
    }

    /// Learns from `shots` pictures of each class of the train pictures (from all when none) and asks about the test
    /// pictures; without train pictures, from `shots` of the test pictures (from half) and asks about their rest.
    fn probe(&self, side: Side, classes: usize, shots: Option<usize>) -> Guesses {
        let test = side.test;
        let seed = self.bootstrap.seed;
        let all = |set: &EmbeddingSet| (0..set.images.len()).collect::<Vec<_>>();
        let (from, learn, ask) = match (side.train, shots) {
            (None, _) => {
                let (learn, ask) = probe::draw(&test.labels, classes, seed, |has| shots.unwrap_or(has / 2));
                (test, learn, ask)
            }
            (Some(train), Some(shots)) => (train, probe::draw(&train.labels, classes, seed, |_| shots).0, all(test)),
            (Some(train), None) => (train, all(train), all(test)),
        };
        Probe::fit(&from.images, &from.labels, &learn, classes).guesses(&test.images, &test.labels, &ask)
    }

    fn parity(
        &self,
        ours: &EmbeddingSet,
        reference: &EmbeddingSet,
        guesses: Option<&(Guesses, Guesses)>,
    ) -> Result<Parity, HarnessError> {
        let cosines = parity::cosines(&ours.images, &reference.images);
        let told = Told {
            ours,
            cosines: &cosines,
            guesses: guesses.map(|(ours, reference)| (ours, reference)),
            root: self.root.as_deref(),
        };
        let own_pack = match (self.decider, ours.texts.is_empty()) {
            (None, false) => Some(Decider::new(class_pack(ours, &self.dataset)?, self.logit_scale)),
            _ => None,
        };
        let decider = self.decider.or(own_pack.as_ref());
        let decided = decider.map(|decider| parity::decisions(decider, &ours.images, &reference.images)).transpose()?;
        let agreement = told.agreement();
        let (path, sha256) = reference.source.clone().unwrap_or_default();
        Ok(Parity {
            reference: ReferenceFacts { path, sha256, metadata: reference.metadata.clone() },
            images: cosines.len(),
            cosine: parity::summary(&cosines)
                .ok_or_else(|| HarnessError::Form("no pictures to compare with the reference".to_owned()))?,
            text_cosine: ours
                .class_vectors()
                .zip(reference.class_vectors())
                .and_then(|(ours, reference)| parity::summary(&parity::cosines(&ours, &reference))),
            caption_cosine: parity::summary(&parity::cosines(
                &ours.captions.embeddings,
                &reference.captions.embeddings,
            )),
            histogram: parity::histogram(&cosines),
            worst: told.worst(),
            misplaced: parity::misplaced(ours, reference, &cosines),
            top1_agreement: agreement.as_ref().map(|(share, _)| *share),
            disagreements: agreement.map_or_else(Vec::new, |(_, images)| images),
            decision_agreement: decided.as_ref().map(|(share, _)| *share),
            decided_by: decided.map(|(_, by)| by),
            resamples: self.bootstrap.resamples,
            seed: self.bootstrap.seed,
            confidence: self.bootstrap.confidence,
        })
    }
}

/// The classes as a prompt pack, so that `decide` can score them.
fn class_pack(set: &EmbeddingSet, dataset: &str) -> Result<Pack, HarnessError> {
    let vectors = set
        .class_vectors()
        .ok_or_else(|| HarnessError::Form("the text embeddings of a class cancel each other out".to_owned()))?;
    let name = |at: usize| set.classes.get(at).cloned().unwrap_or_else(|| format!("class {at}"));
    let label = |at| PackLabel { name: name(at), texts: vec![name(at)], enter: THRESHOLDS.0, exit: THRESHOLDS.1 };
    let header = Header {
        set: format!("classes of {dataset}"),
        set_sha256: String::new(),
        bundle: set.metadata.get("bundle").cloned().unwrap_or_default(),
        text_id: String::new(),
        embed_dim: vectors.width(),
        templates: set.templates.clone(),
        labels: (0..vectors.len()).map(label).collect(),
        background: Vec::new(),
    };
    Ok(Pack::new(header, vectors.rows().flatten().copied().collect())?)
}
