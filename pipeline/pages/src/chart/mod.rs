//! Charts, drawn as SVG in the colours of the page's style, each with its numbers as a table.
//!
//! A chart is as wide as a phone in landscape, so its text stays readable there; larger screens show several charts
//! next to each other.

mod axes;
mod bars;
mod file;
mod funnel;
mod grid;
mod heat_map;
mod histogram;
mod lines;
mod matrix;
mod photo;
mod png;
mod scatter;
mod sound;
mod svg;

use maud::{Markup, html};

use self::svg::Picture;
use crate::table::Table;
use crate::text::{Shown, TEXT_CHARS_MAX};

pub use self::png::encode_png;
pub use bars::{Bars, Series};
pub use funnel::{Funnel, Step};
pub use grid::Grid;
pub use heat_map::HeatMap;
pub use histogram::Histogram;
pub use lines::{Line, Lines};
pub use matrix::Matrix;
pub use photo::Photo;
pub(crate) use scatter::rules;
pub use scatter::{Point, Scatter};
pub use sound::Sound;

/// Maximum number of characters of a label next to a mark.
const LABEL_CHARS_MAX: usize = 22;

/// A chart with its title and note.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// The title above the chart.
    pub title: String,
    /// An explanation below the chart; may be empty.
    pub note: String,
    /// The plot of the numbers.
    pub plot: Plot,
}

/// A kind of chart with its numbers.
#[derive(Clone, Debug, PartialEq)]
pub enum Plot {
    /// Bars of named values.
    Bars(Bars),
    /// A distribution of values along an axis.
    Histogram(Histogram),
    /// The number of items left after each step.
    Funnel(Funnel),
    /// Lines: values along an axis.
    Lines(Lines),
    /// Values over two axes, such as a spectrogram.
    HeatMap(HeatMap),
    /// A confusion matrix.
    Matrix(Matrix),
    /// A picture in colours.
    Photo(Photo),
    /// Points in a plane.
    Scatter(Scatter),
}

/// A numeric axis.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Axis {
    /// The measured quantity, with its unit.
    pub name: String,
    /// The low end of the axis.
    pub from: f64,
    /// The high end of the axis.
    pub to: f64,
}

impl Chart {
    /// Creates a chart; `note` may be empty.
    pub fn new(title: impl Into<String>, note: impl Into<String>, plot: Plot) -> Self {
        Self {
            title: title.into(),
            note: note.into(),
            plot,
        }
    }

    /// Reports whether the chart contains a sound, which the policy of its page must allow to be played.
    pub(crate) fn has_sound(&self) -> bool {
        matches!(&self.plot, Plot::HeatMap(map) if map.sound.is_some())
    }

    pub(crate) fn markup(&self) -> Markup {
        let plot = self.plot.drawing();
        let alt = format!("{}. {}", self.title, plot.summary());
        let alt = Shown::new(&alt, TEXT_CHARS_MAX).text;
        let table = plot.table();
        html! {
            figure.wide[plot.is_wide()] {
                figcaption { (Shown::new(&self.title, TEXT_CHARS_MAX).markup()) }
                (plot.drawing(&alt))
                @if plot.has_legend() { (legend(&plot.series_names())) }
                @if !self.note.is_empty() {
                    p.note { (Shown::new(&self.note, TEXT_CHARS_MAX).markup()) }
                }
                @if !table.rows.is_empty() { details { summary { "Numbers" } (table.markup()) } }
            }
        }
    }
}

/// Returns the legend of a chart. A single series needs no legend, because the title describes it.
fn legend(names: &[&str]) -> Markup {
    html! {
        @if names.len() > 1 {
            ul.legend {
                @for (series, name) in names.iter().enumerate() {
                    li { span class={ "swatch k" (svg::Ink::Series(series).code()) } {} (Shown::new(name, TEXT_CHARS_MAX).text) }
                }
            }
        }
    }
}

/// What each kind of plot shows of its numbers.
trait Drawing {
    /// Returns the plot as a vector drawing, or `None` if the plot is an image of pixels.
    fn picture(&self) -> Option<Picture> {
        None
    }

    /// Summarizes the chart in one sentence for readers who cannot see it.
    fn summary(&self) -> String;

    /// Returns the numbers of the plot.
    fn table(&self) -> Table;

    /// Returns the names of the series, in the order of their colours.
    fn series_names(&self) -> Vec<&str> {
        Vec::new()
    }

    /// Returns the HTML markup of the plot for a page.
    fn drawing(&self, alt: &str) -> Markup {
        html! { @if let Some(picture) = self.picture() { (picture.markup(alt)) } }
    }

    /// Reports whether the plot needs the whole width of a page.
    fn is_wide(&self) -> bool {
        false
    }

    /// Reports whether a page shows a legend below the plot.
    fn has_legend(&self) -> bool {
        true
    }
}

impl Plot {
    fn drawing(&self) -> &dyn Drawing {
        match self {
            Self::Bars(bars) => bars,
            Self::Histogram(histogram) => histogram,
            Self::Funnel(funnel) => funnel,
            Self::Lines(lines) => lines,
            Self::HeatMap(map) => map,
            Self::Matrix(matrix) => matrix,
            Self::Photo(photo) => photo,
            Self::Scatter(scatter) => scatter,
        }
    }
}

/// The largest absolute value that is drawn. The length of an axis and its margin must also be finite.
const DRAWN_MAX: f64 = 1e300;

/// Reports whether a value has a position on an axis. The table of a chart also contains the other values.
fn is_drawable(value: f64) -> bool {
    value.abs() <= DRAWN_MAX
}

/// A range of numeric values.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Span {
    /// The low end of the range.
    pub low: f64,
    /// The high end of the range.
    pub high: f64,
}

impl Span {
    /// The range from 0 to 1, used if there are no values.
    const UNIT: Self = Self {
        low: 0.0,
        high: 1.0,
    };

    /// Returns the range of the values that can be drawn, or `None` if there are none.
    fn from_values(values: impl Iterator<Item = f64>) -> Option<Self> {
        let drawable = values.filter(|&value| is_drawable(value));
        let spans = drawable.map(|value| Self {
            low: value,
            high: value,
        });
        spans.reduce(|all, one| Self {
            low: all.low.min(one.low),
            high: all.high.max(one.high),
        })
    }

    /// Returns the range, widened if its length is 0, because an axis needs a non-zero length.
    fn widened(self) -> Self {
        if self.low < self.high {
            return self;
        }
        self.with_margin(self.low.abs().max(1.0) * 0.5)
    }

    /// Returns the position of a value in the range, from 0 at the low end to 1 at the high end.
    fn share(self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }

    /// Extends the range by `margin` at each of its two ends.
    fn with_margin(self, margin: f64) -> Self {
        Self {
            low: self.low - margin,
            high: self.high + margin,
        }
    }
}

impl Axis {
    /// Creates an axis from `from` to `to`.
    pub fn new(name: impl Into<String>, from: f64, to: f64) -> Self {
        let name = name.into();
        Self { name, from, to }
    }

    /// Returns the range of the axis, widened if its length is zero.
    fn span(&self) -> Span {
        let span = Span {
            low: self.from,
            high: self.to,
        };
        span.widened()
    }
}
