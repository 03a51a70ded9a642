//! Randomised schedules: while events flow, the process is killed (-9), the broker restarts, the link is cut, stalls and
//! is throttled. Every event that was spooled must arrive, duplicates carry one id, and each camera's order holds.
//!
//! A schedule is its seed. `REMOTECLIPD_SEED=17 cargo test --test delivery schedules -- --nocapture` plays one again.

use std::collections::{HashMap, HashSet};
use std::process::Child;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{Client, Event, MqttOptions};
use tempfile::TempDir;

use crate::feeder::{self, Orders};
use crate::front::field;
use crate::random::Random;
use crate::relay::Relay;
use crate::scripted::{Peer, SERVER_UNAVAILABLE, SUCCESS, Scripted};
use crate::support::{self, PATIENCE};

/// Schedules at once; most of each is waiting.
const AT_ONCE: u64 = 6;

/// What came: camera and id in the order of their coming, and the ids that the broker has for good.
#[derive(Default)]
pub struct Arrivals {
    order: Vec<(String, String)>,
    kept: HashSet<String>,
}

impl Arrivals {
    /// An event that the broker has for good.
    pub fn take(&mut self, payload: &[u8]) {
        let (camera, id) = (field(payload, "camera").to_owned(), field(payload, "id").to_owned());
        self.kept.insert(id.clone());
        self.order.push((camera, id));
    }
}

type Shared = Arc<Mutex<Arrivals>>;

/// A broker that can be restarted.
trait Broker {
    fn port(&self) -> u16;
    fn restart(&mut self, relay: &Relay);
    fn arrivals(&self) -> Shared;
    /// All that the broker has was seen.
    fn settle(&mut self) {}
    /// False when what came was not all seen, for a reason of the test's own: the schedule says nothing then.
    fn saw_all(&self) -> bool {
        true
    }
}

/// Loses acknowledgements, refuses connections, forgets sessions and leaves in the middle of packets.
struct Unreliable {
    _broker: Scripted,
    port: u16,
    arrivals: Shared,
    /// From now on without fault.
    calm: Arc<AtomicU64>,
    epoch: Arc<AtomicU64>,
}

impl Unreliable {
    fn start(seed: u64) -> Self {
        let (arrivals, calm, epoch) = (Shared::default(), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (kept, is_calm, now) = (Arc::clone(&arrivals), Arc::clone(&calm), Arc::clone(&epoch));
        let broker = Scripted::start(move |mut peer| {
            let mut random = Random::new(seed ^ (peer.number as u64) << 32);
            let faulty = is_calm.load(Ordering::Relaxed) == 0;
            if faulty && random.below(6) == 0 {
                return peer.connack(false, SERVER_UNAVAILABLE, &[]);
            }
            peer.connack(random.below(2) == 0, SUCCESS, &[]);
            let mine = now.load(Ordering::Relaxed);
            serve(
                &mut peer,
                &mut random,
                &kept,
                || is_calm.load(Ordering::Relaxed) == 0,
                || now.load(Ordering::Relaxed) == mine,
            );
        });
        Self { port: broker.port, _broker: broker, arrivals, calm, epoch }
    }
}

fn serve(peer: &mut Peer, random: &mut Random, kept: &Shared, faulty: impl Fn() -> bool, up: impl Fn() -> bool) {
    while let Some((id, _, payload)) = peer.event() {
        if !up() {
            return;
        }
        let (camera, event) = (field(&payload, "camera").to_owned(), field(&payload, "id").to_owned());
        kept.lock().unwrap().order.push((camera, event.clone()));
        if faulty() {
            match random.below(80) {
                0 => continue, // the acknowledgement is lost
                1 => return,
                2 => {
                    peer.raw(&[0x40, 2, (id >> 8) as u8]); // in the middle of a packet
                    return;
                }
                3 => thread::sleep(Duration::from_millis(random.below(30))),
                _ => {}
            }
        }
        peer.puback(id, SUCCESS);
        kept.lock().unwrap().kept.insert(event);
    }
}

impl Broker for Unreliable {
    fn port(&self) -> u16 {
        self.port
    }

    fn restart(&mut self, relay: &Relay) {
        self.epoch.fetch_add(1, Ordering::Relaxed);
        relay.cut();
    }

    fn arrivals(&self) -> Shared {
        Arc::clone(&self.arrivals)
    }

    fn settle(&mut self) {
        self.calm.store(1, Ordering::Relaxed);
    }
}

/// mosquitto, and a subscriber at its side.
struct Mosquitto {
    port: u16,
    persistent: bool,
    folder: TempDir,
    child: Child,
    collector: Collector,
    starts: usize,
}

impl Mosquitto {
    fn start(persistent: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = quiet_port();
        let child = launch(&folder, port, persistent);
        let collector = Collector::start(port, persistent);
        Self { port, persistent, folder, child, collector, starts: 1 }
    }
}

/// A port below those that the system gives to others, for it is unused while the broker restarts.
fn quiet_port() -> u16 {
    let mut random = Random::new(uuid::Uuid::new_v4().as_u128() as u64);
    let mut ports = std::iter::from_fn(|| Some(10_000 + random.below(20_000) as u16));
    ports.find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

fn launch(folder: &TempDir, port: u16, persistent: bool) -> Child {
    let persistence = if persistent {
        // Started as root it would go on as a user who may not write there, and forget everything at each restart.
        format!("user root\npersistence true\npersistence_location {}/\n", folder.path().display())
    } else {
        "persistence false\n".to_owned()
    };
    let config = format!(
        "listener {port} 127.0.0.1\nallow_anonymous true\nmax_inflight_messages 0\nmax_queued_messages 0\n{persistence}"
    );
    let path = folder.path().join("mosquitto.conf");
    std::fs::write(&path, config).unwrap();
    let mut command = std::process::Command::new("mosquitto");
    command.arg("-c").arg(path).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut child = command.spawn().unwrap();
    support::wait_for("mosquitto", || {
        assert!(child.try_wait().unwrap().is_none(), "mosquitto ended at once");
        std::net::TcpStream::connect(("127.0.0.1", port)).ok()
    });
    child
}

impl Broker for Mosquitto {
    fn port(&self) -> u16 {
        self.port
    }

    fn restart(&mut self, relay: &Relay) {
        if !self.persistent {
            // What such a broker had and not passed on would be its loss, not ours: nothing may be on the way when it
            // goes. A mark behind all that it has acknowledged tells.
            relay.set_down(true);
            self.collector.wait_for_mark(self.port);
        }
        let term = std::process::Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(term.success());
        self.child.wait().unwrap();
        assert!(!self.persistent || self.folder.path().join("mosquitto.db").is_file(), "mosquitto has kept nothing");
        self.child = launch(&self.folder, self.port, self.persistent);
        self.starts += 1;
        self.collector.wait_for_mark(self.port);
        relay.set_down(false);
    }

    fn arrivals(&self) -> Shared {
        Arc::clone(&self.collector.arrivals)
    }

    fn settle(&mut self) {
        self.collector.wait_for_mark(self.port);
    }

    /// A broker without persistence keeps nothing for a subscriber whose own connection failed in between.
    fn saw_all(&self) -> bool {
        self.persistent || self.collector.connects.load(Ordering::Relaxed) <= self.starts
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Subscribes again after each loss, and keeps what comes.
struct Collector {
    arrivals: Shared,
    marks: Arc<Mutex<HashSet<String>>>,
    connects: Arc<AtomicUsize>,
}

impl Collector {
    fn start(port: u16, persistent: bool) -> Self {
        let collector = Self { arrivals: Shared::default(), marks: Arc::default(), connects: Arc::default() };
        let (arrivals, marks) = (Arc::clone(&collector.arrivals), Arc::clone(&collector.marks));
        let connects = Arc::clone(&collector.connects);
        let mut options = MqttOptions::new("collector", "127.0.0.1", port);
        options.set_clean_start(!persistent).set_max_packet_size(Some(1 << 20));
        options.set_session_expiry_interval(Some(if persistent { 3600 } else { 0 }));
        let (client, mut connection) = Client::new(options, 64);
        thread::spawn(move || {
            for event in connection.iter() {
                match event {
                    Ok(Event::Incoming(Packet::ConnAck(_))) => {
                        connects.fetch_add(1, Ordering::Relaxed);
                        let _ = client.try_subscribe("#", QoS::AtLeastOnce);
                    }
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        let topic = String::from_utf8(publish.topic.to_vec()).unwrap();
                        if topic.ends_with("/event") {
                            arrivals.lock().unwrap().take(&publish.payload);
                        } else if topic == "mark" {
                            marks.lock().unwrap().insert(String::from_utf8(publish.payload.to_vec()).unwrap());
                        }
                    }
                    Ok(_) => {}
                    Err(_) if Arc::strong_count(&marks) == 1 => return,
                    Err(_) => thread::sleep(Duration::from_millis(10)),
                }
            }
        });
        collector.wait_for_mark(port);
        collector
    }

    /// Publishes a mark until it is seen: the subscription stands, and what came before has come.
    fn wait_for_mark(&self, port: u16) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mark = uuid::Uuid::new_v4().to_string();
            let args = ["-p", &port.to_string(), "-q", "1", "-t", "mark", "-m", &mark];
            let _ = std::process::Command::new("mosquitto_pub").args(args).output();
            for _ in 0..25 {
                if self.marks.lock().unwrap().contains(&mark) {
                    return;
                }
                thread::sleep(Duration::from_millis(4));
            }
            assert!(Instant::now() < deadline, "the collector is deaf");
        }
    }
}

/// Plays one schedule; what it found wrong.
fn play(seed: u64, broker: &mut dyn Broker) -> Result<usize, String> {
    let mut random = Random::new(seed);
    let relay = Relay::start(broker.port());
    let folder = tempfile::tempdir().unwrap();
    let orders = |random: &mut Random, drain: bool| Orders {
        port: relay.port,
        folder: folder.path().to_owned(),
        seed: random.next(),
        events: if drain { 10 } else { 400 },
        pause_us: 0,
        drain,
    };
    let mut process = feeder::spawn(&orders(&mut random, false));
    let steps = 6 + random.below(8);
    for _ in 0..steps {
        thread::sleep(Duration::from_millis(5 + random.below(50)));
        match random.below(10) {
            0..=2 => {
                kill(&mut process);
                process = feeder::spawn(&orders(&mut random, false));
            }
            3 | 4 => relay.cut(),
            5 => relay.set_down(true),
            6 => relay.set_stalled(true),
            7 => relay.set_pace(random.below(4), 1 + random.below(200) as usize),
            8 => broker.restart(&relay),
            _ => relay.heal(),
        }
    }
    kill(&mut process);
    relay.heal();
    relay.cut();
    broker.settle();
    let mut process = feeder::spawn(&orders(&mut random, true));
    let deadline = Instant::now() + PATIENCE;
    let ended = loop {
        if let Some(status) = process.try_wait().unwrap() {
            break status.success();
        }
        if Instant::now() > deadline {
            kill(&mut process);
            break false;
        }
        thread::sleep(Duration::from_millis(3));
    };
    broker.settle();
    let log = || std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
    if !ended {
        return Err(format!("the spool did not drain; log:\n{}", log()));
    }
    verify(&feeder::ledger(folder.path()), &broker.arrivals().lock().unwrap())
        .map_err(|error| format!("{error}; log:\n{}", log()))
}

fn kill(process: &mut Child) {
    let _ = process.kill(); // SIGKILL
    let _ = process.wait();
}

pub fn verify(spooled: &[(String, String)], arrivals: &Arrivals) -> Result<usize, String> {
    let lost: Vec<_> = spooled.iter().filter(|(_, id)| !arrivals.kept.contains(id)).collect();
    if !lost.is_empty() {
        return Err(format!("{} of {} events are lost: {:?}", lost.len(), spooled.len(), &lost[..lost.len().min(5)]));
    }
    // First comings, camera by camera, must follow the order of spooling.
    let place: HashMap<&str, usize> = spooled.iter().enumerate().map(|(at, (_, id))| (id.as_str(), at)).collect();
    let mut seen = HashSet::new();
    let mut last: HashMap<&str, usize> = HashMap::new();
    for (camera, id) in &arrivals.order {
        if !seen.insert(id) {
            continue;
        }
        if let Some(at) = place.get(id.as_str())
            && let Some(before) = last.insert(camera, *at)
            && before > *at
        {
            return Err(format!("camera {camera}: {id} came after a later one"));
        }
    }
    Ok(spooled.len())
}

/// Plays a schedule again, a few times, when the test's own subscriber was cut off.
fn play_until_seen(seed: u64, broker: impl Fn(u64) -> Box<dyn Broker>) -> Result<usize, String> {
    let mut tries = 0;
    loop {
        let mut broker = broker(seed);
        let played = play(seed, broker.as_mut());
        tries += 1;
        if broker.saw_all() || tries == 3 {
            return played;
        }
    }
}

/// Plays these seeds, some at once.
fn play_all(seeds: std::ops::Range<u64>, broker: impl Fn(u64) -> Box<dyn Broker> + Sync) {
    let seeds = match std::env::var("REMOTECLIPD_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => seeds,
    };
    let (next, events, failed) = (AtomicU64::new(seeds.start), AtomicU64::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    match play_until_seen(seed, &broker) {
                        Ok(count) => drop(events.fetch_add(count as u64, Ordering::Relaxed)),
                        Err(error) => failed.lock().unwrap().push(format!("REMOTECLIPD_SEED={seed}: {error}")),
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} schedules failed\n{}", failed.len(), failed.join("\n"));
    println!("{} schedules, {} events, none lost", seeds.end - seeds.start, events.into_inner());
}

#[test]
fn schedules_against_a_broker_that_breaks_every_rule() {
    play_all(0..160, |seed| Box::new(Unreliable::start(seed)));
}

#[test]
fn schedules_against_mosquitto_with_persistence() {
    if support::have("mosquitto") && support::have("mosquitto_pub") {
        play_all(1000..1024, |_| Box::new(Mosquitto::start(true)));
    }
}

#[test]
fn schedules_against_mosquitto_without_persistence() {
    if support::have("mosquitto") && support::have("mosquitto_pub") {
        play_all(2000..2024, |_| Box::new(Mosquitto::start(false)));
    }
}
