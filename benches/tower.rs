//! The shipped image towers on this machine, by kernel, threads and batch: `cargo bench tower`. Items are pictures; what
//! counts is the ratio between rows of one run. Against other engines: `benches/peers/run`.

use std::path::Path;

use divan::Bencher;
use divan::counter::ItemsCount;
use remoteclipd::bundle::{Bundle, IMAGE_ONNX};
use remoteclipd::vision::int8::KernelChoice;
use remoteclipd::vision::{Encoder, EncoderOptions, InputSpec};

fn main() {
    divan::main();
}

const BUNDLES: [&str; 2] = ["default", "vit-tiny"];

#[divan::bench(args = BUNDLES, consts = [1, 2, 4])]
fn threads<const THREADS: usize>(bencher: Bencher, bundle: &str) {
    encode(bencher, bundle, &EncoderOptions { threads: THREADS, ..EncoderOptions::default() });
}

#[divan::bench(args = BUNDLES, consts = [1, 8])]
fn batch<const BATCH: usize>(bencher: Bencher, bundle: &str) {
    encode(bencher, bundle, &EncoderOptions { batch: BATCH, ..EncoderOptions::default() });
}

#[divan::bench(args = BUNDLES)]
fn portable_kernel(bencher: Bencher, bundle: &str) {
    encode(bencher, bundle, &EncoderOptions { kernel: Some(KernelChoice::Portable), ..EncoderOptions::default() });
}

fn encode(bencher: Bencher, name: &str, options: &EncoderOptions) {
    let (mut encoder, size) = match load(name, options) {
        Ok(loaded) => loaded,
        Err(error) => panic!("models/{name}: {error}"),
    };
    let pixels: Vec<u8> = (0..options.batch * size * size * 3).map(|i| (i * 31 % 256) as u8).collect();
    bencher.counter(ItemsCount::new(options.batch)).bench_local(|| encoder.encode(divan::black_box(&pixels)));
}

fn load(name: &str, options: &EncoderOptions) -> Result<(Encoder, usize), Box<dyn std::error::Error>> {
    let bundle = Bundle::open(Path::new("models").join(name))?;
    let image = &bundle.manifest().image;
    let size = image.size as usize;
    let input = InputSpec { size, mean: image.mean, std: image.std };
    Ok((Encoder::load(&bundle.verified(IMAGE_ONNX)?, &input, options)?, size))
}
