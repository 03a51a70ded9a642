//! The daemon under a service manager: what systemd is told through its socket, with and without a broker.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use std::os::unix::net::UnixDatagram;

use support::{Daemon, PATIENCE, free_port};
use tempfile::TempDir;

const FLYING: &str = "[camera.simulated]\nframes_per_second = 10.0\n";

/// The service manager's end of `NOTIFY_SOCKET`.
struct Manager {
    socket: UnixDatagram,
    folder: TempDir,
}

impl Manager {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, folder }
    }

    fn start(&self, port: u16, lines: &str) -> Daemon {
        let path = self.folder.path().join("notify");
        let variables = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "2000000")];
        Daemon::start_with(port, lines, &variables)
    }

    fn told(&self) -> String {
        let mut buffer = [0; 256];
        let length = self.socket.recv(&mut buffer).expect("a notification");
        std::str::from_utf8(&buffer[..length]).unwrap().trim().to_owned()
    }
}

#[test]
fn it_says_when_it_is_ready_feeds_the_watchdog_without_a_broker_and_says_when_it_stops() {
    let manager = Manager::new();
    let mut daemon = manager.start(free_port(), FLYING);
    assert_eq!(manager.told(), "READY=1");
    for _ in 0..3 {
        assert_eq!(manager.told(), "WATCHDOG=1");
    }
    daemon.signal("TERM");
    let last = std::iter::repeat_with(|| manager.told()).find(|told| told != "WATCHDOG=1");
    assert_eq!(last.as_deref(), Some("STOPPING=1"));
    assert!(daemon.wait());
}

#[test]
fn a_source_that_waits_for_the_broker_and_one_that_is_idle_keep_the_watchdog_fed() {
    let empty = tempfile::tempdir().unwrap();
    let idle = format!("[camera.folder]\npath = {:?}\n", empty.path().to_str().unwrap());
    for source in ["[camera.simulated]\nframes = 3\n", &idle] {
        let manager = Manager::new();
        let _daemon = manager.start(free_port(), source);
        assert_eq!(manager.told(), "READY=1");
        for _ in 0..4 {
            assert_eq!(manager.told(), "WATCHDOG=1", "{source}");
        }
    }
}
