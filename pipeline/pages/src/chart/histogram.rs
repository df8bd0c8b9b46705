//! Histograms: the distribution of values along an axis.

use super::axes::Plane;
use super::svg::{Anchor, Ink, Picture};
use super::{Axis, Drawing, Span};
use crate::table::{Cell, Table};
use crate::text::{count, number};

/// Height of the drawing, in SVG units.
const HEIGHT: u32 = 190;

/// A histogram: counts in bins of equal width.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// The measured quantity; the axis ends at the outer edges of the first and the last bin.
    pub axis: Axis,
    /// The kind of items that are counted.
    pub counted: String,
    /// The number of items in each bin.
    pub counts: Vec<u64>,
}

impl Histogram {
    /// Returns the position of a bin's lower edge on the axis.
    fn edge(&self, bin: usize) -> f64 {
        let share = bin as f64 / self.counts.len() as f64;
        let Span { low, high } = self.axis.span();
        low + share * (high - low)
    }
}

impl Drawing for Histogram {
    fn picture(&self) -> Option<Picture> {
        let largest = self.counts.iter().copied().max().unwrap_or(0).max(1);
        // Leave some space above the highest bar.
        let counts = Span {
            low: 0.0,
            high: largest as f64 * 1.05,
        };
        let plane = Plane::new(HEIGHT, self.axis.span(), counts);
        let mut picture = plane.picture(&self.axis.name);

        for (bin, &n) in self.counts.iter().enumerate() {
            let from = plane.position((self.edge(bin), 0.0));
            let (right, top) = plane.position((self.edge(bin + 1), n as f64));
            // A gap separates the bar from the next one.
            picture.fill([from, (right - 1.0, top)], Ink::Series(0));
        }
        if self.counts.is_empty() {
            picture.text((60.0, 40.0), Anchor::Start, Ink::Muted, "no values");
        }
        Some(picture)
    }

    fn summary(&self) -> String {
        let all: u64 = self.counts.iter().sum();
        let largest = self.counts.iter().enumerate().max_by_key(|(_, n)| **n);
        match largest {
            None => "Histogram without values.".to_owned(),
            Some((bin, n)) => format!(
                "Histogram of {} {} by {}; the largest bin has {}, between {} and {}.",
                count(all),
                self.counted,
                self.axis.name,
                count(*n),
                number(self.edge(bin)),
                number(self.edge(bin + 1))
            ),
        }
    }

    fn table(&self) -> Table {
        let to = format!("{} to", self.axis.name);
        let from = format!("{} from", self.axis.name);
        let mut table = Table::new("", &[&from, &to, &self.counted]);
        for (bin, &n) in self.counts.iter().enumerate() {
            table.rows.push(vec![
                Cell::Number(self.edge(bin)),
                Cell::Number(self.edge(bin + 1)),
                n.into(),
            ]);
        }
        table
    }
}
