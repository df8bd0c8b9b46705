//! Confusion matrices.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::LABEL_CHARS_MAX;
use super::svg::{Area, DrawError, Ink, Picture, TEXT_SIZE, WIDTH, text_style, text_width};
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

/// A cell of the matrix and its count.
struct Counted {
    row: usize,
    column: usize,
    n: u64,
    /// The sum of the counts in the cell's row.
    all: u64,
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

    pub(super) fn picture(&self) -> Picture {
        let layout = self.layout();
        let n = self.names.len() as u32;
        let width = layout.left + n * layout.cell.width + GAP;
        let height = layout.top + n * layout.cell.height + GAP;
        Picture::new((width.max(WIDTH), height), |area| self.draw(area, &layout))
    }

    /// Reports whether the chart needs the whole width of a page.
    pub(super) fn is_wide(&self) -> bool {
        let layout = self.layout();
        layout.left + self.names.len() as u32 * layout.cell.width + GAP > HALF_PAGE
    }

    fn draw(&self, area: &Area<'_>, layout: &Layout) -> Result<(), DrawError> {
        let across = label(&self.across, LABEL_CHARS_MAX);
        let title = format!("{across}, from left to right");
        let left_of = Pos::new(HPos::Right, VPos::Center);
        let right_of = Pos::new(HPos::Left, VPos::Center);
        let left = layout.left as i32;
        area.draw_text(&title, &text_style(Ink::Muted, right_of), (left, 10))?;

        for (row, counts) in self.counts.iter().enumerate() {
            let all: u64 = counts.iter().sum();
            for (column, &n) in counts.iter().enumerate() {
                let counted = Counted {
                    row,
                    column,
                    n,
                    all,
                };
                draw_cell(area, layout, &counted)?;
            }
        }
        // Next to cells this small, names would overlap.
        if !layout.has_names {
            return Ok(());
        }

        let CellSize { width, height } = layout.cell;
        for (place, name) in self.names.iter().enumerate() {
            let name = label(name, NAME_CHARS_MAX);
            let middle = layout.top + place as u32 * height + height / 2;
            let at = (left - GAP as i32, middle as i32);
            area.draw_text(&name, &text_style(Ink::Text, left_of), at)?;

            let middle = layout.left + place as u32 * width + width / 2;
            let upwards = text_style(Ink::Text, right_of).transform(FontTransform::Rotate270);
            let at = (middle as i32, (layout.top - GAP) as i32);
            area.draw_text(&name, &upwards, at)?;
        }
        Ok(())
    }

    pub(super) fn summary(&self) -> String {
        let all: u64 = self.counts.iter().flatten().sum();
        let rows = self.counts.iter().enumerate();
        let right: u64 = rows.filter_map(|(place, row)| row.get(place)).sum();

        let mut words = format!(
            "Confusion matrix of {} by {} with {} classes: {} of {} ({}) are on the diagonal.",
            self.down,
            self.across,
            self.names.len(),
            count(right),
            count(all),
            fraction(right, all)
        );

        if let Some((row, column, n)) = self.most_confused() {
            words += &format!(
                " Most frequent confusion ({} times): {} predicted as {}.",
                count(n),
                label(&self.names[row], NAME_CHARS_MAX),
                label(&self.names[column], NAME_CHARS_MAX)
            );
        }
        words
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

    pub(super) fn table(&self) -> Table {
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

/// Draws one cell, whose colour shows the cell's share of the counts in its row.
fn draw_cell(area: &Area<'_>, layout: &Layout, cell: &Counted) -> Result<(), DrawError> {
    let width = layout.cell.width as i32;
    let height = layout.cell.height as i32;
    let x = layout.left as i32 + cell.column as i32 * width;
    let y = layout.top as i32 + cell.row as i32 * height;

    let corners = [(x, y), (x + width, y + height)];
    if cell.n > 0 {
        let share = cell.n as f64 / cell.all as f64;
        area.draw(&Rectangle::new(
            corners,
            Ink::Share(share).colour().filled(),
        ))?;
    }

    // Correct predictions are on the diagonal.
    let is_right = cell.row == cell.column;
    let edge = if is_right { Ink::Muted } else { Ink::Grid };
    if layout.has_names || is_right {
        area.draw(&Rectangle::new(corners, edge.colour()))?;
    }
    if cell.n == 0 || !layout.has_numbers {
        return Ok(());
    }

    let middle = Pos::new(HPos::Center, VPos::Center);
    let lines = [
        (count(cell.n), -TEXT_SIZE / 2 - 1),
        (percent(cell.n, cell.all), TEXT_SIZE / 2 + 2),
    ];
    for (text, down) in lines {
        let at = (x + width / 2, y + height / 2 + down);
        area.draw_text(&text, &text_style(Ink::Text, middle), at)?;
    }
    Ok(())
}

/// Formats a share without decimals to fit a cell: `34 %`.
fn percent(part: u64, whole: u64) -> String {
    format!("{:.0} %", 100.0 * part as f64 / whole.max(1) as f64)
}
