//! Frames that others publish to an MQTT topic: for ground-station boards. With a shared subscription any number of
//! workers takes each frame once.
//!
//! Promise: a frame published with QoS 1 is acknowledged when its [`Receipt`] is settled, and not before: a worker that is
//! killed gets it again when it comes back (at least once). The session outlives a lost connection, by the broker for
//! `camera.mqtt.session_s` and here in [`ledger`], so a worker that lives takes no frame twice. The broker is asked to
//! send at most [`AHEAD`] frames ahead; one that sends more (mosquitto up to its `max_inflight_messages`) is borne with.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rumqttc::v5::MqttOptions;
use rumqttc::v5::mqttbytes::v5::Publish;
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::{Camera, CameraError, Frame, Next, Picture, Receipt};
use ledger::Delivery;

mod ledger;
mod subscriber;

/// Frames that the broker may send ahead of the one being classified.
pub const AHEAD: u16 = 4;
/// Topic and properties beside a frame's bytes in one packet.
const ENVELOPE: u64 = 4096;
/// The publisher's name for a frame, and when it was taken (RFC 3339): MQTT 5 user properties.
const NAME: &str = "frame";
const CAPTURED_AT: &str = "captured_at";

/// What is subscribed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MqttTopic {
    /// An MQTT topic filter.
    pub topic: String,
    /// The group that shares the frames, if there is one.
    pub group: Option<String>,
    /// How long the broker keeps unacknowledged frames for this worker while it is away.
    pub session: Duration,
    /// Largest frame in bytes.
    pub max_bytes: u64,
}

impl MqttTopic {
    /// The subscription (MQTT 5, 4.8.2).
    fn filter(&self) -> String {
        match &self.group {
            Some(group) => format!("$share/{group}/{}", self.topic),
            None => self.topic.clone(),
        }
    }
}

/// A topic as a source of frames.
pub struct Mqtt {
    broker: MqttOptions,
    topic: MqttTopic,
    running: Option<Running>,
}

struct Running {
    frames: Receiver<Result<Delivered, String>>,
    settled: UnboundedSender<Delivery>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    taken: u64,
}

/// A frame as the broker delivered it.
struct Delivered {
    publish: Publish,
    /// The broker's session that its packet identifier is of.
    session: u64,
}

/// What the thread and its source both look at.
#[derive(Default)]
struct Shared {
    stopping: AtomicBool,
    wake: Notify,
    /// Frames on their way from the thread to the source.
    waiting: AtomicUsize,
    /// Frames without acknowledgement for which there was no room.
    lost: AtomicU64,
}

impl Mqtt {
    /// `broker` is how the broker is spoken to, with the client identifier that this worker's session goes by. It is
    /// connected to when the first frame is asked for.
    pub fn new(mut broker: MqttOptions, topic: MqttTopic) -> Self {
        let largest = u32::try_from(topic.max_bytes.saturating_add(ENVELOPE)).unwrap_or(u32::MAX);
        let session = u32::try_from(topic.session.as_secs()).unwrap_or(u32::MAX);
        broker.set_clean_start(false).set_manual_acks(true).set_session_expiry_interval(Some(session));
        broker.set_receive_maximum(Some(AHEAD)).set_max_packet_size(Some(largest));
        broker.set_outgoing_inflight_upper_limit(AHEAD);
        Self { broker, topic, running: None }
    }

    fn lost(&self, reason: String) -> CameraError {
        let (host, port) = self.broker.broker_address();
        CameraError::Source { place: PathBuf::from(format!("mqtt://{host}:{port}/{}", self.topic.filter())), reason }
    }

    fn start(&self) -> std::io::Result<Running> {
        let (sender, frames) = channel();
        let (settled, settlements) = unbounded_channel();
        let shared = Arc::new(Shared::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let subscriber = subscriber::Subscriber {
            broker: self.broker.clone(),
            filter: self.topic.filter(),
            frames: sender,
            settlements,
            shared: Arc::clone(&shared),
            ledger: ledger::Ledger::default(),
        };
        let run = move || runtime.block_on(subscriber.run());
        let thread = std::thread::Builder::new().name("mqtt-camera".to_owned()).spawn(run)?;
        Ok(Running { frames, settled, shared, thread: Some(thread), taken: 0 })
    }
}

impl Camera for Mqtt {
    fn next(&mut self, patience: Duration) -> Result<Next, CameraError> {
        if self.running.is_none() {
            self.running = Some(self.start().map_err(|error| self.lost(error.to_string()))?);
        }
        let Some(running) = &mut self.running else { return Ok(Next::Idle) };
        let lost = running.shared.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let reason = format!("{lost} frames published with QoS 0 found no room: publish with QoS 1");
            return Err(CameraError::Frame { name: self.topic.topic.clone(), reason });
        }
        match running.frames.recv_timeout(patience) {
            Ok(Ok(delivered)) => {
                running.shared.waiting.fetch_sub(1, Ordering::Relaxed);
                Ok(Next::Frame(Box::new(running.frame(delivered))))
            }
            Ok(Err(reason)) => Err(self.lost(reason)),
            Err(RecvTimeoutError::Timeout) => Ok(Next::Idle),
            Err(RecvTimeoutError::Disconnected) => {
                Err(self.lost("its thread has ended; this is a bug in remoteclipd".to_owned()))
            }
        }
    }
}

impl Running {
    fn frame(&mut self, Delivered { publish, session }: Delivered) -> Frame {
        let property = |name: &str| {
            let all = publish.properties.as_ref()?.user_properties.iter();
            all.rev().find(|(key, _)| key == name).map(|(_, value)| value.clone())
        };
        let name = property(NAME).unwrap_or_else(|| format!("mqtt-{:06}", self.taken));
        self.taken += 1;
        let captured_at = property(CAPTURED_AT).and_then(|time| time.parse().ok()).unwrap_or_else(Timestamp::now);
        let receipt = (publish.pkid > 0).then(|| {
            let delivery = Delivery { session, packet: publish.pkid };
            let settled = self.settled.clone();
            // The camera may be gone by then; the frame comes again in that case.
            Receipt::new(move || {
                let _ = settled.send(delivery);
            })
        });
        let picture = Picture::Encoded(publish.payload.into());
        Frame { picture, name, captured_at, arrived: Instant::now(), media_time: None, receipt }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.wake.notify_one();
        // So that the next one of the same name finds the session free.
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            log::error!("mqtt camera: the thread had failed; this is a bug in remoteclipd");
        }
    }
}
