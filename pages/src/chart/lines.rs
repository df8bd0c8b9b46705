//! Line charts, and the axes that other charts share.

use std::convert::Infallible;

use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::svg::{Area, DrawError, Ink, Picture, Svg, WIDTH, text_style};
use super::{Span, is_drawable};
use crate::table::{Cell, Table};
use crate::text::{label, number};

/// Height of the drawing, in SVG units.
const HEIGHT: u32 = 220;
/// Width reserved for the numbers at the left, in SVG units.
const LEFT: u32 = 52;
/// Height reserved for the numbers and the axis name below the chart, in SVG units.
const BELOW: u32 = 38;

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
    pub spread: Vec<Spread>,
}

/// The range of values around a point of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spread {
    /// The low end of the range.
    pub low: f64,
    /// The high end of the range.
    pub high: f64,
}

impl Lines {
    pub(super) fn picture(&self) -> Picture {
        Picture::new((WIDTH, HEIGHT), |area| self.draw(area))
    }

    fn draw(&self, area: &Area<'_>) -> Result<(), DrawError> {
        let along = Span::from_values(self.points().map(|(x, _)| x)).unwrap_or(Span::UNIT);
        let spreads = self.lines.iter().flat_map(|line| &line.spread);
        let spreads = spreads.flat_map(|spread| [spread.low, spread.high]);
        let values = self.points().map(|(_, y)| y).chain(spreads);
        let measured = Span::from_values(values).unwrap_or(Span::UNIT).widened();
        // A margin keeps the highest point away from the frame.
        let margin = (measured.high - measured.low) * 0.05;

        let mut chart = chart_on(area, along.widened(), measured.with_margin(margin))?;
        draw_axes(&mut chart, &self.along, axis_number)?;

        for (place, line) in self.lines.iter().enumerate() {
            let around = line.outline();
            if !around.is_empty() {
                let style = Ink::Faint(place).colour().filled();
                chart.draw_series([Polygon::new(around, style)])?;
            }
        }

        // Draw the lines last so that no spread hides them.
        for (place, line) in self.lines.iter().enumerate() {
            let points = line.drawable_points();
            // A single point is drawn as a circle, because a path of one point would be invisible.
            if let [point] = points[..] {
                let style = Ink::Series(place).colour().filled();
                chart.draw_series([Circle::new(point, 3, style)])?;
                continue;
            }
            let style = Ink::Series(place).colour().stroke_width(2);
            chart.draw_series([PathElement::new(points, style)])?;
        }
        Ok(())
    }

    fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        self.lines
            .iter()
            .flat_map(|line| line.points.iter().copied())
    }

    pub(super) fn summary(&self) -> String {
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

    pub(super) fn table(&self) -> Table {
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
}

impl Line {
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

/// A plotters chart between two numeric axes.
pub(super) type Chart<'a, 'b> =
    ChartContext<'a, Svg<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// Creates a chart with space for axes at the left and below.
pub(super) fn chart_on<'a, 'b>(
    area: &'a Area<'b>,
    across: Span,
    up: Span,
) -> Result<Chart<'a, 'b>, DrawError> {
    ChartBuilder::on(area)
        .margin_top(8)
        .margin_right(22)
        .y_label_area_size(LEFT)
        .x_label_area_size(BELOW)
        .build_cartesian_2d(across.low..across.high, up.low..up.high)
}

/// Draws both axes and the name of the horizontal axis.
pub(super) fn draw_axes(
    chart: &mut Chart<'_, '_>,
    name: &str,
    shown: fn(&f64) -> String,
) -> Result<(), DrawingAreaErrorKind<Infallible>> {
    let name = label(name, 2 * super::LABEL_CHARS_MAX);

    chart
        .configure_mesh()
        .disable_x_mesh()
        .max_light_lines(1)
        .x_labels(7)
        .y_labels(5)
        .bold_line_style(Ink::Grid.colour())
        .light_line_style(Ink::Grid.colour())
        .axis_style(Ink::Grid.colour())
        .label_style(text_style(Ink::Muted, Pos::new(HPos::Center, VPos::Center)))
        .axis_desc_style(text_style(Ink::Muted, Pos::new(HPos::Center, VPos::Center)))
        .set_all_tick_mark_size(3)
        .x_label_formatter(&shown)
        .y_label_formatter(&shown)
        .x_desc(name)
        .draw()
}

/// Formats a number for an axis: `12k` for 12,000.
pub(super) fn axis_number(value: &f64) -> String {
    let size = value.abs();
    // Such a small number is a rounding error left over from summing axis steps.
    if size < 1e-9 {
        return "0".to_owned();
    }
    if size >= 1e6 {
        return format!("{}M", number(value / 1e6));
    }
    if size >= 1e4 {
        return format!("{}k", number(value / 1e3));
    }
    if size < 0.01 {
        return small_number(*value);
    }
    number((value * 1e6).round() / 1e6)
}

/// Formats a small number, such as a learning rate, in few characters because an axis has little space: `0.0005` or
/// `3e−5`.
fn small_number(value: f64) -> String {
    if value.abs() >= 1e-4 {
        let text = format!("{value:.6}");
        return text.trim_end_matches('0').replace('-', "−");
    }
    let text = format!("{value:.1e}");
    text.replace(".0e", "e").replace('-', "−")
}
