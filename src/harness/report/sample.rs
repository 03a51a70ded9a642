//! A report for the tests of its renderers: everything in it, names as bad as they come.

use std::path::PathBuf;

use super::*;

/// Ends an element, an attribute, a script, a table cell.
pub(super) const HOSTILE: &str = "</td><script>alert(\"1\")</script>|'&\n# x";

pub(super) fn report(picture: Option<PathBuf>) -> Report {
    let classes = vec!["forest".to_owned(), HOSTILE.to_owned(), "parking lot".to_owned()];
    let worst = |file: &str, path: Option<PathBuf>| WorstImage {
        file: file.to_owned(),
        path,
        cosine: 0.9123,
        label: Some(HOSTILE.to_owned()),
        ours: Some(Named { class: "forest".to_owned(), probability: 0.61 }),
        reference: Some(Named { class: HOSTILE.to_owned(), probability: 0.52 }),
    };
    let cosines = Cosines { mean: 0.9991, p1: 0.99, median: 0.9995, min: 0.9123 };
    let bin = |low: f64, images: usize| ReliabilityBin {
        low,
        high: low + 0.1,
        images,
        confidence: if images > 0 { low + 0.05 } else { 0.0 },
        accuracy: if images > 0 { low } else { 0.0 },
    };
    let bins: Vec<_> = (0..10u8).map(|at| bin(f64::from(at) / 10.0, usize::from(at) * 3)).collect();
    let metric = |name: &str, value: f64, reference: f64| Metric {
        name: name.to_owned(),
        value,
        reference: Some(reference),
        difference: Some(value - reference),
        ratio: Some(value / reference),
        difference_interval: Some([-0.02, 0.01]),
        ratio_interval: Some([0.978, 1.012]),
        higher_is_better: name != "count_mae",
        lost: Vec::new(),
    };
    let recall = |(name, recall): (&String, f64)| ClassRecall {
        name: name.clone(),
        images: 10,
        recall,
        reference: Some(0.9),
        lost: Vec::new(),
    };
    let counts = vec![vec![9, 1, 0], vec![0, 10, 0], vec![2, 0, 8]];
    let task = Task {
        task: "zeroshot_classification".to_owned(),
        setting: Some(HOSTILE.to_owned()),
        metrics: vec![metric("acc1", 0.9, 0.92), metric("count_mae", 1.25, 1.5)],
        classes: classes.iter().zip([0.9, 1.0, 0.8]).map(recall).collect(),
        confusion: Some(Confusion { classes: classes.clone(), counts: counts.clone(), reference: Some(counts) }),
        reliability: Some(Reliability {
            bins: bins.clone(),
            ece: 0.05,
            reference_bins: Some(bins),
            reference_ece: Some(0.04),
        }),
    };
    let verdict = |gate: &str, passed: bool| Verdict {
        gate: gate.to_owned(),
        what: HOSTILE.to_owned(),
        measured: 0.978,
        required: 0.99,
        at_most: false,
        passed,
        short_by: if passed { 0.0 } else { 0.012 },
        images: vec![HOSTILE.to_owned()],
    };
    Report {
        dataset: HOSTILE.to_owned(),
        model: "RN50".to_owned(),
        pretrained: "default".to_owned(),
        task: "zeroshot_classification".to_owned(),
        metrics: BTreeMap::from([("acc1".to_owned(), 0.9)]),
        language: "en".to_owned(),
        schema: SCHEMA.to_owned(),
        percent: BTreeMap::from([("acc1".to_owned(), 90.0)]),
        split: Some("test".to_owned()),
        created_at: "2026-01-01T00:00:00Z".to_owned(),
        version: "0.0.0".to_owned(),
        subject: Subject {
            name: "default".to_owned(),
            bundle_sha256: Some("a".repeat(64)),
            checkpoint_sha256: None,
            engine: Some("portable".to_owned()),
            logit_scale: 100.0,
        },
        prompts: Prompts {
            class_words: classes.clone(),
            classes,
            templates: vec!["a photo of {}.".to_owned()],
            sha256: None,
        },
        images: 30,
        captions: 0,
        root: None,
        tasks: vec![task],
        parity: Some(Parity {
            reference: ReferenceFacts {
                path: PathBuf::from("ucm-test.safetensors"),
                sha256: "b".repeat(64),
                metadata: BTreeMap::from([("device".to_owned(), HOSTILE.to_owned())]),
            },
            images: 30,
            cosine: cosines,
            text_cosine: Some(cosines),
            caption_cosine: None,
            histogram: Histogram { edges: vec![0.9, 0.95, 1.0], counts: vec![1, 29] },
            top1_agreement: Some(0.97),
            decision_agreement: Some(0.99),
            decided_by: Some(DecidedBy {
                set: HOSTILE.to_owned(),
                pack: "c".repeat(64),
                labels: 24,
                active: 28,
                reference_active: 27,
            }),
            worst: vec![
                worst(HOSTILE, picture),
                worst("gone.jpg", Some(PathBuf::from("/nowhere/gone.jpg"))),
                worst("row 7", None),
            ],
            disagreements: vec![worst("b.jpg", None)],
            misplaced: vec![Misplaced {
                file: HOSTILE.to_owned(),
                cosine: 0.4,
                fits: "c.jpg".to_owned(),
                fits_cosine: 0.99,
            }],
            resamples: 1000,
            seed: 0,
            confidence: 0.95,
        }),
        stages: Some(Stages {
            images: 30,
            metric: Some("acc1".to_owned()),
            reference: Some(0.92),
            rows: vec![
                StageRow {
                    stage: "int8".to_owned(),
                    what: "what flies".to_owned(),
                    cosine: Some(cosines),
                    value: Some(0.9),
                    absent: None,
                },
                StageRow {
                    stage: "decode".to_owned(),
                    what: "our decoder".to_owned(),
                    cosine: None,
                    value: None,
                    absent: Some(HOSTILE.to_owned()),
                },
            ],
        }),
        device: Some(Device {
            engine: "neon on remoteclip/v1/uav-1".to_owned(),
            sent: 30,
            answered: 28,
            missing: vec![HOSTILE.to_owned()],
            late: vec!["b.jpg".to_owned()],
            latency_ms: [3.0, 9.0, 12.5],
        }),
        gates: Some(Gates {
            file: "config/parity.toml".to_owned(),
            tier: 0.99,
            reached: None,
            passed: false,
            verdicts: vec![verdict("cosine", true), verdict("tier", false)],
        }),
        warnings: vec![HOSTILE.to_owned()],
    }
}
