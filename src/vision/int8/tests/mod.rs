//! Whole towers: what the rewrite makes of them, and how close int8 stays to f32.

mod models;
mod onnx;

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use prost::Message;
use tract_onnx::pb::ModelProto;
use tract_onnx::pb::tensor_proto::DataType;

use self::models::{Transformer, attention_pooled, convolutional};
use super::KernelChoice;
use super::store::{Key, Store, StoreError};
use crate::vision::encoder::{Encoder, EncoderError, EncoderOptions, InputSpec};

fn spec(size: usize) -> InputSpec {
    InputSpec { size, mean: [0.481, 0.458, 0.408], std: [0.269, 0.261, 0.276] }
}

fn encoder(model: &ModelProto, size: usize, options: &EncoderOptions) -> Encoder {
    Encoder::from_proto(model, &spec(size), options).unwrap()
}

/// A picture of waves and dots.
fn picture(size: usize, seed: usize) -> Vec<u8> {
    let level = |i: usize| {
        let (y, x, c) = (i / 3 / size, i / 3 % size, i % 3);
        let wave = ((x * (3 + seed) + y * 5 + c * 40) as f32 * 0.05).sin() * 90.0;
        let dots = if (x / 7 + y / 5 + seed).is_multiple_of(4) { 60.0 } else { 0.0 };
        (110.0 + wave + dots).clamp(0.0, 255.0) as u8
    };
    (0..size * size * 3).map(level).collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Operators that would mean that a layer is still computed from f32 weights.
const LEFT_BEHIND: [&str; 6] = ["QuantWeight", "EinSum", "OptMatMul", "Conv", "OptMatMulPack", "DepthWiseConv"];

fn assert_taken_over(encoder: &Encoder, expected: &[(&str, usize)]) {
    let histogram = encoder.op_histogram();
    for op in LEFT_BEHIND {
        assert!(!histogram.contains_key(op), "{op} is left: {histogram:?}");
    }
    for (op, count) in expected {
        assert_eq!(histogram.get(*op), Some(count), "{op}: {histogram:?}");
    }
}

#[test]
fn a_transformer_is_taken_over_and_close_on_every_kernel() {
    // In the last block the class token alone goes on, and where there are tokens enough, no keys and values are computed for it.
    let pooled =
        [("LinearInt8", 8), ("AttentionInt8", 1), ("AttentionPoolInt8", 1), ("PixelConvInt8", 1), ("EmbedF32", 1)];
    let few_tokens = [("LinearInt8", 9), ("AttentionInt8", 2), ("PixelConvInt8", 1), ("EmbedF32", 1)];
    for (size, quick, expected) in [(48, false, &pooled[..]), (48, true, &pooled), (32, false, &few_tokens)] {
        let shape = Transformer { size, quick, ..Transformer::SMALL };
        let pixels = picture(shape.size, 1);
        let f32 = encoder(&shape.model(false), shape.size, &EncoderOptions::default()).encode(&pixels).unwrap();
        let int8 = shape.model(true);
        for kernel in KernelChoice::ALL.into_iter().filter(|k| k.kernel().is_some()) {
            let mut encoder =
                encoder(&int8, shape.size, &EncoderOptions { kernel: Some(kernel), ..Default::default() });
            assert_taken_over(&encoder, expected);
            let cosine = cosine(&encoder.encode(&pixels).unwrap(), &f32);
            assert!(cosine > 0.9985, "{kernel:?}, size {size}, quick: {quick}: {cosine}");
        }
    }
}

#[test]
fn a_convolutional_tower_is_taken_over_and_close_on_every_kernel() {
    // An odd size: windows overlap the edge on one side only.
    for size in [32, 37] {
        let pixels = picture(size, 2);
        let f32 = encoder(&convolutional(false), size, &EncoderOptions::default()).encode(&pixels).unwrap();
        let int8 = convolutional(true);
        for kernel in KernelChoice::ALL.into_iter().filter(|k| k.kernel().is_some()) {
            let mut encoder = encoder(&int8, size, &EncoderOptions { kernel: Some(kernel), ..Default::default() });
            let expected =
                [("ConvInt8", 3), ("DepthwiseInt8", 1), ("LinearInt8", 1), ("PixelConvInt8", 1), ("SeparableInt8", 1)];
            assert_taken_over(&encoder, &expected);
            let cosine = cosine(&encoder.encode(&pixels).unwrap(), &f32);
            assert!(cosine > 0.998, "{kernel:?}, size {size}: {cosine}");
        }
    }
}

#[test]
fn an_attention_pool_is_taken_over_and_close_on_every_kernel() {
    let pixels = picture(32, 4);
    let f32 = encoder(&attention_pooled(false), 32, &EncoderOptions::default()).encode(&pixels).unwrap();
    for kernel in KernelChoice::ALL.into_iter().filter(|k| k.kernel().is_some()) {
        let options = EncoderOptions { kernel: Some(kernel), ..Default::default() };
        let mut encoder = encoder(&attention_pooled(true), 32, &options);
        assert_taken_over(
            &encoder,
            &[("ConvInt8", 2), ("WinogradInt8", 1), ("AttentionPoolInt8", 1), ("LinearInt8", 1)],
        );
        let cosine = cosine(&encoder.encode(&pixels).unwrap(), &f32);
        assert!(cosine > 0.998, "{kernel:?}: {cosine}");
    }
}

/// Of the last block but its keys and values, only the class token's row is computed.
#[test]
fn rows_that_nobody_reads_are_not_computed() {
    let shape = Transformer { size: 64, layers: 1, ..Transformer::SMALL };
    let (tokens, width, embed) = (17, shape.width as u64, shape.embed as u64);
    let patches = (tokens - 1) * 3 * 16 * 16 * width;
    // Queries, keys and values are four matrices times one vector; two products with each token for each of two heads.
    let pool = 3 * width * width + 2 * 2 * tokens * width;
    let behind = (1 + 4 + 4) * width * width + width * embed;
    let macs = encoder(&shape.model(true), shape.size, &EncoderOptions::default()).macs();
    assert_eq!(macs, patches + pool + behind);
}

/// Where the colours share one standard deviation, the first layer reads the picture in place.
#[test]
fn one_standard_deviation_for_all_colours_is_the_same_function() {
    let grey = |size| InputSpec { size, mean: [0.5, 0.4, 0.6], std: [0.5; 3] };
    for (models, size) in [
        ([false, true].map(|int8| Transformer::SMALL.model(int8)), Transformer::SMALL.size),
        ([false, true].map(convolutional), 37),
    ] {
        let pixels = picture(size, 3);
        let [f32, int8] = models.map(|model| {
            let mut encoder = Encoder::from_proto(&model, &grey(size), &EncoderOptions::default()).unwrap();
            encoder.encode(&pixels).unwrap()
        });
        let cosine = cosine(&int8, &f32);
        assert!(cosine > 0.998, "size {size}: {cosine}");
    }
}

#[test]
fn threads_and_batches_change_nothing() {
    for (model, size) in [
        (Transformer::SMALL.model(true), Transformer::SMALL.size),
        (convolutional(true), 37),
        (attention_pooled(true), 32),
    ] {
        let pictures = [picture(size, 1), picture(size, 2), picture(size, 3)];
        let mut single = encoder(&model, size, &EncoderOptions::default());
        let one_by_one: Vec<f32> = pictures.iter().flat_map(|p| single.encode(p).unwrap()).collect();
        for threads in 1..=4 {
            let options = EncoderOptions { threads, batch: 3, ..Default::default() };
            let together = encoder(&model, size, &options).encode(&pictures.concat()).unwrap();
            assert!(together == one_by_one, "{threads} threads");
        }
    }
}

/// A folder with `model` as `image.onnx`, and the path of that.
fn on_disk(model: &ModelProto) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let onnx = folder.path().join("image.onnx");
    std::fs::write(&onnx, model.encode_to_vec()).unwrap();
    (folder, onnx)
}

#[test]
fn packed_weights_are_the_same_model_on_every_kernel() {
    // What stays in the model: the first layer's weight, those of depthwise layers, of attention pools and of Winograd's form.
    for (model, size, left) in [
        (Transformer::SMALL.model(true), Transformer::SMALL.size, 2),
        (convolutional(true), 37, 2),
        (attention_pooled(true), 32, 5),
    ] {
        let (folder, onnx) = on_disk(&model);
        let (folder, spec, pixels) = (folder.path(), spec(size), picture(size, 1));
        for kernel in KernelChoice::ALL.into_iter().filter(|k| k.kernel().is_some()) {
            let options = EncoderOptions { kernel: Some(kernel), ..Default::default() };
            assert!(Encoder::load_packed(folder, "a", &spec, &options).unwrap().is_none(), "nothing is written yet");
            let path = Encoder::pack(&onnx, "a", &spec, &options, folder).unwrap();
            let mut packed = Encoder::load_packed(folder, "a", &spec, &options).unwrap().unwrap();
            let mut loaded = Encoder::load(&onnx, &spec, &options).unwrap();
            assert_eq!(packed.op_histogram(), loaded.op_histogram());
            assert!(packed.encode(&pixels).unwrap() == loaded.encode(&pixels).unwrap(), "{kernel:?}, size {size}");
            assert!(packed.is_packed() && !loaded.is_packed());

            let key = |sha256| Key::new(&kernel.kernel().unwrap(), sha256);
            let graph = Store::open(&path, &key("a")).unwrap().unwrap().model().unwrap().graph.unwrap();
            let int8 = graph.initializer.iter().filter(|tensor| tensor.data_type == DataType::Int8 as i32);
            assert_eq!(int8.count(), left, "weights that are held twice");
            assert!(matches!(Store::open(&path, &key("b")), Err(StoreError::Other { .. })));
            let mut earlier = std::fs::read(&path).unwrap();
            earlier[..8].copy_from_slice(b"RCLIPPK2");
            std::fs::write(&path, earlier).unwrap();
            assert!(matches!(Store::open(&path, &key("a")), Err(StoreError::Other { .. })), "of an earlier form");
        }
    }
}

proptest! {
    #[test]
    fn damaged_packed_weights_are_refused(at in any::<prop::sample::Index>(), flip in 1u8.., cut in any::<bool>()) {
        static FILE: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
            let (folder, onnx) = on_disk(&convolutional(true));
            let options = EncoderOptions { kernel: Some(KernelChoice::Portable), ..Default::default() };
            std::fs::read(Encoder::pack(&onnx, "a", &spec(32), &options, folder.path()).unwrap()).unwrap()
        });
        let mut bytes = FILE.clone();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] ^= flip }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let key = Key::new(&KernelChoice::Portable.kernel().unwrap(), "a");
        prop_assert!(Store::open(file.path(), &key).is_err());
    }
}

#[test]
fn a_value_that_is_not_finite_is_an_error_that_says_where() {
    let mut model = Transformer::SMALL.model(true);
    let graph = model.graph.as_mut().unwrap();
    let width = Transformer::SMALL.width as i64;
    let place = graph.initializer.iter_mut().find(|t| t.dims == [1, 10, width]).unwrap();
    place.raw_data[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    let mut encoder = encoder(&model, Transformer::SMALL.size, &EncoderOptions::default());
    match encoder.encode(&picture(Transformer::SMALL.size, 1)) {
        Err(EncoderError::Run { reason }) => assert!(reason.contains("not finite"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

/// Under an emulator, which computes f32 in software, a part is tried.
fn in_part() -> bool {
    std::env::var_os("REMOTECLIPD_PARITY_PART").is_some()
}

/// Squares cut from the photographs of `../shared/data/drone`, if they are there.
fn photographs(size: u32) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/drone");
    let Ok(files) = std::fs::read_dir(&folder) else { return vec![] };
    let mut files: Vec<PathBuf> = files.filter_map(|f| Some(f.ok()?.path())).collect();
    files.retain(|f| f.extension().is_some_and(|e| e.eq_ignore_ascii_case("jpg")));
    files.sort();
    if in_part() {
        files.truncate(2);
    }
    let cut = |file: &PathBuf| {
        let photograph = image::open(file).unwrap().to_rgb8();
        let side = photograph.height().min(photograph.width());
        let square = image::imageops::crop_imm(&photograph, 0, 0, side, side).to_image();
        image::imageops::thumbnail(&square, size, size).into_raw()
    };
    files.iter().map(cut).collect()
}

/// Real CLIP towers have channels a hundred times larger than the rest. Planted ones stand for them: the same function
/// in f32, and what breaks int8 with one scale a tensor.
#[test]
fn outlier_channels_do_not_break_vit_b_32() {
    let pictures = photographs(224);
    if pictures.is_empty() {
        println!("skipped: ../shared/data/drone holds no photographs");
        return;
    }
    let shape = Transformer { layers: if in_part() { 1 } else { 12 }, ..Transformer::B32 };
    let layers = shape.layers;
    let encode = |int8: bool| -> Vec<Vec<f32>> {
        let mut encoder = encoder(&shape.model(int8), shape.size, &EncoderOptions::default());
        if int8 {
            let expected = [("LinearInt8", 4 * layers), ("AttentionPoolInt8", 1), ("PixelConvInt8", 1)];
            assert_taken_over(&encoder, &expected);
        }
        pictures.iter().map(|p| encoder.encode(p).unwrap()).collect()
    };
    let (f32, int8) = (encode(false), encode(true));
    let cosines: Vec<f64> = f32.iter().zip(&int8).map(|(a, b)| cosine(a, b)).collect();
    let mean = cosines.iter().sum::<f64>() / cosines.len() as f64;
    let least = cosines.iter().copied().fold(1.0, f64::min);
    println!("cosine to f32 with outlier channels: mean {mean:.5}, least {least:.5}");
    assert!(mean >= 0.999 && least >= 0.998, "mean {mean}, least {least}");
}

/// The bundles in `models/` that hold int8 weights.
#[test]
fn shipped_bundles_are_taken_over() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    for (name, size, expected) in [
        ("default", 128, &[("SeparableInt8", 13), ("LinearInt8", 1), ("PixelConvInt8", 1)][..]),
        // All its tokens go on: of their mean, none is left out.
        ("vit-tiny", 0, &[("LinearInt8", 25), ("AttentionInt8", 6), ("PixelConvInt8", 1), ("EmbedF32", 1)][..]),
    ] {
        let file = models.join(name).join("image.onnx");
        let manifest = std::fs::read_to_string(models.join(name).join("manifest.toml"));
        let (true, Ok(manifest)) = (file.is_file(), manifest) else {
            println!("skipped: models/{name} is not there");
            continue;
        };
        let stated = manifest.parse::<toml::Table>().unwrap()["image"]["size"].as_integer().unwrap() as usize;
        assert!(size == 0 || size == stated, "models/{name}: size {stated}");
        let encoder = Encoder::load(&file, &spec(stated), &EncoderOptions::default()).unwrap();
        assert_taken_over(&encoder, expected);
    }
}
