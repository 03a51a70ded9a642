//! The few messages of MAVLink's common dialect that we read and write (<https://mavlink.io/en/messages/common.html>). Framing,
//! both versions of it, and checksums are `mavlink-core`'s.

use std::cell::Cell;

use mavlink_core::error::{EncoderError, ParserError};
use mavlink_core::{Dialect, MavlinkVersion};

use super::crc_extra::CRC_EXTRA;

const HEARTBEAT: u32 = 0;
const SYSTEM_TIME: u32 = 2;
const GPS_RAW_INT: u32 = 24;
const ATTITUDE: u32 = 30;
const GLOBAL_POSITION_INT: u32 = 33;
const STATUSTEXT: u32 = 253;
const ONBOARD_COMPUTER_STATUS: u32 = 390;

/// `MAV_TYPE_ONBOARD_CONTROLLER`.
const ONBOARD_CONTROLLER: u8 = 18;
/// `MAV_AUTOPILOT_INVALID`: not a flight controller.
pub(super) const NO_AUTOPILOT: u8 = 8;
/// `MAV_STATE_ACTIVE`.
const ACTIVE: u8 = 4;
/// `MAV_SEVERITY_INFO`.
const INFO: u8 = 6;
/// Characters of a `STATUSTEXT`.
pub(super) const LONGEST_TEXT: usize = 50;

/// A message, in MAVLink's units.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// Who is there, and in which state.
    Heartbeat {
        /// `MAV_AUTOPILOT`.
        autopilot: u8,
        /// `MAV_MODE_FLAG`.
        base_mode: u8,
    },
    /// The sender's clocks.
    SystemTime {
        /// Microseconds since 1970, 0 when not known.
        unix_us: u64,
        /// Milliseconds since boot.
        boot_ms: u32,
    },
    /// The receiver's own fix.
    GpsRaw {
        /// `GPS_FIX_TYPE`.
        fix_type: u8,
        /// Horizontal uncertainty in millimetres; 0 when not stated.
        accuracy_mm: u32,
    },
    /// How the airframe lies, in radians.
    Attitude {
        /// Milliseconds since boot.
        boot_ms: u32,
        /// Roll, pitch, yaw.
        angles: [f32; 3],
    },
    /// Where the vehicle is, by the flight controller's estimate.
    GlobalPosition {
        /// Milliseconds since boot.
        boot_ms: u32,
        /// Degrees times 10⁷.
        longitude: i32,
        /// Degrees times 10⁷.
        latitude: i32,
        /// Millimetres above mean sea level.
        altitude: i32,
        /// Millimetres above take-off.
        height: i32,
    },
    /// A line for the operator. Only sent.
    StatusText(String),
    /// How this computer does. Only sent.
    ComputerStatus {
        /// Microseconds since 1970.
        unix_us: u64,
        /// Milliseconds since our start.
        uptime_ms: u32,
    },
    /// One that we don't read.
    Other,
}

/// The dialect, which also counts: the reader asks for the checksum's extra byte of each frame it finds and then has only the
/// good ones decoded.
#[derive(Debug, Default)]
pub(super) struct Common {
    found: Cell<u64>,
    decoded: Cell<u64>,
}

impl Common {
    /// Messages with a good checksum.
    pub fn good(&self) -> u64 {
        self.decoded.get()
    }

    /// Frames of a message known to MAVLink whose checksum is bad.
    pub fn bad(&self) -> u64 {
        self.found.get() - self.decoded.get()
    }
}

impl Dialect for Common {
    type Message = Message;
    type EncodeError = EncoderError;

    fn message_id(&self, message: &Message) -> u32 {
        match message {
            Message::Heartbeat { .. } => HEARTBEAT,
            Message::SystemTime { .. } => SYSTEM_TIME,
            Message::GpsRaw { .. } => GPS_RAW_INT,
            Message::Attitude { .. } => ATTITUDE,
            Message::GlobalPosition { .. } => GLOBAL_POSITION_INT,
            Message::StatusText(_) => STATUSTEXT,
            Message::ComputerStatus { .. } => ONBOARD_COMPUTER_STATUS,
            Message::Other => u32::MAX,
        }
    }

    fn extra_crc(&self, id: u32) -> Option<u8> {
        let at = CRC_EXTRA.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.found.set(self.found.get() + 1);
        Some(CRC_EXTRA[at].1)
    }

    fn decode(&self, _: MavlinkVersion, id: u32, payload: &[u8]) -> Result<Message, ParserError> {
        self.decoded.set(self.decoded.get() + 1);
        let fields = Fields::of(payload);
        Ok(match id {
            HEARTBEAT => Message::Heartbeat { autopilot: fields.u8(5), base_mode: fields.u8(6) },
            SYSTEM_TIME => Message::SystemTime { unix_us: fields.u64(0), boot_ms: fields.u32(8) },
            GPS_RAW_INT => Message::GpsRaw { fix_type: fields.u8(28), accuracy_mm: fields.u32(34) },
            ATTITUDE => Message::Attitude {
                boot_ms: fields.u32(0),
                angles: [4, 8, 12].map(|at| f32::from_bits(fields.u32(at))),
            },
            GLOBAL_POSITION_INT => Message::GlobalPosition {
                boot_ms: fields.u32(0),
                latitude: fields.i32(4),
                longitude: fields.i32(8),
                altitude: fields.i32(12),
                height: fields.i32(16),
            },
            _ => Message::Other,
        })
    }

    fn encode(&self, _: MavlinkVersion, message: &Message, payload: &mut [u8]) -> Result<usize, EncoderError> {
        let fields = match message {
            Message::Heartbeat { autopilot, base_mode } => heartbeat(*autopilot, *base_mode),
            Message::StatusText(text) => status_text(text),
            Message::ComputerStatus { unix_us, uptime_ms } => computer_status(*unix_us, *uptime_ms),
            read_only => return Err(EncoderError::UnknownMessage { id: self.message_id(read_only) }),
        };
        // MAVLink 2 leaves zeros at the end out; mavlink-core expects that done, but for the first byte.
        let length = fields.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1);
        payload[..length].copy_from_slice(&fields[..length]);
        Ok(length)
    }
}

fn heartbeat(autopilot: u8, base_mode: u8) -> Vec<u8> {
    let custom_mode = [0; 4];
    [&custom_mode[..], &[ONBOARD_CONTROLLER, autopilot, base_mode, ACTIVE, 3]].concat()
}

fn status_text(text: &str) -> Vec<u8> {
    let mut fields = vec![INFO];
    fields.extend(
        text.chars().map(|letter| if letter.is_ascii_graphic() || letter == ' ' { letter as u8 } else { b'?' }),
    );
    fields.resize(1 + LONGEST_TEXT, 0);
    fields
}

/// Everything that we don't know carries the largest value of its type, which is MAVLink's "not known".
fn computer_status(unix_us: u64, uptime_ms: u32) -> Vec<u8> {
    let mut fields = unix_us.to_le_bytes().to_vec();
    fields.extend(uptime_ms.to_le_bytes());
    fields.extend([0xFF; 8 + 4 * 12 + 4 * 30]); // memory, storage, links: 32-bit
    fields.extend([i16::MAX.to_le_bytes(); 4].concat()); // fans
    fields.push(0); // MAV_TYPE of the computer: generic
    fields.extend([0xFF; 8 + 10 + 4 + 10]); // load of CPU and GPU
    fields.extend([0x7F; 9]); // temperatures of the board and the cores
    fields
}

/// A payload, little-endian, with the zeros that MAVLink 2 leaves out at its end and the extension fields that MAVLink 1 hasn't.
struct Fields([u8; 255]);

impl Fields {
    fn of(payload: &[u8]) -> Self {
        let mut whole = [0; 255];
        whole.iter_mut().zip(payload).for_each(|(to, from)| *to = *from);
        Self(whole)
    }

    fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        std::array::from_fn(|byte| self.0[at + byte])
    }

    fn u8(&self, at: usize) -> u8 {
        self.0[at]
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes(at))
    }

    fn i32(&self, at: usize) -> i32 {
        i32::from_le_bytes(self.bytes(at))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.bytes(at))
    }
}
