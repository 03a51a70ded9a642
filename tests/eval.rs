//! `remoteclipd eval` through the binary: published figures, exit codes, and every kind of reference that does not fit.

#![cfg(feature = "host")]
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use remoteclipd::harness::embeddings::EmbeddingSet;
use remoteclipd::harness::tensors::Matrix;
use serde_json::{Value, json};
use support::binary;
use tempfile::TempDir;

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", stderr(output)))
}

fn eval(args: &[&str]) -> Output {
    binary().arg("eval").args(args).output().unwrap()
}

/// Some pictures with everything that is made of them; measured once, by the binary, as its own reference.
struct Small {
    folder: TempDir,
}

impl Small {
    /// Four classes of six pictures of one colour and grain each, and their embeddings as `reference.safetensors`.
    fn new() -> Self {
        let small = Self { folder: tempfile::tempdir().unwrap() };
        let classes =
            [("beach", [220, 200, 150]), ("forest", [20, 80, 30]), ("river", [40, 80, 160]), ("roof", [150, 60, 50])];
        let mut sentences = Vec::new();
        for (class, colour) in classes {
            std::fs::create_dir_all(small.data().join(class)).unwrap();
            for at in 0..6u32 {
                let grain = |x: u32, y: u32| (((x * (at + 3)) ^ (y * 5)) & (15 + 2 * at)) as u8;
                let pixel = |x: u32, y: u32| image::Rgb(colour.map(|channel: u8| channel ^ grain(x, y)));
                let file = format!("{class}/{at}.png");
                image::RgbImage::from_fn(64 + 8 * at, 64, pixel).save(small.data().join(&file)).unwrap();
                let raw = [format!("a picture of a {class} ."), format!("Number {at} of the {class} .")];
                sentences
                    .push(json!({"filename": file, "split": "test", "sentences": raw.map(|raw| json!({"raw": raw}))}));
            }
        }
        std::fs::write(small.path("dataset_small.json"), json!({"images": sentences}).to_string()).unwrap();
        let output = small.eval(&["--embeddings-out", small.path("reference.safetensors").to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        small
    }

    fn data(&self) -> PathBuf {
        self.path("small")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn eval(&self, args: &[&str]) -> Output {
        let captions = self.path("dataset_small.json");
        let mut command = binary();
        command.arg("eval").arg("--data").arg(self.data()).arg("--captions").arg(captions);
        command.args(["--json", "--no-cache", "--resamples", "100"]).args(args).output().unwrap()
    }

    /// Against its own reference, changed.
    fn against(&self, change: impl FnOnce(&mut EmbeddingSet), args: &[&str]) -> Output {
        let mut set = EmbeddingSet::read(&self.path("reference.safetensors")).unwrap();
        change(&mut set);
        let path = self.path("changed.safetensors");
        set.write(&path).unwrap();
        self.eval(&[&["--reference", path.to_str().unwrap()], args].concat())
    }
}

/// Rows in another order, their names left where they are.
fn moved(matrix: &Matrix, order: impl Fn(usize) -> usize) -> Matrix {
    matrix.select(&(0..matrix.len()).map(order).collect::<Vec<_>>())
}

#[test]
fn the_published_figures_come_out_of_the_golden_files() {
    for (model, template, acc1) in [
        ("rn50", None, 95.42),
        ("vit-b-32", None, 95.22),
        ("rn50", Some("a satellite photo of a"), 95.52),
        ("vit-b-32", Some("a satellite photo of a"), 93.43),
    ] {
        let Some(file) = support::shared_data(&format!("remoteclip-golden/remoteclip-{model}-whu-rs19.safetensors"))
        else {
            return;
        };
        let template: Vec<&str> = template.map_or_else(Vec::new, |text| vec!["--template", text]);
        let output = eval(&[&["--only-embeddings", file.to_str().unwrap(), "--json"], &template[..]].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let report = report(&output);
        assert_eq!(report["percent"]["acc1"], acc1, "{model} {template:?}");
        assert_eq!((&report["dataset"], &report["task"]), (&json!("WHU-RS19"), &json!("zeroshot_classification")));
        assert!((report["metrics"]["acc1"].as_f64().unwrap() * 100.0 - acc1).abs() < 0.005);
    }
}

#[test]
fn an_equal_reference_passes_and_a_shuffled_one_fails_with_names() {
    let small = Small::new();
    let output = small.against(|_| {}, &["--report", small.path("out").to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let found = report(&output);
    assert_eq!(found["gates"]["passed"], true);
    assert_eq!(found["parity"]["top1_agreement"], 1.0);
    assert!(found["parity"]["cosine"]["min"].as_f64().unwrap() > 1.0 - 1e-9);
    for metric in found["tasks"].as_array().unwrap().iter().flat_map(|task| task["metrics"].as_array().unwrap()) {
        assert_eq!(
            (&metric["difference"], &metric["difference_interval"]),
            (&json!(0.0), &json!([0.0, 0.0])),
            "{metric}"
        );
    }
    let written: Value = serde_json::from_slice(&std::fs::read(small.path("out/report.json")).unwrap()).unwrap();
    assert_eq!(written["metrics"], found["metrics"]);
    for file in ["report.md", "report.html"] {
        assert!(std::fs::metadata(small.path("out").join(file)).unwrap().len() > 0);
    }

    let output = small.against(|set| set.images = moved(&set.images, |row| (row * 7 + 3) % 24), &[]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let said = stderr(&output);
    assert!(said.contains("gates FAILED") && said.contains("cosine mean: ") && said.contains("off by"), "{said}");
}

#[test]
fn swapped_rows_are_named_with_the_pictures_they_fit() {
    let small = Small::new();
    // beach/0.png and roof/5.png change places.
    let swap = |row| match row {
        0 => 23,
        23 => 0,
        row => row,
    };
    let output = small.against(|set| set.images = moved(&set.images, swap), &[]);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(said.contains("beach/0.png (its row fits roof/5.png)"), "{said}");
    assert!(said.contains("roof/5.png (its row fits beach/0.png)"), "{said}");
}

#[test]
fn a_reference_in_another_order_is_paired_by_name() {
    let small = Small::new();
    let turn = |row: usize| (row * 5 + 1) % 24;
    let output = small.against(
        |set| {
            let places: Vec<usize> = (0..24).map(turn).collect();
            let place_of = |row: usize| places.iter().position(|place| *place == row).unwrap();
            set.images = moved(&set.images, turn);
            set.files = places.iter().map(|row| set.files[*row].clone()).collect();
            set.image_sha256 = places.iter().map(|row| set.image_sha256[*row].clone()).collect();
            set.labels = places.iter().map(|row| set.labels[*row]).collect();
            set.captions.image = set.captions.image.iter().map(|row| place_of(*row)).collect();
        },
        &[],
    );
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn what_cannot_be_compared_is_an_error_and_never_a_pass() {
    type Change = fn(&mut EmbeddingSet);
    let small = Small::new();
    let cases: [(Change, &str); 6] = [
        (|set| _ = set.metadata.insert("checkpoint_sha256".to_owned(), "0".repeat(64)), "is of another model"),
        (|set| set.metadata.clear(), "does not say which model"),
        (|set| set.files.iter_mut().for_each(|file| file.insert(0, 'x')), "no picture in common"),
        (|set| set.files[3] = "beach/9.png".to_owned(), "lacks 1 of 24 pictures (beach/3.png)"),
        (|set| set.image_sha256[5] = "0".repeat(64), "1 of 24 differ in SHA-256 (beach/5.png)"),
        (|set| set.captions.texts[1] = "Something else".to_owned(), "the caption \"Something else\" of beach/0.png"),
    ];
    for (change, named) in cases {
        let output = small.against(change, &[]);
        assert!(stderr(&output).contains(named), "{named}: {}", stderr(&output));
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{named}");
    }
    let output = small.against(|_| {}, &["--template", "a drawing of {}."]);
    assert!(output.status.code() == Some(2) && stderr(&output).contains("other prompts"), "{}", stderr(&output));
    let output = small.eval(&["--gates", "config/parity.toml"]);
    assert!(
        output.status.code() == Some(2) && stderr(&output).contains("the gates compare nothing"),
        "{}",
        stderr(&output)
    );
}

/// Writes NaN over the first value of row `row` of `image_embeddings`.
fn poison(path: &Path, row: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let entry = &header["image_embeddings"];
    let (start, width) = (entry["data_offsets"][0].as_u64().unwrap(), entry["shape"][1].as_u64().unwrap());
    let at = 8 + length + start as usize + row * width as usize * 4;
    bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn nan_in_a_reference_is_named() {
    let small = Small::new();
    let path = small.path("reference.safetensors");
    poison(&path, 7);
    let output = small.eval(&["--reference", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("image_embeddings of forest/1.png (row 7) holds NaN"), "{}", stderr(&output));
}

#[test]
fn broken_absent_and_doubled_pictures_are_named() {
    let small = Small::new();
    let captions = small.path("dataset_small.json");
    let good = std::fs::read_to_string(&captions).unwrap();
    let says = |named: &str| {
        let output = small.eval(&[]);
        assert!(stderr(&output).contains(named), "{named}: {}", stderr(&output));
        assert_eq!(output.status.code(), Some(2));
    };
    std::fs::write(&captions, good.replacen("river/2.png", "river/7.png", 1)).unwrap();
    says("names pictures that are not below");
    says("(1): river/7.png");
    std::fs::write(&captions, good.replacen("river/2.png", "river/3.png", 1)).unwrap();
    says("names pictures twice (1): river/3.png");
    std::fs::write(&captions, "{\"images\": []}").unwrap();
    says("has no split \"test\"");
    std::fs::write(&captions, &good).unwrap();
    std::fs::write(small.data().join("roof/1.png"), "not a picture").unwrap();
    let cut = std::fs::read(small.data().join("beach/4.png")).unwrap();
    std::fs::write(small.data().join("beach/4.png"), &cut[..cut.len() / 2]).unwrap();
    says("2 of 24 pictures");
    says("beach/4.png: picture cannot be decoded");
    says("roof/1.png: not a JPEG, PNG or TIFF picture");
}

#[test]
fn empty_data_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let output = eval(&["--no-cache", "--data", folder.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("holds no picture"), "{}", stderr(&output));
}

#[test]
fn an_other_bundles_reference_is_refused_by_name() {
    let Some(ucm) = support::ucm() else { return };
    let captions = support::shared_data("captions/dataset_ucm.json").unwrap();
    let data = ucm.path().join("ucm");
    let output = eval(&[
        "--no-cache",
        "--data",
        data.to_str().unwrap(),
        "--captions",
        captions.to_str().unwrap(),
        "--reference",
        "models/vit-tiny/reference/ucm-test.safetensors",
    ]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("\"vit-tiny\" instead of \"default\""), "{}", stderr(&output));
}

#[test]
fn a_killed_run_goes_on_where_it_was() {
    let small = Small::new();
    let cache = small.path("cache");
    let run = || {
        let output = binary()
            .args(["eval", "--json", "--resamples", "0", "--cache", cache.to_str().unwrap()])
            .arg("--data")
            .arg(small.data())
            .env("RUST_LOG", "remoteclipd=info")
            .output()
            .unwrap();
        (report(&output)["metrics"].clone(), stderr(&output))
    };
    let (first, said) = run();
    assert!(!said.contains("embedded before"), "{said}");
    let file = std::fs::read_dir(&cache).unwrap().next().unwrap().unwrap().path();
    let whole = std::fs::read(&file).unwrap();
    // As a kill in the midst of the eleventh record leaves it.
    let record = (whole.len() - 40) / 24;
    std::fs::write(&file, &whole[..40 + 10 * record + record / 2]).unwrap();
    let (second, said) = run();
    assert!(said.contains("10 of 24 pictures were embedded before"), "{said}");
    assert_eq!((first, std::fs::metadata(&file).unwrap().len()), (second, whole.len() as u64));
}

#[test]
fn probes_counts_and_prompt_sets_are_measured() {
    let small = Small::new();
    let tasks = ["--task", "zeroshot_classification,zeroshot_retrieval,linear_probe,knn,few_shot", "--shots", "1,3"];
    let output = small.against(|_| {}, &tasks);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let found = report(&output);
    assert!(found["gates"]["verdicts"].as_array().unwrap().iter().any(|verdict| verdict["what"] == "lp_acc1"));
    let metrics = found["metrics"].clone();
    for name in
        ["lp_acc1", "knn_acc1", "few_shot_1_acc1", "few_shot_3_mean_per_class_recall", "text_retrieval_recall@5"]
    {
        assert!((0.0..=1.0).contains(&metrics[name].as_f64().unwrap()), "{name}: {metrics}");
    }
    // Twenty of twenty-three others vote: most of the voters are of other classes.
    assert!(metrics["knn_acc1"].as_f64().unwrap() > 0.4, "{metrics}");
    // Four colours are told apart by any probe.
    assert!(metrics["lp_acc1"].as_f64().unwrap() > 0.9, "{metrics}");

    let prompts = small.path("prompts.toml");
    let labels =
        ["Beach", "forest", "river", "roof", "swimming pool"].map(|name| format!("[[label]]\nname = \"{name}\"\n"));
    std::fs::write(&prompts, format!("name = \"own\"\n{}", labels.concat())).unwrap();
    let found = report(&small.eval(&["--prompts", prompts.to_str().unwrap()]));
    assert_eq!(found["prompts"]["classes"].as_array().unwrap().len(), 5);
    std::fs::write(&prompts, format!("name = \"own\"\n{}", labels[1..].concat())).unwrap();
    let output = small.eval(&["--prompts", prompts.to_str().unwrap()]);
    assert!(stderr(&output).contains("\"own\" has no label for beach"), "{}", stderr(&output));

    let counts = small.path("counts");
    std::fs::create_dir(&counts).unwrap();
    for (count, class) in [("1", "beach"), ("2", "forest"), ("10", "roof")] {
        std::fs::rename(small.data().join(class), counts.join(count)).unwrap();
    }
    let counted = |args: &[&str]| {
        eval(&[&["--no-cache", "--json", "--task", "counting", "--data", counts.to_str().unwrap()], args].concat())
    };
    let found = report(&counted(&["--template", "a photo of {} airplanes"]));
    assert_eq!(found["prompts"]["class_words"], json!(["one", "ten", "two"]));
    assert!(found["metrics"]["count_mae"].as_f64().unwrap() <= 9.0);
    assert!(stderr(&counted(&[])).contains("needs --template"));
}

/// `clip_benchmark` from PyPI on the same embeddings. `REMOTECLIPD_PYTHON` names a Python that has it.
#[test]
fn metrics_are_clip_benchmarks() {
    let python = std::env::var("REMOTECLIPD_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let importable =
        Command::new(&python).args(["-c", "import clip_benchmark.metrics.zeroshot_retrieval, safetensors"]).output();
    if !importable.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: {python} has no clip_benchmark with torch (`just test-metrics` installs it)");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (name, file) in [
        ("golden", support::shared_data("remoteclip-golden/remoteclip-vit-b-32-whu-rs19.safetensors")),
        ("ucm", Some(PathBuf::from("models/default/reference/ucm-test.safetensors"))),
        ("vit-tiny", Some(PathBuf::from("models/vit-tiny/reference/eurosat-test.safetensors"))),
    ] {
        let Some(file) = file else { continue };
        let path = folder.path().join(name);
        distinct(EmbeddingSet::read(&file).unwrap()).write(&path).unwrap();
        let ours = report(&eval(&["--only-embeddings", path.to_str().unwrap(), "--json"]));
        let output = Command::new(&python).arg("tests/peer_metrics.py").arg(&path).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let theirs: BTreeMap<String, f64> = serde_json::from_slice(&output.stdout).unwrap();
        assert!(theirs.len() >= 3);
        for (metric, expected) in theirs {
            let found = ours["metrics"][&metric].as_f64().unwrap();
            println!("{name} {metric}: {found:.9}, clip_benchmark {expected:.9}");
            assert!((found - expected).abs() < 1e-6, "{name} {metric}: {found}, clip_benchmark {expected}");
        }
    }
}

/// Captions that repeat word for word have equal similarities, whose order no protocol tells: each is turned a little, far
/// enough that none stand within f32's rounding of each other at a rank that counts.
fn distinct(mut set: EmbeddingSet) -> EmbeddingSet {
    let mut state = 1u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    for matrix in [&mut set.images, &mut set.captions.embeddings] {
        let rows: Vec<Vec<f32>> =
            matrix.rows().map(|row| row.iter().map(|value| value + 0.05 * noise()).collect()).collect();
        *matrix = Matrix::of_rows(matrix.width(), rows).normalised().unwrap_or_default();
    }
    set
}
