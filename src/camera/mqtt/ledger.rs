//! Which deliveries of the broker's session are where, so that one that comes again is known.
//!
//! A broker that keeps a session sends what was not acknowledged again on the next connection, under the same packet
//! identifier and marked as a duplicate (MQTT 5, 4.4 and 3.3.1.1). By then the frame may still be held here, or be settled
//! with its acknowledgement lost on the way.

use std::collections::HashSet;

/// One delivery of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Delivery {
    /// Which session, counted here.
    pub session: u64,
    /// The packet identifier within it.
    pub packet: u16,
}

/// What to do with a delivery that has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is new: classify it.
    Take,
    /// It is being classified: it will be acknowledged.
    Wait,
    /// It has been: acknowledge it.
    Acknowledge,
}

/// The deliveries of one session.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    session: u64,
    held: HashSet<u16>,
    settled: HashSet<u16>,
}

impl Ledger {
    /// The broker has accepted a connection. Without the session of the one before, it knows nothing of what is held.
    pub fn connected(&mut self, session_present: bool) {
        if !session_present {
            *self = Self { session: self.session + 1, ..Self::default() };
        }
    }

    /// The session at present.
    pub fn session(&self) -> u64 {
        self.session
    }

    /// Judges a delivery.
    pub fn arrived(&mut self, packet: u16, duplicate: bool) -> Verdict {
        if duplicate && self.settled.contains(&packet) {
            return Verdict::Acknowledge;
        }
        self.settled.remove(&packet);
        if self.held.insert(packet) { Verdict::Take } else { Verdict::Wait }
    }

    /// A frame is done with; true if its acknowledgement is due in this session.
    pub fn settle(&mut self, delivery: Delivery) -> bool {
        let ours = delivery.session == self.session && self.held.remove(&delivery.packet);
        if ours {
            self.settled.insert(delivery.packet);
        }
        ours
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(session: u64, packet: u16) -> Delivery {
        Delivery { session, packet }
    }

    #[test]
    fn what_comes_again_in_a_session_is_taken_once() {
        let mut ledger = Ledger::default();
        ledger.connected(false);
        let session = ledger.session();
        assert_eq!(ledger.arrived(1, false), Verdict::Take);
        assert_eq!(ledger.arrived(2, false), Verdict::Take);
        assert!(ledger.settle(delivery(session, 1)));
        // The connection breaks, and neither acknowledgement has reached the broker.
        ledger.connected(true);
        assert_eq!(ledger.session(), session);
        assert_eq!(ledger.arrived(1, true), Verdict::Acknowledge);
        assert_eq!(ledger.arrived(2, true), Verdict::Wait);
        assert!(ledger.settle(delivery(session, 2)));
        assert!(!ledger.settle(delivery(session, 2)), "once");
        // The broker has the acknowledgements and gives the identifiers to new frames.
        assert_eq!(ledger.arrived(1, false), Verdict::Take);
        assert_eq!(ledger.arrived(2, false), Verdict::Take);
    }

    #[test]
    fn a_new_session_knows_nothing_of_the_old_one() {
        let mut ledger = Ledger::default();
        ledger.connected(false);
        let old = ledger.session();
        assert_eq!(ledger.arrived(1, false), Verdict::Take);
        ledger.connected(false);
        let new = ledger.session();
        assert_eq!(ledger.arrived(1, false), Verdict::Take);
        assert!(!ledger.settle(delivery(old, 1)), "the old one's receipt settles nothing here");
        assert!(ledger.settle(delivery(new, 1)));
    }

    #[test]
    fn a_worker_that_starts_into_its_old_session_takes_what_comes_again() {
        let mut ledger = Ledger::default();
        ledger.connected(true);
        assert_eq!(ledger.arrived(7, true), Verdict::Take);
    }
}
