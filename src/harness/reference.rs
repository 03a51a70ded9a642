//! A reference brought into the order of what it is compared with, or refused.
//!
//! Promise: what comes out has, row by row, the same pictures, classes, prompts and captions as ours, of the same model.
//! Rows are paired by file name and never by place; whatever does not belong together is an error that names it.

use std::collections::HashMap;

use super::HarnessError;
use super::embeddings::{Captions, EmbeddingSet};
use super::tensors::Matrix;

/// Of the names in an error.
const MOST_NAMES: usize = 5;
/// What names a model; the first that both sides state decides.
const IDENTITY: [&str; 3] = ["checkpoint_sha256", "bundle", "model"];

/// The reference in our order, and what is odd about it.
#[derive(Debug)]
pub struct Aligned {
    /// Its rows are our rows, its classes our classes, its captions our captions.
    pub set: EmbeddingSet,
    /// For people.
    pub warnings: Vec<String>,
}

/// Pairs `reference` with `ours`.
///
/// # Errors
/// [`HarnessError::Form`]: another model, other prompts, no pictures in common, pictures it lacks, other pictures of the
/// same names, other classes or captions.
pub fn align(ours: &EmbeddingSet, reference: EmbeddingSet) -> Result<Aligned, HarnessError> {
    let file = reference.source.as_ref().map_or_else(String::new, |(path, _)| path.display().to_string());
    let mut warnings = Vec::new();
    let set = aligned(ours, reference, &mut warnings);
    let set = set.map_err(|reason| HarnessError::Form(format!("reference {file}: {reason}")))?;
    Ok(Aligned { set, warnings })
}

fn aligned(ours: &EmbeddingSet, reference: EmbeddingSet, warnings: &mut Vec<String>) -> Result<EmbeddingSet, String> {
    same_model(ours, &reference)?;
    same_prompts(ours, &reference)?;
    let rows = rows(ours, &reference, warnings)?;
    let class_of = classes(ours, &reference)?;
    same_pictures(ours, &reference, &rows)?;
    same_labels(ours, &reference, &rows, &class_of)?;
    let mut order = vec![0; class_of.len()];
    class_of.iter().enumerate().for_each(|(theirs, own)| order[*own] = theirs);
    let mut texts: Vec<Matrix> = reference.texts.iter().map(|matrix| matrix.select(&order)).collect();
    if texts.is_empty() && !ours.texts.is_empty() {
        warnings.push("the reference has no text_embeddings: ours stand in for them on both sides".to_owned());
        texts = ours.texts.clone();
    }
    let captions = if ours.captions.image.is_empty() || !reference.captions.image.is_empty() {
        captions(ours, &reference, &rows)?
    } else {
        warnings.push("the reference has no caption_embeddings: ours stand in for them on both sides".to_owned());
        ours.captions.clone()
    };
    Ok(EmbeddingSet {
        images: reference.images.select(&rows),
        texts,
        captions,
        source: reference.source,
        metadata: reference.metadata,
        ..ours.clone()
    })
}

fn same_model(ours: &EmbeddingSet, reference: &EmbeddingSet) -> Result<(), String> {
    let both = |key: &&str| Some((ours.metadata.get(*key)?, reference.metadata.get(*key)?));
    let name = |set: &EmbeddingSet| {
        let named = ["bundle", "model"].iter().find_map(|key| set.metadata.get(*key));
        named.map_or_else(|| "an unnamed model".to_owned(), |name| format!("\"{name}\""))
    };
    match IDENTITY.iter().find_map(|key| Some((key, both(key)?))) {
        None => Err("does not say which model made it (metadata checkpoint_sha256, bundle or model); \
                     make it with models/tools/reference.py"
            .to_owned()),
        Some((_, (own, theirs))) if own == theirs && ours.images.width() == reference.images.width() => Ok(()),
        Some((key, (own, theirs))) => Err(format!(
            "is of another model: {} instead of {} ({key} {theirs}, ours {own}; width {}, ours {}); take the reference of \
             this bundle",
            name(reference),
            name(ours),
            reference.images.width(),
            ours.images.width()
        )),
    }
}

fn same_prompts(ours: &EmbeddingSet, reference: &EmbeddingSet) -> Result<(), String> {
    if reference.texts.is_empty() || ours.texts.is_empty() {
        return Ok(());
    }
    let told = |set: &EmbeddingSet| format!("{:?} with {} classes", set.templates, set.classes.len());
    match (ours.prompts_sha256(), reference.prompts_sha256()) {
        (Some(own), Some(theirs)) if own == theirs => Ok(()),
        (None, None) if ours.templates == reference.templates && ours.classes == reference.classes => Ok(()),
        _ => Err(format!(
            "was made with other prompts: {}, ours {}; leave out --classes, --template and --prompts to take the \
             reference's, or make the reference with these",
            told(reference),
            told(ours)
        )),
    }
}

/// The reference's row of each of our pictures.
fn rows(ours: &EmbeddingSet, reference: &EmbeddingSet, warnings: &mut Vec<String>) -> Result<Vec<usize>, String> {
    if ours.files.is_empty() && reference.files.is_empty() {
        let same = ours.images.len() == reference.images.len() && ours.labels == reference.labels;
        warnings.push("neither side names its pictures: they were paired by place".to_owned());
        return match same {
            true => Ok((0..ours.images.len()).collect()),
            false => Err("names no pictures and has other labels than ours; they cannot be paired".to_owned()),
        };
    }
    let places = reference.row_of();
    let found: Vec<Option<usize>> = ours.files.iter().map(|file| places.get(file.as_str()).copied()).collect();
    let absent: Vec<&str> =
        ours.files.iter().zip(&found).filter(|(_, row)| row.is_none()).map(|(file, _)| file.as_str()).collect();
    if absent.len() == ours.files.len() {
        return Err("has no picture in common with the data; names must be the same below the data's folder".to_owned());
    }
    if !absent.is_empty() {
        return Err(format!(
            "lacks {} of {} pictures ({}); evaluate the split it was made of (--split), or make a reference of these",
            absent.len(),
            ours.files.len(),
            some(&absent)
        ));
    }
    let used: std::collections::HashSet<&str> = ours.files.iter().map(String::as_str).collect();
    let spare: Vec<&str> = reference.files.iter().map(String::as_str).filter(|file| !used.contains(file)).collect();
    if !spare.is_empty() {
        warnings.push(format!(
            "the reference has {} pictures that the data lacks and that were not compared ({})",
            spare.len(),
            some(&spare)
        ));
    }
    Ok(found.into_iter().flatten().collect())
}

/// Our index of each of the reference's classes.
fn classes(ours: &EmbeddingSet, reference: &EmbeddingSet) -> Result<Vec<usize>, String> {
    let own: HashMap<&str, usize> = ours.classes.iter().enumerate().map(|(at, name)| (name.as_str(), at)).collect();
    if ours.labels.is_empty() && ours.texts.is_empty() {
        return Ok(Vec::new());
    }
    let found: Vec<Option<usize>> = reference.classes.iter().map(|name| own.get(name.as_str()).copied()).collect();
    if found.len() == ours.classes.len() && found.iter().all(Option::is_some) {
        return Ok(found.into_iter().flatten().collect());
    }
    Err(format!("has the classes {}, the data has {}", reference.classes.join(", "), ours.classes.join(", ")))
}

fn same_pictures(ours: &EmbeddingSet, reference: &EmbeddingSet, rows: &[usize]) -> Result<(), String> {
    if ours.image_sha256.is_empty() || reference.image_sha256.is_empty() {
        return Ok(());
    }
    let differs = |(at, row): &(usize, &usize)| ours.image_sha256[*at] != reference.image_sha256[**row];
    let other: Vec<&str> = rows.iter().enumerate().filter(differs).map(|(at, _)| ours.files[at].as_str()).collect();
    if other.is_empty() {
        return Ok(());
    }
    Err(format!(
        "saw other pictures of the same names: {} of {} differ in SHA-256 ({}); copy the data again or make a new reference",
        other.len(),
        rows.len(),
        some(&other)
    ))
}

fn same_labels(
    ours: &EmbeddingSet,
    reference: &EmbeddingSet,
    rows: &[usize],
    class_of: &[usize],
) -> Result<(), String> {
    if ours.labels.is_empty() || reference.labels.is_empty() {
        return Ok(());
    }
    let other = rows.iter().enumerate().find(|(at, row)| class_of[reference.labels[**row]] != ours.labels[*at]);
    match other {
        None => Ok(()),
        Some((at, row)) => Err(format!(
            "labels {} as {}, the data as {}",
            ours.name(at),
            reference.classes[reference.labels[*row]],
            ours.classes[ours.labels[at]]
        )),
    }
}

/// The reference's captions in our order: those of one picture keep the order they have.
fn captions(ours: &EmbeddingSet, reference: &EmbeddingSet, rows: &[usize]) -> Result<Captions, String> {
    let mut of_row: HashMap<usize, Vec<usize>> = HashMap::new();
    reference.captions.image.iter().enumerate().for_each(|(at, row)| of_row.entry(*row).or_default().push(at));
    let mut taken = vec![0; rows.len()];
    let mut order = Vec::new();
    for (at, image) in ours.captions.image.iter().enumerate() {
        let theirs = of_row.get(&rows[*image]).and_then(|captions| captions.get(taken[*image]));
        taken[*image] += 1;
        let text = |set: &EmbeddingSet, at: usize| set.captions.texts.get(at).cloned();
        let theirs = *theirs.ok_or_else(|| format!("has fewer captions of {} than the data", ours.name(*image)))?;
        if let (Some(own), Some(other)) = (text(ours, at), text(reference, theirs))
            && own != other
        {
            return Err(format!("has the caption \"{other}\" of {}, the data \"{own}\"", ours.name(*image)));
        }
        order.push(theirs);
    }
    let embeddings = match order.is_empty() {
        true => Matrix::default(),
        false => reference.captions.embeddings.select(&order),
    };
    Ok(Captions { embeddings, ..ours.captions.clone() })
}

fn some(names: &[&str]) -> String {
    let more = if names.len() > MOST_NAMES { ", …" } else { "" };
    format!("{}{more}", names[..names.len().min(MOST_NAMES)].join(", "))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn texts(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn set() -> EmbeddingSet {
        EmbeddingSet {
            metadata: BTreeMap::from([("bundle".to_owned(), "tiny".to_owned())]),
            files: texts(&["a/1.jpg", "a/2.jpg", "b/3.jpg"]),
            image_sha256: texts(&["01", "02", "03"]),
            images: Matrix::new(2, vec![1.0, 0.0, 0.6, 0.8, 0.0, 1.0]),
            labels: vec![0, 0, 1],
            classes: texts(&["a", "b"]),
            class_words: texts(&["apple", "bread"]),
            templates: texts(&["a {}"]),
            texts: vec![Matrix::new(2, vec![1.0, 0.0, 0.0, 1.0])],
            captions: Captions {
                texts: texts(&["one", "two", "three"]),
                embeddings: Matrix::new(2, vec![1.0, 0.0, 0.8, 0.6, 0.0, 1.0]),
                image: vec![0, 0, 2],
            },
            ..EmbeddingSet::default()
        }
    }

    /// The same with its pictures the other way round.
    fn turned() -> EmbeddingSet {
        let ours = set();
        let turn = [2, 1, 0];
        EmbeddingSet {
            files: turn.map(|at: usize| ours.files[at].clone()).to_vec(),
            image_sha256: turn.map(|at: usize| ours.image_sha256[at].clone()).to_vec(),
            images: ours.images.select(&turn),
            labels: vec![1, 0, 0],
            captions: Captions {
                texts: texts(&["three", "one", "two"]),
                embeddings: ours.captions.embeddings.select(&[2, 0, 1]),
                image: vec![0, 2, 2],
            },
            ..ours
        }
    }

    #[test]
    fn rows_are_paired_by_name() {
        let aligned = align(&set(), turned()).unwrap();
        assert_eq!(aligned.set.images, set().images);
        assert_eq!(aligned.set.captions.embeddings, set().captions.embeddings);
        assert_eq!(aligned.warnings, Vec::<String>::new());
    }

    #[test]
    fn what_does_not_belong_together_is_named() {
        type Change = fn(&mut EmbeddingSet);
        let cases: [(Change, &str); 9] = [
            (
                |r| _ = r.metadata.insert("bundle".to_owned(), "other".to_owned()),
                "another model: \"other\" instead of \"tiny\"",
            ),
            (|r| r.metadata.clear(), "does not say which model"),
            (|r| r.class_words[0] = "pear".to_owned(), "other prompts"),
            (|r| r.files.iter_mut().for_each(|file| file.insert(0, 'x')), "no picture in common"),
            (|r| r.files[0] = "b/9.jpg".to_owned(), "lacks 1 of 3 pictures (b/3.jpg)"),
            (|r| r.image_sha256[1] = "ff".to_owned(), "1 of 3 differ in SHA-256 (a/2.jpg)"),
            (|r| r.labels[1] = 1, "labels a/2.jpg as b, the data as a"),
            (|r| r.captions.texts[1] = "uno".to_owned(), "the caption \"uno\" of a/1.jpg"),
            (|r| r.captions.image[2] = 1, "fewer captions of a/1.jpg"),
        ];
        for (change, named) in cases {
            let mut reference = turned();
            change(&mut reference);
            let error = align(&set(), reference).unwrap_err().to_string();
            assert!(error.contains(named), "{named}: {error}");
        }
    }

    #[test]
    fn what_the_reference_leaves_out_is_told() {
        let mut reference = turned();
        reference.captions = Captions::default();
        reference.texts = Vec::new();
        let aligned = align(&set(), reference).unwrap();
        assert_eq!(aligned.warnings.len(), 2);
        let mut ours = set();
        ours.files.truncate(2);
        ours.image_sha256.truncate(2);
        ours.labels.truncate(2);
        ours.images = ours.images.select(&[0, 1]);
        ours.captions = Captions::default();
        assert!(align(&ours, turned()).unwrap().warnings[0].contains("1 pictures that the data lacks"));
    }
}
