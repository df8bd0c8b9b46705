//! A page: its frame and what can stand in it.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::Value;

use crate::chart::{self, Chart, Plot};
use crate::json;
use crate::table::Table;
use crate::text::{Shown, TEXT_CHARS_MAX};

/// The style of all pages: light, dark, narrow and printed. It stands in every [`Page`]; a program with a page of its own
/// makes it a part of that.
pub const STYLE: &str = include_str!("style.css");

/// What a browser may load: pictures that lie in the page itself, and nothing else. It is the second fence, in case
/// that a text ever came through the escaping.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; \
                      base-uri 'none'; form-action 'none'";
/// What a page with players may load as well: sounds that lie in it.
const SOUND_POLICY: &str = "; media-src data:";

/// Begins the name of the program in every page, and so tells our pages from others.
const GENERATOR: &str = "wavemill";

/// Bytes of a file that tell whether it is one of our pages.
const HEAD_BYTES: usize = 1024;

/// Characters of a title, at most.
const TITLE_CHARS_MAX: usize = 120;

/// One page.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// Its heading, and the name of its tab.
    pub title: String,
    /// A sentence below it.
    pub lead: String,
    /// What matters most, as large numbers.
    pub facts: Vec<Fact>,
    /// In order.
    pub sections: Vec<Section>,
    /// What the page is about, for programs: stands in it as JSON.
    pub about: Value,
}

/// A number or word that stands large at the top.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fact {
    /// What it counts.
    pub name: String,
    /// The number, as it is shown.
    pub value: String,
    /// Small, below it; may be empty.
    pub note: String,
}

/// A part of a page with a heading, which the list of contents names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Section {
    /// Its heading.
    pub title: String,
    /// In order.
    pub parts: Vec<Part>,
}

/// Something in a section.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// A paragraph.
    Text(String),
    /// A paragraph that stands out: something that a reader should know before using the numbers.
    Warning(String),
    /// Charts side by side, as many as the window has room for.
    Charts(Vec<Chart>),
    /// A table that is always open.
    Table(Table),
    /// A table behind a line to click on.
    Details(String, Table),
}

impl Page {
    /// The whole file.
    pub fn to_html(&self) -> String {
        let title = Shown::new(&self.title, TITLE_CHARS_MAX);

        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="generator" content={ (GENERATOR) " " (env!("CARGO_PKG_VERSION")) };
                    meta http-equiv="Content-Security-Policy" content=(self.policy());
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    // Without it a browser asks the server for one.
                    link rel="icon" href="data:,";
                    title { (title.text) }
                    style { (PreEscaped(STYLE)) (PreEscaped(chart::rules(self.groups_max()))) }
                }
                body {
                    (self.header(&title))
                    main { @for (place, section) in self.sections.iter().enumerate() { (section.markup(place)) } }
                    footer { "Made by wavemill " (env!("CARGO_PKG_VERSION")) ". This file loads nothing." }
                    script type="application/json" id="about" { (PreEscaped(json::inline(&self.about))) }
                }
            }
        };

        page.into_string()
    }

    /// Whether a file that begins with `bytes` is a page of ours, which a new one may take the place of.
    pub fn is_ours(bytes: &[u8]) -> bool {
        let head = &bytes[..bytes.len().min(HEAD_BYTES)];
        let mark = format!("<meta name=\"generator\" content=\"{GENERATOR} ");
        head.starts_with(b"<!DOCTYPE html>")
            && head.windows(mark.len()).any(|part| part == mark.as_bytes())
    }

    /// What a browser may do with it: no more than it needs.
    fn policy(&self) -> String {
        let mut policy = POLICY.to_owned();
        if self.charts().any(Chart::has_sound) {
            policy += SOUND_POLICY;
        }
        policy
    }

    /// Groups of the scatter that has most.
    fn groups_max(&self) -> usize {
        // One style serves all scatters of a page.
        let mut most = 0;
        for chart in self.charts() {
            if let Plot::Scatter(scatter) = &chart.plot {
                most = most.max(scatter.groups.len());
            }
        }
        most
    }

    fn charts(&self) -> impl Iterator<Item = &Chart> {
        let parts = self.sections.iter().flat_map(|section| &section.parts);
        parts.flat_map(|part| match part {
            Part::Charts(charts) => charts.as_slice(),
            _ => &[],
        })
    }

    fn header(&self, title: &Shown) -> Markup {
        html! {
            header {
                h1 { (title.markup()) }
                @if !self.lead.is_empty() {
                    p.lead { (Shown::new(&self.lead, TEXT_CHARS_MAX).markup()) }
                }
                @if !self.facts.is_empty() {
                    dl.facts { @for fact in &self.facts { (fact.markup()) } }
                }

                nav aria-label="Contents" {
                    ol {
                        @for (place, section) in self.sections.iter().enumerate() {
                            li { a href={ "#s" (place + 1) } { (Shown::new(&section.title, TITLE_CHARS_MAX).text) } }
                        }
                    }
                }
            }
        }
    }
}

impl Fact {
    fn markup(&self) -> Markup {
        html! {
            div {
                dt { (Shown::new(&self.name, TITLE_CHARS_MAX).text) }
                dd {
                    strong { (Shown::new(&self.value, TITLE_CHARS_MAX).text) }
                    @if !self.note.is_empty() {
                        span { (Shown::new(&self.note, TITLE_CHARS_MAX).text) }
                    }
                }
            }
        }
    }
}

impl Section {
    /// An empty section.
    pub fn new(title: &str) -> Self {
        Self {
            title: title.to_owned(),
            parts: Vec::new(),
        }
    }

    fn markup(&self, place: usize) -> Markup {
        let id = format!("s{}", place + 1);
        html! {
            section id=(id) aria-labelledby={ (id) "-title" } {
                h2 id={ (id) "-title" } { (Shown::new(&self.title, TITLE_CHARS_MAX).text) }
                @for part in &self.parts { (part.markup()) }
            }
        }
    }
}

impl Part {
    /// This alone, for a page that is put together in a browser: it has no style of its own. Every text in it is escaped.
    pub fn to_html(&self) -> String {
        self.markup().into_string()
    }

    fn markup(&self) -> Markup {
        match self {
            Self::Text(text) => html! { p { (Shown::new(text, PARAGRAPH_CHARS_MAX).markup()) } },
            Self::Warning(text) => {
                html! { p.warning role="note" { (Shown::new(text, PARAGRAPH_CHARS_MAX).markup()) } }
            }
            Self::Charts(charts) => html! {
                div.charts { @for chart in charts { (chart.markup()) } }
            },
            Self::Table(table) => table.markup(),
            Self::Details(summary, table) => html! {
                details { summary { (Shown::new(summary, TITLE_CHARS_MAX).text) } (table.markup()) }
            },
        }
    }
}

/// Characters of a paragraph, at most.
const PARAGRAPH_CHARS_MAX: usize = 2000;
