//! A folder of pictures, read once or watched.
//!
//! Promise: a file is handed over once for each content it gets (told apart by inode, modification time and size), and not
//! before its writer has closed it or moved it in (or, where nothing tells of that, has let it be for a while). Names wait in
//! memory, contents do not: a file is read when it is asked for. Names that begin with a dot or end in anything but a picture's extension are not looked at, nor are sub-folders.
//!
//! Written for whatever delivers by "write to a temporary name, then rename" and for whatever writes in place.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;

use super::{Camera, CameraError, Frame, Next, Picture, Receipt};
use journal::Journal;
use watch::Watch;

mod journal;
mod watch;

const EXTENSIONS: [&str; 5] = ["jpg", "jpeg", "png", "tif", "tiff"];

/// Which folder, and how it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderOptions {
    /// The folder.
    pub path: PathBuf,
    /// Hand over what is there, sorted by name, then end. Otherwise: hand over what arrives from now on, without end.
    pub once: bool,
    /// Where to note what is done with: every picture is classified, also what came while nobody looked. `None`: only what
    /// arrives from now on counts, and nothing is remembered.
    pub journal: Option<PathBuf>,
    /// Also list the folder this often, where arrivals are told of by no event (NFS and the like).
    pub poll: Option<Duration>,
    /// Largest file that is read, in bytes.
    pub max_bytes: u64,
}

/// A folder as a source of frames.
#[derive(Debug)]
pub struct Folder {
    options: FolderOptions,
    pending: VecDeque<OsString>,
    watch: Option<Watch>,
    journal: Option<Journal>,
}

impl Folder {
    /// Opens the folder; from here on nothing that arrives is missed.
    ///
    /// # Errors
    /// [`CameraError::Source`] if there is no such folder or it may not be read or watched.
    pub fn open(options: FolderOptions) -> Result<Self, CameraError> {
        let path = &options.path;
        let there = list(path).map_err(|error| unusable(path, &error))?;
        let stamps: Vec<Stamp> = there.iter().map(|(_, stamp)| *stamp).collect();
        let journal = options.journal.as_deref().map(|file| {
            let unusable = |error: io::Error| CameraError::Source {
                place: file.to_path_buf(),
                reason: format!("{error}; make state.path writable, or take camera.folder.resume out"),
            };
            Journal::open(file, &stamps).map_err(unusable)
        });
        let journal = journal.transpose()?;
        let done = |stamp: &Stamp| journal.as_ref().is_some_and(|journal| journal.has(stamp));
        let (pending, watch) = if options.once {
            let left = there.into_iter().filter(|(_, stamp)| !done(stamp));
            let mut names: Vec<OsString> = left.map(|(name, _)| name).collect();
            names.sort_unstable();
            (names.into(), None)
        } else {
            // What is there and not done is found by the first listing.
            let seen = there.into_iter().filter(|(_, stamp)| journal.is_none() || done(stamp)).collect();
            (VecDeque::new(), Some(Watch::new(path, seen, options.poll, journal.clone())?))
        };
        Ok(Self { options, pending, watch, journal })
    }

    /// Reads a file; `None` if there is nothing (or nothing new) under that name.
    fn take(&mut self, name: &OsStr) -> Result<Option<Frame>, CameraError> {
        let path = self.options.path.join(name);
        let failed = |reason: String| CameraError::Frame { name: name.to_string_lossy().into_owned(), reason };
        let metadata = match fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => metadata,
            Ok(_) => return Ok(None),
            // Gone or renamed before its turn came: it is not there to be tagged, or comes under its new name. Unless it
            // is the folder that went, with one above it, of which no event tells.
            Err(error) if error.kind() == ErrorKind::NotFound => return self.exists().map(|()| None),
            Err(error) => return Err(failed(error.to_string())),
        };
        let stamp = Stamp::of(&metadata);
        if self.watch.as_mut().is_some_and(|watch| !watch.remember(name, stamp)) {
            return Ok(None);
        }
        let bytes = read(&path, &metadata, self.options.max_bytes).map_err(|reason| {
            // It will not be better after a restart.
            self.journal.iter().for_each(|journal| journal.note(stamp));
            failed(reason)
        })?;
        let receipt = self.journal.clone().map(|journal| Receipt::new(move || journal.note(stamp)));
        Ok(Some(Frame {
            picture: Picture::Encoded(bytes),
            name: name.to_string_lossy().into_owned(),
            captured_at: modified(&metadata),
            arrived: Instant::now(),
            media_time: None,
            receipt,
        }))
    }

    fn exists(&self) -> Result<(), CameraError> {
        let path = &self.options.path;
        fs::metadata(path).map(drop).map_err(|error| unusable(path, &error))
    }
}

impl Camera for Folder {
    fn next(&mut self, patience: Duration) -> Result<Next, CameraError> {
        let deadline = Instant::now() + patience;
        loop {
            while let Some(name) = self.pending.pop_front() {
                if let Some(frame) = self.take(&name)? {
                    return Ok(Next::Frame(Box::new(frame)));
                }
            }
            let Some(watch) = &mut self.watch else { return Ok(Next::End) };
            let patience = deadline.saturating_duration_since(Instant::now());
            self.pending = watch.arrivals(patience)?;
            if self.pending.is_empty() && Instant::now() >= deadline {
                return Ok(Next::Idle);
            }
        }
    }
}

/// What tells one content of a file from the next without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Stamp {
    inode: u64,
    modified: Option<SystemTime>,
    bytes: u64,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self { inode: metadata.ino(), modified: metadata.modified().ok(), bytes: metadata.len() }
    }
}

/// The pictures of a folder, in no order.
fn list(path: &Path) -> io::Result<Vec<(OsString, Stamp)>> {
    let mut pictures = Vec::new();
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        if is_picture(&name) {
            // What is gone or out of reach by now is no picture; if it is out of reach, its event will say so.
            let metadata = fs::metadata(path.join(&name)).ok().filter(Metadata::is_file);
            pictures.extend(metadata.map(|metadata| (name, Stamp::of(&metadata))));
        }
    }
    Ok(pictures)
}

fn is_picture(name: &OsStr) -> bool {
    let hidden = name.as_encoded_bytes().starts_with(b".");
    let extension = Path::new(name).extension();
    !hidden && extension.is_some_and(|extension| EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known)))
}

fn read(path: &Path, metadata: &Metadata, limit: u64) -> Result<Vec<u8>, String> {
    let over = |bytes: u64| {
        format!("file of {bytes} bytes is over vision.max_bytes = {limit}; raise the limit or send smaller ones")
    };
    if metadata.len() > limit {
        return Err(over(metadata.len()));
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    let file = File::open(path).map_err(|error| error.to_string())?;
    // It may have grown since it was measured: one byte more than allowed is enough to tell.
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > limit { Err(over(bytes.len() as u64)) } else { Ok(bytes) }
}

// A time outside jiff's ten thousand years comes from a broken file system; then the frame is as old as we know it.
fn modified(metadata: &Metadata) -> Timestamp {
    metadata.modified().ok().and_then(|time| Timestamp::try_from(time).ok()).unwrap_or_else(Timestamp::now)
}

fn unusable(path: &Path, error: &io::Error) -> CameraError {
    let reason = match error.kind() {
        ErrorKind::NotFound => "there is no such folder: create it, or correct camera.folder.path".to_owned(),
        ErrorKind::NotADirectory => "this is a file: camera.folder.path must name the folder that holds it".to_owned(),
        ErrorKind::PermissionDenied => "the folder may not be read: give this user read and search permission \
                                        on it (chmod o+rx, or a common group)"
            .to_owned(),
        _ => error.to_string(),
    };
    CameraError::Source { place: path.to_path_buf(), reason }
}

#[cfg(test)]
mod tests;
