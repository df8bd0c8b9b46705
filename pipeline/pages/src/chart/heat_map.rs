//! Heat maps: values over two axes, drawn as an image between the axes.

use maud::{Markup, html};
use png::ColorType;

use super::axes::Plane;
use super::png::data_url;
use super::svg::WIDTH;
use super::{Axis, Drawing, Sound, Span};
use crate::table::{Cell, Table};
use crate::text::{Shown, TEXT_CHARS_MAX, number};

/// Height of the drawing, in SVG units.
const HEIGHT: u32 = 210;

/// A heat map: values over two axes, such as a spectrogram with time across and frequency bands upwards.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeatMap {
    /// The horizontal axis.
    pub across: Axis,
    /// The vertical axis.
    pub up: Axis,
    /// The quantity that the colours represent, with its unit.
    pub measured: String,
    /// Number of columns in `values`.
    pub columns: usize,
    /// The values in row-major order, the lowest row first.
    pub values: Vec<f32>,
    /// The sound that the image represents; its player is shown below the image.
    pub sound: Option<Sound>,
}

impl HeatMap {
    /// Creates the heat map of a spectrogram without sound, from the name and the end of its frame axis, the name and
    /// the number of its bands, and the columns and values of [`Grid::smaller`](super::Grid::smaller).
    pub fn spectrogram(
        (across, end): (&str, f64),
        (up, bands): (&str, usize),
        (columns, values): (usize, Vec<f32>),
    ) -> Self {
        Self {
            across: Axis::new(across, 0.0, end),
            up: Axis::new(up, 0.0, bands as f64),
            measured: "stored value".to_owned(),
            columns,
            values,
            sound: None,
        }
    }

    fn rows(&self) -> usize {
        self.values.len().checked_div(self.columns).unwrap_or(0)
    }

    fn map(&self, alt: &str) -> Markup {
        let range = Span::from_values(self.values.iter().map(|&value| f64::from(value)));
        let Some(Span { low, high }) = range.filter(|_| self.rows() > 0) else {
            return html! { p.note { "No values." } };
        };

        let plane = Plane::new(HEIGHT, self.across.span(), self.up.span());
        let [(left, top), (right, bottom)] = plane.corners();
        let picture = data_url(self.columns, ColorType::Indexed, &self.pixels(low, high));
        html! {
            div.map {
                (plane.picture(&self.across.name).markup(alt))
                // The plane's `svg` element with the axes is closed, so a second one is laid over it.
                svg aria-hidden="true" viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } {
                    image x=(left) y=(top) width=(right - left) height=(bottom - top) preserveAspectRatio="none"
                        href=(picture) {}
                }
            }
            p.scale {
                (number(low)) span.colours aria-hidden="true" {} (number(high)) " "
                (Shown::new(&self.measured, TEXT_CHARS_MAX).text)
                ", vertical axis: " (Shown::new(&self.up.name, TEXT_CHARS_MAX).text)
            }
        }
    }

    /// Returns the pixels as indices into the colour map, starting at the top row.
    fn pixels(&self, low: f64, high: f64) -> Vec<u8> {
        let span = if high > low { high - low } else { 1.0 };
        let mut pixels = Vec::with_capacity(self.values.len());
        for row in self.values.chunks_exact(self.columns).rev() {
            for &value in row {
                let share = (f64::from(value) - low) / span;
                // NaN gets the darkest colour: the cast turns it into 0.
                pixels.push((share.clamp(0.0, 1.0) * 255.0).round() as u8);
            }
        }
        pixels
    }
}

impl Drawing for HeatMap {
    fn drawing(&self, alt: &str) -> Markup {
        html! {
            (self.map(alt))
            @if let Some(sound) = &self.sound { (sound.markup(alt)) }
        }
    }

    fn summary(&self) -> String {
        let range = Span::from_values(self.values.iter().map(|&value| f64::from(value)));
        match range {
            None => "Heat map without values.".to_owned(),
            Some(Span { low, high }) => format!(
                "Heat map of {} over {} and {}; values from {} to {}.",
                self.measured,
                self.across.name,
                self.up.name,
                number(low),
                number(high)
            ),
        }
    }

    /// Returns a table that summarizes each row of the heat map: a table of every value would be useless.
    fn table(&self) -> Table {
        let mean = format!("mean of {}", self.measured);
        let mut table = Table::new("", &[&self.up.name, &mean, "lowest", "highest"]);
        let n = self.rows();
        for (row, values) in self.values.chunks_exact(self.columns.max(1)).enumerate() {
            let values = values.iter().map(|&value| f64::from(value));
            let middle = (row as f64 + 0.5) / n as f64;
            let at = self.up.from + middle * (self.up.to - self.up.from);
            let range = Span::from_values(values.clone());
            table.rows.push(vec![
                Cell::Number(at),
                Cell::Number(values.sum::<f64>() / self.columns as f64),
                range.map(|range| range.low).into(),
                range.map(|range| range.high).into(),
            ]);
        }
        table
    }
}
