//! A TCP relay that cuts, stalls and throttles: the radio between daemon and broker.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// How the link is at the moment.
#[derive(Default)]
struct Weather {
    /// New connections are closed at once.
    down: AtomicBool,
    /// Bytes stay where they are and nobody is told: a half-open connection.
    stalled: AtomicBool,
    /// Milliseconds each piece is held back.
    delay_ms: AtomicU64,
    /// Bytes of a piece; 0 is no limit.
    piece: AtomicUsize,
    over: AtomicBool,
}

pub struct Relay {
    pub port: u16,
    weather: Arc<Weather>,
    sockets: Arc<Mutex<Vec<TcpStream>>>,
}

impl Relay {
    /// Listens on a port of its own and leads to `broker`.
    pub fn start(broker: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let weather = Arc::new(Weather::default());
        let sockets = Arc::new(Mutex::new(Vec::new()));
        let relay = Self { port, weather: Arc::clone(&weather), sockets: Arc::clone(&sockets) };
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if weather.over.load(Ordering::Relaxed) {
                    return;
                }
                if weather.down.load(Ordering::Relaxed) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", broker)) else { continue };
                let mut held = sockets.lock().unwrap();
                for (from, to) in [(&client, &server), (&server, &client)] {
                    held.push(from.try_clone().unwrap());
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let weather = Arc::clone(&weather);
                    thread::spawn(move || carry(from, to, &weather));
                }
            }
        });
        relay
    }

    /// Ends every connection, in the middle of whatever it carries.
    pub fn cut(&self) {
        for socket in self.sockets.lock().unwrap().drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    pub fn set_down(&self, down: bool) {
        self.weather.down.store(down, Ordering::Relaxed);
        if down {
            self.cut();
        }
    }

    pub fn set_stalled(&self, stalled: bool) {
        self.weather.stalled.store(stalled, Ordering::Relaxed);
    }

    pub fn set_pace(&self, delay_ms: u64, piece: usize) {
        self.weather.delay_ms.store(delay_ms, Ordering::Relaxed);
        self.weather.piece.store(piece, Ordering::Relaxed);
    }

    /// Fair weather.
    pub fn heal(&self) {
        self.set_down(false);
        self.set_stalled(false);
        self.set_pace(0, 0);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.weather.over.store(true, Ordering::Relaxed);
        self.weather.stalled.store(false, Ordering::Relaxed);
        self.cut();
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, weather: &Weather) {
    let mut buffer = [0; 4096];
    loop {
        let limit = match weather.piece.load(Ordering::Relaxed) {
            0 => buffer.len(),
            piece => piece.min(buffer.len()),
        };
        let count = match from.read(&mut buffer[..limit]) {
            Ok(0) | Err(_) => break,
            Ok(count) => count,
        };
        while weather.stalled.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(2));
        }
        thread::sleep(Duration::from_millis(weather.delay_ms.load(Ordering::Relaxed)));
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
