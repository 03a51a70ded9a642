//! One fault each, against the scripted broker.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::front::{self, Front, event, field, replayed};
use crate::scripted::{
    NOT_AUTHORIZED, PACKET_TOO_LARGE, PAYLOAD_FORMAT_INVALID, Peer, QUOTA_EXCEEDED, RECEIVE_MAXIMUM_ONE,
    SERVER_UNAVAILABLE, SUCCESS, Scripted, maximum_packet_size,
};
use crate::support::{PATIENCE, wait_for};

/// What a broker took for good: the event's id, whether it said that it was delayed, on which connection it came.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Taken {
    id: String,
    replayed: bool,
    connection: usize,
}

type Report = Sender<Taken>;

fn report(report: &Report, number: usize, payload: &[u8]) {
    let taken = Taken { id: field(payload, "id").to_owned(), replayed: replayed(payload), connection: number };
    let _ = report.send(taken);
}

/// A broker whose script may report what it took.
fn broker(script: impl Fn(&mut Peer, &Report) + Send + Sync + 'static) -> (Scripted, Receiver<Taken>) {
    let (sender, receiver) = channel();
    let sender = Mutex::new(sender);
    let broker = Scripted::start(move |mut peer| {
        let sender = sender.lock().unwrap().clone();
        script(&mut peer, &sender);
    });
    (broker, receiver)
}

/// Takes everything from now on.
fn serve(peer: &mut Peer, sender: &Report) {
    let number = peer.number;
    peer.serve(|_, payload| report(sender, number, payload));
}

fn take(receiver: &Receiver<Taken>, count: usize) -> Vec<Taken> {
    (0..count).map(|_| receiver.recv_timeout(PATIENCE).expect("an event that the broker takes")).collect()
}

/// First comings until there are so many: whoever closes a connection with bytes unread takes its last acknowledgements
/// back (a reset), so an event may come twice.
fn first_comings(receiver: &Receiver<Taken>, count: usize) -> Vec<Taken> {
    let mut first: Vec<Taken> = Vec::new();
    while first.len() < count {
        let taken = take(receiver, 1).remove(0);
        if !first.iter().any(|known| known.id == taken.id) {
            first.push(taken);
        }
    }
    first
}

fn ids(taken: &[Taken]) -> Vec<&str> {
    taken.iter().map(|taken| taken.id.as_str()).collect()
}

fn nothing_waits(front: &Front) {
    wait_for("an empty spool", || (front.link.stats().spool.events == 0).then_some(()));
}

#[test]
fn what_is_prompt_is_not_called_replayed() {
    let (broker, taken) = broker(|peer, sender| {
        peer.connack(false, SUCCESS, &[]);
        serve(peer, sender);
    });
    let front = Front::start(broker.port);
    wait_for("the connection", || front.link.connected().then_some(()));
    front.events("a", &["1"]);
    assert_eq!(take(&taken, 1), [Taken { id: "1".to_owned(), replayed: false, connection: 0 }]);
    nothing_waits(&front);
}

#[test]
fn a_lost_puback_brings_the_event_again_with_its_id() {
    let (broker, taken) = broker(|peer, sender| {
        peer.connack(false, SUCCESS, &[]);
        let first = peer.number == 0;
        while let Some((id, _, payload)) = peer.event() {
            if first && field(&payload, "id") == "2" {
                continue; // taken, and the acknowledgement is lost
            }
            report(sender, peer.number, &payload);
            peer.puback(id, SUCCESS);
        }
    });
    let front = Front::start(broker.port);
    front.events("a", &["1", "2", "3"]);
    let taken = take(&taken, 3);
    assert_eq!(ids(&taken), ["1", "3", "2"]);
    assert!(taken[2].replayed && taken[2].connection == 1);
    nothing_waits(&front);
}

#[test]
fn whatever_the_session_remembers_all_that_was_not_acknowledged_comes_again_in_order() {
    for session_present in [false, true] {
        let (broker, taken) = broker(move |peer, sender| {
            peer.connack(session_present && peer.number > 0, SUCCESS, &[]);
            // Each connection takes three more and forgets five that it has read.
            let mut left = 3;
            let mut unread = 5;
            while let Some((id, _, payload)) = peer.event() {
                if left > 0 || peer.number > 6 {
                    report(sender, peer.number, &payload);
                    peer.puback(id, SUCCESS);
                    left -= 1;
                    continue;
                }
                unread -= 1;
                if unread == 0 {
                    return;
                }
            }
        });
        let front = Front::start(broker.port);
        let names: Vec<String> = (0..30).map(|number| number.to_string()).collect();
        front.events("a", &names.iter().map(String::as_str).collect::<Vec<_>>());
        let taken = first_comings(&taken, 30);
        assert_eq!(ids(&taken), names, "session_present {session_present}");
        assert!(taken.iter().filter(|taken| taken.connection > 0).all(|taken| taken.replayed));
        nothing_waits(&front);
    }
}

#[test]
fn a_half_open_connection_is_left() {
    let (broker, taken) = broker(|peer, sender| {
        peer.connack(false, SUCCESS, &[]);
        if peer.number == 0 {
            peer.event();
            thread::sleep(PATIENCE); // neither reads nor closes
            return;
        }
        serve(peer, sender);
    });
    let front = Front::start(broker.port);
    front.events("a", &["1", "2"]);
    assert_eq!(ids(&take(&taken, 2)), ["1", "2"]);
}

#[test]
fn a_broker_that_does_not_read_is_left_even_when_the_write_blocks() {
    let (broker, taken) = broker(|peer, sender| {
        peer.connack(false, SUCCESS, &[]);
        if peer.number == 0 {
            thread::sleep(PATIENCE);
            return;
        }
        serve(peer, sender);
    });
    let front = Front::start(broker.port);
    // More than both sockets hold.
    let large = 400_000;
    for number in 0..24 {
        front.link.publish(event("a", &number.to_string(), large));
    }
    let taken = take(&taken, 24);
    assert_eq!(taken.last().unwrap().id, "23");
    nothing_waits(&front);
}

#[test]
fn a_refused_connect_is_tried_again() {
    for code in [NOT_AUTHORIZED, SERVER_UNAVAILABLE] {
        let (broker, taken) = broker(move |peer, sender| {
            if peer.number < 3 {
                return peer.connack(false, code, &[]);
            }
            peer.connack(false, SUCCESS, &[]);
            serve(peer, sender);
        });
        let front = Front::start(broker.port);
        front.events("a", &["1"]);
        assert_eq!(take(&taken, 1)[0].connection, 3);
        assert_eq!(front.link.stats().connects, 1);
    }
}

#[test]
fn what_is_larger_than_the_broker_takes_is_put_aside_and_the_rest_goes_on() {
    let (broker, taken) = broker(|peer, sender| {
        peer.connack(false, SUCCESS, &maximum_packet_size(400));
        serve(peer, sender);
    });
    let front = Front::start(broker.port);
    front.events("a", &["1"]);
    front.link.publish(event("a", "large", 1000));
    front.events("a", &["2"]);
    assert_eq!(ids(&take(&taken, 2)), ["1", "2"]);
    nothing_waits(&front);
    assert_eq!((front.link.stats().spool.refused, front.link.stats().connects), (1, 1));
    assert!(front.refused().contains("more than the broker takes (400)"));
}

#[test]
fn a_slow_reader_gets_everything() {
    let (broker, taken) = broker(|peer, sender| {
        peer.connack(false, SUCCESS, &[]);
        while let Some((id, _, payload)) = peer.event() {
            thread::sleep(Duration::from_millis(5));
            report(sender, peer.number, &payload);
            peer.puback(id, SUCCESS);
        }
    });
    let front = Front::start(broker.port);
    let names: Vec<String> = (0..200).map(|number| number.to_string()).collect();
    front.events("a", &names.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(ids(&take(&taken, 200)), names);
    assert_eq!(front.link.stats().connects, 1, "slow is not dead");
}

#[test]
fn a_connection_that_ends_within_a_packet_loses_nothing() {
    let (broker, taken) = broker(|peer, sender| {
        if peer.number == 0 {
            return peer.raw(&[0x20, 3, 0]); // half a CONNACK
        }
        peer.connack(false, SUCCESS, &[]);
        if peer.number == 1 {
            if let Some((id, _, payload)) = peer.event() {
                report(sender, 1, &payload);
                peer.raw(&[0x40, 2, (id >> 8) as u8]); // most of a PUBACK
            }
            return;
        }
        serve(peer, sender);
    });
    let front = Front::start(broker.port);
    front.events("a", &["1", "2"]);
    assert_eq!(ids(&first_comings(&taken, 2)), ["1", "2"]);
    nothing_waits(&front);
}

#[test]
fn bytes_that_are_no_mqtt_end_the_connection_and_nothing_else() {
    let (broker, taken) = broker(|peer, sender| {
        peer.connack(false, SUCCESS, &[]);
        match peer.number {
            0 => peer.raw(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
            1 => peer.raw(&[0x40, 2, 0xFF, 0xFF]), // acknowledges what was never sent
            2 => peer.raw(&[0x40, 3, 0, 1, 0x55]), // with a reason that does not exist
            _ => return serve(peer, sender),
        }
        while peer.read().is_some() {}
    });
    let front = Front::start(broker.port);
    front.events("a", &["1", "2"]);
    assert_eq!(ids(&take(&taken, 2)), ["1", "2"]);
}

#[test]
fn no_more_is_under_way_than_the_broker_receives() {
    let (broker, taken) = broker(|peer, sender| {
        peer.connack(false, SUCCESS, RECEIVE_MAXIMUM_ONE);
        peer.socket.set_read_timeout(Some(Duration::from_millis(30))).unwrap();
        let mut unacknowledged = None;
        loop {
            match (peer.event(), unacknowledged.take()) {
                (Some((id, _, payload)), None) => {
                    report(sender, peer.number, &payload);
                    unacknowledged = Some(id);
                }
                (Some(_), Some(_)) => return peer.disconnect(0x93), // receive maximum exceeded
                (None, Some(id)) => peer.puback(id, SUCCESS),       // nothing more came meanwhile
                (None, None) => {
                    if peer.socket.take_error().unwrap().is_some() {
                        return;
                    }
                }
            }
        }
    });
    let front = Front::start(broker.port);
    front.events("a", &["1", "2", "3", "4"]);
    assert_eq!(ids(&take(&taken, 4)), ["1", "2", "3", "4"]);
    assert_eq!(front.link.stats().connects, 1);
}

#[test]
fn a_refused_topic_waits_and_those_of_others_go_on() {
    for reason in [NOT_AUTHORIZED, QUOTA_EXCEEDED] {
        let mended = Arc::new(AtomicBool::new(false));
        let takes_all = Arc::clone(&mended);
        let (broker, taken) = broker(move |peer, sender| {
            peer.connack(false, SUCCESS, &[]);
            while let Some((id, topic, payload)) = peer.event() {
                if topic.contains("/a/") && !takes_all.load(Ordering::SeqCst) {
                    peer.puback(id, reason);
                    continue;
                }
                report(sender, peer.number, &payload);
                peer.puback(id, SUCCESS);
            }
        });
        let front = Front::start(broker.port);
        front.events("a", &["1", "2"]);
        front.events("b", &["3", "4"]);
        let first = take(&taken, 2);
        assert_eq!(ids(&first), ["3", "4"]);
        wait_for("kept events", || {
            let stats = front.link.stats();
            ((stats.refused_topics, stats.spool.events, stats.spool.refused) == (1, 2, 0)).then_some(())
        });
        // The broker's configuration is mended: they come in their order.
        mended.store(true, Ordering::SeqCst);
        assert_eq!(ids(&take(&taken, 2)), ["1", "2"]);
        nothing_waits(&front);
        assert_eq!((front.link.stats().refused_topics, front.link.stats().connects), (0, 1));
    }
}

#[test]
fn one_refused_while_the_next_is_taken_comes_again_on_the_same_connection() {
    let (broker, taken) = broker(|peer, sender| {
        peer.connack(false, SUCCESS, &[]);
        // Both are under way before the first is answered.
        let (Some((first, ..)), Some((second, _, payload))) = (peer.event(), peer.event()) else { return };
        peer.puback(first, QUOTA_EXCEEDED);
        report(sender, peer.number, &payload);
        peer.puback(second, SUCCESS);
        serve(peer, sender);
    });
    let front = Front::start(broker.port);
    front.events("a", &["1", "2"]);
    let taken = take(&taken, 2);
    assert_eq!(ids(&taken), ["2", "1"]);
    assert_eq!(taken[1].connection, 0);
    nothing_waits(&front);
    wait_for("no refused topic", || (front.link.stats().refused_topics == 0).then_some(()));
}

#[test]
fn a_message_refused_for_what_it_is_is_put_aside() {
    let (broker, taken) = broker(|peer, sender| {
        peer.connack(false, SUCCESS, &[]);
        while let Some((id, _, payload)) = peer.event() {
            if field(&payload, "id") == "poison" {
                peer.puback(id, PAYLOAD_FORMAT_INVALID);
            } else {
                report(sender, peer.number, &payload);
                peer.puback(id, SUCCESS);
            }
        }
    });
    let front = Front::start(broker.port);
    front.events("a", &["1", "poison", "2"]);
    assert_eq!(ids(&take(&taken, 2)), ["1", "2"]);
    nothing_waits(&front);
    assert!(front.refused().contains("PayloadFormatInvalid") && front.refused().contains("poison"));
}

#[test]
fn a_message_that_ends_every_connection_is_found_and_put_aside() {
    for named in [true, false] {
        let (broker, taken) = broker(move |peer, sender| {
            peer.connack(false, SUCCESS, &[]);
            while let Some((id, _, payload)) = peer.event() {
                if field(&payload, "id") == "poison" {
                    if named {
                        peer.disconnect(PACKET_TOO_LARGE);
                    }
                    return;
                }
                report(sender, peer.number, &payload);
                peer.puback(id, SUCCESS);
            }
        });
        let front = Front::start(broker.port);
        front.events("a", &["1", "poison", "2", "3"]);
        let taken = first_comings(&taken, 3);
        assert_eq!(ids(&taken), ["1", "2", "3"]);
        assert!(taken[1].connection <= 25, "{taken:?}");
        nothing_waits(&front);
        assert_eq!(front.link.stats().spool.refused, 1);
    }
}

#[test]
fn a_stop_sends_what_waits_and_what_is_left_comes_after_the_next_start() {
    let (broker, taken) = broker(|peer, sender| {
        peer.connack(false, SUCCESS, &[]);
        if peer.number == 0 {
            // Takes ten and then nothing more.
            for _ in 0..10 {
                let Some((id, _, payload)) = peer.event() else { return };
                report(sender, 0, &payload);
                peer.puback(id, SUCCESS);
            }
            while peer.event().is_some() {}
            return;
        }
        serve(peer, sender);
    });
    let folder = tempfile::tempdir().unwrap();
    let mqtt = front::mqtt(broker.port);
    let link = front::start(&mqtt, folder.path());
    (0..30).for_each(|number| link.publish(event("a", &number.to_string(), 10)));
    let first = take(&taken, 10);
    let asked = Instant::now();
    link.stop(front::state("offline"));
    assert!(asked.elapsed() < PATIENCE, "a stop waits for nobody");
    let link = front::start(&mqtt, folder.path());
    let second = take(&taken, 20);
    let came: Vec<String> = first.into_iter().chain(second).map(|taken| taken.id).collect();
    assert_eq!(came, (0..30).map(|number| number.to_string()).collect::<Vec<_>>());
    link.stop(front::state("offline"));
}

#[test]
fn a_thin_link_loses_results_and_no_event() {
    use remoteclipd::publish::{Message, Urgency};
    let results = Arc::new(Mutex::new(0u64));
    let counted = Arc::clone(&results);
    let (sender, taken) = channel();
    let sender = Mutex::new(sender);
    let broker = Scripted::start(move |mut peer| {
        let sender = sender.lock().unwrap().clone();
        peer.connack(false, SUCCESS, &[]);
        while let Some(packet) = peer.read() {
            use crate::scripted::Packet;
            match packet {
                Packet::Publish { qos: 0, .. } => *counted.lock().unwrap() += 1,
                Packet::Publish { id, payload, retain, .. } => {
                    peer.puback(id, SUCCESS);
                    if !retain {
                        report(&sender, peer.number, &payload);
                    }
                }
                _ => {}
            }
        }
    });
    let mut mqtt = front::mqtt(broker.port);
    mqtt.max_bytes_per_minute = Some(60_000);
    let folder = tempfile::tempdir().unwrap();
    let link = front::start(&mqtt, folder.path());
    wait_for("the connection", || link.connected().then_some(()));
    for number in 0..100 {
        let payload = format!("{{\"pad\":\"{}\"}}", "r".repeat(1000)).into_bytes();
        let topic = "remoteclip/v1/uav-1/a/result".to_owned();
        link.publish(Message { topic, payload, urgency: Urgency::Result });
        if number % 10 == 0 {
            link.publish(event("a", &number.to_string(), 100));
        }
        thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(take(&taken, 10).len(), 10);
    wait_for("thinned results", || (link.stats().thinned > 0).then_some(()));
    let sent = *results.lock().unwrap();
    let stats = link.stats();
    assert!(sent < 40 && sent + stats.thinned + stats.unsent <= 100, "{sent} sent, {stats:?}");
    assert!(Path::new(folder.path()).exists());
}
