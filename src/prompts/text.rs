//! The text tower: sentences → unit vectors. The only user of `tokenizers`; runs on the host, never on the drone.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::thread;

use tokenizers::Tokenizer;
use tract_core::internal::format_err;
use tract_onnx::prelude::*;

use crate::bundle::{Bundle, BundleError, TEXT_ONNX, TOKENIZER, Text};
use crate::prompts::pack::{Header, Pack, PackError, PackLabel};
use crate::prompts::set::PromptSet;

/// A bundle's tokenizer and text tower, ready to embed.
pub struct TextTower {
    tokenizer: Tokenizer,
    plan: Arc<TypedRunnableModel>,
    text: Text,
    embed_dim: usize,
    vocabulary: Option<HashSet<String>>,
    bundle: String,
    text_id: String,
}

impl TextTower {
    /// Loads the verified text side of a bundle.
    ///
    /// # Errors
    /// [`TextError`] naming the file that is missing, altered or not usable.
    pub fn load(bundle: &Bundle) -> Result<Self, TextError> {
        let path = bundle.verified(TOKENIZER)?;
        let tokenizer =
            Tokenizer::from_file(&path).map_err(|error| TextError::Model { path, reason: error.to_string() })?;
        let path = bundle.verified(TEXT_ONNX)?;
        let text = bundle.manifest().text.clone();
        let plan = load_plan(&path, text.context_length)
            .map_err(|error| TextError::Model { path, reason: format!("{error:#}") })?;
        Ok(Self {
            tokenizer,
            plan,
            text,
            embed_dim: bundle.manifest().model.embed_dim,
            vocabulary: bundle.vocabulary()?.map(HashSet::from_iter),
            bundle: bundle.manifest().name.clone(),
            text_id: bundle.text_id(),
        })
    }

    /// The words of `set` that this text tower was never trained on, each once, sorted; empty when the bundle carries no
    /// vocabulary. They mean nothing to it, so whoever compiles the set should be told.
    pub fn unknown_words(&self, set: &PromptSet) -> BTreeSet<String> {
        let Some(vocabulary) = &self.vocabulary else { return BTreeSet::new() };
        let texts = set.labels.iter().flat_map(|label| &label.texts).chain(&set.background).chain(&set.templates);
        texts.flat_map(|text| words(text)).filter(|word| !vocabulary.contains(word)).collect()
    }

    /// Embeds a prompt set as `clip_benchmark` does: each sentence normalised, averaged over a label's texts and
    /// templates, normalised again.
    ///
    /// # Errors
    /// [`TextError`] naming the sentence.
    pub fn compile(&self, set: &PromptSet) -> Result<Pack, TextError> {
        let background = set.background.iter().map(std::slice::from_ref);
        let rows = set.labels.iter().map(|label| label.texts.as_slice()).chain(background);
        let sentences: Vec<Vec<String>> =
            rows.map(|texts| texts.iter().flat_map(|text| set.sentences(text)).collect()).collect();
        let mut vectors = self.embed(&sentences.concat())?.into_iter();
        let embeddings = sentences.iter().flat_map(|row| mean_direction(vectors.by_ref().take(row.len()))).collect();
        let labels = set.labels.iter().map(|label| PackLabel {
            name: label.name.clone(),
            texts: label.texts.clone(),
            enter: label.enter,
            exit: label.exit,
        });
        let header = Header {
            set: set.name.clone(),
            set_sha256: set.sha256.clone(),
            bundle: self.bundle.clone(),
            text_id: self.text_id.clone(),
            embed_dim: self.embed_dim,
            templates: set.templates.clone(),
            labels: labels.collect(),
            background: set.background.clone(),
        };
        Ok(Pack::new(header, embeddings)?)
    }

    /// L2-normalised embeddings of sentences, in their order, each of the bundle's `embed_dim`.
    ///
    /// # Errors
    /// [`TextError`] naming the sentence that is too long or whose embedding is not finite.
    pub fn embed(&self, sentences: &[String]) -> Result<Vec<Vec<f32>>, TextError> {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let share = sentences.len().div_ceil(threads).max(1);
        thread::scope(|scope| {
            let parts: Vec<_> = sentences
                .chunks(share)
                .map(|part| scope.spawn(|| part.iter().map(|sentence| self.embed_one(sentence)).collect()))
                .collect();
            let parts =
                parts.into_iter().map(|part| part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            Ok(parts.collect::<Result<Vec<Vec<_>>, _>>()?.concat())
        })
    }

    fn embed_one(&self, sentence: &str) -> Result<Vec<f32>, TextError> {
        let tokens = self.tokens(sentence)?;
        let embedding = self
            .run(&tokens)
            .map_err(|error| TextError::Run { sentence: sentence.to_owned(), reason: format!("{error:#}") })?;
        let norm = embedding.iter().map(|value| value * value).sum::<f32>().sqrt();
        if !norm.is_normal() {
            return Err(TextError::NotFinite { sentence: sentence.to_owned() });
        }
        Ok(embedding.into_iter().map(|value| value / norm).collect())
    }

    /// Token ids, padded to the context length.
    fn tokens(&self, sentence: &str) -> Result<Vec<i64>, TextError> {
        let encoding = self
            .tokenizer
            .encode(sentence, true)
            .map_err(|error| TextError::Run { sentence: sentence.to_owned(), reason: error.to_string() })?;
        let ids = encoding.get_ids();
        if ids.len() > self.text.context_length {
            return Err(TextError::TooLong {
                sentence: sentence.to_owned(),
                tokens: ids.len(),
                limit: self.text.context_length,
            });
        }
        let mut tokens: Vec<i64> = ids.iter().map(|id| i64::from(*id)).collect();
        tokens.resize(self.text.context_length, i64::from(self.text.pad));
        Ok(tokens)
    }

    fn run(&self, tokens: &[i64]) -> TractResult<Vec<f32>> {
        let input = Tensor::from_shape(&[1, tokens.len()], tokens)?;
        let output = self.plan.run(tvec!(input.into_tvalue()))?;
        let embedding = output[0].try_as_plain_ram()?.as_slice::<f32>()?.to_vec();
        if embedding.len() != self.embed_dim {
            return Err(format_err!("{} values, the manifest says {}", embedding.len(), self.embed_dim));
        }
        Ok(embedding)
    }
}

fn load_plan(path: &std::path::Path, context_length: usize) -> TractResult<Arc<TypedRunnableModel>> {
    tract_onnx::onnx()
        .model_for_path(path)?
        .with_input_fact(0, i64::fact([1, context_length]).into())?
        .into_optimized()?
        .into_runnable()
}

/// The unit vector along the sum of unit vectors.
fn mean_direction(vectors: impl Iterator<Item = Vec<f32>>) -> Vec<f32> {
    let sum = vectors
        .reduce(|mut sum, vector| {
            sum.iter_mut().zip(&vector).for_each(|(total, value)| *total += value);
            sum
        })
        .unwrap_or_default();
    let norm = sum.iter().map(|value| value * value).sum::<f32>().sqrt();
    sum.into_iter().map(|value| value / norm).collect()
}

/// Lower-case words of letters; digits and punctuation carry no vocabulary.
fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty()).map(str::to_lowercase)
}

/// Why prompts could not be embedded.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// The bundle has no usable text side.
    #[error("no text tower: {0}")]
    Bundle(#[from] BundleError),
    /// A file of the text side was refused by its engine.
    #[error("{path} cannot be loaded: {reason}; re-export the bundle with models/tools/export.py")]
    Model {
        /// The file.
        path: PathBuf,
        /// What the engine said.
        reason: String,
    },
    /// A sentence does not fit the context.
    #[error(
        "prompt \"{sentence}\" has {tokens} tokens, the model's context holds {limit}; shorten the text or the template"
    )]
    TooLong {
        /// The sentence, template applied.
        sentence: String,
        /// Its tokens, start and end included.
        tokens: usize,
        /// The context length.
        limit: usize,
    },
    /// An embedding with NaN, infinity or nothing in it.
    #[error(
        "the embedding of prompt \"{sentence}\" is not finite; the text tower is damaged or of another architecture"
    )]
    NotFinite {
        /// The sentence.
        sentence: String,
    },
    /// The engine failed on a sentence.
    #[error("prompt \"{sentence}\" could not be embedded: {reason}")]
    Run {
        /// The sentence.
        sentence: String,
        /// What the engine said.
        reason: String,
    },
    /// The result is not a sane pack.
    #[error(transparent)]
    Pack(#[from] PackError),
}
