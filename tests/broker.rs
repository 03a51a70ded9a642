//! The example broker configuration as it stands: mutual TLS, and an ACL under which everyone sees and says only what they
//! may. And certificates that are renewed under a running daemon.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use support::{Daemon, wait_for};
use tempfile::TempDir;

/// An authority and what it signs.
struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority");
        let key = KeyPair::generate().unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { folder, issuer: Issuer::new(params, key) }
    }

    /// `<file>.crt` and `<file>.key` for this common name.
    fn issue(&self, file: &str, name: &str) {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.path(&format!("{file}.crt")), certificate.pem()).unwrap();
        std::fs::write(self.path(&format!("{file}.key")), key.serialize_pem()).unwrap();
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// `[mqtt.tls]` of a vehicle.
    fn tls(&self, file: &str) -> String {
        let [ca, cert, key] = ["ca.crt", &format!("{file}.crt"), &format!("{file}.key")].map(|name| self.path(name));
        format!("[mqtt.tls]\nca_file = {ca:?}\ncert_file = {cert:?}\nkey_file = {key:?}\n")
    }
}

struct Broker {
    port: u16,
    child: Child,
    authority: Authority,
}

impl Broker {
    /// `config/mosquitto` as it stands but for the port.
    fn start() -> Option<Self> {
        if !["mosquitto", "mosquitto_sub", "mosquitto_pub"].iter().all(|program| support::have(program)) {
            return None;
        }
        let authority = Authority::new();
        authority.issue("server", "broker");
        for name in ["uav-1", "uav-2", "ground", "pilot"] {
            authority.issue(name, name);
        }
        let port = support::free_port();
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/mosquitto");
        let config = std::fs::read_to_string(example.join("mosquitto.conf")).unwrap();
        assert!(config.contains("\nlistener 8883\n"));
        // mosquitto gives up root for a user that may not read our folder.
        let config = format!("{}user root\n", config.replace("listener 8883", &format!("listener {port} 127.0.0.1")));
        std::fs::write(authority.path("mosquitto.conf"), config).unwrap();
        std::fs::copy(example.join("acl"), authority.path("acl")).unwrap();
        let mut command = Command::new("mosquitto");
        command.args(["-c", "mosquitto.conf"]).current_dir(authority.folder.path());
        let child = support::spawn(command.stdout(Stdio::null()).stderr(Stdio::null()));
        let mut broker = Self { port, child, authority };
        wait_for("mosquitto", || {
            assert!(broker.child.try_wait().unwrap().is_none(), "mosquitto ended at once");
            std::net::TcpStream::connect(("127.0.0.1", port)).ok()
        });
        Some(broker)
    }

    fn client(&self, program: &str, who: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-V", "5", "--cafile"]);
        command.arg(self.authority.path("ca.crt"));
        command.arg("--cert").arg(self.authority.path(&format!("{who}.crt")));
        command.arg("--key").arg(self.authority.path(&format!("{who}.key")));
        command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// What `who` receives on these topics until there are `count` messages, or for a while.
    fn listen(&self, who: &str, topic: &str, count: u32, seconds: u32) -> Child {
        let (count, seconds) = (count.to_string(), seconds.to_string());
        support::spawn(&mut self.client("mosquitto_sub", who, &["-t", topic, "-v", "-C", &count, "-W", &seconds]))
    }

    fn publish(&self, who: &str, topic: &str, payload: &str) -> Output {
        self.client("mosquitto_pub", who, &["-q", "1", "-t", topic, "-m", payload]).output().unwrap()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn said(child: Child) -> String {
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

#[test]
fn everyone_sees_and_says_only_what_they_may() {
    let Some(broker) = Broker::start() else { return };
    let lines = format!(
        "{}[commands]\nenabled = true\n[tags]\nconsensus = [1, 1]\n[camera.simulated]\nframes_per_second = 10.0\n",
        broker.authority.tls("uav-1")
    );
    let daemon = Daemon::start(broker.port, &lines);
    wait_for("the connection", || daemon.log().contains("connected to").then_some(()));

    let seen = said(broker.listen("ground", "remoteclip/v1/uav-1/#", 120, 40));
    for topic in ["/status ", "/config ", "/nadir/result ", "/nadir/event ", "/nadir/label/"] {
        assert!(seen.contains(topic), "ground misses {topic}");
    }
    // The retained state alone would be enough to be seen.
    assert_eq!(said(broker.listen("uav-2", "#", 1, 2)), "", "a vehicle sees nothing of another");

    // Another vehicle can't speak for it, ground can't command it, and it does not command itself.
    let ear = broker.listen("ground", "remoteclip/v1/uav-1/forged", 1, 3);
    let replies = broker.listen("ground", "remoteclip/v1/uav-1/cmd/+/reply", 1, 15);
    std::thread::sleep(std::time::Duration::from_millis(500));
    broker.publish("uav-2", "remoteclip/v1/uav-1/forged", "x");
    broker.publish("uav-2", "remoteclip/v1/uav-1/cmd/pause", "{\"id\":\"uav-2\"}");
    broker.publish("ground", "remoteclip/v1/uav-1/cmd/pause", "{\"id\":\"ground\"}");
    broker.publish("uav-1", "remoteclip/v1/uav-1/cmd/pause", "{\"id\":\"itself\"}");
    broker.publish("pilot", "remoteclip/v1/uav-1/cmd/status", "{\"id\":\"pilot\"}");
    let reply = said(replies);
    assert!(reply.contains("\"id\":\"pilot\"") && reply.contains("\"ok\":true"), "{reply}");
    assert_eq!(said(ear), "");
    assert!(!daemon.log().contains("command pause"), "{}", daemon.log());

    // Without a certificate nobody is let in.
    let ca = broker.authority.path("ca.crt");
    let mut stranger = Command::new("mosquitto_sub");
    stranger.args(["-h", "127.0.0.1", "-p", &broker.port.to_string(), "-t", "#", "-W", "3", "--cafile"]).arg(ca);
    assert!(!stranger.output().unwrap().status.success());
}

#[test]
fn sighup_reads_renewed_certificates_and_refuses_broken_ones() {
    let Some(broker) = Broker::start() else { return };
    broker.authority.issue("vehicle", "uav-1");
    let lines = format!("{}[camera.simulated]\nframes_per_second = 5.0\n", broker.authority.tls("vehicle"));
    let mut daemon = Daemon::start(broker.port, &lines);
    let connections = |daemon: &Daemon| daemon.log().matches("connected to").count();
    wait_for("the connection", || (connections(&daemon) == 1).then_some(()));

    std::fs::write(broker.authority.path("vehicle.key"), "no key").unwrap();
    daemon.signal("HUP");
    wait_for("the refusal", || daemon.log().contains("mqtt.tls.key_file").then_some(()));
    assert!(daemon.running() && daemon.log().contains("stays in use"));

    broker.authority.issue("vehicle", "uav-1");
    daemon.signal("HUP");
    wait_for("the renewed connection", || (connections(&daemon) == 2).then_some(()));
    let key = std::fs::read_to_string(broker.authority.path("vehicle.key")).unwrap();
    let secret = key.lines().nth(1).unwrap();
    assert!(!daemon.log().contains(secret));
}
