//! One side of a comparison: the embeddings of a data set's pictures, class prompts and captions, with their names.
//!
//! `models/tools/reference.py` writes this form for the full-precision model, `eval --embeddings-out` for ours; an
//! evaluation compares two of them and does not care where they came from.
//!
//! Promise: every vector is finite and of unit length, all are of one width, and every index is inside what it names.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::HarnessError;
use super::tensors::{self, Matrix, Tensor, Tensors};

/// Metadata longer than this is a list of the data set's, not a fact about the model.
const SHORT: usize = 200;
/// More than any data set has; keeps a damaged label from reserving memory.
const MOST_CLASSES: usize = 1 << 16;

/// The embeddings of one model over one data set.
#[derive(Debug, Clone, Default)]
pub struct EmbeddingSet {
    /// The file it was read from, with its SHA-256.
    pub source: Option<(PathBuf, String)>,
    /// Facts about the model: `bundle`, `checkpoint_sha256`, `device`, `dtype`, …
    pub metadata: BTreeMap<String, String>,
    /// Picture names in the order of the rows; empty when nothing names them.
    pub files: Vec<String>,
    /// SHA-256 of each picture's file; empty when not known.
    pub image_sha256: Vec<String>,
    /// A row a picture.
    pub images: Matrix,
    /// Each picture's class; empty when not known.
    pub labels: Vec<usize>,
    /// Class names.
    pub classes: Vec<String>,
    /// What stands in the templates for each class.
    pub class_words: Vec<String>,
    /// Sentences with `{}`.
    pub templates: Vec<String>,
    /// For each template a row a class; empty when there are none.
    pub texts: Vec<Matrix>,
    /// Captions; empty when there are none.
    pub captions: Captions,
}

/// Captions of pictures.
#[derive(Debug, Clone, Default)]
pub struct Captions {
    /// The sentences; empty when the file does not tell them.
    pub texts: Vec<String>,
    /// A row a caption.
    pub embeddings: Matrix,
    /// The picture of each.
    pub image: Vec<usize>,
}

impl EmbeddingSet {
    /// Reads a file of this form.
    ///
    /// # Errors
    /// [`HarnessError`] naming the file, the tensor and the row: not finite, of another width, an index out of range.
    pub fn read(path: &Path) -> Result<Self, HarnessError> {
        let file = Tensors::read(path)?;
        let files = file.list("files")?;
        let name = |row: usize| files.get(row).cloned().unwrap_or_else(|| format!("row {row}"));
        let images = one(&file, "image_embeddings", name)?;
        let mut classes = file.list("classes")?;
        let texts = match file.has("text_embeddings") {
            true => file.matrices("text_embeddings")?,
            false => Vec::new(),
        };
        let class = |row: usize| classes.get(row).cloned().unwrap_or_else(|| format!("class {row}"));
        let texts: Result<Vec<_>, _> =
            texts.into_iter().map(|matrix| unit(&file, "text_embeddings", matrix, class)).collect();
        let (texts, captions) = (texts?, captions(&file, images.len())?);
        let named = classes.len().max(texts.first().map_or(0, Matrix::len));
        let limit = if named > 0 { named } else { MOST_CLASSES };
        let labels = if file.has("labels") { file.indices("labels", limit)? } else { Vec::new() };
        let count = named.max(labels.iter().max().map_or(0, |most| most + 1));
        classes.extend((classes.len()..count).map(|at| format!("class {at}")));
        let templates = [file.list("templates")?, file.list("prompts").unwrap_or_default()];
        let set = Self {
            source: Some((file.path().to_owned(), file.sha256().to_owned())),
            metadata: file.metadata().iter().filter(|(_, text)| is_fact(text)).map(clone_pair).collect(),
            image_sha256: file.list("image_sha256")?,
            labels,
            class_words: file.list("class_words")?,
            templates: templates.into_iter().find(|list| !list.is_empty()).unwrap_or_default(),
            classes,
            files,
            images,
            texts,
            captions,
        };
        set.check().map_err(|reason| file.error(reason))?;
        Ok(set)
    }

    /// Lengths that must agree, names that must be unique.
    fn check(&self) -> Result<(), String> {
        let rows = self.images.len();
        let lists =
            [("files", self.files.len()), ("image_sha256", self.image_sha256.len()), ("labels", self.labels.len())];
        for (name, length) in lists {
            if length != 0 && length != rows {
                return Err(format!("{name} has {length} entries for {rows} image_embeddings"));
            }
        }
        let mut seen = HashSet::new();
        if let Some(twice) = self.files.iter().find(|name| !seen.insert(*name)) {
            return Err(format!("files names {twice} twice; make the file again from a data set of unique names"));
        }
        let matrices = self.texts.iter().chain(Some(&self.captions.embeddings).filter(|matrix| !matrix.is_empty()));
        for matrix in matrices {
            if matrix.width() != self.images.width() {
                return Err(format!(
                    "texts of width {} cannot be compared with pictures of width {}",
                    matrix.width(),
                    self.images.width()
                ));
            }
        }
        if let Some(texts) = self.texts.first() {
            if !self.classes.is_empty() && texts.len() != self.classes.len() {
                return Err(format!(
                    "text_embeddings has {} classes, classes names {}",
                    texts.len(),
                    self.classes.len()
                ));
            }
            if !self.templates.is_empty() && self.texts.len() != self.templates.len() {
                return Err(format!(
                    "text_embeddings has {} templates, the metadata names {}",
                    self.texts.len(),
                    self.templates.len()
                ));
            }
        }
        Ok(())
    }

    /// Writes a file of this form.
    ///
    /// # Errors
    /// [`HarnessError::Write`] naming the file.
    pub fn write(&self, path: &Path) -> Result<(), HarnessError> {
        let mut metadata = self.metadata.clone();
        let lists = [
            ("files", &self.files),
            ("image_sha256", &self.image_sha256),
            ("classes", &self.classes),
            ("class_words", &self.class_words),
            ("templates", &self.templates),
            ("captions", &self.captions.texts),
        ];
        for (name, list) in lists {
            metadata.insert(name.to_owned(), serde_json::json!(list).to_string());
        }
        let flat =
            |matrices: &[Matrix]| matrices.iter().flat_map(Matrix::rows).flatten().copied().collect::<Vec<f32>>();
        let (images, texts) = (flat(std::slice::from_ref(&self.images)), flat(&self.texts));
        let captions = flat(std::slice::from_ref(&self.captions.embeddings));
        let width = self.images.width();
        let shapes = [
            vec![self.images.len(), width],
            vec![self.texts.len(), self.texts.first().map_or(0, Matrix::len), width],
            vec![self.captions.embeddings.len(), width],
        ];
        let mut tensors = vec![("image_embeddings", Tensor::F32(&shapes[0], &images))];
        if !self.labels.is_empty() {
            tensors.push(("labels", Tensor::I64(&self.labels)));
        }
        if !texts.is_empty() {
            tensors.push(("text_embeddings", Tensor::F32(&shapes[1], &texts)));
        }
        if !captions.is_empty() {
            tensors.push(("caption_embeddings", Tensor::F32(&shapes[2], &captions)));
            tensors.push(("caption_image", Tensor::I64(&self.captions.image)));
        }
        tensors::write(path, &tensors, &metadata)
    }

    /// The side of these pictures alone, in this order; captions of others are left out.
    pub fn select(&self, rows: &[usize]) -> Self {
        let place: HashMap<usize, usize> = rows.iter().enumerate().map(|(place, row)| (*row, place)).collect();
        let kept: Vec<usize> = (0..self.captions.image.len())
            .filter(|caption| place.contains_key(&self.captions.image[*caption]))
            .collect();
        let captions = Captions {
            texts: some(&self.captions.texts, &kept),
            embeddings: self.captions.embeddings.select(&kept),
            image: kept.iter().map(|caption| place[&self.captions.image[*caption]]).collect(),
        };
        Self {
            files: some(&self.files, rows),
            image_sha256: some(&self.image_sha256, rows),
            labels: some(&self.labels, rows),
            images: if self.images.is_empty() { Matrix::default() } else { self.images.select(rows) },
            captions,
            ..self.clone()
        }
    }

    /// A picture's name.
    pub fn name(&self, row: usize) -> String {
        self.files.get(row).cloned().unwrap_or_else(|| format!("row {row}"))
    }

    /// Every file's row.
    pub fn row_of(&self) -> HashMap<&str, usize> {
        self.files.iter().enumerate().map(|(row, name)| (name.as_str(), row)).collect()
    }

    /// The class vectors: over templates averaged and normalised again, as `clip_benchmark` does.
    pub fn class_vectors(&self) -> Option<Matrix> {
        let (first, rest) = self.texts.split_first()?;
        let mut sum: Vec<f32> = first.rows().flatten().copied().collect();
        for matrix in rest {
            sum.iter_mut().zip(matrix.rows().flatten()).for_each(|(total, value)| *total += value);
        }
        Matrix::new(first.width(), sum).normalised().ok()
    }

    /// The sentences of each template, class by class; none when words or templates are not known.
    pub fn sentences(&self) -> Option<Vec<Vec<String>>> {
        let known = !self.templates.is_empty() && !self.class_words.is_empty();
        known.then(|| {
            let row = |template: &String| self.class_words.iter().map(|words| template.replace("{}", words)).collect();
            self.templates.iter().map(row).collect()
        })
    }

    /// SHA-256 over all sentences as `reference.py` computes it: what the file states, or of what it lists.
    pub fn prompts_sha256(&self) -> Option<String> {
        let stated = self.metadata.get("prompts_sha256").cloned();
        stated.or_else(|| self.sentences().map(|rows| hex::encode(Sha256::digest(python_json(&rows)))))
    }

    /// Keeps only the template `wanted`.
    ///
    /// # Errors
    /// [`HarnessError::Form`] telling what there is.
    pub fn keep_template(&mut self, wanted: &[String]) -> Result<(), HarnessError> {
        let place = |text: &String| {
            self.templates.iter().position(|template| template == text).ok_or_else(|| {
                let first = self.templates.first().map_or("none", String::as_str);
                HarnessError::Form(format!(
                    "--template \"{text}\" is none of the file's {} templates (the first is \"{first}\")",
                    self.templates.len()
                ))
            })
        };
        let places = wanted.iter().map(place).collect::<Result<Vec<_>, _>>()?;
        self.texts = places.iter().map(|at| self.texts[*at].clone()).collect();
        self.templates = wanted.to_vec();
        self.metadata.remove("prompts_sha256");
        Ok(())
    }
}

/// These entries of a list; of a list that is not known, none.
fn some<T: Clone>(list: &[T], places: &[usize]) -> Vec<T> {
    places.iter().filter_map(|place| list.get(*place).cloned()).collect()
}

fn is_fact(text: &str) -> bool {
    text.len() <= SHORT && !text.starts_with('[')
}

fn clone_pair((key, value): (&String, &String)) -> (String, String) {
    (key.clone(), value.clone())
}

/// A float tensor of two axes, rows of unit length.
fn one(file: &Tensors, tensor: &str, name: impl Fn(usize) -> String) -> Result<Matrix, HarnessError> {
    let mut matrices = file.matrices(tensor)?;
    match (matrices.pop(), matrices.len()) {
        (Some(matrix), 0) => unit(file, tensor, matrix, name),
        _ => Err(file.error(format!("{tensor} has more axes than [rows, width]"))),
    }
}

fn unit(file: &Tensors, tensor: &str, matrix: Matrix, name: impl Fn(usize) -> String) -> Result<Matrix, HarnessError> {
    matrix.normalised().map_err(|row| {
        file.error(format!("{tensor} of {} (row {row}) holds NaN, infinity or nothing; make the file again", name(row)))
    })
}

fn captions(file: &Tensors, images: usize) -> Result<Captions, HarnessError> {
    if !file.has("caption_embeddings") {
        return Ok(Captions::default());
    }
    let texts = file.list("captions")?;
    let name = |row: usize| texts.get(row).map_or_else(|| format!("caption {row}"), |text| format!("\"{text}\""));
    let embeddings = one(file, "caption_embeddings", name)?;
    let image = file.indices("caption_image", images)?;
    if image.len() != embeddings.len() || (!texts.is_empty() && texts.len() != image.len()) {
        return Err(file.error(format!(
            "{} caption_embeddings, {} caption_image and {} captions do not belong together",
            embeddings.len(),
            image.len(),
            texts.len()
        )));
    }
    Ok(Captions { texts, embeddings, image })
}

/// As Python's `json.dumps` writes it: a blank after each comma, everything beyond ASCII escaped.
fn python_json(rows: &[Vec<String>]) -> String {
    let text = |text: &String| {
        let quoted = serde_json::Value::from(text.as_str()).to_string();
        quoted.chars().fold(String::new(), |mut out, c| {
            match c.is_ascii() && c != '\x7f' {
                true => out.push(c),
                false => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out += &format!("\\u{unit:04x}")),
            }
            out
        })
    };
    let list = |items: Vec<String>| format!("[{}]", items.join(", "));
    list(rows.iter().map(|row| list(row.iter().map(text).collect())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_hash_as_python_hashes_them() {
        // json.dumps([["a \"b\".", "caf\u00e9 \U0001f600"], ["c"]])
        let rows = [vec!["a \"b\".".to_owned(), "café 😀".to_owned()], vec!["c".to_owned()]];
        assert_eq!(python_json(&rows), r#"[["a \"b\".", "caf\u00e9 \ud83d\ude00"], ["c"]]"#);
    }

    #[test]
    fn the_shipped_references_state_the_hash_of_their_own_prompts() {
        for file in ["default/reference/ucm-test", "vit-tiny/reference/eurosat-test"] {
            let set = EmbeddingSet::read(Path::new(&format!("models/{file}.safetensors"))).unwrap();
            let computed = hex::encode(Sha256::digest(python_json(&set.sentences().unwrap())));
            assert_eq!(set.metadata["prompts_sha256"], computed);
        }
    }

    #[test]
    fn a_selection_takes_its_captions_along() {
        let set = EmbeddingSet {
            files: ["a", "b", "c"].map(str::to_owned).to_vec(),
            images: Matrix::new(1, vec![1.0, 2.0, 3.0]),
            labels: vec![0, 1, 2],
            captions: Captions {
                embeddings: Matrix::new(1, vec![5.0, 6.0, 7.0]),
                image: vec![0, 2, 1],
                texts: Vec::new(),
            },
            ..EmbeddingSet::default()
        };
        let part = set.select(&[2, 0]);
        assert_eq!((part.files, part.labels), (vec!["c".to_owned(), "a".to_owned()], vec![2, 0]));
        assert_eq!(part.images, Matrix::new(1, vec![3.0, 1.0]));
        assert_eq!((part.captions.image, part.captions.embeddings), (vec![1, 0], Matrix::new(1, vec![5.0, 6.0])));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let set = EmbeddingSet {
            files: vec!["a/1.jpg".to_owned(), "b/2.jpg".to_owned()],
            images: Matrix::new(2, vec![1.0, 0.0, 0.6, 0.8]),
            labels: vec![0, 1],
            classes: vec!["a".to_owned(), "b".to_owned()],
            texts: vec![Matrix::new(2, vec![1.0, 0.0, 0.0, 1.0])],
            captions: Captions { embeddings: Matrix::new(2, vec![0.0, 1.0]), image: vec![1], texts: Vec::new() },
            ..EmbeddingSet::default()
        };
        set.write(&path).unwrap();
        let read = EmbeddingSet::read(&path).unwrap();
        assert_eq!((read.files, read.labels, read.classes), (set.files, set.labels, set.classes));
        assert_eq!((read.images, read.texts), (set.images, set.texts));
        assert_eq!(read.captions.image, [1]);
    }
}
