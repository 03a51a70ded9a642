//! A prompt pack: the embeddings of a prompt set, made for one text tower.
//!
//! Promise: a pack that was read is whole (its last 32 bytes are the SHA-256 of the rest), its vectors are finite and of
//! unit length, and it is used only with a bundle of the text side it was made with.
//!
//! Layout, little-endian: `RCPACK01`, header length u32, header (JSON), one f32 vector of `embed_dim` for each label and
//! then for each background text, SHA-256 of all that.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

const MAGIC: &[u8; 8] = b"RCPACK01";
/// More than any real pack; keeps a damaged length from reserving memory.
const MAX_ROWS: usize = 4096;
/// Vectors are normalised in f32; this is far above rounding and far below a mistake.
const UNIT_TOLERANCE: f32 = 1e-3;

/// An in-memory prompt pack.
#[derive(Debug, Clone)]
pub struct Pack {
    header: Header,
    embeddings: Vec<f32>,
    id: String,
}

/// Everything in a pack but the vectors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The prompt set's name.
    pub set: String,
    /// SHA-256 of the prompt set's file.
    pub set_sha256: String,
    /// Name of the bundle whose text tower made it.
    pub bundle: String,
    /// That bundle's text side; see `Bundle::text_id`.
    pub text_id: String,
    /// Width of the vectors.
    pub embed_dim: usize,
    /// The templates that were averaged over.
    pub templates: Vec<String>,
    /// The labels, in the order of their vectors.
    pub labels: Vec<PackLabel>,
    /// The background texts, in the order of their vectors, behind the labels'.
    pub background: Vec<String>,
}

/// A label as the drone needs it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackLabel {
    /// Published name.
    pub name: String,
    /// The texts that were averaged.
    pub texts: Vec<String>,
    /// Score at which the tag is entered.
    pub enter: f32,
    /// Score below which it is left.
    pub exit: f32,
}

impl Pack {
    /// Puts a pack together. `embeddings` holds one unit vector a label and a background text, row-major.
    ///
    /// # Errors
    /// [`PackError`] when rows are missing, not finite or not of unit length.
    pub fn new(header: Header, embeddings: Vec<f32>) -> Result<Self, PackError> {
        check(&header, &embeddings)?;
        let mut pack = Self { header, embeddings, id: String::new() };
        pack.id = hex::encode(Sha256::digest(pack.body()?));
        Ok(pack)
    }

    /// Reads a pack.
    ///
    /// # Errors
    /// [`PackError`] when the bytes are not a whole and sane pack.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PackError> {
        let (body, sum) = bytes.split_last_chunk::<32>().ok_or(PackError::NotAPack)?;
        let rest = body.strip_prefix(MAGIC).ok_or(PackError::NotAPack)?;
        let digest = Sha256::digest(body);
        if digest[..] != sum[..] {
            return Err(PackError::Damaged);
        }
        let (length, rest) = rest.split_first_chunk::<4>().ok_or(PackError::Damaged)?;
        let (header, rows) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or(PackError::Damaged)?;
        let header: Header = serde_json::from_slice(header).map_err(|error| PackError::Header(error.to_string()))?;
        let (values, rest) = rows.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(PackError::Damaged);
        }
        let embeddings = values.iter().map(|value| f32::from_le_bytes(*value)).collect::<Vec<_>>();
        check(&header, &embeddings)?;
        Ok(Self { header, embeddings, id: hex::encode(digest) })
    }

    /// Reads a pack from a file.
    ///
    /// # Errors
    /// [`PackError::Read`], or as [`Pack::from_bytes`] with the file named.
    pub fn read(path: &Path) -> Result<Self, PackError> {
        let bytes = std::fs::read(path).map_err(|source| PackError::Read { path: path.to_owned(), source })?;
        Self::from_bytes(&bytes).map_err(|source| PackError::File { path: path.to_owned(), source: Box::new(source) })
    }

    /// The bytes [`Pack::from_bytes`] reads.
    ///
    /// # Errors
    /// [`PackError::Header`] if the header cannot be written as JSON.
    pub fn to_bytes(&self) -> Result<Vec<u8>, PackError> {
        let mut bytes = self.body()?;
        let digest = Sha256::digest(&bytes);
        bytes.extend_from_slice(&digest);
        Ok(bytes)
    }

    fn body(&self) -> Result<Vec<u8>, PackError> {
        let header = serde_json::to_vec(&self.header).map_err(|error| PackError::Header(error.to_string()))?;
        let length = u32::try_from(header.len()).map_err(|_| PackError::Header("over 4 GiB".to_owned()))?;
        let mut body = MAGIC.to_vec();
        body.extend_from_slice(&length.to_le_bytes());
        body.extend_from_slice(&header);
        body.extend(self.embeddings.iter().flat_map(|value| value.to_le_bytes()));
        Ok(body)
    }

    /// Everything but the vectors.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// SHA-256 over the pack, lower-case hex.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The unit vectors: the labels' in their order, then the background's.
    pub fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.embeddings.chunks_exact(self.header.embed_dim)
    }

    /// Refuses a bundle whose text side is another than the one this pack was made with.
    ///
    /// # Errors
    /// [`PackError::OtherModel`], naming both.
    pub fn fits(&self, bundle: &str, text_id: &str) -> Result<(), PackError> {
        if self.header.text_id == text_id {
            return Ok(());
        }
        Err(PackError::OtherModel {
            set: self.header.set.clone(),
            made_for: self.header.bundle.clone(),
            bundle: bundle.to_owned(),
        })
    }
}

fn check(header: &Header, embeddings: &[f32]) -> Result<(), PackError> {
    let rows = header.labels.len() + header.background.len();
    let invalid = |reason: String| Err(PackError::Header(reason));
    if header.labels.is_empty() || rows > MAX_ROWS {
        return invalid(format!("{} labels and {} background texts", header.labels.len(), header.background.len()));
    }
    if header.embed_dim == 0 || rows.checked_mul(header.embed_dim) != Some(embeddings.len()) {
        return invalid(format!("{} values for {rows} vectors of {}", embeddings.len(), header.embed_dim));
    }
    let names = header.labels.iter().map(|label| &label.name).chain(&header.background);
    for (name, row) in names.zip(embeddings.chunks_exact(header.embed_dim)) {
        let norm = row.iter().map(|value| value * value).sum::<f32>().sqrt();
        if !norm.is_finite() || (norm - 1.0).abs() > UNIT_TOLERANCE {
            return Err(PackError::Embedding { name: name.clone(), norm });
        }
    }
    for label in &header.labels {
        if !(0.0 < label.exit && label.exit <= label.enter && label.enter <= 1.0) {
            return invalid(format!("label \"{}\" enters at {} and exits at {}", label.name, label.enter, label.exit));
        }
    }
    Ok(())
}

/// Why a prompt pack cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The file could not be read.
    #[error("cannot read prompt pack {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file was read but is no usable pack.
    #[error("prompt pack {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<PackError>,
    },
    /// Not one of our files.
    #[error("this is not a prompt pack (made by remoteclipd's build or `prompts compile`)")]
    NotAPack,
    /// Cut short or altered.
    #[error("the pack is damaged (its SHA-256 does not match); copy it again")]
    Damaged,
    /// The header is not usable.
    #[error("the pack's header is not usable: {0}")]
    Header(String),
    /// A vector is not of unit length or not finite.
    #[error("the embedding of \"{name}\" is not a finite unit vector (length {norm})")]
    Embedding {
        /// Label or background text.
        name: String,
        /// The length found.
        norm: f32,
    },
    /// Made for another model.
    #[error(
        "prompt pack \"{set}\" was made for model \"{made_for}\", not for \"{bundle}\"; compile the prompts with this bundle (REMOTECLIPD_BUNDLE at build time)"
    )]
    OtherModel {
        /// The pack's prompt set.
        set: String,
        /// The bundle it was made with.
        made_for: String,
        /// The bundle at hand.
        bundle: String,
    },
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A pack over unit vectors along the axes.
    pub(crate) fn axes(labels: &[&str], background: &[&str]) -> Pack {
        let rows = labels.len() + background.len();
        let header = Header {
            set: "test".to_owned(),
            set_sha256: "0".repeat(64),
            bundle: "tiny".to_owned(),
            text_id: "text".to_owned(),
            embed_dim: rows,
            templates: vec!["{}".to_owned()],
            labels: labels
                .iter()
                .map(|name| PackLabel {
                    name: (*name).to_owned(),
                    texts: vec![(*name).to_owned()],
                    enter: 0.5,
                    exit: 0.4,
                })
                .collect(),
            background: background.iter().map(|text| (*text).to_owned()).collect(),
        };
        let embeddings = (0..rows * rows).map(|i| if i % (rows + 1) == 0 { 1.0 } else { 0.0 }).collect();
        Pack::new(header, embeddings).unwrap()
    }

    #[test]
    fn a_pack_survives_the_round_trip() {
        let pack = axes(&["forest", "river"], &["sky"]);
        let read = Pack::from_bytes(&pack.to_bytes().unwrap()).unwrap();
        assert_eq!(read.header(), pack.header());
        assert_eq!(read.id(), pack.id());
        assert_eq!(read.rows().collect::<Vec<_>>(), pack.rows().collect::<Vec<_>>());
    }

    #[test]
    fn a_pack_for_another_model_is_refused_by_name() {
        let error = axes(&["forest"], &[]).fits("RemoteCLIP-ViT-B-32", "other").unwrap_err().to_string();
        assert!(error.contains("\"tiny\"") && error.contains("RemoteCLIP-ViT-B-32"), "{error}");
    }

    #[test]
    fn vectors_that_are_not_unit_length_are_refused_by_name() {
        let header = axes(&["forest"], &[]).header().clone();
        for bad in [f32::NAN, f32::INFINITY, 0.0, 2.0] {
            let error = Pack::new(header.clone(), vec![bad]).unwrap_err().to_string();
            assert!(error.contains("\"forest\""), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_damage_is_noticed(at in 0usize..400, flip in 1u8..) {
            let mut bytes = axes(&["forest", "river"], &["sky"]).to_bytes().unwrap();
            let at = at % bytes.len();
            bytes[at] ^= flip;
            prop_assert!(Pack::from_bytes(&bytes).is_err());
        }

        #[test]
        fn any_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Pack::from_bytes(&bytes).is_err());
        }
    }
}
