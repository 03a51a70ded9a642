//! Two slots for bundles: what `bundle install` and `bundle rollback` do, and what a start makes of a bundle that fails.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use std::path::Path;

use support::{binary, free_port, write_config};

/// Standard output and error of a command that must succeed, or must fail.
fn run(succeeds: bool, args: &[&str]) -> String {
    let output = binary().args(args).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.success(), succeeds, "{args:?}: {said}");
    said
}

#[test]
fn a_bundle_that_fails_its_self_test_gives_way_to_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let slots = folder.path().join("bundles");
    let current = slots.join("current");
    let slots = slots.to_str().unwrap();
    let config = folder.path().join("remoteclipd.toml");
    write_config(&config, free_port(), &format!("[camera.simulated]\n[vision]\nbundle = {current:?}\n"));
    let check = || run(true, &["check", "--config", config.to_str().unwrap()]);

    run(true, &["bundle", "install", "models/default", "--slots", slots]);
    assert!(check().contains("fits model default"));
    let said = run(true, &["bundle", "install", "models/vit-tiny", "--slots", slots]);
    assert!(said.contains("vit-tiny: golden frames agree"), "{said}");
    let files = std::fs::read_dir(&current).unwrap().map(|entry| entry.unwrap().path());
    assert_eq!(files.filter(|file| file.extension().is_some_and(|extension| extension == "packed")).count(), 1);
    assert!(check().contains("fits model vit-tiny"));

    damage(&current.join("golden.json"));
    let said = check();
    assert!(said.contains("do not fly this bundle") && said.contains("falling back on the bundle before"), "{said}");
    assert!(said.contains("fits model default"), "{said}");

    run(true, &["bundle", "rollback", "--slots", slots]);
    let said = check();
    assert!(said.contains("fits model default") && !said.contains("falling back"), "{said}");
}

#[test]
fn a_bundle_that_fails_is_not_installed() {
    let folder = tempfile::tempdir().unwrap();
    let (slots, bad) = (folder.path().join("bundles"), folder.path().join("bad"));
    run(true, &["bundle", "install", "models/default", "--slots", slots.to_str().unwrap()]);
    let flying = std::fs::read_link(slots.join("current")).unwrap();
    std::fs::create_dir(&bad).unwrap();
    for name in ["manifest.toml", "image.onnx", "golden.json"] {
        std::fs::copy(Path::new("models/vit-tiny").join(name), bad.join(name)).unwrap();
    }
    damage(&bad.join("golden.json"));
    let install = || run(false, &["bundle", "install", bad.to_str().unwrap(), "--slots", slots.to_str().unwrap()]);
    assert!(install().contains("do not fly this bundle"));
    std::fs::remove_file(bad.join("golden.json")).unwrap();
    assert!(install().contains("golden.json"));
    assert_eq!(std::fs::read_link(slots.join("current")).unwrap(), flying);
}

/// Another frame's embedding in the first one's place.
fn damage(golden: &Path) {
    let mut value: serde_json::Value = serde_json::from_slice(&std::fs::read(golden).unwrap()).unwrap();
    value["frames"][0]["embedding"] = value["frames"][1]["embedding"].clone();
    std::fs::write(golden, value.to_string()).unwrap();
}
