//! How often what was taken for what: a confusion matrix.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::LABEL_CHARS_MAX;
use super::png;
use super::svg::{Area, DrawError, Ink, Picture, TEXT_SIZE, WIDTH, text_width, words};
use crate::table::{Cell, Table};
use crate::text::{count, fraction, label};

/// Names up to which a cell has room for its numbers.
const NUMBERED_MAX: usize = 24;
/// Units of a cell's width and height where it has numbers.
const CELL: CellSize = CellSize {
    width: 42,
    height: 34,
};
/// Units of all cells together where they have none.
const CELLS: u32 = 960;
/// Units of a cell below which no name fits beside it.
const NAMED_CELL_MIN: u32 = 14;
/// Units of the smallest cell.
const CELL_MIN: u32 = 4;
/// Characters of a name, at most.
const NAME_CHARS_MAX: usize = 16;
/// Units that half of a page has room for.
const HALF_PAGE: u32 = 620;
/// Units between names and cells.
const GAP: u32 = 6;

/// Counts by what is, from top to bottom, and what it was taken for, from left to right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matrix {
    /// What is, such as `true class`.
    pub down: String,
    /// What it was taken for.
    pub across: String,
    /// The names, for both.
    pub names: Vec<String>,
    /// Row by row; as many rows and columns as there are names.
    pub counts: Vec<Vec<u64>>,
}

/// Pixels of a picture's side, at most, while a class has more than one.
const PICTURE_PIXELS: usize = 512;
/// Pixels of a cell's side in a picture, at most.
const CELL_PIXELS_MAX: usize = 32;

/// A picture for programs that show no SVG.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PngPicture {
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// The whole file.
    pub png: Vec<u8>,
}

/// Where the parts of a drawing lie, in units.
struct Layout {
    /// Above the cells: the names of the columns.
    top: u32,
    /// Left of the cells: the names of the rows.
    left: u32,
    cell: CellSize,
    has_numbers: bool,
    has_names: bool,
}

/// In units.
#[derive(Clone, Copy)]
struct CellSize {
    width: u32,
    height: u32,
}

/// A cell of the matrix, and what it counts.
struct Counted {
    row: usize,
    column: usize,
    n: u64,
    /// Of its row.
    all: u64,
}

impl Matrix {
    /// As a picture without words: a cell is as bright as its share of its row, from none to all. `None` without names.
    pub fn to_png(&self) -> Option<PngPicture> {
        let n = self.names.len();
        let cell = PICTURE_PIXELS.checked_div(n)?.clamp(1, CELL_PIXELS_MAX);
        let width = n * cell;

        let mut pixels = Vec::with_capacity(width * width);
        for row in &self.counts {
            let total: u64 = row.iter().sum();
            let mut line = Vec::with_capacity(width);
            for &times in row {
                let share = times as f64 / total.max(1) as f64;
                let shade = (share * 255.0).round() as u8;
                line.extend(std::iter::repeat_n(shade, cell));
            }

            for _ in 0..cell {
                pixels.extend_from_slice(&line);
            }
        }

        Some(PngPicture {
            width: width as u32,
            height: (pixels.len() / width) as u32,
            png: png::palette(&pixels, width),
        })
    }

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
            // One line more says what the columns are.
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

    /// Whether it needs the whole width of a page.
    pub(super) fn is_wide(&self) -> bool {
        self.picture_width() > HALF_PAGE
    }

    fn picture_width(&self) -> u32 {
        let layout = self.layout();
        layout.left + self.names.len() as u32 * layout.cell.width + GAP
    }

    fn draw(&self, area: &Area<'_>, layout: &Layout) -> Result<(), DrawError> {
        let across = label(&self.across, LABEL_CHARS_MAX);
        let title = format!("{across}, from left to right");
        let left_of = Pos::new(HPos::Right, VPos::Center);
        let right_of = Pos::new(HPos::Left, VPos::Center);
        let left = layout.left as i32;
        area.draw_text(&title, &words(Ink::Muted, right_of), (left, 10))?;

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
        // Beside cells this small, names would lie over each other.
        if !layout.has_names {
            return Ok(());
        }

        let CellSize { width, height } = layout.cell;
        for (place, name) in self.names.iter().enumerate() {
            let name = label(name, NAME_CHARS_MAX);
            let middle = layout.top + place as u32 * height + height / 2;
            let at = (left - GAP as i32, middle as i32);
            area.draw_text(&name, &words(Ink::Text, left_of), at)?;

            let middle = layout.left + place as u32 * width + width / 2;
            let upwards = words(Ink::Text, right_of).transform(FontTransform::Rotate270);
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
            "Matrix of {} by {} with {} classes: {} of {} ({}) lie in the diagonal.",
            self.down,
            self.across,
            self.names.len(),
            count(right),
            count(all),
            fraction(right, all)
        );

        if let Some((row, column, n)) = self.most_confused() {
            words += &format!(
                " Most often, {} times, {} was taken for {}.",
                count(n),
                label(&self.names[row], NAME_CHARS_MAX),
                label(&self.names[column], NAME_CHARS_MAX)
            );
        }
        words
    }

    /// The largest cell beside the diagonal, the first of equal ones.
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
        table.head.push("all".to_owned());
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

/// One cell: its colour says how large a share of its row it is.
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

    // What is right lies in the diagonal.
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
        area.draw_text(&text, &words(Ink::Text, middle), at)?;
    }
    Ok(())
}

/// A share without decimals, for which a cell has room: `34 %`.
fn percent(part: u64, whole: u64) -> String {
    format!("{:.0} %", 100.0 * part as f64 / whole.max(1) as f64)
}
