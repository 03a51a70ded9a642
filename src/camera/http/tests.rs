use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

use super::*;
use crate::camera::Frame;

/// How long a test waits for what must come. Never waited out unless the test fails.
const SURELY: Duration = Duration::from_secs(20);
const JPEG: &[u8] = b"\xFF\xD8\xFF\xDA\x00\x03\x00scan\xFF\xD9";

/// A server that answers each connection in turn with these bytes, in pieces of `step`, and then closes, or keeps the last
/// one open if it is to hang. Gives its port and the requests' heads.
fn server(answers: Vec<Vec<u8>>, step: usize, hang: bool) -> (u16, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, requests) = channel();
    thread::spawn(move || {
        let last = answers.len() - 1;
        for (index, answer) in answers.into_iter().enumerate() {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                reader.read_line(&mut head).unwrap();
            }
            sender.send(head).unwrap();
            for part in answer.chunks(step) {
                if stream.write_all(part).is_err() {
                    break;
                }
            }
            if hang && index == last {
                // Until the client shuts it; then say so.
                let _ = reader.read_line(&mut String::new());
                let _ = sender.send("shut".to_owned());
            }
        }
    });
    (port, requests)
}

fn options(port: u16, interval: Option<Duration>) -> HttpOptions {
    HttpOptions {
        address: Address::parse(&format!("http://127.0.0.1:{port}/video?x=1")).unwrap(),
        login: None,
        interval,
        timeout: SURELY,
        limits: FrameLimits { bytes: 1000, pixels: 1000 },
    }
}

fn answer(camera: &mut Http) -> Result<Frame, CameraError> {
    let deadline = Instant::now() + SURELY;
    loop {
        match camera.next(Duration::from_millis(20))? {
            Next::Frame(frame) => return Ok(*frame),
            Next::End => panic!("a network camera has no end"),
            Next::Idle => assert!(Instant::now() < deadline, "nothing came"),
        }
    }
}

fn lost(options: HttpOptions) -> String {
    let mut camera = Http::open(options).unwrap();
    loop {
        match answer(&mut camera) {
            Ok(_) | Err(CameraError::Frame { .. }) => {}
            Err(error @ CameraError::Source { .. }) => return error.to_string(),
        }
    }
}

fn is_jpeg(frame: &Frame) -> bool {
    matches!(&frame.picture, Picture::Encoded(bytes) if bytes == JPEG)
}

fn multipart() -> Vec<u8> {
    let mut stream = b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n".to_vec();
    for length in [format!("Content-Length: {}\r\n", JPEG.len()), String::new()] {
        stream.extend(format!("--frame\r\nContent-Type: image/jpeg\r\n{length}\r\n").as_bytes());
        stream.extend(JPEG);
        stream.extend(b"\r\n");
    }
    stream.extend(b"--frame--\r\n");
    stream
}

#[test]
fn a_stream_gives_its_frames_and_is_lost_when_it_ends() {
    for step in [1, 7, 4096] {
        let (port, requests) = server(vec![multipart()], step, false);
        let mut camera = Http::open(options(port, None)).unwrap();
        for name in ["http-000000", "http-000001"] {
            let frame = answer(&mut camera).unwrap();
            assert!(frame.name == name && is_jpeg(&frame));
        }
        let error = answer(&mut camera).unwrap_err().to_string();
        assert_eq!(error, format!("camera http://127.0.0.1:{port}/video?x=1: the stream has ended"));
        assert!(requests.recv().unwrap().starts_with("GET /video?x=1 HTTP/1.1\r\n"));
    }
}

#[test]
fn a_chunked_stream_of_bare_jpegs_is_read_too() {
    let mut stream = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for part in [JPEG, JPEG].concat().chunks(5) {
        stream.extend(format!("{:x}\r\n", part.len()).as_bytes());
        stream.extend(part);
        stream.extend(b"\r\n");
    }
    stream.extend(b"0\r\n\r\n");
    let (port, _requests) = server(vec![stream], 3, false);
    let mut camera = Http::open(options(port, None)).unwrap();
    for _ in 0..2 {
        assert!(is_jpeg(&answer(&mut camera).unwrap()));
    }
    assert!(answer(&mut camera).unwrap_err().to_string().ends_with("the stream has ended"));
}

#[test]
fn pictures_are_asked_for_again_and_again_with_the_login() {
    let picture = [b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: 13\r\n\r\n", JPEG].concat();
    assert_eq!(JPEG.len(), 13);
    let large = [&b"HTTP/1.1 200 OK\r\n\r\n"[..], &[b'x'; 1001]].concat();
    let (port, requests) = server(vec![picture.clone(), large, picture], 100, false);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "open sesame\nnot this").unwrap();
    let login = Some(("user".to_owned(), file.path().to_owned()));
    let mut camera = Http::open(HttpOptions { login, ..options(port, Some(Duration::from_millis(1))) }).unwrap();
    assert!(is_jpeg(&answer(&mut camera).unwrap()));
    assert!(answer(&mut camera).unwrap_err().to_string().contains("over vision.max_bytes = 1000"));
    assert!(is_jpeg(&answer(&mut camera).unwrap()));
    // base64 of user:open sesame
    assert!(requests.iter().take(3).all(|head| head.contains("Authorization: Basic dXNlcjpvcGVuIHNlc2FtZQ==\r\n")));
}

#[test]
fn a_silent_camera_is_left_and_its_connection_shut() {
    let (port, requests) = server(vec![multipart()[..200].to_vec()], 100, true);
    let error = lost(HttpOptions { timeout: Duration::from_millis(50), ..options(port, None) });
    assert!(error.contains("no frame for 0.05 s"), "{error}");
    assert_eq!(requests.iter().nth(1).unwrap(), "shut");
}

#[test]
fn dropping_the_source_shuts_the_connection() {
    let (port, requests) = server(vec![multipart()], 4096, true);
    let mut camera = Http::open(options(port, None)).unwrap();
    answer(&mut camera).unwrap();
    drop(camera);
    assert_eq!(requests.iter().nth(1).unwrap(), "shut");
}

#[test]
fn an_answer_without_frames_names_the_cure() {
    for (answer, named) in [
        ("HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm=x\r\n\r\n", "password_file"),
        ("HTTP/1.1 401 No\r\nWWW-Authenticate: Digest realm=x\r\n\r\n", "camera.video"),
        ("HTTP/1.1 302 Found\r\nLocation: http://other/\r\n\r\n", "http://other/"),
        ("HTTP/1.1 404 Not Found\r\n\r\n", "404 Not Found"),
        ("HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n\r\n", "camera.http.interval_s"),
        ("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n", "web page"),
        ("HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=--\r\n\r\n", "boundary"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "states no size"),
        ("SSH-2.0-OpenSSH_9.2\r\n\r\n", "not HTTP"),
        ("", "within its head"),
    ] {
        let (port, _requests) = server(vec![answer.as_bytes().to_vec()], 100, false);
        let error = lost(options(port, None));
        assert!(error.contains(named), "{answer}: {error}");
    }
    let endless = [&b"HTTP/1.1 200 OK\r\nX: "[..], &[b'x'; 20_000]].concat();
    let (port, _requests) = server(vec![endless], 1000, false);
    assert!(lost(options(port, None)).contains("within its head"));
}

#[test]
fn a_camera_that_is_away_is_lost_and_a_missing_password_refused_at_once() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert!(lost(options(port, None)).contains("refused"));
    let login = Some(("user".to_owned(), PathBuf::from("no-such-file")));
    let error = Http::open(HttpOptions { login, ..options(port, None) }).unwrap_err().to_string();
    assert!(error.contains("camera.http.password_file"), "{error}");
}
