//! A network camera: answers each connection in turn with what a test wrote for it.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

/// Serves every connection by `answer`, which is given its number; gives the port.
pub fn serve(answer: impl Fn(usize, &mut TcpStream) -> std::io::Result<()> + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for (index, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|count| count > 2) {
                line.clear();
            }
            // The daemon may hang up at any time.
            let _ = answer(index, &mut stream);
        }
    });
    port
}

/// The head of a multipart answer.
pub const MULTIPART: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\nConnection: close\r\n\r\n";

/// One part of it.
pub fn part(stream: &mut TcpStream, picture: &[u8]) -> std::io::Result<()> {
    write!(stream, "--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n", picture.len())?;
    stream.write_all(picture)?;
    stream.write_all(b"\r\n")
}
