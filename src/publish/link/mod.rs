//! The connection to the broker (MQTT 5), in a thread of its own.
//!
//! Promise:
//! - [`Link::publish`] never waits for the network. An event is in the [`Spool`] when it returns; without a link a result
//!   is counted and let go, and the newest state of each topic is kept.
//! - What must arrive is sent until the broker acknowledges it: at most [`WINDOW`] messages are under way, and after every
//!   connect all that was not acknowledged is sent again, in order, with `replayed` set. Nothing rests on the broker's
//!   session: with `session_present = 0` rumqttc forgets what was under way, and its MQTT 5 client sends it in the order
//!   of packet numbers, not of time, otherwise. So each connection is a new client, and the spool the only memory.
//! - A connection that is open and dead is left: a ping unanswered, or no acknowledgement for `mqtt.ack_timeout_s`.
//! - Between two tries it waits longer and longer, up to a bound, with jitter; only a connection of use resets that.
//! - No message blocks those behind it: `hold` keeps refused topics back, `suspect` finds messages that end connections.
//!
//! `outbox` chooses what goes next, `budget` how much, `connection` carries it, this file connects again.

mod backoff;
mod budget;
mod connection;
mod hold;
mod message;
mod options;
mod outbox;
mod suspect;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rumqttc::v5::mqttbytes::v5::DisconnectReasonCode;
use rumqttc::v5::{AsyncClient, ConnectionError, MqttOptions, StateError};
use tokio::sync::Notify;
use tokio::time::timeout;

use self::backoff::Backoff;
use self::connection::{Connection, End, Outcome};
use self::outbox::Outbox;
use self::suspect::Suspect;
use super::spool::{Spool, SpoolStats};
use crate::config::MqttConfig;

pub use message::{Message, Urgency, decode_payload};
pub use options::{Credentials, CredentialsError, listener};

/// Messages under way that the broker has not acknowledged.
pub const WINDOW: usize = 64;
/// Messages handed to rumqttc and not yet written.
const HANDED: usize = WINDOW + 32;
/// rumqttc's queue: those, a subscription and a disconnect.
const REQUESTS: usize = HANDED + 8;
/// First wait after a failed connection; doubles up to the configured bound.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// How long a stop may take to send what waits and say goodbye.
const GOODBYE: Duration = Duration::from_millis(1200);
/// A connection that lived so long was of use even if there was nothing to send.
const LIVED: Duration = Duration::from_secs(5);

/// What a link is made of.
pub struct Setup<'a> {
    /// The broker and how to speak to it.
    pub mqtt: &'a MqttConfig,
    /// Password and certificates.
    pub credentials: Credentials,
    /// What the broker publishes, retained, when we vanish.
    pub will: Message,
    /// Where events wait.
    pub spool: Spool,
    /// Results that may wait for a slow link before the oldest is let go.
    pub backlog: usize,
    /// Where commands go, if any are wanted.
    pub inbox: Option<Inbox>,
}

/// What to listen to, and who is told.
pub struct Inbox {
    /// An MQTT topic filter.
    pub filter: String,
    /// Called with what comes, on the link's thread: must not take long.
    pub deliver: Box<dyn Fn(Inbound) + Send + Sync>,
}

/// A message from the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inbound {
    /// Where it was published.
    pub topic: String,
    /// As it came.
    pub payload: Vec<u8>,
}

/// Counters since the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkStats {
    /// Times the broker accepted us.
    pub connects: u64,
    /// Results and figures that found no link, or too slow a one.
    pub unsent: u64,
    /// Results let go to keep the rate or the budget.
    pub thinned: u64,
    /// Topics the broker refuses at present.
    pub refused_topics: usize,
    /// What waits.
    pub spool: SpoolStats,
}

/// A running connection. Dropping it without [`Link::stop`] leaves the last will to the broker.
pub struct Link {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

/// What both sides know.
struct Shared {
    broker: String,
    keep_alive: Duration,
    ack_timeout: Duration,
    goodbye: Duration,
    content_type: Option<String>,
    inbox: Option<Inbox>,
    connected: AtomicBool,
    stopping: AtomicBool,
    wake: Notify,
    connects: AtomicU64,
    outbox: Mutex<Outbox>,
    spool: Spool,
    last: Mutex<Option<Message>>,
}

impl Link {
    /// Starts connecting. A broker that is away is not an error.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn start(setup: Setup<'_>) -> std::io::Result<Self> {
        let Setup { mqtt, credentials, will, spool, backlog, inbox } = setup;
        let options = options::options(mqtt, &credentials, will, inbox.is_some());
        let shared = Arc::new(Shared {
            broker: format!("{}:{}", mqtt.host, mqtt.port),
            keep_alive: mqtt.keep_alive,
            ack_timeout: mqtt.ack_timeout,
            goodbye: GOODBYE,
            content_type: mqtt.encoding.content_type(),
            inbox,
            connected: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            wake: Notify::new(),
            connects: AtomicU64::new(0),
            outbox: Mutex::new(Outbox::new(
                mqtt.encoding,
                backlog,
                mqtt.max_results_per_second,
                mqtt.max_bytes_per_minute,
            )),
            spool,
            last: Mutex::new(None),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let reconnect_max = mqtt.reconnect_max;
        let thread = std::thread::Builder::new().name("mqtt".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || runtime.block_on(keep_connected(&shared, &options, reconnect_max))
        })?;
        Ok(Self { shared, thread })
    }

    /// Hands a message over. Never waits for the network.
    pub fn publish(&self, message: Message) {
        let connected = self.connected();
        self.shared.outbox().put(message, &self.shared.spool, connected);
        self.shared.wake.notify_one();
    }

    /// Whether the broker has accepted us and the link has not failed since.
    pub fn connected(&self) -> bool {
        self.shared.connected.load(Ordering::Acquire)
    }

    /// Whether results published now push no others out.
    pub fn has_room(&self) -> bool {
        self.shared.outbox().has_room()
    }

    /// Counters since the start.
    pub fn stats(&self) -> LinkStats {
        let outbox = self.shared.outbox();
        LinkStats {
            connects: self.shared.connects.load(Ordering::Relaxed),
            unsent: outbox.unsent,
            thinned: outbox.thinned,
            refused_topics: outbox.holds.count(),
            spool: self.shared.spool.stats(),
        }
    }

    /// Sends what waits and then `last`, disconnects cleanly and ends the thread, within about a second. What could not be
    /// sent stays in the spool.
    pub fn stop(self, last: Message) {
        *self.shared.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.wake.notify_one();
        if self.thread.join().is_err() {
            log::error!("mqtt: the connection's thread had failed; this is a bug in remoteclipd");
        }
    }
}

impl Shared {
    // A panic elsewhere leaves plain data behind: the lock stays usable.
    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_last(&self) -> Option<Message> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}

/// Connects, serves and connects again until told to stop.
async fn keep_connected(shared: &Shared, options: &MqttOptions, reconnect_max: Duration) {
    let mut backoff = Backoff::new(FIRST_WAIT, reconnect_max);
    let mut suspect = Suspect::default();
    let mut reported = false;
    while !shared.stopping() {
        let (client, mut event_loop) = AsyncClient::new(options.clone(), REQUESTS);
        let outcome = Connection::new(shared, client, suspect.alone()).run(&mut event_loop).await;
        drop(event_loop);
        shared.connected.store(false, Ordering::Release);
        shared.outbox().end();
        if matches!(outcome.end, End::Stopped) {
            return;
        }
        report(&shared.broker, &outcome, &mut reported);
        if outcome.evidence.progress {
            suspect.clear();
        }
        if suspect.judge(outcome.evidence)
            && let Some(entry) = &outcome.unacknowledged
        {
            log::error!("mqtt: a message for {} is given up: the broker ends the connection upon it", entry.topic);
            shared.spool.refuse(entry, "the broker ends the connection upon it");
        }
        if of_use(&outcome) {
            backoff.reset();
        }
        let wait = backoff.next();
        let over = tokio::time::Instant::now() + wait;
        while !shared.stopping() && tokio::time::Instant::now() < over {
            let _ = timeout(over - tokio::time::Instant::now(), shared.wake.notified()).await;
        }
    }
}

/// Two daemons of one name take each other's session: each connection works, and they must not hurry all the same.
fn of_use(outcome: &Outcome) -> bool {
    let taken_over = matches!(
        &outcome.end,
        End::Lost(ConnectionError::MqttState(StateError::ServerDisconnect {
            reason_code: DisconnectReasonCode::SessionTakenOver,
            ..
        }))
    );
    outcome.accepted && !taken_over && (outcome.evidence.progress || outcome.lived > LIVED)
}

/// Logs a lost or refused connection once, until the next one succeeds.
fn report(broker: &str, outcome: &Outcome, reported: &mut bool) {
    let (what, advice) = match &outcome.end {
        End::Stopped => return,
        End::Silent(what, patience) => (format!("{what} for {} s", patience.as_secs_f64()), ""),
        End::Lost(error) => (error.to_string(), advice(error)),
    };
    if outcome.accepted || !*reported {
        log::warn!("mqtt: {broker}: {what}{advice}; classifying goes on, trying again");
        *reported = true;
    } else {
        log::debug!("mqtt: {broker}: {what}");
    }
}

fn advice(error: &ConnectionError) -> &'static str {
    match error {
        ConnectionError::ConnectionRefused(_) => " (check mqtt.username, the password and the broker's ACL)",
        ConnectionError::Io(_) => " (is a broker there? check mqtt.host and mqtt.port)",
        ConnectionError::Tls(_) => {
            " (check mqtt.tls.ca_file, the client certificate, and that mqtt.host is the name in the broker's certificate)"
        }
        ConnectionError::MqttState(StateError::ServerDisconnect {
            reason_code: DisconnectReasonCode::SessionTakenOver,
            ..
        }) => " (another client uses the same mqtt.client_id)",
        _ => "",
    }
}
