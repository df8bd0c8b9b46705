//! Tests of whole pages: hostile texts, and the files that a page loads.

use serde_json::json;

use super::*;

/// Hostile texts that may occur in titles and biographies.
const HOSTILE: [&str; 6] = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "'><svg onload=alert(1)>",
    "<b>broken <a href='https://example.org'",
    "</title></style></svg></script><h1>",
    "&lt;script&gt; &amp; {{7*7}} ${7*7} \u{1}\u{FFFE}",
];

fn series(name: &str, values: Vec<f64>) -> Series {
    Series {
        name: name.to_owned(),
        values,
    }
}

fn chart(title: &str, plot: Plot) -> Chart {
    Chart {
        title: title.to_owned(),
        note: String::new(),
        plot,
    }
}

/// Returns the HTML of a page with one part.
fn html_of(part: Part) -> String {
    let mut section = Section::new("section");
    section.parts.push(part);
    let page = Page {
        sections: vec![section],
        ..Page::default()
    };
    page.to_html()
}

/// Returns a plot of a line through these points.
fn line_through(points: Vec<(f64, f64)>) -> Plot {
    let line = Line {
        points,
        ..Line::default()
    };
    Plot::Lines(Lines {
        lines: vec![line],
        ..Lines::default()
    })
}

/// Returns a page with `text` in every place that a caller can set.
fn page_of(text: &str) -> Page {
    let text = text.to_owned();
    let axis = Axis {
        name: text.clone(),
        from: 0.0,
        to: 3.0,
    };

    let bars = Bars {
        named: text.clone(),
        names: vec![text.clone(), text.clone()],
        series: vec![series(&text, vec![1.0, 2.0]), series(&text, vec![3.0])],
        unit: text.clone(),
    };

    let step = |left| Step {
        name: text.clone(),
        left,
    };
    let funnel = Funnel {
        counted: text.clone(),
        steps: vec![step(9), step(3)],
    };

    let histogram = Histogram {
        axis: axis.clone(),
        counted: text.clone(),
        counts: vec![1, 5, 2],
    };

    let line = Line {
        name: text.clone(),
        points: vec![(0.0, 1.0), (1.0, f64::NAN), (2.0, -1.0)],
        spread: vec![
            Span {
                low: 0.0,
                high: 2.0
            };
            3
        ],
    };
    let lines = Lines {
        along: text.clone(),
        measured: text.clone(),
        lines: vec![line.clone(), line],
    };

    let map = HeatMap {
        across: axis.clone(),
        up: axis.clone(),
        measured: text.clone(),
        columns: 2,
        values: vec![0.0, 1.0, 2.0, f32::NAN],
        sound: Some(Sound {
            sample_rate_hz: 8000,
            from_s: 0.0,
            samples: vec![0.0, 0.5, -0.5],
        }),
    };

    let matrix = Matrix {
        down: text.clone(),
        across: text.clone(),
        names: vec![text.clone(), text.clone()],
        counts: vec![vec![3, 1], vec![0, 2]],
    };

    let mut points = Vec::new();
    for (x, group, is_right) in [
        (0.0, Some(0), Some(true)),
        (2.0, Some(1), Some(false)),
        (1.0, None, None),
        (f64::NAN, Some(9), None),
    ] {
        points.push(Point {
            x,
            y: -x,
            group,
            is_right,
            name: text.clone(),
        });
    }
    let scatter = Scatter {
        id: text.clone(),
        counted: text.clone(),
        grouped: text.clone(),
        groups: vec![text.clone(), text.clone()],
        points,
    };

    let plots = [
        Plot::Bars(bars),
        Plot::Funnel(funnel),
        Plot::Histogram(histogram),
        Plot::Lines(lines),
        Plot::HeatMap(map),
        Plot::Matrix(matrix),
        Plot::Scatter(scatter),
    ];
    let charts = plots.map(|plot| Chart {
        title: text.clone(),
        note: text.clone(),
        plot,
    });

    let table = Table {
        caption: text.clone(),
        head: vec![text.clone(), text.clone(), text.clone()],
        rows: vec![vec![
            Cell::Text(text.clone()),
            Cell::Measure(text.clone()),
            Cell::Link {
                text: text.clone(),
                path: text.clone(),
            },
        ]],
    };

    Page {
        title: text.clone(),
        lead: text.clone(),
        facts: vec![Fact {
            name: text.clone(),
            value: text.clone(),
            note: text.clone(),
        }],
        sections: vec![Section {
            title: text.clone(),
            parts: vec![
                Part::Text(text.clone()),
                Part::Warning(text.clone()),
                Part::Charts(charts.to_vec()),
                Part::Table(table.clone()),
                Part::Details(text.clone(), table),
            ],
        }],
        about: json!({ text.clone(): text.clone() }),
    }
}

fn n_elements(html: &str) -> usize {
    html.matches('<').count()
}

#[test]
fn no_text_becomes_markup() {
    // A page with a hostile text has as many elements as a page with a harmless one, so no text became markup.
    let harmless = n_elements(&page_of("harmless").to_html());

    for text in HOSTILE {
        let html = page_of(text).to_html();
        assert_eq!(n_elements(&html), harmless, "{text}");

        // An unescaped quote would end an attribute of an element.
        assert!(!html.contains("\"><img"), "{text}");
        assert!(!html.contains("<script>"), "{text}");
        assert_eq!(html.matches("</script>").count(), 1, "{text}");
    }
}

#[test]
fn pages_load_no_external_resources() {
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
                value.starts_with("\"data:")
                    || value.starts_with("\"#")
                    // A link loads nothing until it is clicked.
                    || html[..at].ends_with("<a ") && value.starts_with("\"./"),
                "{}",
                &value[..40]
            );
        }
    }

    assert!(html.contains("default-src 'none'"));
}

#[test]
fn only_pages_with_sounds_allow_media() {
    let mut page = page_of("harmless");
    let html = page.to_html();
    assert_eq!(html.matches("<audio controls").count(), 1);
    assert!(html.contains("form-action 'none'; media-src data:\""));

    for part in &mut page.sections[0].parts {
        let Part::Charts(charts) = part else { continue };
        for chart in charts {
            if let Plot::HeatMap(map) = &mut chart.plot {
                map.sound = None;
            }
        }
    }
    let html = page.to_html();
    assert!(!html.contains("<audio") && !html.contains("media-src"));
}

#[test]
fn a_title_of_a_megabyte_is_cut() {
    let html = page_of(&"x".repeat(1 << 20)).to_html();
    assert!(html.contains("…") && html.contains("(truncated from 1,048,576 characters)"));
    // The page's own data are not cut, which is twice the title.
    assert!(html.len() < (2 << 20) + 100_000, "{}", html.len());
}

#[test]
fn charts_have_a_text_and_a_table() {
    let html = page_of("harmless").to_html();
    assert_eq!(
        html.matches("<svg role=\"img\" aria-label=\"harmless. ")
            .count(),
        7
    );
    assert_eq!(html.matches("<summary>Numbers</summary>").count(), 7);
    assert!(!html.contains("cannot be drawn"));
    assert!(html.contains("data:image/png;base64,"));
}

#[test]
fn charts_without_numbers_do_not_panic() {
    let empty = [
        Plot::Bars(Bars::default()),
        Plot::Bars(Bars::counts("a", "b", &[("zero".to_owned(), 0)])),
        Plot::Funnel(Funnel::default()),
        Plot::Histogram(Histogram::default()),
        Plot::Lines(Lines::default()),
        Plot::HeatMap(HeatMap::default()),
        Plot::Matrix(Matrix::default()),
        Plot::Matrix(Matrix {
            names: vec!["a".to_owned(); 3],
            counts: vec![vec![0; 3]; 3],
            ..Matrix::default()
        }),
        Plot::Scatter(Scatter::default()),
        Plot::Scatter(Scatter {
            points: vec![Point::default(); 2],
            ..Scatter::default()
        }),
        Plot::HeatMap(HeatMap {
            columns: 3,
            values: vec![f32::INFINITY; 6],
            ..HeatMap::default()
        }),
        line_through(vec![(1.0, 5.0)]),
        line_through(vec![(1.0, f64::MIN), (f64::MAX, f64::MAX), (2.0, 5.0)]),
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
            series: vec![series("", vec![f64::NAN])],
            ..Bars::default()
        }),
    ];

    let charts = empty.map(|plot| chart("empty", plot));
    assert!(html_of(Part::Charts(charts.to_vec())).contains("empty"));
}

#[test]
fn long_tables_state_the_omitted_rows() {
    let mut table = Table::new("long", &["row"]);
    for row in 0..1234_u64 {
        table.rows.push(vec![row.into()]);
    }

    assert!(html_of(Part::Table(table)).contains("734 more rows are not shown."));
}

#[test]
fn only_generated_pages_are_recognized() {
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

#[test]
fn long_bar_names_are_shortened_with_full_title() {
    let names = [
        "Rock",
        "International / Middle Eastern & North African",
        "EXPERIMENTAL",
        "実験音楽と電子音楽と環境音楽の歴史",
    ];

    let counts = names.map(|name| (name.to_owned(), 5));
    let bars = Plot::Bars(Bars::counts("class", "clips", &counts));
    let html = chart("Classes", bars).markup().into_string();

    for message in [
        ">Rock<title>Rock</title></text>",
        "…<title>International / Middle Eastern &amp; North African</title></text>",
        ">EXPERIMENTAL<title>EXPERIMENTAL</title></text>",
        "…<title>実験音楽と電子音楽と環境音楽の歴史</title></text>",
    ] {
        assert!(html.contains(message), "{message}: {html}");
    }

    assert!(!html.contains('\0'));
}

#[test]
fn a_matrix_has_counts_and_shares() {
    let matrix = Plot::Matrix(Matrix {
        down: "true class".to_owned(),
        across: "predicted class".to_owned(),
        names: vec!["Rock".to_owned(), "Jazz".to_owned()],
        counts: vec![vec![30, 10], vec![0, 5]],
    });
    let html = chart("Confusion", matrix).markup().into_string();

    for message in [
        ">30</text>",
        ">75 %</text>",
        "35 of 45 (77.8 %) are on the diagonal. Most frequent confusion (10 times): Rock predicted as Jazz.",
        ">10 (25.0 %)</td>",
    ] {
        assert!(html.contains(message), "{message}: {html}");
    }

    // Cells of many classes are too small for numbers, but no class is left out.
    let names: Vec<String> = (0..163).map(|class| class.to_string()).collect();
    let many = Plot::Matrix(Matrix {
        counts: vec![vec![1; 163]; 163],
        names,
        ..Matrix::default()
    });
    let svg = chart("Confusion", many).to_svg().unwrap();
    assert_eq!(svg.matches("<rect class=\"f k10\"").count(), 163 * 163);
}

#[test]
fn a_map_is_coloured_by_buttons_and_its_points_are_all_there() {
    let mut points = Vec::new();
    for place in 0..1000_u32 {
        points.push(Point {
            x: f64::from(place % 37),
            y: f64::from(place % 11),
            group: Some(place as usize % 3),
            is_right: Some(place % 5 > 0),
            name: match place % 100 {
                0 => format!("number {place} <b>"),
                _ => String::new(),
            },
        });
    }

    let map = Plot::Scatter(Scatter {
        id: "m-1<".to_owned(),
        counted: "rows".to_owned(),
        grouped: "class".to_owned(),
        groups: ["a", "b", "c"].map(str::to_owned).to_vec(),
        points,
    });
    let html = html_of(Part::Charts(vec![chart("Map", map)]));

    assert_eq!(html.matches("h0").count(), 1000);
    assert_eq!(html.matches("<g class=\"l p k").count(), 6);

    // Each point with a name has an element of its own; points without a name share elements.
    assert_eq!(html.matches("h0\"><title>number ").count(), 10);
    assert!(html.contains("<title>number 300 &lt;b&gt;</title>"));
    assert_eq!(html.matches("h0\"/>").count(), 6);
    assert_eq!(html.matches("type=\"radio\" name=\"m1\"").count(), 5);
    assert!(html.contains(".only-2:checked") && !html.contains(".only-3:checked"));
    assert!(html.contains("80.0 % of the labelled points are correct."));
}

#[test]
fn a_chart_is_a_file_of_its_own() {
    for text in HOSTILE {
        let page = page_of(text);
        let mut files = 0;
        for part in &page.sections[0].parts {
            let Part::Charts(charts) = part else { continue };
            for svg in charts.iter().filter_map(Chart::to_svg) {
                files += 1;
                assert!(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\""));
                assert!(!svg.contains("<script") && !svg.contains("<img"), "{svg}");
                assert!(!svg.contains("var("), "{svg}");
                assert!(!svg.contains(['\u{1}', '\u{FFFE}']), "not XML: {svg}");
                assert!(Chart::is_ours(svg.as_bytes()) && !Page::is_ours(svg.as_bytes()));
            }
        }

        assert_eq!(files, 6, "all but the picture");
    }

    assert!(!Chart::is_ours(
        b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>"
    ));
    assert!(!Chart::is_ours(page_of("x").to_html().as_bytes()));
}
