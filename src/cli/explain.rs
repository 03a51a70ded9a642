//! `remoteclipd explain`: why a picture is tagged, or is not, and where in it a label is seen.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use serde::Serialize;

use super::model::{BundleArgs, PromptArgs};
use crate::bundle::Bundle;
use crate::camera::Picture;
use crate::decide::Decider;
use crate::explain::{Explanation, Occlusion, Verdict, draw, explain, occlude};
use crate::vision::{Decoded, EncoderOptions, Limits, Preprocessor, Vision, decode_for};

/// Covered pictures that go through the tower at once.
const BATCH: usize = 16;

/// Options of `explain`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// JPEG, PNG or TIFF file
    #[arg(value_name = "IMAGE")]
    image: PathBuf,
    #[command(flatten)]
    bundle: BundleArgs,
    #[command(flatten)]
    prompts: PromptArgs,
    /// Draw where in the picture the label is seen
    #[arg(long, value_name = "PNG")]
    out: Option<PathBuf>,
    /// The label to draw; the best one when left out
    #[arg(long, value_name = "NAME", requires = "out")]
    label: Option<String>,
    /// Cells of the drawing along a side; a patch of two by two is covered at a time
    #[arg(long, value_name = "N", default_value_t = 8, requires = "out")]
    cells: usize,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    image: &'a Path,
    model: &'a str,
    prompts: &'a str,
    prompt_set: &'a str,
    templates: &'a [String],
    #[serde(flatten)]
    explanation: Explanation,
    /// Each text of each label, its cosine the mean over the templates; null without a text tower.
    texts: Option<Vec<TextView>>,
    occlusion: Option<OcclusionView<'a>>,
}

/// One text of a label.
#[derive(Debug, Clone, Serialize)]
struct TextView {
    label: String,
    text: String,
    cosine: f32,
}

#[derive(Serialize)]
struct OcclusionView<'a> {
    label: &'a str,
    out: &'a Path,
    cells: usize,
    log_odds_fall: &'a [f32],
    least_score: f32,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if let Some(out) = &args.out {
        let png = out.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png"));
        anyhow::ensure!(png, "--out {}: the map is a PNG; give it a name that ends in .png", out.display());
    }
    let bundle = args.bundle.open()?;
    let decider = Decider::new(args.prompts.read(&bundle)?, bundle.manifest().model.logit_scale);
    let bytes = std::fs::read(&args.image).with_context(|| format!("cannot read {}", args.image.display()))?;
    let size = Some(bundle.manifest().image.size);
    let picture = decode_for(&bytes, &Limits::default(), size).with_context(|| args.image.display().to_string())?;
    let mut vision = Vision::load(&bundle, Limits::default(), &EncoderOptions::default())?;
    let vector = vision.embed(&Picture::Encoded(bytes))?.vector;
    drop(vision);
    let explanation = explain(&decider.score(&vector)?, decider.pack().header());
    let texts = texts(&bundle, &decider, &vector)?;
    let seen = args.out.as_deref().map(|out| map(args, out, &picture, &bundle, &decider, &explanation)).transpose()?;
    if !args.json {
        print(&args.image, &explanation, texts.as_deref(), seen.as_ref(), &decider, args.out.as_deref())?;
        return Ok(ExitCode::SUCCESS);
    }
    let occlusion = seen.as_ref().zip(args.out.as_deref()).map(|((label, occlusion), out)| OcclusionView {
        label,
        out,
        cells: occlusion.cells,
        log_odds_fall: &occlusion.fall,
        least_score: occlusion.least_score,
    });
    let header = decider.pack().header();
    let report = Report {
        image: &args.image,
        model: bundle.id(),
        prompts: decider.pack().id(),
        prompt_set: &header.set,
        templates: &header.templates,
        explanation,
        texts,
        occlusion,
    };
    println!("{}", serde_json::to_string(&report)?);
    Ok(ExitCode::SUCCESS)
}

/// Computes and writes the map; gives the label's name with it.
fn map(
    args: &Args,
    out: &Path,
    picture: &Decoded,
    bundle: &Bundle,
    decider: &Decider,
    explanation: &Explanation,
) -> anyhow::Result<(String, Occlusion)> {
    let labels = &decider.pack().header().labels;
    let name = match &args.label {
        Some(name) => name.clone(),
        None => explanation.labels.first().map(|best| best.label.clone()).unwrap_or_default(),
    };
    let label = labels.iter().position(|label| label.name == name).with_context(|| {
        let known: Vec<_> = labels.iter().map(|label| label.name.as_str()).collect();
        format!("--label {name}: the prompt set has no such label, but {}", known.join(", "))
    })?;
    let image = &bundle.manifest().image;
    let square = Preprocessor::new(image.size, image.resize).square(picture)?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let options = EncoderOptions { batch: BATCH, threads, ..EncoderOptions::default() };
    let mut vision = Vision::load(bundle, Limits::default(), &options)?;
    let occlusion = occlude(&square, args.cells, label, image.mean, &mut vision, BATCH, decider)?;
    draw(&picture.image, &occlusion).save(out).with_context(|| format!("--out: cannot write {}", out.display()))?;
    Ok((name, occlusion))
}

/// The cosine of every text, if the bundle has its text tower here.
#[cfg(feature = "host")]
fn texts(bundle: &Bundle, decider: &Decider, vector: &[f32]) -> anyhow::Result<Option<Vec<TextView>>> {
    use crate::prompts::set::sentences;
    use crate::prompts::text::TextTower;
    if !bundle.folder().join(crate::bundle::TEXT_ONNX).exists() {
        return Ok(None);
    }
    let header = decider.pack().header();
    let each = header.labels.iter().flat_map(|label| label.texts.iter().map(move |text| (&label.name, text)));
    let sentences: Vec<String> = each.clone().flat_map(|(_, text)| sentences(&header.templates, text)).collect();
    let cosines: Vec<f32> = TextTower::load(bundle)?
        .embed(&sentences)?
        .iter()
        .map(|sentence| sentence.iter().zip(vector).map(|(a, b)| a * b).sum())
        .collect();
    let means = cosines.chunks(header.templates.len()).map(|part| part.iter().sum::<f32>() / part.len() as f32);
    let view = |((label, text), cosine): ((&String, &String), f32)| TextView {
        label: label.clone(),
        text: text.clone(),
        cosine,
    };
    Ok(Some(each.zip(means).map(view).collect()))
}

/// The device build has no text tower.
#[cfg(not(feature = "host"))]
fn texts(_: &Bundle, _: &Decider, _: &[f32]) -> anyhow::Result<Option<Vec<TextView>>> {
    Ok(None)
}

fn print(
    image: &Path,
    told: &Explanation,
    texts: Option<&[TextView]>,
    seen: Option<&(String, Occlusion)>,
    decider: &Decider,
    out: Option<&Path>,
) -> std::io::Result<()> {
    let mut to = std::io::stdout().lock();
    writeln!(to, "{}: {}", image.display(), told.label.as_deref().unwrap_or("nothing we look for"))?;
    told.why.iter().try_for_each(|sentence| writeln!(to, "  - {sentence}"))?;
    writeln!(to, "\n{:<26} {:>7} {:>7} {:>6} {:>6}  ", "label", "cosine", "score", "enter", "exit")?;
    for view in &told.labels {
        let verdict = match view.verdict {
            Verdict::Tagged => "tagged",
            Verdict::Held => "held if active",
            Verdict::Below => "",
        };
        let (cosine, score) = (view.cosine, view.probability);
        let line =
            format!("{:<26} {cosine:>7.4} {score:>7.4} {:>6.2} {:>6.2}  {verdict}", view.label, view.enter, view.exit);
        writeln!(to, "{}", line.trim_end())?;
    }
    for view in &told.background_texts {
        writeln!(to, "({:<25} {:>7.4} {:>7.4}", format!("{})", view.text), view.cosine, view.probability)?;
    }
    writeln!(to, "margin {:.4}, background {:.4}", told.margin, told.background)?;
    print_texts(&mut to, told, texts, decider)?;
    if let (Some((label, occlusion)), Some(out)) = (seen, out) {
        writeln!(
            to,
            "\n{}: red where {label} is seen, blue where the picture speaks against it, dark what the model does not see.",
            out.display()
        )?;
        writeln!(to, "with the weightiest patch covered {label} scores {:.3}", occlusion.least_score)?;
    }
    Ok(())
}

/// The texts of the five best labels: which of them the picture is near to.
fn print_texts(
    to: &mut impl Write,
    told: &Explanation,
    texts: Option<&[TextView]>,
    decider: &Decider,
) -> std::io::Result<()> {
    let templates = decider.pack().header().templates.len();
    let Some(texts) = texts else {
        return writeln!(
            to,
            "\nthe single texts are not shown: no text tower here (a host build and the bundle's text.onnx)"
        );
    };
    writeln!(to, "\ntexts of the best labels, cosine as the mean over {templates} template(s)")?;
    for label in told.labels.iter().take(5) {
        for view in texts.iter().filter(|view| view.label == label.label) {
            writeln!(to, "{:<26} {:>7.4}  {}", view.label, view.cosine, view.text)?;
        }
    }
    Ok(())
}
