//! What a camera may send or do besides pictures: counted by cause, survived, in bounded memory.

use std::io::{Cursor, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use image::{DynamicImage, ImageFormat};

use super::server::{MULTIPART, part, serve};
use super::support::{self, Broker, Daemon, Subscriber, wait_for};
use super::{jpeg, script};

const MAX_BYTES: usize = 1 << 20;
/// One frame being put together, one on its way to the slot, one in it, one being classified, and the decoder's memory.
const BOUND_KIB: u64 = (4 * MAX_BYTES as u64 + (8 << 20)) >> 10;
const LIMITS: &str = "[vision]\nmax_bytes = 1048576\nmax_pixels = 1000000\nmax_memory = 8388608\n";

fn png(image: &DynamicImage) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// A PNG whose header promises 100,000 x 100,000 pixels.
fn bomb() -> Vec<u8> {
    let mut bytes = png(&DynamicImage::new_rgb8(8, 8));
    bytes[16..24].copy_from_slice(&[0, 1, 0x86, 0xa0, 0, 1, 0x86, 0xa0]);
    let sum = crc32fast::hash(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// A JPEG in CMYK, which only Pillow can make here.
fn cmyk() -> Vec<u8> {
    let code = "import sys; from PIL import Image; Image.new('CMYK', (64, 48), (9, 99, 199, 0)).save(sys.stdout.buffer, 'JPEG')";
    let output = Command::new("/usr/bin/python3").args(["-c", code]).output().unwrap();
    assert!(output.status.success(), "python3-pil: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Pictures of every kind that must have a result.
fn good() -> Vec<Vec<u8>> {
    let picture = DynamicImage::new_rgb8(64, 48);
    let mut grey = Cursor::new(Vec::new());
    picture.to_luma8().write_to(&mut grey, ImageFormat::Jpeg).unwrap();
    vec![
        jpeg(100),
        png(&DynamicImage::ImageRgb16(picture.to_rgb16())),
        png(&DynamicImage::ImageRgba8(picture.to_rgba8())),
        png(&DynamicImage::ImageLuma16(picture.to_luma16())),
        grey.into_inner(),
        cmyk(),
    ]
}

fn memory_kib(daemon: &Daemon, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_matches([':', ' ', '\t']).split(' ').next().unwrap().parse().unwrap()
}

/// How far the first scene is: good pictures, broken ones, its end.
static ACT: AtomicUsize = AtomicUsize::new(0);

/// The scenes of the play; a connection each.
fn play(index: usize, stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(MULTIPART)?;
    match index {
        0 => {
            while ACT.load(Ordering::Relaxed) == 0 {
                good().iter().try_for_each(|picture| slowly(stream, picture))?;
            }
            let whole = jpeg(100);
            let large = vec![0; MAX_BYTES + 1];
            while ACT.load(Ordering::Relaxed) == 1 {
                for broken in [&whole[..whole.len() / 3], b"garbage", &bomb(), b"", &[0xFF, 0xD8, 0xFF, 0xD9], &large] {
                    slowly(stream, broken)?;
                }
            }
            Ok(())
            // Then the end.
        }
        1 => {
            // A flood of frames as large as they may be, none of them a picture.
            let frame = vec![b'x'; MAX_BYTES];
            (0..200).try_for_each(|_| part(stream, &frame))
        }
        // A flood without any frame, until the daemon hangs up.
        2 => loop {
            stream.write_all(&[b'x'; 65_536])?;
        },
        3 => {
            // A part without end.
            stream.write_all(b"--frame\r\n\r\n")?;
            loop {
                stream.write_all(&[b'x'; 65_536])?;
            }
        }
        4 => {
            // A hang half-way through a frame, until the daemon hangs up.
            stream.write_all(b"--frame\r\nContent-Length: 5000\r\n\r\nhalf")?;
            let _ = std::io::Read::read(stream, &mut [0; 1]);
            Ok(())
        }
        _ => (0..600).try_for_each(|_| slowly(stream, &jpeg(50))),
    }
}

/// Slow enough for each frame to be classified.
fn slowly(stream: &mut TcpStream, picture: &[u8]) -> std::io::Result<()> {
    part(stream, picture)?;
    std::thread::sleep(Duration::from_millis(200));
    Ok(())
}

#[test]
fn a_network_camera_gone_mad_is_survived_in_bounded_memory() {
    let Some(broker) = Broker::start("") else { return };
    let mut subscriber = Subscriber::new(broker.port);
    let port = serve(play);
    let camera = format!("{LIMITS}[camera.http]\nurl = \"http://127.0.0.1:{port}/\"\ntimeout_s = 3.0\n");
    let mut daemon = Daemon::start(broker.port, &camera);
    subscriber.on("/nadir/result");
    let before = memory_kib(&daemon, "VmHWM");
    // A slow machine lets some go; in the end each kind has had its turn.
    let mut kinds = std::collections::BTreeSet::new();
    while kinds.len() < good().len() {
        let result = subscriber.on("/nadir/result").payload;
        let number: usize = result["frame"].as_str().unwrap().trim_start_matches("http-").parse().unwrap();
        kinds.insert(number % good().len());
    }
    ACT.store(1, Ordering::Relaxed);
    subscriber.next("every cause", |message| {
        let failed = &message.payload["frames_failed"];
        let bomb = failed["too_many_pixels"].as_u64().or(failed["over_memory_limit"].as_u64());
        ["broken_picture", "unknown_format", "unreadable_frame"].iter().all(|cause| failed[cause].is_u64())
            && bomb.is_some()
    });
    ACT.store(2, Ordering::Relaxed);
    // The last scene is reached.
    let health = subscriber.next("the last scene", |message| {
        message.topic.ends_with("/health") && message.payload["frames_failed"]["camera_lost"].as_u64() >= Some(5)
    });
    let failed = &health.payload["frames_failed"];
    assert!(
        failed["unreadable_frame"].as_u64() >= Some(2),
        "over the limit, with and without a stated length: {failed}"
    );
    subscriber.on("/nadir/result");
    let log = daemon.log();
    for named in ["broken_picture", "unknown_format", "unreadable_frame", "the stream has ended"] {
        assert!(log.contains(named), "{named} is not in the log\n{log}");
    }
    let grown = memory_kib(&daemon, "VmHWM") - before;
    println!("at most {before} KiB with a good camera, {grown} more with a bad one; allowed are {BOUND_KIB}");
    assert!(grown <= BOUND_KIB, "{grown} KiB more than with a good camera");
    let asked = Instant::now();
    daemon.signal("TERM");
    assert!(daemon.wait());
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
}

#[test]
fn a_command_gone_mad_is_survived_in_bounded_memory() {
    let Some(broker) = Broker::start("") else { return };
    let mut subscriber = Subscriber::new(broker.port);
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let picture = jpeg(100);
    std::fs::write(file("good.jpg"), &picture).unwrap();
    std::fs::write(file("cut.jpg"), &picture[..picture.len() / 2]).unwrap();
    // A JPEG that says it is 65,535 pixels wide and high.
    let mut huge = picture.clone();
    let sof = huge.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
    huge[sof + 5..sof + 9].copy_from_slice(&[0xFF; 4]);
    std::fs::write(file("huge.jpg"), huge).unwrap();
    // Each life of the command does worse.
    let text = format!(
        "cd {0}\nlife=$(cat life 2>/dev/null || echo 0)\necho $((life + 1)) > life\ncat good.jpg; sleep 0.3\n\
         case $life in\n\
         0) cat cut.jpg good.jpg; for i in 1 2 3 4 5 6 7 8 9 10; do cat huge.jpg; sleep 0.3; done; exit 3;;\n\
         1) yes garbage;;\n\
         2) yes | tr 'y\\n' '\\377\\330';;\n\
         3) cat cut.jpg; yes >&2;;\n\
         4) trap '' TERM; sleep 1000;;\nesac\n\
         while :; do cat good.jpg; sleep 0.2; done",
        folder.path().display()
    );
    script(&folder.path().join("camera"), &text);
    let camera = format!("{LIMITS}[camera.pipe]\ncommand = [{:?}]\ntimeout_s = 3.0\n", file("camera"));
    let mut daemon = Daemon::start(broker.port, &camera);
    subscriber.on("/nadir/result");
    let before = memory_kib(&daemon, "VmHWM");
    wait_for("the last life", || (std::fs::read_to_string(file("life")).unwrap().trim() == "6").then_some(()));
    let failed = support::wait_for("every cause", || {
        let health = subscriber.on("/health").payload;
        let failed = health["frames_failed"].clone();
        (failed["camera_lost"].as_u64()? >= 5).then_some(failed)
    });
    assert!(failed["unreadable_frame"].as_u64().unwrap() > 2, "{failed}");
    assert!(failed["too_many_pixels"].as_u64().or(failed["over_memory_limit"].as_u64()).unwrap() >= 1, "{failed}");
    let grown = memory_kib(&daemon, "VmHWM") - before;
    println!("at most {before} KiB with a good camera, {grown} more with a bad one; allowed are {BOUND_KIB}");
    assert!(grown <= BOUND_KIB, "{grown} KiB more than with a good camera");
    assert!(daemon.log().contains("exit status: 3"), "{}", daemon.log());
    // Frames still come, and a stop is still quick.
    subscriber.on("/nadir/result");
    let asked = Instant::now();
    daemon.signal("TERM");
    assert!(daemon.wait());
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
}
