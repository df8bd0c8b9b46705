//! Pages as a whole: what hostile texts become in them, and what they load.

use serde_json::json;

use super::*;

/// What people and worse type into titles and biographies.
const HOSTILE: [&str; 6] = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "'><svg onload=alert(1)>",
    "<b>broken <a href='https://example.org'",
    "</title></style></svg></script><h1>",
    "&lt;script&gt; &amp; {{7*7}} ${7*7}",
];

/// A page with `text` wherever a caller can put one.
fn page_of(text: &str) -> Page {
    let text = || text.to_owned();
    let axis = || Axis {
        name: text(),
        from: 0.0,
        to: 3.0,
    };
    let bars = Bars {
        named: text(),
        names: vec![text(), text()],
        series: vec![
            Series {
                name: text(),
                values: vec![1.0, 2.0],
            },
            Series {
                name: text(),
                values: vec![3.0],
            },
        ],
        unit: text(),
    };
    let funnel = Funnel {
        counted: text(),
        steps: vec![
            Step {
                name: text(),
                left: 9,
            },
            Step {
                name: text(),
                left: 3,
            },
        ],
    };
    let histogram = Histogram {
        axis: axis(),
        counted: text(),
        counts: vec![1, 5, 2],
    };
    let line = || Line {
        name: text(),
        points: vec![(0.0, 1.0), (1.0, f64::NAN), (2.0, -1.0)],
        spread: vec![
            Spread {
                low: 0.0,
                high: 2.0
            };
            3
        ],
    };
    let lines = Lines {
        along: text(),
        measured: text(),
        lines: vec![line(), line()],
    };
    let map = HeatMap {
        across: axis(),
        up: axis(),
        measured: text(),
        columns: 2,
        values: vec![0.0, 1.0, 2.0, f32::NAN],
    };
    let plots = [
        Plot::Bars(bars),
        Plot::Funnel(funnel),
        Plot::Histogram(histogram),
        Plot::Lines(lines),
        Plot::HeatMap(map),
    ];
    let charts = plots.map(|plot| Chart {
        title: text(),
        note: text(),
        plot,
    });
    let table = Table {
        caption: text(),
        head: vec![text(), text()],
        rows: vec![vec![Cell::Text(text()), Cell::Measure(text())]],
    };
    Page {
        title: text(),
        lead: text(),
        facts: vec![Fact {
            name: text(),
            value: text(),
            note: text(),
        }],
        sections: vec![Section {
            title: text(),
            parts: vec![
                Part::Text(text()),
                Part::Warning(text()),
                Part::Charts(charts.to_vec()),
                Part::Table(table.clone()),
                Part::Details(text(), table),
            ],
        }],
        about: json!({ text(): text() }),
    }
}

#[test]
fn no_text_becomes_markup() {
    // The same elements as those of a harmless page, and so none that came from a text.
    let elements = |html: &str| html.matches('<').count();
    let harmless = elements(&page_of("harmless").to_html());
    for text in HOSTILE {
        let html = page_of(text).to_html();
        assert_eq!(elements(&html), harmless, "{text}");
        // A quote would end an attribute.
        assert!(!html.contains("\"><img"), "{text}");
        assert!(!html.contains("<script>"), "{text}");
        assert_eq!(html.matches("</script>").count(), 1, "{text}");
    }
}

#[test]
fn nothing_is_loaded() {
    let html = page_of("harmless").to_html();
    assert!(
        !html.contains("http:") && !html.contains("https:") && !html.contains("//"),
        "{html}"
    );
    assert!(!html.contains("@import") && !html.contains("url("));
    for attribute in ["src=", "href="] {
        for (at, _) in html.match_indices(attribute) {
            let value = &html[at + attribute.len()..];
            assert!(
                value.starts_with("\"data:") || value.starts_with("\"#"),
                "{}",
                &value[..40]
            );
        }
    }
    assert!(html.contains("default-src 'none'"));
}

#[test]
fn a_title_of_a_megabyte_is_cut() {
    let html = page_of(&"x".repeat(1 << 20)).to_html();
    assert!(html.contains("…") && html.contains("(cut: 1,048,576 characters)"));
    // The page's own data stay whole, which is twice the title.
    assert!(html.len() < (2 << 20) + 100_000, "{}", html.len());
}

#[test]
fn charts_have_a_text_and_a_table() {
    let html = page_of("harmless").to_html();
    assert_eq!(
        html.matches("<svg role=\"img\" aria-label=\"harmless. ")
            .count(),
        5
    );
    assert_eq!(html.matches("<summary>Numbers</summary>").count(), 5);
    assert!(!html.contains("cannot be drawn"));
    assert!(html.contains("data:image/png;base64,"));
}

#[test]
fn charts_without_numbers_are_no_panic() {
    let empty = [
        Plot::Bars(Bars::default()),
        Plot::Bars(Bars::counts("a", "b", &[("zero".to_owned(), 0)])),
        Plot::Funnel(Funnel::default()),
        Plot::Histogram(Histogram::default()),
        Plot::Lines(Lines::default()),
        Plot::HeatMap(HeatMap::default()),
        Plot::HeatMap(HeatMap {
            columns: 3,
            values: vec![f32::INFINITY; 6],
            ..HeatMap::default()
        }),
        Plot::Lines(Lines {
            lines: vec![Line {
                points: vec![(1.0, 5.0)],
                ..Line::default()
            }],
            ..Lines::default()
        }),
        Plot::Histogram(Histogram {
            axis: Axis {
                name: String::new(),
                from: 5.0,
                to: 5.0,
            },
            counts: vec![3],
            ..Histogram::default()
        }),
        Plot::Bars(Bars {
            names: vec!["a".to_owned()],
            series: vec![Series {
                name: String::new(),
                values: vec![f64::NAN],
            }],
            ..Bars::default()
        }),
    ];
    let charts = empty.map(|plot| Chart {
        title: "empty".to_owned(),
        note: String::new(),
        plot,
    });
    let mut section = Section::new("empty");
    section.parts.push(Part::Charts(charts.to_vec()));
    let page = Page {
        sections: vec![section],
        ..Page::default()
    };
    assert!(page.to_html().contains("empty"));
}

#[test]
fn a_long_table_says_what_it_leaves_out() {
    let mut table = Table::new("long", &["row"]);
    for row in 0..1234_u64 {
        table.rows.push(vec![row.into()]);
    }
    let mut section = Section::new("table");
    section.parts.push(Part::Table(table));
    let page = Page {
        sections: vec![section],
        ..Page::default()
    };
    assert!(page.to_html().contains("734 more rows are not shown."));
}

#[test]
fn only_our_pages_are_ours() {
    assert!(Page::is_ours(page_of("x").to_html().as_bytes()));
    assert!(Page::is_ours(
        page_of(&"x".repeat(1 << 20)).to_html().as_bytes()
    ));
    for other in [
        "",
        "<!DOCTYPE html>",
        "<!DOCTYPE html><html><head><title>mine</title>",
        "mine",
    ] {
        assert!(!Page::is_ours(other.as_bytes()), "{other}");
    }
}
