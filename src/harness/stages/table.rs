//! Stages → the report's table: each one's cosine to the reference and its metric.

use super::Stage;
use crate::harness::HarnessError;
use crate::harness::bootstrap::Bootstrap;
use crate::harness::embeddings::EmbeddingSet;
use crate::harness::evaluate::{Plan, Side, TaskKind, evaluate};
use crate::harness::parity;
use crate::harness::report::{Metric, StageRow, Stages};
use crate::harness::tensors::Matrix;

/// The table. `words` is our side and `reference` the aligned reference, both of the pictures that the stages ran on.
///
/// # Errors
/// As [`evaluate`].
pub fn table(
    stages: Vec<Stage>,
    plan: &Plan,
    words: &EmbeddingSet,
    reference: &EmbeddingSet,
) -> Result<Stages, HarnessError> {
    let measured = metric(plan, reference)?;
    let width = reference.images.width();
    let row = |Stage { name, what, vectors }: Stage| {
        let row = StageRow { stage: name.to_owned(), what: what.to_owned(), cosine: None, value: None, absent: None };
        let fits = |vectors: &Vec<Vec<f32>>| vectors.iter().all(|vector| vector.len() == width);
        match vectors {
            Err(reason) => Ok(StageRow { absent: Some(reason), ..row }),
            Ok(vectors) if !fits(&vectors) => {
                Ok(StageRow { absent: Some(format!("its embeddings are not of width {width}")), ..row })
            }
            Ok(vectors) => {
                let images = Matrix::of_rows(width, vectors);
                let cosine = parity::summary(&parity::cosines(&images, &reference.images));
                let value = metric(plan, &EmbeddingSet { images, ..words.clone() })?.map(|metric| metric.value);
                Ok(StageRow { cosine, value, ..row })
            }
        }
    };
    Ok(Stages {
        images: reference.images.len(),
        metric: measured.as_ref().map(|metric| metric.name.clone()),
        reference: measured.map(|metric| metric.value),
        rows: stages.into_iter().map(row).collect::<Result<_, HarnessError>>()?,
    })
}

/// The metric that stages are measured by: that of the first task that learns nothing.
fn metric(plan: &Plan, set: &EmbeddingSet) -> Result<Option<Metric>, HarnessError> {
    let plain = [TaskKind::ZeroshotClassification, TaskKind::ZeroshotRetrieval, TaskKind::Counting];
    let tasks: Vec<TaskKind> = plan.tasks.iter().copied().filter(|kind| plain.contains(kind)).collect();
    if tasks.is_empty() && !plan.tasks.is_empty() {
        return Ok(None);
    }
    let plan = Plan {
        dataset: plan.dataset.clone(),
        split: plan.split.clone(),
        root: None,
        tasks,
        shots: Vec::new(),
        bootstrap: Bootstrap { resamples: 0, ..plan.bootstrap },
        decider: plan.decider,
        logit_scale: plan.logit_scale,
    };
    let report = evaluate(&plan, Side { test: set, train: None }, None)?;
    let metrics = report.tasks.into_iter().next().map(|task| task.metrics).unwrap_or_default();
    let whole = metrics.iter().position(|metric| metric.name == "mean_recall").unwrap_or(0);
    Ok(metrics.into_iter().nth(whole))
}
