//! The daemon: one thread for the camera, one for vision, deciding and publishing, one for the broker.
//!
//! ```text
//! camera ──▶ slot ──▶ vision ──▶ decide ──▶ publish ──▶ broker
//! ```
//!
//! Promise: SIGTERM and SIGINT end it within two seconds with a clean disconnect; SIGHUP takes a new configuration only
//! when all of it can be used; a broken frame, a lost camera or a lost broker never ends it.

mod clock;
mod closer;
mod commands;
mod manager;
mod metrics;
mod pace;
mod pipeline;
mod report;
mod retask;
mod session;
mod snapshot;
mod vitals;

pub use vitals::resident_memory;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Instant;

use jiff::Timestamp;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::config::Config;

use session::{Control, Ended, Session};
pub use session::{Photograph, PhotographError, PrepareError, Prepared};

/// Who this daemon is, for as long as it runs, whatever configuration it has.
#[derive(Debug)]
struct Identity {
    boot_id: String,
    started_at: Timestamp,
    started: Instant,
    seq: AtomicU64,
}

impl Identity {
    fn new() -> Self {
        Self {
            // Random, so that ids stay unique over boots even on a board without a clock.
            boot_id: uuid::Uuid::new_v4().to_string(),
            started_at: Timestamp::now(),
            started: Instant::now(),
            seq: AtomicU64::new(0),
        }
    }

    fn next_seq(&self) -> u64 {
        self.seq.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// Runs until a signal or the end of a finite source. `path` is where `config` came from, for SIGHUP.
///
/// # Errors
/// [`DaemonError`] when it cannot start; once it runs, trouble is logged and published instead.
pub fn run(config: Config, path: Option<&Path>) -> Result<(), DaemonError> {
    let identity = std::sync::Arc::new(Identity::new());
    let (sender, control) = channel();
    listen_for_signals(sender.clone())?;
    let mut session = Session::start(Prepared::new(config)?, identity.clone(), sender.clone())?;
    let mut watchdog = manager::Watchdog::new();
    manager::ready();
    loop {
        match next(&control, &session, &mut watchdog) {
            Control::Stop => {
                manager::stopping();
                session.stop(Ended::Stopped);
                return Ok(());
            }
            Control::Finished(epoch) if epoch == session.epoch() => {
                log::info!("the camera's last frame is classified");
                manager::stopping();
                session.stop(Ended::Finished);
                return Ok(());
            }
            Control::Finished(_) => {} // of a session that a reload has replaced
            Control::Command(inbound) => session.command(&inbound),
            Control::Reload => session = reload(session, path, &identity, &sender)?,
        }
    }
}

/// Waits for the next thing to do, publishing `health` and feeding the watchdog meanwhile.
fn next(control: &Receiver<Control>, session: &Session, watchdog: &mut manager::Watchdog) -> Control {
    loop {
        let until_health = session.until_health();
        match control.recv_timeout(watchdog.until_due().map_or(until_health, |due| due.min(until_health))) {
            Ok(control) => return control,
            Err(RecvTimeoutError::Timeout) => {
                watchdog.feed(session.pulse());
                if session.until_health().is_zero() {
                    session.publish_health();
                }
            }
            Err(RecvTimeoutError::Disconnected) => return Control::Stop,
        }
    }
}

/// Replaces the session when the new configuration can be used, else keeps it.
fn reload(
    session: Session,
    path: Option<&Path>,
    identity: &std::sync::Arc<Identity>,
    sender: &Sender<Control>,
) -> Result<Session, DaemonError> {
    let Some(path) = path else {
        log::warn!("SIGHUP: there is no config file to read again");
        return Ok(session);
    };
    let prepared = Config::read(path).map_err(PrepareError::from).and_then(Prepared::new);
    match prepared {
        Ok(prepared) => {
            session.stop(Ended::Reloaded);
            let session = Session::start(prepared, identity.clone(), sender.clone())?;
            log::info!("SIGHUP: {} is in use", path.display());
            Ok(session)
        }
        Err(error) => {
            log::error!("SIGHUP: {error}; the old configuration stays in use");
            Ok(session)
        }
    }
}

fn listen_for_signals(sender: Sender<Control>) -> Result<(), DaemonError> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(DaemonError::Signals)?;
    let listen = move || {
        for signal in signals.forever() {
            let control = if signal == SIGHUP { Control::Reload } else { Control::Stop };
            if sender.send(control).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(listen).map_err(DaemonError::Signals)?;
    Ok(())
}

/// Why the daemon cannot run.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration cannot be put to work.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// Signals or a thread cannot be had.
    #[error("cannot listen for signals: {0}")]
    Signals(std::io::Error),
    /// No thread.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}
