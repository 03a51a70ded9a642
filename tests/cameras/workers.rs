//! Workers behind one shared subscription, one of them killed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::channel;
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PublishProperties};
use rumqttc::v5::{Client, Event, MqttOptions};

use super::examples::example;
use super::jpeg;
use super::support::{Broker, Daemon, PATIENCE, Subscriber, wait_for};

const WORKERS: usize = 4;
const FRAMES: usize = 200;
/// What the broker sends a worker ahead at most: mosquitto's `max_inflight_messages`.
const AHEAD: usize = 20;
/// All frames may have to wait for the worker that is away.
const QUEUE: &str = "max_queued_messages 0\n";

fn worker(broker: &Broker, index: usize) -> Daemon {
    let client = format!("client_id = \"classifier-{index}\"");
    Daemon::start_whole(&example("mqtt-worker.toml", broker, &[("client_id = \"classifier-1\"", &client)]), &[])
}

fn subscribed(worker: &Daemon) {
    wait_for("the subscription", || worker.log().contains("mqtt camera: subscribing").then_some(()));
}

/// Publishes numbered frames with QoS 1, all acknowledged by the broker, one every few milliseconds.
fn publish(port: u16, numbers: std::ops::Range<usize>) {
    let mut options = MqttOptions::new(format!("film-{}", numbers.start), "127.0.0.1", port);
    options.set_max_packet_size(Some(1 << 20));
    let (client, mut connection) = Client::new(options, 16);
    let (sender, acknowledged) = channel();
    std::thread::spawn(move || {
        for event in connection.iter() {
            if matches!(event, Ok(Event::Incoming(Packet::PubAck(_)))) && sender.send(()).is_err() {
                return;
            }
        }
    });
    for number in numbers.clone() {
        let properties = PublishProperties {
            user_properties: vec![("frame".to_owned(), number.to_string())],
            ..PublishProperties::default()
        };
        let picture = jpeg(number as u8);
        client.publish_with_properties("frames/uav-1", QoS::AtLeastOnce, false, picture, properties).unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
    numbers.for_each(|_| acknowledged.recv_timeout(PATIENCE).unwrap());
}

/// Results by frame: who made them (boot) and under which ids.
#[derive(Default)]
struct Results(BTreeMap<usize, BTreeSet<(String, String)>>);

impl Results {
    fn take(&mut self, subscriber: &mut Subscriber) {
        let result = subscriber.on("/nadir/result").payload;
        let text = |field: &str| result[field].as_str().unwrap().to_owned();
        self.0.entry(text("frame").parse().unwrap()).or_default().insert((text("boot_id"), text("id")));
    }
}

#[test]
fn every_frame_has_a_result_and_only_what_the_killed_worker_held_may_have_two() {
    let Some(broker) = Broker::start(QUEUE) else { return };
    let mut subscriber = Subscriber::new(broker.port);
    let workers: Vec<Daemon> = (0..WORKERS).map(|index| worker(&broker, index)).collect();
    workers.iter().for_each(subscribed);
    let port = broker.port;
    let publisher = std::thread::spawn(move || publish(port, 0..FRAMES));
    let mut results = Results::default();
    while results.0.len() < FRAMES / 4 {
        results.take(&mut subscriber);
    }
    workers[0].signal("KILL");
    while results.0.len() < FRAMES / 2 {
        results.take(&mut subscriber);
    }
    let back = Daemon::start_again(&workers[0]);
    publisher.join().unwrap();
    while results.0.len() < FRAMES {
        results.take(&mut subscriber);
    }
    // What came twice shows itself within a further round.
    publish(port, FRAMES..2 * FRAMES);
    while results.0.len() < 2 * FRAMES {
        results.take(&mut subscriber);
    }
    let boots: BTreeSet<&String> = results.0.values().flatten().map(|(boot, _)| boot).collect();
    assert_eq!(boots.len(), WORKERS + 1, "each worker took part, one of them in two lives");
    let twice: Vec<_> = results.0.iter().filter(|(_, ids)| ids.len() > 1).collect();
    assert!(twice.len() <= AHEAD, "{twice:?}");
    // One life ended before it could acknowledge, and the broker gave the frame to the same worker's next one.
    let log = back.log();
    for (frame, ids) in twice {
        let boots: BTreeSet<&String> = ids.iter().map(|(boot, _)| boot).collect();
        assert_eq!((ids.len(), boots.len()), (2, 2), "{frame}: {ids:?}\n{log}");
    }
    drop((workers, back));
}

#[test]
fn a_frame_that_cannot_be_decoded_is_counted_and_not_sent_again() {
    let Some(broker) = Broker::start(QUEUE) else { return };
    let mut subscriber = Subscriber::new(broker.port);
    let mut first = worker(&broker, 0);
    subscribed(&first);
    let (client, mut connection) = Client::new(MqttOptions::new("film", "127.0.0.1", broker.port), 16);
    std::thread::spawn(move || connection.iter().take_while(Result::is_ok).count());
    client.publish("frames/uav-1", QoS::AtLeastOnce, false, &b"no picture"[..]).unwrap();
    client.publish("frames/uav-1", QoS::AtLeastOnce, true, jpeg(9)).unwrap();
    assert_eq!(subscriber.on("/nadir/result").payload["frame"], "mqtt-000001");
    first.signal("TERM");
    assert!(first.wait());
    let again = Daemon::start_again(&first);
    let health =
        subscriber.next("health", |message| message.topic.ends_with("/health") && message.payload["frames"] == 1);
    assert_eq!(health.payload["frames_failed"], serde_json::json!({"unknown_format": 1}));
    publish(broker.port, 7..8);
    // Neither the broken frame nor the one that is retained comes before it.
    assert_eq!(subscriber.on("/nadir/result").payload["frame"], "7");
    drop(again);
}
