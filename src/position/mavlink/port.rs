//! The two ways to a flight controller, read and written alike: a UDP port that it sends to, or a serial line.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::termios::{OptionalActions, QueueSelector, tcflush, tcgetattr, tcsetattr};

/// How long a read waits, so that a stop is noticed in time.
const WAIT: Duration = Duration::from_millis(100);

/// Where a flight controller speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// `udp://0.0.0.0:14550`: it sends datagrams to this port.
    Udp(SocketAddr),
    /// `serial:///dev/ttyAMA0:57600`: a serial line at so many baud.
    Serial(PathBuf, u32),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(address) => write!(f, "udp://{address}"),
            Self::Serial(path, baud) => write!(f, "serial://{}:{baud}", path.display()),
        }
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let udp = || text.strip_prefix("udp://")?.parse().ok().map(Self::Udp);
        let serial = || {
            let (path, baud) = text.strip_prefix("serial://")?.rsplit_once(':')?;
            let baud = baud.parse().ok().filter(|baud| *baud > 0)?;
            path.starts_with('/').then(|| Self::Serial(PathBuf::from(path), baud))
        };
        udp().or_else(serial).ok_or_else(|| {
            format!("\"{text}\" must be like udp://0.0.0.0:14550 (address and port to listen on) or serial:///dev/ttyAMA0:57600")
        })
    }
}

/// An endpoint that is open.
pub(super) enum Port {
    Udp { socket: UdpSocket, sender: Option<SocketAddr>, peer: Option<SocketAddr> },
    Serial(File),
}

impl Port {
    /// # Errors
    /// What the system says; a port in use, a device that is not there or may not be used.
    pub fn open(endpoint: &Endpoint) -> io::Result<Self> {
        match endpoint {
            Endpoint::Udp(address) => {
                let socket = UdpSocket::bind(address)?;
                socket.set_read_timeout(Some(WAIT))?;
                Ok(Self::Udp { socket, sender: None, peer: None })
            }
            Endpoint::Serial(path, baud) => open_serial(path, *baud).map(Self::Serial),
        }
    }

    /// Whoever sent the last datagram is our vehicle: answers go there.
    pub fn recognise(&mut self) {
        if let Self::Udp { sender, peer, .. } = self {
            *peer = *sender;
        }
    }
}

fn open_serial(path: &Path, baud: u32) -> io::Result<File> {
    // Without NOCTTY the line would become our terminal, and its hanging up our SIGHUP.
    let flags = OFlags::NOCTTY.bits() as i32;
    let line = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
    let mut modes = tcgetattr(&line)?;
    modes.make_raw();
    modes.set_speed(baud)?;
    tcsetattr(&line, OptionalActions::Now, &modes)?;
    // What waited in the driver is of unknown age.
    tcflush(&line, QueueSelector::IFlush)?;
    Ok(line)
}

impl Read for Port {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Udp { socket, sender, .. } => {
                let (length, from) = socket.recv_from(buffer)?;
                *sender = Some(from);
                // An empty datagram is not the end of anything.
                if length == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(length) }
            }
            Self::Serial(line) => {
                let wait = Timespec::try_from(WAIT).map_err(|_| ErrorKind::InvalidInput)?;
                let mut events = [PollFd::new(line, PollFlags::IN)];
                if poll(&mut events, Some(&wait))? == 0 {
                    return Err(ErrorKind::WouldBlock.into());
                }
                if !events[0].revents().contains(PollFlags::IN) {
                    return Err(ErrorKind::NotConnected.into());
                }
                line.read(buffer)
            }
        }
    }
}

impl Write for Port {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Udp { socket, peer: Some(peer), .. } => socket.send_to(bytes, *peer),
            // Nobody is known yet to whom it could be said.
            Self::Udp { peer: None, .. } => Ok(bytes.len()),
            Self::Serial(line) => line.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_and_others_explained() {
        assert_eq!("udp://0.0.0.0:14550".parse(), Ok(Endpoint::Udp(([0, 0, 0, 0], 14550).into())));
        assert_eq!("udp://[::1]:1".parse(), Ok(Endpoint::Udp("[::1]:1".parse().unwrap())));
        assert_eq!("serial:///dev/ttyAMA0:57600".parse(), Ok(Endpoint::Serial(PathBuf::from("/dev/ttyAMA0"), 57600)));
        for wrong in [
            "",
            "udp://",
            "udp://host",
            "tcp://0.0.0.0:1",
            "serial:///dev/ttyAMA0",
            "serial:///dev/x:0",
            "serial://x:9",
        ] {
            let error = wrong.parse::<Endpoint>().unwrap_err();
            assert!(error.contains("udp://0.0.0.0:14550") && error.contains("57600"), "{error}");
        }
    }
}
