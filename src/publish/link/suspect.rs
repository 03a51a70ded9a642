//! Messages upon which the broker ends the connection instead of refusing them.
//!
//! Such a message, first in the queue, would end every connection. A link that is cut again and again looks the same, and
//! there nothing may be given up. So: a message is suspected when the connection ended with it unacknowledged although
//! the broker had acknowledged something else on that very connection. A broker that closes at once can take that
//! acknowledgement with it, so after two ends, suspected or not, messages are sent alone: all else is acknowledged before
//! one is sent. It is given up when the broker has named a cause that lies in the message [`NAMED`] times, or when it is
//! suspected of the end of [`ALONE`] connections.

use crate::publish::spool::Ticket;

/// Ends with a cause that lies in a message.
const NAMED: u32 = 3;
/// Ends without.
const ALONE: u32 = 8;

/// How a connection ended, as far as a message may have caused it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Evidence {
    /// The first spooled message that was sent and not acknowledged.
    pub unacknowledged: Option<Ticket>,
    /// The broker acknowledged something else.
    pub healthy: bool,
    /// The broker acknowledged a spooled message.
    pub progress: bool,
    /// The broker said goodbye with a cause that lies in a message.
    pub named: bool,
}

#[derive(Debug, Default)]
pub(super) struct Suspect {
    ticket: Option<Ticket>,
    /// Ends with it unacknowledged, whatever the cause.
    ends: u32,
    /// Of these, those that it is suspected of.
    suspected: u32,
    named: u32,
}

impl Suspect {
    /// Takes a connection's end into account; true when the unacknowledged message is to be given up.
    pub fn judge(&mut self, evidence: Evidence) -> bool {
        let Some(ticket) = evidence.unacknowledged else { return false };
        if evidence.progress || self.ticket != Some(ticket) {
            *self = Self { ticket: Some(ticket), ..Self::default() };
        }
        self.ends += 1;
        self.suspected += u32::from(evidence.healthy || evidence.named);
        self.named += u32::from(evidence.named);
        let guilty = self.named >= NAMED || self.suspected >= ALONE;
        if guilty {
            *self = Self::default();
        }
        guilty
    }

    /// Whether messages are to be sent one at a time.
    pub fn alone(&self) -> bool {
        self.ends >= 2
    }

    /// A spooled message was acknowledged: whatever it was, it is over.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SpoolConfig;
    use crate::publish::spool::{Class, Spool};

    fn ticket() -> Ticket {
        let spool = Spool::open(&SpoolConfig::memory()).unwrap();
        spool.put(Class::Event, "t".to_owned(), b"{}".to_vec());
        spool.next(Class::Event).unwrap().ticket
    }

    fn evidence() -> Evidence {
        Evidence { unacknowledged: Some(ticket()), healthy: true, progress: false, named: false }
    }

    #[test]
    fn a_named_cause_is_believed_soon_and_mere_ends_late() {
        let mut suspect = Suspect::default();
        let named = Evidence { named: true, ..evidence() };
        assert_eq!((0..3).map(|_| suspect.judge(named)).collect::<Vec<_>>(), [false, false, true]);
        assert_eq!((0..8).filter(|_| suspect.judge(evidence())).count(), 1);
        assert!(!suspect.alone());
    }

    #[test]
    fn a_link_that_is_cut_accuses_nobody() {
        let mut suspect = Suspect::default();
        for _ in 0..100 {
            assert!(!suspect.judge(Evidence { healthy: false, ..evidence() }), "nothing was acknowledged");
            assert!(!suspect.judge(Evidence { progress: true, ..evidence() }), "others got through");
            assert!(!suspect.judge(Evidence { unacknowledged: None, ..evidence() }));
        }
    }
}
