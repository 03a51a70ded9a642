//! One HTTP/1.1 GET (RFC 9112) whose answer may have no end.
//!
//! Written here, on `httparse`, because a camera's stream must be left when it falls silent for a while but not because it
//! is long: the clients there are time a whole body or nothing, and let nobody shut the connection from outside. No TLS and
//! no Digest: `camera.video` has both, by ffmpeg.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Longest status line and headers.
const HEAD: u64 = 16 << 10;
/// Longest line that states a chunk's size.
const CHUNK_LINE: u64 = 1024;
const CONNECT: Duration = Duration::from_secs(5);

/// Where to, and as whom.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    host: String,
    port: u16,
    target: String,
    login: Option<(String, String)>,
}

impl Address {
    /// Reads `http://[user[:password]@]host[:port][/path][?query]`.
    ///
    /// # Errors
    /// What is wrong with it, without the password.
    pub fn parse(url: &str) -> Result<Self, String> {
        let rest = url
            .strip_prefix("http://")
            .ok_or("it must begin with http:// (https and RTSP go by camera.video, which runs ffmpeg)")?;
        if rest.contains(|c: char| c.is_control() || c == ' ') {
            return Err("it holds a space or a control character".to_owned());
        }
        let (authority, target) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let target = target.split('#').next().unwrap_or_default();
        let (login, place) = match authority.rsplit_once('@') {
            Some((login, place)) => {
                let (user, password) = login.split_once(':').unwrap_or((login, ""));
                (Some((user.to_owned(), password.to_owned())), place)
            }
            None => (None, authority),
        };
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| format!("its port is \"{port}\""))?)
            }
            _ => (place, 80),
        };
        if host.is_empty() {
            return Err("it names no host".to_owned());
        }
        let slash = if target.starts_with('/') { "" } else { "/" };
        Ok(Self { host: host.to_owned(), port, target: format!("{slash}{target}"), login })
    }

    /// With this user name and password instead of the URL's.
    #[must_use]
    pub fn with_login(self, user: String, password: String) -> Self {
        Self { login: Some((user, password)), ..self }
    }

    /// Host and port, for the log.
    pub fn place(&self) -> String {
        format!("http://{}:{}{}", self.host, self.port, self.target)
    }

    /// Connects. The caller may keep a clone of the connection to shut it.
    pub fn connect(&self) -> io::Result<TcpStream> {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let mut outcome = Err(io::Error::new(io::ErrorKind::NotFound, "the host has no address"));
        for address in (host, self.port).to_socket_addrs()? {
            outcome = TcpStream::connect_timeout(&address, CONNECT);
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    /// Asks for the target and reads the head of the answer.
    ///
    /// # Errors
    /// What happened instead of an answer with a body, and the cure.
    pub fn get(&self, mut stream: TcpStream) -> Result<Answer, String> {
        let login = self.login.as_ref().map(|(user, password)| STANDARD.encode(format!("{user}:{password}")));
        let login = login.map(|login| format!("Authorization: Basic {login}\r\n")).unwrap_or_default();
        let agent = concat!("remoteclipd/", env!("CARGO_PKG_VERSION"));
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}:{}\r\nUser-Agent: {agent}\r\nAccept: */*\r\n{login}Connection: close\r\n\r\n",
            self.target, self.host, self.port
        );
        stream.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
        let mut reader = BufReader::with_capacity(64 << 10, stream);
        let head = read_head(&mut reader)?;
        Answer::new(&head, reader)
    }
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.place())
    }
}

fn read_head(reader: &mut impl BufRead) -> Result<Vec<u8>, String> {
    let mut head = Vec::new();
    let mut reader = reader.take(HEAD);
    while !(head.ends_with(b"\n\r\n") || head.ends_with(b"\n\n")) {
        if reader.read_until(b'\n', &mut head).map_err(|error| error.to_string())? == 0 {
            let length = head.len();
            return Err(format!("the answer ended or went on without end within its head ({length} bytes)"));
        }
    }
    Ok(head)
}

/// The answer to a GET: its kind and its body.
#[derive(Debug)]
pub struct Answer {
    /// `Content-Type` without parameters, in small letters.
    pub media_type: String,
    /// The `boundary` parameter of a multipart answer.
    pub boundary: Option<String>,
    reader: BufReader<TcpStream>,
    framing: Framing,
}

/// How the body's end is told (RFC 9112, section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// So many bytes are left.
    Length(u64),
    /// So many bytes of the chunk are left, then the end of a line and the next one.
    Chunk(u64),
    /// The connection's end.
    Close,
}

impl Answer {
    fn new(head: &[u8], reader: BufReader<TcpStream>) -> Result<Self, String> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut headers);
        response.parse(head).map_err(|error| format!("the answer is not HTTP: {error}"))?;
        let code = response.code.unwrap_or_default();
        let header = |name: &str| {
            let found = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
            found.map(|header| String::from_utf8_lossy(header.value).trim().to_owned())
        };
        match code {
            200 => {}
            401 if header("www-authenticate")
                .is_some_and(|scheme| !scheme.to_ascii_lowercase().starts_with("basic")) =>
            {
                return Err("it asks for a login other than Basic; camera.video knows Digest".to_owned());
            }
            401 | 403 => return Err(format!("it answers {code}: set camera.http.username and password_file")),
            300..=399 => {
                let place = header("location").unwrap_or_else(|| "another place".to_owned());
                return Err(format!("it answers {code} and points to {place}: put that into camera.http.url"));
            }
            _ => return Err(format!("it answers {code} {}", response.reason.unwrap_or_default())),
        }
        let chunked = header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
        let length = header("content-length").and_then(|value| value.parse().ok());
        let framing = match length {
            _ if chunked => Framing::Chunk(0),
            Some(length) => Framing::Length(length),
            None => Framing::Close,
        };
        let kind = header("content-type").unwrap_or_default();
        let media_type = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        Ok(Self { media_type, boundary: boundary(&kind), reader, framing })
    }

    fn next_chunk(&mut self) -> io::Result<u64> {
        let mut line = Vec::new();
        // The end of the chunk before, if there was one, is a line of its own.
        while line.iter().all(u8::is_ascii_whitespace) {
            line.clear();
            if (&mut self.reader).take(CHUNK_LINE).read_until(b'\n', &mut line)? == 0 {
                return Ok(0);
            }
        }
        match httparse::parse_chunk_size(&line) {
            Ok(httparse::Status::Complete((_, size))) => Ok(size),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "a chunk of the answer states no size")),
        }
    }
}

impl Read for Answer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = match self.framing {
            Framing::Close => return self.reader.read(buffer),
            Framing::Chunk(0) => match self.next_chunk()? {
                0 => {
                    self.framing = Framing::Length(0);
                    return Ok(0);
                }
                size => size,
            },
            Framing::Length(left) | Framing::Chunk(left) => left,
        };
        let room = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.reader.read(&mut buffer[..room])?;
        let left = left - count as u64;
        self.framing =
            if matches!(self.framing, Framing::Length(_)) { Framing::Length(left) } else { Framing::Chunk(left) };
        Ok(count)
    }
}

/// The boundary parameter of a content type.
fn boundary(kind: &str) -> Option<String> {
    kind.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("boundary").then(|| value.trim().trim_matches('"').to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let parts = |url: &str| {
            let Address { host, port, target, login } = Address::parse(url).unwrap();
            (host, port, target, login.map(|(user, password)| format!("{user}/{password}")).unwrap_or_default())
        };
        for (url, host, port, target, login) in [
            ("http://cam", "cam", 80, "/", ""),
            ("http://cam:81/video.mjpg?fps=5#x", "cam", 81, "/video.mjpg?fps=5", ""),
            ("http://u:p:@w@10.0.0.2?a@b", "10.0.0.2", 80, "/?a@b", "u/p:@w"),
            ("http://[fd00::1]:8080/a", "[fd00::1]", 8080, "/a", ""),
            ("http://[fd00::1]/a", "[fd00::1]", 80, "/a", ""),
        ] {
            assert_eq!(parts(url), (host.to_owned(), port, target.to_owned(), login.to_owned()), "{url}");
        }
        for (url, named) in [
            ("https://cam", "camera.video"),
            ("http://", "no host"),
            ("http://cam:x/", "port"),
            ("http://cam/a b", "space"),
        ] {
            assert!(Address::parse(url).unwrap_err().contains(named), "{url}");
        }
        assert!(!format!("{:?}", Address::parse("http://u:secret@cam/").unwrap()).contains("secret"));
    }

    #[test]
    fn boundaries_are_found() {
        assert_eq!(boundary("multipart/x-mixed-replace; Boundary=\"--a b\"").as_deref(), Some("--a b"));
        assert_eq!(boundary("multipart/x-mixed-replace;boundary=frame; charset=x").as_deref(), Some("frame"));
        assert_eq!(boundary("image/jpeg"), None);
    }
}
