//! A list of pictures: CSV with a header, or one JSON object a line.
//!
//! Columns: `filepath` (OpenCLIP's name; also `file`, `filename`, `image`), and where there are any `label` (`class`),
//! `caption` (`title`, OpenCLIP's) and `split`. Names start from the list's own folder. A picture may stand on several
//! lines, one a caption; its label and split must then be the same.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Entry, read_error};
use crate::harness::HarnessError;

#[derive(Debug, Deserialize)]
struct Line {
    #[serde(alias = "file", alias = "filename", alias = "image")]
    filepath: String,
    #[serde(default, alias = "class")]
    label: Option<String>,
    #[serde(default, alias = "title")]
    caption: Option<String>,
    #[serde(default)]
    split: Option<String>,
}

/// The folder that the names start from.
pub(super) fn root(list: &Path) -> PathBuf {
    list.parent().map_or_else(PathBuf::new, Path::to_owned)
}

/// The pictures of one split, or all of them.
pub(super) fn read(path: &Path, split: Option<&str>) -> Result<Vec<Entry>, HarnessError> {
    let text = std::fs::read_to_string(path).map_err(read_error(path))?;
    let lines = match path.extension().and_then(|ending| ending.to_str()) {
        Some("csv") => from_csv(&text),
        Some("jsonl" | "ndjson") => from_json_lines(&text),
        _ => Err("is neither a folder nor a list; a list ends in .csv or .jsonl".to_owned()),
    };
    let lines = lines.and_then(|lines| entries(lines, split));
    lines.map_err(|reason| HarnessError::File { path: path.to_owned(), reason })
}

fn from_csv(text: &str) -> Result<Vec<Line>, String> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
    reader.deserialize().collect::<Result<_, _>>().map_err(|error| format!("columns filepath, label, caption: {error}"))
}

fn from_json_lines(text: &str) -> Result<Vec<Line>, String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(at, line)| serde_json::from_str(line).map_err(|error| format!("line {}: {error}", at + 1))).collect()
}

fn entries(lines: Vec<Line>, split: Option<&str>) -> Result<Vec<Entry>, String> {
    let mut entries: BTreeMap<String, (Entry, Option<String>)> = BTreeMap::new();
    for line in lines {
        let class = line.label.filter(|label| !label.is_empty());
        let caption = line.caption.filter(|caption| !caption.is_empty());
        let line_split = line.split.filter(|split| !split.is_empty());
        match entries.get_mut(&line.filepath) {
            None => {
                let file = line.filepath.clone();
                let entry = Entry { file, class, captions: caption.into_iter().collect() };
                entries.insert(line.filepath, (entry, line_split));
            }
            Some((entry, known)) if entry.class == class && *known == line_split => match caption {
                Some(caption) => entry.captions.push(caption),
                None => return Err(format!("names {} twice without another caption", line.filepath)),
            },
            Some(_) => return Err(format!("gives {} two labels or splits", line.filepath)),
        }
    }
    let wanted =
        |(entry, known): (Entry, Option<String>)| (split.is_none() || known.as_deref() == split).then_some(entry);
    Ok(entries.into_values().filter_map(wanted).collect())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{folder_of, read};

    #[test]
    fn csv_and_json_lines_say_the_same() {
        let folder = folder_of(&["1.jpg", "2.jpg", "3.jpg"]);
        let csv = "filepath,label,title,split\n2.jpg,tree,\"A tree, green\",test\n1.jpg,lake,Water,test\n\
                   2.jpg,tree,Wood,test\n3.jpg,lake,Sea,train\n";
        let json = "{\"file\":\"2.jpg\",\"class\":\"tree\",\"caption\":\"A tree, green\",\"split\":\"test\"}\n\n\
                    {\"file\":\"1.jpg\",\"class\":\"lake\",\"caption\":\"Water\",\"split\":\"test\"}\n\
                    {\"file\":\"2.jpg\",\"class\":\"tree\",\"caption\":\"Wood\",\"split\":\"test\"}\n";
        for (name, text) in [("x.csv", csv), ("x.jsonl", json)] {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            let data = read(&path, None, Some("test")).unwrap();
            assert_eq!(data.files, ["1.jpg", "2.jpg"]);
            assert_eq!((data.classes, data.labels), (vec!["lake".to_owned(), "tree".to_owned()], vec![0, 1]));
            let expected = [("Water", 0), ("A tree, green", 1), ("Wood", 1)];
            assert_eq!(data.captions, expected.map(|(text, image)| (text.to_owned(), image)));
        }
    }

    #[test]
    fn mistakes_are_named() {
        let folder = folder_of(&["1.jpg", "2.jpg"]);
        for (name, text, named) in [
            ("x.csv", "filepath,label\n1.jpg,a\n1.jpg,b\n", "1.jpg two labels"),
            ("x.csv", "filepath,label\n1.jpg,a\n1.jpg,a\n", "1.jpg twice"),
            ("x.csv", "filepath,label\n1.jpg,a\n2.jpg,\n", "(1): 2.jpg"),
            ("x.csv", "filepath,label\n9.jpg,a\n", "(1): 9.jpg"),
            ("x.csv", "path,label\n9.jpg,a\n", "filepath"),
            ("x.jsonl", "{\"file\":\"1.jpg\"}\n{]\n", "line 2"),
            ("x.txt", "1.jpg", ".csv or .jsonl"),
        ] {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            let error = read(&path, None, None).unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
