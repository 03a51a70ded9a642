//! A model bundle: one folder with a CLIP's image tower, text tower, tokenizer and the manifest that vouches for them.
//!
//! Promise: what [`Bundle::open`] and [`Bundle::verified`] return has been checked. The manifest is complete and sane,
//! and a file is handed out only after its size and SHA-256 agreed with the manifest, because a model file is input like
//! any other and engines have had holes (CVE-2026-55832, CVE-2026-55093).

mod manifest;
pub mod slots;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

pub use manifest::{Activation, FileEntry, Image, Manifest, Model, Quantisation, Resize, Text};

/// The manifest's file name in every bundle.
pub const MANIFEST: &str = "manifest.toml";
/// The int8 image tower.
pub const IMAGE_ONNX: &str = "image.onnx";
/// The text tower.
pub const TEXT_ONNX: &str = "text.onnx";
/// The tokenizer, in Hugging Face's `tokenizers` form.
pub const TOKENIZER: &str = "tokenizer.json";
/// The words the text tower was trained on, one a line; only bundles with a small vocabulary carry it.
pub const VOCABULARY: &str = "vocabulary.txt";

/// An opened bundle: its folder and its manifest.
#[derive(Debug, Clone)]
pub struct Bundle {
    folder: PathBuf,
    manifest: Manifest,
    /// SHA-256 of `manifest.toml`, which lists every other file's: it names the whole bundle.
    id: String,
}

impl Bundle {
    /// Reads and validates the manifest of `folder`. The files themselves are checked when asked for.
    ///
    /// # Errors
    /// [`BundleError::Read`] when there is no manifest, [`BundleError::Manifest`] when it cannot be used.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, BundleError> {
        let folder = folder.into();
        let path = folder.join(MANIFEST);
        let text = std::fs::read_to_string(&path).map_err(|source| BundleError::Read { path: path.clone(), source })?;
        let manifest = Manifest::parse(&text).map_err(|reason| BundleError::Manifest { path, reason })?;
        Ok(Self { folder, manifest, id: hex::encode(Sha256::digest(text.as_bytes())) })
    }

    /// Where the bundle lies.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What the manifest says.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// SHA-256 of the manifest in lower-case hex: two bundles with one id are the same to the last byte.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Names the text side: SHA-256 over the manifest's SHA-256 of text tower and tokenizer. Two bundles with one text
    /// id embed every prompt alike, so a prompt pack made with either serves both.
    pub fn text_id(&self) -> String {
        let mut digest = Sha256::new();
        for name in [TEXT_ONNX, TOKENIZER] {
            let sha256 = self.manifest.files.get(name).map_or("absent", |entry| entry.sha256.as_str());
            digest.update(format!("{name} {sha256}\n"));
        }
        hex::encode(digest.finalize())
    }

    /// The manifest's SHA-256 of the image tower; empty where it lists none.
    pub fn image_sha256(&self) -> &str {
        self.manifest.files.get(IMAGE_ONNX).map_or("", |entry| &entry.sha256)
    }

    /// The path of a listed file, after its size and SHA-256 were found to be the manifest's.
    ///
    /// # Errors
    /// [`BundleError::NotListed`], [`BundleError::Read`] or [`BundleError::Changed`], each naming the file.
    pub fn verified(&self, name: &str) -> Result<PathBuf, BundleError> {
        let entry = self
            .manifest
            .files
            .get(name)
            .ok_or_else(|| BundleError::NotListed { path: self.folder.join(MANIFEST), name: name.to_owned() })?;
        let path = self.folder.join(name);
        let read_error = |source| BundleError::Read { path: path.clone(), source };
        let file = File::open(&path).map_err(read_error)?;
        let bytes = file.metadata().map_err(read_error)?.len();
        let sha256 = if bytes == entry.bytes { sha256_of(file).map_err(read_error)? } else { String::new() };
        if sha256 == entry.sha256 {
            Ok(path)
        } else {
            Err(BundleError::Changed { path, expected: entry.bytes, found: bytes })
        }
    }

    /// The words the text tower knows, if the bundle carries its vocabulary.
    ///
    /// # Errors
    /// As [`Bundle::verified`].
    pub fn vocabulary(&self) -> Result<Option<Vec<String>>, BundleError> {
        if !self.manifest.files.contains_key(VOCABULARY) {
            return Ok(None);
        }
        let path = self.verified(VOCABULARY)?;
        let text = std::fs::read_to_string(&path).map_err(|source| BundleError::Read { path, source })?;
        Ok(Some(text.lines().map(str::to_owned).collect()))
    }
}

/// Streams `reader` through SHA-256; lower-case hex.
fn sha256_of(mut reader: impl Read) -> io::Result<String> {
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(hex::encode(digest.finalize())),
            n => digest.update(&buffer[..n]),
        }
    }
}

/// Why a bundle cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A file could not be read.
    #[error(
        "cannot read {path}: {source}; a bundle is a folder with manifest.toml, image.onnx, text.onnx and tokenizer.json (see models/README.md)"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file or folder could not be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The manifest is not one of ours.
    #[error("{path}: {reason}")]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// Field and cure.
        reason: String,
    },
    /// A file that is needed is not in the manifest.
    #[error("{path} lists no {name}; export the bundle again with models/tools/export.py")]
    NotListed {
        /// The manifest.
        path: PathBuf,
        /// The missing file.
        name: String,
    },
    /// A file is not the one the manifest vouches for.
    #[error(
        "{path} is not the file its manifest vouches for ({found} bytes, {expected} expected, or another SHA-256); copy the bundle again or re-export it"
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// Bytes the manifest states.
        expected: u64,
        /// Bytes found.
        found: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small but complete bundle folder.
    fn bundle_folder(manifest: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(IMAGE_ONNX), b"model").unwrap();
        std::fs::write(folder.path().join(MANIFEST), manifest).unwrap();
        folder
    }

    #[test]
    fn a_listed_file_is_handed_out_only_unchanged() {
        let folder = bundle_folder(manifest::tests::GOOD);
        let bundle = Bundle::open(folder.path()).unwrap();
        assert_eq!(bundle.verified(IMAGE_ONNX).unwrap(), folder.path().join(IMAGE_ONNX));

        std::fs::write(folder.path().join(IMAGE_ONNX), b"m0del").unwrap();
        let error = bundle.verified(IMAGE_ONNX).unwrap_err().to_string();
        assert!(error.contains("image.onnx is not the file"), "{error}");
    }

    #[test]
    fn a_missing_or_unlisted_file_is_named() {
        let folder = bundle_folder(manifest::tests::GOOD);
        let bundle = Bundle::open(folder.path()).unwrap();
        assert!(matches!(bundle.verified(TOKENIZER), Err(BundleError::Read { .. })));
        assert!(matches!(bundle.verified("other.onnx"), Err(BundleError::NotListed { .. })));
        let error = Bundle::open(folder.path().join("nowhere")).unwrap_err().to_string();
        assert!(error.contains("nowhere/manifest.toml"), "{error}");
    }

    #[test]
    fn the_text_id_follows_the_text_side_alone() {
        let folder = bundle_folder(manifest::tests::GOOD);
        let first = Bundle::open(folder.path()).unwrap();
        let image_changed = manifest::tests::GOOD.replace("name = \"tiny\"", "name = \"other\"");
        std::fs::write(folder.path().join(MANIFEST), image_changed).unwrap();
        let second = Bundle::open(folder.path()).unwrap();
        assert_ne!(first.id(), second.id());
        assert_eq!(first.text_id(), second.text_id());
        let text_changed = manifest::tests::GOOD.replace(&"b".repeat(64), &"d".repeat(64));
        std::fs::write(folder.path().join(MANIFEST), text_changed).unwrap();
        assert_ne!(Bundle::open(folder.path()).unwrap().text_id(), first.text_id());
    }
}
