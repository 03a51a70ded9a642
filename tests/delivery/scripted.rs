//! A broker that speaks MQTT byte by byte (5, or 3.1.1 where a test compares) and does what a script says, however wrong.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// Reason codes of MQTT 5, 2.4.
pub const SUCCESS: u8 = 0x00;
pub const NOT_AUTHORIZED: u8 = 0x87;
pub const SERVER_UNAVAILABLE: u8 = 0x88;
pub const PACKET_TOO_LARGE: u8 = 0x95;
pub const QUOTA_EXCEEDED: u8 = 0x97;
pub const PAYLOAD_FORMAT_INVALID: u8 = 0x99;

/// Properties of a CONNACK, MQTT 5, 3.2.2.3.
pub const RECEIVE_MAXIMUM_ONE: &[u8] = &[0x21, 0x00, 0x01];
pub fn maximum_packet_size(size: u32) -> Vec<u8> {
    [&[0x27][..], &size.to_be_bytes()].concat()
}

/// What the other side sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    Publish { qos: u8, id: u16, topic: String, payload: Vec<u8>, retain: bool },
    PingReq,
    Disconnect,
    Other(u8),
}

/// One connection, CONNECT already read.
pub struct Peer {
    pub socket: TcpStream,
    /// Counts the connections, from 0.
    pub number: usize,
    version: u8,
}

impl Peer {
    pub fn connack(&mut self, session_present: bool, code: u8, properties: &[u8]) {
        if self.version < 5 {
            return self.raw(&[0x20, 2, u8::from(session_present), code]);
        }
        let mut bytes = vec![0x20, 3 + properties.len() as u8, u8::from(session_present), code, properties.len() as u8];
        bytes.extend_from_slice(properties);
        self.raw(&bytes);
    }

    pub fn puback(&mut self, id: u16, reason: u8) {
        let [high, low] = id.to_be_bytes();
        match reason {
            SUCCESS => self.raw(&[0x40, 2, high, low]),
            reason => self.raw(&[0x40, 4, high, low, reason, 0]),
        }
    }

    pub fn disconnect(&mut self, reason: u8) {
        self.raw(&[0xE0, 2, reason, 0]);
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    pub fn raw(&mut self, bytes: &[u8]) {
        // The other side may be gone; the next read tells.
        let _ = self.socket.write_all(bytes);
    }

    /// The next packet; `None` when the connection has ended. Pings are answered.
    pub fn read(&mut self) -> Option<Packet> {
        loop {
            match self.read_any()? {
                Packet::PingReq => self.raw(&[0xD0, 0]),
                packet => return Some(packet),
            }
        }
    }

    /// The next PUBLISH with QoS 1 that is not retained, everything else taken and acknowledged.
    pub fn event(&mut self) -> Option<(u16, String, Vec<u8>)> {
        loop {
            match self.read()? {
                Packet::Publish { qos: 1, id, topic, payload, retain: false } => return Some((id, topic, payload)),
                Packet::Publish { qos: 1, id, .. } => self.puback(id, SUCCESS),
                Packet::Disconnect => return None,
                _ => {}
            }
        }
    }

    /// Takes and acknowledges everything until the connection ends.
    pub fn serve(&mut self, mut seen: impl FnMut(&str, &[u8])) {
        while let Some((id, topic, payload)) = self.event() {
            seen(&topic, &payload);
            self.puback(id, SUCCESS);
        }
    }

    fn read_any(&mut self) -> Option<Packet> {
        let mut first = [0];
        self.socket.read_exact(&mut first).ok()?;
        let mut length = 0usize;
        for shift in [0, 7, 14, 21] {
            let mut byte = [0];
            self.socket.read_exact(&mut byte).ok()?;
            length |= usize::from(byte[0] & 0x7F) << shift;
            if byte[0] & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.socket.read_exact(&mut body).ok()?;
        Some(match first[0] >> 4 {
            3 => publish(first[0], &body, self.version),
            12 => Packet::PingReq,
            14 => Packet::Disconnect,
            kind => Packet::Other(kind),
        })
    }
}

fn publish(first: u8, body: &[u8], version: u8) -> Packet {
    let topic_len = usize::from(u16::from_be_bytes([body[0], body[1]]));
    let topic = String::from_utf8(body[2..2 + topic_len].to_vec()).unwrap();
    let qos = (first >> 1) & 3;
    let mut at = 2 + topic_len;
    let mut id = 0;
    if qos > 0 {
        id = u16::from_be_bytes([body[at], body[at + 1]]);
        at += 2;
    }
    if version >= 5 {
        // No property of ours takes 128 bytes.
        at += 1 + usize::from(body[at]);
    }
    Packet::Publish { qos, id, topic, payload: body[at..].to_vec(), retain: first & 1 == 1 }
}

/// The broker; each connection is served by the script in a thread of its own.
pub struct Scripted {
    pub port: u16,
    over: Arc<AtomicBool>,
}

impl Scripted {
    pub fn start(script: impl Fn(Peer) + Send + Sync + 'static) -> Self {
        Self::start_version(5, script)
    }

    /// For a client of another version: 4 is 3.1.1.
    pub fn start_version(version: u8, script: impl Fn(Peer) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let over = Arc::new(AtomicBool::new(false));
        let script = Arc::new(script);
        let (count, end) = (Arc::new(AtomicUsize::new(0)), Arc::clone(&over));
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                if end.load(Ordering::Relaxed) {
                    return;
                }
                let script = Arc::clone(&script);
                let count = Arc::clone(&count);
                thread::spawn(move || {
                    let mut peer = Peer { socket, number: 0, version };
                    // A relay or a port probe may leave without a word.
                    if peer.read_any() == Some(Packet::Other(1)) {
                        peer.number = count.fetch_add(1, Ordering::SeqCst);
                        script(peer);
                    }
                });
            }
        });
        Self { port, over }
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}
