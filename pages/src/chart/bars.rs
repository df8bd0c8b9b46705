//! Horizontal bar charts of named values; each bar may consist of several series.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::LABEL_CHARS_MAX;
use super::svg::{
    Area, DrawError, Ink, Picture, WIDTH, fitting, text_style, text_width, with_whole,
};
use crate::table::{Cell, Table};
use crate::text::{self, label};

/// Maximum number of bars drawn; the chart's table contains the others, too.
const BARS_MAX: usize = 40;
/// Distance between the tops of adjacent bars, in SVG units.
const BAR_STEP: u32 = 21;
/// Gap between two bars, in SVG units.
const BAR_GAP: i32 = 5;
/// Maximum width of a name, in SVG units, so that enough width remains for the bars.
const NAME_WIDTH: u32 = 180;
/// Maximum number of characters in the unit after a number.
const UNIT_CHARS_MAX: usize = 8;
/// Relative difference up to which bar lengths count as equal: sums of shares are rounded.
const EQUAL: f64 = 1e-4;
/// Margin above the first and below the last bar, in SVG units.
const EDGE: u32 = 4;

/// A bar chart of named values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bars {
    /// The kind of thing that the names denote: the heading of the table's first column.
    pub named: String,
    /// The names of the bars, from top to bottom.
    pub names: Vec<String>,
    /// The parts of each bar, from left to right.
    pub series: Vec<Series>,
    /// The unit printed after each number, such as `s`; may be empty.
    pub unit: String,
}

/// A series of values: one part of every bar.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// The name of the series in the legend.
    pub name: String,
    /// The length of this part in each bar.
    pub values: Vec<f64>,
}

impl Bars {
    /// Creates a chart with one series of counts.
    pub fn counts(named: &str, counted: &str, counts: &[(String, u64)]) -> Self {
        Self {
            named: named.to_owned(),
            names: counts.iter().map(|(name, _)| name.clone()).collect(),
            series: vec![Series {
                name: counted.to_owned(),
                values: counts.iter().map(|(_, n)| *n as f64).collect(),
            }],
            unit: String::new(),
        }
    }

    pub(super) fn picture(&self) -> Picture {
        let n = self.names.len().min(BARS_MAX);
        let height = n as u32 * BAR_STEP + 2 * EDGE;
        Picture::new((WIDTH, height.max(BAR_STEP)), |area| self.draw(area, n))
    }

    fn draw(&self, area: &Area<'_>, n: usize) -> Result<(), DrawError> {
        let largest = (0..n).map(|row| self.total(row)).fold(0.0, f64::max);

        // Names and sizes are printed to the left and right of the bars, so their widths reduce the width of the bars.
        let names: Vec<String> = self.names[..n]
            .iter()
            .map(|name| fitting(name, NAME_WIDTH))
            .collect();
        let names_width = names.iter().map(|name| text_width(name)).max();
        let sizes = self.sizes(n);
        let sizes_width = sizes.iter().map(|size| text_width(size)).max();

        let mut chart = ChartBuilder::on(area)
            .margin_top(EDGE)
            .margin_bottom(EDGE)
            .margin_left(names_width.unwrap_or(0) + 8)
            .margin_right(sizes_width.unwrap_or(0) + 8)
            .build_cartesian_2d(0.0..largest.max(f64::MIN_POSITIVE), 0.0..n.max(1) as f64)?;

        for row in 0..n {
            let top = (n - row) as f64;
            let mut from = 0.0;
            for (place, series) in self.series.iter().enumerate() {
                let to = from + size_of(series, row);
                let style = Ink::Series(place).colour().filled();
                let mut bar = Rectangle::new([(from, top), (to, top - 1.0)], style);
                bar.set_margin(0, BAR_GAP as u32, 0, 0);
                chart.draw_series([bar])?;
                from = to;
            }

            let (x, y) = chart.backend_coord(&(from, top));
            let middle = y + (BAR_STEP as i32 - BAR_GAP) / 2;
            let left = chart.backend_coord(&(0.0, top)).0;
            let right_of = Pos::new(HPos::Left, VPos::Center);
            let left_of = Pos::new(HPos::Right, VPos::Center);
            let name = with_whole(&names[row], &self.names[row]);
            area.draw_text(&name, &text_style(Ink::Text, left_of), (left - 6, middle))?;
            if !sizes[row].is_empty() {
                area.draw_text(
                    &sizes[row],
                    &text_style(Ink::Muted, right_of),
                    (x + 5, middle),
                )?;
            }
        }
        Ok(())
    }

    /// Returns the sizes of the first `n` bars as text. The texts are empty if the bars have several parts and equal
    /// lengths, as shares of a whole do: such lengths carry no information.
    fn sizes(&self, n: usize) -> Vec<String> {
        let totals: Vec<f64> = (0..n).map(|row| self.total(row)).collect();
        let first = totals.first().copied().unwrap_or(0.0);
        let are_equal = totals
            .iter()
            .all(|total| (total - first).abs() <= EQUAL * first);
        if self.series.len() > 1 && are_equal {
            return vec![String::new(); n];
        }
        totals.into_iter().map(|total| self.shown(total)).collect()
    }

    fn total(&self, row: usize) -> f64 {
        let sizes = self.series.iter().map(|series| size_of(series, row));
        sizes.sum()
    }

    fn shown(&self, value: f64) -> String {
        let number = text::number(value);
        if self.unit.is_empty() {
            return number;
        }
        format!("{number} {}", label(&self.unit, UNIT_CHARS_MAX))
    }

    pub(super) fn summary(&self) -> String {
        let rows = 0..self.names.len();
        let largest = rows.max_by(|&a, &b| self.total(a).total_cmp(&self.total(b)));
        match largest {
            None => "Bar chart without values.".to_owned(),
            Some(row) => format!(
                "Bar chart with {} bars; the largest is {} with {}.",
                self.names.len(),
                label(&self.names[row], LABEL_CHARS_MAX),
                self.shown(self.total(row))
            ),
        }
    }

    pub(super) fn table(&self) -> Table {
        let mut table = Table::new("", &[&self.named]);
        for series in &self.series {
            let mut name = series.name.clone();
            if !self.unit.is_empty() {
                name += &format!(" ({})", self.unit);
            }
            table.head.push(name);
        }
        for (row, name) in self.names.iter().enumerate() {
            let mut cells = vec![Cell::from(name.as_str())];
            for series in &self.series {
                cells.push(series.values.get(row).copied().into());
            }
            table.rows.push(cells);
        }
        table
    }
}

/// Returns the length of one part of a bar; negative and non-finite values have length 0.
fn size_of(series: &Series, row: usize) -> f64 {
    let value = series.values.get(row).copied().unwrap_or(0.0);
    if value.is_finite() {
        value.max(0.0)
    } else {
        0.0
    }
}
