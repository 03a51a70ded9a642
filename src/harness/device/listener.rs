//! A subscriber of the device under test: what it publishes, as it comes.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Instant;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{Client, Event, MqttOptions};
use serde_json::Value;

use super::Address;

/// Larger than any message of ours; a configuration may be long.
const MAX_PACKET: u32 = 1 << 20;

/// A message that came.
#[derive(Debug)]
pub(super) struct Message {
    pub topic: String,
    pub payload: Value,
}

enum Incoming {
    Ready,
    Message(Message),
    Lost(String),
}

/// A connection with subscriptions. Dropping it ends it.
pub(super) struct Listener {
    client: Client,
    incoming: Receiver<Incoming>,
    /// Came while a subscription was waited for.
    early: Vec<Message>,
    broker: String,
}

impl Listener {
    /// Starts connecting.
    pub fn connect(address: &Address) -> Self {
        let id = format!("remoteclipd-eval-{}", uuid::Uuid::new_v4());
        let mut options = MqttOptions::new(id, &address.host, address.port);
        options.set_max_packet_size(Some(MAX_PACKET));
        if let Some((user, password)) = &address.login {
            options.set_credentials(user, password);
        }
        let (client, mut connection) = Client::new(options, 16);
        let (sender, incoming) = channel();
        // Ends with the client, or when nobody listens any more.
        thread::spawn(move || {
            for event in connection.iter() {
                let told = match event {
                    Ok(Event::Incoming(Packet::SubAck(_))) => Incoming::Ready,
                    Ok(Event::Incoming(Packet::Publish(publish))) => Incoming::Message(Message {
                        topic: String::from_utf8_lossy(&publish.topic).into_owned(),
                        payload: serde_json::from_slice(&publish.payload).unwrap_or(Value::Null),
                    }),
                    Ok(_) => continue,
                    Err(error) => Incoming::Lost(error.to_string()),
                };
                let lost = matches!(told, Incoming::Lost(_));
                if sender.send(told).is_err() || lost {
                    return;
                }
            }
        });
        let broker = format!("{}:{}", address.host, address.port);
        Self { client, incoming, early: Vec::new(), broker }
    }

    /// Subscribes and waits until the broker has acknowledged it.
    ///
    /// # Errors
    /// That the broker is not to be had.
    pub fn subscribe(&mut self, topics: &[String], deadline: Instant) -> Result<(), String> {
        for topic in topics {
            self.client.subscribe(topic, QoS::AtLeastOnce).map_err(|error| self.lost(&error.to_string()))?;
        }
        let mut ready = 0;
        while ready < topics.len() {
            match self.receive(deadline)? {
                Some(Incoming::Ready) => ready += 1,
                Some(Incoming::Message(message)) => self.early.push(message),
                Some(Incoming::Lost(_)) => {}
                None => return Err(format!("broker {} did not answer", self.broker)),
            }
        }
        Ok(())
    }

    /// The next message, or none when none comes in time.
    ///
    /// # Errors
    /// That the connection was lost.
    pub fn next(&mut self, deadline: Instant) -> Result<Option<Message>, String> {
        if !self.early.is_empty() {
            return Ok(Some(self.early.remove(0)));
        }
        loop {
            match self.receive(deadline)? {
                Some(Incoming::Message(message)) => return Ok(Some(message)),
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }

    /// Why nothing can be sent any more: the thread has said so, if it could.
    fn lost(&self, otherwise: &str) -> String {
        let said = self.incoming.try_iter().find_map(|told| match told {
            Incoming::Lost(reason) => Some(reason),
            _ => None,
        });
        format!("broker {}: {}", self.broker, said.as_deref().unwrap_or(otherwise))
    }

    fn receive(&self, deadline: Instant) -> Result<Option<Incoming>, String> {
        match self.incoming.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Incoming::Lost(reason)) => Err(format!("broker {}: {reason}", self.broker)),
            Ok(told) => Ok(Some(told)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(format!("broker {}: the connection has ended", self.broker)),
        }
    }
}
