//! V4L2 against a device at the boundary to the kernel: no camera and no loopback driver is to be had where tests run.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::examples::{example, flies};
use super::jpeg;
use super::support::{Broker, Daemon, Subscriber, binary, skip};

/// A camera that only programs started with [`Self::variables`] see.
struct Device {
    folder: TempDir,
    variables: Vec<(&'static str, String)>,
}

impl Device {
    /// One that has these formats and this trouble; `None` where no C compiler makes what this machine can load.
    fn new(formats: &str, trouble: &str) -> Option<Self> {
        if std::env::var_os("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER").is_some() {
            skip("a device made by the host's compiler cannot be loaded into an emulated program");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cameras/v4l2_device.c");
        let mut cc = Command::new("cc");
        cc.args(["-Wall", "-Werror", "-shared", "-fPIC", "-o", &path("device.so")]).arg(source);
        assert!(cc.status().unwrap().success(), "cc with Linux's headers (Debian: libc6-dev) makes the device");
        std::fs::write(path("frame.jpg"), jpeg(100)).unwrap();
        let variables = vec![
            ("LD_PRELOAD", path("device.so")),
            ("V4L2_FAKE_DEVICE", path("video0")),
            ("V4L2_FAKE_JPEG", path("frame.jpg")),
            ("V4L2_FAKE_FORMATS", formats.to_owned()),
            ("V4L2_FAKE_TROUBLE", trouble.to_owned()),
        ];
        Some(Self { folder, variables })
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("video0")
    }

    fn variables(&self) -> Vec<(&str, &str)> {
        self.variables.iter().map(|(name, value)| (*name, value.as_str())).collect()
    }

    /// What `check --camera` says of it with these further lines of `[camera.v4l2]`, and whether it is content.
    fn check(&self, lines: &str) -> (bool, String) {
        self.check_at(&self.path(), lines)
    }

    /// The same with another device's node.
    fn check_at(&self, node: &Path, lines: &str) -> (bool, String) {
        let config = self.folder.path().join("config.toml");
        let state = self.folder.path().join("state");
        let text =
            format!("[vehicle]\nid = \"a\"\n[state]\npath = {state:?}\n[camera.v4l2]\ndevice = {node:?}\n{lines}\n");
        std::fs::write(&config, text).unwrap();
        let mut command = binary();
        command.args(["check", "--camera", "--config"]).arg(config).arg("--out").arg(self.folder.path().join("out"));
        let output = command.envs(self.variables()).output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    }
}

#[test]
fn v4l2() {
    if let Some(device) = Device::new("YUYV,MJPG", "") {
        let path = device.path();
        flies("v4l2.toml", &[("/dev/video0", path.to_str().unwrap())], &device.variables(), "v4l2-");
    }
}

#[test]
fn jpegs_are_copied_and_raw_rows_lose_their_padding() {
    let Some(device) = Device::new("MJPG,YUYV", "") else { return };
    let out = |name: &str| device.folder.path().join("out").join(name);
    let (ready, said) = device.check("");
    assert!(ready && said.contains("v4l2-000000, 160 x 120 pixels"), "{said}");
    assert_eq!(std::fs::read(out("frame.jpg")).unwrap(), jpeg(100), "byte for byte");
    let (ready, said) = device.check("format = \"yuyv\"\nwidth = 320\nheight = 240\nframes_per_second = 10");
    assert!(ready && said.contains("v4l2-000000, 64 x 48 pixels"), "{said}");
    let frame = image::open(out("frame.png")).unwrap().into_rgb8();
    let red = |pixel: &image::Rgb<u8>| pixel[0] > 250 && pixel[1] < 5 && pixel[2] < 5;
    assert!(frame.dimensions() == (64, 48) && frame.pixels().all(red), "the padding would be seen as another colour");
}

#[test]
fn what_is_wrong_with_a_device_is_said_with_the_cure() {
    for (formats, trouble, cure) in [
        ("MJPG", "absent", "no such device"),
        ("MJPG", "denied", "add the daemon's user to the group video"),
        ("MJPG", "busy", "another program has it"),
        ("H264,YUYV", "", "it has no MJPG, only H264, YUYV: set camera.v4l2.format"),
        ("", "", "try the other one"),
    ] {
        let Some(device) = Device::new(formats, trouble) else { return };
        let (ready, said) = device.check("");
        assert!(!ready && said.contains(cure), "{formats} {trouble}: {said}");
    }
    let Some(device) = Device::new("MJPG", "") else { return };
    let (ready, said) = device.check_at(Path::new("/dev/null"), "");
    assert!(!ready && said.contains("is no V4L2 device"), "{said}");
}

/// The daemon with a device in trouble, until its health says so; then until more frames came.
fn survives(trouble: &str, cause: &str) {
    let Some(device) = Device::new("MJPG", trouble) else { return };
    let Some(broker) = Broker::start("") else { return };
    let mut subscriber = Subscriber::new(broker.port);
    let path = device.path();
    let place = format!("{}\"\ntimeout_s = 1.0 # \"", path.display());
    let config = example("v4l2.toml", &broker, &[("/dev/video0", &place)]);
    let _daemon = Daemon::start_whole(&config, &device.variables());
    let told = subscriber.next(cause, |message| {
        message.topic.ends_with("/health") && message.payload["frames_failed"][cause].as_u64().is_some_and(|n| n > 0)
    });
    let before = told.payload["frames"].as_u64().unwrap();
    subscriber.next("frames again", |message| {
        message.topic.ends_with("/health")
            && message.payload["frames"].as_u64().is_some_and(|frames| frames > before + 2)
    });
}

#[test]
fn a_device_that_is_unplugged_is_opened_again() {
    survives("unplugged", "camera_lost");
}

#[test]
fn a_device_that_falls_silent_is_opened_again() {
    survives("silent", "camera_lost");
}

#[test]
fn a_damaged_frame_is_counted_and_the_next_one_taken() {
    survives("damaged", "unreadable_frame");
}
