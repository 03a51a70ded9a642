//! Parity: both shipped bundles, as they fly, against their full-precision references on the test splits of
//! `../shared/data`, judged by the gates of `config/parity.toml`. With `REMOTECLIPD_PARITY_PART=N` on one picture in N,
//! without captions: under an emulator a picture costs fifty times as much.

#![cfg(feature = "host")]
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use std::fmt::Write;
use std::path::{Path, PathBuf};

use remoteclipd::harness::embeddings::EmbeddingSet;
use serde_json::Value;
use support::binary;

/// A list of every `step`th picture of the reference, in the data's folder.
fn part(folder: &Path, reference: &str, step: usize) -> PathBuf {
    let set = EmbeddingSet::read(Path::new(reference)).unwrap();
    let mut list = "filepath,label,split\n".to_owned();
    for (file, label) in set.files.iter().zip(&set.labels).step_by(step) {
        writeln!(list, "{file},{},test", set.classes[*label]).unwrap();
    }
    let path = folder.join("part.csv");
    std::fs::write(&path, list).unwrap();
    path
}

fn parity(bundle: &str, data: &str) {
    let Some(folder) = support::unpacked(data) else { return };
    let captions = support::shared_data("captions/dataset_ucm.json").unwrap();
    let captions = ["--captions", captions.to_str().unwrap()];
    let reference = format!("models/{bundle}/reference/{data}-test.safetensors");
    let step = std::env::var("REMOTECLIPD_PARITY_PART").ok().map(|step| step.parse().unwrap());
    let pictures = folder.path().join(data);
    let pictures = step.map_or(pictures.clone(), |step| part(&pictures, &reference, step));
    let output = binary()
        .args(["eval", "--bundle", &format!("models/{bundle}"), "--json", "--no-cache", "--split", "test"])
        .args(["--gates", "config/parity.toml"])
        .args(["--reference", &reference, "--dataset", data])
        .arg("--data")
        .arg(pictures)
        .args(if data == "ucm" && step.is_none() { &captions[..] } else { &[] })
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let verdicts = report["gates"]["verdicts"].as_array().unwrap();
    assert!(report["gates"]["passed"] == true && verdicts.iter().any(|verdict| verdict["gate"] == "floor"), "{said}");
    let parity = &report["parity"];
    println!(
        "{bundle} on {data}: {} pictures, accuracy {} %, agreement {}, decisions {}, cosine mean {}, least {} ({})",
        report["images"],
        report["percent"]["acc1"],
        parity["top1_agreement"],
        parity["decision_agreement"],
        parity["cosine"]["mean"],
        parity["cosine"]["min"],
        parity["worst"][0]["file"],
    );
    for metric in report["tasks"].as_array().unwrap().iter().flat_map(|task| task["metrics"].as_array().unwrap()) {
        println!(
            "  {} {} (reference {}, ratio {})",
            metric["name"], metric["value"], metric["reference"], metric["ratio"]
        );
    }
    println!("  {said}");
}

#[test]
fn default_on_ucm() {
    parity("default", "ucm");
}

#[test]
fn default_on_eurosat() {
    parity("default", "eurosat");
}

#[test]
fn vit_tiny_on_ucm() {
    parity("vit-tiny", "ucm");
}

#[test]
fn vit_tiny_on_eurosat() {
    parity("vit-tiny", "eurosat");
}
