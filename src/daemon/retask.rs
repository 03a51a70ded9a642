//! What commands have changed and must survive a restart: the prompt pack in use, the one before it, thresholds.
//!
//! Promise: `<state>/prompts/retask.json` names only packs whose files are whole on the medium; it is replaced as a whole
//! or not at all. A pack is checked against the key again each time it is read.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use minisign_verify::PublicKey;
use serde::{Deserialize, Serialize};

use crate::decide::{Rules, Thresholds};
use crate::prompts::pack::Pack;
use crate::prompts::signed::{SignedError, SignedPack};

const FILE: &str = "retask.json";
/// The pack in use and the one to roll back to.
const KEPT: usize = 2;

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    /// Serial of the newest pack ever accepted: a roll back does not let older ones in again.
    highest_serial: u64,
    /// Accepted packs, the one in use last.
    packs: Vec<Accepted>,
    thresholds: BTreeMap<String, SavedThresholds>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Accepted {
    sha256: String,
    serial: u64,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedThresholds {
    threshold: Option<f32>,
    hysteresis: Option<f32>,
}

#[derive(Debug)]
pub(super) struct Retask {
    folder: PathBuf,
    saved: Saved,
}

impl Retask {
    /// Reads what was saved; nothing when nothing was, or when it cannot be read (logged, the file stays).
    pub fn load(state: &Path) -> Self {
        let folder = state.join("prompts");
        let path = folder.join(FILE);
        let saved = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                log::error!("{}: {error}; prompts and thresholds of the configuration are used", path.display());
                Saved::default()
            }),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    log::error!("{}: {error}; prompts and thresholds of the configuration are used", path.display());
                }
                Saved::default()
            }
        };
        Self { folder, saved }
    }

    /// The pack in use, checked again; `None` when it is the configuration's.
    pub fn pack(&self, key: &PublicKey) -> Result<Option<Pack>, RetaskError> {
        self.last_of(&self.saved, key)
    }

    fn last_of(&self, saved: &Saved, key: &PublicKey) -> Result<Option<Pack>, RetaskError> {
        let Some(accepted) = saved.packs.last() else { return Ok(None) };
        let (pack, signature) = self.paths(&accepted.sha256);
        let bytes = fs::read(&pack).map_err(|source| RetaskError::File { path: pack, source })?;
        let text = fs::read_to_string(&signature).map_err(|source| RetaskError::File { path: signature, source })?;
        Ok(Some(SignedPack::verify(&bytes, &text, key)?.pack))
    }

    /// Refuses a pack that is not newer than every one before it.
    pub fn refuse_old(&self, serial: u64) -> Result<(), RetaskError> {
        if serial <= self.saved.highest_serial {
            return Err(RetaskError::Old { serial, highest: self.saved.highest_serial });
        }
        Ok(())
    }

    /// Saves a pack as the one in use.
    pub fn accept(&mut self, bytes: &[u8], signature: &str, signed: &SignedPack) -> Result<(), RetaskError> {
        self.refuse_old(signed.serial)?;
        let sha256 = signed.pack.id().to_owned();
        let (pack_path, signature_path) = self.paths(&sha256);
        replace(&pack_path, bytes)?;
        replace(&signature_path, signature.as_bytes())?;
        let mut saved = self.saved.clone();
        saved.highest_serial = signed.serial;
        saved.packs.push(Accepted { sha256, serial: signed.serial });
        let surplus = saved.packs.len().saturating_sub(KEPT);
        saved.packs.drain(..surplus);
        self.save(saved)?;
        self.tidy();
        Ok(())
    }

    /// Goes back to the pack before the one in use, at last to the configuration's (`None`).
    pub fn roll_back(&mut self, key: &PublicKey) -> Result<Option<Pack>, RetaskError> {
        let mut saved = self.saved.clone();
        saved.packs.pop().ok_or(RetaskError::NothingBefore)?;
        let before = self.last_of(&saved, key)?;
        self.save(saved)?;
        Ok(before)
    }

    /// Saves a label's thresholds; `None` for those of the configuration.
    pub fn set_thresholds(&mut self, label: &str, thresholds: Option<Thresholds>) -> Result<(), RetaskError> {
        let mut saved = self.saved.clone();
        match thresholds {
            Some(Thresholds { enter, hysteresis }) => {
                saved.thresholds.insert(label.to_owned(), SavedThresholds { threshold: enter, hysteresis });
            }
            None => drop(saved.thresholds.remove(label)),
        }
        self.save(saved)
    }

    /// The configuration's rules with what commands have changed.
    pub fn rules(&self, rules: &Rules) -> Rules {
        let mut rules = rules.clone();
        for (label, saved) in &self.saved.thresholds {
            let own = Thresholds { enter: saved.threshold, hysteresis: saved.hysteresis };
            rules.thresholds.insert(label.clone(), own);
        }
        rules
    }

    fn paths(&self, sha256: &str) -> (PathBuf, PathBuf) {
        (self.folder.join(format!("{sha256}.pack")), self.folder.join(format!("{sha256}.pack.minisig")))
    }

    fn save(&mut self, saved: Saved) -> Result<(), RetaskError> {
        let json = serde_json::to_vec_pretty(&saved).map_err(io::Error::from)?;
        replace(&self.folder.join(FILE), &json)?;
        self.saved = saved;
        Ok(())
    }

    /// Deletes packs that nothing names any more. Those left behind by a crash do no harm.
    fn tidy(&self) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let known = self.saved.packs.iter().any(|pack| name.starts_with(&pack.sha256));
            if name.contains(".pack") && !known {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// Replaces a file as a whole: what a power cut leaves is the old one or the new one.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), RetaskError> {
    let written = || -> io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let fresh = path.with_extension("new");
        let mut file = File::create(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        File::open(folder)?.sync_all()
    };
    written().map_err(|source| RetaskError::File { path: path.to_owned(), source })
}

/// Why a change by command is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum RetaskError {
    #[error("{path}: {source}; the state folder must be writable (state.path)")]
    File { path: PathBuf, source: io::Error },
    #[error("the pack's serial {serial} is not above {highest}, the newest one this vehicle had")]
    Old { serial: u64, highest: u64 },
    #[error("there is nothing to roll back to: the configuration's prompts are in use")]
    NothingBefore,
    #[error(transparent)]
    Signed(#[from] SignedError),
    #[error(transparent)]
    Io(#[from] io::Error),
}
