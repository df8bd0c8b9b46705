//! Things along axes that stand side by side: each is a line that crosses every axis where its value lies.

use std::fmt::Write;

use maud::Escaper;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::svg::{Area, DrawError, Ink, Picture, WIDTH, fitting, with_whole, words};
use super::{Key, Span};
use crate::table::{Cell, Table};
use crate::text::{Shown, TEXT_CHARS_MAX, count};

/// Units of the drawing's height.
const HEIGHT: u32 = 300;
/// Units above and below the axes: names stand above.
const ABOVE: u32 = 34;
const BELOW: u32 = 14;
/// Units at the left of the first axis, and for words at the right of the last one.
const LEFT: u32 = 14;
const RIGHT: u32 = 96;
/// Units from axis to axis, at least: the words of an axis stand there.
const STEP: u32 = 110;
/// Words beside an axis, at most; of more values only the ends have some.
const WORDS_MAX: usize = 8;
/// Lines that are drawn, at most, from the first one on.
const LINES_MAX: usize = 1000;

/// Things along axes that stand side by side.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parallel {
    /// What a line is, in the plural.
    pub counted: String,
    /// Names of the axes, from left to right.
    pub axes: Vec<String>,
    /// Those that matter most first.
    pub lines: Vec<ParallelLine>,
    /// What the marked lines are, for the legend.
    pub marked: String,
    /// What the others are.
    pub others: String,
}

/// A line of a [`Parallel`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ParallelLine {
    /// What is shown when the pointer rests on it.
    pub name: String,
    /// One for each axis.
    pub values: Vec<AxisValue>,
    /// Drawn in another colour, above the others.
    pub is_marked: bool,
}

/// Where a line crosses an axis.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AxisValue {
    /// Upwards; an axis goes from the lowest to the highest. None where the line does not cross it.
    pub place: Option<f64>,
    /// What the value is called.
    pub words: String,
}

impl Parallel {
    pub(super) fn picture(&self) -> Picture {
        let spans: Vec<Span> = (0..self.axes.len()).map(|axis| self.span(axis)).collect();
        let steps = self.axes.len().saturating_sub(1) as u32;
        let width = WIDTH.max(LEFT + steps * STEP + RIGHT);

        let mut picture = Picture::new((width, HEIGHT), |area| self.draw_axes(area, &spans));
        if let Some(marks) = &mut picture.marks {
            // Lines lie below the words.
            marks.insert_str(0, &self.lines_svg(&spans, width));
        }
        picture
    }

    /// Whether it needs the whole width of a page.
    pub(super) fn is_wide(&self) -> bool {
        self.axes.len() > 4
    }

    /// From the lowest value of an axis to its highest.
    fn span(&self, axis: usize) -> Span {
        let places = self.lines.iter().filter_map(|line| line.place(axis));
        Span::of(places).unwrap_or(Span::UNIT).widened()
    }

    /// How far from the left an axis stands.
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
            area.draw_text(&shown, &words(Ink::Text, right_of), (x - 4, 14))?;

            for value in self.told_values(axis) {
                let Some(place) = value.place else { continue };
                let shown = with_whole(&fitting(&value.words, STEP - 24), &value.words);
                let at = (x + 5, down(*span, place).round() as i32);
                area.draw_text(&shown, &words(Ink::Muted, right_of), at)?;
            }
        }
        Ok(())
    }

    /// The values beside which their words stand: all, or the two ends.
    fn told_values(&self, axis: usize) -> Vec<&AxisValue> {
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

    /// All lines, the marked ones last.
    fn lines_svg(&self, spans: &[Span], width: u32) -> String {
        let mut svg = String::new();
        for is_marked in [false, true] {
            let drawn = self.lines.iter().take(LINES_MAX);
            // The first ones matter most, and so lie above.
            for line in drawn.rev().filter(|line| line.is_marked == is_marked) {
                let mut path = String::new();
                let mut letter = 'M';
                for (axis, span) in spans.iter().enumerate() {
                    let Some(place) = line.place(axis) else {
                        letter = 'M';
                        continue;
                    };
                    let x = self.across(axis, width);
                    // Writing to a string does not fail.
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
    /// Where it crosses an axis; none for what lies nowhere.
    fn place(&self, axis: usize) -> Option<f64> {
        let value = self.values.get(axis)?;
        value.place.filter(|place| place.is_finite())
    }
}

/// How far from the top a value lies.
fn down(span: Span, place: f64) -> f64 {
    let share = (place - span.low) / (span.high - span.low);
    let room = f64::from(HEIGHT - ABOVE - BELOW);
    f64::from(ABOVE) + (1.0 - share) * room
}
