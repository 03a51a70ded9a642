//! A report as one self-contained HTML page.

use super::Report;

/// The whole page; thumbnails are made of the pictures at [`super::WorstImage::path`].
pub fn render(report: &Report) -> String {
    format!("<!doctype html><title>{} on {}</title>\n", report.pretrained, report.dataset)
}
