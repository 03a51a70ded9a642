//! Data sets: which pictures, of which class, with which captions.
//!
//! Promise: a data set that was read has at least one picture, its names are unique and sorted, every picture is there,
//! and every index is inside what it names. What is wrong is told by file and line, all of it at once where it can be.

mod folder;
mod karpathy;
mod list;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::HarnessError;

/// File-name endings of pictures; what is in them is told from their bytes.
const PICTURES: [&str; 5] = ["jpg", "jpeg", "png", "tif", "tiff"];
/// Of the names in an error.
const MOST_NAMES: usize = 5;

/// Pictures with what is known of them.
#[derive(Debug, Clone)]
pub struct DataSet {
    /// Its name (`ucm`).
    pub name: String,
    /// The split that was taken; none for everything.
    pub split: Option<String>,
    /// Where the file names start from.
    pub root: PathBuf,
    /// Names below `root`, sorted.
    pub files: Vec<String>,
    /// Each picture's class; empty when the data does not tell.
    pub labels: Vec<usize>,
    /// Class names, sorted.
    pub classes: Vec<String>,
    /// Sentences, each with the picture it belongs to, in the pictures' order.
    pub captions: Vec<(String, usize)>,
}

/// What to read.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// A folder with a folder a class, or a list (`.csv`, `.jsonl`), or the folder that `captions` starts from.
    pub data: PathBuf,
    /// A Karpathy JSON, gzipped or not.
    pub captions: Option<PathBuf>,
    /// `train`, `val`, `test`, …
    pub split: Option<String>,
}

/// One picture as a source tells it.
#[derive(Debug, Default)]
struct Entry {
    file: String,
    class: Option<String>,
    captions: Vec<String>,
}

impl DataSet {
    /// Reads a data set.
    ///
    /// # Errors
    /// [`HarnessError`] naming the file and what is wrong in it: no pictures, absent ones, a name that stands twice.
    pub fn read(source: &Source) -> Result<Self, HarnessError> {
        let data = &source.data;
        let split = source.split.as_deref();
        let (root, from, entries) = match &source.captions {
            Some(captions) => (data.clone(), captions, karpathy::read(captions, split.unwrap_or("test"))?),
            None if data.is_dir() => (data.clone(), data, folder::read(data, split)?),
            None => (list::root(data), data, list::read(data, split)?),
        };
        let split = split.or(source.captions.as_ref().map(|_| "test")).map(str::to_owned);
        Self::assemble(name(from), split, root, entries)
            .map_err(|reason| HarnessError::File { path: from.clone(), reason })
    }

    fn assemble(name: String, split: Option<String>, root: PathBuf, mut entries: Vec<Entry>) -> Result<Self, String> {
        entries.sort_by(|a, b| a.file.cmp(&b.file));
        if entries.is_empty() {
            let split = split.map_or(String::new(), |split| format!(" of split \"{split}\""));
            return Err(format!("holds no picture{split}"));
        }
        let twice = entries.windows(2).filter(|pair| pair[0].file == pair[1].file).map(|pair| pair[0].file.clone());
        refuse("names pictures twice", twice.collect())?;
        let absent = entries.iter().filter(|entry| !root.join(&entry.file).is_file()).map(|entry| entry.file.clone());
        refuse(&format!("names pictures that are not below {}", root.display()), absent.collect())?;
        let unnamed: Vec<_> = entries.iter().filter(|e| e.class.is_none()).map(|e| e.file.clone()).collect();
        let labelled = unnamed.len() < entries.len();
        if labelled {
            refuse("gives some pictures a class and these none", unnamed)?;
        }
        let mut classes: BTreeMap<String, usize> =
            entries.iter().filter_map(|entry| entry.class.clone()).map(|class| (class, 0)).collect();
        classes.values_mut().enumerate().for_each(|(at, index)| *index = at);
        let labels = entries.iter().filter_map(|entry| Some(classes[entry.class.as_ref()?])).collect();
        let mut files = Vec::new();
        let mut captions = Vec::new();
        for (image, entry) in entries.into_iter().enumerate() {
            files.push(entry.file);
            captions.extend(entry.captions.into_iter().map(|text| (text, image)));
        }
        Ok(Self { name, split, root, files, labels, classes: classes.into_keys().collect(), captions })
    }

    /// Where a picture lies.
    pub fn path(&self, image: usize) -> PathBuf {
        self.root.join(&self.files[image])
    }
}

/// An error for names, if there are any.
fn refuse(what: &str, names: Vec<String>) -> Result<(), String> {
    if names.is_empty() {
        return Ok(());
    }
    let more = if names.len() > MOST_NAMES { ", …" } else { "" };
    Err(format!("{what} ({}): {}{more}", names.len(), names[..names.len().min(MOST_NAMES)].join(", ")))
}

/// A data set's name from its path: `dataset_ucm.json.gz` is `ucm`.
fn name(path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let stem = if path.is_dir() { name.as_str() } else { name.split('.').next().unwrap_or_default() };
    stem.strip_prefix("dataset_").unwrap_or(stem).to_owned()
}

/// The class of `airport/airport_1.jpg`: the folder it lies in, if it lies in one.
fn class_folder(file: &str) -> Option<String> {
    file.split_once('/').map(|(class, _)| class.to_owned())
}

fn is_picture(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, ending)| PICTURES.contains(&ending.to_ascii_lowercase().as_str()))
}

fn read_error(path: &Path) -> impl Fn(std::io::Error) -> HarnessError {
    let path = path.to_owned();
    move |source| HarnessError::Read { path: path.clone(), source }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A folder with these files, each holding its own name.
    pub(super) fn folder_of(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, file).unwrap();
        }
        folder
    }

    pub(super) fn read(data: &Path, captions: Option<&Path>, split: Option<&str>) -> Result<DataSet, String> {
        let captions = captions.map(Path::to_owned);
        let source = Source { data: data.to_owned(), captions, split: split.map(str::to_owned) };
        DataSet::read(&source).map_err(|error| error.to_string())
    }

    #[test]
    fn names_come_from_paths() {
        for (path, expected) in [("/x/dataset_ucm.json.gz", "ucm"), ("/x/eurosat", "eurosat"), ("a/list.csv", "list")] {
            assert_eq!(name(Path::new(path)), expected);
        }
    }
}
