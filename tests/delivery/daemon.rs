//! The daemon itself, killed with -9 while it flies: what was in its spool then arrives after the next start.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use remoteclipd::publish::spool::{Class, Spool};

use crate::front::{field, spool_config};
use crate::random::Random;
use crate::relay::Relay;
use crate::support::{self, Broker, Daemon, Subscriber, wait_for};

const KILLS: u64 = 6;
const FLYING: &str =
    "[camera.simulated]\nframes_per_second = 50.0\nwidth = 64\nheight = 64\n[tags]\nconsensus = [1, 1]\n";

/// Ids that wait in a spool, read from a copy.
fn waiting(state: &Path) -> Vec<String> {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(state.join("spool")).into_iter().flatten().flatten() {
        let _ = std::fs::copy(entry.path(), copy.path().join(entry.file_name()));
    }
    let spool = Spool::open(&spool_config(copy.path())).unwrap();
    std::iter::from_fn(|| spool.next(Class::Event)).map(|entry| field(&entry.payload, "id").to_owned()).collect()
}

#[test]
fn events_of_a_killed_daemon_arrive_after_the_next_start() {
    let Some(broker) = Broker::start("") else { return };
    let mut subscriber = Subscriber::new(broker.port);
    let relay = Relay::start(broker.port);
    let mut random = Random::new(7);
    let mut spooled = Vec::new();
    relay.set_down(true);
    let mut daemon = Daemon::start(relay.port, FLYING);
    let state = daemon.folder.path().join("state");
    for kill in 0..KILLS {
        // The first flights have no link; later ones lose theirs at some moment.
        wait_for("events in the spool", || (kill > 2 || !waiting(&state).is_empty()).then_some(()));
        std::thread::sleep(Duration::from_millis(random.below(700)));
        daemon.signal("KILL");
        daemon.wait();
        spooled.extend(waiting(&state));
        relay.set_down(kill % 3 != 2);
        daemon = Daemon::start_again(&daemon);
    }
    relay.heal();
    assert!(spooled.len() > 5, "{spooled:?}");
    let mut missing: HashSet<String> = spooled.into_iter().collect();
    while !missing.is_empty() {
        let event = subscriber.on("/nadir/event").payload;
        missing.remove(event["id"].as_str().unwrap());
    }
    // And it says so, in order, until nothing waits.
    subscriber
        .next("an empty spool", |message| message.topic.ends_with("/health") && message.payload["events_waiting"] == 0);
    support::wait_for("the daemon", || daemon.running().then_some(()));
}
