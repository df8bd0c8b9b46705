//! Line charts.

use super::axes::Plane;
use super::svg::{Ink, Picture};
use super::{Drawing, Span, is_drawable};
use crate::table::{Cell, Table};
use crate::text::number;

/// Height of the drawing, in SVG units.
const HEIGHT: u32 = 220;

/// A line chart: values along an axis.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lines {
    /// The name of the horizontal axis, with its unit.
    pub along: String,
    /// The measured quantity, with its unit.
    pub measured: String,
    /// The lines in the order of the legend.
    pub lines: Vec<Line>,
}

/// One line of a `Lines` chart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Line {
    /// The name of the line in the legend.
    pub name: String,
    /// The points of the line, in order along the axis.
    pub points: Vec<(f64, f64)>,
    /// The range of values around each point; either empty or one for each point.
    pub spread: Vec<Span>,
}

impl Lines {
    /// Creates a chart of the lines that have points.
    pub fn new(along: impl Into<String>, measured: impl Into<String>, lines: Vec<Line>) -> Self {
        let lines = lines.into_iter();
        Self {
            along: along.into(),
            measured: measured.into(),
            lines: lines.filter(|line| !line.points.is_empty()).collect(),
        }
    }

    fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        self.lines
            .iter()
            .flat_map(|line| line.points.iter().copied())
    }
}

impl Drawing for Lines {
    fn picture(&self) -> Option<Picture> {
        let along = Span::from_values(self.points().map(|(x, _)| x)).unwrap_or(Span::UNIT);
        let spreads = self.lines.iter().flat_map(|line| &line.spread);
        let spreads = spreads.flat_map(|spread| [spread.low, spread.high]);
        let values = self.points().map(|(_, y)| y).chain(spreads);
        let measured = Span::from_values(values).unwrap_or(Span::UNIT).widened();
        // A margin keeps the highest point away from the frame.
        let margin = (measured.high - measured.low) * 0.05;

        let plane = Plane::new(HEIGHT, along.widened(), measured.with_margin(margin));
        let mut picture = plane.picture(&self.along);

        for (place, line) in self.lines.iter().enumerate() {
            let around = plane.positions(line.outline());
            if !around.is_empty() {
                picture.polygon(&around, Ink::Faint(place));
            }
        }

        // Draw the lines last so that no spread hides them.
        for (place, line) in self.lines.iter().enumerate() {
            let points = plane.positions(line.drawable_points());
            // A single point is drawn as a circle, because a path of one point would be invisible.
            match points[..] {
                [point] => picture.dot(point, 3, Ink::Series(place)),
                _ => picture.line(&points, 2, Ink::Series(place)),
            }
        }
        Some(picture)
    }

    fn summary(&self) -> String {
        match Span::from_values(self.points().map(|(_, y)| y)) {
            None => "Line chart without values.".to_owned(),
            Some(Span { low, high }) => format!(
                "Line chart of {} by {}; values from {} to {}.",
                self.measured,
                self.along,
                number(low),
                number(high)
            ),
        }
    }

    fn table(&self) -> Table {
        let mut table = Table::new("", &["line", &self.along, &self.measured]);
        let has_spread = self.lines.iter().any(|line| !line.spread.is_empty());
        if has_spread {
            table.head.extend(["from".to_owned(), "to".to_owned()]);
        }
        for line in &self.lines {
            for (place, &(x, y)) in line.points.iter().enumerate() {
                let mut cells = vec![Cell::from(line.name.as_str()), x.into(), y.into()];
                if has_spread {
                    let spread = line.spread.get(place);
                    cells.push(spread.map(|spread| spread.low).into());
                    cells.push(spread.map(|spread| spread.high).into());
                }
                table.rows.push(cells);
            }
        }
        table
    }

    fn series_names(&self) -> Vec<&str> {
        self.lines.iter().map(|line| line.name.as_str()).collect()
    }
}

impl Line {
    /// Creates a line without a range of values around its points.
    pub fn new(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self {
            name: name.into(),
            points,
            spread: Vec::new(),
        }
    }

    fn drawable_points(&self) -> Vec<(f64, f64)> {
        let points = self.points.iter().copied();
        points
            .filter(|&(x, y)| is_drawable(x) && is_drawable(y))
            .collect()
    }

    /// Returns the outline of the spread: forward along its high end and back along its low end.
    fn outline(&self) -> Vec<(f64, f64)> {
        let spread = self.points.iter().zip(&self.spread);
        let spread = spread
            .filter(|((x, _), spread)| [*x, spread.low, spread.high].into_iter().all(is_drawable));
        let high = spread.clone().map(|((x, _), spread)| (*x, spread.high));
        let low = spread.rev().map(|((x, _), spread)| (*x, spread.low));
        high.chain(low).collect()
    }
}
