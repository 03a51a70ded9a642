//! The binary as a person meets it: its output, its exit codes, its errors.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use std::path::Path;
use std::process::Output;
#[cfg(feature = "demo")]
use std::process::{Command, Stdio};

use serde_json::Value;
use support::binary;

fn run(args: &[&str]) -> Output {
    binary().args(args).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A flat green picture as a file.
fn picture(folder: &Path, name: &str) -> String {
    let path = folder.join(name);
    image::RgbImage::from_pixel(200, 150, image::Rgb([30, 80, 40])).save(&path).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn classify_prints_one_json_object_an_image() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (picture(folder.path(), "one.jpg"), picture(folder.path(), "two.png"));
    let output = run(&["classify", "--json", &one, &two]);
    assert!(output.status.success(), "{}", stderr(&output));
    let lines: Vec<Value> = stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    for (line, image) in lines.iter().zip([&one, &two]) {
        assert_eq!(line["image"], **image);
        assert!(line["label"].is_string() || line["label"].is_null());
        assert_eq!(line["scores"].as_array().unwrap().len(), 5);
        assert!(line["latency_ms"]["encode"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn classify_names_real_scenes() {
    let Some(ucm) = support::ucm() else { return };
    for (class, label) in
        [("forest", "forest"), ("parkinglot", "parking lot"), ("harbor", "harbor"), ("tenniscourt", "tennis court")]
    {
        let image = ucm.path().join(format!("ucm/{class}/{class}12.jpg"));
        let output = run(&["classify", "--json", image.to_str().unwrap()]);
        let line: Value = serde_json::from_str(&stdout(&output)).unwrap();
        assert_eq!(line["label"], label, "{line}");
    }
}

#[test]
fn one_bad_file_costs_the_others_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let good = picture(folder.path(), "good.png");
    let bad = folder.path().join("bad.jpg");
    std::fs::write(&bad, "not a picture").unwrap();
    let cut = folder.path().join("cut.jpg");
    image::open(&good).unwrap().into_rgb8().save(&cut).unwrap();
    let whole = std::fs::read(&cut).unwrap();
    std::fs::write(&cut, &whole[..whole.len() - 20]).unwrap();
    let output = run(&["classify", "--json", bad.to_str().unwrap(), "/nowhere.jpg", cut.to_str().unwrap(), &good]);
    assert!(!output.status.success());
    assert_eq!(stdout(&output).lines().count(), 1);
    let errors = stderr(&output);
    assert!(errors.contains("bad.jpg: not a JPEG, PNG or TIFF picture") && errors.contains("/nowhere.jpg"), "{errors}");
    assert!(errors.contains("cut.jpg: JPEG picture is cut short"), "{errors}");
}

#[test]
fn a_wrong_bundle_is_named_with_the_cure() {
    let output = run(&["classify", "--bundle", "/nowhere", "x.jpg"]);
    assert!(!output.status.success());
    assert!(stderr(&output).contains("/nowhere/manifest.toml") && stderr(&output).contains("models/README.md"));
}

/// A copy of the default bundle.
fn bundle_copy() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir("models/default").unwrap().flatten() {
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
    }
    folder
}

#[test]
fn an_altered_bundle_is_refused() {
    let folder = bundle_copy();
    let image = folder.path().join("image.onnx");
    let mut bytes = std::fs::read(&image).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&image, bytes).unwrap();
    let output = run(&["classify", "--bundle", folder.path().to_str().unwrap(), "x.jpg"]);
    assert!(!output.status.success());
    assert!(stderr(&output).contains("image.onnx is not the file its manifest vouches for"), "{}", stderr(&output));
}

#[test]
fn packed_weights_are_taken_and_damaged_ones_left_aside() {
    let folder = bundle_copy();
    let bundle = folder.path().to_str().unwrap();
    let bench = || {
        let output = run(&["bench", "--bundle", bundle, "--json", "--raw", "--iterations", "1"]);
        let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
        (report["packed"].as_bool().unwrap(), stderr(&output))
    };
    assert!(!bench().0);
    let packed = stdout(&run(&["bundle", "pack", "--bundle", bundle])).trim().to_owned();
    assert!(packed.ends_with(".packed"), "{packed}");
    assert!(bench().0);
    assert!(stdout(&run(&["bundle", "test", "--bundle", bundle])).contains("golden frames agree"));

    let mut bytes = std::fs::read(&packed).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&packed, bytes).unwrap();
    let (taken, errors) = bench();
    assert!(!taken && errors.contains(&packed) && errors.contains("remoteclipd bundle pack"), "{errors}");
}

#[test]
fn a_pack_of_another_model_is_refused_by_name() {
    let folder = bundle_copy();
    let path = folder.path().join("manifest.toml");
    let manifest = std::fs::read_to_string(&path).unwrap();
    let text = manifest.find("[files.\"text.onnx\"]").unwrap();
    let hash = text + manifest[text..].find("sha256 = \"").unwrap() + "sha256 = \"".len();
    let mut manifest = manifest.replacen("name = \"default\"", "name = \"another\"", 1);
    let hash = hash + manifest.len() - std::fs::metadata(&path).unwrap().len() as usize;
    manifest.replace_range(hash..hash + 64, &"0".repeat(64));
    std::fs::write(&path, manifest).unwrap();
    let output = run(&["classify", "--bundle", folder.path().to_str().unwrap(), "x.jpg"]);
    assert!(!output.status.success());
    let error = stderr(&output);
    assert!(error.contains("was made for model \"default\", not for \"another\""), "{error}");
}

#[test]
fn check_takes_a_frame_and_shows_what_the_model_sees() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let frames = path("frames");
    std::fs::create_dir(&frames).unwrap();
    let picture = picture(&frames, "one.jpg");
    let check = |camera: &str, out: &Path| {
        let (config, state) = (path("config.toml"), path("state"));
        let text = format!("[vehicle]\nid = \"a\"\n[state]\npath = {state:?}\n{camera}\n");
        std::fs::write(&config, text).unwrap();
        let args = ["check", "--camera", "--config", config.to_str().unwrap(), "--out", out.to_str().unwrap()];
        let output = run(&args);
        (output.status.success(), stdout(&output))
    };
    let size = |file: std::path::PathBuf| image::open(file).unwrap().into_rgb8().dimensions();

    let (ready, said) = check(&format!("[camera.folder]\npath = {frames:?}\nonce = true"), &path("a"));
    assert!(ready && said.contains("frame one.jpg, 200 x 150 pixels"), "{said}");
    assert_eq!(std::fs::read(path("a/frame.jpg")).unwrap(), std::fs::read(picture).unwrap(), "byte for byte");
    assert_eq!(size(path("a/seen.png")), (128, 128));
    let seen = image::open(path("a/seen.png")).unwrap().into_rgb8();
    assert!(seen.pixels().all(|pixel| pixel[1].abs_diff(80) < 4), "the picture's green");

    let tiled = "[camera.simulated]\nwidth = 640\n[vision.tiles]\ngrid = [4, 3]";
    let (ready, said) = check(tiled, &path("b"));
    assert!(ready && said.contains("640 x 480 pixels, 12 tiles of 160 x 160"), "{said}");
    assert_eq!(size(path("b/frame.png")), (640, 480));
    assert!(path("b/seen-12.png").exists() && !path("b/seen-13.png").exists());
    assert_eq!(size(path("b/seen-01.png")), (128, 128));

    std::fs::write(frames.join("one.jpg"), "not a picture").unwrap();
    let (ready, said) = check(&format!("[camera.folder]\npath = {frames:?}\nonce = true"), &path("c"));
    assert!(!ready && said.contains("FAIL  frame: not a JPEG, PNG or TIFF picture"), "{said}");
    std::fs::remove_file(frames.join("one.jpg")).unwrap();
    let (ready, said) = check(&format!("[camera.folder]\npath = {frames:?}\nonce = true"), &path("c"));
    assert!(!ready && said.contains("no frame at all"), "{said}");
}

#[test]
fn check_finds_what_is_wrong_before_take_off() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("remoteclipd.toml");
    let check = |text: &str, args: &[&str]| {
        std::fs::write(&config, text).unwrap();
        let output = run(&[&["check", "--config", config.to_str().unwrap()], args].concat());
        (output.status.success(), stdout(&output))
    };
    let good = &format!("[vehicle]\nid = \"uav-1\"\n[state]\npath = {:?}\n[camera.simulated]\n", folder.path());
    let (ready, said) = check(good, &[]);
    assert!(ready && said.contains("all is well"), "{said}");
    for (text, named) in [
        ("[vehicle]\nid = \"uav-1\"\n", "camera"),
        (&format!("{good}[vision]\nbundle = \"/nowhere\""), "/nowhere/manifest.toml"),
        (&format!("{good}[prompts]\npack = \"Cargo.toml\""), "not a prompt pack"),
        ("[vehicle]\nid = \"uav-1\"\n[camera.folder]\npath = \"/nowhere\"", "/nowhere"),
    ] {
        let (ready, said) = check(text, &[]);
        assert!(!ready && said.contains("FAIL") && said.contains(named), "{text}: {said}");
    }
    let offline = format!("{good}[mqtt]\nhost = \"127.0.0.1\"\nport = {}", support::free_port());
    let (ready, said) = check(&offline, &["--online"]);
    assert!(!ready && said.contains("FAIL  broker"), "{said}");
    if let Some(broker) = support::Broker::start("") {
        let online = format!("{good}[mqtt]\nhost = \"127.0.0.1\"\nport = {}", broker.port);
        let (ready, said) = check(&online, &["--online"]);
        assert!(ready && said.contains("ok    broker"), "{said}");
    }
}

#[test]
fn prompts_show_lists_the_built_in_labels() {
    let output = run(&["prompts", "show"]);
    assert!(output.status.success());
    assert!(stdout(&output).contains("parking lot"));
}

#[test]
fn bench_measures_every_stage() {
    let output = run(&["bench", "--json", "--iterations", "3"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    for stage in ["decode_ms", "resize_ms", "encode_ms", "score_ms"] {
        assert!(report[stage]["median"].as_f64().unwrap() > 0.0, "{report}");
    }
    assert!(report["resident_bytes"].as_u64().unwrap() > 0 && report["kernel"].is_string());
    assert!(report["macs"].as_u64().unwrap() > 100_000_000 && report["kernel_gmacs"].as_f64().unwrap() > 0.0);
    let share = report["share_of_kernel"].as_f64().unwrap();
    assert!(share > 0.0 && share < 1.5, "{report}");
}

#[test]
fn bench_names_a_picture_it_cannot_read() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, "no picture").unwrap();
    let path = file.path().to_str().unwrap();
    let output = run(&["bench", "--image", path, "--iterations", "1"]);
    assert!(!output.status.success());
    assert!(stderr(&output).contains(&format!("{path}: not a JPEG, PNG or TIFF picture")), "{}", stderr(&output));
}

#[test]
fn bench_names_a_kernel_it_cannot_run_as_it_was_asked_for() {
    let foreign = if cfg!(target_arch = "x86_64") { "neon-i8mm" } else { "avx512-vnni" };
    let output = run(&["bench", "--kernel", foreign, "--iterations", "1"]);
    assert!(!output.status.success());
    let said = stderr(&output);
    assert!(said.contains(&format!("cannot run the {foreign} kernel; leave --kernel out")), "{said}");
}

#[cfg(feature = "demo")]
#[test]
fn the_demo_needs_nothing_else_installed() {
    let port = support::free_port().to_string();
    let output = run(&["demo", "--frames", "20", "--rate", "50", "--port", &port]);
    assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
    let said = stdout(&output);
    assert_eq!(said.lines().filter(|line| line.starts_with("sim-")).count(), 20, "{said}");
    assert!(said.contains("20 results received"));
}

#[cfg(feature = "demo")]
#[test]
fn mosquitto_sub_beside_the_demo_sees_the_same() {
    if !support::have("mosquitto_sub") {
        return;
    }
    let port = support::free_port().to_string();
    let mut demo = binary().args(["demo", "--rate", "20", "--port", &port]).stdout(Stdio::null()).spawn().unwrap();
    let output = support::wait_for("mosquitto_sub's three results", || {
        let args = ["-p", &port, "-t", "remoteclip/v1/demo/nadir/result", "-C", "3", "-W", "20"];
        let output = Command::new("mosquitto_sub").args(args).output().unwrap();
        output.status.success().then_some(output)
    });
    demo.kill().unwrap();
    demo.wait().unwrap();
    let results: Vec<Value> = stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(results.len() == 3 && results.iter().all(|result| result["schema"] == "remoteclip.result/1"));
}

#[cfg(feature = "demo")]
#[test]
fn a_taken_port_is_explained() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = run(&["demo", "--frames", "1", "--port", &port]);
    assert!(!output.status.success() && stderr(&output).contains("choose one with --port"), "{}", stderr(&output));
}

#[test]
fn a_missing_config_is_explained() {
    let output = run(&["run", "--config", "/nowhere.toml"]);
    assert!(!output.status.success());
    assert!(stderr(&output).contains("/nowhere.toml") && stderr(&output).contains("--config"));
}
