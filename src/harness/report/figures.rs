//! How figures are written for people, alike in Markdown and HTML.

use super::{Cosines, Device, Metric, Misplaced, Parity, Report, StageRow, Stages, Verdict};

/// A share of 1 as percent with two places.
pub(super) fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

/// A metric's row: name, ours, reference, difference with its interval, ratio with its interval.
pub(super) fn metric_row(metric: &Metric) -> [String; 5] {
    let interval = |ends: Option<[f64; 2]>, unit: f64, places: usize| match ends {
        Some([low, high]) => format!(" [{:+.places$}, {:+.places$}]", low * unit, high * unit),
        None => String::new(),
    };
    let (unit, value): (f64, fn(f64) -> String) =
        if metric.higher_is_better { (100.0, percent) } else { (1.0, |value| format!("{value:.3}")) };
    let ratio_interval = metric.ratio_interval.map(|[low, high]| format!(" [{low:.4}, {high:.4}]")).unwrap_or_default();
    [
        metric.name.clone(),
        value(metric.value),
        metric.reference.map(value).unwrap_or_default(),
        metric
            .difference
            .map(|difference| format!("{:+.2}{}", difference * unit, interval(metric.difference_interval, unit, 2)))
            .unwrap_or_default(),
        metric.ratio.map(|ratio| format!("{ratio:.4}{ratio_interval}")).unwrap_or_default(),
    ]
}

/// Headings of [`metric_row`].
pub(super) const METRIC_HEADINGS: [&str; 5] = ["metric", "int8 here", "reference", "difference", "ratio"];

/// A verdict's figures: what was found, what was asked for, how far it is short.
pub(super) fn verdict_row(verdict: &Verdict) -> [String; 5] {
    let sign = if verdict.at_most { "≤" } else { "≥" };
    [
        verdict.gate.clone(),
        verdict.what.clone(),
        format!("{:.5}", verdict.measured),
        format!("{sign} {:.5}", verdict.required),
        if verdict.passed { String::new() } else { format!("{:.5}", verdict.short_by) },
    ]
}

/// Headings of [`verdict_row`].
pub(super) const VERDICT_HEADINGS: [&str; 5] = ["gate", "of", "found", "asked for", "short by"];

/// The verdict in one line.
pub(super) fn verdict(report: &Report) -> String {
    let Some(gates) = &report.gates else {
        return match &report.device {
            Some(device) if !device.answered_all() => {
                "failed: the device did not answer every picture in time".to_owned()
            }
            _ => "no gates: nothing was judged".to_owned(),
        };
    };
    let failed = gates.verdicts.iter().filter(|verdict| !verdict.passed).count();
    let tier = |tier: f64| format!("{:.4}", tier * 100.0).trim_end_matches('0').trim_end_matches('.').to_owned();
    let reached = gates.reached.map(|reached| format!("; the ratios reach {} %", tier(reached))).unwrap_or_default();
    let asked = format!("tier {} % of the reference", tier(gates.tier));
    match failed {
        0 if gates.passed => format!("passed all {} gates, {asked}{reached}", gates.verdicts.len()),
        _ => format!("failed {failed} of {} gates, {asked}{reached}", gates.verdicts.len()),
    }
}

/// Headings of [`stage_row`].
pub(super) const STAGE_HEADINGS: [&str; 6] = ["stage", "what", "mean cosine", "1st percentile", "least", "metric"];

/// A stage's row; one that is absent has its reason in place of what it is.
pub(super) fn stage_row(stage: &StageRow) -> [String; 6] {
    let cosine =
        |of: fn(&Cosines) -> f64| stage.cosine.as_ref().map_or_else(String::new, |all| format!("{:.5}", of(all)));
    let what = match &stage.absent {
        Some(reason) => format!("absent: {reason}"),
        None => stage.what.clone(),
    };
    let value = stage.value.map(percent).unwrap_or_default();
    [stage.stage.clone(), what, cosine(|all| all.mean), cosine(|all| all.p1), cosine(|all| all.min), value]
}

/// What the stages' table is about, in one line.
pub(super) fn stages_note(stages: &Stages) -> String {
    let reference = match (&stages.metric, stages.reference) {
        (Some(metric), Some(reference)) => format!(", {metric} (reference {})", percent(reference)),
        _ => String::new(),
    };
    format!("on {} pictures, each stage beside the reference: cosine{reference}", stages.images)
}

/// Headings of [`cosine_rows`].
pub(super) const COSINE_HEADINGS: [&str; 5] = ["cosine of", "mean", "median", "1st percentile", "least"];

/// A row for each kind of embedding that both sides have.
pub(super) fn cosine_rows(parity: &Parity) -> impl Iterator<Item = Vec<String>> {
    let cosines =
        [("pictures", Some(parity.cosine)), ("class prompts", parity.text_cosine), ("captions", parity.caption_cosine)];
    cosines.into_iter().filter_map(|(name, cosines)| {
        let cosines = cosines?;
        let figures = [cosines.mean, cosines.median, cosines.p1, cosines.min].map(|cosine| format!("{cosine:.5}"));
        Some(std::iter::once(name.to_owned()).chain(figures).collect())
    })
}

/// On how many pictures both sides agree, a sentence each.
pub(super) fn agreement_notes(parity: &Parity) -> Vec<String> {
    let top1 =
        parity.top1_agreement.map(|share| format!("Both sides give {} of the pictures the same name.", percent(share)));
    let decided = parity.decision_agreement.zip(parity.decided_by.as_ref()).map(|(share, by)| {
        format!(
            "On {} of the pictures the thresholds decide alike on all {} labels of prompt set {}; {} decisions for a tag here, \
             {} of the reference.",
            percent(share),
            by.labels,
            by.set,
            by.active,
            by.reference_active
        )
    });
    top1.into_iter().chain(decided).collect()
}

/// Headings of [`misplaced_row`].
pub(super) const MISPLACED_HEADINGS: [&str; 4] =
    ["picture", "cosine with its own row", "whose row fits", "cosine with that"];

/// A reference row that belongs to another picture.
pub(super) fn misplaced_row(row: &Misplaced) -> Vec<String> {
    vec![row.file.clone(), format!("{:.4}", row.cosine), row.fits.clone(), format!("{:.4}", row.fits_cosine)]
}

/// What the device did, in one line.
pub(super) fn device_note(device: &Device) -> String {
    let names = |what: &str, names: &[String]| match names {
        [] => String::new(),
        names => format!("; {} {what}: {}", names.len(), names.iter().take(10).cloned().collect::<Vec<_>>().join(", ")),
    };
    let [median, p99, max] = device.latency_ms;
    format!(
        "{}: {} of {} pictures answered in time{}{}; from arrival to result {median:.1} ms in the median, {p99:.1} at the 99th \
         percentile, {max:.1} at most",
        device.engine,
        device.answered,
        device.sent,
        names("missing", &device.missing),
        names("late", &device.late)
    )
}

/// What was measured on what, as (name, value) pairs.
pub(super) fn facts(report: &Report) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("data set", report.dataset.clone()),
        ("split", report.split.clone().unwrap_or_default()),
        ("pictures", report.images.to_string()),
        ("captions", if report.captions > 0 { report.captions.to_string() } else { String::new() }),
        ("model", format!("{} ({})", report.subject.name, report.model)),
        ("engine", report.subject.engine.clone().unwrap_or_default()),
        ("bundle SHA-256", report.subject.bundle_sha256.clone().unwrap_or_default()),
        ("checkpoint SHA-256", report.subject.checkpoint_sha256.clone().unwrap_or_default()),
        ("logit scale", format!("{:.3}", report.subject.logit_scale)),
        ("templates", report.prompts.templates.join(" | ")),
        ("made", format!("{} by remoteclipd {}", report.created_at, report.version)),
    ];
    if let Some(parity) = &report.parity {
        facts.push(("reference", parity.reference.path.display().to_string()));
        facts.push(("reference SHA-256", parity.reference.sha256.clone()));
        let metadata = parity.reference.metadata.iter().map(|(key, value)| format!("{key} {value}"));
        facts.push(("reference says", metadata.collect::<Vec<_>>().join(" · ")));
        facts.push((
            "intervals",
            format!(
                "{} % of {} paired bootstrap resamples over pictures, seed {}",
                parity.confidence * 100.0,
                parity.resamples,
                parity.seed
            ),
        ));
    }
    facts.retain(|(_, value)| !value.is_empty());
    facts
}
