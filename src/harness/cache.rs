//! Embeddings kept from one run to the next, so that a killed run goes on where it was.
//!
//! Promise: what is found was computed from the same picture, by the same bundle, kernel and program; a program built
//! anew starts anew, so a change to the code is never hidden by an old result. A record cut short by a kill is dropped.
//!
//! One file a bundle and program. Layout, little-endian: `RCEMBED1`, key (32 bytes), then records of a picture's SHA-256,
//! its f32 vector and the first four bytes of SHA-256 over both.

use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::HarnessError;
use crate::bundle::Bundle;
use crate::vision::int8::KernelChoice;

const MAGIC: &[u8; 8] = b"RCEMBED1";
const HEADER: usize = 8 + 32;
const CHECK: usize = 4;
const ENDING: &str = "embeddings";

/// A SHA-256.
pub type Sha = [u8; 32];

/// An open cache file.
#[derive(Debug)]
pub struct Cache {
    path: PathBuf,
    file: File,
    width: usize,
    /// Where each picture's vector begins.
    found: HashMap<Sha, u64>,
}

impl Cache {
    /// Opens the file of this bundle and program in `folder`, or begins it, and removes what other builds of this
    /// program left for the bundle.
    ///
    /// # Errors
    /// [`HarnessError`] naming the file; among them that another evaluation is using it.
    pub fn open(folder: &Path, bundle: &Bundle) -> Result<Self, HarnessError> {
        let key = key(bundle)?;
        let prefix = format!("{}-", &bundle.id()[..16]);
        let name = format!("{prefix}{}.{ENDING}", hex::encode(&key[..8]));
        let write_error = |source| HarnessError::Write { path: folder.join(&name), source };
        std::fs::create_dir_all(folder).map_err(write_error)?;
        for entry in std::fs::read_dir(folder).map_err(write_error)?.flatten() {
            let other = entry.file_name().to_string_lossy().into_owned();
            if other.starts_with(&prefix) && other.ends_with(ENDING) && other != name {
                // Of no more use; if it cannot be removed, nothing is lost but space.
                let _ = std::fs::remove_file(entry.path());
            }
        }
        Self::open_file(&folder.join(&name), &key, bundle.manifest().model.embed_dim)
    }

    fn open_file(path: &Path, key: &Sha, width: usize) -> Result<Self, HarnessError> {
        let write_error = |source| HarnessError::Write { path: path.to_owned(), source };
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = file.map_err(write_error)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(HarnessError::File {
                    path: path.to_owned(),
                    reason: "another evaluation is using this cache; wait for it, or give --cache another folder"
                        .to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(write_error(source)),
        }
        let mut cache = Self { path: path.to_owned(), file, width, found: HashMap::new() };
        cache.scan(key).map_err(write_error)?;
        Ok(cache)
    }

    /// Finds the whole records and cuts off what comes after them.
    fn scan(&mut self, key: &Sha) -> std::io::Result<()> {
        let mut reader = BufReader::new(&self.file);
        let mut header = [0; HEADER];
        let whole = reader.read_exact(&mut header).is_ok() && header[..8] == *MAGIC && header[8..] == *key;
        let mut end = HEADER as u64;
        if whole {
            let mut record = vec![0; 32 + self.width * 4 + CHECK];
            while reader.read_exact(&mut record).is_ok() {
                let (body, check) = record.split_at(record.len() - CHECK);
                if Sha256::digest(body)[..CHECK] != *check {
                    break;
                }
                let mut sha = [0; 32];
                sha.copy_from_slice(&body[..32]);
                self.found.insert(sha, end + 32);
                end += record.len() as u64;
            }
        } else {
            self.file.set_len(0)?;
            self.file.write_all_at(&[&MAGIC[..], key].concat(), 0)?;
        }
        self.file.set_len(end)?;
        self.file.seek(SeekFrom::End(0))?;
        Ok(())
    }

    /// A picture's vector, if it is there.
    ///
    /// # Errors
    /// [`HarnessError::Read`].
    pub fn find(&self, sha: &Sha) -> Result<Option<Vec<f32>>, HarnessError> {
        let Some(offset) = self.found.get(sha) else { return Ok(None) };
        let mut bytes = vec![0; self.width * 4];
        let read = self.file.read_exact_at(&mut bytes, *offset);
        read.map_err(|source| HarnessError::Read { path: self.path.clone(), source })?;
        Ok(Some(bytes.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)).collect()))
    }

    /// Adds a picture's vector, at once and not at the end: a kill must not cost what was done.
    ///
    /// # Errors
    /// [`HarnessError::Write`].
    pub fn keep(&self, sha: &Sha, vector: &[f32]) -> Result<(), HarnessError> {
        let mut record = sha.to_vec();
        record.extend(vector.iter().flat_map(|value| value.to_le_bytes()));
        let check = Sha256::digest(&record);
        record.extend_from_slice(&check[..CHECK]);
        (&self.file).write_all(&record).map_err(|source| HarnessError::Write { path: self.path.clone(), source })
    }
}

/// Names everything a vector depends on besides the picture.
fn key(bundle: &Bundle) -> Result<Sha, HarnessError> {
    let read = |path: &Path| {
        let mut digest = Sha256::new();
        let mut file = File::open(path)?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(digest.finalize()),
                n => digest.update(&buffer[..n]),
            }
        }
    };
    let path = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe"));
    let program = read(&path).map_err(|source: std::io::Error| HarnessError::Read { path, source })?;
    let mut digest = Sha256::new();
    digest.update(bundle.id());
    digest.update(program);
    digest.update(KernelChoice::best().name);
    Ok(digest.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Sha = [7; 32];

    fn open(path: &Path, key: &Sha) -> Cache {
        Cache::open_file(path, key, 2).unwrap()
    }

    #[test]
    fn what_was_kept_is_found_and_a_cut_record_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let cache = open(&path, &KEY);
        cache.keep(&[1; 32], &[0.5, 2.0]).unwrap();
        cache.keep(&[2; 32], &[1.5, 3.0]).unwrap();
        drop(cache);
        let whole = std::fs::read(&path).unwrap();
        for cut in 1..44 {
            std::fs::write(&path, &whole[..whole.len() - cut]).unwrap();
            let cache = open(&path, &KEY);
            assert_eq!(cache.find(&[1; 32]).unwrap(), Some(vec![0.5, 2.0]));
            assert_eq!(cache.find(&[2; 32]).unwrap(), None);
            cache.keep(&[2; 32], &[1.5, 3.0]).unwrap();
            drop(cache);
            assert_eq!(std::fs::read(&path).unwrap(), whole);
        }
    }

    #[test]
    fn another_program_or_bundle_starts_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        open(&path, &KEY).keep(&[1; 32], &[0.5, 2.0]).unwrap();
        assert_eq!(open(&path, &[8; 32]).find(&[1; 32]).unwrap(), None);
        assert_eq!(open(&path, &KEY).find(&[1; 32]).unwrap(), None);
    }

    #[test]
    fn a_damaged_record_and_what_follows_are_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let cache = open(&path, &KEY);
        cache.keep(&[1; 32], &[0.5, 2.0]).unwrap();
        drop(cache);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[HEADER + 33] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(open(&path, &KEY).find(&[1; 32]).unwrap(), None);
    }

    #[test]
    fn two_evaluations_do_not_share_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let _first = open(&path, &KEY);
        assert!(Cache::open_file(&path, &KEY, 2).unwrap_err().to_string().contains("another evaluation"));
    }
}
