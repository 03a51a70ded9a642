//! One connection to the broker, from CONNECT to its end. Nothing of it outlives that end: what was not acknowledged is
//! sent again from the spool by the next one, whatever the broker's session remembers.
//!
//! rumqttc numbers packets itself and tells the number only when it writes them. It takes requests in order, so the n-th
//! `Outgoing::Publish` belongs to the n-th message handed over: that pairs acknowledgements with messages. Its `poll` must
//! not be dropped half-way (a packet could be lost between its books and the wire), so it is polled to the end while this
//! task hands over more.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, DisconnectReasonCode, Packet, PubAckReason, Publish, PublishProperties, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, StateError};
use tokio::time::{sleep, timeout};

use super::outbox::{Item, Parcel, Room};
use super::suspect::Evidence;
use super::{HANDED, Inbound, Shared, WINDOW};
use crate::publish::spool::Entry;

/// How long after a disconnect the broker may take to close, so that no unread byte turns our close into a reset that
/// eats the goodbye.
const CLOSE: Duration = Duration::from_millis(200);

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting,
    Serving,
    /// Told to stop: what waits goes first, until then.
    Draining(Instant),
    /// The last message is on its way.
    Parting(Instant),
    /// The disconnect is.
    Leaving(Instant),
}

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// It was told to stop.
    Stopped,
    /// The network or the broker ended it.
    Lost(ConnectionError),
    /// It was open and nothing came for so long.
    Silent(&'static str, Duration),
}

/// What remains of a connection.
#[derive(Debug)]
pub(super) struct Outcome {
    pub end: End,
    pub evidence: Evidence,
    /// The message that the evidence names.
    pub unacknowledged: Option<Entry>,
    pub accepted: bool,
    pub lived: Duration,
}

pub(super) struct Connection<'a> {
    shared: &'a Shared,
    client: AsyncClient,
    phase: Phase,
    /// Handed to rumqttc and not yet on the wire, in order.
    handed: VecDeque<Item>,
    /// On the wire and not acknowledged, in order.
    in_flight: VecDeque<(u16, Item)>,
    window: usize,
    alone: bool,
    max_packet: usize,
    keep_alive: Duration,
    started: Instant,
    /// Anything came from the socket or went to it.
    heard: Instant,
    /// The first in flight was acknowledged, or became the first.
    progress: Instant,
    healthy: bool,
    spooled_acknowledged: bool,
}

impl<'a> Connection<'a> {
    /// `alone`: spooled messages one at a time.
    pub fn new(shared: &'a Shared, client: AsyncClient, alone: bool) -> Self {
        let now = Instant::now();
        Self {
            shared,
            client,
            phase: Phase::Connecting,
            handed: VecDeque::new(),
            in_flight: VecDeque::new(),
            window: WINDOW,
            alone,
            max_packet: usize::MAX,
            keep_alive: shared.keep_alive,
            started: now,
            heard: now,
            progress: now,
            healthy: false,
            spooled_acknowledged: false,
        }
    }

    pub async fn run(mut self, event_loop: &mut EventLoop) -> Outcome {
        let end = self.serve(event_loop).await;
        let unacknowledged = self.in_flight.iter().find_map(|(_, item)| match item {
            Item::Spooled(entry) => Some(entry.clone()),
            _ => None,
        });
        let lost = self.handed.iter().filter(|item| matches!(item, Item::Now)).count() as u64;
        self.shared.outbox().unsent += lost;
        let named = match &end {
            End::Lost(ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, .. })) => {
                lies_in_a_message(*reason_code)
            }
            _ => false,
        };
        Outcome {
            evidence: Evidence {
                unacknowledged: unacknowledged.as_ref().map(|entry| entry.ticket),
                healthy: self.healthy && matches!(end, End::Lost(_)),
                progress: self.spooled_acknowledged,
                named,
            },
            end,
            unacknowledged,
            accepted: self.phase != Phase::Connecting,
            lived: self.started.elapsed(),
        }
    }

    async fn serve(&mut self, event_loop: &mut EventLoop) -> End {
        loop {
            let polled = {
                let mut polling = pin!(event_loop.poll());
                loop {
                    if self.stop_step() {
                        return End::Stopped;
                    }
                    self.fill();
                    let (wait, overdue) = self.patience();
                    tokio::select! {
                        biased;
                        polled = &mut polling => break polled,
                        () = self.shared.wake.notified() => {}
                        () = sleep(wait) => if let Some(overdue) = overdue {
                            return overdue;
                        }
                    }
                }
            };
            self.heard = Instant::now();
            match polled {
                Ok(event) => {
                    if self.handle(event) {
                        let _ = timeout(CLOSE, event_loop.poll()).await;
                        return End::Stopped;
                    }
                }
                Err(_) if matches!(self.phase, Phase::Leaving(_)) => return End::Stopped,
                Err(error) => return End::Lost(error),
            }
        }
    }

    /// Walks through the phases of a stop; true when it is over.
    fn stop_step(&mut self) -> bool {
        let now = Instant::now();
        if self.shared.stopping.load(Ordering::Acquire) {
            match self.phase {
                Phase::Connecting => return true,
                Phase::Serving => self.phase = Phase::Draining(now + self.shared.goodbye / 2),
                _ => {}
            }
        }
        if let Phase::Draining(until) = self.phase
            && (now >= until || self.idle())
        {
            if let Some(last) = self.shared.take_last() {
                self.shared.outbox().put(last, &self.shared.spool, true);
            }
            self.phase = Phase::Parting(now + self.shared.goodbye / 2);
            self.fill();
        }
        if let Phase::Parting(until) = self.phase
            && (now >= until || self.idle())
        {
            // When rumqttc takes no request any more the goodbye is lost, and the broker publishes the will instead.
            let _ = self.client.try_disconnect();
            self.phase = Phase::Leaving(now + CLOSE);
        }
        matches!(self.phase, Phase::Leaving(until) if now >= until)
    }

    /// Nothing is under way, and nothing that may go waits.
    fn idle(&mut self) -> bool {
        self.fill();
        self.handed.is_empty() && self.in_flight.is_empty()
    }

    /// How long to wait for rumqttc, and what it means when that time passes.
    fn patience(&self) -> (Duration, Option<End>) {
        let now = Instant::now();
        let left = |since: Instant, patience: Duration| (since + patience).saturating_duration_since(now);
        let mut wait = (Duration::from_secs(3600), None);
        let mut earlier = |other: Duration, end: Option<End>| {
            if other < wait.0 {
                wait = (other, end);
            }
        };
        match self.phase {
            Phase::Connecting => {}
            Phase::Draining(until) | Phase::Parting(until) | Phase::Leaving(until) => {
                earlier(until.saturating_duration_since(now), None);
            }
            Phase::Serving => {
                // rumqttc pings once a keep-alive and fails when the answer is missing at the next; but a write that
                // blocks (a half-open connection, its buffer full) stops its clock, so there is one here as well.
                let silence = self.keep_alive * 3 / 2;
                earlier(left(self.heard, silence), Some(End::Silent("no sign of the broker", silence)));
                if !self.in_flight.is_empty() {
                    let patience = self.shared.ack_timeout;
                    earlier(left(self.progress, patience), Some(End::Silent("no acknowledgement", patience)));
                }
            }
        }
        if let Some(outbox) = self.shared.outbox().wake_in(&self.shared.spool) {
            earlier(outbox, None);
        }
        wait
    }

    /// Hands over what may go.
    fn fill(&mut self) {
        if matches!(self.phase, Phase::Connecting | Phase::Leaving(_)) {
            return;
        }
        let shared = self.shared;
        let mut outbox = shared.outbox();
        let mut due = outbox.holds.due(Instant::now());
        if due && self.spooled_under_way() == 0 {
            outbox.holds.release(Instant::now());
            shared.spool.rewind();
            due = false;
        }
        while self.handed.len() < HANDED {
            let acknowledged = self.unacknowledged() < self.window;
            let barred = due || matches!(self.phase, Phase::Parting(_));
            let spooled = acknowledged && !barred && (!self.alone || self.unacknowledged() == 0);
            let Some(parcel) = outbox.next(&shared.spool, Room { now: true, acknowledged, spooled }) else { break };
            if parcel.size() > self.max_packet {
                let reason = format!("{} bytes are more than the broker takes ({})", parcel.size(), self.max_packet);
                drop(outbox);
                self.give_up(parcel.item, &parcel.topic, &reason);
                outbox = shared.outbox();
                continue;
            }
            self.hand_over(parcel, shared.content_type.clone());
        }
    }

    fn hand_over(&mut self, parcel: Parcel, content_type: Option<String>) {
        let (qos, retain) = match &parcel.item {
            Item::Now => (QoS::AtMostOnce, false),
            Item::State(_) => (QoS::AtLeastOnce, true),
            Item::Spooled(_) => (QoS::AtLeastOnce, false),
        };
        let Parcel { topic, payload, item } = parcel;
        let sent = match content_type {
            Some(content_type) => {
                let properties = PublishProperties { content_type: Some(content_type), ..PublishProperties::default() };
                self.client.try_publish_with_properties(topic.clone(), qos, retain, payload, properties)
            }
            None => self.client.try_publish(topic.clone(), qos, retain, payload),
        };
        match sent {
            Ok(()) => self.handed.push_back(item),
            // There is room for HANDED, so it is the topic.
            Err(_) => self.give_up(item, &topic, "the topic is not valid"),
        }
    }

    /// Takes one event; true when the goodbye is on the wire.
    fn handle(&mut self, event: Event) -> bool {
        match event {
            Event::Outgoing(rumqttc::Outgoing::Publish(id)) => self.on_the_wire(id),
            Event::Outgoing(rumqttc::Outgoing::Disconnect) => return matches!(self.phase, Phase::Leaving(_)),
            Event::Incoming(Packet::ConnAck(connack)) => self.accepted(&connack),
            Event::Incoming(Packet::PubAck(ack)) => self.settle(ack.pkid, ack.reason),
            Event::Incoming(Packet::Publish(publish)) => self.received(&publish),
            Event::Incoming(Packet::SubAck(ack))
                if !ack.return_codes.iter().all(|code| matches!(code, SubscribeReasonCode::Success(_))) =>
            {
                log::error!("mqtt: the broker does not let us read commands; check its ACL");
            }
            _ => {}
        }
        false
    }

    fn accepted(&mut self, connack: &ConnAck) {
        self.phase = Phase::Serving;
        if let Some(properties) = &connack.properties {
            self.window = self.window.min(properties.receive_max.map_or(WINDOW, usize::from));
            self.max_packet = properties.max_packet_size.map_or(usize::MAX, |size| size as usize);
            if let Some(seconds) = properties.server_keep_alive {
                self.keep_alive = Duration::from_secs(u64::from(seconds));
            }
        }
        self.shared.connects.fetch_add(1, Ordering::Relaxed);
        log::info!("mqtt: connected to {}", self.shared.broker);
        let mut outbox = self.shared.outbox();
        self.shared.connected.store(true, Ordering::Release);
        outbox.begin(&self.shared.spool);
        drop(outbox);
        if let Some(inbox) = &self.shared.inbox
            && self.client.try_subscribe(&inbox.filter, QoS::AtLeastOnce).is_err()
        {
            log::error!("mqtt: cannot subscribe to {}", inbox.filter);
        }
    }

    fn on_the_wire(&mut self, id: u16) {
        match self.handed.pop_front() {
            Some(Item::Now) | None => {}
            Some(item) => {
                if self.in_flight.is_empty() {
                    self.progress = Instant::now();
                }
                self.in_flight.push_back((id, item));
            }
        }
    }

    fn settle(&mut self, id: u16, reason: PubAckReason) {
        let Some(at) = self.in_flight.iter().position(|(in_flight, _)| *in_flight == id) else { return };
        if at == 0 {
            self.progress = Instant::now();
        }
        let Some((_, item)) = self.in_flight.remove(at) else { return };
        let taken = matches!(reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers);
        match item {
            Item::Now => {}
            Item::State(_) if taken => self.healthy = true,
            Item::State(topic) => {
                self.healthy = true;
                log::error!("mqtt: the broker refuses {topic}: {reason:?}; check its ACL");
            }
            Item::Spooled(entry) if taken => {
                self.spooled_acknowledged = true;
                self.shared.spool.done(entry.ticket);
                if self.shared.outbox().holds.accepted(&entry.topic, entry.ticket, Instant::now()) {
                    log::info!("mqtt: the broker takes {} again", entry.topic);
                }
            }
            Item::Spooled(entry) => self.refused(entry, reason),
        }
    }

    fn refused(&mut self, entry: Entry, reason: PubAckReason) {
        let in_the_message = match reason {
            PubAckReason::TopicNameInvalid | PubAckReason::PayloadFormatInvalid => true,
            PubAckReason::NotAuthorized | PubAckReason::QuotaExceeded => false,
            _ => self.shared.outbox().holds.give_up(entry.ticket),
        };
        if in_the_message {
            let topic = entry.topic.clone();
            return self.give_up(Item::Spooled(entry), &topic, &format!("the broker refused it: {reason:?}"));
        }
        if self.shared.outbox().holds.hold(&entry.topic, Instant::now()) {
            log::error!(
                "mqtt: the broker refuses {}: {reason:?}; its events wait and are tried again (check the broker's ACL and quota)",
                entry.topic
            );
        }
    }

    fn give_up(&mut self, item: Item, topic: &str, reason: &str) {
        match item {
            Item::Spooled(entry) => self.shared.spool.refuse(&entry, reason),
            Item::State(_) | Item::Now => self.shared.outbox().unsent += 1,
        }
        log::error!("mqtt: a message for {topic} is given up: {reason}");
    }

    fn received(&mut self, publish: &Publish) {
        let Some(inbox) = &self.shared.inbox else { return };
        let Ok(topic) = String::from_utf8(publish.topic.to_vec()) else { return };
        // A retained command is an old one: it would be carried out again at each connect.
        if publish.retain {
            log::warn!("mqtt: a retained command on {topic} is ignored; commands must not be retained");
            return;
        }
        (inbox.deliver)(Inbound { topic, payload: publish.payload.to_vec() });
    }

    fn unacknowledged(&self) -> usize {
        self.in_flight.len() + self.handed.iter().filter(|item| !matches!(item, Item::Now)).count()
    }

    fn spooled_under_way(&self) -> usize {
        let items = self.in_flight.iter().map(|(_, item)| item).chain(&self.handed);
        items.filter(|item| matches!(item, Item::Spooled(_))).count()
    }
}

fn lies_in_a_message(reason: DisconnectReasonCode) -> bool {
    matches!(
        reason,
        DisconnectReasonCode::MalformedPacket
            | DisconnectReasonCode::ProtocolError
            | DisconnectReasonCode::ImplementationSpecificError
            | DisconnectReasonCode::TopicNameInvalid
            | DisconnectReasonCode::PacketTooLarge
            | DisconnectReasonCode::PayloadFormatInvalid
            | DisconnectReasonCode::QoSNotSupported
            | DisconnectReasonCode::RetainNotSupported
    )
}
