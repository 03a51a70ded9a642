//! Gates: what a report must show before a build may fly. Read from TOML; `config/parity.toml` is built in.
//!
//! Promise: a verdict names the figure, what was asked, by how much it falls short and the pictures that did it. Gates
//! that would judge nothing are an error.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::HarnessError;
use super::report::{self, Metric, Parity, Report, Verdict};

const BUILT_IN: &str = include_str!("../../config/parity.toml");
/// Shares are ratios of small counts: below this they are equal.
const ROUNDING: f64 = 1e-9;
const MOST_IMAGES: usize = 10;

/// What is asked.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gates {
    #[serde(skip)]
    file: String,
    tier: f64,
    aim: f64,
    ratio: Ratio,
    cosine: Cosine,
    agreement: Agreement,
    recall_drop: RecallDrop,
    #[serde(default)]
    floor: Vec<Floor>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ratio {
    metrics: Vec<String>,
    #[serde(default)]
    within_one_picture: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cosine {
    mean: f64,
    p1: f64,
    min: f64,
    text: f64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Agreement {
    top1: f64,
    decisions: f64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecallDrop {
    most: f64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Floor {
    dataset: String,
    split: Option<String>,
    model: Option<String>,
    metrics: BTreeMap<String, f64>,
}

impl Gates {
    /// Those of the program: `config/parity.toml` as it was when it was built.
    ///
    /// # Errors
    /// Never, unless the build was tampered with: a test reads the same text.
    pub fn built_in() -> Result<Self, HarnessError> {
        Self::parse(BUILT_IN, "built-in").map_err(HarnessError::Form)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`HarnessError`] naming file and field.
    pub fn read(path: &Path) -> Result<Self, HarnessError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| HarnessError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, &path.display().to_string())
            .map_err(|reason| HarnessError::File { path: path.to_owned(), reason })
    }

    fn parse(text: &str, file: &str) -> Result<Self, String> {
        let gates: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        let shares = [
            ("tier", gates.tier),
            ("aim", gates.aim),
            ("cosine.mean", gates.cosine.mean),
            ("cosine.p1", gates.cosine.p1),
            ("cosine.min", gates.cosine.min),
            ("cosine.text", gates.cosine.text),
            ("agreement.top1", gates.agreement.top1),
            ("agreement.decisions", gates.agreement.decisions),
            ("recall_drop.most", gates.recall_drop.most),
        ];
        let floors = gates.floor.iter().flat_map(|floor| &floor.metrics).map(|(name, value)| (name.as_str(), *value));
        for (name, value) in shares.into_iter().chain(floors) {
            if !(0.0..=1.0).contains(&value) {
                return Err(format!("{name} = {value} is not a share between 0 and 1"));
            }
        }
        if gates.ratio.metrics.is_empty() {
            return Err("ratio.metrics is empty; name at least acc1 or mean_recall".to_owned());
        }
        Ok(Self { file: file.to_owned(), ..gates })
    }

    /// Asks for another tier.
    #[must_use]
    pub fn with_tier(self, tier: Option<f64>) -> Self {
        Self { tier: tier.unwrap_or(self.tier), ..self }
    }

    /// The verdict; none when there is neither a reference nor a floor for this data set.
    ///
    /// # Errors
    /// [`HarnessError::Form`] when a floor or every ratio asks for figures that were not measured.
    pub fn judge(&self, report: &Report) -> Result<Option<report::Gates>, HarnessError> {
        let mut verdicts = self.floors(report)?;
        if let Some(parity) = &report.parity {
            let ratios = self.ratios(report, self.tier);
            if ratios.is_empty() {
                return Err(HarnessError::Form(format!(
                    "the gates ({}) compare nothing: none of {} was measured on both sides; --no-gates measures without a verdict",
                    self.file,
                    self.ratio.metrics.join(", ")
                )));
            }
            verdicts.extend(ratios);
            verdicts.extend(self.cosines(parity));
            verdicts.extend(self.agreements(parity));
            verdicts.extend(self.recall_drops(report));
            verdicts.push(rows(parity));
        }
        if verdicts.is_empty() {
            return Ok(None);
        }
        let reaches = |tier: &f64| self.ratios(report, *tier).iter().all(|verdict| verdict.passed);
        let reached = report.parity.as_ref().and_then(|_| [self.aim, self.tier].into_iter().find(reaches));
        Ok(Some(report::Gates {
            file: self.file.clone(),
            tier: self.tier,
            reached,
            passed: verdicts.iter().all(|verdict| verdict.passed),
            verdicts,
        }))
    }

    fn floors(&self, report: &Report) -> Result<Vec<Verdict>, HarnessError> {
        let applies = |floor: &&Floor| {
            floor.dataset == report.dataset
                && floor.split.as_ref().is_none_or(|split| Some(split) == report.split.as_ref())
                && floor.model.as_ref().is_none_or(|model| *model == report.pretrained)
        };
        let floors = self.floor.iter().filter(applies).flat_map(|floor| &floor.metrics);
        // A floor of retrieval says nothing of a data set without captions, and so on: only what was run is judged.
        let judged = floors.filter_map(|(name, least)| Some((report.metric(name)?, *least)));
        let verdict = |(metric, least): (&Metric, f64)| {
            Verdict::at_least("floor", &metric.name, metric.value, least, metric.lost.clone())
        };
        let applied = self.floor.iter().any(|floor| applies(&floor));
        let verdicts: Vec<_> = judged.map(verdict).collect();
        if applied && verdicts.is_empty() {
            return Err(HarnessError::Form(format!(
                "the floors of {} ({}) ask for none of the metrics that were measured",
                report.dataset, self.file
            )));
        }
        Ok(verdicts)
    }

    fn ratios(&self, report: &Report, tier: f64) -> Vec<Verdict> {
        let of = |names: &[String], forgiven: f64| -> Vec<Verdict> {
            let verdict = |name: &String| {
                let metric = report.metric(name)?;
                let reference = metric.reference?;
                // A reference of nothing is matched by anything.
                let ratio = metric.ratio.unwrap_or(1.0);
                let required = if reference > 0.0 { tier.min(1.0 - forgiven / reference) } else { tier };
                Some(Verdict::at_least("ratio", name, ratio, required, metric.lost.clone()))
            };
            names.iter().filter_map(verdict).collect()
        };
        let mut verdicts = of(&self.ratio.metrics, 0.0);
        verdicts.extend(of(&self.ratio.within_one_picture, 1.0 / report.images as f64));
        verdicts
    }

    fn cosines(&self, parity: &Parity) -> Vec<Verdict> {
        let worst: Vec<String> = parity.worst.iter().take(MOST_IMAGES).map(|image| image.file.clone()).collect();
        let of = |what: &str, measured, required| Verdict::at_least("cosine", what, measured, required, worst.clone());
        let mut verdicts = vec![
            of("mean", parity.cosine.mean, self.cosine.mean),
            of("first percentile", parity.cosine.p1, self.cosine.p1),
            of("least", parity.cosine.min, self.cosine.min),
        ];
        for (what, cosines) in [("prompts", &parity.text_cosine), ("captions", &parity.caption_cosine)] {
            verdicts.extend(cosines.as_ref().map(|cosines| {
                Verdict::at_least("cosine", &format!("least of {what}"), cosines.min, self.cosine.text, Vec::new())
            }));
        }
        verdicts
    }

    fn agreements(&self, parity: &Parity) -> Vec<Verdict> {
        let images = |shown: bool| match shown {
            true => parity.disagreements.iter().take(MOST_IMAGES).map(|image| image.file.clone()).collect(),
            false => Vec::new(),
        };
        let both = [
            ("top-1 agreement", parity.top1_agreement, self.agreement.top1, true),
            ("decision agreement", parity.decision_agreement, self.agreement.decisions, false),
        ];
        let verdict = |(what, measured, required, shown): (&str, Option<f64>, f64, bool)| {
            Some(Verdict::at_least("agreement", what, measured?, required, images(shown)))
        };
        both.into_iter().filter_map(verdict).collect()
    }

    fn recall_drops(&self, report: &Report) -> Vec<Verdict> {
        let classes = report.tasks.iter().find(|task| task.task == "zeroshot_classification").map(|task| &task.classes);
        let verdict = |class: &report::ClassRecall| {
            let drop = class.reference? - class.recall;
            Some(Verdict::at_most("recall_drop", &class.name, drop, self.recall_drop.most, class.lost.clone()))
        };
        classes.into_iter().flatten().filter(|class| class.images > 0).filter_map(verdict).collect()
    }
}

/// Rows that fit another picture: a reference that is out of order proves nothing.
fn rows(parity: &Parity) -> Verdict {
    let told = |row: &report::Misplaced| format!("{} (its row fits {})", row.file, row.fits);
    let images = parity.misplaced.iter().take(MOST_IMAGES).map(told).collect();
    Verdict::at_most("rows", "reference rows that fit another picture", parity.misplaced.len() as f64, 0.0, images)
}

impl Verdict {
    fn at_least(gate: &str, what: &str, measured: f64, required: f64, images: Vec<String>) -> Self {
        Self::of(gate, what, [measured, required], false, required - measured, images)
    }

    fn at_most(gate: &str, what: &str, measured: f64, required: f64, images: Vec<String>) -> Self {
        Self::of(gate, what, [measured, required], true, measured - required, images)
    }

    fn of(
        gate: &str,
        what: &str,
        [measured, required]: [f64; 2],
        at_most: bool,
        short: f64,
        images: Vec<String>,
    ) -> Self {
        let passed = short <= ROUNDING;
        Self {
            gate: gate.to_owned(),
            what: what.to_owned(),
            measured,
            required,
            at_most,
            passed,
            short_by: if passed { 0.0 } else { short },
            images,
        }
    }

    /// One line for people.
    pub fn sentence(&self) -> String {
        let bound = if self.at_most { "at most" } else { "at least" };
        let images = match self.images.is_empty() || self.passed {
            true => String::new(),
            false => format!(": {}", self.images.join(", ")),
        };
        let short = if self.passed { String::new() } else { format!(", off by {:.5}", self.short_by) };
        format!("{} {}: {:.5}, asked {bound} {:.5}{short}{images}", self.gate, self.what, self.measured, self.required)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_gates_are_sane() {
        let gates = Gates::built_in().unwrap();
        assert_eq!((gates.tier, gates.aim), (0.99, 0.999));
        assert!(gates.floor.iter().any(|floor| floor.dataset == "eurosat"));
    }

    #[test]
    fn mistakes_are_named() {
        for (good, bad, named) in [
            ("tier = 0.99", "tier = 99", "tier = 99"),
            ("acc1 = 0.93", "acc1 = 93", "acc1 = 93"),
            ("p1 = 0.995", "p5 = 0.995", "p5"),
            ("metrics = [\"acc1\"", "metrics = [] # [\"acc1\"", "ratio.metrics is empty"),
        ] {
            let error = Gates::parse(&BUILT_IN.replacen(good, bad, 1), "x").unwrap_err();
            assert!(error.contains(named), "{bad}: {error}");
        }
    }

    #[test]
    fn a_verdict_tells_by_how_much_and_on_what() {
        let short = Verdict::at_least("ratio", "acc1", 0.98, 0.99, vec!["a/1.jpg".to_owned()]);
        assert_eq!(short.sentence(), "ratio acc1: 0.98000, asked at least 0.99000, off by 0.01000: a/1.jpg");
        assert!(Verdict::at_least("ratio", "acc1", 0.99 - 1e-12, 0.99, Vec::new()).passed);
        assert!(!Verdict::at_most("rows", "x", 1.0, 0.0, Vec::new()).passed);
    }
}
