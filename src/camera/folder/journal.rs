//! What of a folder is done with, kept across restarts.
//!
//! Promise: a picture is noted when its frame is settled, so one that a killed daemon had in hand comes again. Notes are of
//! contents (inode, time, size), not of names: a picture that is renamed, also while nobody looks, stays done. The file
//! grows in proportion to what the folder holds. It is not synced: a power cut may bring pictures again, never lose one.
//!
//! One line a picture: inode, seconds and nanoseconds of its modification since 1970, bytes. A line cut short by a crash is
//! of no picture and is passed over.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::Stamp;

/// Notes of pictures that are gone, before they are looked through.
const SPARE: usize = 4096;

/// The notes. Clones write to the same file.
#[derive(Debug, Clone)]
pub(super) struct Journal(Arc<Mutex<Notes>>);

#[derive(Debug)]
struct Notes {
    path: PathBuf,
    done: HashSet<Stamp>,
    file: Option<File>,
}

impl Journal {
    /// Reads the notes at `path` and keeps those of pictures that are `there`.
    pub fn open(path: &Path, there: &[Stamp]) -> io::Result<Self> {
        let text = match fs::read(path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let done = text.split_inclusive('\n').filter_map(read).collect();
        let journal = Self(Arc::new(Mutex::new(Notes { path: path.to_path_buf(), done, file: None })));
        journal.lock().compact(there)?;
        Ok(journal)
    }

    /// Whether a picture is done with.
    pub fn has(&self, stamp: &Stamp) -> bool {
        self.lock().done.contains(stamp)
    }

    /// Notes that a picture is done with. Without a disk it is so until the daemon ends.
    pub fn note(&self, stamp: Stamp) {
        let mut notes = self.lock();
        if notes.done.insert(stamp)
            && let Err(error) = notes.append(stamp)
        {
            log::error!("{}: {error}; pictures may be classified again after a restart", notes.path.display());
        }
    }

    /// Forgets pictures that are gone, once they are many beside those that are `there`.
    pub fn tidy(&self, there: &[Stamp]) {
        let mut notes = self.lock();
        if notes.done.len() > 2 * there.len() + SPARE
            && let Err(error) = notes.compact(there)
        {
            log::error!("{}: {error}; pictures may be classified again after a restart", notes.path.display());
        }
    }

    // A panic elsewhere leaves a set and a file that agree: both stay usable.
    fn lock(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Notes {
    fn append(&mut self, stamp: Stamp) -> io::Result<()> {
        if self.file.is_none() {
            self.file = Some(OpenOptions::new().append(true).create(true).open(&self.path)?);
        }
        match (&mut self.file, written(stamp)) {
            // In one call, so that no crash of ours comes between two parts of a line.
            (Some(file), Some(line)) => file.write_all(line.as_bytes()),
            _ => Ok(()),
        }
    }

    fn compact(&mut self, there: &[Stamp]) -> io::Result<()> {
        let there: HashSet<&Stamp> = there.iter().collect();
        self.done.retain(|stamp| there.contains(stamp));
        let fresh = self.path.with_extension("new");
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file = BufWriter::new(File::create(&fresh)?);
        for line in self.done.iter().filter_map(|stamp| written(*stamp)) {
            file.write_all(line.as_bytes())?;
        }
        file.flush()?;
        fs::rename(&fresh, &self.path)?;
        self.file = None;
        Ok(())
    }
}

fn written(stamp: Stamp) -> Option<String> {
    let modified = stamp.modified?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(format!("{} {} {} {}\n", stamp.inode, modified.as_secs(), modified.subsec_nanos(), stamp.bytes))
}

fn read(line: &str) -> Option<Stamp> {
    let mut fields = line.strip_suffix('\n')?.split(' ');
    let mut field = || fields.next()?.parse::<u64>().ok();
    let (inode, seconds, nanoseconds, bytes) = (field()?, field()?, u32::try_from(field()?).ok()?, field()?);
    let since = Duration::from_secs(seconds).checked_add(Duration::from_nanos(u64::from(nanoseconds)))?;
    Some(Stamp { inode, modified: Some(SystemTime::UNIX_EPOCH.checked_add(since)?), bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(inode: u64) -> Stamp {
        Stamp { inode, modified: Some(SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 7)), bytes: 5 }
    }

    #[test]
    fn notes_survive_and_those_of_what_is_gone_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/folder");
        let there: Vec<Stamp> = (0..3).map(stamp).collect();
        let journal = Journal::open(&path, &there).unwrap();
        (0..3).for_each(|inode| journal.note(stamp(inode)));
        let again = Journal::open(&path, &there[1..]).unwrap();
        assert!(!again.has(&there[0]) && again.has(&there[1]) && again.has(&there[2]));
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 2);
        assert!(!again.has(&Stamp { bytes: 6, ..there[1] }), "another content");
    }

    #[test]
    fn a_line_cut_short_is_of_no_picture() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("folder");
        let journal = Journal::open(&path, &[]).unwrap();
        journal.note(stamp(1));
        journal.note(stamp(23));
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let again = Journal::open(&path, &[stamp(1), stamp(2), stamp(23)]).unwrap();
            assert!(!again.has(&stamp(23)) && !again.has(&stamp(2)), "{length}");
        }
        fs::write(&path, b"\xFF\xFE not a note\n1 2 3\n99999999999999999999 1 1 1\n1 18446744073709551615 999 1\n")
            .unwrap();
        Journal::open(&path, &[stamp(1)]).unwrap();
    }
}
