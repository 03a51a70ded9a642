//! The few file operations the spool rests on. Apart, so that tests can put a disk beneath it that fails and forgets.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Brings what was written so far to the medium. Run without any lock held: it may take long.
pub(super) type SyncJob = Box<dyn FnOnce() -> io::Result<()> + Send>;

/// A flat folder of files.
pub(super) trait Disk: Send {
    /// Files with their lengths.
    fn files(&mut self) -> io::Result<Vec<(String, u64)>>;
    /// Reads at `offset`, fewer bytes only at the end of the file.
    fn read_at(&mut self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>>;
    /// Writes all of `bytes` at `offset`, making the file if need be. When it returns, the bytes survive the process.
    fn write_at(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts a file to this length.
    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()>;
    /// Deletes a file; one that is not there is no error.
    fn remove(&mut self, name: &str) -> io::Result<()>;
    /// Moves a file into the subfolder `aside`.
    fn put_aside(&mut self, name: &str) -> io::Result<()>;
    /// What must be done for all that was written to survive a power cut.
    fn unsynced(&mut self) -> Vec<SyncJob>;
}

/// Handles kept open for writing; the two active files, their ledgers, and what was just sealed.
const WRITERS: usize = 8;
/// Taken by the daemon that uses the folder.
const LOCK: &str = "lock";
const ASIDE: &str = "aside";

/// A real folder, held by a lock against a second daemon.
pub(super) struct Folder {
    path: PathBuf,
    writers: BTreeMap<String, Arc<File>>,
    dirty: BTreeSet<String>,
    names_changed: bool,
    /// Its lock ends with it. None where the medium is read-only: nobody else can write there either.
    _lock: Option<File>,
}

impl Folder {
    /// Opens the folder, making it if need be.
    pub fn open(path: &Path) -> io::Result<Self> {
        if !path.is_dir() {
            std::fs::create_dir_all(path)?;
        }
        let lock = match OpenOptions::new().create(true).truncate(false).write(true).open(path.join(LOCK)) {
            Ok(file) => {
                file.try_lock().map_err(|_| {
                    io::Error::new(ErrorKind::ResourceBusy, "another daemon uses this folder; give each its own")
                })?;
                Some(file)
            }
            // Readable is enough to send what is there.
            Err(error) if matches!(error.kind(), ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied) => {
                std::fs::read_dir(path)?;
                None
            }
            // A full disk: what is there can be read, and room may come.
            Err(error) if error.kind() == ErrorKind::StorageFull => None,
            Err(error) => return Err(error),
        };
        Ok(Self {
            path: path.to_owned(),
            writers: BTreeMap::new(),
            dirty: BTreeSet::new(),
            names_changed: false,
            _lock: lock,
        })
    }

    fn writer(&mut self, name: &str) -> io::Result<Arc<File>> {
        if let Some(file) = self.writers.get(name) {
            return Ok(Arc::clone(file));
        }
        let path = self.path.join(name);
        self.names_changed |= !path.exists();
        let file = Arc::new(OpenOptions::new().create(true).truncate(false).write(true).open(path)?);
        if self.writers.len() >= WRITERS {
            self.writers.retain(|name, _| self.dirty.contains(name));
        }
        self.writers.insert(name.to_owned(), Arc::clone(&file));
        Ok(file)
    }

    fn forget(&mut self, name: &str) {
        self.writers.remove(name);
        self.dirty.remove(name);
        self.names_changed = true;
    }
}

impl Disk for Folder {
    fn files(&mut self) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            if let (true, Ok(name)) = (meta.is_file(), entry.file_name().into_string()) {
                files.push((name, meta.len()));
            }
        }
        Ok(files)
    }

    fn read_at(&mut self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let file = File::open(self.path.join(name))?;
        let mut bytes = vec![0; length];
        let mut read = 0;
        while read < length {
            match file.read_at(&mut bytes[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(count) => read += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(read);
        Ok(bytes)
    }

    fn write_at(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let file = self.writer(name)?;
        self.dirty.insert(name.to_owned());
        file.write_all_at(bytes, offset)
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        let file = self.writer(name)?;
        self.dirty.insert(name.to_owned());
        file.set_len(length)
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.forget(name);
        match std::fs::remove_file(self.path.join(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn put_aside(&mut self, name: &str) -> io::Result<()> {
        self.forget(name);
        let aside = self.path.join(ASIDE);
        std::fs::create_dir_all(&aside)?;
        std::fs::rename(self.path.join(name), aside.join(name))
    }

    fn unsynced(&mut self) -> Vec<SyncJob> {
        let mut jobs: Vec<SyncJob> = Vec::new();
        for name in std::mem::take(&mut self.dirty) {
            if let Some(file) = self.writers.get(&name).cloned() {
                jobs.push(Box::new(move || file.sync_data()));
            }
        }
        if std::mem::take(&mut self.names_changed) {
            let path = self.path.clone();
            jobs.push(Box::new(move || File::open(path)?.sync_all()));
        }
        jobs
    }
}
