//! `eval --stages`: every stage is in the table, with its figures or with the reason that it has none.
#![cfg(feature = "host")]
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use std::path::Path;

use image::{Rgb, RgbImage};
use serde_json::Value;
use support::binary;

/// Two classes of pictures, three each, of odd sizes.
fn data(folder: &Path) {
    for (class, green) in [("forest", 120), ("river", 60)] {
        std::fs::create_dir_all(folder.join(class)).unwrap();
        for i in 0..3u32 {
            let picture = RgbImage::from_fn(161, 140, |x, y| Rgb([(x * (i + 1)) as u8, green, (y * 2 + i * 9) as u8]));
            picture.save(folder.join(format!("{class}/{i}.jpg"))).unwrap();
        }
    }
}

fn eval(folder: &Path, args: &[&str]) -> Value {
    let mut command = binary();
    command.arg("eval").arg("--data").arg(folder.join("data")).args(["--no-gates", "--json", "--resamples", "0"]);
    let output = command.arg("--cache").arg(folder.join("cache")).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn row<'a>(report: &'a Value, stage: &str) -> &'a Value {
    report["stages"]["rows"].as_array().unwrap().iter().find(|row| row["stage"] == stage).unwrap()
}

#[test]
fn what_cannot_be_run_is_named_and_what_can_has_its_figures() {
    let folder = tempfile::tempdir().unwrap();
    data(&folder.path().join("data"));
    let reference = folder.path().join("reference.safetensors");
    let reference = reference.to_str().unwrap();
    eval(folder.path(), &["--embeddings-out", reference]);
    // This very program stands for one of another machine: it must give the very same.
    let program = env!("CARGO_BIN_EXE_remoteclipd");
    let stages = ["--reference", reference, "--stages", "--stages-images", "4", "--stages-python", "/nowhere/python"];
    let report = eval(folder.path(), &[&stages[..], &["--stages-aarch64", program]].concat());
    assert_eq!(report["stages"]["images"], 4);
    let names: Vec<&str> =
        report["stages"]["rows"].as_array().unwrap().iter().map(|row| row["stage"].as_str().unwrap()).collect();
    assert_eq!(names, ["weights", "decode", "resize", "tract", "onnxruntime", "int8", "aarch64"]);
    for stage in ["weights", "decode", "resize", "onnxruntime"] {
        let absent = row(&report, stage)["absent"].as_str().unwrap();
        assert!(absent.contains("/nowhere/python") && absent.contains("--stages-python"), "{absent}");
        assert!(row(&report, stage)["cosine"].is_null());
    }
    // The reference is this program's own int8, so that stage is exact, and f32 is near but another.
    for stage in ["int8", "aarch64"] {
        let row = row(&report, stage);
        assert!(row["cosine"]["min"].as_f64().unwrap() > 0.999_999, "{row}");
        assert_eq!(row["value"], report["stages"]["reference"], "{row}");
    }
    let plain = row(&report, "tract")["cosine"]["mean"].as_f64().unwrap();
    assert!(plain > 0.99 && plain < 0.999_999_9, "{plain}");
    let report = eval(folder.path(), &[&stages[..], &["--stages-aarch64", "/nowhere/remoteclipd"]].concat());
    assert!(row(&report, "aarch64")["absent"].as_str().unwrap().contains("/nowhere/remoteclipd"));
}

#[test]
fn pillow_and_onnxruntime_stand_beside_ours() {
    let python = std::env::var("REMOTECLIPD_PYTHON").unwrap_or_else(|_| "target/models-venv/bin/python".to_owned());
    let found = std::process::Command::new(&python).args(["-c", "import onnx, onnxruntime, PIL"]).output();
    if !found.is_ok_and(|output| output.status.success()) {
        // .ci/run makes the environment after these tests, so this is no failure there either.
        eprintln!("skipped: no Python with models/tools/requirements-light.txt (REMOTECLIPD_PYTHON)");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    data(&folder.path().join("data"));
    let reference = folder.path().join("reference.safetensors");
    let reference = reference.to_str().unwrap();
    eval(folder.path(), &["--embeddings-out", reference]);
    let report = eval(folder.path(), &["--reference", reference, "--stages", "--stages-python", &python]);
    for stage in ["weights", "decode", "resize", "tract"] {
        let row = row(&report, stage);
        assert!(row["cosine"]["min"].as_f64().is_some_and(|cosine| cosine > 0.99), "{row}");
    }
    // From one square, the same weights in f32: two engines must agree.
    let mean = |stage: &str| row(&report, stage)["cosine"]["mean"].as_f64().unwrap();
    assert!((mean("resize") - mean("tract")).abs() < 1e-5, "{} {}", mean("resize"), mean("tract"));
    assert!(row(&report, "onnxruntime")["cosine"].is_object(), "{}", row(&report, "onnxruntime"));
}
