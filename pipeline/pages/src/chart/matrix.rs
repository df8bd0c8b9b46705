//! Confusion matrices.

use super::svg::{Anchor, Ink, Picture, Position, TEXT_SIZE, WIDTH, text_width};
use super::{Drawing, LABEL_CHARS_MAX};
use crate::table::{Cell, Table};
use crate::text::{count, fraction, label};

/// Maximum number of names for which the cells are large enough to contain numbers.
const NUMBERED_MAX: usize = 24;
/// Size of a cell that contains numbers, in SVG units.
const CELL: CellSize = CellSize {
    width: 42,
    height: 34,
};
/// Width and height of the matrix if its cells contain no numbers, in SVG units.
const CELLS: u32 = 960;
/// Minimum size of a cell at which a name fits next to its row, in SVG units.
const NAMED_CELL_MIN: u32 = 14;
/// Minimum size of a cell, in SVG units.
const CELL_MIN: u32 = 4;
/// Maximum number of characters shown of a row or column name.
const NAME_CHARS_MAX: usize = 16;
/// Maximum width of a drawing that fits in half of a page, in SVG units.
const HALF_PAGE: u32 = 620;
/// Gap between names and cells, in SVG units.
const GAP: u32 = 6;

/// A confusion matrix: counts by true name, from top to bottom, and by predicted name, from left to right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matrix {
    /// The heading of the rows, such as `true class`.
    pub down: String,
    /// The heading of the columns, such as `predicted class`.
    pub across: String,
    /// The names of the classes, used for both rows and columns.
    pub names: Vec<String>,
    /// The counts, row by row; as many rows and columns as there are names.
    pub counts: Vec<Vec<u64>>,
}

/// Sizes of the parts of a confusion matrix in a drawing, in SVG units.
struct Layout {
    /// Height of the space for column names above the cells.
    top: u32,
    /// Width of the space for row names to the left of the cells.
    left: u32,
    cell: CellSize,
    has_numbers: bool,
    has_names: bool,
}

/// Width and height of a cell, in SVG units.
#[derive(Clone, Copy)]
struct CellSize {
    width: u32,
    height: u32,
}

impl Matrix {
    fn layout(&self) -> Layout {
        let n = self.names.len().max(1) as u32;
        let has_numbers = self.names.len() <= NUMBERED_MAX;
        let side = (CELLS / n).max(CELL_MIN);
        let cell = if has_numbers {
            CELL
        } else {
            CellSize {
                width: side,
                height: side,
            }
        };
        let has_names = cell.height >= NAMED_CELL_MIN;

        let names = self.names.iter();
        let widest = names.map(|name| text_width(&label(name, NAME_CHARS_MAX)));
        let room = match widest.max() {
            Some(width) if has_names => width + GAP,
            _ => GAP,
        };
        Layout {
            // The height includes one line for the heading of the columns.
            top: room + 20,
            left: room + GAP,
            cell,
            has_numbers,
            has_names,
        }
    }

    /// Returns row, column and count of the largest cell off the diagonal; of equal cells, the first.
    fn most_confused(&self) -> Option<(usize, usize, u64)> {
        let mut most: Option<(usize, usize, u64)> = None;
        for (row, counts) in self.counts.iter().enumerate() {
            for (column, &n) in counts.iter().enumerate() {
                let is_more = most.is_none_or(|(_, _, largest)| n > largest);
                if row != column && n > 0 && is_more {
                    most = Some((row, column, n));
                }
            }
        }
        most.filter(|(row, column, _)| self.names.len() > *row.max(column))
    }
}

impl Drawing for Matrix {
    fn picture(&self) -> Option<Picture> {
        let layout = self.layout();
        let Layout {
            top, left, cell, ..
        } = layout;
        let n = self.names.len() as u32;
        let width = left + n * cell.width + GAP;
        let mut picture = Picture::new(width.max(WIDTH), top + n * cell.height + GAP);

        let across = label(&self.across, LABEL_CHARS_MAX);
        let title = format!("{across}, from left to right");
        let above = (f64::from(left), 10.0);
        picture.text(above, Anchor::Start, Ink::Muted, &title);

        for (row, counts) in self.counts.iter().enumerate() {
            layout.draw_row(&mut picture, row, counts);
        }
        // Next to cells this small, names would overlap.
        if !layout.has_names {
            return Some(picture);
        }

        let gap = f64::from(GAP);
        for (place, name) in self.names.iter().enumerate() {
            let name = label(name, NAME_CHARS_MAX);
            let (x, y) = layout.middle(place, place);
            let beside = (f64::from(left) - gap, y);
            picture.text(beside, Anchor::End, Ink::Text, &name);
            let above = (x, f64::from(top) - gap);
            picture.text(above, Anchor::Upwards, Ink::Text, &name);
        }
        Some(picture)
    }

    /// Reports whether the chart needs the whole width of a page.
    fn is_wide(&self) -> bool {
        let layout = self.layout();
        layout.left + self.names.len() as u32 * layout.cell.width + GAP > HALF_PAGE
    }

    fn summary(&self) -> String {
        let all: u64 = self.counts.iter().flatten().sum();
        let rows = self.counts.iter().enumerate();
        let right: u64 = rows.filter_map(|(place, row)| row.get(place)).sum();

        let mut message = format!(
            "Confusion matrix of {} by {} with {} classes: {} of {} ({}) are on the diagonal.",
            self.down,
            self.across,
            self.names.len(),
            count(right),
            count(all),
            fraction(right, all)
        );

        if let Some((row, column, n)) = self.most_confused() {
            message += &format!(
                " Most frequent confusion ({} times): {} predicted as {}.",
                count(n),
                label(&self.names[row], NAME_CHARS_MAX),
                label(&self.names[column], NAME_CHARS_MAX)
            );
        }
        message
    }

    fn table(&self) -> Table {
        let mut table = Table::new("", &[&format!("{} ↓, {} →", self.down, self.across)]);
        table.head.extend(self.names.iter().cloned());
        table.head.push("total".to_owned());
        for (name, counts) in self.names.iter().zip(&self.counts) {
            let all: u64 = counts.iter().sum();
            let mut cells = vec![Cell::from(name.as_str())];
            for &n in counts {
                cells.push(Cell::Measure(match n {
                    0 => "0".to_owned(),
                    n => format!("{} ({})", count(n), fraction(n, all)),
                }));
            }
            cells.push(all.into());
            table.rows.push(cells);
        }
        table
    }
}

impl Layout {
    /// Returns the middle of a cell.
    fn middle(&self, row: usize, column: usize) -> Position {
        let x = f64::from(self.left) + (column as f64 + 0.5) * f64::from(self.cell.width);
        let y = f64::from(self.top) + (row as f64 + 0.5) * f64::from(self.cell.height);
        (x, y)
    }

    /// Draws the cells of a row. The colour of a cell shows its share of the counts in the row.
    fn draw_row(&self, picture: &mut Picture, row: usize, counts: &[u64]) {
        let half_width = f64::from(self.cell.width) / 2.0;
        let half_height = f64::from(self.cell.height) / 2.0;
        let half_line = f64::from(TEXT_SIZE) / 2.0 + 1.0;
        let all: u64 = counts.iter().sum();

        for (column, &n) in counts.iter().enumerate() {
            let (x, y) = self.middle(row, column);
            let corners = [
                (x - half_width, y - half_height),
                (x + half_width, y + half_height),
            ];
            if n > 0 {
                picture.fill(corners, Ink::Share(n as f64 / all as f64));
            }

            // Correct predictions are on the diagonal.
            let is_right = row == column;
            let edge = if is_right { Ink::Muted } else { Ink::Grid };
            if self.has_names || is_right {
                picture.frame(corners, edge);
            }
            if n > 0 && self.has_numbers {
                for (text, y) in [(count(n), y - half_line), (percent(n, all), y + half_line)] {
                    picture.text((x, y), Anchor::Middle, Ink::Text, &text);
                }
            }
        }
    }
}

/// Formats a share without decimals to fit a cell: `34 %`.
fn percent(part: u64, whole: u64) -> String {
    format!("{:.0} %", 100.0 * part as f64 / whole.max(1) as f64)
}
