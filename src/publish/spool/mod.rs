//! Store and forward: what must arrive is on disk before it is offered to the network, and is deleted once the broker
//! has acknowledged it.
//!
//! Promise:
//! - What [`Spool::put`] has taken survives the process from the moment it returns (the bytes are the kernel's), and a
//!   power cut from at most [`LOSS_WINDOW`] later on (a thread syncs files that often). `put` never waits for either.
//! - [`Spool::next`] hands out each class in the order it came; after [`Spool::rewind`] it begins
//!   again at the first message that is not [`Spool::done`]. So a message may come twice, never out of order.
//! - The spool is bounded in bytes and in age; beyond, results go before events and the oldest first, counted.
//! - No state of the disk stops the daemon: full, read-only, absent, damaged or written by a newer version. New messages
//!   wait in memory meanwhile, old ones are read as far as they are whole, [`SpoolStats`] says so, and the disk is taken
//!   into use again when it can be.
//!
//! Age is counted by the spool's own clock, which stands still while the daemon does: a board without a clock does not
//! know how long it was off, and a clock that is set by ten days must not drop anything.
//!
//! `record` is a message's form in a file, `queue` one class's files, `store` both classes within bounds, `disk` the file
//! operations, which tests replace.

mod disk;
mod queue;
mod record;
mod store;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::config::SpoolConfig;
use disk::Folder;
use store::Store;

/// What a power cut may cost at most.
pub const LOSS_WINDOW: Duration = Duration::from_millis(500);
/// How often files are synced: the window, less the time that a sync itself may take.
const SYNC_EVERY: Duration = Duration::from_millis(200);
/// How often a disk that cannot be used is tried, and old messages are looked for.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// What a message is worth: the link sends events before results, and results are dropped before events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Must arrive.
    Event,
    /// Fills the record.
    Result,
}

impl Class {
    const ALL: [Self; 2] = [Self::Event, Self::Result];

    fn index(self) -> usize {
        self as usize
    }
}

/// Names a message that was handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket {
    class: Class,
    seq: u64,
    epoch: u64,
}

/// A message that was handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// To be given back when the broker has the message.
    pub ticket: Ticket,
    /// Where to.
    pub topic: String,
    /// As it was put in.
    pub payload: Vec<u8>,
    /// It was put in before the last rewind: a lost link or a restart has delayed it.
    pub delayed: bool,
}

/// Whether new messages are safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SpoolState {
    /// They go to disk.
    Durable,
    /// The disk refuses; they wait in memory.
    Memory,
    /// The configuration wants none.
    Off,
}

/// The spool's state and counters since the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolStats {
    /// Whether new messages are safe.
    pub state: SpoolState,
    /// Why not.
    pub reason: Option<String>,
    /// Events that wait.
    pub events: u64,
    /// Results that wait.
    pub results: u64,
    /// Of these, messages that are in memory only.
    pub in_memory: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Messages dropped because the spool was full.
    pub dropped_size: u64,
    /// Messages dropped because they were too old.
    pub dropped_age: u64,
    /// Messages lost to a damaged file.
    pub damaged: u64,
    /// Messages no broker would take, kept in `refused.jsonl`.
    pub refused: u64,
    /// Events among the dropped and damaged.
    pub events_lost: u64,
}

/// A spool in use. Threads share it; no call waits for the medium.
pub struct Spool {
    shared: Arc<Shared>,
    results: bool,
    syncer: Option<(Sender<()>, JoinHandle<()>)>,
}

struct Shared {
    store: Mutex<Store>,
    started: Instant,
}

impl Spool {
    /// Takes the folder into use; whatever is wrong with it is told by [`Spool::stats`] and tried again.
    ///
    /// # Errors
    /// Only when no thread can be had.
    pub fn open(config: &SpoolConfig) -> std::io::Result<Self> {
        let opener: Option<store::Opener> = config.path.clone().map(|path| {
            let open: store::Opener = Box::new(move || Ok(Box::new(folder(&path)?)));
            open
        });
        let max_age_ms = u64::try_from(config.max_age.as_millis()).unwrap_or(u64::MAX);
        let store = Store::new(opener, config.max_bytes, max_age_ms);
        let shared = Arc::new(Shared { store: Mutex::new(store), started: Instant::now() });
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new().name("spool".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || {
                let mut upkeep = Instant::now();
                while stopped.recv_timeout(SYNC_EVERY) == Err(RecvTimeoutError::Timeout) {
                    if upkeep.elapsed() > UPKEEP_EVERY {
                        upkeep = Instant::now();
                        shared.upkeep();
                    }
                    shared.sync();
                }
                shared.sync();
            }
        })?;
        Ok(Self { shared, results: config.results, syncer: Some((stop, thread)) })
    }

    /// Whether results are to go through the spool.
    pub fn takes_results(&self) -> bool {
        self.results
    }

    /// Takes a message.
    pub fn put(&self, class: Class, topic: String, payload: Vec<u8>) {
        let now = self.shared.now();
        self.shared.lock().put(class, topic, payload, now);
    }

    /// The next message of a class to send.
    #[must_use]
    pub fn next(&self, class: Class) -> Option<Entry> {
        let now = self.shared.now();
        self.shared.lock().next(class, now)
    }

    /// Begins again at the first message that is not done.
    pub fn rewind(&self) {
        self.shared.lock().rewind();
    }

    /// The broker has it.
    pub fn done(&self, ticket: Ticket) {
        self.shared.lock().done(ticket);
    }

    /// No broker will take it: it is taken out and kept in `refused.jsonl`.
    pub fn refuse(&self, entry: &Entry, reason: &str) {
        self.shared.lock().refuse(entry, reason);
    }

    /// State and counters.
    pub fn stats(&self) -> SpoolStats {
        self.shared.lock().stats()
    }

    /// Tries whether the folder of a configuration can be used, for `check`; what to tell about it.
    ///
    /// # Errors
    /// [`SpoolError`] naming the folder and the cure.
    pub fn check(path: &Path) -> Result<String, SpoolError> {
        let unusable = |source| SpoolError { path: path.to_owned(), source };
        let mut folder = match folder(path) {
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
                return Ok(format!("{} is in use by a running daemon", path.display()));
            }
            folder => folder.map_err(unusable)?,
        };
        disk::Disk::write_at(&mut folder, "check", 0, b"check").map_err(unusable)?;
        disk::Disk::remove(&mut folder, "check").map_err(unusable)?;
        Ok(format!("{} can be written", path.display()))
    }
}

fn folder(path: &Path) -> std::io::Result<Folder> {
    Folder::open(path).map_err(|error| std::io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

impl Drop for Spool {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.syncer.take() {
            drop(stop);
            if thread.join().is_err() {
                log::error!("spool: the thread had failed; this is a bug in remoteclipd");
            }
        }
    }
}

impl Shared {
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    // The store keeps its files and counters consistent step by step: after a panic elsewhere it stays usable.
    fn lock(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn upkeep(&self) {
        let now = self.now();
        let mut store = self.lock();
        store.attach(now);
        store.store();
        store.expire(now);
    }

    fn sync(&self) {
        let jobs = self.lock().unsynced();
        if jobs.is_empty() {
            return;
        }
        let outcome = jobs.into_iter().try_for_each(|job| job());
        self.lock().synced(outcome);
    }
}

/// Why a spool's folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "the spool's folder {path} cannot be used: {source}; make it writable, name another with state.path, or set spool.enabled = false"
)]
pub struct SpoolError {
    path: PathBuf,
    source: std::io::Error,
}
