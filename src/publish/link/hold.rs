//! Topics the broker does not take messages on for the time being: its ACL refuses them, or a quota is used up.
//!
//! Their messages stay in the spool while those of other topics go on, and are tried again after a wait that doubles: a
//! mistake in the broker's configuration costs time, not events, and no loop.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::publish::spool::Ticket;

const FIRST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(300);
/// A message refused so often for no reason that names it is not tried again.
const TRIES: u32 = 5;

#[derive(Debug)]
struct Hold {
    wait: Duration,
    /// `None` while it is being tried again.
    until: Option<Instant>,
}

#[derive(Debug, Default)]
pub(super) struct Holds {
    topics: BTreeMap<String, Hold>,
    tries: BTreeMap<Ticket, u32>,
}

impl Holds {
    /// The broker refused this topic; true when that is news.
    pub fn hold(&mut self, topic: &str, now: Instant) -> bool {
        let known = self.topics.get_mut(topic);
        match known {
            Some(hold) if hold.until.is_some() => false,
            Some(hold) => {
                hold.wait = (hold.wait * 2).min(LONGEST);
                hold.until = Some(now + hold.wait);
                false
            }
            None => {
                self.topics.insert(topic.to_owned(), Hold { wait: FIRST, until: Some(now + FIRST) });
                true
            }
        }
    }

    /// Counts a refusal that names no cause; true when it was one too many.
    pub fn give_up(&mut self, ticket: Ticket) -> bool {
        let tries = self.tries.entry(ticket).or_default();
        *tries += 1;
        let enough = *tries >= TRIES;
        if enough {
            self.tries.remove(&ticket);
        }
        enough
    }

    /// The broker took a message of this topic; true when the topic is held no more.
    pub fn accepted(&mut self, topic: &str, ticket: Ticket, now: Instant) -> bool {
        self.tries.remove(&ticket);
        match self.topics.get_mut(topic) {
            // It was under way when one before it was refused: that one waits in the spool, behind where reading stands, and
            // would be forgotten there with the hold. It is tried again at once.
            Some(hold) if hold.until.is_some() => {
                hold.until = Some(now);
                false
            }
            Some(_) => self.topics.remove(topic).is_some(),
            None => false,
        }
    }

    pub fn holds(&self, topic: &str) -> bool {
        self.topics.get(topic).is_some_and(|hold| hold.until.is_some())
    }

    /// When the next topic is to be tried again.
    pub fn until(&self) -> Option<Instant> {
        self.topics.values().filter_map(|hold| hold.until).min()
    }

    /// Whether a topic's time has come.
    pub fn due(&self, now: Instant) -> bool {
        self.until().is_some_and(|until| until <= now)
    }

    /// Lets those topics through again.
    pub fn release(&mut self, now: Instant) {
        for hold in self.topics.values_mut() {
            if hold.until.is_some_and(|until| until <= now) {
                hold.until = None;
            }
        }
    }

    /// Topics that are refused.
    pub fn count(&self) -> usize {
        self.topics.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_topic_is_tried_again_later_and_later() {
        let mut holds = Holds::default();
        let mut now = Instant::now();
        assert!(holds.hold("a", now) && !holds.hold("a", now));
        assert!(holds.holds("a") && !holds.holds("b"));
        for wait in [5, 10, 20, 40, 80, 160, 300, 300] {
            now += Duration::from_secs(wait - 1);
            assert!(!holds.due(now), "after {wait} s");
            now += Duration::from_secs(1);
            assert!(holds.due(now));
            holds.release(now);
            assert!(!holds.holds("a") && holds.count() == 1);
            assert!(!holds.hold("a", now), "no news");
        }
    }
}
