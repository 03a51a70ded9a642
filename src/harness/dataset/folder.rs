//! A folder per class: `<class>/<picture>`; or a folder of pictures that are not sorted.

use std::path::Path;

use super::{Entry, is_picture, read_error};
use crate::harness::HarnessError;

/// Of each class's pictures in plain string order, the first eight of ten are `train` and the rest `test`: the usual
/// split of EuroSAT and other sets that come without one.
const TRAIN_TENTHS: usize = 8;

/// The pictures of one split, or all of them.
pub(super) fn read(root: &Path, split: Option<&str>) -> Result<Vec<Entry>, HarnessError> {
    let mut entries = Vec::new();
    let classes = names(root, |path| path.is_dir())?;
    if classes.is_empty() {
        let pictures = names(root, |path| path.is_file())?.into_iter().filter(|name| is_picture(name));
        return match split {
            None => Ok(pictures.map(|file| Entry { file, ..Entry::default() }).collect()),
            Some(other) => {
                Err(HarnessError::Form(format!("--split {other}: a folder without a folder per class has none")))
            }
        };
    }
    for class in classes {
        let pictures = names(&root.join(&class), |path| path.is_file())?;
        let pictures: Vec<_> = pictures.into_iter().filter(|name| is_picture(name)).collect();
        let train = pictures.len() * TRAIN_TENTHS / 10;
        let wanted = match split {
            None => &pictures[..],
            Some("train") => &pictures[..train],
            Some("test") => &pictures[train..],
            Some(other) => {
                return Err(HarnessError::Form(format!(
                    "--split {other}: a folder per class has train (the first 80 % of each class by name) and test (the rest)"
                )));
            }
        };
        entries.extend(wanted.iter().map(|name| Entry {
            file: format!("{class}/{name}"),
            class: Some(class.clone()),
            captions: Vec::new(),
        }));
    }
    Ok(entries)
}

/// Sorted names in a folder of what `wanted` takes; a name that is no text is an error.
fn names(folder: &Path, wanted: impl Fn(&Path) -> bool) -> Result<Vec<String>, HarnessError> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(read_error(folder))? {
        let path = entry.map_err(read_error(folder))?.path();
        if wanted(&path) {
            let name = path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
            let reason =
                || HarnessError::File { path: path.clone(), reason: "its name is not UTF-8; rename it".into() };
            names.push(name.ok_or_else(reason)?);
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{folder_of, read};

    #[test]
    fn a_folder_is_a_class_and_other_files_are_left_alone() {
        let folder = folder_of(&["b/2.JPG", "b/10.jpg", "a/1.png", "a/readme.txt", "top.jpg"]);
        let data = read(folder.path(), None, None).unwrap();
        assert_eq!(data.files, ["a/1.png", "b/10.jpg", "b/2.JPG"]);
        assert_eq!((data.classes, data.labels), (vec!["a".to_owned(), "b".to_owned()], vec![0, 1, 1]));
    }

    #[test]
    fn pictures_that_are_not_sorted_have_no_class_and_no_split() {
        let folder = folder_of(&["b.jpg", "a.png", "readme.txt"]);
        let data = read(folder.path(), None, None).unwrap();
        assert_eq!((data.files, data.classes.len()), (vec!["a.png".to_owned(), "b.jpg".to_owned()], 0));
        assert!(read(folder.path(), None, Some("test")).unwrap_err().contains("--split test"));
    }

    #[test]
    fn the_last_fifth_of_each_class_is_its_test_split() {
        let names: Vec<String> = (0..10).map(|i| format!("a/{i}.jpg")).collect();
        let folder = folder_of(&names.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(read(folder.path(), None, Some("test")).unwrap().files, ["a/8.jpg", "a/9.jpg"]);
        assert_eq!(read(folder.path(), None, Some("train")).unwrap().files.len(), 8);
        assert!(read(folder.path(), None, Some("val")).unwrap_err().contains("--split val"));
    }

    #[test]
    fn an_empty_folder_is_an_error() {
        let folder = folder_of(&["a/readme.txt"]);
        assert!(read(folder.path(), None, None).unwrap_err().contains("holds no picture"));
        assert!(read(&folder.path().join("nowhere"), None, None).unwrap_err().contains("nowhere"));
    }
}
