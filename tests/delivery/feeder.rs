//! A process that spools events and sends them, to be killed: this very test binary, run again.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use remoteclipd::publish::Link;
use serde::{Deserialize, Serialize};

use crate::front;
use crate::random::Random;

const VARIABLE: &str = "REMOTECLIPD_TEST_FEEDER";
pub const CAMERAS: [&str; 2] = ["nadir", "front"];

/// What the process is to do.
#[derive(Serialize, Deserialize)]
pub struct Orders {
    pub port: u16,
    /// Spool and ledger live here.
    pub folder: PathBuf,
    pub seed: u64,
    /// Events to put in; then it goes on sending.
    pub events: u32,
    /// Microseconds between two events; in bursts when 0.
    pub pause_us: u64,
    /// End once nothing waits.
    pub drain: bool,
}

/// Ids in the order in which they were spooled, a line each: written only when `publish` has returned.
pub fn ledger(folder: &Path) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(folder.join("ledger")).unwrap_or_default();
    // A kill may have cut the last line; that event was spooled all the same, only nobody knows.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().filter_map(|line| line.split_once(' ')).map(|(camera, id)| (camera.into(), id.into())).collect()
}

pub fn spawn(orders: &Orders) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(orders.folder.join("log")).unwrap();
    Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "feeder::process", "--nocapture", "--test-threads=1"])
        .env(VARIABLE, serde_json::to_string(orders).unwrap())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

#[test]
#[ignore = "not a test: the process that the schedules start and kill"]
fn process() {
    let Ok(orders) = std::env::var(VARIABLE) else { return };
    let orders: Orders = serde_json::from_str(&orders).unwrap();
    let mut random = Random::new(orders.seed);
    let link = front::start(&front::mqtt(orders.port), &orders.folder.join("spool"));
    let mut ledger = std::fs::OpenOptions::new().create(true).append(true).open(orders.folder.join("ledger")).unwrap();
    for number in 0..orders.events {
        let camera = CAMERAS[random.below(2) as usize];
        let id = format!("{:016x}-{number}", orders.seed);
        link.publish(front::event(camera, &id, random.below(600) as usize));
        ledger.write_all(format!("{camera} {id}\n").as_bytes()).unwrap();
        if orders.pause_us > 0 {
            std::thread::sleep(Duration::from_micros(orders.pause_us));
        } else if random.below(4) == 0 {
            std::thread::sleep(Duration::from_micros(random.below(4000)));
        }
    }
    while !orders.drain || waits(&link) {
        std::thread::sleep(Duration::from_millis(2));
    }
    link.stop(front::state("offline"));
}

fn waits(link: &Link) -> bool {
    let stats = link.stats();
    assert_eq!((stats.spool.refused, stats.spool.events_lost), (0, 0), "{stats:?}");
    stats.spool.events > 0
}
