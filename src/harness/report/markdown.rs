//! A report as Markdown.

use std::fmt::Write;

use super::figures::{
    COSINE_HEADINGS, METRIC_HEADINGS, MISPLACED_HEADINGS, STAGE_HEADINGS, VERDICT_HEADINGS, agreement_notes,
    cosine_rows, device_note, facts, metric_row, misplaced_row, percent, stage_row, stages_note, verdict, verdict_row,
};
use super::{Confusion, Gates, Parity, Report, Task, WorstImage};

/// Confusions listed, the most frequent first.
const CONFUSIONS: usize = 10;

/// The whole page.
pub fn render(report: &Report) -> String {
    let mut page =
        format!("# {} on {}\n\n**{}**\n", escape(&report.pretrained), escape(&report.dataset), verdict(report));
    for warning in &report.warnings {
        add(&mut page, &format!("\n> warning: {}\n", escape(warning)));
    }
    report.gates.iter().for_each(|gates| add(&mut page, &self::gates(gates)));
    report.tasks.iter().for_each(|task| add(&mut page, &self::task(task)));
    report.parity.iter().for_each(|parity| add(&mut page, &self::parity(parity)));
    if let Some(stages) = &report.stages {
        add(&mut page, &format!("\n## Where the loss comes from\n\n{}.\n\n", escape(&stages_note(stages))));
        add(&mut page, &table(&STAGE_HEADINGS, stages.rows.iter().map(|row| stage_row(row).to_vec())));
    }
    if let Some(device) = &report.device {
        add(&mut page, &format!("\n## The device\n\n{}.\n", escape(&device_note(device))));
    }
    add(&mut page, "\n## What was measured\n\n");
    let rows = facts(report).into_iter().map(|(name, value)| vec![name.to_owned(), value]);
    add(&mut page, &table(&["", ""], rows));
    page
}

fn add(page: &mut String, part: &str) {
    page.push_str(part);
}

fn gates(gates: &Gates) -> String {
    let mut verdicts: Vec<_> = gates.verdicts.iter().collect();
    verdicts.sort_by_key(|verdict| verdict.passed);
    let headings = [&[""][..], &VERDICT_HEADINGS, &["pictures"]].concat();
    let rows = verdicts.into_iter().map(|verdict| {
        let mark = if verdict.passed { "pass" } else { "FAIL" };
        let images = if verdict.passed { String::new() } else { verdict.images.join(", ") };
        std::iter::once(mark.to_owned()).chain(verdict_row(verdict)).chain([images]).collect()
    });
    format!("\n## Gates\n\nFrom {}.\n\n{}", escape(&gates.file), table(&headings, rows))
}

fn task(task: &Task) -> String {
    let setting = task.setting.as_ref().map(|setting| format!(" ({})", escape(setting))).unwrap_or_default();
    let mut part = format!("\n## {}{setting}\n\n", escape(&task.task));
    add(&mut part, &table(&METRIC_HEADINGS, task.metrics.iter().map(|metric| metric_row(metric).to_vec())));
    if let Some(reliability) = &task.reliability {
        let reference =
            reliability.reference_ece.map(|ece| format!(", the reference's {}", percent(ece))).unwrap_or_default();
        add(&mut part, &format!("\nExpected calibration error {}{reference}.\n", percent(reliability.ece)));
    }
    if !task.classes.is_empty() {
        let rows = task.classes.iter().map(|class| {
            let reference = class.reference.map(percent).unwrap_or_default();
            vec![class.name.clone(), class.images.to_string(), percent(class.recall), reference]
        });
        add(&mut part, &format!("\n{}", table(&["class", "pictures", "recall", "reference"], rows)));
    }
    task.confusion.iter().for_each(|confusion| add(&mut part, &confusions(confusion)));
    part
}

/// The most frequent mistakes: a whole matrix is for the HTML page.
fn confusions(confusion: &Confusion) -> String {
    let mut mistakes: Vec<(usize, usize, usize)> = Vec::new();
    for (truth, row) in confusion.counts.iter().enumerate() {
        mistakes.extend(
            row.iter()
                .enumerate()
                .filter(|(at, count)| *at != truth && **count > 0)
                .map(|(at, count)| (*count, truth, at)),
        );
    }
    mistakes.sort_by_key(|(count, truth, at)| (std::cmp::Reverse(*count), *truth, *at));
    let rows = mistakes.iter().take(CONFUSIONS).map(|(count, truth, at)| {
        let reference = confusion.reference.as_ref().map(|counts| counts[*truth][*at].to_string()).unwrap_or_default();
        vec![confusion.classes[*truth].clone(), confusion.classes[*at].clone(), count.to_string(), reference]
    });
    match mistakes.is_empty() {
        true => String::new(),
        false => format!("\n{}", table(&["is", "was taken for", "times", "reference"], rows)),
    }
}

fn parity(parity: &Parity) -> String {
    let mut part = format!("\n## Parity with the reference, {} pictures\n\n", parity.images);
    add(&mut part, &table(&COSINE_HEADINGS, cosine_rows(parity)));
    for note in agreement_notes(parity) {
        add(&mut part, &format!("\n{}\n", escape(&note)));
    }
    add(&mut part, &images("The least cosine", &parity.worst));
    add(&mut part, &images("Named differently", &parity.disagreements));
    if !parity.misplaced.is_empty() {
        let rows = table(&MISPLACED_HEADINGS, parity.misplaced.iter().map(misplaced_row));
        add(&mut part, &format!("\n### Reference rows that belong to another picture\n\n{rows}"));
    }
    part
}

fn images(heading: &str, images: &[WorstImage]) -> String {
    if images.is_empty() {
        return String::new();
    }
    let named = |named: &Option<super::Named>| {
        named.as_ref().map(|named| format!("{} ({:.3})", named.class, named.probability)).unwrap_or_default()
    };
    let rows = images.iter().map(|image| {
        let label = image.label.clone().unwrap_or_default();
        vec![image.file.clone(), format!("{:.5}", image.cosine), label, named(&image.ours), named(&image.reference)]
    });
    format!("\n### {heading}\n\n{}", table(&["picture", "cosine", "is", "int8 here", "reference"], rows))
}

fn table(headings: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut text = String::new();
    let line = |text: &mut String, cells: Vec<String>| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    };
    line(&mut text, headings.iter().map(|heading| (*heading).to_owned()).collect());
    line(&mut text, vec!["---".to_owned(); headings.len()]);
    rows.for_each(|row| line(&mut text, row.iter().map(|cell| escape(cell)).collect()));
    text
}

/// Text of others (names of files, classes, prompts) as it stands, whatever it holds.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            // As entities: a backslash before them does not stop everything that renders Markdown.
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '\\' | '|' | '*' | '_' | '`' | '[' | ']' | '#' | '~' => escaped.extend(['\\', character]),
            control if control.is_control() => escaped.push(' '),
            plain => escaped.push(plain),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::super::sample::{HOSTILE, report};
    use super::*;

    #[test]
    fn the_page_looks_like_this() {
        insta::assert_snapshot!(render(&report(None)));
    }

    #[test]
    fn names_from_data_stay_within_their_cells() {
        let page = render(&report(None));
        assert!(!page.contains(HOSTILE) && !page.contains("<script"));
        // Unescaped bars of a row: as many as its heading has.
        let bars = |line: &str| line.replace("\\\\", "").replace("\\|", "").matches('|').count();
        for block in page.split("\n\n").filter(|block| block.starts_with('|')) {
            let expected = block.lines().next().map(bars);
            assert!(block.lines().all(|line| Some(bars(line)) == expected), "{block}");
        }
    }
}
