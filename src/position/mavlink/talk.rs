//! The listening thread: opens the port, again if need be, takes messages in and, where that is wanted, speaks.

use std::io::{self, ErrorKind, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use mavlink_core::error::MessageReadError;
use mavlink_core::{MavHeader, MavlinkReader, MavlinkVersion, write_versioned_msg_with_dialect};

use super::Telemetry;
use super::dialect::{Common, Message, NO_AUTOPILOT};
use super::port::Port;

/// A datagram must fit whole beside the rest of a message.
const BUFFER: usize = 1 << 17;
/// How often a computer says that it is there.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Wait before a port is opened again.
const AGAIN: Duration = Duration::from_secs(1);
/// `MAV_COMP_ID_ONBOARD_COMPUTER`.
const ONBOARD_COMPUTER: u8 = 191;

/// Listens until `stop`.
pub(super) fn run(telemetry: &Telemetry, stop: &AtomicBool) {
    let endpoint = &telemetry.options.endpoint;
    let mut told = false;
    while !stop.load(Ordering::Acquire) {
        let lost = match Port::open(endpoint) {
            Ok(port) => {
                log::info!("position: listening to MAVLink at {endpoint}");
                told = false;
                converse(telemetry, port, stop)
            }
            Err(error) => Some(error),
        };
        if let Some(error) = lost.filter(|_| !std::mem::replace(&mut told, true)) {
            log::error!(
                "position.mavlink = \"{endpoint}\": {error}; trying again. Is the port taken, the cable out, or this user not in \
                 group dialout?"
            );
        }
        wait(AGAIN, stop);
    }
}

fn wait(time: Duration, stop: &AtomicBool) {
    let until = Instant::now() + time;
    while Instant::now() < until && !stop.load(Ordering::Acquire) {
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Hears and speaks until a stop, or until the port is lost.
fn converse(telemetry: &Telemetry, port: Port, stop: &AtomicBool) -> Option<io::Error> {
    let mut ear = Ear::new(port);
    let mut voice = Voice::new(telemetry);
    while !stop.load(Ordering::Acquire) {
        match ear.hear(telemetry) {
            Ok(true) => ear.port().recognise(),
            Ok(false) => {}
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
                // Where we last spoke to, nobody listens any more; that is no trouble of our port's.
                ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => {}
                _ => return Some(error),
            },
        }
        if telemetry.options.report {
            voice.speak(telemetry, ear.port());
        }
    }
    None
}

/// Messages out of whatever bytes come.
pub(super) struct Ear<R> {
    reader: MavlinkReader<R>,
    dialect: Common,
    good: u64,
    bad: u64,
}

impl<R: Read> Ear<R> {
    pub fn new(port: R) -> Self {
        Self { reader: MavlinkReader::with_capacity(BUFFER, port), dialect: Common::default(), good: 0, bad: 0 }
    }

    /// Takes in the next message; false when it was not our vehicle's.
    ///
    /// # Errors
    /// When no further message has come yet.
    pub fn hear(&mut self, telemetry: &Telemetry) -> io::Result<bool> {
        let answer = self.reader.read_any_message_with_dialect(&self.dialect);
        telemetry.count(self.dialect.good() - self.good, self.dialect.bad() - self.bad);
        (self.good, self.bad) = (self.dialect.good(), self.dialect.bad());
        match answer {
            Ok((header, message)) => Ok(telemetry.receive(header, &message, Instant::now())),
            Err(MessageReadError::Parse(_)) => Ok(false),
            Err(MessageReadError::Io(error)) => Err(error),
        }
    }

    pub fn port(&mut self) -> &mut R {
        self.reader.get_mut()
    }
}

/// What we say, as component "onboard computer" of the vehicle.
struct Voice {
    dialect: Common,
    header: MavHeader,
    due: Instant,
}

impl Voice {
    fn new(telemetry: &Telemetry) -> Self {
        let header =
            MavHeader { system_id: telemetry.options.system_id.into(), component_id: ONBOARD_COMPUTER, sequence: 0 };
        Self { dialect: Common::default(), header, due: Instant::now() }
    }

    /// Says what is due: the heartbeat and our state once a second, lines at once.
    fn speak(&mut self, telemetry: &Telemetry, port: &mut Port) {
        let now = Instant::now();
        if now >= self.due {
            self.due = now + HEARTBEAT;
            self.send(port, &Message::Heartbeat { autopilot: NO_AUTOPILOT, base_mode: 0 });
            self.send(port, &status(telemetry));
        }
        while let Some(line) = telemetry.next_line() {
            self.send(port, &Message::StatusText(line));
        }
    }

    fn send(&mut self, port: &mut Port, message: &Message) {
        let sent = write_versioned_msg_with_dialect(port, MavlinkVersion::V2, self.header, &self.dialect, message);
        if let Err(error) = sent {
            log::debug!("position: MAVLink message not sent: {error}");
        }
        self.header.sequence = self.header.sequence.wrapping_add(1);
    }
}

fn status(telemetry: &Telemetry) -> Message {
    Message::ComputerStatus {
        unix_us: u64::try_from(Timestamp::now().as_microsecond()).unwrap_or(0),
        uptime_ms: telemetry.started.elapsed().as_millis() as u32,
    }
}
