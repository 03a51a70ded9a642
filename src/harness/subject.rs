//! Our side of a comparison: a bundle's towers over a data set.

use std::collections::BTreeMap;

use super::HarnessError;
use super::dataset::DataSet;
use super::embed::{self, Embedded};
use super::embeddings::{Captions, EmbeddingSet};
use super::tensors::Matrix;
use crate::bundle::Bundle;
use crate::prompts::pack::Pack;
use crate::prompts::text::TextTower;
use crate::vision::int8::KernelChoice;

/// When nothing else is said.
pub const TEMPLATE: &str = "a satellite photo of {}.";

/// The words a data set's classes are looked for with.
#[derive(Debug, Clone)]
pub enum Wording {
    /// Words for each of the data set's classes, in its order, each put into each template.
    Templates {
        /// For each class.
        words: Vec<String>,
        /// Each with one `{}`.
        templates: Vec<String>,
    },
    /// The labels of a prompt pack; each data set class is the label at `label_of`.
    Pack {
        /// Made with this bundle's text side.
        pack: Box<Pack>,
        /// In the data set's class order.
        label_of: Vec<usize>,
    },
}

/// Embeds a data set with its prompts and captions.
///
/// # Errors
/// [`HarnessError`] naming the picture, the sentence or the file.
pub fn measure(
    bundle: &Bundle,
    data: &DataSet,
    wording: &Wording,
    options: &embed::Options,
) -> Result<EmbeddingSet, HarnessError> {
    // Texts first: a prompt that is too long should not be told after an hour of pictures.
    let words = words(bundle, data, wording)?;
    let embedded = embed::embed(bundle, data, options)?;
    if embedded.cached > 0 {
        log::info!("{} of {} pictures were embedded before", embedded.cached, data.files.len());
    }
    Ok(with_pictures(words, embedded))
}

/// All of a data set's side but the pictures' embeddings.
///
/// # Errors
/// [`HarnessError`] naming the sentence or the file.
pub fn words(bundle: &Bundle, data: &DataSet, wording: &Wording) -> Result<EmbeddingSet, HarnessError> {
    let tower = TextTower::load(bundle)?;
    let width = bundle.manifest().model.embed_dim;
    let mut set = prompts(&tower, data, wording, width)?;
    let (sentences, image): (Vec<String>, Vec<usize>) = data.captions.iter().cloned().unzip();
    let embeddings = Matrix::of_rows(width, tower.embed(&sentences)?);
    set.captions = Captions { texts: sentences, embeddings, image };
    Ok(EmbeddingSet { files: data.files.clone(), metadata: facts(bundle), ..set })
}

/// A side with its pictures' embeddings, in the order of its files.
pub fn with_pictures(words: EmbeddingSet, embedded: Embedded) -> EmbeddingSet {
    EmbeddingSet { images: embedded.images, image_sha256: embedded.sha256, ..words }
}

/// Classes, words and their vectors.
fn prompts(tower: &TextTower, data: &DataSet, wording: &Wording, width: usize) -> Result<EmbeddingSet, HarnessError> {
    match wording {
        Wording::Templates { words, templates } if !data.classes.is_empty() => {
            let sentences =
                |template: &String| words.iter().map(|words| template.replace("{}", words)).collect::<Vec<_>>();
            let texts = templates.iter().map(|template| Ok(Matrix::of_rows(width, tower.embed(&sentences(template))?)));
            Ok(EmbeddingSet {
                labels: data.labels.clone(),
                classes: data.classes.clone(),
                class_words: words.clone(),
                templates: templates.clone(),
                texts: texts.collect::<Result<_, HarnessError>>()?,
                ..EmbeddingSet::default()
            })
        }
        Wording::Templates { .. } => Ok(EmbeddingSet::default()),
        Wording::Pack { pack, label_of } => {
            let header = pack.header();
            Ok(EmbeddingSet {
                labels: data.labels.iter().map(|class| label_of[*class]).collect(),
                classes: header.labels.iter().map(|label| label.name.clone()).collect(),
                class_words: header.labels.iter().map(|label| label.texts.join(" | ")).collect(),
                // Already averaged over the set's templates: one row a label.
                templates: vec![header.templates.join(" | ")],
                texts: vec![Matrix::of_rows(width, pack.rows().take(header.labels.len()))],
                ..EmbeddingSet::default()
            })
        }
    }
}

/// What the embeddings depend on besides the pictures, under `reference.py`'s names.
fn facts(bundle: &Bundle) -> BTreeMap<String, String> {
    let model = &bundle.manifest().model;
    let facts = [
        ("bundle", bundle.manifest().name.clone()),
        ("bundle_sha256", bundle.id().to_owned()),
        ("architecture", model.architecture.clone()),
        ("activation", format!("{:?}", model.activation).to_lowercase()),
        ("checkpoint_sha256", model.checkpoint_sha256.clone()),
        ("logit_scale", model.logit_scale.to_string()),
        ("device", format!("cpu ({})", KernelChoice::best().name)),
        ("dtype", bundle.manifest().quantisation.weights.clone()),
        ("engine", format!("remoteclipd {}", env!("CARGO_PKG_VERSION"))),
    ];
    facts.map(|(key, value)| (key.to_owned(), value)).into()
}
