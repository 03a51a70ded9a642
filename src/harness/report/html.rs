//! A report as one self-contained HTML page: no scripts, nothing fetched, pictures and plots inside.
//!
//! Promise: every name that comes from data (files, classes, prompts, metadata) is escaped; the page's policy forbids it
//! to load or run anything whatever is in them.

mod charts;
mod thumbnail;

use std::fmt::Write;

use super::figures::{
    COSINE_HEADINGS, METRIC_HEADINGS, MISPLACED_HEADINGS, STAGE_HEADINGS, VERDICT_HEADINGS, agreement_notes,
    cosine_rows, device_note, facts, metric_row, misplaced_row, percent, stage_row, stages_note, verdict, verdict_row,
};
use super::{Gates, Named, Parity, Report, Task, Verdict, WorstImage};

const STYLE: &str = include_str!("html/style.css");
/// Nothing from anywhere but the page itself, and no scripts at all.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";

/// The whole page; thumbnails are made of the pictures at [`WorstImage::path`].
pub fn render(report: &Report) -> String {
    let title = format!("{} on {}", escape(&report.pretrained), escape(&report.dataset));
    let standing = match &report.gates {
        _ if !report.passed() => "failed",
        Some(_) => "passed",
        None => "none",
    };
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style></head>\n<body><main>\n<h1>{title}</h1>\n\
         <p class=\"verdict {standing}\">{}</p>\n",
        escape(&verdict(report))
    );
    for warning in &report.warnings {
        add(&mut page, &format!("<p class=\"warning\">{}</p>\n", escape(warning)));
    }
    report.gates.iter().for_each(|gates| add(&mut page, &self::gates(gates)));
    report.tasks.iter().for_each(|task| add(&mut page, &self::task(task)));
    report.parity.iter().for_each(|parity| add(&mut page, &self::parity(parity)));
    if let Some(stages) = &report.stages {
        let rows = table("figures stages", &STAGE_HEADINGS, stages.rows.iter().map(|row| stage_row(row).to_vec()));
        let note = format!("<p>{}</p>\n", escape(&stages_note(stages)));
        add(&mut page, &section("Where the loss comes from", &(note + &rows)));
    }
    if let Some(device) = &report.device {
        add(&mut page, &section("The device", &format!("<p>{}</p>\n", escape(&device_note(device)))));
    }
    let rows = facts(report).into_iter().map(|(name, value)| vec![name.to_owned(), value]);
    add(&mut page, &section("What was measured", &table("facts", &[], rows)));
    page + "</main></body></html>\n"
}

fn add(page: &mut String, part: &str) {
    page.push_str(part);
}

fn section(heading: &str, body: &str) -> String {
    format!("<section><h2>{}</h2>\n{body}</section>\n", escape(heading))
}

fn figure(caption: &str, body: &str) -> String {
    format!("<figure><figcaption>{}</figcaption>{body}</figure>\n", escape(caption))
}

/// Failed gates with their pictures; passed ones folded away.
fn gates(gates: &Gates) -> String {
    let (passed, failed): (Vec<_>, Vec<_>) = gates.verdicts.iter().partition(|verdict| verdict.passed);
    let row = |mark: &str, verdict: &Verdict| {
        std::iter::once(mark.to_owned()).chain(verdict_row(verdict)).collect::<Vec<String>>()
    };
    let mut body = String::new();
    if !failed.is_empty() {
        let rows = failed.iter().map(|verdict| [row("FAIL", verdict), vec![verdict.images.join(", ")]].concat());
        add(&mut body, &table("gates", &[&[""][..], &VERDICT_HEADINGS, &["pictures"]].concat(), rows));
    }
    let rows = passed.iter().map(|verdict| row("pass", verdict));
    let passed_table = table("gates", &[&[""][..], &VERDICT_HEADINGS].concat(), rows);
    add(&mut body, &format!("<details><summary>{} gates passed</summary>{passed_table}</details>\n", passed.len()));
    add(&mut body, &format!("<p class=\"note\">Gates: {}</p>\n", escape(&gates.file)));
    section("Gates", &body)
}

fn task(task: &Task) -> String {
    let heading = match &task.setting {
        Some(setting) => format!("{} ({setting})", task.task),
        None => task.task.clone(),
    };
    let mut body = table("figures", &METRIC_HEADINGS, task.metrics.iter().map(|metric| metric_row(metric).to_vec()));
    let mut figures = String::new();
    if !task.classes.is_empty() {
        add(&mut figures, &figure("Recall of each class", &charts::recalls(&task.classes)));
    }
    if let Some(reliability) = &task.reliability {
        let reference =
            reliability.reference_ece.map(|ece| format!(", reference {}", percent(ece))).unwrap_or_default();
        let caption = format!("Reliability; expected calibration error {}{reference}", percent(reliability.ece));
        add(&mut figures, &figure(&caption, &charts::reliability(reliability)));
    }
    if let Some(confusion) = &task.confusion {
        add(&mut figures, &figure("Confusion, int8 here", &charts::confusion(&confusion.classes, &confusion.counts)));
        if let Some(counts) = &confusion.reference {
            add(&mut figures, &figure("Confusion, reference", &charts::confusion(&confusion.classes, counts)));
        }
    }
    add(&mut body, &format!("<div class=\"figures\">{figures}</div>\n"));
    section(&heading, &body)
}

fn parity(parity: &Parity) -> String {
    let mut body = table("figures", &COSINE_HEADINGS, cosine_rows(parity));
    for note in agreement_notes(parity) {
        add(&mut body, &format!("<p>{}</p>\n", escape(&note)));
    }
    let histogram =
        figure("Cosine of each picture's two embeddings", &charts::histogram(&parity.histogram, &parity.cosine));
    add(&mut body, &format!("<div class=\"figures\">{histogram}</div>\n"));
    add(&mut body, &images("The least cosine", &parity.worst));
    add(&mut body, &images("Named differently", &parity.disagreements));
    if !parity.misplaced.is_empty() {
        let rows = table("figures", &MISPLACED_HEADINGS, parity.misplaced.iter().map(misplaced_row));
        add(&mut body, &format!("<h3>Reference rows that belong to another picture</h3>{rows}"));
    }
    section(&format!("Parity with the reference, {} pictures", parity.images), &body)
}

fn images(heading: &str, images: &[WorstImage]) -> String {
    if images.is_empty() {
        return String::new();
    }
    let cards: String = images.iter().map(card).collect();
    format!("<h3>{}</h3>\n<div class=\"pictures\">{cards}</div>\n", escape(heading))
}

fn card(image: &WorstImage) -> String {
    let picture = match image.path.as_deref().map(thumbnail::data_url) {
        Some(Ok(url)) => format!("<img alt=\"\" src=\"{url}\">"),
        Some(Err(reason)) => format!("<span class=\"absent\">{}</span>", escape(&reason)),
        None => "<span class=\"absent\">embeddings only</span>".to_owned(),
    };
    let mut lines = format!("<b>{}</b>cosine {:.5}<br>", escape(&image.file), image.cosine);
    if let Some(label) = &image.label {
        add(&mut lines, &format!("is {}<br>", escape(label)));
    }
    let named = |who: &str, named: &Option<Named>| match named {
        Some(Named { class, probability }) => format!("{who}: {} {probability:.3}<br>", escape(class)),
        None => String::new(),
    };
    add(&mut lines, &named("here", &image.ours));
    add(&mut lines, &named("reference", &image.reference));
    format!("<div class=\"card\">{picture}<div>{lines}</div></div>\n")
}

fn table(class: &str, headings: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let cells = |tag: &str, cells: &[String]| {
        cells.iter().fold(String::new(), |mut line, cell| {
            // Writing to a string cannot fail.
            let _ = write!(line, "<{tag}>{}</{tag}>", escape(cell));
            line
        })
    };
    let headings: Vec<String> = headings.iter().map(|heading| (*heading).to_owned()).collect();
    let head = if headings.is_empty() { String::new() } else { format!("<tr>{}</tr>", cells("th", &headings)) };
    let rows: String = rows
        .map(|row| {
            let mark = if row.first().is_some_and(|cell| cell == "FAIL") { " class=\"failed\"" } else { "" };
            format!("<tr{mark}>{}</tr>\n", cells("td", &row))
        })
        .collect();
    format!("<div class=\"scroll\"><table class=\"{class}\">{head}\n{rows}</table></div>\n")
}

/// Text of others as text, in elements and in attributes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // Not allowed in HTML, and nothing to see.
            control if control.is_control() => escaped.push(' '),
            plain => escaped.push(plain),
        }
    }
    escaped
}

#[cfg(test)]
mod tests;
