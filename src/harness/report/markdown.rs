//! A report as Markdown.

use super::Report;

/// The whole page.
pub fn render(report: &Report) -> String {
    format!("# {} on {}\n", report.pretrained, report.dataset)
}
