//! The subscription's thread: keeps connected, hands frames on and acknowledges those that are settled.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, Publish, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout;

use super::ledger::{Delivery, Ledger, Verdict};
use super::{AHEAD, Delivered, Shared};

const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How long a disconnect may take to reach the wire.
const GOODBYE: Duration = Duration::from_millis(200);

pub(super) struct Subscriber {
    pub broker: MqttOptions,
    pub filter: String,
    pub frames: Sender<Result<Delivered, String>>,
    pub settlements: UnboundedReceiver<Delivery>,
    pub shared: Arc<Shared>,
    pub ledger: Ledger,
}

impl Subscriber {
    /// Connects, serves and connects again until told to stop.
    pub async fn run(mut self) {
        let mut wait = FIRST_WAIT;
        while !self.stopping() {
            // A new client each time: rumqttc would send what it remembers of the old connection in an order of its own.
            let (client, mut event_loop) = AsyncClient::new(self.broker.clone(), usize::from(AHEAD) * 4);
            let mut accepted = false;
            let error = self.serve(&client, &mut event_loop, &mut accepted).await;
            let Some(error) = error else { return };
            if accepted {
                wait = FIRST_WAIT;
                log::warn!("mqtt camera: {error}; connecting again");
            } else {
                log::debug!("mqtt camera: {error}");
            }
            let _ = timeout(wait, self.shared.wake.notified()).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    fn stopping(&self) -> bool {
        self.shared.stopping.load(Ordering::Acquire)
    }

    /// One connection; how it failed, or none when it was told to stop.
    async fn serve(
        &mut self,
        client: &AsyncClient,
        event_loop: &mut EventLoop,
        accepted: &mut bool,
    ) -> Option<ConnectionError> {
        loop {
            let polled = {
                // A poll given up half-way may lose a packet.
                let mut polling = pin!(event_loop.poll());
                loop {
                    if self.stopping() {
                        let _ = client.try_disconnect();
                        let _ = timeout(GOODBYE, &mut polling).await;
                        break None;
                    }
                    tokio::select! {
                        biased;
                        polled = &mut polling => break Some(polled),
                        Some(delivery) = self.settlements.recv() => self.settle(client, delivery),
                        () = self.shared.wake.notified() => {}
                    }
                }
            };
            match polled {
                None => {
                    let _ = timeout(GOODBYE, disconnected(event_loop)).await;
                    return None;
                }
                Some(Ok(Event::Incoming(packet))) => self.handle(client, packet, accepted),
                Some(Ok(Event::Outgoing(_))) => {}
                Some(Err(error)) => return Some(error),
            }
        }
    }

    fn handle(&mut self, client: &AsyncClient, packet: Packet, accepted: &mut bool) {
        match packet {
            Packet::ConnAck(connack) => {
                *accepted = true;
                self.ledger.connected(connack.session_present);
                log::info!("mqtt camera: subscribing to {}", self.filter);
                // The queue of requests is empty: it has room.
                let _ = client.try_subscribe(&self.filter, QoS::AtLeastOnce);
            }
            Packet::SubAck(ack)
                if !ack.return_codes.iter().all(|code| matches!(code, SubscribeReasonCode::Success(_))) =>
            {
                let reason = format!("the broker refuses the subscription ({:?}): check its ACL", ack.return_codes);
                let _ = self.frames.send(Err(reason));
            }
            Packet::Publish(publish) => self.received(client, publish),
            _ => {}
        }
    }

    fn received(&mut self, client: &AsyncClient, publish: Publish) {
        let packet = publish.pkid;
        // A retained frame is an old one: it would be classified again at each connect.
        if publish.retain {
            return acknowledge(client, packet);
        }
        if packet > 0 {
            match self.ledger.arrived(packet, publish.dup) {
                Verdict::Take => {}
                Verdict::Wait => return,
                Verdict::Acknowledge => return acknowledge(client, packet),
            }
        }
        let waiting = self.shared.waiting.load(Ordering::Relaxed);
        if packet == 0 && waiting >= usize::from(AHEAD) {
            // Nothing but us bounds frames without acknowledgement.
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        // Who is gone gets it again.
        let _ = self.frames.send(Ok(Delivered { publish, session: self.ledger.session() }));
    }

    fn settle(&mut self, client: &AsyncClient, delivery: Delivery) {
        if self.ledger.settle(delivery) {
            acknowledge(client, delivery.packet);
        }
    }
}

/// Until the disconnect is on the wire, or cannot get there.
async fn disconnected(event_loop: &mut EventLoop) {
    while !matches!(event_loop.poll().await, Ok(Event::Outgoing(rumqttc::Outgoing::Disconnect)) | Err(_)) {}
}

/// Without room or connection the acknowledgement is lost; it is made up for when the frame comes again.
fn acknowledge(client: &AsyncClient, packet: u16) {
    if packet > 0 {
        let publish = Publish { qos: QoS::AtLeastOnce, pkid: packet, ..Publish::default() };
        let _ = client.try_ack(&publish);
    }
}
