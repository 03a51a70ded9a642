//! Parity: both shipped bundles, as they fly, against their full-precision references on the test splits of
//! `../shared/data`, judged by the gates of `config/parity.toml`.

#![cfg(feature = "host")]
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use serde_json::Value;
use support::binary;

fn parity(bundle: &str, data: &str) {
    let Some(folder) = support::unpacked(data) else { return };
    let captions = support::shared_data("captions/dataset_ucm.json").unwrap();
    let captions = ["--captions", captions.to_str().unwrap()];
    let output = binary()
        .args(["eval", "--bundle", &format!("models/{bundle}"), "--json", "--no-cache", "--split", "test"])
        .args(["--gates", "config/parity.toml"])
        .args(["--reference", &format!("models/{bundle}/reference/{data}-test.safetensors")])
        .arg("--data")
        .arg(folder.path().join(data))
        .args(if data == "ucm" { &captions[..] } else { &[] })
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
