//! Horizontal bar charts of named values; each bar may consist of several series.

use maud::html;

use super::svg::{Anchor, Ink, Picture, WIDTH, fitting, text_width};
use super::{Drawing, LABEL_CHARS_MAX};
use crate::table::{Cell, Table};
use crate::text::{self, TEXT_CHARS_MAX, label};

/// Maximum number of bars drawn; the chart's table contains the others, too.
const BARS_MAX: usize = 40;
/// Distance between the tops of adjacent bars, in SVG units.
const BAR_STEP: f64 = 21.0;
/// Gap between two bars, in SVG units.
const BAR_GAP: f64 = 5.0;
/// Maximum width of a name, in SVG units, so that enough width remains for the bars.
const NAME_WIDTH: u32 = 180;
/// Maximum number of characters in the unit after a number.
const UNIT_CHARS_MAX: usize = 8;
/// Relative difference up to which bar lengths count as equal: sums of shares are rounded.
const EQUAL: f64 = 1e-4;
/// Margin above the first and below the last bar, in SVG units.
const EDGE: f64 = 4.0;

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
}

impl Drawing for Bars {
    fn picture(&self) -> Option<Picture> {
        let n = self.names.len().min(BARS_MAX);
        let height = (n.max(1) as f64 * BAR_STEP + 2.0 * EDGE) as u32;
        let mut picture = Picture::new(WIDTH, height);
        let largest = (0..n).map(|row| self.total(row)).fold(0.0, f64::max);

        // Names and sizes are printed to the left and right of the bars, so their widths reduce the width of the bars.
        let names = self.names[..n].iter().map(|name| fitting(name, NAME_WIDTH));
        let names: Vec<String> = names.collect();
        let sizes = self.sizes(n);
        let widest = |texts: &[String]| texts.iter().map(|text| text_width(text)).max();
        let left = f64::from(widest(&names).unwrap_or(0) + 8);
        let right = f64::from(WIDTH - widest(&sizes).unwrap_or(0) - 8);
        let scale = (right - left) / largest.max(f64::MIN_POSITIVE);

        for row in 0..n {
            let top = EDGE + row as f64 * BAR_STEP;
            let bottom = top + BAR_STEP - BAR_GAP;
            let middle = f64::midpoint(top, bottom);
            let name = html! { (names[row]) title { (label(&self.names[row], TEXT_CHARS_MAX)) } };
            picture.text((left - 6.0, middle), Anchor::End, Ink::Text, &name);

            let mut from = left;
            for (place, series) in self.series.iter().enumerate() {
                let to = from + size_of(series, row) * scale;
                picture.fill([(from, top), (to, bottom)], Ink::Series(place));
                from = to;
            }
            picture.text((from + 5.0, middle), Anchor::Start, Ink::Muted, &sizes[row]);
        }
        Some(picture)
    }

    fn summary(&self) -> String {
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

    fn table(&self) -> Table {
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

    fn series_names(&self) -> Vec<&str> {
        self.series.iter().map(|part| part.name.as_str()).collect()
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
