//! A network camera over HTTP: a stream it pushes, or single pictures asked for at an interval.
//!
//! Promise: asking for a frame never waits for the network; a thread does. The connection is made when the first frame is
//! asked for and shut when the source is dropped, and the thread ends with it. A camera that is away, ends its answer or
//! brings no frame for too long is [`CameraError::Source`].

use std::io::Read;
use std::net::{Shutdown, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::stream::{FrameLimits, Multipart, Piece, Splitter, StreamFormat};
use super::{Camera, CameraError, Next, Numbered, Picture};
pub use request::Address;
use request::Answer;

mod request;

/// What one read of the network can give.
const CHUNK: usize = 64 << 10;

/// Which camera, and how it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpOptions {
    /// Where its frames are.
    pub address: Address,
    /// User name and the file whose first line is the password, in place of the URL's.
    pub login: Option<(String, PathBuf)>,
    /// Between two requests for a picture; `None` is a stream.
    pub interval: Option<Duration>,
    /// How long no frame may come, an interval apart.
    pub timeout: Duration,
    /// What a frame may cost.
    pub limits: FrameLimits,
}

/// A network camera as a source of frames.
#[derive(Debug)]
pub struct Http {
    options: HttpOptions,
    numbered: Numbered,
    reader: Option<Reader>,
    waiting_since: Option<Instant>,
}

/// The thread that reads, and what ends it.
#[derive(Debug)]
struct Reader {
    pieces: Receiver<Result<Piece, String>>,
    connection: Arc<Mutex<Option<TcpStream>>>,
    // Never sent to: the thread sees it go.
    alive: Option<Sender<()>>,
}

impl Http {
    /// Reads the password. The camera is connected to when the first frame is asked for: it need not be there yet.
    ///
    /// # Errors
    /// [`CameraError::Source`] if the password cannot be read.
    pub fn open(mut options: HttpOptions) -> Result<Self, CameraError> {
        if let Some((user, file)) = options.login.take() {
            let unusable = |reason: String| CameraError::Source { place: file.clone(), reason };
            let text = std::fs::read_to_string(&file)
                .map_err(|error| unusable(format!("{error}; correct camera.http.password_file")))?;
            let password = text.lines().next().filter(|line| !line.is_empty()).ok_or_else(|| {
                unusable("the file is empty; the first line of camera.http.password_file is the password".to_owned())
            })?;
            options.address = options.address.with_login(user, password.to_owned());
        }
        Ok(Self { options, numbered: Numbered::new("http"), reader: None, waiting_since: None })
    }

    fn lost(&self, reason: String) -> CameraError {
        CameraError::Source { place: PathBuf::from(self.options.address.place()), reason }
    }
}

impl Camera for Http {
    fn next(&mut self, patience: Duration) -> Result<Next, CameraError> {
        if self.reader.is_none() {
            self.reader = Some(Reader::start(&self.options).map_err(|error| self.lost(error.to_string()))?);
        }
        let Some(reader) = &self.reader else { return Ok(Next::Idle) };
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        match reader.pieces.recv_timeout(patience) {
            Ok(Ok(piece)) => {
                if piece.is_ok() {
                    self.waiting_since = None;
                }
                self.numbered.hand_over(piece)
            }
            Ok(Err(reason)) => Err(self.lost(reason)),
            Err(RecvTimeoutError::Timeout) => {
                let allowed = self.options.timeout + self.options.interval.unwrap_or_default();
                if since.elapsed() <= allowed {
                    return Ok(Next::Idle);
                }
                self.reader = None;
                Err(self.lost(format!("no frame for {} s (timeout_s); the connection is shut", allowed.as_secs_f64())))
            }
            Err(RecvTimeoutError::Disconnected) => Err(self.lost("the connection has ended".to_owned())),
        }
    }
}

impl Reader {
    fn start(options: &HttpOptions) -> std::io::Result<Self> {
        let (sender, pieces) = sync_channel(1);
        let (alive, gone) = channel();
        let connection = Arc::new(Mutex::new(None));
        let worker = Worker { options: options.clone(), pieces: sender, gone, connection: Arc::clone(&connection) };
        thread::Builder::new().name("http".to_owned()).spawn(move || worker.run())?;
        Ok(Self { pieces, connection, alive: Some(alive) })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // Before the connection is looked at: the thread leaves it there first and then looks whether we are gone.
        self.alive = None;
        if let Some(connection) = self.connection.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // It may have ended by itself.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

struct Worker {
    options: HttpOptions,
    pieces: SyncSender<Result<Piece, String>>,
    gone: Receiver<()>,
    connection: Arc<Mutex<Option<TcpStream>>>,
}

impl Worker {
    fn run(&self) {
        let outcome = match self.options.interval {
            Some(interval) => self.poll(interval),
            None => self.stream(),
        };
        if let Err(reason) = outcome {
            // Who is gone need not know.
            let _ = self.pieces.send(Err(reason));
        }
    }

    /// Pictures at an interval, until nobody wants them any more.
    fn poll(&self, interval: Duration) -> Result<(), String> {
        let mut due = Instant::now();
        loop {
            let mut answer = self.ask()?;
            let mut bytes = Vec::new();
            let limit = self.options.limits.bytes;
            (&mut answer).take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
            let piece = if bytes.len() as u64 > limit {
                Err(format!("frame is over vision.max_bytes = {limit}"))
            } else {
                Ok(Picture::Encoded(bytes))
            };
            // A camera that is slower than the interval is asked at its own pace.
            due = (due + interval).max(Instant::now());
            if self.pieces.send(Ok(piece)).is_err()
                || self.gone.recv_timeout(due.saturating_duration_since(Instant::now()))
                    == Err(RecvTimeoutError::Disconnected)
            {
                return Ok(());
            }
        }
    }

    /// Frames as they are pushed, until the answer ends.
    fn stream(&self) -> Result<(), String> {
        let mut answer = self.ask()?;
        let mut splitter = self.splitter(&answer)?;
        let mut chunk = vec![0; CHUNK];
        loop {
            let count = answer.read(&mut chunk).map_err(|error| error.to_string())?;
            let mut input = &chunk[..count];
            while let Some(piece) = splitter.take(&mut input) {
                if self.pieces.send(Ok(piece)).is_err() {
                    return Ok(());
                }
            }
            if count == 0 {
                let broken_off = splitter.finish().is_some_and(|piece| self.pieces.send(Ok(piece)).is_err());
                return if broken_off { Ok(()) } else { Err("the stream has ended".to_owned()) };
            }
        }
    }

    fn ask(&self) -> Result<Answer, String> {
        let address = &self.options.address;
        let stream = address.connect().map_err(|error| error.to_string())?;
        let handle = stream.try_clone().map_err(|error| error.to_string())?;
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = Some(handle);
        // Dropped while it connected: whoever would have shut it is gone.
        if self.gone.try_recv() == Err(std::sync::mpsc::TryRecvError::Disconnected) {
            return Err("nobody waits for it any more".to_owned());
        }
        address.get(stream)
    }

    fn splitter(&self, answer: &Answer) -> Result<Splitter, String> {
        let limits = self.options.limits;
        if let Some(boundary) = &answer.boundary {
            let multipart = Multipart::new(boundary, limits.bytes);
            return multipart.map(Splitter::Multipart).ok_or(format!("its boundary \"{boundary}\" cannot be used"));
        }
        match answer.media_type.as_str() {
            "image/jpeg" | "image/png" | "image/tiff" => {
                Err("it answers with a single picture: set camera.http.interval_s to ask for it again and again"
                    .to_owned())
            }
            "text/html" => Err("it answers with a web page: camera.http.url must be that of the stream".to_owned()),
            // Many send JPEGs under any name, with nothing between them.
            _ => Ok(Splitter::new(StreamFormat::Mjpeg, limits)),
        }
    }
}

#[cfg(test)]
mod tests;
