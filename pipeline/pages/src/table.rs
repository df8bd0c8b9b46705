//! Tables of a page.

use maud::{Markup, html};

use crate::text::{self, Shown, TEXT_CHARS_MAX};

/// Maximum number of rows shown in a page; longer tables are better read with SQL.
const ROWS_MAX: usize = 500;

/// The content of one cell of a table.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// A text from any source.
    Text(String),
    /// A number of items.
    Count(u64),
    /// A measured or computed value.
    Number(f64),
    /// A formatted number, such as a time with its unit.
    Measure(String),
    /// A link to another file.
    Link {
        /// The visible text of the link.
        text: String,
        /// The path of the file, relative to the folder of the page: `pages/run-1.html`.
        path: String,
    },
    /// No value: an empty cell.
    None,
}

impl Cell {
    fn is_number(&self) -> bool {
        matches!(self, Self::Count(_) | Self::Number(_) | Self::Measure(_))
    }

    fn markup(&self) -> Markup {
        match self {
            Self::Text(text) | Self::Measure(text) => Shown::new(text, TEXT_CHARS_MAX).markup(),
            Self::Link { text, path } => html! {
                a href=(text::link(path)) { (Shown::new(text, TEXT_CHARS_MAX).markup()) }
            },
            Self::Count(n) => html! { (text::count(*n)) },
            Self::Number(value) => html! { (text::number(*value)) },
            Self::None => html! { "–" },
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Cell {
    fn from(n: u64) -> Self {
        Self::Count(n)
    }
}

impl From<f64> for Cell {
    fn from(value: f64) -> Self {
        Self::Number(value)
    }
}

impl<T: Into<Self>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::None, Into::into)
    }
}

/// A column of a table: its name, and the function that returns the cell of an item.
pub type Column<'a, T> = (&'a str, &'a dyn Fn(&T) -> Cell);

/// A table whose first column contains the names of the rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// The caption above the table; may be empty if a title precedes the table.
    pub caption: String,
    /// Names of the table's columns.
    pub head: Vec<String>,
    /// The rows, with as many cells as there are columns.
    pub rows: Vec<Vec<Cell>>,
}

impl Table {
    /// Creates a table without rows, with the given caption and column names.
    pub fn new(caption: &str, head: &[&str]) -> Self {
        Self {
            caption: caption.to_owned(),
            head: head.iter().map(|&name| name.to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    /// Creates a table with a row for each item.
    pub fn of<T>(
        caption: &str,
        items: impl IntoIterator<Item = T>,
        columns: &[Column<'_, T>],
    ) -> Self {
        let head = columns.iter().map(|(name, _)| (*name).to_owned());
        let row = |item: T| columns.iter().map(|(_, cell)| cell(&item)).collect();
        Self {
            caption: caption.to_owned(),
            head: head.collect(),
            rows: items.into_iter().map(row).collect(),
        }
    }

    /// Removes the column `name`.
    pub fn remove(&mut self, name: &str) {
        if let Some(place) = self.head.iter().position(|known| known == name) {
            self.head.remove(place);
            for row in &mut self.rows {
                row.remove(place);
            }
        }
    }

    pub(crate) fn markup(&self) -> Markup {
        let left_out = self.rows.len().saturating_sub(ROWS_MAX);

        html! {
            // A wide table scrolls independently of the page and is reachable by keyboard.
            div.scroll tabindex="0" {
                table {
                    @if !self.caption.is_empty() {
                        caption { (Shown::new(&self.caption, TEXT_CHARS_MAX).markup()) }
                    }
                    thead {
                        tr {
                            @for (place, name) in self.head.iter().enumerate() {
                                th scope="col" class=[self.class(place)] {
                                    (Shown::new(name, TEXT_CHARS_MAX).markup())
                                }
                            }
                        }
                    }
                    tbody {
                        @for row in self.rows.iter().take(ROWS_MAX) {
                            tr { @for (place, cell) in row.iter().enumerate() { (self.cell(place, cell)) } }
                        }
                    }
                }
            }
            @if left_out > 0 {
                p.note { (text::count(left_out as u64)) " more rows are not shown." }
            }
        }
    }

    fn cell(&self, place: usize, cell: &Cell) -> Markup {
        if place == 0 {
            return html! { th scope="row" class=[self.class(place)] { (cell.markup()) } };
        }
        html! { td class=[self.class(place)] { (cell.markup()) } }
    }

    /// Returns the CSS class of a column: columns of numbers are aligned to the right.
    fn class(&self, place: usize) -> Option<&'static str> {
        let mut cells = self.rows.iter().filter_map(|row| row.get(place));
        cells.any(Cell::is_number).then_some("number")
    }
}
