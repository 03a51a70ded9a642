//! A report on the terminal.

use crate::harness::report::{Report, Stages, Verdict};

/// The report in a screenful.
pub(super) fn print(report: &Report) {
    let split = report.split.as_ref().map_or(String::new(), |split| format!(" {split}"));
    let engine = report.subject.engine.as_ref().map_or(String::new(), |engine| format!(", {engine}"));
    println!("{}{split}: {} pictures, {} captions", report.dataset, report.images, report.captions);
    println!("model {}{engine}\n", report.pretrained);
    println!("{:<28} {:>9} {:>10} {:>8}  difference, 95 %", "", "ours", "reference", "ratio");
    for task in &report.tasks {
        let setting = task.setting.as_ref().map_or(String::new(), |setting| format!(" ({setting})"));
        println!("{}{setting}", task.task);
        for metric in &task.metrics {
            let (scale, unit) = if metric.name == "count_mae" { (1.0, " ") } else { (100.0, "%") };
            let figure = |value: f64| format!("{:.2} {unit}", value * scale);
            let reference = metric.reference.map_or(String::new(), figure);
            let ratio = metric.ratio.map_or(String::new(), |ratio| format!("{ratio:.4}"));
            let interval = metric
                .difference_interval
                .map_or(String::new(), |[low, high]| format!("{:+.2} … {:+.2}", low * scale, high * scale));
            println!("  {:<26} {:>9} {reference:>10} {ratio:>8}  {interval}", metric.name, figure(metric.value));
        }
    }
    if let Some(stages) = &report.stages {
        print_stages(stages);
    }
    if let Some(device) = &report.device {
        let [median, p99, max] = device.latency_ms;
        println!("\n{}: {} of {} answered in time", device.engine, device.answered, device.sent);
        println!("latency    median {median:.1} ms, p99 {p99:.1}, largest {max:.1}");
    }
    let Some(parity) = &report.parity else { return };
    let cosine = &parity.cosine;
    println!("\ncosine     mean {:.5}, p1 {:.5}, least {:.5}", cosine.mean, cosine.p1, cosine.min);
    let agreement = |share: Option<f64>| share.map_or("–".to_owned(), |share| format!("{:.2} %", share * 100.0));
    println!(
        "agreement  top-1 {}, decisions {}",
        agreement(parity.top1_agreement),
        agreement(parity.decision_agreement)
    );
    for image in parity.worst.iter().take(3) {
        println!("worst      {} {:.5}", image.file, image.cosine);
    }
}

fn print_stages(stages: &Stages) {
    let metric = stages.metric.as_deref().unwrap_or("");
    println!(
        "\n{:<12} {:>9} {:>9} {:>9} {metric:>10}   on {} pictures",
        "stage", "cosine", "p1", "least", stages.images
    );
    let percent = |share: Option<f64>| share.map_or("–".to_owned(), |share| format!("{:.2} %", share * 100.0));
    println!("{:<12} {:>9} {:>9} {:>9} {:>10}", "reference", 1, 1, 1, percent(stages.reference));
    for row in &stages.rows {
        match (&row.cosine, &row.absent) {
            (Some(cosine), None) => println!(
                "{:<12} {:>9.5} {:>9.5} {:>9.5} {:>10}   {}",
                row.stage,
                cosine.mean,
                cosine.p1,
                cosine.min,
                percent(row.value),
                row.what
            ),
            (_, reason) => println!("{:<12} absent: {}", row.stage, reason.as_deref().unwrap_or("no pictures")),
        }
    }
}

/// Warnings and verdict, on standard error, so that `--json` stays JSON.
pub(super) fn tell(report: &Report) {
    for warning in &report.warnings {
        eprintln!("remoteclipd: {warning}");
    }
    if report.gates.is_none() {
        // With gates these stand among them.
        let verdicts = report.device.iter().flat_map(|device| device.verdicts());
        verdicts.filter(|verdict| !verdict.passed).for_each(|verdict| eprintln!("FAILED: {}", verdict.sentence()));
    }
    let Some(gates) = &report.gates else { return };
    let failed: Vec<&Verdict> = gates.verdicts.iter().filter(|verdict| !verdict.passed).collect();
    let reached = gates.reached.map_or(String::new(), |tier| format!("; reached {} %", tier * 100.0));
    if failed.is_empty() {
        eprintln!("gates passed: {} at {} % of the reference{reached}", gates.verdicts.len(), gates.tier * 100.0);
    } else {
        eprintln!("gates FAILED: {} of {} ({})", failed.len(), gates.verdicts.len(), gates.file);
        failed.iter().for_each(|verdict| eprintln!("  {}", verdict.sentence()));
    }
}
