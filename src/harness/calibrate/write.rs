//! Thresholds into a prompt set's file, everything else in it left as it is: order, comments, spacing.

use toml_edit::{DocumentMut, Item, Table, value};

use crate::prompts::set::{DEFAULT_HYSTERESIS, DEFAULT_THRESHOLD};

/// The text of a prompt set with new thresholds for some of its labels. A hysteresis that would no longer be below its
/// threshold is made smaller in proportion.
///
/// # Errors
/// [`WriteError`] when the text is not a prompt set with these labels.
pub fn rewritten(text: &str, thresholds: &[(String, f32)]) -> Result<String, WriteError> {
    let mut document: DocumentMut =
        text.parse().map_err(|error: toml_edit::TomlError| WriteError(error.to_string()))?;
    let number =
        |item: Option<&Item>| item.and_then(|item| item.as_float().or(item.as_integer().map(|whole| whole as f64)));
    let set_threshold = number(document.get("threshold")).unwrap_or(DEFAULT_THRESHOLD.into());
    let set_hysteresis = number(document.get("hysteresis")).unwrap_or(DEFAULT_HYSTERESIS.into());
    let labels = document
        .get_mut("label")
        .and_then(Item::as_array_of_tables_mut)
        .ok_or_else(|| WriteError("the labels are not written as [[label]] tables; write them so".to_owned()))?;
    for (name, threshold) in thresholds {
        let table = labels
            .iter_mut()
            .find(|table| table.get("name").and_then(Item::as_str) == Some(name))
            .ok_or_else(|| WriteError(format!("there is no [[label]] named \"{name}\"")))?;
        let old = number(table.get("threshold")).unwrap_or(set_threshold);
        let hysteresis = number(table.get("hysteresis")).unwrap_or(set_hysteresis);
        // Through its shortest decimal form: 0.43 and not 0.4300000071525574.
        let threshold: f64 = threshold.to_string().parse().unwrap_or(f64::from(*threshold));
        set(table, "threshold", threshold);
        if hysteresis >= threshold {
            set(table, "hysteresis", (threshold * hysteresis / old * 1e4).floor() / 1e4);
        }
    }
    Ok(document.to_string())
}

/// Replaces a number; a comment behind it stays.
fn set(table: &mut Table, key: &str, number: f64) {
    let mut item = value(number);
    if let (Some(new), Some(old)) = (item.as_value_mut(), table.get(key).and_then(Item::as_value)) {
        *new.decor_mut() = old.decor().clone();
    }
    table.insert(key, item);
}

/// Why the thresholds were not written.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct WriteError(String);

#[cfg(test)]
mod tests {
    use super::*;

    const SET: &str = r#"# My set.
name = "test" # for a test
threshold = 0.6
hysteresis = 0.2

[[label]]
name = "parking lot" # cars
texts = ["a parking lot",
         "parked cars"]
threshold = 0.4   # from a flight in May

# Trees.
[[label]]
name = "forest"
"#;

    #[test]
    fn only_the_thresholds_change() {
        let written = rewritten(SET, &[("parking lot".to_owned(), 0.43), ("forest".to_owned(), 0.7125)]).unwrap();
        let expected = SET
            .replace("threshold = 0.4   # from a flight in May", "threshold = 0.43   # from a flight in May")
            .replace("name = \"forest\"\n", "name = \"forest\"\nthreshold = 0.7125\n");
        assert_eq!(written, expected);
        assert_eq!(rewritten(SET, &[]).unwrap(), SET);
    }

    #[test]
    fn a_hysteresis_stays_below_its_threshold() {
        let written = rewritten(SET, &[("forest".to_owned(), 0.12)]).unwrap();
        assert!(
            written.contains("threshold = 0.12\nhysteresis = 0.04\n") || written.contains("hysteresis = 0.0399"),
            "{written}"
        );
    }

    #[test]
    fn a_label_that_is_not_there_is_named() {
        let error = rewritten(SET, &[("river".to_owned(), 0.5)]).unwrap_err().to_string();
        assert!(error.contains("\"river\""), "{error}");
        assert!(
            rewritten("name = \"x\"\nlabel = [{name = \"a\"}]", &[]).unwrap_err().to_string().contains("[[label]]")
        );
    }
}
