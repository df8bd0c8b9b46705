//! Funnel charts: the number of items left after each step, and the number that the step removed.

use super::svg::{Anchor, Ink, Picture, TEXT_SIZE, WIDTH};
use super::{Drawing, LABEL_CHARS_MAX};
use crate::table::{Cell, Table};
use crate::text::{count, fraction, label};

/// Distance between two steps, in SVG units: space for a bar and the line of text above it.
const STEP: f64 = 40.0;
/// Height of a bar, in SVG units.
const BAR: f64 = 16.0;
/// Margin around the steps, in SVG units.
const EDGE: f64 = 4.0;

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
    /// Returns the number of items left before a step; the first step removes nothing.
    fn before(&self, place: usize) -> u64 {
        self.steps[place.saturating_sub(1)].left
    }
}

impl Drawing for Funnel {
    fn picture(&self) -> Option<Picture> {
        let height = self.steps.len() as f64 * STEP + 2.0 * EDGE;
        let mut picture = Picture::new(WIDTH, height as u32);
        let largest = self.steps.iter().map(|step| step.left).max();
        let right = f64::from(WIDTH) - EDGE;
        let scale = (right - EDGE) / largest.unwrap_or(0).max(1) as f64;

        for (place, step) in self.steps.iter().enumerate() {
            let top = EDGE + place as f64 * STEP;
            let line = top + f64::from(TEXT_SIZE) / 2.0 + 2.0;
            let before = self.before(place);
            let name = label(&step.name, 2 * LABEL_CHARS_MAX);
            picture.text((EDGE, line), Anchor::Start, Ink::Text, &name);
            let size = format_step_size(step.left, before);
            picture.text((right, line), Anchor::End, Ink::Muted, &size);

            // The items left after a step are drawn over the items left before it, so the removed part stays visible.
            let bottom = top + STEP - 4.0;
            for (items, ink) in [(before, Ink::Faint(0)), (step.left, Ink::Series(0))] {
                let end = EDGE + items as f64 * scale;
                picture.fill([(EDGE, bottom - BAR), (end, bottom)], ink);
            }
        }
        Some(picture)
    }

    fn summary(&self) -> String {
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

    fn table(&self) -> Table {
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
