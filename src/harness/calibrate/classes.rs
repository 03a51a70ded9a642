//! Which label of a prompt set the folders of a labelled data set mean.

use crate::harness::HarnessError;
use crate::harness::dataset::DataSet;
use crate::prompts::pack::PackLabel;

/// For each class of the data its label, or none where its pictures show no label at all. `said` are the user's own words:
/// folder and label, an empty label for none.
///
/// A folder means the label of its name, whatever the case and whatever stands between the words, or else the label that
/// has a text of that name.
///
/// # Errors
/// [`HarnessError::Form`] naming every folder that means nothing here, and how to say what it means.
pub fn labels_of(
    data: &DataSet,
    labels: &[PackLabel],
    said: &[(String, String)],
) -> Result<Vec<Option<usize>>, HarnessError> {
    if let Some((folder, _)) = said.iter().find(|(folder, _)| !data.classes.contains(folder)) {
        return Err(HarnessError::Form(format!(
            "--class {folder}=…: there is no such folder; it has {}",
            data.classes.join(", ")
        )));
    }
    let mut unknown = Vec::new();
    let mut found = Vec::new();
    for class in &data.classes {
        let place = match said.iter().find(|(folder, _)| folder == class) {
            Some((_, label)) if label.is_empty() => None,
            Some((_, label)) => Some(labels.iter().position(|known| known.name == *label).ok_or_else(|| {
                let known: Vec<_> = labels.iter().map(|label| label.name.as_str()).collect();
                HarnessError::Form(format!(
                    "--class {class}={label}: the prompt set has no such label, but {}",
                    known.join(", ")
                ))
            })?),
            None => meant(class, labels).or_else(|| {
                unknown.push(class.as_str());
                None
            }),
        };
        found.push(place);
    }
    if unknown.is_empty() {
        return Ok(found);
    }
    Err(HarnessError::Form(format!(
        "no label of the prompt set is meant by the folder(s) {}; say which with --class {}=LABEL, or --class {}= where its \
         pictures show none of the labels",
        unknown.join(", "),
        unknown[0],
        unknown[0]
    )))
}

fn meant(class: &str, labels: &[PackLabel]) -> Option<usize> {
    let bare =
        |text: &str| text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect::<String>();
    let class = bare(class);
    let named = labels.iter().position(|label| bare(&label.name) == class);
    named.or_else(|| labels.iter().position(|label| label.texts.iter().any(|text| bare(text) == class)))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::prompts::pack::tests::axes;

    fn data(classes: &[&str]) -> DataSet {
        DataSet {
            name: String::new(),
            split: None,
            root: PathBuf::new(),
            files: Vec::new(),
            labels: Vec::new(),
            classes: classes.iter().map(|class| (*class).to_owned()).collect(),
            captions: Vec::new(),
        }
    }

    fn labels() -> Vec<PackLabel> {
        let mut labels = axes(&["parking lot", "bushland"], &[]).header().labels.clone();
        labels[1].texts = vec!["chaparral".to_owned()];
        labels
    }

    fn said(words: &[(&str, &str)]) -> Vec<(String, String)> {
        words.iter().map(|(folder, label)| ((*folder).to_owned(), (*label).to_owned())).collect()
    }

    #[test]
    fn a_folder_means_the_label_of_its_name_or_text() {
        for class in ["parkinglot", "Parking-Lot", "parking lot"] {
            assert_eq!(labels_of(&data(&[class]), &labels(), &[]).unwrap(), [Some(0)], "{class}");
        }
        assert_eq!(labels_of(&data(&["chaparral"]), &labels(), &[]).unwrap(), [Some(1)]);
    }

    #[test]
    fn a_folder_of_something_else_must_be_said_to_be_so() {
        let error = labels_of(&data(&["bushland", "sea", "sky"]), &labels(), &[]).unwrap_err().to_string();
        assert!(error.contains("sea, sky") && error.contains("--class sea=LABEL"), "{error}");
        let words = said(&[("sea", ""), ("sky", "bushland")]);
        assert_eq!(labels_of(&data(&["bushland", "sea", "sky"]), &labels(), &words).unwrap(), [Some(1), None, Some(1)]);
        for (words, named) in [(said(&[("moon", "")]), "no such folder"), (said(&[("sea", "lake")]), "no such label")] {
            let error = labels_of(&data(&["bushland", "sea"]), &labels(), &words).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
