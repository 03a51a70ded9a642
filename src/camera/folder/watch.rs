//! What arrives in a folder, by inotify.
//!
//! The kernel's queue of events is read only when everything before it has been handed over, so that a burst waits in the
//! kernel. When that queue overflows, once at the start, and as often as asked for, the folder is listed and compared with
//! what is remembered.
//! A file found by listing may still be written to; it counts as arrived when two listings in a row show it the same.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use inotify::{Event, EventMask, Inotify, WatchMask};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::{CameraError, Journal, Stamp, is_picture, list, unusable};

/// Time between two listings that must agree on a file.
const SETTLE: Duration = Duration::from_millis(500);
/// Room for a few hundred events. Names that have not been asked for stay in the kernel.
const BUFFER: usize = 16 * 1024;
/// Names remembered before a look at which of them still exist; later twice as many as existed at the last look.
const MEMORY: usize = 4096;

/// A watched folder.
#[derive(Debug)]
pub(super) struct Watch {
    path: PathBuf,
    inotify: Inotify,
    buffer: Vec<u8>,
    seen: HashMap<OsString, Stamp>,
    forget_at: usize,
    // Found by listing and perhaps still being written.
    unsettled: HashMap<OsString, Stamp>,
    list_at: Option<Instant>,
    poll: Option<Duration>,
    journal: Option<Journal>,
    moved: Option<(u32, OsString)>,
}

impl Watch {
    /// Watches a folder in which `there` has been seen; `journal` is told what is gone from it.
    pub(super) fn new(
        path: &Path,
        there: Vec<(OsString, Stamp)>,
        poll: Option<Duration>,
        journal: Option<Journal>,
    ) -> Result<Self, CameraError> {
        let inotify = start(path).map_err(|error| unwatchable(path, &error))?;
        Ok(Self {
            path: path.to_path_buf(),
            inotify,
            buffer: vec![0; BUFFER],
            seen: there.into_iter().collect(),
            forget_at: MEMORY,
            unsettled: HashMap::new(),
            // What was closed between the caller's listing and the start of the watch.
            list_at: Some(Instant::now()),
            poll,
            journal,
            moved: None,
        })
    }

    /// The names that arrived, waiting at most `patience` for the first. Some may have been seen before.
    pub(super) fn arrivals(&mut self, patience: Duration) -> Result<VecDeque<OsString>, CameraError> {
        let until_listing = self.list_at.map(|at| at.saturating_duration_since(Instant::now()));
        self.wait(until_listing.map_or(patience, |until| until.min(patience))).map_err(|error| self.lost(&error))?;
        let mut names = self.events()?;
        if self.list_at.is_some_and(|at| at <= Instant::now()) {
            names.extend(self.settled()?);
        } else if self.seen.len() > self.forget_at {
            self.forget(&self.list()?);
        }
        Ok(names)
    }

    /// Notes a file's content; false if it was noted before.
    pub(super) fn remember(&mut self, name: &OsStr, stamp: Stamp) -> bool {
        self.unsettled.remove(name);
        if self.seen.get(name) == Some(&stamp) {
            return false;
        }
        self.seen.insert(name.to_owned(), stamp);
        true
    }

    // Sleeps in the kernel until there is an event: no delay on a frame and no wake-ups while nothing comes.
    fn wait(&self, patience: Duration) -> io::Result<()> {
        let timeout = Timespec::try_from(patience).ok();
        match poll(&mut [PollFd::new(&self.inotify, PollFlags::IN)], timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn events(&mut self) -> Result<VecDeque<OsString>, CameraError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = match self.inotify.read_events(&mut buffer) {
            Ok(events) => self.names(events),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(VecDeque::new()),
            Err(error) => Err(self.lost(&error)),
        };
        self.buffer = buffer;
        result
    }

    fn names<'a>(&mut self, events: impl Iterator<Item = Event<&'a OsStr>>) -> Result<VecDeque<OsString>, CameraError> {
        let mut names = VecDeque::new();
        for event in events {
            let gone = EventMask::DELETE_SELF | EventMask::MOVE_SELF | EventMask::UNMOUNT | EventMask::IGNORED;
            if event.mask.intersects(gone) {
                return Err(self.gone());
            }
            if event.mask.contains(EventMask::Q_OVERFLOW) {
                self.list_at = Some(Instant::now());
            }
            let Some(name) = event.name.filter(|name| is_picture(name)) else { continue };
            if event.mask.contains(EventMask::MOVED_FROM) {
                self.moved = Some((event.cookie, name.to_owned()));
            } else {
                self.follow(event.cookie, name);
                names.push_back(name.to_owned());
            }
        }
        Ok(names)
    }

    // A picture renamed within the folder is the same picture: what was seen under its old name is seen under its new one.
    fn follow(&mut self, cookie: u32, name: &OsStr) {
        if let Some((_, old)) = self.moved.take_if(|(moved, _)| *moved == cookie)
            && let Some(stamp) = self.seen.remove(&old)
        {
            self.seen.insert(name.to_owned(), stamp);
        }
    }

    // Lists the folder for files that no event has told of, and lists it again while any of them may still grow.
    fn settled(&mut self) -> Result<Vec<OsString>, CameraError> {
        let there = self.list()?;
        self.forget(&there);
        let mut unseen: HashMap<OsString, Stamp> =
            there.into_iter().filter(|(name, stamp)| self.seen.get(name) != Some(stamp)).collect();
        let same = unseen.extract_if(|name, stamp| self.unsettled.get(name) == Some(stamp));
        let mut settled: Vec<OsString> = same.map(|(name, _)| name).collect();
        settled.sort_unstable();
        let again = if unseen.is_empty() { self.poll } else { Some(SETTLE) };
        self.list_at = again.map(|wait| Instant::now() + wait);
        self.unsettled = unseen;
        Ok(settled)
    }

    // Keeps the memory of a folder that is filled and emptied for weeks in proportion to what it holds.
    fn forget(&mut self, there: &[(OsString, Stamp)]) {
        let names: HashSet<&OsString> = there.iter().map(|(name, _)| name).collect();
        self.seen.retain(|name, _| names.contains(name));
        self.forget_at = (2 * self.seen.len()).max(MEMORY);
        if let Some(journal) = &self.journal {
            journal.tidy(&there.iter().map(|(_, stamp)| *stamp).collect::<Vec<_>>());
        }
    }

    fn list(&self) -> Result<Vec<(OsString, Stamp)>, CameraError> {
        list(&self.path).map_err(|error| self.lost(&error))
    }

    fn gone(&self) -> CameraError {
        let reason = "the folder was removed or renamed while it was watched: create it again and restart, or point \
                      camera.folder.path at its new place";
        CameraError::Source { place: self.path.clone(), reason: reason.to_owned() }
    }

    fn lost(&self, error: &io::Error) -> CameraError {
        if error.kind() == ErrorKind::NotFound { self.gone() } else { unusable(&self.path, error) }
    }
}

fn unwatchable(path: &Path, error: &io::Error) -> CameraError {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOSPC | Errno::MFILE) => {
            let cure = "raise fs.inotify.max_user_watches and fs.inotify.max_user_instances with sysctl";
            CameraError::Source { place: path.to_path_buf(), reason: format!("{error}: {cure}") }
        }
        _ => unusable(path, error),
    }
}

fn start(path: &Path) -> io::Result<Inotify> {
    let arrivals = WatchMask::CLOSE_WRITE | WatchMask::MOVED_TO | WatchMask::MOVED_FROM;
    let end = WatchMask::DELETE_SELF | WatchMask::MOVE_SELF | WatchMask::ONLYDIR;
    let inotify = Inotify::init()?;
    inotify.watches().add(path, arrivals | end)?;
    Ok(inotify)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const SURELY: Duration = Duration::from_secs(20);

    // What arrives until something does.
    fn first(watch: &mut Watch) -> VecDeque<OsString> {
        let deadline = Instant::now() + SURELY;
        loop {
            let names = watch.arrivals(Duration::from_millis(10)).unwrap();
            if !names.is_empty() || Instant::now() > deadline {
                return names;
            }
        }
    }

    #[test]
    fn a_file_closed_before_the_watch_began_is_found_once_it_stays_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("between.jpg");
        fs::write(&path, "half").unwrap();
        let mut watch = Watch::new(folder.path(), Vec::new(), None, None).unwrap();
        assert!(watch.arrivals(Duration::ZERO).unwrap().is_empty(), "it may still be written");
        let began = Instant::now();
        assert_eq!(first(&mut watch), ["between.jpg"]);
        assert!(began.elapsed() >= SETTLE / 2);
    }

    #[test]
    fn names_that_no_longer_exist_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("kept.jpg"), "kept").unwrap();
        let mut watch = Watch::new(folder.path(), list(folder.path()).unwrap(), None, None).unwrap();
        assert!(watch.arrivals(Duration::ZERO).unwrap().is_empty());
        let stamp = Stamp { inode: 0, modified: None, bytes: 0 };
        for number in 0..=MEMORY {
            assert!(watch.remember(OsStr::new(&format!("gone-{number}.jpg")), stamp));
        }
        assert!(watch.arrivals(Duration::ZERO).unwrap().is_empty());
        assert_eq!(watch.seen.len(), 1);
    }
}
