//! The latest-frame slot between the camera's thread and the vision thread.
//!
//! It holds at most one frame. Under [`Policy::Newest`] a frame that comes before the last one was taken replaces it and
//! the loss is counted, so latency and memory stay flat however fast the camera is. Under [`Policy::Every`] the camera
//! waits instead: right for a folder read once, wrong for anything live.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Frame;

/// What happens to a frame that nobody has taken when the next one comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// It is dropped and counted.
    Newest,
    /// The camera waits until it is taken.
    Every,
}

/// A one-frame mailbox.
#[derive(Debug)]
pub struct Slot {
    policy: Policy,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    frame: Option<Box<Frame>>,
    closed: bool,
    dropped: u64,
}

impl Slot {
    /// An empty slot.
    pub fn new(policy: Policy) -> Self {
        Self { policy, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Offers a frame. Under [`Policy::Every`] this blocks until there is room. A closed slot swallows it.
    pub fn put(&self, frame: Box<Frame>) {
        let mut state = self.lock();
        while self.policy == Policy::Every && state.frame.is_some() && !state.closed {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            return;
        }
        if state.frame.replace(frame).is_some() {
            state.dropped += 1;
        }
        self.changed.notify_all();
    }

    /// Takes the frame, waiting at most `patience`. `Err(Closed)` once the slot is closed and empty.
    ///
    /// # Errors
    /// [`Closed`] when no further frame will come.
    pub fn take(&self, patience: Duration) -> Result<Option<Box<Frame>>, Closed> {
        let state = self.lock();
        let (mut state, _) = self
            .changed
            .wait_timeout_while(state, patience, |state| state.frame.is_none() && !state.closed)
            .unwrap_or_else(PoisonError::into_inner);
        match state.frame.take() {
            Some(frame) => {
                self.changed.notify_all();
                Ok(Some(frame))
            }
            None if state.closed => Err(Closed),
            None => Ok(None),
        }
    }

    /// No more frames: what is still inside can be taken, waiting parties wake up.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Frames replaced before anybody took them, since the slot was made.
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    // A panic on the other side leaves plain data behind, never a half-made state: the lock stays usable.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The slot is closed and empty.
#[derive(Debug, PartialEq, Eq)]
pub struct Closed;

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use jiff::Timestamp;

    use super::*;
    use crate::camera::Picture;

    fn frame(name: &str) -> Box<Frame> {
        Box::new(Frame {
            picture: Picture::Encoded(Vec::new()),
            name: name.to_owned(),
            captured_at: Timestamp::UNIX_EPOCH,
            arrived: Instant::now(),
            media_time: None,
            receipt: None,
        })
    }

    fn name(slot: &Slot) -> Option<String> {
        slot.take(Duration::ZERO).ok().flatten().map(|frame| frame.name)
    }

    #[test]
    fn newest_wins_and_the_loss_is_counted() {
        let slot = Slot::new(Policy::Newest);
        for name in ["a", "b", "c"] {
            slot.put(frame(name));
        }
        assert_eq!(name(&slot).as_deref(), Some("c"));
        assert_eq!(name(&slot), None);
        assert_eq!(slot.dropped(), 2);
    }

    #[test]
    fn every_frame_passes_in_order_when_none_may_be_lost() {
        let slot = Arc::new(Slot::new(Policy::Every));
        let camera = std::thread::spawn({
            let slot = Arc::clone(&slot);
            move || {
                (0..100).for_each(|i| slot.put(frame(&i.to_string())));
                slot.close();
            }
        });
        let mut seen = Vec::new();
        while let Ok(taken) = slot.take(Duration::from_secs(5)) {
            seen.extend(taken.map(|frame| frame.name));
        }
        camera.join().unwrap();
        assert_eq!(seen, (0..100).map(|i| i.to_string()).collect::<Vec<_>>());
        assert_eq!(slot.dropped(), 0);
    }

    #[test]
    fn closing_wakes_a_waiting_camera_and_a_waiting_reader() {
        let slot = Arc::new(Slot::new(Policy::Every));
        slot.put(frame("first"));
        let camera = std::thread::spawn({
            let slot = Arc::clone(&slot);
            move || slot.put(frame("second"))
        });
        slot.close();
        camera.join().unwrap();
        assert_eq!(name(&slot).as_deref(), Some("first"));
        assert_eq!(slot.take(Duration::from_secs(5)).unwrap_err(), Closed);
    }
}
