//! Each file of `config/examples`, with the camera it names replaced by one that is here.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::server::{MULTIPART, part, serve};
use super::support::{self, Broker, Daemon, Subscriber, have};
use super::{ffmpeg, jpeg, script};

/// The example with `changes` made, each of which must have been there to make, at this broker.
pub fn example(name: &str, broker: &Broker, changes: &[(&str, &str)]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples").join(name);
    let mut text = fs::read_to_string(&path).unwrap();
    let address = format!("host = \"127.0.0.1\"\nport = {}", broker.port);
    for (from, to) in changes.iter().copied().chain([("host = \"localhost\"", address.as_str())]) {
        assert!(text.contains(from), "{name} has no {from}");
        text = text.replace(from, to);
    }
    text + "\n[state]\npath = \"{state}\"\n[health]\ninterval_s = 1.0\n"
}

/// Runs an example until three frames named so have a result, and none has failed.
pub fn flies(name: &str, changes: &[(&str, &str)], variables: &[(&str, &str)], frame: &str) {
    assert_eq!(failed(name, changes, variables, frame), serde_json::json!({}), "frames_failed");
}

/// Runs an example until three frames named so have a result. Says how many have failed, by cause.
pub fn failed(name: &str, changes: &[(&str, &str)], variables: &[(&str, &str)], frame: &str) -> serde_json::Value {
    let Some(broker) = Broker::start("") else { return serde_json::json!({}) };
    let mut subscriber = Subscriber::new(broker.port);
    let _daemon = Daemon::start_whole(&example(name, &broker, changes), variables);
    for _ in 0..3 {
        let result = subscriber.on("/nadir/result").payload;
        assert!(result["frame"].as_str().unwrap().starts_with(frame), "{result}");
    }
    let health = subscriber.next("health", |message| {
        message.topic.ends_with("/health") && message.payload["frames"].as_u64().is_some_and(|frames| frames > 2)
    });
    health.payload["frames_failed"].clone()
}

/// `PATH` with a folder before it in which `rpicam-vid` is ffmpeg's test picture, in the form that is asked for.
fn rpicam() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let source = "exec ffmpeg -nostdin -loglevel error -re -f lavfi -i testsrc=rate=10:size";
    let text = format!(
        "echo '[1:02:03] INFO Camera camera_manager.cpp: libcamera' >&2\ncase \"$*\" in\n\
         *'--codec mjpeg '*'--width 1280 --height 720'*) {source}=1280x720 -f mjpeg pipe:1;;\n\
         *'--codec yuv420 '*'--width 640 --height 480'*) {source}=640x480 -pix_fmt yuvj420p -f rawvideo pipe:1;;\nesac\nexit 9"
    );
    script(&folder.path().join("rpicam-vid"), &text);
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    (folder, path)
}

#[test]
fn pipe_rpicam() {
    if have("ffmpeg") {
        let (_folder, path) = rpicam();
        flies("pipe-rpicam.toml", &[], &[("PATH", &path)], "pipe-");
        flies("pipe-rpicam-raw.toml", &[], &[("PATH", &path)], "pipe-");
    }
}

#[test]
fn pipe_v4l2() {
    if have("ffmpeg") {
        let changes = [
            ("\"-f\", \"v4l2\", \"-input_format\", \"mjpeg\",", "\"-re\", \"-f\", \"lavfi\","),
            ("\"-video_size\", \"1280x720\", \"-framerate\", \"15\", ", ""),
            ("\"/dev/video0\", \"-c:v\", \"copy\"", "\"testsrc=size=1280x720:rate=15\", \"-c:v\", \"mjpeg\""),
        ];
        flies("pipe-v4l2.toml", &changes, &[], "pipe-");
    }
}

#[test]
fn pipe_gstreamer() {
    if have("gst-launch-1.0") {
        let changes = [("\"v4l2src\", \"device=/dev/video0\"", "\"videotestsrc\", \"is-live=true\"")];
        flies("pipe-gstreamer.toml", &changes, &[], "pipe-");
    }
}

#[test]
fn http_stream() {
    let port = serve(|_, stream| {
        use std::io::Write;
        stream.write_all(MULTIPART)?;
        (0..=255).try_for_each(|shade| {
            part(stream, &jpeg(shade))?;
            std::thread::sleep(Duration::from_millis(100));
            Ok(())
        })
    });
    let url = format!("http://127.0.0.1:{port}");
    flies("http-stream.toml", &[("http://192.168.1.20:8080", &url)], &[], "http-");
}

#[test]
fn http_snapshot() {
    let port = serve(|index, stream| {
        use std::io::Write;
        let picture = jpeg(index as u8);
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n", picture.len())?;
        stream.write_all(&picture)
    });
    let url = format!("http://127.0.0.1:{port}");
    let changes = [("http://192.168.1.20", url.as_str()), ("interval_s = 2.0", "interval_s = 0.1")];
    flies("http-snapshot.toml", &changes, &[], "http-");
}

#[test]
fn video_file() {
    let Some(broker) = Broker::start("") else { return };
    if !have("ffmpeg") {
        return;
    }
    let Some(ucm) = support::ucm() else { return };
    // A flight of four seconds over known ground, at 25 frames a second, with sound beside it.
    let folder = tempfile::tempdir().unwrap();
    for (index, name) in
        ["forest/forest01", "harbor/harbor05", "parkinglot/parkinglot03", "beach/beach09"].iter().enumerate()
    {
        fs::copy(ucm.path().join(format!("ucm/{name}.jpg")), folder.path().join(format!("{index}.jpg"))).unwrap();
    }
    let (stills, flight) = (folder.path().join("%d.jpg"), folder.path().join("it's a: flight.mp4"));
    let (stills, flight) = (stills.to_str().unwrap(), flight.to_str().unwrap());
    let sound = ["-f", "lavfi", "-i", "sine=duration=4"];
    let picture = ["-vf", "fps=25,format=yuv420p", "-c:v", "libx264", "-crf", "12"];
    ffmpeg(&[&["-framerate", "1", "-i", stills], &sound[..], &picture, &[flight]].concat());

    let mut subscriber = Subscriber::new(broker.port);
    let changes = [("\"flight.mp4\"", format!("{flight:?}"))];
    let changes = changes.each_ref().map(|(from, to)| (*from, to.as_str()));
    let mut daemon = Daemon::start_whole(&example("video-file.toml", &broker, &changes), &[]);
    let labels: Vec<String> = (0..8)
        .map(|_| subscriber.on("/nadir/result").payload)
        .map(|result| format!("{} {}", result["frame"].as_str().unwrap(), result["label"].as_str().unwrap()))
        .collect();
    let places = ["forest", "harbor", "parking lot", "beach"];
    let expected: Vec<String> = (0..8).map(|index| format!("video-{index:06} {}", places[index / 2])).collect();
    assert_eq!(labels, expected);
    assert_eq!(subscriber.status("offline").payload["reason"], "finished");
    assert!(daemon.wait());
}

#[test]
fn folder() {
    let frames = tempfile::tempdir().unwrap();
    let path = frames.path().to_owned();
    std::thread::spawn(move || {
        for shade in 0..=255 {
            let name = path.join(format!("photo-{shade:03}"));
            // The folder goes with the test.
            if fs::write(&name, jpeg(shade)).and_then(|()| fs::rename(&name, name.with_extension("jpg"))).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    flies("folder.toml", &[("/var/lib/remoteclipd/frames", frames.path().to_str().unwrap())], &[], "photo-");
}

/// The rest of the examples are started elsewhere; a new one must be started somewhere.
#[test]
fn every_example_is_started_by_a_test() {
    let sources = ["examples.rs", "rtsp.rs", "v4l2.rs", "workers.rs"]
        .map(|name| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cameras").join(name)).unwrap())
        .concat();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(!name.ends_with(".toml") || sources.contains(&format!("\"{name}\"")), "{name} is started by no test");
    }
}
