//! What a configuration file may say, and how each mistake is told.

use std::path::Path;

use super::Config;

const SMALLEST: &str = "[vehicle]\nid = \"uav-1\"\n[camera.simulated]\n";

#[test]
fn the_smallest_config_has_sane_defaults() {
    let config = Config::parse(SMALLEST).unwrap();
    assert_eq!(config.mqtt.client_id, "remoteclipd-uav-1");
    assert_eq!((config.mqtt.port, config.top_k), (1883, 5));
    assert_eq!(config.published["mqtt"]["host"], "localhost");
}

#[test]
fn the_shipped_example_is_valid() {
    Config::read(Path::new("config/remoteclipd.toml")).unwrap();
}

#[test]
fn tls_changes_the_default_port() {
    let config = Config::parse(&format!("{SMALLEST}[mqtt.tls]\nca_file = \"ca.pem\"")).unwrap();
    assert_eq!(config.mqtt.port, 8883);
}

#[test]
fn each_mistake_names_its_field() {
    for (lines, named) in [
        ("[mqtt]\nhots = \"x\"", "hots"),
        ("[mqtt]\nroot = \"a/#\"", "mqtt.root"),
        ("[mqtt]\nport = 70000", "port"),
        ("[mqtt]\nkeep_alive_s = 1", "mqtt.keep_alive_s"),
        ("[mqtt]\nack_timeout_s = 0", "mqtt.ack_timeout_s"),
        ("[mqtt]\npayload = \"xml\"", "payload"),
        ("[mqtt]\nmax_results_per_second = 0.0", "mqtt.max_results_per_second"),
        ("[mqtt]\nmax_bytes_per_minute = 10", "mqtt.max_bytes_per_minute"),
        ("[mqtt.tls]\ncert_file = \"c\"", "mqtt.tls.key_file"),
        ("[mqtt.tls]\nkey_file = \"k\"", "mqtt.tls.cert_file"),
        ("[tags]\nconsensus = [3, 2]", "tags.consensus"),
        ("[tags]\nmargin = 2.0", "tags.margin"),
        ("[commands]\npublic_key = \"RWx\"", "commands.public_key"),
        ("[tags]\ncooldown_s = -1.0", "tags.cooldown_s"),
        ("[tags.label.\"parking lot\"]\nthreshold = 1.5", "parking lot"),
        ("[spool]\nmax_bytes = 10", "spool.max_bytes"),
        ("[spool]\nmax_age_s = 0", "spool.max_age_s"),
        ("[mqtt]\npassword_file = \"p\"", "mqtt.username"),
        ("[vision]\nthreads = 0", "vision.threads"),
        ("[vision]\nmax_pixels = 0", "vision.max_pixels"),
        ("[vision.similar]\nthreshold = 0.0", "vision.similar.threshold"),
        ("[vision.similar]\nat_most_s = 0.0", "vision.similar.at_most_s"),
        ("[pace]\nframes_per_second = 0.0", "pace.frames_per_second"),
        ("[pace]\nduty_cycle = 1.5", "pace.duty_cycle"),
        ("[pace]\nmax_temperature_c = 200.0", "pace.max_temperature_c"),
        ("[vision.tiles]", "one of grid = [columns, rows], size"),
        ("[vision.tiles]\ngrid = [2, 2]\nsize = 500", "one of grid = [columns, rows], size"),
        ("[vision.tiles]\ngsd_m = 0.1", "camera.horizontal_fov_deg"),
        ("[vision.tiles]\ngsd_m = 0.0", "vision.tiles.gsd_m"),
        ("[vision.tiles]\ngrid = [1, 1]", "vision.tiles.grid"),
        ("[vision.tiles]\ngrid = [5, 4]", "vision.tiles.max_tiles"),
        ("[vision.tiles]\nsize = 3", "vision.tiles.size"),
        ("[vision.tiles]\nsize = 300\nmax_tiles = 65", "vision.tiles.max_tiles"),
        ("[vision.tiles]\ngrid = [2, 2]\noverlap = 0.6", "vision.tiles.overlap"),
        ("[vision.tiles]\ngrid = [2, 2]\naggregate = \"top_k\"", "vision.tiles.k"),
        ("[vision.tiles]\ngrid = [2, 2]\nk = 2", "vision.tiles.k"),
        ("[vision.tiles]\ngrid = [2, 2]\naggregate = \"sum\"", "sum"),
        ("[decide]\ntop_k = 0", "decide.top_k"),
        ("[health]\ninterval_s = 0.1", "health.interval_s"),
        ("[camera.folder]\npath = \"x\"", "exclude each other"),
        ("[position]\nmavlink = \"tcp://0.0.0.0:1\"", "position.mavlink"),
        ("[position]\nmavlink = \"udp://0.0.0.0:1\"\nsystem_id = 0", "position.system_id"),
        ("[position]\nmavlink = \"udp://0.0.0.0:1\"\nmount_pitch_deg = 181.0", "position.mount_pitch_deg"),
        ("[position]\nmax_age_s = 0.0", "position.max_age_s"),
        ("[position]\nonly_while_armed = true", "position.mavlink"),
        ("[position]\nreport = true", "position.mavlink"),
        ("[position]\nmount_pitch_deg = -90.0", "position.mavlink"),
        ("[camera.pipe]\ncommand = [\"x\"]", "exclude each other"),
    ] {
        let error = Config::parse(&format!("{SMALLEST}{lines}")).unwrap_err();
        assert!(error.contains(named), "{lines}: {error}");
    }
    for (text, named) in [
        ("[camera.simulated]", "vehicle"),
        ("[vehicle]\nid = \"a b\"\n[camera.simulated]", "vehicle.id"),
        ("[vehicle]\nid = \"a\"\n[camera]\nname = \"x\"", "no source"),
        ("[vehicle]\nid = \"a\"\n[camera.simulated]\nscene = \"moon\"", "moon"),
        ("[vehicle]\nid = \"a\"\n[camera.simulated]\nwidth = 1", "camera.simulated.width"),
        ("[vehicle]\nid = \"a\"\n[camera.simulated]\nframes_per_second = 0.0", "frames_per_second"),
    ] {
        let error = Config::parse(text).unwrap_err();
        assert!(error.contains(named), "{text}: {error}");
    }
    for (table, named) in [
        ("[camera.folder]\npath = \"x\"\npoll_s = 0.0", "camera.folder.poll_s"),
        ("[camera.pipe]\ncommand = []", "camera.pipe.command"),
        ("[camera.pipe]\ncommand = [\"x\"]\nformat = \"h264\"", "none of mjpeg"),
        ("[camera.pipe]\ncommand = [\"x\"]\nformat = \"nv12\"\nwidth = 4", "camera.pipe.height"),
        ("[camera.pipe]\ncommand = [\"x\"]\nformat = \"rgb24\"\nwidth = 0\nheight = 1", "must be above 0"),
        ("[camera.pipe]\ncommand = [\"x\"]\nformat = \"rgb24\"\nwidth = 60000\nheight = 60000", "vision.max_pixels"),
        ("[camera.pipe]\ncommand = [\"x\"]\nwidth = 4", "take them out"),
        ("[camera.pipe]\ncommand = [\"x\"]\ntimeout_s = 0.0", "camera.pipe.timeout_s"),
        ("[camera.v4l2]\nformat = \"h264\"", "neither mjpeg nor yuyv"),
        ("[camera.v4l2]\ncolours = \"bt709\"", "take it out"),
        ("[camera.v4l2]\nheight = 0", "camera.v4l2.height"),
        ("[camera.v4l2]\nframes_per_second = 0", "camera.v4l2.frames_per_second"),
        ("[camera.video]", "either url or path"),
        ("[camera.video]\nurl = \"flight.mp4\"", "camera.video.path"),
        ("[camera.video]\npath = \"x\"\nframes_per_second = 0.0", "camera.video.frames_per_second"),
        ("[camera.video]\nurl = \"rtsp://x\"\ntransport = \"ftp\"", "transport"),
        ("[camera.http]\nurl = \"https://x\"", "camera.video"),
        ("[camera.http]\nurl = \"http://x\"\nusername = \"u\"", "camera.http.username"),
        ("[camera.http]\nurl = \"http://x\"\ninterval_s = 0.0", "camera.http.interval_s"),
        ("[camera.mqtt]\ntopic = \"x\"", "spool.results = true"),
        ("[camera.mqtt]\ntopic = \"x\"\n[spool]\nresults = true\nenabled = false", "spool.enabled"),
        ("[camera.mqtt]\ntopic = \"$share/g/x\"", "camera.mqtt.group"),
        ("[camera.mqtt]\ntopic = \"x\"\ngroup = \"a/b\"", "camera.mqtt.group"),
    ] {
        let error = Config::parse(&format!("[vehicle]\nid = \"a\"\n{table}")).unwrap_err();
        assert!(error.contains(named), "{table}: {error}");
    }
}

#[test]
fn passwords_are_not_published() {
    for table in [
        "[camera.pipe]\ncommand = [\"x\", \"rtsp://u:secret@cam\"]",
        "[camera.video]\nurl = \"rtsp://u:secret@cam\"",
        "[camera.http]\nurl = \"http://u:secret@cam\"",
    ] {
        let config = Config::parse(&format!("[vehicle]\nid = \"a\"\n{table}")).unwrap();
        assert!(!config.published.to_string().contains("secret"), "{}", config.published);
    }
}

#[test]
fn the_shipped_examples_are_valid() {
    for entry in std::fs::read_dir("config/examples").unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            Config::read(&path).unwrap();
        }
    }
}
