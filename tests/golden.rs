//! The golden frames of the shipped bundles: every kernel of this machine gives the embeddings that were written on
//! x86-64, and the best kernel is the one that this CPU should be given. Under an emulator only the best one is tried: each
//! but the portable one is some emulated CPU's best, and that one the kernels' own tests compare the others with.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use std::path::Path;

use remoteclipd::bundle::Bundle;
use remoteclipd::vision::golden::Golden;
use remoteclipd::vision::int8::KernelChoice;
use remoteclipd::vision::{EncoderOptions, Limits, Vision};
use serde_json::Value;

/// Set by `cross/test.sh`, which knows the CPU it emulates.
fn expected_kernel() -> Option<String> {
    std::env::var("REMOTECLIPD_EXPECT_KERNEL").ok()
}

fn agrees(name: &str) {
    let bundle = Bundle::open(Path::new("models").join(name)).unwrap();
    let golden = Golden::read(&bundle).unwrap();
    let best = KernelChoice::best().name;
    let tried = |name: &str| expected_kernel().is_none() || name == best;
    for kernel in KernelChoice::ALL.into_iter().filter(|choice| choice.kernel().is_some_and(|it| tried(it.name))) {
        let options = EncoderOptions { kernel: Some(kernel), ..EncoderOptions::default() };
        let mut vision = Vision::load(&bundle, Limits::default(), &options).unwrap();
        let cosine = golden.compare(&mut vision).unwrap();
        println!("{name}, {}: least cosine {cosine:.7}", vision.encoder().kernel());
        // The golden embeddings come from a kernel that fuses multiply and add, as all do but the portable one.
        assert!(kernel == KernelChoice::Portable || cosine >= 0.999_99, "{kernel:?}: {cosine}");
    }
}

#[test]
fn the_default_bundle_computes_the_same_on_every_kernel() {
    agrees("default");
}

#[test]
fn vit_tiny_computes_the_same_on_every_kernel() {
    agrees("vit-tiny");
}

#[test]
fn the_kernel_is_the_one_this_cpu_should_be_given() {
    let output = support::binary().args(["bench", "--json", "--raw", "--iterations", "1"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let best = KernelChoice::best().name;
    assert_eq!(report["kernel"], best);
    if let Some(expected) = expected_kernel() {
        assert_eq!(best, expected, "features {}", report["cpu_features"]);
    }
}

#[test]
fn the_self_test_passes_and_a_wrong_golden_file_is_refused_by_name() {
    let test = |folder: &Path| support::binary().args(["bundle", "test", "--bundle"]).arg(folder).output().unwrap();
    let output = test(Path::new("models/default"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let folder = tempfile::tempdir().unwrap();
    for name in ["manifest.toml", "image.onnx"] {
        std::fs::copy(Path::new("models/default").join(name), folder.path().join(name)).unwrap();
    }
    let text = std::fs::read_to_string("models/default/golden.json").unwrap();
    let mut golden: Value = serde_json::from_str(&text).unwrap();
    let refused = |text: &str, named: &str| {
        std::fs::write(folder.path().join("golden.json"), text).unwrap();
        let output = test(folder.path());
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(named), "{error}");
    };
    refused("{", "golden.json: EOF");
    refused(&text.replace("\"image_sha256\":\"0", "\"image_sha256\":\"f"), "another image.onnx");
    let first = golden["frames"][0].clone();
    golden["frames"][0]["embedding"] = golden["frames"][1]["embedding"].clone();
    refused(&golden.to_string(), "do not fly this bundle");
    golden["frames"][0] = first;
    golden["frames"][0]["pixels_sha256"] = "00".into();
    refused(&golden.to_string(), "drawn otherwise");
    golden["frames"] = Value::Array(Vec::new());
    refused(&golden.to_string(), "no frame");
}
