//! The spool without its lock and its thread: queues on a disk that may be away, within bounds.

use std::io;

use super::disk::Disk;
use super::queue::{Dropped, Queue};
use super::record::Record;
use super::{Class, Entry, SpoolState, SpoolStats, Ticket};

/// A segment is this part of the bound: what a full spool loses at once …
const SEGMENTS: u64 = 16;
/// … and no smaller or larger than this, in bytes.
const SEGMENT: std::ops::RangeInclusive<u64> = 64 << 10..=4 << 20;
/// Where refused messages are kept, and how much of them.
const REFUSED: &str = "refused.jsonl";
const REFUSED_BYTES: u64 = 1 << 20;

/// Gives the disk, or says why not.
pub(super) type Opener = Box<dyn Fn() -> io::Result<Box<dyn Disk>> + Send>;

pub(super) struct Store {
    opener: Option<Opener>,
    disk: Option<Box<dyn Disk>>,
    /// Events, results; dropping goes the other way.
    queues: [Queue; 2],
    /// Numbers from here on were put in since the last rewind.
    fresh: [u64; 2],
    /// Tickets of an older epoch name numbers that have changed since.
    epoch: u64,
    max_bytes: u64,
    max_age_ms: u64,
    clock_base: u64,
    trouble: Option<String>,
    sync_trouble: Option<String>,
    refused: u64,
    refused_at: Option<u64>,
}

impl Store {
    /// Opens the disk if it can; `None` for a spool in memory only.
    pub fn new(opener: Option<Opener>, max_bytes: u64, max_age_ms: u64) -> Self {
        let segment = (max_bytes / SEGMENTS).clamp(*SEGMENT.start(), *SEGMENT.end());
        let mut store = Self {
            opener,
            disk: None,
            queues: [Queue::new("event", segment), Queue::new("result", segment)],
            fresh: [1; 2],
            epoch: 0,
            max_bytes,
            max_age_ms,
            clock_base: 0,
            trouble: None,
            sync_trouble: None,
            refused: 0,
            refused_at: None,
        };
        store.attach(0);
        store
    }

    /// Tries to take the disk into use.
    pub fn attach(&mut self, now: u64) {
        let Some(opener) = self.opener.as_ref().filter(|_| self.disk.is_none()) else { return };
        let attached = opener().and_then(|mut disk| {
            for queue in &mut self.queues {
                for line in queue.attach(disk.as_mut())? {
                    log::warn!("spool: {line}");
                }
            }
            Ok(disk)
        });
        match attached {
            Ok(disk) => {
                self.disk = Some(disk);
                self.epoch += 1;
                // The spool's clock goes on where its newest message stands, so it counts only time it has seen.
                let newest = self.queues.iter().map(|queue| queue.newest).max().unwrap_or(0);
                self.clock_base = self.clock_base.max(newest.saturating_sub(now));
                self.rewind();
                self.store();
            }
            Err(error) => self.trouble(&error),
        }
    }

    pub fn put(&mut self, class: Class, topic: String, payload: Vec<u8>, now: u64) {
        let at = self.clock_base + now;
        let record = Record { seq: 0, at, topic, payload };
        if record.encoded_len() > super::record::MAX_BODY || record.topic.len() > usize::from(u16::MAX) {
            log::error!("spool: a message of {} bytes for {} is too large", record.payload.len(), record.topic);
            self.queues[class.index()].dropped.size += 1;
            return;
        }
        let put = self.queues[class.index()].put(disk(&mut self.disk), at, record.topic, record.payload);
        self.note(put);
        self.keep_bounds();
    }

    /// Begins again at the first message that is not done: what was put in before now counts as delayed.
    pub fn rewind(&mut self) {
        for (queue, fresh) in self.queues.iter_mut().zip(&mut self.fresh) {
            queue.rewind();
            *fresh = queue.end();
        }
    }

    /// The next message of a class to send.
    pub fn next(&mut self, class: Class, now: u64) -> Option<Entry> {
        let now = self.clock_base + now;
        let queue = &mut self.queues[class.index()];
        loop {
            let record = match queue.next(disk(&mut self.disk)) {
                Ok(record) => record?,
                Err(error) => {
                    self.trouble(&error);
                    return None;
                }
            };
            if now.saturating_sub(record.at) > self.max_age_ms {
                queue.dropped.age += 1;
                // The ledger's trouble comes up again with the next message.
                let _ = queue.done(disk(&mut self.disk), record.seq);
                continue;
            }
            let ticket = Ticket { class, seq: record.seq, epoch: self.epoch };
            let delayed = record.seq < self.fresh[class.index()];
            return Some(Entry { ticket, topic: record.topic, payload: record.payload, delayed });
        }
    }

    /// The broker has it.
    pub fn done(&mut self, ticket: Ticket) {
        if ticket.epoch == self.epoch {
            let done = self.queues[ticket.class.index()].done(disk(&mut self.disk), ticket.seq);
            if let Err(error) = done {
                self.trouble(&error);
            }
        }
    }

    /// Takes a message out that no broker will take, and keeps a copy for a person to look at.
    pub fn refuse(&mut self, entry: &Entry, reason: &str) {
        self.refused += 1;
        if let Some(disk) = &mut self.disk {
            let line = serde_json::json!({
                "reason": reason, "topic": entry.topic, "payload": String::from_utf8_lossy(&entry.payload)
            });
            let line = format!("{line}\n");
            let end = match self.refused_at {
                Some(end) => end,
                None => disk
                    .files()
                    .ok()
                    .and_then(|files| files.into_iter().find(|file| file.0 == REFUSED))
                    .map_or(0, |file| file.1),
            };
            let at = if end > REFUSED_BYTES { 0 } else { end };
            let kept = if at < end { disk.truncate(REFUSED, 0) } else { Ok(()) };
            match kept.and_then(|()| disk.write_at(REFUSED, at, line.as_bytes())) {
                Ok(()) => self.refused_at = Some(at + line.len() as u64),
                Err(error) => log::debug!("spool: {REFUSED}: {error}"),
            }
        }
        self.done(entry.ticket);
    }

    /// Moves to the disk what waits in memory.
    pub fn store(&mut self) {
        let Some(disk) = &mut self.disk else { return };
        let mut stored = Ok(());
        for queue in &mut self.queues {
            stored = stored.and(queue.store(disk.as_mut()));
        }
        self.note(stored);
        self.keep_bounds();
    }

    /// Lets go of what is older than allowed, a segment at a time.
    pub fn expire(&mut self, now: u64) {
        let (now, limit) = (self.clock_base + now, self.max_age_ms);
        let Some(disk) = &mut self.disk else { return };
        for queue in &mut self.queues {
            while queue.oldest_is_stale(disk.as_mut(), now, limit).unwrap_or(false) {
                if !matches!(queue.drop_oldest(disk.as_mut(), |dropped| &mut dropped.age), Ok(true)) {
                    break;
                }
            }
        }
    }

    /// Within the bytes: results go first, and of each class the oldest.
    fn keep_bounds(&mut self) {
        let Some(disk) = &mut self.disk else { return };
        while self.queues.iter().map(Queue::bytes).sum::<u64>() > self.max_bytes {
            let mut dropped = false;
            for queue in self.queues.iter_mut().rev() {
                match queue.drop_oldest(disk.as_mut(), |dropped| &mut dropped.size) {
                    Ok(gone) => dropped = gone,
                    // The segment is let go all the same; its file stays until the next start.
                    Err(error) => {
                        log::debug!("spool: {error}");
                        dropped = true;
                    }
                }
                if dropped {
                    break;
                }
            }
            if !dropped {
                return;
            }
        }
    }

    /// What a sync has to do.
    pub fn unsynced(&mut self) -> Vec<super::disk::SyncJob> {
        self.disk.as_mut().map_or_else(Vec::new, |disk| disk.unsynced())
    }

    /// What became of a sync.
    pub fn synced(&mut self, outcome: io::Result<()>) {
        let trouble = outcome.err().map(|error| format!("cannot be made safe against a power cut: {error}"));
        if let (Some(reason), None) = (&trouble, &self.sync_trouble) {
            log::error!("spool: {reason}");
        }
        self.sync_trouble = trouble;
    }

    fn note(&mut self, outcome: io::Result<()>) {
        match outcome {
            Err(error) => self.trouble(&error),
            Ok(()) if self.disk.is_some() && self.trouble.is_some() => {
                log::info!("spool: the disk takes events again");
                self.trouble = None;
            }
            Ok(()) => {}
        }
    }

    fn trouble(&mut self, error: &io::Error) {
        let reason = error.to_string();
        if self.trouble.as_ref() != Some(&reason) {
            log::error!("spool: {reason}; new events wait in memory, a killed daemon would lose them");
        }
        self.trouble = Some(reason);
    }

    /// Messages of a class that are in memory only.
    pub fn in_memory(&self, class: Class) -> u64 {
        self.queues[class.index()].in_memory()
    }

    pub fn stats(&self) -> SpoolStats {
        let [events, results] = &self.queues;
        let sum = |count: fn(&Dropped) -> u64| count(&events.dropped) + count(&results.dropped);
        let reason = self.trouble.clone().or_else(|| self.sync_trouble.clone());
        SpoolStats {
            state: match (&self.opener, &reason) {
                (None, _) => SpoolState::Off,
                (Some(_), None) => SpoolState::Durable,
                (Some(_), Some(_)) => SpoolState::Memory,
            },
            reason,
            events: events.waiting(),
            results: results.waiting(),
            in_memory: Class::ALL.into_iter().map(|class| self.in_memory(class)).sum(),
            bytes: events.bytes() + results.bytes(),
            dropped_size: sum(|dropped| dropped.size),
            dropped_age: sum(|dropped| dropped.age),
            damaged: sum(|dropped| dropped.damaged),
            refused: self.refused,
            events_lost: events.dropped.size + events.dropped.age + events.dropped.damaged,
        }
    }
}

fn disk(disk: &mut Option<Box<dyn Disk>>) -> Option<&mut dyn Disk> {
    match disk {
        Some(disk) => Some(disk.as_mut()),
        None => None,
    }
}
