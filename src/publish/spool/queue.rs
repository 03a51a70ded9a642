//! One queue of the spool: numbered messages in segment files, oldest first.
//!
//! - `put` appends; when the disk refuses, the message waits in memory behind what is on disk, and goes there later.
//! - `next` walks from the first message that is not done to the last; `rewind` begins again.
//! - `done` takes a message out. Segments whose messages are all done are deleted; how far that has come is kept in a
//!   ledger file, so that a restart sends as little as possible twice. A lost ledger costs duplicates, never a message.
//! - Damage costs the damaged messages only, and they are counted.
//!
//! Files: `<name>-<first number>.log`, `<name>.head`.

use std::collections::{BTreeSet, VecDeque};
use std::io;

use super::disk::Disk;
use super::record::{HEADER, Kind, Parsed, Record, kind};

/// Messages kept in memory while the disk refuses; then the oldest goes.
pub(super) const IN_MEMORY: usize = 4096;
/// Bytes read ahead.
const CHUNK: usize = 64 << 10;
/// Failed reads of one place, in a row, before the rest of its segment is given up.
pub(super) const READ_TRIES: u32 = 5;

/// A file of messages.
#[derive(Debug)]
struct Segment {
    first: u64,
    len: u64,
}

/// Where reading stands.
#[derive(Debug, Default)]
struct Cursor {
    /// The next number to hand out.
    seq: u64,
    /// The segment, by its first number, and the place in it.
    at: Option<(u64, u64)>,
    /// Bytes read ahead, and how many of them are used up: the rest begins at that place.
    ahead: Vec<u8>,
    used: usize,
    failures: u32,
}

/// Messages that are gone, by cause.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dropped {
    pub size: u64,
    pub age: u64,
    pub damaged: u64,
}

pub(super) struct Queue {
    name: &'static str,
    segment_bytes: u64,
    segments: VecDeque<Segment>,
    /// The number behind the last one in the active segment.
    written: u64,
    /// What the disk has not taken: always the newest numbers, without a gap.
    memory: VecDeque<Record>,
    /// The next number to be given.
    next: u64,
    /// The first that is not done.
    head: u64,
    done: BTreeSet<u64>,
    cursor: Cursor,
    pub dropped: Dropped,
    /// Spool clock of the newest message that was found at the start.
    pub newest: u64,
}

impl Queue {
    /// An empty queue that has seen no disk yet.
    pub fn new(name: &'static str, segment_bytes: u64) -> Self {
        Self {
            name,
            segment_bytes,
            segments: VecDeque::new(),
            written: 1,
            memory: VecDeque::new(),
            next: 1,
            head: 1,
            done: BTreeSet::new(),
            cursor: Cursor { seq: 1, ..Cursor::default() },
            dropped: Dropped::default(),
            newest: 0,
        }
    }

    /// Takes over what lies on `disk`; what waits in memory goes behind it, under new numbers. Files that are not ours to
    /// read are put aside and named.
    pub fn attach(&mut self, disk: &mut dyn Disk) -> io::Result<Vec<String>> {
        let mut aside = Vec::new();
        let mut segments = Vec::new();
        for (name, len) in disk.files()? {
            let Some(first) = self.number_of(&name) else { continue };
            let header = disk.read_at(&name, 0, HEADER.len())?;
            match kind(&header) {
                Kind::Ours => segments.push(Segment { first, len }),
                Kind::Empty => ignore(disk.remove(&name)),
                found => {
                    let what = match found {
                        Kind::Newer(version) => format!("{name} was written by a newer version (format {version})"),
                        _ => format!("{name} is no spool file"),
                    };
                    aside.push(match disk.put_aside(&name) {
                        Ok(()) => format!("{what}; moved to the folder aside"),
                        Err(error) => format!("{what}; it cannot be moved aside: {error}"),
                    });
                }
            }
        }
        segments.sort_by_key(|segment| segment.first);
        self.segments = segments.into();
        let ledger = self.read_ledger(disk)?;
        self.written = self.measure_last(disk)?;
        // Numbers below a known head must not be given again: they would pass for done.
        self.next = self.written.max(ledger);
        let oldest = self.segments.front().map_or(self.next, |segment| segment.first);
        self.head = ledger.clamp(oldest, self.next);
        self.done.clear();
        for record in &mut self.memory {
            record.seq = self.next;
            self.next += 1;
        }
        self.rewind();
        ignore(self.remove_done_segments(disk));
        Ok(aside)
    }

    /// Puts a message in. The error says why the disk refused; the message waits in memory then.
    pub fn put(&mut self, disk: Option<&mut dyn Disk>, at: u64, topic: String, payload: Vec<u8>) -> io::Result<()> {
        self.memory.push_back(Record { seq: self.next, at, topic, payload });
        self.next += 1;
        let stored = match disk {
            Some(disk) => self.store(disk),
            None => Ok(()),
        };
        if self.memory.len() > IN_MEMORY
            && let Some(oldest) = self.memory.pop_front()
        {
            self.dropped.size += u64::from(self.done.insert(oldest.seq));
            self.advance(None)?;
        }
        stored
    }

    /// Moves what waits in memory to the disk.
    pub fn store(&mut self, disk: &mut dyn Disk) -> io::Result<()> {
        while let Some(record) = self.memory.front() {
            let bytes = record.encode();
            // A number that never came to the disk leaves a gap, and only between two segments may there be one.
            let active = self
                .segments
                .back()
                .filter(|segment| segment.len + bytes.len() as u64 <= self.segment_bytes && record.seq == self.written);
            let (first, at) = match active {
                Some(segment) => (segment.first, segment.len),
                None => {
                    disk.write_at(&self.file(record.seq), 0, &HEADER)?;
                    (record.seq, HEADER.len() as u64)
                }
            };
            disk.write_at(&self.file(first), at, &bytes)?;
            let len = at + bytes.len() as u64;
            match self.segments.back_mut() {
                Some(segment) if segment.first == first => segment.len = len,
                _ => self.segments.push_back(Segment { first, len }),
            }
            self.written = record.seq + 1;
            self.memory.pop_front();
        }
        Ok(())
    }

    /// On disk are numbers below this, in memory those from there on.
    fn stored(&self) -> u64 {
        self.next - self.memory.len() as u64
    }

    /// Starts again at the first message that is not done.
    pub fn rewind(&mut self) {
        self.cursor = Cursor { seq: self.head, ..Cursor::default() };
    }

    /// The next message not yet handed out, or `None` when all were.
    pub fn next(&mut self, mut disk: Option<&mut dyn Disk>) -> io::Result<Option<Record>> {
        loop {
            self.cursor.seq = self.cursor.seq.max(self.head);
            if self.cursor.seq >= self.next {
                return Ok(None);
            }
            let stored = self.stored();
            let record = match (self.cursor.seq.checked_sub(stored), disk.as_deref_mut()) {
                (Some(index), _) => self.memory.get(index as usize).cloned(),
                (None, Some(disk)) => self.read(disk)?,
                (None, None) => None,
            };
            let Some(record) = record else {
                // Nothing whole is left before what is in memory.
                self.lose_from_cursor(stored);
                continue;
            };
            if record.seq > self.cursor.seq {
                self.lose_from_cursor(record.seq);
            }
            self.cursor.seq = record.seq + 1;
            if record.seq >= self.head && !self.done.contains(&record.seq) {
                return Ok(Some(record));
            }
        }
    }

    /// The next whole record on disk from the cursor on; `None` when none is left there.
    fn read(&mut self, disk: &mut dyn Disk) -> io::Result<Option<Record>> {
        while self.cursor.seq < self.stored() {
            let Some((first, len, end)) = self.segment_of_cursor() else { return Ok(None) };
            let offset = match self.cursor.at {
                Some((of, offset)) if of == first => offset,
                _ => {
                    self.cursor.ahead.clear();
                    self.cursor.used = 0;
                    HEADER.len() as u64
                }
            };
            let ahead = &self.cursor.ahead[self.cursor.used..];
            let seen = offset + ahead.len() as u64;
            match Record::decode(ahead) {
                Parsed::Whole(record, used) => {
                    self.step(first, offset, used);
                    if record.seq >= self.cursor.seq {
                        return Ok(Some(record));
                    }
                }
                Parsed::Short(needed) if seen < len => self.read_ahead(disk, (first, offset, len, end), needed)?,
                Parsed::Short(_) | Parsed::Bad if !ahead.is_empty() => {
                    let skip = Record::find(ahead, 1);
                    self.step(first, offset, skip);
                }
                _ => self.leave_segment(end),
            }
        }
        Ok(None)
    }

    fn step(&mut self, segment: u64, offset: u64, used: usize) {
        self.cursor.used += used;
        self.cursor.at = Some((segment, offset + used as u64));
    }

    /// Fills the buffer from `offset` of a segment. A place that cannot be read ends the segment, after some tries.
    fn read_ahead(&mut self, disk: &mut dyn Disk, place: (u64, u64, u64, u64), needed: usize) -> io::Result<()> {
        let (first, offset, len, end) = place;
        let had = self.cursor.ahead.len() - self.cursor.used;
        // Behind the known length may lie the remains of a write that failed.
        let wanted = needed.max(CHUNK).min(usize::try_from(len - offset).unwrap_or(usize::MAX));
        match disk.read_at(&self.file(first), offset, wanted) {
            Ok(bytes) if bytes.len() > had => {
                (self.cursor.ahead, self.cursor.used) = (bytes, 0);
                self.cursor.at = Some((first, offset));
                self.cursor.failures = 0;
            }
            // The file has become shorter.
            Ok(_) => self.leave_segment(end),
            Err(error) => {
                self.cursor.failures += 1;
                if self.cursor.failures < READ_TRIES {
                    return Err(error);
                }
                self.cursor.failures = 0;
                self.leave_segment(end);
            }
        }
        Ok(())
    }

    /// The segment that holds the cursor's number: its first number, its length, and the first number behind it.
    fn segment_of_cursor(&self) -> Option<(u64, u64, u64)> {
        let index = self.segments.partition_point(|segment| segment.first <= self.cursor.seq);
        // Before the first segment: the numbers up to it are gone.
        let index = index.saturating_sub(1);
        let segment = self.segments.get(index)?;
        let end = self.segments.get(index + 1).map_or(self.stored(), |next| next.first);
        Some((segment.first, segment.len, end))
    }

    /// The rest of the cursor's segment holds nothing more.
    fn leave_segment(&mut self, end: u64) {
        self.cursor.at = None;
        self.lose_from_cursor(end);
    }

    fn lose_from_cursor(&mut self, to: u64) {
        for seq in self.cursor.seq..to {
            if seq >= self.head && self.done.insert(seq) {
                self.dropped.damaged += 1;
            }
        }
        self.cursor.seq = to;
    }

    /// Takes a message out. The error is the ledger's or a file's that could not be deleted; the message is out anyway.
    pub fn done(&mut self, disk: Option<&mut dyn Disk>, seq: u64) -> io::Result<()> {
        if seq < self.head || seq >= self.next || !self.done.insert(seq) {
            return Ok(());
        }
        self.advance(disk)
    }

    fn advance(&mut self, disk: Option<&mut dyn Disk>) -> io::Result<()> {
        let before = self.head;
        while self.done.remove(&self.head) {
            self.head += 1;
        }
        if self.head == before {
            return Ok(());
        }
        while self.memory.front().is_some_and(|record| record.seq < self.head) {
            self.memory.pop_front();
        }
        let Some(disk) = disk else { return Ok(()) };
        self.write_ledger(disk)?;
        self.remove_done_segments(disk)
    }

    /// Deletes the oldest segment with what is in it; false when there is none.
    pub fn drop_oldest(&mut self, disk: &mut dyn Disk, cause: fn(&mut Dropped) -> &mut u64) -> io::Result<bool> {
        let Some(oldest) = self.segments.pop_front() else { return Ok(false) };
        let end = self.segments.front().map_or(self.written, |next| next.first);
        for seq in self.head..end {
            *cause(&mut self.dropped) += u64::from(self.done.insert(seq));
        }
        disk.remove(&self.file(oldest.first))?;
        self.advance(Some(disk))?;
        Ok(true)
    }

    /// Whether the whole oldest segment is older than `limit` by the spool clock `now`: the next segment's first record is.
    pub fn oldest_is_stale(&mut self, disk: &mut dyn Disk, now: u64, limit: u64) -> io::Result<bool> {
        let Some(second) = self.segments.get(1).map(|segment| segment.first) else { return Ok(false) };
        let bytes = disk.read_at(&self.file(second), HEADER.len() as u64, CHUNK)?;
        match Record::decode(&bytes) {
            Parsed::Whole(record, _) => Ok(now.saturating_sub(record.at) > limit),
            _ => Ok(false),
        }
    }

    /// Messages that are not done.
    pub fn waiting(&self) -> u64 {
        self.next - self.head - self.done.len() as u64
    }

    /// The number the next message will get.
    pub fn end(&self) -> u64 {
        self.next
    }

    /// Messages that are in memory only.
    pub fn in_memory(&self) -> u64 {
        self.memory.len() as u64
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.len).sum()
    }

    fn remove_done_segments(&mut self, disk: &mut dyn Disk) -> io::Result<()> {
        while self.segments.get(1).is_some_and(|next| next.first <= self.head) {
            if let Some(segment) = self.segments.pop_front() {
                disk.remove(&self.file(segment.first))?;
            }
        }
        Ok(())
    }

    /// Finds the end of the last whole record and cuts what a crash left behind it; the number behind that record.
    fn measure_last(&mut self, disk: &mut dyn Disk) -> io::Result<u64> {
        let Some(last) = self.segments.back() else { return Ok(1) };
        let (first, name) = (last.first, self.file(last.first));
        let bytes = disk.read_at(&name, 0, usize::try_from(last.len).unwrap_or(usize::MAX))?;
        let (mut at, mut end, mut stored) = (HEADER.len(), HEADER.len(), first);
        while at < bytes.len() {
            match Record::decode(&bytes[at..]) {
                Parsed::Whole(record, used) => {
                    at += used;
                    end = at;
                    stored = stored.max(record.seq + 1);
                    self.newest = self.newest.max(record.at);
                }
                // Not the tail of a crash if whole records follow.
                _ => at = Record::find(&bytes, at + 1).max(at + 1),
            }
        }
        if (end as u64) < last.len {
            log::warn!("spool: {name}: {} bytes of an unfinished record cut off", last.len - end as u64);
            // On a read-only disk the tail stays; the next write goes over it all the same.
            ignore(disk.truncate(&name, end as u64));
        }
        if let Some(last) = self.segments.back_mut() {
            last.len = end as u64;
        }
        Ok(stored)
    }

    fn read_ledger(&self, disk: &mut dyn Disk) -> io::Result<u64> {
        let bytes = match disk.read_at(&self.ledger(), 0, 12) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error),
        };
        let Some((seq, sum)) = bytes.split_first_chunk::<8>() else { return Ok(0) };
        let whole = crc32fast::hash(seq).to_le_bytes() == *sum;
        Ok(if whole { u64::from_le_bytes(*seq) } else { 0 })
    }

    fn write_ledger(&self, disk: &mut dyn Disk) -> io::Result<()> {
        let seq = self.head.to_le_bytes();
        let sum = crc32fast::hash(&seq).to_le_bytes();
        disk.write_at(&self.ledger(), 0, &[&seq[..], &sum[..]].concat())
    }

    fn ledger(&self) -> String {
        format!("{}.head", self.name)
    }

    fn file(&self, first: u64) -> String {
        format!("{}-{first:020}.log", self.name)
    }

    fn number_of(&self, file: &str) -> Option<u64> {
        file.strip_prefix(self.name)?.strip_prefix('-')?.strip_suffix(".log")?.parse().ok()
    }
}

/// On a disk that cannot be written, tidying up fails, and reading goes on.
fn ignore(outcome: io::Result<()>) {
    if let Err(error) = outcome {
        log::debug!("spool: {error}");
    }
}
