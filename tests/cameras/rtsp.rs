//! A real RTSP camera: GStreamer's RTSP server, as Debian has it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use super::examples::flies;
use super::support::{free_port, have, skip};

/// A camera at `rtsp://127.0.0.1:PORT/main.264` that films a test picture.
const SERVER: &str = r#"
import sys, gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
server = GstRtspServer.RTSPServer(address="127.0.0.1", service=sys.argv[1])
factory = GstRtspServer.RTSPMediaFactory(shared=True)
factory.set_launch("( videotestsrc is-live=true ! video/x-raw,format=I420,width=640,height=480,framerate=15/1 ! jpegenc ! rtpjpegpay name=pay0 )")
server.get_mount_points().add_factory("/main.264", factory)
server.attach(None)
print("ready", flush=True)
GLib.MainLoop().run()
"#;

struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start() -> Option<Self> {
        let port = free_port();
        let mut command = Command::new("/usr/bin/python3");
        command.args(["-c", SERVER, &port.to_string()]).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().ok()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let server = Self { child, port };
        if line.trim() == "ready" {
            return Some(server);
        }
        skip("no gir1.2-gst-rtsp-server-1.0 for /usr/bin/python3 (tests/run installs it)");
        None
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn video_rtsp() {
    if !have("ffmpeg") {
        return;
    }
    let Some(server) = Server::start() else { return };
    let url = format!("rtsp://127.0.0.1:{}/main.264", server.port);
    let changes = [("rtsp://192.168.144.25:8554/main.264", url.as_str())];
    flies("video-rtsp.toml", &changes, &[], "video-");
    let udp = format!("{url}\"\ntransport = \"udp");
    flies("video-rtsp.toml", &[(changes[0].0, udp.as_str())], &[], "video-");
}
