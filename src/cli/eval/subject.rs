//! What `eval` measures: embeddings from a file, or a bundle's over pictures, with the words they are compared with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::{Args, via};
use crate::bundle::Bundle;
use crate::decide::Decider;
use crate::harness::dataset::{DataSet, Source};
use crate::harness::embed;
use crate::harness::embeddings::EmbeddingSet;
use crate::harness::evaluate::TaskKind;
use crate::harness::metrics::counting;
use crate::harness::report::Device;
use crate::harness::subject::{self, TEMPLATE, Wording};
use crate::prompts;
use crate::prompts::pack::Pack;
use crate::prompts::set::PromptSet;
use crate::prompts::text::TextTower;

/// CLIP's logit scale, for embeddings of a model that does not state its own.
const CLIP_SCALE: f32 = 100.0;

/// What is measured, however it came to be.
pub(super) struct Subject {
    pub set: EmbeddingSet,
    pub train: Option<EmbeddingSet>,
    pub dataset: String,
    pub split: Option<String>,
    pub root: Option<PathBuf>,
    pub logit_scale: f32,
    pub decider: Option<Decider>,
    pub warnings: Vec<String>,
    /// What the pictures came from; none for embeddings from a file.
    pub pictures: Option<(Bundle, DataSet)>,
    pub device: Option<Device>,
}

/// Embeddings from a file.
pub(super) fn from_file(args: &Args, path: &Path) -> anyhow::Result<Subject> {
    let mut set = EmbeddingSet::read(path)?;
    if !args.templates.is_empty() {
        set.keep_template(&args.templates)?;
    }
    let fact = |key: &str| set.metadata.get(key).cloned();
    let stem = || path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let scale = fact("logit_scale").and_then(|scale| scale.parse().ok()).unwrap_or(CLIP_SCALE);
    let decider = args.pack.as_deref().map(|path| Ok::<_, anyhow::Error>(Decider::new(Pack::read(path)?, scale)));
    Ok(Subject {
        dataset: fact("dataset").unwrap_or_else(stem),
        split: fact("split"),
        decider: decider.transpose()?,
        set,
        train: None,
        root: None,
        logit_scale: scale,
        warnings: Vec::new(),
        pictures: None,
        device: None,
    })
}

/// A bundle's towers over pictures.
pub(super) fn from_bundle(args: &Args, reference: Option<&EmbeddingSet>) -> anyhow::Result<Subject> {
    let bundle = args.bundle.open()?;
    let source = |split: &Option<String>| Source {
        data: args.data.clone().unwrap_or_default(),
        captions: args.captions.clone(),
        split: split.clone(),
    };
    let data = DataSet::read(&source(&args.split))?;
    let mut warnings = Vec::new();
    let (wording, decider) = prompts_of(args, &bundle, &data, reference, &mut warnings)?;
    let options = embed::Options {
        threads: args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
        cache: if args.no_cache { None } else { args.cache.clone().or_else(embed::default_cache) },
        progress: true,
    };
    let (set, device) = match args.via.options()? {
        None => (subject::measure(&bundle, &data, &wording, &options)?, None),
        Some(via) => {
            let words = subject::words(&bundle, &data, &wording)?;
            let (set, device) = via::measure(&bundle, &data, &words, &via)?;
            (set, Some(device))
        }
    };
    let train = match &args.train_split {
        None => None,
        Some(_) => {
            let train = train_data(DataSet::read(&source(&args.train_split))?, &data)?;
            Some(subject::measure(&bundle, &train, &wording, &options)?)
        }
    };
    if let Some(path) = &args.embeddings_out {
        set.write(path)?;
    }
    Ok(Subject {
        set,
        train,
        dataset: data.name.clone(),
        split: data.split.clone(),
        root: Some(data.root.clone()),
        logit_scale: bundle.manifest().model.logit_scale,
        decider,
        warnings,
        pictures: Some((bundle, data)),
        device,
    })
}

/// The split that probes learn from, its classes numbered as those of the measured one.
fn train_data(train: DataSet, data: &DataSet) -> anyhow::Result<DataSet> {
    let place = |class: &String| {
        let place = data.classes.iter().position(|own| own == class);
        place.with_context(|| format!("--train-split has the class {class}, the measured split has not"))
    };
    let places = train.classes.iter().map(place).collect::<anyhow::Result<Vec<_>>>()?;
    let labels = train.labels.iter().map(|label| places[*label]).collect();
    Ok(DataSet { labels, classes: data.classes.clone(), captions: Vec::new(), ..train })
}

/// The words that classes are looked for with, and what decides which tags are entered.
fn prompts_of(
    args: &Args,
    bundle: &Bundle,
    data: &DataSet,
    reference: Option<&EmbeddingSet>,
    warnings: &mut Vec<String>,
) -> anyhow::Result<(Wording, Option<Decider>)> {
    let manifest = bundle.manifest();
    let decider = |pack: Pack| Decider::new(pack, manifest.model.logit_scale);
    let given = args.pack.as_deref().map(Pack::read).transpose()?;
    if let Some(pack) = &given {
        pack.fits(&manifest.name, &bundle.text_id())?;
    }
    if let Some(path) = &args.prompts {
        let set = PromptSet::read(path)?;
        let pack = TextTower::load(bundle)?.compile(&set)?;
        let label_of = label_of(data, &set)?;
        return Ok((Wording::Pack { pack: Box::new(pack.clone()), label_of }, Some(decider(given.unwrap_or(pack)))));
    }
    let fallback = || prompts::built_in().ok().filter(|pack| pack.fits(&manifest.name, &bundle.text_id()).is_ok());
    let pack = given.or_else(fallback);
    if pack.is_none() && reference.is_some() {
        warnings.push(
            "the built-in prompts are for another model: decisions are compared on the class prompts at a threshold of \
             0.5; give --pack for those that fly"
                .to_owned(),
        );
    }
    Ok((templates(args, data, reference)?, pack.map(decider)))
}

/// Words and templates: as given, else the reference's, else the folder names.
fn templates(args: &Args, data: &DataSet, reference: Option<&EmbeddingSet>) -> anyhow::Result<Wording> {
    let counting = args.tasks.contains(&TaskKind::Counting);
    let known: BTreeMap<String, String> = match (&args.classes, reference) {
        (Some(path), _) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            serde_json::from_str(&text)
                .with_context(|| format!("{}: a JSON object, folder name to words, is taken", path.display()))?
        }
        (None, Some(set)) => set.classes.iter().cloned().zip(set.class_words.iter().cloned()).collect(),
        (None, None) if counting => {
            let words = |name: &String| Some((name.clone(), counting::in_words(name.parse().ok()?)));
            data.classes.iter().filter_map(words).collect()
        }
        (None, None) => data.classes.iter().map(|name| (name.clone(), name.clone())).collect(),
    };
    let words = |class: &String| match (known.get(class), &args.classes) {
        (Some(words), _) => Ok(words.clone()),
        (None, Some(path)) => anyhow::bail!("{}: has no words for the folder {class}", path.display()),
        // Refused later, by name, with what the reference has.
        (None, None) => Ok(class.clone()),
    };
    let templates = match (args.templates.is_empty(), reference) {
        (false, _) => args.templates.clone(),
        (true, Some(set)) if !set.templates.is_empty() => set.templates.clone(),
        _ => vec![TEMPLATE.to_owned()],
    };
    anyhow::ensure!(
        !counting || !args.templates.is_empty() || reference.is_some(),
        "--task counting needs --template \"a photo of {{}} airplanes\", with what is counted in it"
    );
    if let Some(bad) = templates.iter().find(|template| template.matches("{}").count() != 1) {
        anyhow::bail!("--template \"{bad}\" must contain {{}} exactly once");
    }
    Ok(Wording::Templates { words: data.classes.iter().map(words).collect::<anyhow::Result<_>>()?, templates })
}

/// The label of each class: the one of the same letters and digits (`parkinglot` is "parking lot").
fn label_of(data: &DataSet, set: &PromptSet) -> anyhow::Result<Vec<usize>> {
    let plain = |name: &str| name.to_lowercase().replace(|c: char| !c.is_alphanumeric(), "");
    let place = |class: &String| set.labels.iter().position(|label| plain(&label.name) == plain(class));
    let places: Vec<_> = data.classes.iter().map(place).collect();
    let unnamed: Vec<&str> = data
        .classes
        .iter()
        .zip(&places)
        .filter(|(_, place)| place.is_none())
        .map(|(class, _)| class.as_str())
        .collect();
    anyhow::ensure!(
        unnamed.is_empty(),
        "prompt set \"{}\" has no label for {}; name labels as the folders are named",
        set.name,
        unnamed.join(", ")
    );
    Ok(places.into_iter().flatten().collect())
}
