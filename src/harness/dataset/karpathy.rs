//! Captions in Karpathy's form, as RSITMD, RSICD and UCM-captions come:
//! `{"images": [{"filename", "split", "sentences": [{"raw"}]}]}`, gzipped or not.

use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;
use serde::Deserialize;

use super::{Entry, class_folder, read_error};
use crate::harness::HarnessError;

#[derive(Deserialize)]
struct File {
    images: Vec<Image>,
}

#[derive(Deserialize)]
struct Image {
    filename: String,
    split: String,
    sentences: Vec<Sentence>,
}

#[derive(Deserialize)]
struct Sentence {
    raw: String,
}

/// The pictures of one split with their captions.
pub(super) fn read(path: &Path, split: &str) -> Result<Vec<Entry>, HarnessError> {
    let bytes = std::fs::read(path).map_err(read_error(path))?;
    let mut text = Vec::new();
    match bytes.starts_with(&[0x1f, 0x8b]) {
        true => GzDecoder::new(&bytes[..]).read_to_end(&mut text).map_err(read_error(path))?,
        false => std::io::copy(&mut &bytes[..], &mut text).map_err(read_error(path))? as usize,
    };
    let error = |reason: String| HarnessError::File { path: path.to_owned(), reason };
    let file: File = serde_json::from_slice(&text)
        .map_err(|e| error(format!("is not a caption file in Karpathy's form (images, sentences, raw): {e}")))?;
    let mut splits: Vec<String> = file.images.iter().map(|image| image.split.clone()).collect();
    splits.sort();
    splits.dedup();
    if !splits.iter().any(|name| name == split) {
        return Err(error(format!("has no split \"{split}\"; it has {}", splits.join(", "))));
    }
    let entry = |image: Image| Entry {
        class: class_folder(&image.filename),
        file: image.filename,
        captions: image.sentences.iter().map(|sentence| capitalised(&sentence.raw)).collect(),
    };
    Ok(file.images.into_iter().filter(|image| image.split == split).map(entry).collect())
}

/// The retrieval protocol's form of a caption, Python's `str.capitalize`: first letter upper case, the rest lower.
fn capitalised(raw: &str) -> String {
    let mut letters = raw.chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    first.chain(letters.as_str().to_lowercase().chars()).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use serde_json::json;

    use super::super::tests::{folder_of, read};

    fn image(file: &str, split: &str) -> serde_json::Value {
        json!({"filename": file, "split": split, "sentences": [{"raw": "a TREE ."}, {"raw": "many Trees ."}]})
    }

    #[test]
    fn captions_are_capitalised_and_follow_sorted_pictures() {
        let folder = folder_of(&["b/1.jpg", "a/1.jpg", "a/2.jpg"]);
        let path = folder.path().join("dataset_x.json.gz");
        let json = json!({"images": [image("b/1.jpg", "test"), image("a/2.jpg", "train"), image("a/1.jpg", "test")]});
        let mut gz = flate2::write::GzEncoder::new(std::fs::File::create(&path).unwrap(), flate2::Compression::fast());
        gz.write_all(json.to_string().as_bytes()).unwrap();
        gz.finish().unwrap();
        let data = read(folder.path(), Some(&path), None).unwrap();
        assert_eq!((data.name.as_str(), data.split.as_deref()), ("x", Some("test")));
        assert_eq!((data.files, data.labels), (vec!["a/1.jpg".to_owned(), "b/1.jpg".to_owned()], vec![0, 1]));
        assert_eq!(data.captions[1], ("Many trees .".to_owned(), 0));
        assert_eq!(data.captions[2], ("A tree .".to_owned(), 1));
    }

    #[test]
    fn absent_and_doubled_pictures_and_splits_are_named() {
        let folder = folder_of(&["a/1.jpg"]);
        let path = folder.path().join("dataset_x.json");
        let says = |images: Vec<serde_json::Value>, split| {
            std::fs::write(&path, json!({"images": images}).to_string()).unwrap();
            read(folder.path(), Some(&path), split).unwrap_err()
        };
        let absent = says(vec![image("a/1.jpg", "test"), image("a/9.jpg", "test")], None);
        assert!(absent.contains("not below") && absent.contains("(1): a/9.jpg"), "{absent}");
        let twice = says(vec![image("a/1.jpg", "test"), image("a/1.jpg", "test")], None);
        assert!(twice.contains("names pictures twice (1): a/1.jpg"), "{twice}");
        let split = says(vec![image("a/1.jpg", "test")], Some("val"));
        assert!(split.contains("no split \"val\"; it has test"), "{split}");
    }
}
