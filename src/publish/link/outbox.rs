//! What waits for the link, and which of it goes next: state, events, what is worth something now, spooled results.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::budget::{Budget, Need};
use super::hold::Holds;
use super::message::{Message, Urgency, mark_replayed};
use crate::config::Encoding;
use crate::publish::spool::{Class, Entry, Spool};

/// Bytes of a PUBLISH beside topic and payload: fixed header, lengths, packet id, properties.
const OVERHEAD: usize = 12;

/// A message on its way, and what must happen when it has arrived.
#[derive(Debug)]
pub(super) enum Item {
    /// QoS 0.
    Now,
    /// Retained; its topic.
    State(String),
    /// From the spool.
    Spooled(Entry),
}

/// A message ready for the wire.
#[derive(Debug)]
pub(super) struct Parcel {
    pub topic: String,
    pub payload: Vec<u8>,
    pub item: Item,
}

impl Parcel {
    /// Bytes on the wire, as far as MQTT can tell.
    pub fn size(&self) -> usize {
        self.topic.len() + self.payload.len() + OVERHEAD
    }
}

/// What may be sent at this moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// QoS 0 messages may be handed over.
    pub now: bool,
    /// Messages to be acknowledged may be.
    pub acknowledged: bool,
    /// And they may come from the spool.
    pub spooled: bool,
}

pub(super) struct Outbox {
    encoding: Encoding,
    backlog: usize,
    interval: Option<Duration>,
    last_result: Option<Instant>,
    state: BTreeMap<String, Vec<u8>>,
    unsent_state: VecDeque<String>,
    now: VecDeque<Message>,
    pub budget: Budget,
    pub holds: Holds,
    /// Messages let go because there was no link, or too slow a one.
    pub unsent: u64,
    /// Results let go to keep the rate or the budget.
    pub thinned: u64,
}

impl Outbox {
    pub fn new(encoding: Encoding, backlog: usize, max_rate: Option<f64>, budget: Option<u64>) -> Self {
        Self {
            encoding,
            backlog,
            interval: max_rate.map(|rate| Duration::from_secs_f64(1.0 / rate)),
            last_result: None,
            state: BTreeMap::new(),
            unsent_state: VecDeque::new(),
            now: VecDeque::new(),
            budget: Budget::new(budget, Instant::now()),
            holds: Holds::default(),
            unsent: 0,
            thinned: 0,
        }
    }

    /// Takes a message in.
    pub fn put(&mut self, message: Message, spool: &Spool, connected: bool) {
        let Message { topic, payload, urgency } = message;
        match urgency {
            Urgency::Event => spool.put(Class::Event, topic, payload),
            Urgency::State => {
                if self.state.insert(topic.clone(), payload).is_none() || !self.unsent_state.contains(&topic) {
                    self.unsent_state.push_back(topic);
                }
            }
            Urgency::Result if self.too_fast() => self.thinned += 1,
            Urgency::Result if spool.takes_results() => spool.put(Class::Result, topic, payload),
            Urgency::Result | Urgency::Now if connected => {
                self.now.push_back(Message { topic, payload, urgency });
                if self.now.len() > self.backlog {
                    self.now.pop_front();
                    self.unsent += 1;
                }
            }
            Urgency::Result | Urgency::Now => self.unsent += 1,
        }
    }

    fn too_fast(&mut self) -> bool {
        let Some(interval) = self.interval else { return false };
        let now = Instant::now();
        if self.last_result.is_some_and(|last| now.duration_since(last) < interval) {
            return true;
        }
        self.last_result = Some(now);
        false
    }

    /// A new connection: all state goes again, the spool from its first message that is not done.
    pub fn begin(&mut self, spool: &Spool) {
        self.unsent_state = self.state.keys().cloned().collect();
        // Who is there comes before what they say.
        self.unsent_state.make_contiguous().sort_by_key(|topic| !topic.ends_with("/status"));
        spool.rewind();
    }

    /// The connection is gone.
    pub fn end(&mut self) {
        self.unsent += self.now.len() as u64;
        self.now.clear();
    }

    /// Whether results find room without pushing others out.
    pub fn has_room(&self) -> bool {
        self.now.len() < self.backlog / 2
    }

    /// The next message that may go.
    pub fn next(&mut self, spool: &Spool, room: Room) -> Option<Parcel> {
        let now = Instant::now();
        if room.acknowledged
            && let Some(topic) = self.unsent_state.pop_front()
        {
            let payload = self.state.get(&topic).cloned().unwrap_or_default();
            return Some(self.parcel(topic.clone(), payload, Item::State(topic), now));
        }
        if room.spooled
            && self.budget.wait(Need::Event, now).is_zero()
            && let Some(parcel) = self.spooled(spool, Class::Event, now)
        {
            return Some(parcel);
        }
        while room.now
            && let Some(message) = self.now.pop_front()
        {
            let need = if message.urgency == Urgency::Result { Need::Result } else { Need::Always };
            if self.budget.wait(need, now).is_zero() {
                return Some(self.parcel(message.topic, message.payload, Item::Now, now));
            }
            self.thinned += 1;
        }
        if room.spooled && self.budget.wait(Need::Result, now).is_zero() {
            return self.spooled(spool, Class::Result, now);
        }
        None
    }

    fn spooled(&mut self, spool: &Spool, class: Class, now: Instant) -> Option<Parcel> {
        loop {
            let entry = spool.next(class)?;
            if self.holds.holds(&entry.topic) {
                continue; // It stays in the spool and comes again when the topic is released.
            }
            let mut payload = entry.payload.clone();
            if entry.delayed {
                mark_replayed(&mut payload);
            }
            return Some(self.parcel(entry.topic.clone(), payload, Item::Spooled(entry), now));
        }
    }

    fn parcel(&mut self, topic: String, payload: Vec<u8>, item: Item, now: Instant) -> Parcel {
        let parcel = Parcel { topic, payload: self.encoding.encode(payload), item };
        self.budget.spend(parcel.size(), now);
        parcel
    }

    /// When `next` should be asked again although nothing new has come: the budget fills, or a topic is released.
    pub fn wake_in(&mut self, spool: &Spool) -> Option<Duration> {
        let now = Instant::now();
        let held = self.holds.until().map(|until| until.saturating_duration_since(now));
        let stats = (!self.budget.wait(Need::Result, now).is_zero()).then(|| spool.stats());
        let budget = stats.and_then(|stats| match (stats.events, stats.results) {
            (0, 0) => None,
            (0, _) => Some(self.budget.wait(Need::Result, now)),
            _ => Some(self.budget.wait(Need::Event, now)),
        });
        [held, budget].into_iter().flatten().min().map(|wait| wait.max(Duration::from_millis(1)))
    }
}
