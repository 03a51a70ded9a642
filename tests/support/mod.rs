//! A real broker, the real binary and a real subscriber for the tests. Every test has ports and folders of its own.

#![allow(dead_code)] // each test binary uses a part of it

use std::collections::VecDeque;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{Client, Event, MqttOptions};
use serde_json::Value;
use tempfile::TempDir;

/// Generous: a test waits this long only when it is about to fail.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Says why a test does nothing here. Where everything must be there (CI), that is a failure.
pub fn skip(reason: &str) {
    assert!(std::env::var_os("CI").is_none(), "CI must not skip: {reason}");
    eprintln!("skipped: {reason}");
}

/// The data beside the project, or None with the reason printed.
pub fn shared_data(path: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data").join(path);
    if path.exists() {
        return Some(path);
    }
    skip(&format!("no {}", path.display()));
    None
}

/// The UC Merced photos, unpacked into a folder that lives as long as the answer.
pub fn ucm() -> Option<TempDir> {
    unpacked("ucm")
}

/// A data set of the shared data, unpacked: its pictures lie in `<folder>/<name>`.
pub fn unpacked(name: &str) -> Option<TempDir> {
    let tar = shared_data(&format!("{name}/{name}.tar"))?;
    let folder = tempfile::tempdir().unwrap();
    let status = Command::new("tar").arg("xf").arg(tar).arg("-C").arg(folder.path()).status().unwrap();
    assert!(status.success());
    Some(folder)
}

/// Whether a program can be started; else the reason is printed.
pub fn have(program: &str) -> bool {
    let found = Command::new(program).arg("-h").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        skip(&format!("{program} is not installed (tests/run installs it)"));
    }
    found
}

/// Starts a program. In qemu-user the copy that a program with threads makes of itself to become another one may never do so, where
/// a lock is held that nobody in it can let go: such a copy is ended and another made.
pub fn spawn(command: &mut Command) -> Child {
    loop {
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        if std::env::var_os("REMOTECLIPD_EMULATED").is_none() || became_another_program(child.id()) {
            return child;
        }
        eprintln!("{command:?} was not started by the emulator; again");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// Whether a copy of this process is another program within ten seconds, or has ended.
fn became_another_program(id: u32) -> bool {
    let own = std::env::current_exe().unwrap();
    let own = own.as_os_str().as_encoded_bytes();
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        if !line.split(|byte| *byte == 0).any(|word| word == own) {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Polls until `ready` gives something.
pub fn wait_for<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A mosquitto of our own.
pub struct Broker {
    pub port: u16,
    child: Child,
    _folder: TempDir,
}

impl Broker {
    /// On a free port, with further lines of configuration; None where mosquitto is not installed.
    pub fn start(lines: &str) -> Option<Self> {
        Self::start_on(free_port(), lines)
    }

    pub fn start_on(port: u16, lines: &str) -> Option<Self> {
        if !have("mosquitto") {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let anonymous = if lines.contains("password_file") { "false" } else { "true" };
        let config = format!("listener {port} 127.0.0.1\nallow_anonymous {anonymous}\n{lines}\n");
        let path = folder.path().join("mosquitto.conf");
        std::fs::write(&path, config).unwrap();
        let mut command = Command::new("mosquitto");
        let child = spawn(command.arg("-c").arg(path).stdout(Stdio::null()).stderr(Stdio::null()));
        let mut broker = Self { port, child, _folder: folder };
        wait_for("mosquitto", || {
            assert!(broker.child.try_wait().unwrap().is_none(), "mosquitto ended at once");
            std::net::TcpStream::connect(("127.0.0.1", port)).ok()
        });
        Some(broker)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A message as it came.
#[derive(Debug, Clone)]
pub struct Received {
    pub topic: String,
    pub payload: Value,
    pub retained: bool,
}

/// Every payload with a `schema` must be as `docs/reference/schema` says.
fn check_schema(message: &Received) {
    let Some(name) = message.payload["schema"].as_str() else { return };
    let kind = name.strip_prefix("remoteclip.").and_then(|name| name.strip_suffix("/1")).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("docs/reference/schema/{kind}.json"));
    let schema: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    if let Err(error) = jsonschema::validate(&schema, &message.payload) {
        eprintln!("{} breaks its schema: {error}\n{}", message.topic, message.payload);
        // This is the subscriber's thread: ending the process is the one way to fail the test from here.
        std::process::exit(1);
    }
}

/// A subscriber to `#`.
pub struct Subscriber {
    received: Receiver<Received>,
    seen: VecDeque<Received>,
    _client: Client,
}

impl Subscriber {
    pub fn new(port: u16) -> Self {
        let mut options = MqttOptions::new(format!("test-{}", uuid::Uuid::new_v4()), "127.0.0.1", port);
        options.set_max_packet_size(Some(1 << 20));
        Self::with(options)
    }

    pub fn with(options: MqttOptions) -> Self {
        let (client, mut connection) = Client::new(options, 16);
        client.subscribe("#", QoS::AtLeastOnce).unwrap();
        let (sender, received) = channel();
        let (ready, subscribed) = channel();
        std::thread::spawn(move || {
            for event in connection.iter() {
                match event {
                    Ok(Event::Incoming(Packet::SubAck(_))) => ready.send(()).unwrap(),
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        let message = Received {
                            topic: String::from_utf8(publish.topic.to_vec()).unwrap(),
                            payload: serde_json::from_slice(&publish.payload).unwrap_or(Value::Null),
                            retained: publish.retain,
                        };
                        check_schema(&message);
                        if sender.send(message).is_err() {
                            return;
                        }
                    }
                    Ok(_) => {}
                    Err(_) => return,
                }
            }
        });
        subscribed.recv_timeout(PATIENCE).expect("subscribed");
        Self { received, seen: VecDeque::new(), _client: client }
    }

    /// The next message that `wanted` takes; others that come meanwhile are kept.
    pub fn next(&mut self, what: &str, wanted: impl Fn(&Received) -> bool) -> Received {
        if let Some(at) = self.seen.iter().position(&wanted) {
            return self.seen.remove(at).unwrap();
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let message = self
                .received
                .recv_timeout(left)
                .unwrap_or_else(|_| panic!("{what} did not come; seen {:?}", self.topics()));
            if wanted(&message) {
                return message;
            }
            self.seen.push_back(message);
        }
    }

    /// The next message on a topic that ends so.
    pub fn on(&mut self, suffix: &str) -> Received {
        self.next(suffix, |message| message.topic.ends_with(suffix))
    }

    /// The next status of this state.
    pub fn status(&mut self, state: &str) -> Received {
        self.next(state, |message| message.topic.ends_with("/status") && message.payload["state"] == state)
    }

    /// Topics of the messages that came and were not asked for.
    pub fn seen_topics(&mut self) -> Vec<String> {
        self.seen.extend(self.received.try_iter());
        self.seen.iter().map(|message| message.topic.clone()).collect()
    }

    fn topics(&self) -> Vec<&str> {
        self.seen.iter().map(|message| message.topic.as_str()).collect()
    }
}

/// Where cargo is told what runs this target's programs: an emulator, when they are another machine's.
const RUNNER: &str = if cfg!(target_arch = "aarch64") {
    "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER"
} else {
    "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER"
};

/// The longest that a stop may take; emulated, where a frame alone takes a second, no promise holds.
pub fn stop_within() -> Duration {
    Duration::from_secs(if std::env::var_os(RUNNER).is_some() { 20 } else { 2 })
}

/// The binary, to be given arguments.
pub fn binary() -> Command {
    let runner = std::env::var(RUNNER).unwrap_or_default();
    let mut words = runner.split_whitespace().chain([env!("CARGO_BIN_EXE_remoteclipd")]);
    let mut command = Command::new(words.next().unwrap());
    command.args(words);
    command.current_dir(env!("CARGO_MANIFEST_DIR")).env_remove("RUST_LOG").env_remove("REMOTECLIPD_BUNDLE");
    command
}

fn run(config: &Path, log: &Path, variables: &[(&str, &str)]) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
    let mut command = binary();
    command.arg("run").arg("--config").arg(config).envs(variables.iter().copied());
    spawn(command.stdout(Stdio::null()).stderr(log))
}

/// A running daemon.
pub struct Daemon {
    child: Child,
    pub folder: Arc<TempDir>,
    pub config: PathBuf,
}

impl Daemon {
    /// `remoteclipd run` with this vehicle and broker port and further lines of configuration.
    pub fn start(port: u16, lines: &str) -> Self {
        Self::start_with(port, lines, &[])
    }

    /// The same with further environment variables.
    pub fn start_with(port: u16, lines: &str, variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("remoteclipd.toml");
        write_config(&config, port, lines);
        Self { child: run(&config, &folder.path().join("log"), variables), folder: Arc::new(folder), config }
    }

    /// `remoteclipd run` with a whole configuration, in which `{state}` is a folder of the test's own.
    pub fn start_whole(config: &str, variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("remoteclipd.toml");
        std::fs::write(&path, config.replace("{state}", folder.path().join("state").to_str().unwrap())).unwrap();
        Self { child: run(&path, &folder.path().join("log"), variables), folder: Arc::new(folder), config: path }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A new process with the configuration and the state of one that has ended.
    pub fn start_again(ended: &Self) -> Self {
        let child = run(&ended.config, &ended.folder.path().join("log"), &[]);
        Self { child, folder: Arc::clone(&ended.folder), config: ended.config.clone() }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").arg(format!("-{signal}")).arg(self.child.id().to_string()).status().unwrap();
        assert!(status.success());
    }

    pub fn running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for the end; true for exit code 0.
    pub fn wait(&mut self) -> bool {
        wait_for("the daemon's end", || self.child.try_wait().unwrap()).success()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the daemon's log\n{}", self.log());
        }
    }
}

/// A configuration for this broker port; `lines` may begin with further keys of `[mqtt]`.
pub fn write_config(path: &Path, port: u16, lines: &str) {
    let state = path.parent().unwrap().join("state");
    let health = if lines.contains("[health]") { "" } else { "[health]\ninterval_s = 1.0\n" };
    let config = format!(
        "[vehicle]\nid = \"uav-1\"\n{health}[state]\npath = {state:?}\n\
         [mqtt]\nhost = \"127.0.0.1\"\nport = {port}\nreconnect_max_s = 1.0\n{lines}\n"
    );
    std::fs::write(path, config).unwrap();
}
