//! A link that comes and goes for a minute, or as long as `REMOTECLIPD_SOAK_S` says (`just soak`): nothing is lost, and
//! neither memory nor files grow.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::feeder::{self, Orders};
use crate::relay::Relay;
use crate::schedules::{Arrivals, verify};
use crate::scripted::{SUCCESS, Scripted};
use crate::support::{PATIENCE, wait_for};

const EVENTS_PER_SECOND: u64 = 200;
/// Allocator noise; a leak of one event in ten would be more.
const GROWTH: u64 = 4 << 20;
/// What a spool that is emptied again and again may hold: two active files and what one outage leaves.
const FILES: u64 = 12 << 20;

fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) << 10
}

fn size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.len()).sum()
}

#[test]
fn a_flapping_link_loses_nothing_and_memory_and_files_stay_flat() {
    let seconds = std::env::var("REMOTECLIPD_SOAK_S").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    let arrivals = Arc::new(Mutex::new(Arrivals::default()));
    let kept = Arc::clone(&arrivals);
    let broker = Scripted::start(move |mut peer| {
        peer.connack(false, SUCCESS, &[]);
        peer.serve(|_, payload| kept.lock().unwrap().take(payload));
    });
    let relay = Relay::start(broker.port);
    let folder = tempfile::tempdir().unwrap();
    let events = (seconds * EVENTS_PER_SECOND) as u32;
    let pause_us = 1_000_000 / EVENTS_PER_SECOND;
    let orders = Orders { port: relay.port, folder: folder.path().to_owned(), seed: 1, events, pause_us, drain: true };
    let mut process = feeder::spawn(&orders);
    let (started, spool) = (Instant::now(), folder.path().join("spool"));
    let mut memory = Vec::new();
    let mut largest = 0;
    while started.elapsed() < Duration::from_secs(seconds) {
        thread::sleep(Duration::from_millis(700));
        relay.set_down(true);
        thread::sleep(Duration::from_millis(300));
        largest = largest.max(size(&spool));
        memory.push(resident(process.id()));
        relay.set_down(false);
    }
    let status = wait_for("the spool to drain", || process.try_wait().unwrap());
    assert!(status.success(), "{}", std::fs::read_to_string(folder.path().join("log")).unwrap());
    assert!(started.elapsed() < Duration::from_secs(seconds) * 2 + PATIENCE);
    let count = verify(&feeder::ledger(folder.path()), &arrivals.lock().unwrap()).unwrap();
    assert_eq!(count, events as usize);
    // The first fifth is warming up.
    let warm = &memory[memory.len() / 5..];
    let (early, late) = warm.split_at(warm.len() / 2);
    let peak = |part: &[u64]| part.iter().copied().max().unwrap_or(0);
    println!(
        "{seconds} s, {count} events, {} outages, memory at most {} then {} KiB, files at most {} KiB",
        memory.len(),
        peak(early) >> 10,
        peak(late) >> 10,
        largest >> 10
    );
    assert!(peak(late) < peak(early) + GROWTH, "{memory:?}");
    assert!(largest < FILES, "{largest} bytes");
}
