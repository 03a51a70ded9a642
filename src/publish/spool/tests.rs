//! The store against a model, on a disk that fails, forgets and tears, and the spool on a real one.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::disk::{Disk, SyncJob};
use super::queue::READ_TRIES;
use super::store::Store;
use super::{Class, Entry, Spool, SpoolState};
use crate::config::SpoolConfig;

/// A file: what the medium has, and what the kernel has on top of it.
#[derive(Default, Clone)]
struct FakeFile {
    synced: Vec<u8>,
    pending: Vec<(u64, Vec<u8>)>,
    data: Vec<u8>,
}

#[derive(Default)]
struct Medium {
    files: BTreeMap<String, FakeFile>,
    aside: BTreeSet<String>,
    /// Operations from now on that fail, by kind.
    failing_writes: u32,
    failing_reads: u32,
    /// A failing write leaves this share of its bytes behind.
    torn: u8,
}

/// A disk in memory whose medium outlives it.
#[derive(Clone, Default)]
struct FakeDisk(Arc<Mutex<Medium>>);

fn apply(data: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let (start, end) = (offset as usize, offset as usize + bytes.len());
    if data.len() < end {
        data.resize(end, 0);
    }
    data[start..end].copy_from_slice(bytes);
}

fn count_down(left: &mut u32) -> bool {
    let failing = *left > 0;
    *left = left.saturating_sub(1);
    failing
}

impl FakeDisk {
    fn medium(&self) -> std::sync::MutexGuard<'_, Medium> {
        self.0.lock().unwrap()
    }

    /// The power fails: of what was not synced, each write has come to the medium whole, in part or not at all.
    fn cut_power(&self, mut luck: impl FnMut() -> u8) {
        for file in self.medium().files.values_mut() {
            for (offset, bytes) in std::mem::take(&mut file.pending) {
                let part = match luck() % 3 {
                    0 => 0,
                    1 => bytes.len() / 2,
                    _ => bytes.len(),
                };
                if part > 0 {
                    apply(&mut file.synced, offset, &bytes[..part]);
                }
            }
            file.data.clone_from(&file.synced);
        }
    }
}

impl Disk for FakeDisk {
    fn files(&mut self) -> io::Result<Vec<(String, u64)>> {
        Ok(self.medium().files.iter().map(|(name, file)| (name.clone(), file.data.len() as u64)).collect())
    }

    fn read_at(&mut self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut medium = self.medium();
        if count_down(&mut medium.failing_reads) {
            return Err(io::Error::other("unreadable sector"));
        }
        let file = medium.files.get(name).ok_or(ErrorKind::NotFound)?;
        let from = (offset as usize).min(file.data.len());
        Ok(file.data[from..(from + length).min(file.data.len())].to_vec())
    }

    fn write_at(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut medium = self.medium();
        let failing = count_down(&mut medium.failing_writes);
        let bytes = if failing { &bytes[..bytes.len() * usize::from(medium.torn) / 255] } else { bytes };
        let file = medium.files.entry(name.to_owned()).or_default();
        apply(&mut file.data, offset, bytes);
        file.pending.push((offset, bytes.to_vec()));
        if failing { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        let mut medium = self.medium();
        if count_down(&mut medium.failing_writes) {
            return Err(ErrorKind::ReadOnlyFilesystem.into());
        }
        if let Some(file) = medium.files.get_mut(name) {
            file.data.truncate(length as usize);
            file.synced.truncate(length as usize);
            file.pending.retain(|(offset, bytes)| offset + bytes.len() as u64 <= length);
        }
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let mut medium = self.medium();
        if count_down(&mut medium.failing_writes) {
            return Err(ErrorKind::ReadOnlyFilesystem.into());
        }
        medium.files.remove(name);
        Ok(())
    }

    fn put_aside(&mut self, name: &str) -> io::Result<()> {
        self.medium().files.remove(name);
        self.medium().aside.insert(name.to_owned());
        Ok(())
    }

    fn unsynced(&mut self) -> Vec<SyncJob> {
        let disk = self.clone();
        vec![Box::new(move || {
            for file in disk.medium().files.values_mut() {
                file.synced.clone_from(&file.data);
                file.pending.clear();
            }
            Ok(())
        })]
    }
}

const ROOMY: u64 = 1 << 30;
const FOREVER: u64 = u64::MAX;

fn open(disk: &FakeDisk, max_bytes: u64, max_age: u64) -> Store {
    let disk = disk.clone();
    Store::new(Some(Box::new(move || Ok(Box::new(disk.clone())))), max_bytes, max_age)
}

fn put(store: &mut Store, class: Class, id: u32, size: usize) {
    let payload = format!("{id}:{}", "x".repeat(size));
    store.put(class, "v1/a/event".to_owned(), payload.into_bytes(), 0);
}

fn id(entry: &Entry) -> u32 {
    String::from_utf8_lossy(&entry.payload).split(':').next().unwrap().parse().unwrap()
}

/// Events first, as the link does.
fn next(store: &mut Store, now: u64) -> Option<Entry> {
    Class::ALL.into_iter().find_map(|class| store.next(class, now))
}

/// Everything that is handed out until nothing is left; failed reads are tried again.
fn drain(store: &mut Store) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut empty = 0;
    while empty < 50 {
        match next(store, 0) {
            Some(entry) => entries.push(entry),
            None => empty += 1,
        }
    }
    entries
}

fn ids(entries: &[Entry], class: Class) -> Vec<u32> {
    entries.iter().filter(|entry| entry.ticket.class == class).map(id).collect()
}

fn sync(store: &mut Store) {
    let outcome = store.unsynced().into_iter().try_for_each(|job| job());
    store.synced(outcome);
}

#[derive(Debug, Clone)]
enum Op {
    Put(bool, usize),
    Next,
    Done(usize),
    Rewind,
    Store,
    Sync,
    FailWrites(u32, u8),
    FailReads(u32),
    Kill,
    PowerCut(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (any::<bool>(), prop_oneof![5 => 0usize..200, 1 => 20_000usize..60_000]).prop_map(|(event, size)| Op::Put(event, size)),
        6 => Just(Op::Next),
        5 => (0usize..4).prop_map(Op::Done),
        1 => Just(Op::Rewind),
        2 => Just(Op::Store),
        2 => Just(Op::Sync),
        2 => (1u32..6, any::<u8>()).prop_map(|(count, torn)| Op::FailWrites(count, torn)),
        1 => (1u32..3).prop_map(Op::FailReads),
        1 => Just(Op::Kill),
        1 => any::<u64>().prop_map(Op::PowerCut),
    ]
}

/// What must still come, and what the store may have forgotten.
#[derive(Default)]
struct Model {
    /// Put in and not done, by class in order.
    waiting: [Vec<u32>; 2],
    /// Of these, what a power cut may cost.
    unsynced: BTreeSet<u32>,
    /// No fault so far, and no kill after a later message was done before an earlier one: nothing may come that was done.
    faultless: bool,
    done: BTreeSet<u32>,
    /// Failing reads since reading last began anew: with `READ_TRIES` of one place its messages may be given up.
    failed_reads: u32,
}

impl Model {
    fn lose(&mut self, lost: impl Fn(&u32) -> bool) {
        self.waiting.iter_mut().for_each(|waiting| waiting.retain(|id| !lost(id)));
    }
}

fn check(store: &mut Store, model: &Model, disk: &FakeDisk) -> Result<(), TestCaseError> {
    disk.medium().failing_writes = 0;
    disk.medium().failing_reads = 0;
    store.rewind();
    let entries = drain(store);
    for class in Class::ALL {
        let came = ids(&entries, class);
        prop_assert!(came.is_sorted(), "out of order: {came:?}");
        for id in &model.waiting[class.index()] {
            prop_assert!(came.contains(id), "{id} is lost; came {came:?}");
        }
        if model.faultless {
            prop_assert_eq!(&came, &model.waiting[class.index()]);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_and_nothing_comes_out_of_order(ops in prop::collection::vec(op(), 0..80)) {
        let disk = FakeDisk::default();
        let mut store = open(&disk, ROOMY, FOREVER);
        let mut model = Model { faultless: true, ..Model::default() };
        let mut offered: Vec<Entry> = Vec::new();
        let mut puts: [Vec<u32>; 2] = [Vec::new(), Vec::new()];
        let mut number = 0;
        for op in ops {
            match op {
                Op::Put(event, size) => {
                    number += 1;
                    let class = if event { Class::Event } else { Class::Result };
                    put(&mut store, class, number, size);
                    model.waiting[class.index()].push(number);
                    puts[class.index()].push(number);
                    model.unsynced.insert(number);
                }
                Op::Next => offered.extend(next(&mut store, 0)),
                Op::Done(index) if index < offered.len() => {
                    let entry = offered.remove(index);
                    store.done(entry.ticket);
                    model.lose(|id_| *id_ == id(&entry));
                    model.done.insert(id(&entry));
                }
                Op::Done(_) => {}
                Op::Rewind => {
                    store.rewind();
                    model.failed_reads = 0;
                    offered.clear();
                }
                Op::Store => store.store(),
                Op::Sync => {
                    sync(&mut store);
                    let in_memory: BTreeSet<u32> = Class::ALL.into_iter().flat_map(|class| {
                        let puts = &puts[class.index()];
                        puts[puts.len() - store.in_memory(class) as usize..].to_vec()
                    }).collect();
                    model.unsynced.retain(|id| in_memory.contains(id));
                }
                Op::FailWrites(count, torn) => {
                    let mut medium = disk.medium();
                    (medium.failing_writes, medium.torn) = (count, torn);
                    model.faultless = false;
                }
                Op::FailReads(count) => {
                    if model.failed_reads + count < READ_TRIES {
                        model.failed_reads += count;
                        disk.medium().failing_reads = count;
                    }
                    model.faultless = false;
                }
                Op::Kill | Op::PowerCut(_) => {
                    // The ledger keeps the first that is not done: what was done behind it may come twice.
                    let overtaken = |class: Class| {
                        let first = model.waiting[class.index()].first().copied().unwrap_or(u32::MAX);
                        puts[class.index()].iter().any(|id| *id > first && model.done.contains(id))
                    };
                    model.faultless &= !Class::ALL.into_iter().any(overtaken);
                    for class in Class::ALL {
                        let puts = &mut puts[class.index()];
                        let lost = puts.split_off(puts.len() - store.in_memory(class) as usize);
                        model.lose(|id| lost.contains(id));
                    }
                    drop(store);
                    let mut medium = disk.medium();
                    (medium.failing_writes, medium.failing_reads) = (0, 0);
                    drop(medium);
                    if let Op::PowerCut(seed) = op {
                        let mut luck = seed;
                        disk.cut_power(|| {
                            luck = luck.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                            (luck >> 56) as u8
                        });
                        let unsynced = std::mem::take(&mut model.unsynced);
                        model.lose(|id| unsynced.contains(id));
                        model.faultless = false;
                    }
                    store = open(&disk, ROOMY, FOREVER);
                    // What is on the medium now is what it is.
                    let all = drain(&mut store);
                    store.rewind();
                    for class in Class::ALL {
                        let mut known = ids(&all, class);
                        known.retain(|id| !model.done.contains(id) || !model.faultless);
                        puts[class.index()] = known;
                    }
                    model.failed_reads = 0;
                    offered.clear();
                }
            }
        }
        check(&mut store, &model, &disk)?;
    }

    #[test]
    fn damage_costs_only_what_is_damaged(at in 0usize..4000, flips in 1usize..40, count in 3u32..30) {
        let disk = FakeDisk::default();
        let mut store = open(&disk, ROOMY, FOREVER);
        (1..=count).for_each(|id| put(&mut store, Class::Event, id, 100));
        drop(store);
        let length = {
            let mut medium = disk.medium();
            let file = medium.files.values_mut().next().unwrap();
            let at = 8 + at % (file.data.len() - 8);
            let end = (at + flips).min(file.data.len());
            file.data[at..end].iter_mut().for_each(|byte| *byte ^= 0x55);
            file.data.len()
        };
        let mut store = open(&disk, ROOMY, FOREVER);
        let came = ids(&drain(&mut store), Class::Event);
        prop_assert!(came.is_sorted());
        // A record takes length / count bytes; so many flips touch two at most.
        prop_assert!(came.len() + 2 >= count as usize, "{} of {count}, file of {length}", came.len());
        put(&mut store, Class::Event, 1000, 10);
        prop_assert_eq!(ids(&drain(&mut store), Class::Event), vec![1000]);
    }

    #[test]
    fn any_file_in_the_folder_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..300), ours: bool) {
        let disk = FakeDisk::default();
        let data = if ours { [super::record::HEADER.to_vec(), bytes].concat() } else { bytes };
        disk.medium().files.insert("event-00000000000000000007.log".to_owned(), FakeFile { data, ..FakeFile::default() });
        let mut store = open(&disk, ROOMY, FOREVER);
        drain(&mut store);
        put(&mut store, Class::Event, 5, 10);
        prop_assert_eq!(ids(&drain(&mut store), Class::Event), vec![5]);
        drop(store);
        prop_assert_eq!(ids(&drain(&mut open(&disk, ROOMY, FOREVER)), Class::Event), vec![5]);
    }
}

#[test]
fn events_go_out_before_older_results_and_results_are_dropped_first() {
    let disk = FakeDisk::default();
    let mut store = open(&disk, 600_000, FOREVER); // segments of 64 KiB
    for id in 0..20 {
        put(&mut store, Class::Result, id, 20_000);
    }
    put(&mut store, Class::Event, 100, 20_000);
    assert_eq!(id(&next(&mut store, 0).unwrap()), 100);
    for id in 101..110 {
        put(&mut store, Class::Event, id, 20_000);
    }
    let stats = store.stats();
    assert!(stats.bytes <= 600_000 && stats.events == 10 && stats.events_lost == 0, "{stats:?}");
    let dropped = stats.dropped_size;
    assert!(dropped > 0 && stats.results == 20 - dropped);
    // More events than the bound holds: the oldest go, once no result is left.
    for id in 110..160 {
        put(&mut store, Class::Event, id, 20_000);
    }
    let stats = store.stats();
    assert!(stats.bytes <= 600_000 && stats.results == 0 && stats.events_lost > 0, "{stats:?}");
    let came = ids(&drain(&mut store), Class::Event);
    assert_eq!(came.last(), Some(&159));
    assert_eq!(came.len() as u64, stats.events);
}

#[test]
fn what_is_too_old_goes_and_is_counted() {
    let disk = FakeDisk::default();
    let mut store = open(&disk, ROOMY, 1000);
    store.put(Class::Event, "t".to_owned(), b"1:".to_vec(), 0);
    store.put(Class::Event, "t".to_owned(), b"2:".to_vec(), 900);
    assert_eq!(next(&mut store, 1500).map(|entry| id(&entry)), Some(2));
    assert_eq!((store.stats().dropped_age, store.stats().events), (1, 1));
    // After a restart the spool's clock goes on from its newest message, however long the power was off.
    drop(store);
    let mut store = open(&disk, ROOMY, 1000);
    assert_eq!(next(&mut store, 50).map(|entry| id(&entry)), Some(2));
    assert_eq!(next(&mut store, 5000).map(|entry| id(&entry)), None);
}

#[test]
fn whole_old_segments_go_without_being_sent() {
    let disk = FakeDisk::default();
    let mut store = open(&disk, 1 << 20, 1000);
    for number in 0..10 {
        store.put(Class::Event, "t".to_owned(), vec![b'x'; 40_000], number * 100);
    }
    let before = store.stats();
    store.expire(1450);
    let after = store.stats();
    assert!(after.bytes < before.bytes && after.dropped_age >= 3, "{after:?}");
    assert_eq!(after.events + after.dropped_age, 10);
}

#[test]
fn a_place_that_cannot_be_read_is_tried_again_then_costs_its_segment_alone() {
    let disk = FakeDisk::default();
    let mut store = open(&disk, 1 << 20, FOREVER); // segments of 64 KiB
    for id in 1..=3 {
        put(&mut store, Class::Event, id, 40_000);
    }
    disk.medium().failing_reads = READ_TRIES - 1;
    for _ in 1..READ_TRIES {
        assert_eq!(next(&mut store, 0), None);
    }
    assert_eq!(next(&mut store, 0).map(|entry| id(&entry)), Some(1), "it could be read in the end");
    disk.medium().failing_reads = READ_TRIES;
    for _ in 1..READ_TRIES {
        assert_eq!(next(&mut store, 0), None);
    }
    assert_eq!(next(&mut store, 0).map(|entry| id(&entry)), Some(3), "given up");
    let stats = store.stats();
    assert_eq!((stats.damaged, stats.events_lost, stats.events), (1, 1, 2), "{stats:?}");
}

#[test]
fn a_spool_of_a_newer_version_is_put_aside_whole() {
    let disk = FakeDisk::default();
    let name = "event-00000000000000000001.log".to_owned();
    let file = FakeFile { data: b"RCSPOOL\x09whatever".to_vec(), ..FakeFile::default() };
    disk.medium().files.insert(name.clone(), file);
    let mut store = open(&disk, ROOMY, FOREVER);
    assert!(disk.medium().aside.contains(&name));
    put(&mut store, Class::Event, 1, 10);
    assert_eq!(store.stats().state, SpoolState::Durable);
    assert_eq!(ids(&drain(&mut store), Class::Event), [1]);
}

#[test]
fn a_full_disk_keeps_events_in_memory_and_takes_them_when_there_is_room() {
    let disk = FakeDisk::default();
    let mut store = open(&disk, ROOMY, FOREVER);
    put(&mut store, Class::Event, 1, 10);
    disk.medium().failing_writes = u32::MAX;
    put(&mut store, Class::Event, 2, 10);
    let stats = store.stats();
    assert_eq!((stats.state, stats.in_memory, stats.events), (SpoolState::Memory, 1, 2));
    assert!(stats.reason.is_some());
    assert_eq!(ids(&drain(&mut store), Class::Event), [1, 2], "what is in memory is sent as well");
    disk.medium().failing_writes = 0;
    store.store();
    let stats = store.stats();
    assert_eq!((stats.state, stats.in_memory, stats.reason), (SpoolState::Durable, 0, None));
    drop(store);
    assert_eq!(ids(&drain(&mut open(&disk, ROOMY, FOREVER)), Class::Event), [1, 2]);
}

#[test]
fn without_a_disk_memory_is_bounded_and_the_oldest_goes() {
    let mut store = Store::new(None, ROOMY, FOREVER);
    for id in 0..5000 {
        put(&mut store, Class::Event, id, 0);
    }
    let stats = store.stats();
    assert_eq!((stats.state, stats.events, stats.dropped_size), (SpoolState::Off, 4096, 904));
    let came = drain(&mut store);
    assert_eq!((id(&came[0]), came.len()), (904, 4096));
    came.iter().for_each(|entry| store.done(entry.ticket));
    assert_eq!(store.stats().events, 0);
}

#[test]
fn a_disk_that_comes_late_takes_what_waited_behind_what_it_has() {
    let disk = FakeDisk::default();
    let mut store = open(&disk, ROOMY, FOREVER);
    put(&mut store, Class::Event, 1, 10);
    drop(store);
    let away = Arc::new(Mutex::new(true));
    let (opened, is_away) = (disk.clone(), Arc::clone(&away));
    let opener = move || -> io::Result<Box<dyn Disk>> {
        if *is_away.lock().unwrap() { Err(ErrorKind::NotFound.into()) } else { Ok(Box::new(opened.clone())) }
    };
    let mut store = Store::new(Some(Box::new(opener)), ROOMY, FOREVER);
    put(&mut store, Class::Event, 2, 10);
    let stale = next(&mut store, 0).unwrap();
    assert_eq!((id(&stale), store.stats().state), (2, SpoolState::Memory));
    *away.lock().unwrap() = false;
    store.attach(0);
    store.done(stale.ticket); // names a number that has changed since: must not take the wrong one out
    let stats = store.stats();
    assert_eq!((stats.state, stats.events, stats.in_memory), (SpoolState::Durable, 2, 0));
    assert_eq!(ids(&drain(&mut store), Class::Event), [1, 2]);
}

#[test]
fn refused_messages_are_kept_for_a_person_and_block_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let config = SpoolConfig { path: Some(folder.path().to_owned()), ..SpoolConfig::memory() };
    let spool = Spool::open(&config).unwrap();
    spool.put(Class::Event, "t/1".to_owned(), b"{\"a\":1}".to_vec());
    spool.put(Class::Event, "t/2".to_owned(), b"{}".to_vec());
    spool.refuse(&spool.next(Class::Event).unwrap(), "not authorized");
    assert_eq!(spool.next(Class::Event).unwrap().topic, "t/2");
    assert_eq!((spool.stats().refused, spool.stats().events), (1, 1));
    let kept = std::fs::read_to_string(folder.path().join("refused.jsonl")).unwrap();
    assert!(kept.contains("not authorized") && kept.contains("t/1"), "{kept}");
}

#[test]
fn a_folder_is_used_by_one_daemon_at_a_time_and_what_was_done_does_not_come_again() {
    let folder = tempfile::tempdir().unwrap();
    let config = SpoolConfig { path: Some(folder.path().to_owned()), ..SpoolConfig::memory() };
    let spool = Spool::open(&config).unwrap();
    for number in 0..10 {
        spool.put(Class::Event, "t".to_owned(), format!("{number}:").into_bytes());
    }
    let second = Spool::open(&config).unwrap();
    assert_eq!(second.stats().state, SpoolState::Memory);
    assert!(second.stats().reason.unwrap().contains("another daemon"));
    drop(second);
    for _ in 0..4 {
        spool.done(spool.next(Class::Event).unwrap().ticket);
    }
    drop(spool);
    let spool = Spool::open(&config).unwrap();
    let first = spool.next(Class::Event).unwrap();
    assert!(first.delayed && id(&first) == 4);
    assert!(Spool::check(folder.path()).unwrap().contains("running daemon"));
}

#[test]
fn a_folder_that_cannot_be_made_is_told_with_the_cure() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().join("spool");
    let error = Spool::check(&path).unwrap_err().to_string();
    assert!(error.contains("state.path") && error.contains(file.path().to_str().unwrap()), "{error}");
    let spool = Spool::open(&SpoolConfig { path: Some(path), ..SpoolConfig::memory() }).unwrap();
    spool.put(Class::Event, "t".to_owned(), b"1:".to_vec());
    assert_eq!((spool.stats().state, spool.stats().events), (SpoolState::Memory, 1));
}
