use std::path::Path;

use super::*;
use crate::camera::{Colours, Frame, Layout, Picture, RawFormat};

/// How long a test waits for what must come. Never waited out unless the test fails.
const SURELY: Duration = Duration::from_secs(20);
const GREY: RawFormat = RawFormat { layout: Layout::Rgb24, width: 2, height: 1, colours: Colours::Bt601 };

fn options(script: &str, once: bool) -> PipeOptions {
    PipeOptions {
        kind: "pipe",
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
        format: StreamFormat::Raw(GREY),
        once,
        timeout: SURELY,
        limits: FrameLimits { bytes: 1000, pixels: 1000 },
    }
}

fn answer(camera: &mut Pipe) -> Result<Option<Frame>, CameraError> {
    let deadline = Instant::now() + SURELY;
    loop {
        match camera.next(Duration::from_millis(20))? {
            Next::Frame(frame) => return Ok(Some(*frame)),
            Next::End => return Ok(None),
            Next::Idle => assert!(Instant::now() < deadline, "nothing came"),
        }
    }
}

fn lost(camera: &mut Pipe) -> String {
    match answer(camera) {
        Err(CameraError::Source { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

fn bytes(frame: &Frame) -> &[u8] {
    match &frame.picture {
        Picture::Raw(video) => &video.bytes,
        other => panic!("{other:?}"),
    }
}

/// Whether a process is there and not merely waiting to be reaped.
fn lives(pid: &str) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

#[test]
fn frames_come_in_order_and_the_end_is_the_end() {
    let mut camera = Pipe::open(options("printf aaaaaabbbb; sleep 0.05; printf bbcccccc", true)).unwrap();
    for (name, letter) in [("pipe-000000", b'a'), ("pipe-000001", b'b'), ("pipe-000002", b'c')] {
        let frame = answer(&mut camera).unwrap().unwrap();
        assert_eq!((frame.name.as_str(), bytes(&frame)), (name, &[letter; 6][..]));
    }
    assert!(answer(&mut camera).unwrap().is_none());
    assert!(answer(&mut camera).unwrap().is_none());
}

#[test]
fn a_frame_broken_off_is_told_before_the_end() {
    let mut camera = Pipe::open(options("printf aaaaaabb", true)).unwrap();
    answer(&mut camera).unwrap().unwrap();
    let error = answer(&mut camera).unwrap_err().to_string();
    assert_eq!(error, "frame pipe-000001: the stream ended 2 bytes into a frame");
    assert!(answer(&mut camera).unwrap().is_none());
}

#[test]
fn a_command_that_ends_is_lost_with_its_status_and_last_words() {
    let mut camera =
        Pipe::open(options("printf aaaaaa; echo starting >&2; echo no camera >&2; exit 3", false)).unwrap();
    answer(&mut camera).unwrap().unwrap();
    assert_eq!(lost(&mut camera), "the command ended (exit status: 3); it said: no camera");
    // A command that is to run for ever is lost however well it ended.
    assert!(lost(&mut Pipe::open(options("true", false)).unwrap()).contains("exit status: 0"));
    // And so is one to be read once that failed before its first frame.
    assert!(lost(&mut Pipe::open(options("exit 1", true)).unwrap()).contains("exit status: 1"));
    // What has brought frames is not read again.
    let mut camera = Pipe::open(options("printf aaaaaa; exit 1", true)).unwrap();
    answer(&mut camera).unwrap().unwrap();
    assert!(answer(&mut camera).unwrap().is_none());
}

#[test]
fn a_command_without_frames_is_ended() {
    let silent = PipeOptions { timeout: Duration::from_millis(50), ..options("printf aaaaaa; sleep 1000", false) };
    let mut camera = Pipe::open(silent).unwrap();
    answer(&mut camera).unwrap().unwrap();
    assert!(lost(&mut camera).contains("no frame for 0.05 s"));
    // Endless output with no frame in it is no better than silence.
    let noisy = PipeOptions {
        format: StreamFormat::Y4m,
        timeout: Duration::from_millis(50),
        ..options("echo YUV4MPEG2 W2 H2; while :; do echo FRAME; echo; done", false)
    };
    let mut camera = Pipe::open(noisy).unwrap();
    assert!(matches!(answer(&mut camera), Ok(Some(_)) | Err(CameraError::Frame { .. })));
    while !matches!(answer(&mut camera), Err(CameraError::Source { .. })) {}
}

#[test]
fn all_that_the_command_started_goes_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let pid = folder.path().join("pid");
    // Neither listens to a polite request.
    let script = format!(
        "trap '' TERM; sh -c 'trap \"\" TERM; echo $$ > {0}.new; mv {0}.new {0}; while :; do sleep 0.1; done' & \
         printf aaaaaa; while :; do sleep 0.1; done",
        pid.display()
    );
    let mut camera = Pipe::open(options(&script, false)).unwrap();
    answer(&mut camera).unwrap().unwrap();
    let deadline = Instant::now() + SURELY;
    while !pid.exists() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(10));
    }
    let child = std::fs::read_to_string(&pid).unwrap().trim().to_owned();
    assert!(lives(&child));
    let asked = Instant::now();
    drop(camera);
    assert!(asked.elapsed() < Duration::from_secs(2));
    // A killed process may take a moment to go.
    while lives(&child) {
        assert!(Instant::now() < deadline, "{child} lives on");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn much_on_standard_error_does_not_stop_the_frames() {
    let script = "i=0; while [ $i -lt 3000 ]; do echo a line that is told, or counted at least >&2; i=$((i+1)); done; printf aaaaaa";
    let mut camera = Pipe::open(options(script, true)).unwrap();
    answer(&mut camera).unwrap().unwrap();
    assert!(answer(&mut camera).unwrap().is_none());
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let missing = PipeOptions { command: vec!["no-such-camera".to_owned()], ..options("", false) };
    let error = Pipe::open(missing).unwrap_err().to_string();
    assert!(error.starts_with("camera no-such-camera: there is no such program"), "{error}");
    let text = PipeOptions { command: vec!["./Cargo.toml".to_owned()], ..options("", false) };
    assert!(Pipe::open(text).is_err());
}
