//! The connection to the broker (MQTT 5), in a thread of its own.
//!
//! - [`Link::publish`] never blocks. Without a link, a [`Urgency::Now`] message is counted and let go, a
//!   [`Urgency::Event`] waits in a bounded queue, and the newest [`Urgency::State`] of each topic is kept.
//! - State is sent again after every connect, so a broker that lost its memory has it back.
//! - The thread alone polls rumqttc, and nothing else is done there: publishing from the polling task can freeze it.
//! - Between two tries to connect it waits longer and longer, up to a bound, with jitter.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rumqttc::Transport;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{LastWill, Packet};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::password::{PasswordError, password};
use super::tls::{TlsError, client_config};
use crate::config::MqttConfig;

/// Requests that may wait inside rumqttc; more than a burst of one frame's events and all retained state.
const REQUESTS: usize = 1024;
/// Events that wait for a link before the oldest is let go.
const WAITING_EVENTS: usize = 4096;
/// First wait after a failed connection; doubles up to the configured bound.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// How long a stop may take to say goodbye.
const GOODBYE: Duration = Duration::from_millis(1200);

/// Something to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where to.
    pub topic: String,
    /// JSON.
    pub payload: Vec<u8>,
    /// What happens to it without a link.
    pub urgency: Urgency,
}

/// What a message means to those who miss it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// Worth something now or never: QoS 0.
    Now,
    /// Must arrive: QoS 1.
    Event,
    /// The newest of its topic counts: QoS 1, retained.
    State,
}

/// Counters since the start.
#[derive(Debug, Clone, Copy, Default)]
pub struct LinkStats {
    /// Times the broker accepted us.
    pub connects: u64,
    /// `Now` messages that found no link.
    pub unsent: u64,
    /// Events that wait.
    pub waiting: u64,
    /// Events lost to a full queue.
    pub lost: u64,
}

/// A running connection. Dropping it without [`Link::stop`] leaves the last will to the broker.
pub struct Link {
    client: AsyncClient,
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    connected: AtomicBool,
    stopping: AtomicBool,
    wake: Notify,
    connects: AtomicU64,
    unsent: AtomicU64,
    queues: Mutex<Queues>,
}

#[derive(Default)]
struct Queues {
    state: BTreeMap<String, Vec<u8>>,
    events: VecDeque<Message>,
    lost: u64,
}

impl Link {
    /// Starts connecting. `will` is what the broker publishes, retained, when we vanish.
    ///
    /// # Errors
    /// [`LinkError`] when password or certificates cannot be read; a broker that is away is not an error.
    pub fn start(config: &MqttConfig, will: Message) -> Result<Self, LinkError> {
        let (client, event_loop) = AsyncClient::new(options(config, will)?, REQUESTS);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(LinkError::Thread)?;
        let shared = Arc::new(Shared::default());
        let poller = Poller {
            event_loop,
            client: client.clone(),
            shared: Arc::clone(&shared),
            broker: format!("{}:{}", config.host, config.port),
            longest_wait: config.reconnect_max,
        };
        let thread = std::thread::Builder::new()
            .name("mqtt".to_owned())
            .spawn(move || runtime.block_on(poller.run()))
            .map_err(LinkError::Thread)?;
        Ok(Self { client, shared, thread })
    }

    /// Hands a message over. Never blocks.
    pub fn publish(&self, message: Message) {
        let connected = self.shared.connected.load(Ordering::Acquire);
        match message.urgency {
            Urgency::Now => {
                if !(connected && send(&self.client, &message)) {
                    self.shared.unsent.fetch_add(1, Ordering::Relaxed);
                }
            }
            Urgency::Event => {
                let mut queues = self.shared.lock();
                queues.events.push_back(message);
                if queues.events.len() > WAITING_EVENTS {
                    queues.events.pop_front();
                    queues.lost += 1;
                }
                if connected {
                    queues.flush_events(&self.client);
                }
            }
            Urgency::State => {
                let mut queues = self.shared.lock();
                queues.state.insert(message.topic.clone(), message.payload.clone());
                if connected && !send(&self.client, &message) {
                    log::debug!("mqtt: {} will be sent at the next connect", message.topic);
                }
            }
        }
    }

    /// Whether the broker has accepted us and the link has not failed since.
    pub fn connected(&self) -> bool {
        self.shared.connected.load(Ordering::Acquire)
    }

    /// Counters since the start.
    pub fn stats(&self) -> LinkStats {
        let queues = self.shared.lock();
        LinkStats {
            connects: self.shared.connects.load(Ordering::Relaxed),
            unsent: self.shared.unsent.load(Ordering::Relaxed),
            waiting: queues.events.len() as u64,
            lost: queues.lost,
        }
    }

    /// Publishes `last`, disconnects cleanly and ends the thread, within about a second.
    pub fn stop(self, last: Message) {
        if self.connected() {
            self.publish(last);
        }
        self.shared.stopping.store(true, Ordering::Release);
        // When the request channel is full the goodbye is lost, and the broker publishes the will instead.
        let _ = self.client.try_disconnect();
        self.shared.wake.notify_one();
        if self.thread.join().is_err() {
            log::error!("mqtt: the connection's thread had failed");
        }
    }
}

impl Shared {
    // A panic elsewhere leaves plain data behind: the lock stays usable.
    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queues {
    fn flush_events(&mut self, client: &AsyncClient) {
        while let Some(event) = self.events.front() {
            if !send(client, event) {
                return;
            }
            self.events.pop_front();
        }
    }

    fn flush_state(&self, client: &AsyncClient) {
        for (topic, payload) in &self.state {
            let message = Message { topic: topic.clone(), payload: payload.clone(), urgency: Urgency::State };
            if !send(client, &message) {
                log::warn!("mqtt: too much retained state at once; {topic} was not sent");
            }
        }
    }
}

/// Hands a message to rumqttc; false when its queue is full.
fn send(client: &AsyncClient, message: &Message) -> bool {
    let (qos, retain) = match message.urgency {
        Urgency::Now => (QoS::AtMostOnce, false),
        Urgency::Event => (QoS::AtLeastOnce, false),
        Urgency::State => (QoS::AtLeastOnce, true),
    };
    client.try_publish(&message.topic, qos, retain, message.payload.clone()).is_ok()
}

fn options(config: &MqttConfig, will: Message) -> Result<MqttOptions, LinkError> {
    let mut options = MqttOptions::new(&config.client_id, &config.host, config.port);
    options.set_keep_alive(config.keep_alive).set_clean_start(true);
    options.set_last_will(LastWill::new(will.topic, will.payload, QoS::AtLeastOnce, true, None));
    if let Some(username) = &config.username {
        let password = password(config.password_file.as_deref())?.unwrap_or_default();
        options.set_credentials(username, password);
    }
    if let Some(tls) = &config.tls {
        let config = client_config(tls.ca_file.as_deref())?;
        options.set_transport(Transport::tls_with_config(rumqttc::TlsConfiguration::Rustls(config)));
    }
    Ok(options)
}

/// The thread's side.
struct Poller {
    event_loop: EventLoop,
    client: AsyncClient,
    shared: Arc<Shared>,
    broker: String,
    longest_wait: Duration,
}

impl Poller {
    async fn run(mut self) {
        let mut wait = FIRST_WAIT;
        let mut reported = false;
        while !self.shared.stopping.load(Ordering::Acquire) {
            let shared = Arc::clone(&self.shared);
            let polled = tokio::select! {
                biased;
                () = shared.wake.notified() => break,
                polled = self.event_loop.poll() => polled,
            };
            match polled {
                Ok(event) => {
                    if self.handle(&event) {
                        (wait, reported) = (FIRST_WAIT, false);
                    }
                }
                Err(error) => {
                    self.report(&error, &mut reported);
                    let jitter = wait.mul_f64(f64::from(uuid::Uuid::new_v4().as_bytes()[0]) / 512.0);
                    let _ = timeout(wait / 2 + jitter, shared.wake.notified()).await;
                    wait = (wait * 2).min(self.longest_wait);
                }
            }
        }
        if self.shared.connected.load(Ordering::Acquire) {
            let _ = timeout(GOODBYE, self.goodbye()).await;
        }
    }

    /// Takes one event; true when it was a successful connect.
    fn handle(&mut self, event: &Event) -> bool {
        let Event::Incoming(packet) = event else { return false };
        match packet {
            Packet::ConnAck(_) => {
                self.shared.connects.fetch_add(1, Ordering::Relaxed);
                log::info!("mqtt: connected to {}", self.broker);
                let mut queues = self.shared.lock();
                self.shared.connected.store(true, Ordering::Release);
                queues.flush_state(&self.client);
                queues.flush_events(&self.client);
                true
            }
            // An acknowledgement made room.
            _ => {
                self.shared.lock().flush_events(&self.client);
                false
            }
        }
    }

    /// Logs a lost or refused connection once, until the next one succeeds.
    fn report(&self, error: &ConnectionError, reported: &mut bool) {
        let was_connected = self.shared.connected.swap(false, Ordering::AcqRel);
        let advice = match error {
            ConnectionError::ConnectionRefused(_) => " (check mqtt.username, the password and the broker's ACL)",
            ConnectionError::Tls(_) => {
                " (check mqtt.tls.ca_file and that mqtt.host is the name in the broker's certificate)"
            }
            _ => "",
        };
        if was_connected || !*reported {
            log::warn!("mqtt: {}: {error}{advice}; classifying goes on, trying again", self.broker);
            *reported = true;
        } else {
            log::debug!("mqtt: {}: {error}", self.broker);
        }
    }

    /// Polls until what was handed over, the disconnect last, has left.
    async fn goodbye(&mut self) {
        loop {
            match self.event_loop.poll().await {
                Ok(Event::Outgoing(rumqttc::Outgoing::Disconnect)) | Err(_) => break,
                Ok(_) => {}
            }
        }
        // The broker closes first, so that no unread byte turns our close into a reset that eats the goodbye.
        let _ = timeout(Duration::from_millis(200), self.event_loop.poll()).await;
    }
}

/// Why a link cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No password.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// No TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No thread.
    #[error("the connection's thread cannot be started: {0}")]
    Thread(std::io::Error),
}
