//! Parallel coordinates: each item is a line that crosses every vertical axis at the position of its value.

use std::fmt::Write;

use maud::Escaper;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::svg::{Area, DrawError, Ink, Picture, WIDTH, fitting, text_style, with_whole};
use super::{Key, Span};
use crate::table::{Cell, Table};
use crate::text::{Shown, TEXT_CHARS_MAX, count};

/// Height of the drawing, in units.
const HEIGHT: u32 = 300;
/// Space above and below the axes, in units: the names are printed above.
const ABOVE: u32 = 34;
const BELOW: u32 = 14;
/// Space to the left of the first axis, and for labels to the right of the last one, in units.
const LEFT: u32 = 14;
const RIGHT: u32 = 96;
/// Minimum distance between axes, in units: the labels of an axis must fit between them.
const STEP: u32 = 110;
/// Maximum number of labels next to an axis; with more values, only the two ends are labelled.
const WORDS_MAX: usize = 8;
/// Maximum number of lines drawn, counted from the first one.
const LINES_MAX: usize = 1000;

/// A chart of items as lines across parallel axes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parallel {
    /// The name of the items, in the plural.
    pub counted: String,
    /// Names of the axes, from left to right.
    pub axes: Vec<String>,
    /// The lines, the most important ones first.
    pub lines: Vec<ParallelLine>,
    /// The legend entry of the marked lines.
    pub marked: String,
    /// The legend entry of the other lines.
    pub others: String,
}

/// A line of a [`Parallel`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ParallelLine {
    /// The text shown when the pointer rests on the line.
    pub name: String,
    /// One value for each axis.
    pub values: Vec<AxisValue>,
    /// Draws the line in another colour, above the others.
    pub is_marked: bool,
}

/// The point at which a line crosses an axis.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AxisValue {
    /// The position along the axis, which extends from the lowest to the highest value. `None` if the line does not
    /// cross the axis.
    pub place: Option<f64>,
    /// The label of the value.
    pub words: String,
}

impl Parallel {
    pub(super) fn picture(&self) -> Picture {
        let spans: Vec<Span> = (0..self.axes.len()).map(|axis| self.span(axis)).collect();
        let steps = self.axes.len().saturating_sub(1) as u32;
        let width = WIDTH.max(LEFT + steps * STEP + RIGHT);

        let mut picture = Picture::new((width, HEIGHT), |area| self.draw_axes(area, &spans));
        if let Some(marks) = &mut picture.marks {
            // Insert the lines first so that the text is drawn above them.
            marks.insert_str(0, &self.lines_svg(&spans, width));
        }
        picture
    }

    /// Reports whether the chart needs the whole width of a page.
    pub(super) fn is_wide(&self) -> bool {
        self.axes.len() > 4
    }

    /// Returns the range of an axis, from its lowest value to its highest.
    fn span(&self, axis: usize) -> Span {
        let places = self.lines.iter().filter_map(|line| line.place(axis));
        Span::from_values(places).unwrap_or(Span::UNIT).widened()
    }

    /// Returns the distance of an axis from the left edge.
    fn across(&self, axis: usize, width: u32) -> i32 {
        let steps = self.axes.len().saturating_sub(1).max(1);
        let room = (width - LEFT - RIGHT) as usize;
        (LEFT as usize + axis * room / steps) as i32
    }

    fn draw_axes(&self, area: &Area<'_>, spans: &[Span]) -> Result<(), DrawError> {
        let (width, _) = area.dim_in_pixel();
        for (axis, span) in spans.iter().enumerate() {
            let x = self.across(axis, width);
            let ends = [(x, ABOVE as i32), (x, (HEIGHT - BELOW) as i32)];
            area.draw(&PathElement::new(ends, Ink::Muted.colour()))?;

            let name = &self.axes[axis];
            let right_of = Pos::new(HPos::Left, VPos::Center);
            let shown = with_whole(&fitting(name, STEP - 8), name);
            area.draw_text(&shown, &text_style(Ink::Text, right_of), (x - 4, 14))?;

            for value in self.labelled_values(axis) {
                let Some(place) = value.place else { continue };
                let shown = with_whole(&fitting(&value.words, STEP - 24), &value.words);
                let at = (x + 5, down(*span, place).round() as i32);
                area.draw_text(&shown, &text_style(Ink::Muted, right_of), at)?;
            }
        }
        Ok(())
    }

    /// Returns the values to label: all of them, or the two ends.
    fn labelled_values(&self, axis: usize) -> Vec<&AxisValue> {
        let mut values: Vec<&AxisValue> = Vec::new();
        for line in &self.lines {
            let value = line.values.get(axis).filter(|_| line.place(axis).is_some());
            values.extend(value);
        }
        values.sort_by(|a, b| {
            a.place
                .partial_cmp(&b.place)
                .unwrap_or(std::cmp::Ordering::Equal)
        });
        values.dedup_by(|a, b| a.place == b.place);

        if values.len() > WORDS_MAX {
            values.drain(1..values.len() - 1);
        }
        values
    }

    /// Returns the lines as SVG, the marked ones last.
    fn lines_svg(&self, spans: &[Span], width: u32) -> String {
        let mut svg = String::new();
        for is_marked in [false, true] {
            let drawn = self.lines.iter().take(LINES_MAX);
            // Draw the first lines last: they matter most and must be on top.
            for line in drawn.rev().filter(|line| line.is_marked == is_marked) {
                let mut path = String::new();
                let mut letter = 'M';
                for (axis, span) in spans.iter().enumerate() {
                    let Some(place) = line.place(axis) else {
                        letter = 'M';
                        continue;
                    };
                    let x = self.across(axis, width);
                    // Writing to a string cannot fail.
                    let _ = write!(path, "{letter}{x} {:.1}", down(*span, place));
                    letter = 'L';
                }

                let (code, opacity, stroke) = if is_marked {
                    (Ink::Series(1).code(), "1", "2.5")
                } else {
                    (Ink::Series(0).code(), ".45", "1.5")
                };
                let _ = write!(
                    svg,
                    "<path class=\"l k{code}\" stroke-width=\"{stroke}\" stroke-opacity=\"{opacity}\" \
                     d=\"{path}\"><title>"
                );
                let name = Shown::new(&line.name, TEXT_CHARS_MAX).text;
                let _ = write!(Escaper::new(&mut svg), "{name}");
                svg.push_str("</title></path>");
            }
        }
        svg
    }

    pub(super) fn keys(&self) -> Vec<Key> {
        let names = [&self.others, &self.marked];
        let mut keys = Vec::new();
        for (series, name) in names.into_iter().enumerate() {
            keys.push(Key {
                name: name.clone(),
                series,
            });
        }
        keys
    }

    pub(super) fn summary(&self) -> String {
        format!(
            "Parallel coordinates of {} {} along {} axes.",
            count(self.lines.len() as u64),
            self.counted,
            self.axes.len()
        )
    }

    pub(super) fn table(&self) -> Table {
        let mut table = Table::new("", &[&self.counted]);
        table.head.extend(self.axes.iter().cloned());
        for line in &self.lines {
            let mut cells = vec![Cell::from(line.name.as_str())];
            for value in &line.values {
                cells.push(Cell::Text(value.words.clone()));
            }
            table.rows.push(cells);
        }
        table
    }
}

impl ParallelLine {
    /// Returns the position of the line on an axis, or `None` if it has no finite position.
    fn place(&self, axis: usize) -> Option<f64> {
        let value = self.values.get(axis)?;
        value.place.filter(|place| place.is_finite())
    }
}

/// Returns the distance of a value from the top edge.
fn down(span: Span, place: f64) -> f64 {
    let share = (place - span.low) / (span.high - span.low);
    let room = f64::from(HEIGHT - ABOVE - BELOW);
    f64::from(ABOVE) + (1.0 - share) * room
}
