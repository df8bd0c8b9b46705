//! HTML pages: the frame of a page and its parts.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::Value;

use crate::chart::{self, Chart, Plot};
use crate::json;
use crate::table::Table;
use crate::text::{Shown, TEXT_CHARS_MAX};

/// The style of all pages: light, dark, narrow and printed. Every [`Page`] embeds it; a program with its own page
/// embeds it there.
pub const STYLE: &str = include_str!("style.css");

/// The content security policy: a browser may load only images embedded in the page. It is a second line of defence in
/// case text ever passes the escaping.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; \
                      base-uri 'none'; form-action 'none'";
/// Addition to the content security policy of pages with players: sounds embedded in the page may be loaded.
const SOUND_POLICY: &str = "; media-src data:";

/// Prefix of the generator name in every page, by which these pages are recognized.
const GENERATOR: &str = "wavemill";

/// Length of the prefix in which `Page::is_ours` looks for the generator name, in bytes.
const HEAD_BYTES: usize = 1024;

/// Maximum number of characters in a page's title.
const TITLE_CHARS_MAX: usize = 120;

/// An HTML page.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// The heading of the page, also shown as the title of the browser tab.
    pub title: String,
    /// A sentence below the page's heading.
    pub lead: String,
    /// The most important values of the page, shown in large type.
    pub facts: Vec<Fact>,
    /// The sections of the page, in order.
    pub sections: Vec<Section>,
    /// A machine-readable description of the page, embedded as JSON.
    pub about: Value,
}

/// A number or word shown in large type at the top of a page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fact {
    /// The name of the shown value.
    pub name: String,
    /// The shown value, already formatted.
    pub value: String,
    /// Small text below the value; may be empty.
    pub note: String,
}

/// A part of a page with a heading, listed in the table of contents.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Section {
    /// The heading of the section.
    pub title: String,
    /// The elements of the section, in order.
    pub parts: Vec<Part>,
}

/// An element of a section.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// A paragraph.
    Text(String),
    /// A highlighted paragraph: something that a reader should know before using the numbers.
    Warning(String),
    /// Charts next to each other, as many per line as fit in the window.
    Charts(Vec<Chart>),
    /// A table that is always visible.
    Table(Table),
    /// A table that is hidden until the reader clicks the line with this text.
    Details(String, Table),
}

impl Page {
    /// Creates a page of the sections that are not empty.
    pub fn new(title: impl Into<String>, lead: impl Into<String>, sections: Vec<Section>) -> Self {
        let sections = sections.into_iter();
        Self {
            title: title.into(),
            lead: lead.into(),
            sections: sections
                .filter(|section| !section.parts.is_empty())
                .collect(),
            ..Self::default()
        }
    }

    /// Returns the page as a complete HTML file.
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
                    // Without this link, a browser requests an icon from the server.
                    link rel="icon" href="data:,";
                    title { (title.text) }
                    style { (PreEscaped(STYLE)) (PreEscaped(chart::rules(self.groups_max()))) }
                }
                body {
                    (self.header(&title))
                    main { @for (place, section) in self.sections.iter().enumerate() { (section.markup(place)) } }
                    footer { "Made by wavemill " (env!("CARGO_PKG_VERSION")) ". This file loads no external resources." }
                    script type="application/json" id="about" { (PreEscaped(json::inline(&self.about))) }
                }
            }
        };

        page.into_string()
    }

    /// Reports whether a file that begins with `bytes` is a page written by this program, which a new page may replace.
    pub fn is_ours(bytes: &[u8]) -> bool {
        has_mark(bytes, "")
    }

    /// Reports whether a file that begins with `bytes` is a page written by this version of the program.
    pub fn is_of_this_version(bytes: &[u8]) -> bool {
        has_mark(bytes, env!("CARGO_PKG_VERSION"))
    }

    /// Returns the content security policy: a browser gets no more permissions than the page needs.
    fn policy(&self) -> String {
        let mut policy = POLICY.to_owned();
        if self.charts().any(Chart::has_sound) {
            policy += SOUND_POLICY;
        }
        policy
    }

    /// Returns the largest number of groups in a scatter plot of the page.
    fn groups_max(&self) -> usize {
        // All scatter plots of a page share the style rules for the largest number of groups.
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

/// Reports whether a file that begins with `bytes` is a page by this program, of a version that begins with `version`.
fn has_mark(bytes: &[u8], version: &str) -> bool {
    let head = &bytes[..bytes.len().min(HEAD_BYTES)];
    let mark = format!("<meta name=\"generator\" content=\"{GENERATOR} {version}");
    head.starts_with(b"<!DOCTYPE html>")
        && head.windows(mark.len()).any(|part| part == mark.as_bytes())
}

impl Fact {
    /// Creates a fact; `note` may be empty.
    pub fn new(name: impl Into<String>, value: String, note: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            value,
            note: note.into(),
        }
    }

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
    /// Creates a section without parts.
    pub fn new(title: &str) -> Self {
        Self {
            title: title.to_owned(),
            parts: Vec::new(),
        }
    }

    /// Adds a paragraph.
    pub fn add_text(&mut self, message: impl Into<String>) {
        self.parts.push(Part::Text(message.into()));
    }

    /// Adds a highlighted paragraph.
    pub fn add_warning(&mut self, message: impl Into<String>) {
        self.parts.push(Part::Warning(message.into()));
    }

    /// Adds charts next to each other, if there are any.
    pub fn add_charts(&mut self, charts: impl IntoIterator<Item = Chart>) {
        let charts: Vec<Chart> = charts.into_iter().collect();
        if !charts.is_empty() {
            self.parts.push(Part::Charts(charts));
        }
    }

    /// Adds a table, if it has rows.
    pub fn add_table(&mut self, table: Table) {
        if !table.rows.is_empty() {
            self.parts.push(Part::Table(table));
        }
    }

    /// Adds a table that is hidden until the reader clicks the line `summary`, if it has rows.
    pub fn add_details(&mut self, summary: impl Into<String>, table: Table) {
        if !table.rows.is_empty() {
            self.parts.push(Part::Details(summary.into(), table));
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
    /// Returns the markup of this part without a style, for a page that is assembled in a browser. All text in it is
    /// escaped.
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

/// Maximum number of characters in a paragraph.
const PARAGRAPH_CHARS_MAX: usize = 2000;
