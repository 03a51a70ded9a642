//! `remoteclipd bench`: what each stage costs on this machine.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Serialize;

use super::model::BundleArgs;
use crate::camera::{Camera, Next, Picture, Simulated, SimulatedOptions};
use crate::daemon::resident_memory;
use crate::decide::Decider;
use crate::prompts::pack::{Header, Pack, PackLabel};
use crate::vision::int8::KernelChoice;
use crate::vision::{EncoderOptions, Limits, Vision};

/// Options of `bench`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    bundle: BundleArgs,
    /// Picture to use instead of a simulated 1280 x 960 JPEG
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// Hand the picture over as pixels of the model's size, so that only the tower has work
    #[arg(long, conflicts_with = "image")]
    raw: bool,
    /// Run this int8 kernel instead of the machine's best
    #[arg(long, value_name = "NAME", value_enum)]
    kernel: Option<KernelChoice>,
    /// Threads that share one picture's work
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: usize,
    /// Pictures in one pass of the image tower
    #[arg(long, value_name = "B", default_value_t = 1)]
    batch: usize,
    /// How often each stage is run
    #[arg(long, value_name = "N", default_value_t = 20)]
    iterations: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    bundle: String,
    architecture: String,
    kernel: &'static str,
    /// Of this machine's instructions, those that a kernel exists for.
    cpu_features: Vec<&'static str>,
    threads: usize,
    batch: usize,
    iterations: usize,
    /// Whether `remoteclipd bundle pack` had packed the weights.
    packed: bool,
    /// From nothing loaded to the first embedding.
    ready_ms: f64,
    resident_bytes: Option<u64>,
    /// Multiply-adds of one picture.
    macs: u64,
    /// Billions of multiply-adds a second that the kernel reaches on operands in the first-level cache, one thread.
    kernel_gmacs: f64,
    /// The tower's multiply-adds a second, at the median, of `threads` times `kernel_gmacs`.
    share_of_kernel: f64,
    decode_ms: Stage,
    resize_ms: Stage,
    encode_ms: Stage,
    score_ms: Stage,
}

#[derive(Serialize)]
struct Stage {
    min: f64,
    median: f64,
    p90: f64,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(args.iterations > 0, "--iterations must be at least 1");
    anyhow::ensure!((1..=64).contains(&args.batch), "--batch must be between 1 and 64");
    anyhow::ensure!((1..=64).contains(&args.threads), "--threads must be between 1 and 64");
    let bundle = args.bundle.open()?;
    let manifest = bundle.manifest();
    let pictures = vec![picture(args, manifest.image.size)?; args.batch];
    let options = EncoderOptions { threads: args.threads, batch: args.batch, kernel: args.kernel };
    let started = Instant::now();
    let mut vision = Vision::load(&bundle, Limits::default(), &options)?;
    let decider = Decider::new(pack(manifest.model.embed_dim)?, manifest.model.logit_scale);
    let name = || args.image.as_ref().map_or("the simulated frame".to_owned(), |path| path.display().to_string());
    vision.embed_batch(&pictures).with_context(name)?;
    let ready = started.elapsed();
    let resident_bytes = resident_memory();
    let mut stages: [Vec<f64>; 4] = Default::default();
    for _ in 0..args.iterations {
        let (vectors, timings) = vision.embed_batch(&pictures)?;
        let scoring = Instant::now();
        for vector in &vectors {
            decider.score(vector)?;
        }
        let times = [timings.decode, timings.resize, timings.encode, scoring.elapsed()];
        stages.iter_mut().zip(times).for_each(|(stage, time)| stage.push(ms(time)));
    }
    let [decode_ms, resize_ms, encode_ms, score_ms] = stages.map(Stage::of);
    let encoder = vision.encoder();
    let (macs, kernel_gmacs) = (encoder.macs(), encoder.kernel_macs_per_second() / 1e9);
    let tower_gmacs = macs as f64 * args.batch as f64 / encode_ms.median / 1e6;
    let report = Report {
        bundle: manifest.name.clone(),
        architecture: manifest.model.architecture.clone(),
        kernel: encoder.kernel(),
        cpu_features: KernelChoice::cpu_features(),
        threads: args.threads,
        batch: args.batch,
        iterations: args.iterations,
        packed: encoder.is_packed(),
        ready_ms: ms(ready),
        resident_bytes,
        macs,
        kernel_gmacs,
        share_of_kernel: tower_gmacs / (kernel_gmacs * args.threads as f64),
        decode_ms,
        resize_ms,
        encode_ms,
        score_ms,
    };
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        report.print();
    }
    Ok(ExitCode::SUCCESS)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The given file, or a frame of the simulated camera: as JPEG, or as pixels of the model's size.
fn picture(args: &Args, size: u32) -> anyhow::Result<Picture> {
    if let Some(path) = &args.image {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        return Ok(Picture::Encoded(bytes));
    }
    let (width, height) = if args.raw { (size, size) } else { (1280, 960) };
    let options = SimulatedOptions { width, height, frames_per_second: 1000.0, ..SimulatedOptions::default() };
    let Next::Frame(frame) = Simulated::new(options).next(Duration::from_secs(1))? else {
        anyhow::bail!("the simulated camera gave no frame");
    };
    let Picture::Rgb(image) = frame.picture else { return Ok(frame.picture) };
    if args.raw {
        return Ok(Picture::Rgb(image));
    }
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Jpeg)?;
    Ok(Picture::Encoded(bytes.into_inner()))
}

/// Sixty-four unit vectors: as many rows as a large prompt set, since the built-in pack may be of another model.
fn pack(embed_dim: usize) -> anyhow::Result<Pack> {
    let name = |row: usize| format!("row {row}");
    let label = |row| PackLabel { name: name(row), texts: vec![name(row)], enter: 0.5, exit: 0.4 };
    let header = Header {
        set: "bench".to_owned(),
        set_sha256: String::new(),
        bundle: String::new(),
        text_id: String::new(),
        embed_dim,
        templates: Vec::new(),
        labels: (0..64).map(label).collect(),
        background: Vec::new(),
    };
    let embeddings = (0..64 * embed_dim).map(|i| if i % embed_dim == i / embed_dim % embed_dim { 1.0 } else { 0.0 });
    Ok(Pack::new(header, embeddings.collect())?)
}

impl Stage {
    /// Of at least one time.
    fn of(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
        Self { min: at(0.0), median: at(0.5), p90: at(0.9) }
    }
}

impl Report {
    fn print(&self) {
        println!("bundle    {} ({})", self.bundle, self.architecture);
        println!("kernel    {} ({}), {} thread(s)", self.kernel, self.cpu_features.join(" "), self.threads);
        println!("ready     {:.0} ms{}", self.ready_ms, if self.packed { ", weights packed beforehand" } else { "" });
        if let Some(bytes) = self.resident_bytes {
            println!("resident  {:.0} MiB", bytes as f64 / f64::from(1 << 20));
        }
        println!(
            "work      {:.3} GMAC a picture; {:.0} % of the {:.0} GMAC/s that the kernel alone reaches a thread",
            self.macs as f64 / 1e9,
            self.share_of_kernel * 100.0,
            self.kernel_gmacs
        );
        println!("\n{:<8} {:>9} {:>9} {:>9}   ms over {} runs", "stage", "min", "median", "p90", self.iterations);
        let stages = [
            ("decode", &self.decode_ms),
            ("resize", &self.resize_ms),
            ("encode", &self.encode_ms),
            ("score", &self.score_ms),
        ];
        for (name, stage) in stages {
            println!("{name:<8} {:>9.3} {:>9.3} {:>9.3}", stage.min, stage.median, stage.p90);
        }
        if self.batch > 1 {
            println!("each stage is that of {} pictures together", self.batch);
        }
    }
}
