//! What stops a build: the same code as the build script's, on sets and bundles with one mistake each.
#![cfg(feature = "host")]
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use std::path::Path;

use remoteclipd::bundle::Bundle;
use remoteclipd::prompts::pack::Pack;
use remoteclipd::prompts::set::PromptSet;
use remoteclipd::prompts::text::TextTower;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

const BUNDLE: &str = "models/default";

/// Compiles the text of a set with a bundle, as the build script does.
fn compile(set: &str, bundle: &Path) -> Result<Pack, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("set.toml");
    std::fs::write(&path, set).unwrap();
    let set = PromptSet::read(&path).map_err(|error| error.to_string())?;
    let bundle = Bundle::open(bundle).map_err(|error| error.to_string())?;
    let tower = TextTower::load(&bundle).map_err(|error| error.to_string())?;
    tower.compile(&set).map_err(|error| error.to_string())
}

/// One sentence that names the mistake.
fn assert_stops(set: &str, bundle: &Path, named: &str) {
    let error = compile(set, bundle).unwrap_err();
    assert!(error.contains(named), "{error}");
}

fn copy_of_the_bundle() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["manifest.toml", "text.onnx", "tokenizer.json", "vocabulary.txt"] {
        std::fs::copy(Path::new(BUNDLE).join(name), folder.path().join(name)).unwrap();
    }
    folder
}

const GOOD: &str = "name = \"test\"\n[[label]]\nname = \"forest\"\n[[label]]\nname = \"a river\"\n";

#[test]
fn a_good_set_compiles_to_unit_vectors_that_tell_the_labels_apart() {
    let pack = compile(GOOD, Path::new(BUNDLE)).unwrap();
    let rows: Vec<&[f32]> = pack.rows().collect();
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    assert!((dot(rows[0], rows[0]) - 1.0).abs() < 1e-4);
    assert!(dot(rows[0], rows[1]) < 0.9);
}

#[test]
fn each_mistake_in_a_set_stops_the_build() {
    let bundle = Path::new(BUNDLE);
    assert_stops("name = \"test\"\n", bundle, "has no labels");
    assert_stops(&format!("{GOOD}[[label]]\nname = \"forest\"\n"), bundle, "duplicate of \"forest\"");
    let long = "houses ".repeat(60);
    assert_stops(&format!("{GOOD}[[label]]\nname = \"x\"\ntexts = [\"{long}\"]\n"), bundle, "context holds 40");
}

#[test]
fn a_bundle_without_its_text_tower_stops_the_build() {
    let folder = copy_of_the_bundle();
    std::fs::remove_file(folder.path().join("text.onnx")).unwrap();
    assert_stops(GOOD, folder.path(), "no text tower");
    std::fs::remove_file(folder.path().join("manifest.toml")).unwrap();
    assert_stops(GOOD, folder.path(), "manifest.toml");
}

#[test]
fn an_embedding_that_is_not_finite_stops_the_build() {
    let folder = copy_of_the_bundle();
    let path = folder.path().join("text.onnx");
    let mut onnx = std::fs::read(&path).unwrap();
    // The middle of the file is float16 weights; 0x7e00 is a NaN.
    let middle = (onnx.len() / 2) & !1;
    for value in onnx[middle..middle + 200_000].chunks_exact_mut(2) {
        value.copy_from_slice(&[0x00, 0x7e]);
    }
    let old = hex::encode(Sha256::digest(std::fs::read(&path).unwrap()));
    let new = hex::encode(Sha256::digest(&onnx));
    std::fs::write(&path, onnx).unwrap();
    let manifest = std::fs::read_to_string(folder.path().join("manifest.toml")).unwrap();
    std::fs::write(folder.path().join("manifest.toml"), manifest.replace(&old, &new)).unwrap();
    assert_stops(GOOD, folder.path(), "is not finite");
}

#[test]
fn words_the_model_never_saw_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("set.toml");
    std::fs::write(&path, format!("{GOOD}[[label]]\nname = \"zeppelin\"\n")).unwrap();
    let tower = TextTower::load(&Bundle::open(BUNDLE).unwrap()).unwrap();
    let unknown = tower.unknown_words(&PromptSet::read(&path).unwrap());
    assert_eq!(unknown.into_iter().collect::<Vec<_>>(), ["zeppelin"]);
}
