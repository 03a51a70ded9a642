//! `manifest.toml`: what it may say, and what makes it unusable. The keys are described in `models/README.md`.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The only manifest format there is.
const FORMAT: u32 = 1;

/// A whole, validated manifest.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    format: u32,
    /// The bundle's name.
    pub name: String,
    /// The network.
    pub model: Model,
    /// What the image tower expects.
    pub image: Image,
    /// What the text tower expects.
    pub text: Text,
    /// How the image tower was quantised.
    pub quantisation: Quantisation,
    /// Parity measured when the bundle was made: free figures, for people.
    #[serde(default)]
    pub parity: toml::Table,
    /// Every file with its size and hash, by name.
    pub files: BTreeMap<String, FileEntry>,
}

/// The network, in OpenCLIP's words.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// OpenCLIP's model name (`ViT-B-32`, `RN50`, …) or the custom config's name.
    pub architecture: String,
    /// The MLPs' activation; two checkpoints can differ in nothing else, so it is stated, never assumed.
    pub activation: Activation,
    /// Width of the joint embedding.
    pub embed_dim: usize,
    /// What cosines are multiplied with before the softmax, already exponentiated (CLIP's is 100).
    pub logit_scale: f32,
    /// File name of the checkpoint it was exported from.
    pub checkpoint: String,
    /// That checkpoint's SHA-256.
    pub checkpoint_sha256: String,
    /// SPDX expression.
    pub license: String,
}

/// The activation of a transformer's MLPs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// Exact GELU (erf).
    Gelu,
    /// OpenAI's `x · sigmoid(1.702 x)`.
    QuickGelu,
}

/// What the image tower expects.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Width and height in pixels.
    pub size: u32,
    /// Mean per channel, of values in 0..1, RGB.
    pub mean: [f32; 3],
    /// Standard deviation per channel, RGB.
    pub std: [f32; 3],
    /// The anti-aliased filter that shortens the shorter side to `size`.
    pub resize: Resize,
}

/// Resampling filters that CLIP models were trained with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resize {
    /// Pillow's bicubic (a = -0.5).
    Bicubic,
    /// Pillow's bilinear.
    Bilinear,
}

/// What the text tower expects.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Text {
    /// Token ids a text, start and end included.
    pub context_length: usize,
    /// Number of token ids.
    pub vocab_size: u32,
    /// Id of the first token of every text.
    pub start_of_text: u32,
    /// Id of the last; the tower reads its answer at this place.
    pub end_of_text: u32,
    /// Id that fills the rest of the context.
    pub pad: u32,
}

/// How the image tower was quantised: words for people, kept with every result through the bundle's hash.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quantisation {
    /// Form of the weights.
    pub weights: String,
    /// Form of the activations.
    pub activations: String,
    /// Number of layers with int8 weights.
    pub layers: u32,
    /// The data it was calibrated on.
    pub calibration: String,
}

/// Size and hash of one file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256, lower-case hex.
    pub sha256: String,
}

impl Manifest {
    /// Parses and validates; the error names field and cure.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let manifest: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), String> {
        let ensure = |holds: bool, message: &str| if holds { Ok(()) } else { Err(message.to_owned()) };
        if self.format != FORMAT {
            return Err(format!(
                "format {} is not {FORMAT}: made by another release; re-export the bundle",
                self.format
            ));
        }
        ensure(self.model.embed_dim > 0, "model.embed_dim must be positive")?;
        ensure(
            self.model.logit_scale.is_finite() && self.model.logit_scale > 0.0,
            "model.logit_scale must be positive (it is stated exponentiated: CLIP's is 100, not 4.6)",
        )?;
        ensure((1..=1024).contains(&self.image.size), "image.size must be between 1 and 1024 pixels")?;
        ensure(
            self.image.mean.iter().all(|mean| mean.is_finite())
                && self.image.std.iter().all(|std| std.is_finite() && *std > 0.0),
            "image.mean must be finite and image.std positive",
        )?;
        ensure(self.text.context_length >= 2, "text.context_length must hold at least the start and end tokens")?;
        for id in [self.text.start_of_text, self.text.end_of_text, self.text.pad] {
            ensure(id < self.text.vocab_size, "text.start_of_text, end_of_text and pad must be below text.vocab_size")?;
        }
        for (name, entry) in &self.files {
            // A manifest is input: it must not lead out of its own folder.
            ensure(
                !name.is_empty() && !name.contains(['/', '\\']) && name != "..",
                "files: a name must be a plain file name in the bundle's folder",
            )?;
            ensure(
                entry.sha256.len() == 64 && entry.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')),
                "files: sha256 must be 64 lower-case hexadecimal digits",
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub const GOOD: &str = r#"
format = 1
name = "tiny"

[model]
architecture = "ViT-B-32"
activation = "quick_gelu"
embed_dim = 512
logit_scale = 100.0
checkpoint = "tiny.pt"
checkpoint_sha256 = "00"
license = "Apache-2.0"

[image]
size = 224
mean = [0.48, 0.45, 0.40]
std = [0.26, 0.26, 0.27]
resize = "bicubic"

[text]
context_length = 77
vocab_size = 49408
start_of_text = 49406
end_of_text = 49407
pad = 0

[quantisation]
weights = "int8 symmetric per output channel"
activations = "per token at run time"
layers = 49
calibration = "none"

[files."image.onnx"]
bytes = 5
sha256 = "9372c470eeadd5ecd9c3c74c2b3cb633f8e2f2fad799250a0f70d652b6b825e4"

[files."text.onnx"]
bytes = 3
sha256 = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

[files."tokenizer.json"]
bytes = 3
sha256 = "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
"#;

    #[test]
    fn a_good_manifest_is_taken() {
        let manifest = Manifest::parse(GOOD).unwrap();
        assert_eq!(manifest.model.activation, Activation::QuickGelu);
        assert_eq!(manifest.files.len(), 3);
    }

    #[test]
    fn each_bad_value_is_named() {
        for (good, bad, named) in [
            ("format = 1", "format = 9", "format 9"),
            ("quick_gelu", "swish", "swish"),
            ("logit_scale = 100.0", "logit_scale = 0.0", "logit_scale"),
            ("size = 224", "size = 0", "image.size"),
            ("std = [0.26,", "std = [0.0,", "image.std"),
            ("context_length = 77", "context_length = 1", "context_length"),
            ("pad = 0", "pad = 60000", "vocab_size"),
            ("\"text.onnx\"", "\"../text.onnx\"", "plain file name"),
            ("9372c470", "XXXX", "sha256"),
            ("resize = \"bicubic\"", "resize = \"bicubic\"\nzoom = 2", "zoom"),
        ] {
            let error = Manifest::parse(&GOOD.replace(good, bad)).unwrap_err();
            assert!(error.contains(named), "{bad}: {error}");
        }
    }
}
