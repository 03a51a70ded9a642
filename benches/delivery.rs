//! What store and forward costs: `cargo bench --bench delivery`. Needs mosquitto. The figures are in docs/performance.md.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use remoteclipd::config::{MqttConfig, SpoolConfig};
use remoteclipd::daemon::resident_memory;
use remoteclipd::publish::spool::{Class, Spool};
use remoteclipd::publish::{Credentials, Link, Message, Setup, Urgency};

/// Bytes of an event as it is published.
const EVENT: usize = 520;
const MILLION: usize = 1_000_000;
const DRAINED: usize = 100_000;

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> Outcome {
    if let Some(folder) = std::env::args().skip_while(|argument| argument != "--fill").nth(1) {
        return fill(Path::new(&folder));
    }
    let folder = tempfile::tempdir()?;
    put(&folder.path().join("put"))?;
    let broker = Broker::start()?;
    drain(&folder.path().join("drain"), broker.port)?;
    recover(&folder.path().join("million"), broker.port)
}

fn open(path: &Path) -> std::io::Result<Spool> {
    let config = SpoolConfig {
        path: Some(path.to_owned()),
        max_bytes: 2 << 30,
        max_age: Duration::from_secs(86_400),
        results: false,
    };
    Spool::open(&config)
}

fn event(number: usize) -> Message {
    let mut payload = format!("{{\"id\":\"{number}\",\"replayed\":false,\"pad\":\"").into_bytes();
    payload.resize(EVENT - 2, b'x');
    payload.extend_from_slice(b"\"}");
    Message { topic: "remoteclip/v1/bench/nadir/event".to_owned(), payload, urgency: Urgency::Event }
}

/// What a frame with an event pays, as often as a camera gives them.
fn put(path: &Path) -> Outcome {
    let spool = open(path)?;
    let mut times: Vec<Duration> = (0..2000)
        .map(|number| {
            let Message { topic, payload, .. } = event(number);
            let started = Instant::now();
            spool.put(Class::Event, topic, payload);
            let took = started.elapsed();
            std::thread::sleep(Duration::from_millis(1));
            took
        })
        .collect();
    times.sort();
    println!("put an event       median {:?}, 99 % {:?}, max {:?}", times[1000], times[1980], times[1999]);
    Ok(())
}

/// Events a second to a local broker, and the processor time of this process for them.
fn drain(path: &Path, port: u16) -> Outcome {
    let spool = open(path)?;
    for number in 0..DRAINED {
        let Message { topic, payload, .. } = event(number);
        spool.put(Class::Event, topic, payload);
    }
    let (started, busy) = (Instant::now(), processor_time()?);
    let link = start(spool, port)?;
    while link.stats().spool.events > 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let (took, busy) = (started.elapsed().as_secs_f64(), processor_time()? - busy);
    println!(
        "drain              {:.0} events/s over {took:.1} s; {:.0} events a second of processor time",
        DRAINED as f64 / took,
        DRAINED as f64 / busy
    );
    Ok(())
}

/// A process spools a million events and is killed; how soon after the next start the broker has the first.
fn recover(path: &Path, port: u16) -> Outcome {
    let status = Command::new(std::env::current_exe()?).arg("--fill").arg(path).status()?;
    println!("killed             {status}");
    let memory = resident_memory().unwrap_or(0);
    let started = Instant::now();
    let spool = open(path)?;
    let opened = started.elapsed();
    let link = start(spool, port)?;
    while link.stats().spool.events as usize >= MILLION {
        std::thread::sleep(Duration::from_millis(1));
    }
    println!(
        "recover            {} events: open {opened:?}, first acknowledgement after {:?}, memory +{} KiB",
        link.stats().spool.events,
        started.elapsed(),
        resident_memory().unwrap_or(0).saturating_sub(memory) / 1024
    );
    Ok(())
}

fn fill(path: &Path) -> Outcome {
    let spool = open(path)?;
    let Message { topic, payload, .. } = event(0);
    spool.put(Class::Event, topic, payload);
    let memory = resident_memory().unwrap_or(0);
    for number in 1..MILLION {
        let Message { topic, payload, .. } = event(number);
        spool.put(Class::Event, topic, payload);
    }
    let stats = spool.stats();
    println!(
        "a million spooled  {} events, {} MiB on disk, memory +{} KiB",
        stats.events,
        stats.bytes >> 20,
        resident_memory().unwrap_or(0).saturating_sub(memory) / 1024
    );
    Command::new("kill").args(["-9", &std::process::id().to_string()]).status()?;
    Ok(())
}

fn start(spool: Spool, port: u16) -> Result<Link, Box<dyn std::error::Error>> {
    let mqtt = MqttConfig::of("127.0.0.1", Some(port), "remoteclip", None);
    let will = Message { topic: "remoteclip/v1/bench/status".to_owned(), payload: Vec::new(), urgency: Urgency::State };
    let credentials = Credentials::read(&mqtt)?;
    Ok(Link::start(Setup { mqtt: &mqtt, credentials, will, spool, backlog: 16, inbox: None })?)
}

/// User and system time of this process in seconds (fields 14 and 15 of `/proc/self/stat`, in hundredths).
fn processor_time() -> Result<f64, Box<dyn std::error::Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    Ok((ticks(11) + ticks(12)) / 100.0)
}

struct Broker {
    port: u16,
    child: Child,
}

impl Broker {
    fn start() -> Result<Self, Box<dyn std::error::Error>> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let child = Command::new("mosquitto").args(["-p", &port.to_string()]).stderr(Stdio::null()).spawn()?;
        let broker = Self { port, child };
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(broker)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
