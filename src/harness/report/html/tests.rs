use super::super::sample::{HOSTILE, report};
use super::*;

/// Every element that is opened is closed, in order: what a browser would have to guess is an error here.
fn assert_well_formed(page: &str) {
    const VOID: [&str; 4] = ["meta", "img", "br", "!doctype"];
    let mut open: Vec<&str> = Vec::new();
    let mut rest = page;
    while let Some(start) = rest.find('<') {
        let end = start + rest[start..].find('>').expect("a tag ends");
        let tag = &rest[start + 1..end];
        let name = tag.trim_start_matches('/').split([' ', '\n']).next().unwrap_or_default();
        if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(closed), "before {}", &rest[..start.min(80)]);
        } else if !tag.ends_with('/') && !VOID.contains(&name) {
            open.push(name);
        }
        rest = &rest[end + 1..];
        if name == "style" && !tag.starts_with('/') {
            rest = &rest[rest.find("</style>").expect("the style ends")..];
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn names_from_data_stay_text() {
    let page = render(&report(None));
    assert_well_formed(&page);
    assert!(!page.contains("<script") && !page.contains(HOSTILE), "a name broke out");
    assert!(page.contains("&lt;/td&gt;&lt;script&gt;"), "and is still to be read");
    assert!(page.contains("script-src") || page.contains("default-src 'none'"));
}

#[test]
fn the_verdict_comes_first_and_failed_gates_before_passed_ones() {
    let page = render(&report(None));
    let at = |what: &str| page.find(what).unwrap_or_else(|| panic!("{what} is missing"));
    assert!(at("failed 1 of 2 gates") < at("<h2>Gates</h2>"));
    assert!(at("<td>FAIL</td>") < at("<td>pass</td>"));
    assert!(at("<summary>1 gates passed</summary>") < at("<td>pass</td>") && at("<td>pass</td>") < at("<svg"));
}

#[test]
fn nothing_is_fetched_and_every_plot_is_there() {
    let page = render(&report(None));
    for fetched in ["http:", "https:", "<link", "url(", "@import"] {
        assert!(!page.contains(fetched), "{fetched}");
    }
    assert_eq!(page.matches("<svg").count(), 5, "recall, reliability, two confusions, cosines");
}

#[test]
fn a_picture_is_inlined_and_one_that_is_gone_says_why() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.png");
    image::RgbImage::from_pixel(900, 300, image::Rgb([9, 99, 200])).save(&path).expect("saved");
    let page = render(&report(Some(path)));
    let start = page.find("data:image/jpeg;base64,").expect("a thumbnail") + "data:image/jpeg;base64,".len();
    let encoded = &page[start..start + page[start..].find('"').expect("its end")];
    let jpeg = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, encoded).expect("base64");
    let thumbnail = image::load_from_memory(&jpeg).expect("a JPEG");
    assert_eq!((thumbnail.width(), thumbnail.height()), (192, 64));
    assert!(page.contains("No such file") && page.contains("embeddings only"));
}

#[test]
fn a_report_of_nothing_but_metrics_renders() {
    let mut bare = report(None);
    (bare.parity, bare.gates, bare.device, bare.stages) = (None, None, None, None);
    bare.tasks[0].confusion = None;
    bare.tasks[0].reliability = None;
    bare.tasks[0].classes.clear();
    let page = render(&bare);
    assert_well_formed(&page);
    assert!(page.contains("no gates: nothing was judged"));
}
