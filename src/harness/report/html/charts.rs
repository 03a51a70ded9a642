//! The plots, each an inline SVG drawn from a report's figures.

use std::fmt::Write;

use super::escape;
use crate::harness::report::{ClassRecall, Cosines, Histogram, Reliability, ReliabilityBin};

/// An SVG that is being drawn.
struct Canvas {
    width: f64,
    height: f64,
    marks: String,
}

impl Canvas {
    fn new(width: f64, height: f64) -> Self {
        Self { width, height, marks: String::new() }
    }

    fn mark(&mut self, mark: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.marks.write_fmt(mark);
        self.marks.push('\n');
    }

    fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let ((x1, y1), (x2, y2)) = (from, to);
        self.mark(format_args!(
            "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
        ));
    }

    /// A box that tells `told` when pointed at; `paint` is its class or fill.
    fn rect(&mut self, paint: &str, (x, y): (f64, f64), (width, height): (f64, f64), told: &str) {
        let told = escape(told);
        self.mark(format_args!(
            "<rect {paint} x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"><title>{told}</title></rect>"
        ));
    }

    /// `anchor` is `start`, `middle` or `end`; what does not fit is cut and told whole when pointed at.
    fn text(&mut self, class: &str, anchor: &str, (x, y): (f64, f64), text: &str) {
        const MOST: usize = 26;
        let shown = match text.chars().count() > MOST {
            true => text.chars().take(MOST - 1).chain(['…']).collect(),
            false => text.to_owned(),
        };
        let (shown, whole) = (escape(&shown), escape(text));
        self.mark(format_args!(
            "<text class=\"{class}\" text-anchor=\"{anchor}\" x=\"{x:.1}\" y=\"{y:.1}\">{shown}<title>{whole}</title></text>"
        ));
    }

    fn done(self) -> String {
        let Self { width, height, marks } = self;
        format!(
            "<svg width=\"{width:.0}\" height=\"{height:.0}\" viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\">\n{marks}</svg>"
        )
    }
}

/// What the two colours are, from `x` on.
fn legend(canvas: &mut Canvas, x: f64, y: f64, reference: bool) {
    let sides = [("here", "int8 here"), ("reference", "reference")];
    for (at, (class, name)) in sides.iter().enumerate().take(if reference { 2 } else { 1 }) {
        let x = x + at as f64 * 90.0;
        canvas.rect(&format!("class=\"{class}\""), (x, y - 9.0), (10.0, 10.0), name);
        canvas.text("soft", "start", (x + 15.0, y), name);
    }
}

/// Recall bars of both sides, a pair a class.
pub(super) fn recalls(classes: &[ClassRecall]) -> String {
    const LEFT: f64 = 190.0;
    const BAR: f64 = 340.0;
    const ROW: f64 = 24.0;
    const TOP: f64 = 44.0;
    let bottom = TOP + classes.len() as f64 * ROW;
    let mut canvas = Canvas::new(LEFT + BAR + 130.0, bottom + 10.0);
    let reference = classes.iter().any(|class| class.reference.is_some());
    legend(&mut canvas, LEFT, 14.0, reference);
    for share in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let x = LEFT + share * BAR;
        canvas.line("grid", (x, TOP - 6.0), (x, bottom));
        canvas.text("soft", "middle", (x, TOP - 10.0), &format!("{:.0} %", share * 100.0));
    }
    for (at, class) in classes.iter().enumerate() {
        let y = TOP + at as f64 * ROW;
        let told =
            |side: &str, recall: f64| format!("{}: {side} {:.2} % of {}", class.name, recall * 100.0, class.images);
        canvas.text("", "end", (LEFT - 8.0, y + 15.0), &class.name);
        canvas.rect("class=\"here\"", (LEFT, y + 3.0), (class.recall * BAR, 9.0), &told("int8 here", class.recall));
        let mut figure = format!("{:.1}", class.recall * 100.0);
        if let Some(recall) = class.reference {
            canvas.rect("class=\"reference\"", (LEFT, y + 12.0), (recall * BAR, 6.0), &told("reference", recall));
            figure += &format!(" / {:.1}", recall * 100.0);
        }
        canvas.text("soft", "start", (LEFT + BAR + 10.0, y + 15.0), &figure);
    }
    canvas.done()
}

/// Who was taken for whom: a row a true class; each cell as dark as its share of the row.
pub(super) fn confusion(classes: &[String], counts: &[Vec<usize>]) -> String {
    const LEFT: f64 = 160.0;
    const TOP: f64 = 130.0;
    // Two matrices stand side by side on a wide screen.
    let cell = (430.0 / classes.len().max(1) as f64).clamp(11.0, 44.0);
    let side = cell * classes.len() as f64;
    let mut canvas = Canvas::new(LEFT + side + 80.0, TOP + side + 26.0);
    for (at, name) in classes.iter().enumerate() {
        let middle = (at as f64 + 0.5) * cell;
        canvas.text("", "end", (LEFT - 8.0, TOP + middle + 4.0), name);
        let (x, y) = (LEFT + middle + 4.0, TOP - 8.0);
        canvas.mark(format_args!("<g transform=\"rotate(-55 {x:.1} {y:.1})\">"));
        canvas.text("", "start", (x, y), name);
        canvas.mark(format_args!("</g>"));
    }
    for (truth, row) in counts.iter().enumerate() {
        let total = row.iter().sum::<usize>().max(1) as f64;
        for (taken, count) in row.iter().enumerate() {
            let share = *count as f64 / total;
            let place = (LEFT + taken as f64 * cell, TOP + truth as f64 * cell);
            let told = format!("{} taken for {}: {count} of {total}", classes[truth], classes[taken]);
            let fill = format!("fill=\"{}\" stroke=\"#edf0f4\"", shade(share, truth == taken));
            canvas.rect(&fill, place, (cell, cell), &told);
            if *count > 0 && cell >= 18.0 {
                let ink = if share > 0.5 { "fill:#fff" } else { "fill:#1c2430" };
                let (x, y) = (place.0 + cell / 2.0, place.1 + cell / 2.0 + 4.0);
                canvas.mark(format_args!(
                    "<text text-anchor=\"middle\" style=\"{ink}\" x=\"{x:.1}\" y=\"{y:.1}\">{count}</text>"
                ));
            }
        }
    }
    canvas.text("soft", "start", (LEFT, TOP + side + 18.0), "row: true class");
    canvas.text("soft", "end", (LEFT + side, TOP + side + 18.0), "column: taken for");
    canvas.done()
}

/// From white to blue on the diagonal, to red off it, where even one mistake is to be seen.
fn shade(share: f64, right: bool) -> String {
    if share == 0.0 {
        return "#fff".to_owned();
    }
    let (full, strength) =
        if right { ([31.0, 111.0, 235.0], share) } else { ([200.0, 40.0, 30.0], 0.15 + 0.85 * share) };
    let [red, green, blue] = full.map(|full: f64| (255.0 + (full - 255.0) * strength).round());
    format!("rgb({red},{green},{blue})")
}

/// How the pictures' cosines lie, with mean, first percentile and least marked.
pub(super) fn histogram(histogram: &Histogram, cosines: &Cosines) -> String {
    const LEFT: f64 = 50.0;
    const WIDE: f64 = 640.0;
    const TOP: f64 = 46.0;
    const HIGH: f64 = 190.0;
    let (Some(low), Some(high)) = (histogram.edges.first(), histogram.edges.last()) else { return String::new() };
    let mut canvas = Canvas::new(LEFT + WIDE + 40.0, TOP + HIGH + 34.0);
    let x = |cosine: f64| LEFT + (cosine - low) / (high - low).max(f64::EPSILON) * WIDE;
    let most = histogram.counts.iter().copied().max().unwrap_or(0).max(1);
    for share in [0.0, 0.5, 1.0] {
        let y = TOP + HIGH * (1.0 - share);
        canvas.line("grid", (LEFT, y), (LEFT + WIDE, y));
        canvas.text("soft", "end", (LEFT - 6.0, y + 4.0), &format!("{:.0}", most as f64 * share));
    }
    for (edges, count) in histogram.edges.windows(2).zip(&histogram.counts).filter(|(_, count)| **count > 0) {
        // A bin that holds anything at all is seen.
        let height = (*count as f64 / most as f64 * HIGH).max(2.0);
        let size = ((x(edges[1]) - x(edges[0]) - 1.0).max(1.0), height);
        let told = format!("{:.5} to {:.5}: {count}", edges[0], edges[1]);
        canvas.rect("class=\"here\"", (x(edges[0]), TOP + HIGH - height), size, &told);
    }
    for at in 0..=4 {
        let cosine = low + (high - low) * f64::from(at) / 4.0;
        canvas.text("soft", "middle", (x(cosine), TOP + HIGH + 18.0), &format!("{cosine:.5}"));
    }
    let marks = [("least", cosines.min), ("1 %", cosines.p1), ("mean", cosines.mean)];
    for (at, (name, cosine)) in marks.into_iter().enumerate() {
        // One above the other: they may be close together.
        let (x, y) = (x(cosine.clamp(*low, *high)), 12.0 + at as f64 * 14.0);
        canvas.mark(format_args!(
            "<line x1=\"{x:.1}\" y1=\"{:.1}\" x2=\"{x:.1}\" y2=\"{:.1}\" stroke=\"#8c1d13\" stroke-dasharray=\"3 3\"/>",
            y + 3.0,
            TOP + HIGH
        ));
        let (anchor, x) = if x > LEFT + WIDE / 2.0 { ("end", x - 4.0) } else { ("start", x + 4.0) };
        canvas.text("soft halo", anchor, (x, y + 4.0), &format!("{name} {cosine:.5}"));
    }
    canvas.done()
}

/// Accuracy against confidence; on the diagonal a score is a probability.
pub(super) fn reliability(reliability: &Reliability) -> String {
    const LEFT: f64 = 50.0;
    const TOP: f64 = 30.0;
    const SIDE: f64 = 300.0;
    let mut canvas = Canvas::new(LEFT + SIDE + 30.0, TOP + SIDE + 46.0);
    legend(&mut canvas, LEFT, 14.0, reliability.reference_bins.is_some());
    let place = |confidence: f64, accuracy: f64| (LEFT + confidence * SIDE, TOP + (1.0 - accuracy) * SIDE);
    for share in [0.0, 0.25, 0.5, 0.75, 1.0] {
        canvas.line("grid", place(0.0, share), place(1.0, share));
        canvas.line("grid", place(share, 0.0), place(share, 1.0));
        let label = format!("{:.0} %", share * 100.0);
        canvas.text("soft", "end", (LEFT - 6.0, place(0.0, share).1 + 4.0), &label);
        canvas.text("soft", "middle", (place(share, 0.0).0, TOP + SIDE + 16.0), &label);
    }
    let ((x1, y1), (x2, y2)) = (place(0.0, 0.0), place(1.0, 1.0));
    canvas.mark(format_args!(
        "<line x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\" stroke=\"#5b6675\" stroke-dasharray=\"4 4\"/>"
    ));
    if let Some(bins) = &reliability.reference_bins {
        curve(&mut canvas, bins, "#9aa4b2", place);
    }
    curve(&mut canvas, &reliability.bins, "#1f6feb", place);
    canvas.text("soft", "middle", (LEFT + SIDE / 2.0, TOP + SIDE + 36.0), "winning probability");
    canvas.done()
}

/// A side's bins: dots as large as the bins are full, joined.
fn curve(canvas: &mut Canvas, bins: &[ReliabilityBin], colour: &str, place: impl Fn(f64, f64) -> (f64, f64)) {
    let total = bins.iter().map(|bin| bin.images).sum::<usize>().max(1) as f64;
    let filled = || bins.iter().filter(|bin| bin.images > 0);
    let points = filled().fold(String::new(), |mut points, bin| {
        let (x, y) = place(bin.confidence, bin.accuracy);
        let _ = write!(points, "{x:.1},{y:.1} ");
        points
    });
    canvas.mark(format_args!("<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>"));
    for bin in filled() {
        let (x, y) = place(bin.confidence, bin.accuracy);
        let radius = 2.5 + 7.0 * (bin.images as f64 / total).sqrt();
        let told =
            format!("{:.1} to {:.1}: {} pictures, {:.1} % right", bin.low, bin.high, bin.images, bin.accuracy * 100.0);
        canvas.mark(format_args!(
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius:.1}\" fill=\"{colour}\" fill-opacity=\"0.8\"><title>{told}</title></circle>"
        ));
    }
}
