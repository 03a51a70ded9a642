//! Why the link is as it is: what rumqttc's two clients do by themselves. If one of these fails after an upgrade, the
//! decisions in docs/design rest on something that is no longer so.

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rumqttc::v5;

use crate::scripted::{Packet, Peer, SUCCESS, Scripted};
use crate::support::{Broker, PATIENCE};

/// How long a silence tells that nothing more comes.
const SILENCE: Duration = Duration::from_millis(1500);

/// Names of messages by the connection on which they came.
type Seen = Receiver<(usize, String)>;

/// Takes `acknowledged` messages of the first connection, reads `read` more and closes; takes everything afterwards.
fn forgetful(version: u8, session_present: bool, acknowledged: usize, read: usize) -> (Scripted, Seen) {
    let (sender, seen) = channel();
    let sender = Arc::new(Mutex::new(sender));
    let broker = Scripted::start_version(version, move |mut peer: Peer| {
        let number = peer.number;
        peer.connack(session_present && number > 0, SUCCESS, &[]);
        let mut count = 0;
        while let Some(packet) = peer.read() {
            let Packet::Publish { id, payload, .. } = packet else { continue };
            let _ = sender.lock().unwrap().send((number, String::from_utf8(payload).unwrap()));
            count += 1;
            if number > 0 || count <= acknowledged {
                peer.puback(id, SUCCESS);
            } else if count == acknowledged + read {
                // All acknowledgements must have arrived before the end does.
                thread::sleep(Duration::from_millis(200));
                return;
            }
        }
    });
    (broker, seen)
}

/// Publishes `count` messages with QoS 1 by the client of MQTT 5, four under way at most, and keeps polling while
/// the answer lives.
fn publish_v5(port: u16, count: usize) -> Arc<()> {
    let mut options = v5::MqttOptions::new("plain", "127.0.0.1", port);
    options.set_clean_start(false).set_outgoing_inflight_upper_limit(4);
    let (client, mut connection) = v5::Client::new(options, 100);
    for number in 0..count {
        client.try_publish("t", v5::mqttbytes::QoS::AtLeastOnce, false, number.to_string()).unwrap();
    }
    let wanted = Arc::new(());
    let until = Arc::downgrade(&wanted);
    thread::spawn(move || {
        let _client = client;
        // A client left over would come to whoever listens on this port next.
        let events = connection.iter().take_while(|_| until.strong_count() > 0);
        events.filter(Result::is_err).for_each(|_| thread::sleep(Duration::from_millis(20)));
    });
    wanted
}

/// The same by the client of 3.1.1.
fn publish_v4(port: u16, count: usize) -> Arc<()> {
    let mut options = rumqttc::MqttOptions::new("plain", "127.0.0.1", port);
    options.set_clean_session(false).set_inflight(4);
    let (client, mut connection) = rumqttc::Client::new(options, 100);
    for number in 0..count {
        client.try_publish("t", rumqttc::QoS::AtLeastOnce, false, number.to_string()).unwrap();
    }
    let wanted = Arc::new(());
    let until = Arc::downgrade(&wanted);
    thread::spawn(move || {
        let _client = client;
        // A client left over would come to whoever listens on this port next.
        let events = connection.iter().take_while(|_| until.strong_count() > 0);
        events.filter(Result::is_err).for_each(|_| thread::sleep(Duration::from_millis(20)));
    });
    wanted
}

fn all(seen: &Seen) -> Vec<(usize, String)> {
    let first = seen.recv_timeout(PATIENCE).unwrap();
    std::iter::once(first).chain(std::iter::from_fn(|| seen.recv_timeout(SILENCE).ok())).collect()
}

#[test]
fn both_clients_lose_what_was_under_way_when_the_session_is_not_present() {
    for version in [4, 5] {
        let (broker, seen) = forgetful(version, false, 2, 4);
        let _client = if version == 5 { publish_v5(broker.port, 30) } else { publish_v4(broker.port, 30) };
        let again = all(&seen).iter().filter(|(connection, _)| *connection > 0).count();
        assert!(again < 28, "{version}: {again} of the 28 that were not acknowledged");
    }
}

#[test]
fn with_a_session_the_client_of_5_sends_again_out_of_order_and_that_of_3_in_order() {
    for version in [4, 5] {
        // Two acknowledged, then numbers 3, 4, 1, 2 under way.
        let (broker, seen) = forgetful(version, true, 2, 4);
        let _client = if version == 5 { publish_v5(broker.port, 6) } else { publish_v4(broker.port, 6) };
        let again: Vec<String> =
            all(&seen).into_iter().filter(|(connection, _)| *connection > 0).map(|(_, name)| name).collect();
        let expected = if version == 5 { ["4", "5", "2", "3"] } else { ["2", "3", "4", "5"] };
        assert_eq!(again, expected, "{version}");
    }
}

#[test]
fn only_mqtt_5_tells_that_the_acl_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let acl = folder.path().join("acl");
    std::fs::write(&acl, "topic read #\n").unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let Some(broker) = Broker::start(&format!("acl_file {}", acl.display())) else { return };

    let (client, mut connection) = v5::Client::new(v5::MqttOptions::new("five", "127.0.0.1", broker.port), 10);
    client.try_publish("t", v5::mqttbytes::QoS::AtLeastOnce, false, "x").unwrap();
    let reason = connection.iter().find_map(|event| match event.unwrap() {
        v5::Event::Incoming(v5::mqttbytes::v5::Packet::PubAck(ack)) => Some(ack.reason),
        _ => None,
    });
    assert_eq!(reason, Some(v5::mqttbytes::v5::PubAckReason::NotAuthorized));

    let (client, mut connection) =
        rumqttc::Client::new(rumqttc::MqttOptions::new("three", "127.0.0.1", broker.port), 10);
    client.try_publish("t", rumqttc::QoS::AtLeastOnce, false, "x").unwrap();
    let acknowledged =
        connection.iter().any(|event| matches!(event.unwrap(), rumqttc::Event::Incoming(rumqttc::Packet::PubAck(_))));
    assert!(acknowledged, "thrown away and acknowledged");
}
