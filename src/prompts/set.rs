//! A prompt set: labels with their texts, templates and background texts, read from TOML and validated.
//! The keys are described in `docs/reference/prompts.md`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

/// Where a template takes the text.
const PLACE: &str = "{}";

/// A validated prompt set.
#[derive(Debug, Clone)]
pub struct PromptSet {
    /// Its name.
    pub name: String,
    /// Sentences with one `{}`; `{}` alone uses a text as it is.
    pub templates: Vec<String>,
    /// What is looked for; at least one, names unique.
    pub labels: Vec<Label>,
    /// What is anything but a label: they compete in the softmax and are never reported as tags.
    pub background: Vec<String>,
    /// SHA-256 of the file, lower-case hex.
    pub sha256: String,
}

/// One label.
#[derive(Debug, Clone)]
pub struct Label {
    /// The name that is published.
    pub name: String,
    /// Texts that describe it; at least one.
    pub texts: Vec<String>,
    /// A tag is entered when its score reaches this; 0..1.
    pub enter: f32,
    /// And left when it falls below this; at most `enter`.
    pub exit: f32,
}

/// The file as written. Unknown keys are errors: a misspelt `threshold` must not pass as the default.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSet {
    name: String,
    #[serde(default = "default_templates")]
    templates: Vec<String>,
    #[serde(default = "default_threshold")]
    threshold: f32,
    #[serde(default = "default_hysteresis")]
    hysteresis: f32,
    #[serde(default)]
    background: Vec<String>,
    #[serde(default)]
    label: Vec<RawLabel>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLabel {
    name: String,
    #[serde(default)]
    texts: Vec<String>,
    threshold: Option<f32>,
    hysteresis: Option<f32>,
}

fn default_templates() -> Vec<String> {
    vec!["a satellite photo of {}.".to_owned()]
}

/// The threshold where a set states none.
pub const DEFAULT_THRESHOLD: f32 = 0.5;
/// The hysteresis where a set states none.
pub const DEFAULT_HYSTERESIS: f32 = 0.15;

fn default_threshold() -> f32 {
    DEFAULT_THRESHOLD
}

fn default_hysteresis() -> f32 {
    DEFAULT_HYSTERESIS
}

impl PromptSet {
    /// Reads and validates a prompt set.
    ///
    /// # Errors
    /// [`SetError`] naming file, field and cure.
    pub fn read(path: &Path) -> Result<Self, SetError> {
        let text = std::fs::read_to_string(path).map_err(|source| SetError::Read { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|reason| SetError::Invalid { path: path.to_owned(), reason })
    }

    /// Parses and validates the text of a prompt set; the error names field and cure.
    ///
    /// # Errors
    /// The field and the cure.
    pub fn parse(text: &str) -> Result<Self, String> {
        let raw: RawSet = toml::from_str(text).map_err(|error| error.to_string())?;
        if raw.label.is_empty() {
            return Err("the set has no labels; add at least one [[label]] with a name".to_owned());
        }
        for template in &raw.templates {
            if template.matches(PLACE).count() != 1 {
                return Err(format!("template \"{template}\" must contain {{}} exactly once"));
            }
        }
        if raw.templates.is_empty() {
            return Err("templates is empty; leave it out for the default or write [\"{}\"]".to_owned());
        }
        if let Some(blank) = raw.background.iter().find(|text| text.trim().is_empty()) {
            return Err(format!("background has the blank text \"{blank}\""));
        }
        let labels = raw
            .label
            .into_iter()
            .map(|label| label.validated(raw.threshold, raw.hysteresis))
            .collect::<Result<Vec<_>, _>>()?;
        refuse_duplicates(&labels)?;
        Ok(Self {
            name: raw.name,
            templates: raw.templates,
            labels,
            background: raw.background,
            sha256: hex::encode(Sha256::digest(text.as_bytes())),
        })
    }

    /// A text in every template: the sentences whose embeddings are averaged.
    pub fn sentences(&self, text: &str) -> Vec<String> {
        sentences(&self.templates, text)
    }
}

/// A text in each of `templates`.
pub fn sentences(templates: &[String], text: &str) -> Vec<String> {
    templates.iter().map(|template| template.replace(PLACE, text)).collect()
}

impl RawLabel {
    fn validated(self, threshold: f32, hysteresis: f32) -> Result<Label, String> {
        let name = self.name;
        // A name is one level of an MQTT topic, where these characters mean something else (MQTT 5, 4.7).
        if name.trim().is_empty()
            || name.len() > 64
            || name.contains(['/', '+', '#'])
            || name.contains(char::is_control)
        {
            return Err(format!(
                "label \"{name}\": a name is 1 to 64 bytes without / + # (it becomes an MQTT topic level)"
            ));
        }
        let texts = if self.texts.is_empty() { vec![name.clone()] } else { self.texts };
        if texts.iter().any(|text| text.trim().is_empty()) {
            return Err(format!("label \"{name}\" has a blank text"));
        }
        let enter = self.threshold.unwrap_or(threshold);
        let hysteresis = self.hysteresis.unwrap_or(hysteresis);
        if !(enter > 0.0 && enter <= 1.0) {
            return Err(format!("label \"{name}\": threshold {enter} must be above 0 and at most 1"));
        }
        if !(0.0..enter).contains(&hysteresis) {
            return Err(format!(
                "label \"{name}\": hysteresis {hysteresis} must be at least 0 and below its threshold {enter}"
            ));
        }
        Ok(Label { name, texts, enter, exit: enter - hysteresis })
    }
}

/// A label's topic level: its name with white space as `-`.
pub fn topic_level(name: &str) -> String {
    name.split_whitespace().collect::<Vec<_>>().join("-")
}

fn refuse_duplicates(labels: &[Label]) -> Result<(), String> {
    let mut seen = BTreeMap::new();
    for label in labels {
        if let Some(other) = seen.insert(topic_level(&label.name), &label.name) {
            return Err(format!(
                "label \"{}\" is a duplicate of \"{other}\"; give each label one [[label]]",
                label.name
            ));
        }
    }
    Ok(())
}

/// Why a prompt set cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SetError {
    /// The file could not be read.
    #[error("cannot read prompt set {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not a valid prompt set.
    #[error("prompt set {path}: {reason}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Field and cure.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
name = "test"
templates = ["a photo of {}.", "{}"]
threshold = 0.6
hysteresis = 0.1
background = ["a blurry picture"]

[[label]]
name = "parking lot"
texts = ["a parking lot", "parked cars"]
threshold = 0.4

[[label]]
name = "forest"
"#;

    #[test]
    fn defaults_and_overrides_apply() {
        let set = PromptSet::parse(GOOD).unwrap();
        assert_eq!((set.labels[0].enter, set.labels[1].enter), (0.4, 0.6));
        assert!((set.labels[1].exit - 0.5).abs() < 1e-6);
        assert_eq!(set.labels[1].texts, ["forest"]);
        assert_eq!(set.sentences("a forest"), ["a photo of a forest.", "a forest"]);
    }

    #[test]
    fn each_mistake_is_named_in_one_sentence() {
        for (good, bad, named) in [
            ("[[label]]\nname = \"forest\"", "[[label]]\nname = \"parking  lot\"", "duplicate of \"parking lot\""),
            ("a photo of {}.", "a photo.", "exactly once"),
            ("threshold = 0.4", "threshold = 1.4", "threshold 1.4"),
            ("threshold = 0.4", "treshold = 0.4", "treshold"),
            ("hysteresis = 0.1", "hysteresis = 0.7", "hysteresis 0.7"),
            ("\"parked cars\"", "\" \"", "blank text"),
            ("\"a blurry picture\"", "\"\"", "blank text"),
            ("name = \"forest\"", "name = \"for/est\"", "for/est"),
        ] {
            let error = PromptSet::parse(&GOOD.replacen(good, bad, 1)).unwrap_err();
            assert!(error.contains(named), "{bad}: {error}");
        }
        assert!(PromptSet::parse("name = \"x\"").unwrap_err().contains("no labels"));
    }
}
