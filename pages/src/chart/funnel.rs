//! Funnel charts: the number of items left after each step, and the number that the step removed.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::LABEL_CHARS_MAX;
use super::svg::{Area, DrawError, Ink, Picture, TEXT_SIZE, WIDTH, text_style};
use crate::table::{Cell, Table};
use crate::text::{count, fraction, label};

/// Distance between two steps, in SVG units: space for a bar and the line of text above it.
const STEP: i32 = 40;
/// Height of a bar, in SVG units.
const BAR: i32 = 16;
/// Margin above the first and below the last step, in SVG units.
const EDGE: u32 = 4;

/// A funnel chart: the number of items left after each step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Funnel {
    /// The kind of items that are counted.
    pub counted: String,
    /// The steps in order; the first one is the starting point.
    pub steps: Vec<Step>,
}

/// A step of a [`Funnel`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The name of the step.
    pub name: String,
    /// The number of items left after the step.
    pub left: u64,
}

impl Funnel {
    pub(super) fn picture(&self) -> Picture {
        let height = self.steps.len() as u32 * STEP as u32 + 2 * EDGE;
        Picture::new((WIDTH, height), |area| self.draw(area))
    }

    fn draw(&self, area: &Area<'_>) -> Result<(), DrawError> {
        let largest = self.steps.iter().map(|step| step.left).max().unwrap_or(0);
        let n = self.steps.len().max(1);
        let mut chart = ChartBuilder::on(area)
            .margin_top(EDGE)
            .margin_bottom(EDGE)
            .margin_left(2)
            .margin_right(2)
            .build_cartesian_2d(0.0..largest.max(1) as f64, 0.0..n as f64)?;

        let left_of = Pos::new(HPos::Left, VPos::Center);
        let right_of = Pos::new(HPos::Right, VPos::Center);
        let words_down = TEXT_SIZE / 2 + 2;
        let bar_down = (STEP - BAR - 4) as u32;
        for (place, step) in self.steps.iter().enumerate() {
            let top = (n - place) as f64;
            let before = self.before(place);
            // The items left after a step are drawn over the items left before it, so the removed part stays visible.
            let marks = [(before, Ink::Faint(0)), (step.left, Ink::Series(0))];
            for (value, ink) in marks {
                let corners = [(0.0, top), (value as f64, top - 1.0)];
                let mut bar = Rectangle::new(corners, ink.colour().filled());
                bar.set_margin(bar_down, 4, 0, 0);
                chart.draw_series([bar])?;
            }

            let (left, y) = chart.backend_coord(&(0.0, top));
            let right = chart.backend_coord(&(largest.max(1) as f64, top)).0;
            let name = label(&step.name, 2 * LABEL_CHARS_MAX);
            area.draw_text(
                &name,
                &text_style(Ink::Text, left_of),
                (left, y + words_down),
            )?;
            let size = format_step_size(step.left, before);
            area.draw_text(
                &size,
                &text_style(Ink::Muted, right_of),
                (right, y + words_down),
            )?;
        }
        Ok(())
    }

    /// Returns the number of items left before a step.
    fn before(&self, place: usize) -> u64 {
        match place.checked_sub(1) {
            Some(before) => self.steps[before].left,
            None => self.steps[0].left,
        }
    }

    pub(super) fn summary(&self) -> String {
        match (self.steps.first(), self.steps.last()) {
            (Some(first), Some(last)) => format!(
                "Funnel of {} {} in {} steps: {} remain.",
                count(first.left),
                self.counted,
                self.steps.len() - 1,
                count(last.left)
            ),
            _ => "Funnel without steps.".to_owned(),
        }
    }

    pub(super) fn table(&self) -> Table {
        let mut table = Table::new("", &["step", &self.counted, "removed", "share remaining"]);
        let all = self.steps.first().map_or(0, |step| step.left);
        for (place, step) in self.steps.iter().enumerate() {
            let taken = self.before(place).saturating_sub(step.left);
            table.rows.push(vec![
                Cell::from(step.name.as_str()),
                step.left.into(),
                taken.into(),
                Cell::Measure(fraction(step.left, all)),
            ]);
        }
        table
    }
}

fn format_step_size(left: u64, before: u64) -> String {
    match before.saturating_sub(left) {
        0 => count(left),
        taken => format!("{} (−{})", count(left), count(taken)),
    }
}
