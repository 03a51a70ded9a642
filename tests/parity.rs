//! Parity: the int8 image tower as it flies against the full-precision reference in `models/<bundle>/reference/`, picture
//! by picture, on the test splits of `../shared/data`. First tier of MLPerf's two: 99 % of the reference's accuracy.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use remoteclipd::bundle::Bundle;
use remoteclipd::camera::Picture;
use remoteclipd::vision::{EncoderOptions, Limits, Vision};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tract_onnx::prelude::f16;

/// Of the reference's accuracy.
const TIER: f64 = 0.99;
/// A weak reference must not make a weak result look good.
struct Floors {
    accuracy: f64,
    agreement: f64,
    cosine: f64,
}

/// One file of `models/tools/reference.py`.
struct Reference {
    files: Vec<String>,
    sha256: Vec<String>,
    labels: Vec<usize>,
    images: Vec<Vec<f32>>,
    /// One unit vector a class.
    classes: Vec<Vec<f32>>,
}

impl Reference {
    fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let (length, rest) = bytes.split_first_chunk::<8>().unwrap();
        let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
        let header: Value = serde_json::from_slice(header).unwrap();
        let list = |key: &str| serde_json::from_str(header["__metadata__"][key].as_str().unwrap()).unwrap();
        let rows = |key: &str| rows(&header[key], data);
        let [offset, end] = [0, 1].map(|i| header["labels"]["data_offsets"][i].as_u64().unwrap() as usize);
        let labels = data[offset..end].as_chunks::<8>().0.iter().map(|label| i64::from_le_bytes(*label) as usize);
        assert_eq!(header["text_embeddings"]["shape"][0], 1, "one template: the rows are the classes");
        Self {
            files: list("files"),
            sha256: list("image_sha256"),
            labels: labels.collect(),
            images: rows("image_embeddings"),
            classes: rows("text_embeddings"),
        }
    }

    fn best(&self, embedding: &[f32]) -> usize {
        let scores = self.classes.iter().map(|class| dot(class, embedding));
        scores.enumerate().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap().0
    }
}

/// A float tensor as vectors along its last axis.
fn rows(entry: &Value, data: &[u8]) -> Vec<Vec<f32>> {
    let [offset, end] = [0, 1].map(|i| entry["data_offsets"][i].as_u64().unwrap() as usize);
    let data = &data[offset..end];
    let values: Vec<f32> = match entry["dtype"].as_str().unwrap() {
        "F32" => data.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)).collect(),
        "F16" => data.as_chunks::<2>().0.iter().map(|value| f16::from_le_bytes(*value).to_f32()).collect(),
        other => panic!("{other}"),
    };
    let width = entry["shape"].as_array().unwrap().last().unwrap().as_u64().unwrap() as usize;
    values.chunks_exact(width).map(<[f32]>::to_vec).collect()
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Unpacks a data set into a folder that lives as long as the answer; the pictures lie in `<folder>/<name>`.
fn unpack(name: &str) -> Option<(tempfile::TempDir, PathBuf)> {
    let tar = support::shared_data(&format!("{name}/{name}.tar"))?;
    let folder = tempfile::tempdir().unwrap();
    assert!(Command::new("tar").arg("xf").arg(tar).arg("-C").arg(folder.path()).status().unwrap().success());
    let root = folder.path().join(name);
    Some((folder, root))
}

/// Under emulation a frame takes a second: `cross/test.sh` asks for every so-manieth picture only.
fn every() -> usize {
    std::env::var("REMOTECLIPD_PARITY_EVERY").map_or(1, |every| every.parse().unwrap())
}

fn parity(bundle: &str, data: &str, floors: &Floors) {
    let Some((_folder, root)) = unpack(data) else { return };
    let bundle = Bundle::open(Path::new("models").join(bundle)).unwrap();
    let reference = Reference::read(&bundle.folder().join(format!("reference/{data}-test.safetensors")));
    let mut vision = Vision::load(&bundle, Limits::default(), &EncoderOptions::default()).unwrap();
    let (mut right, mut reference_right, mut agree, mut cosine, mut worst) = (0, 0, 0, 0.0, (1.0f32, ""));
    let mut compared = 0;
    for (row, file) in reference.files.iter().enumerate().step_by(every()) {
        compared += 1;
        let bytes = std::fs::read(root.join(file)).unwrap();
        assert_eq!(
            hex::encode(Sha256::digest(&bytes)),
            reference.sha256[row],
            "{file} is another picture than the reference's"
        );
        let ours = vision.embed(&Picture::Encoded(bytes)).unwrap().vector;
        let theirs = &reference.images[row];
        let close = dot(&ours, theirs) / dot(theirs, theirs).sqrt();
        let (found, expected) = (reference.best(&ours), reference.best(theirs));
        right += usize::from(found == reference.labels[row]);
        reference_right += usize::from(expected == reference.labels[row]);
        agree += usize::from(found == expected);
        cosine += f64::from(close);
        if close < worst.0 {
            worst = (close, file);
        }
    }
    let count = f64::from(compared);
    assert!(count > 0.0, "a gate that compares nothing must not pass");
    let share = |n: usize| n as f64 / count;
    let said = format!(
        "{} on {data}: {count} pictures, accuracy {:.2} % (reference {:.2} %), agreement {:.2} %, cosine mean {:.5}, worst {:.4} ({})",
        bundle.manifest().name,
        share(right) * 100.0,
        share(reference_right) * 100.0,
        share(agree) * 100.0,
        cosine / count,
        worst.0,
        worst.1
    );
    println!("{said}");
    assert!(right as f64 >= TIER * reference_right as f64, "{said}");
    assert!(
        share(right) >= floors.accuracy && share(agree) >= floors.agreement && cosine / count >= floors.cosine,
        "{said}"
    );
}

#[test]
fn default_on_ucm() {
    parity("default", "ucm", &Floors { accuracy: 0.93, agreement: 0.98, cosine: 0.999 });
}

#[test]
fn default_on_eurosat() {
    parity("default", "eurosat", &Floors { accuracy: 0.94, agreement: 0.98, cosine: 0.999 });
}

#[test]
fn vit_tiny_on_ucm() {
    parity("vit-tiny", "ucm", &Floors { accuracy: 0.7, agreement: 0.97, cosine: 0.999 });
}

#[test]
fn vit_tiny_on_eurosat() {
    parity("vit-tiny", "eurosat", &Floors { accuracy: 0.92, agreement: 0.97, cosine: 0.999 });
}
