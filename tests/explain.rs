//! `remoteclipd explain` through the binary: it agrees with `classify`, says why, and finds the label in the picture.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use std::path::{Path, PathBuf};
use std::process::Output;

use image::{Rgb, RgbImage};
use serde_json::Value;
use support::binary;

fn run(args: &[&str]) -> Output {
    binary().args(args).output().unwrap()
}

fn json(args: &[&str]) -> Value {
    let output = run(args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Runs what must fail and gives what it said.
fn refused(args: &[&str]) -> String {
    let output = run(args);
    assert!(!output.status.success(), "{args:?} passed");
    String::from_utf8(output.stderr).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A picture with some structure.
fn picture(folder: &Path) -> PathBuf {
    let path = folder.join("picture.png");
    RgbImage::from_fn(200, 150, |x, y| Rgb([(x % 50) as u8 * 4, 90, (y / 2) as u8])).save(&path).unwrap();
    path
}

/// The built-in prompt set with another threshold for all.
fn prompt_set(folder: &Path, threshold: &str) -> PathBuf {
    let set = std::fs::read_to_string("config/prompts/default.toml").unwrap();
    let path = folder.join("set.toml");
    std::fs::write(&path, set.replacen("threshold = 0.5", &format!("threshold = {threshold}"), 1)).unwrap();
    path
}

#[test]
fn the_scores_are_those_of_classify_and_all_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let picture = picture(folder.path());
    let told = json(&["explain", text(&picture), "--json"]);
    let classified = json(&["classify", text(&picture), "--json", "--top", "100"]);
    let labels = told["labels"].as_array().unwrap();
    assert_eq!(labels.len(), classified["scores"].as_array().unwrap().len());
    for (view, score) in labels.iter().zip(classified["scores"].as_array().unwrap()) {
        assert_eq!((&view["label"], &view["probability"]), (&score["label"], &score["score"]));
    }
    for field in ["label", "margin", "background", "model", "prompts"] {
        assert_eq!(told[field], classified[field], "{field}");
    }
    let shares = labels.iter().chain(told["background_texts"].as_array().unwrap());
    let total: f64 = shares.map(|view| view["probability"].as_f64().unwrap()).sum();
    assert!((total - 1.0).abs() < 1e-4, "{total}");
    assert_eq!(told["occlusion"], Value::Null);
}

#[cfg(feature = "host")]
#[test]
fn a_label_of_one_text_has_the_cosine_of_that_text() {
    let folder = tempfile::tempdir().unwrap();
    let set = folder.path().join("set.toml");
    let lines = "name = \"t\"\ntemplates = [\"{}\"]\n[[label]]\nname = \"river\"\ntexts = [\"a river\"]\n[[label]]\nname = \"forest\"\n";
    std::fs::write(&set, lines).unwrap();
    let told = json(&["explain", text(&picture(folder.path())), "--json", "--prompts", text(&set)]);
    assert_eq!(told["prompt_set"], "t");
    for view in told["labels"].as_array().unwrap() {
        let texts = told["texts"].as_array().unwrap();
        let of_text = texts.iter().find(|text| text["label"] == view["label"]).unwrap();
        let difference = view["cosine"].as_f64().unwrap() - of_text["cosine"].as_f64().unwrap();
        assert!(difference.abs() < 1e-5, "{told}");
    }
}

#[cfg(feature = "host")]
#[test]
fn a_threshold_out_of_reach_is_given_as_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let (picture, set) = (picture(folder.path()), prompt_set(folder.path(), "1.0"));
    let told = json(&["explain", text(&picture), "--json", "--prompts", text(&set)]);
    let why = told["why"][0].as_str().unwrap();
    assert!(why.starts_with("nothing is tagged") && why.contains("short of its threshold 1.00"), "{why}");
    let output = run(&["explain", text(&picture), "--prompts", text(&set)]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        said.contains(why) && said.contains("(a blurry picture)") && said.contains("texts of the best labels"),
        "{said}"
    );
}

#[test]
fn the_map_is_a_picture_and_the_covered_patches_cost_the_label_its_score() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("map.png");
    let told = json(&["explain", text(&picture(folder.path())), "--json", "--cells", "6", "--out", text(&out)]);
    let map = image::open(&out).unwrap();
    assert_eq!((map.width(), map.height()), (768, 576));
    let seen = &told["occlusion"];
    assert_eq!(seen["label"], told["labels"][0]["label"]);
    assert_eq!(seen["log_odds_fall"].as_array().unwrap().len(), 36);
    let least = seen["least_score"].as_f64().unwrap();
    // Batched, the same picture gives the same score but for rounding.
    assert!(least <= told["labels"][0]["probability"].as_f64().unwrap() + 1e-3, "{told}");
}

#[test]
fn the_map_finds_the_half_that_holds_the_label() {
    let Some(ucm) = support::ucm() else { return };
    let photo = |class: &str| image::open(ucm.path().join(format!("ucm/{class}/{class}12.jpg"))).unwrap().to_rgb8();
    // Cars on the left, trees on the right.
    let (cars, trees) = (photo("parkinglot"), photo("forest"));
    let both = RgbImage::from_fn(256, 256, |x, y| *if x < 128 { cars.get_pixel(x, y) } else { trees.get_pixel(x, y) });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("both.png");
    both.save(&path).unwrap();
    let out = folder.path().join("map.png");
    for (label, left_wins) in [("parking lot", true), ("forest", false)] {
        let told = json(&["explain", text(&path), "--json", "--label", label, "--cells", "8", "--out", text(&out)]);
        let falls: Vec<f64> =
            told["occlusion"]["log_odds_fall"].as_array().unwrap().iter().map(|fall| fall.as_f64().unwrap()).collect();
        let half = |right: usize| -> f64 {
            falls.iter().enumerate().filter(|(i, _)| i % 8 / 4 == right).map(|(_, f)| f).sum()
        };
        assert_eq!(half(0) > half(1), left_wins, "{label}: {} left, {} right", half(0), half(1));
    }
}

#[test]
fn what_is_wrong_is_named_with_the_cure() {
    let folder = tempfile::tempdir().unwrap();
    let picture = picture(folder.path());
    let picture = text(&picture);
    let broken = folder.path().join("broken.jpg");
    std::fs::write(&broken, "not a picture").unwrap();
    assert!(refused(&["explain", "/nowhere.jpg"]).contains("cannot read /nowhere.jpg"));
    let said = refused(&["explain", text(&broken)]);
    assert!(said.contains("broken.jpg: not a JPEG, PNG or TIFF picture"), "{said}");
    assert!(refused(&["explain", picture, "--out", "map.jpg"]).contains("ends in .png"));
    let out = folder.path().join("map.png");
    let out = text(&out);
    let said = refused(&["explain", picture, "--out", out, "--label", "zeppelin"]);
    assert!(said.contains("zeppelin") && said.contains("parking lot"), "{said}");
    let said = refused(&["explain", picture, "--out", out, "--cells", "1"]);
    assert!(said.contains("2 to 128 cells"), "{said}");
    let said = refused(&["explain", picture, "--out", "/nowhere/map.png"]);
    assert!(said.contains("--out: cannot write /nowhere/map.png"), "{said}");
    assert!(!Path::new(out).exists(), "what failed leaves nothing behind");
    #[cfg(feature = "host")]
    assert!(refused(&["explain", picture, "--prompts", "/nowhere.toml"]).contains("prompt set /nowhere.toml"));
}
