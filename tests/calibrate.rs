//! `remoteclipd calibrate` through the binary: what it suggests holds, what it writes is the same set with other
//! thresholds, and what it cannot know it says.
#![cfg(feature = "host")]
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use std::path::{Path, PathBuf};
use std::process::Output;

use image::{Rgb, RgbImage};
use serde_json::Value;
use support::binary;

const SET: &str = "\
# Two things.
name = \"two\" # the name
templates = [\"a satellite photo of {}.\"]
threshold = 0.5
hysteresis = 0.2

[[label]]
name = \"forest\"  # trees
threshold = 0.9    # by guess

# Cars.
[[label]]
name = \"parking lot\"
texts = [\"a parking lot\",
         \"many cars\"]
";

/// Runs with embeddings kept in `folder`, so that no test depends on another's.
fn calibrate(folder: &Path, args: &[&str]) -> Output {
    let cache = folder.join("cache");
    binary().arg("calibrate").args(args).arg("--cache").arg(cache).output().unwrap()
}

fn json(folder: &Path, args: &[&str]) -> Value {
    let output = calibrate(folder, &[args, &["--json"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn refused(folder: &Path, args: &[&str]) -> String {
    let output = calibrate(folder, args);
    assert!(!output.status.success(), "{args:?} passed");
    String::from_utf8(output.stderr).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn set(folder: &Path) -> PathBuf {
    let path = folder.join("set.toml");
    std::fs::write(&path, SET).unwrap();
    path
}

/// `count` different pictures.
fn pictures(folder: &Path, count: u32) {
    std::fs::create_dir_all(folder).unwrap();
    for i in 0..count {
        let picture = RgbImage::from_fn(64, 64, |x, y| Rgb([(x * i) as u8, (y * 3 + i * 7) as u8, (i * 11) as u8]));
        picture.save(folder.join(format!("{i:03}.png"))).unwrap();
    }
}

fn label<'a>(report: &'a Value, name: &str) -> &'a Value {
    report["labels"].as_array().unwrap().iter().find(|label| label["label"] == name).unwrap()
}

#[test]
fn a_suggestion_holds_when_the_written_set_is_used() {
    let Some(ucm) = support::ucm() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (data, set, out) = (folder.path().join("data"), set(folder.path()), folder.path().join("out.toml"));
    for class in ["forest", "parkinglot", "river", "harbor"] {
        std::fs::create_dir_all(data.join(class)).unwrap();
        for i in 0..30 {
            let name = format!("{class}/{class}{i:02}.jpg");
            std::fs::copy(ucm.path().join("ucm").join(&name), data.join(&name)).unwrap();
        }
    }
    let others = ["--class", "river=", "--class", "harbor="];
    let wanted = ["--prompts", text(&set), "--precision", "0.9", "--out", text(&out)];
    let report = json(folder.path(), &[&[text(&data)], &wanted[..], &others].concat());
    assert_eq!((&report["images"], &report["labelled"]), (&120.into(), &true.into()));
    for name in ["forest", "parking lot"] {
        let found = label(&report, name);
        assert_eq!((&found["now"]["positives"], &found["now"]["negatives"]), (&30.into(), &90.into()), "{found}");
        assert!(found["then"]["precision"].as_f64().unwrap() >= 0.9, "{found}");
        assert!(found["then"]["recall"].as_f64().unwrap() >= found["now"]["recall"].as_f64().unwrap(), "{found}");
    }
    let written = std::fs::read_to_string(&out).unwrap();
    for kept in
        ["# Two things.", "name = \"two\" # the name", "# trees", "# by guess", "# Cars.", "         \"many cars\"]"]
    {
        assert!(written.contains(kept), "{kept} is gone:\n{written}");
    }
    // What was promised of the new thresholds is what they do when they are in use.
    let wanted = ["--prompts", text(&out), "--precision", "0.9"];
    let again = json(folder.path(), &[&[text(&data)], &wanted[..], &others].concat());
    for name in ["forest", "parking lot"] {
        assert_eq!(label(&again, name)["now"], label(&report, name)["then"], "{name}");
    }
}

#[test]
fn pictures_without_labels_tell_a_rate_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let (data, set) = (folder.path().join("data"), set(folder.path()));
    pictures(&data, 40);
    let report = json(folder.path(), &[text(&data), "--prompts", text(&set), "--false-alarms", "0.05"]);
    assert_eq!((&report["images"], &report["labelled"]), (&40.into(), &false.into()));
    for found in report["labels"].as_array().unwrap() {
        assert!(found["positives"].is_null() && found["now"]["recall"].is_null(), "{found}");
        assert_eq!(found["negatives"]["count"], 40);
        if let Some(rate) = found["then"]["false_alarm_rate"].as_f64() {
            assert!(rate <= 0.05, "{found}");
        }
    }
    let output = calibrate(folder.path(), &[text(&data), "--prompts", text(&set), "--false-alarms", "0.05"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        said.contains("only as far as they do not show the label") && said.contains("nothing is written"),
        "{said}"
    );
    let said = refused(folder.path(), &[text(&data), "--prompts", text(&set), "--precision", "0.9"]);
    assert!(said.contains("--precision needs labelled pictures") && said.contains("--false-alarms"), "{said}");
}

#[test]
fn too_few_pictures_change_nothing_and_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let (data, set, out) = (folder.path().join("data"), set(folder.path()), folder.path().join("out.toml"));
    pictures(&data.join("forest"), 3);
    pictures(&data.join("Parking_Lot"), 2);
    let wanted = ["--prompts", text(&set), "--precision", "0.9", "--out", text(&out)];
    let report = json(folder.path(), &[&[text(&data)], &wanted[..]].concat());
    for found in report["labels"].as_array().unwrap() {
        assert!(found["suggested"].is_null(), "{found}");
        assert!(found["remark"].as_str().unwrap().contains("too few examples"), "{found}");
    }
    assert_eq!(std::fs::read_to_string(&out).unwrap(), SET);
}

#[test]
fn what_is_wrong_is_named_with_the_cure() {
    let folder = tempfile::tempdir().unwrap();
    let (data, set) = (folder.path().join("data"), set(folder.path()));
    pictures(&data.join("forest"), 2);
    pictures(&data.join("lagoon"), 2);
    let (data, set) = (text(&data), text(&set));
    let run = |args: &[&str]| refused(folder.path(), &[&[data, "--prompts", set], args].concat());
    let said = run(&["--precision", "0.9"]);
    assert!(said.contains("lagoon") && said.contains("--class lagoon=LABEL"), "{said}");
    assert!(run(&["--precision", "0.9", "--class", "lagoon"]).contains("FOLDER=LABEL"));
    assert!(run(&["--precision", "0.9", "--class", "lagoon=sea"]).contains("no such label"));
    assert!(run(&["--precision", "90"]).contains("0.95 is 95 %"));
    assert!(run(&[]).contains("--precision"), "a goal is needed");
    assert!(run(&["--precision", "0.9", "--false-alarms", "0.1"]).contains("cannot be used with"));
    std::fs::write(Path::new(data).join("forest/broken.jpg"), "no picture").unwrap();
    let said = run(&["--precision", "0.9", "--class", "lagoon="]);
    assert!(said.contains("forest/broken.jpg: not a JPEG"), "{said}");
    let said = refused(folder.path(), &["/nowhere", "--prompts", set, "--precision", "0.9"]);
    assert!(said.contains("/nowhere"), "{said}");
    let said = refused(folder.path(), &[data, "--prompts", "/nowhere.toml", "--precision", "0.9"]);
    assert!(said.contains("/nowhere.toml") && said.contains("--prompts"), "{said}");
}
