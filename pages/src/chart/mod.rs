//! Charts: drawn as SVG with the colours of the page's style, each with its numbers as a table.
//!
//! Plotters lays out axes and marks, and [`svg`] writes what it draws. A chart is as wide as a phone in landscape, so its
//! letters stay readable there; on a larger screen several stand side by side.

mod bars;
mod file;
mod funnel;
mod heat_map;
mod histogram;
mod lines;
mod matrix;
mod parallel;
mod png;
mod scatter;
mod sound;
mod svg;

use maud::{Markup, html};

use self::svg::Picture;
use crate::table::Table;
use crate::text::{Shown, TEXT_CHARS_MAX};

pub use bars::{Bars, Series};
pub use funnel::{Funnel, Step};
pub use heat_map::HeatMap;
pub use histogram::Histogram;
pub use lines::{Line, Lines, Spread};
pub use matrix::{Matrix, PngPicture};
pub use parallel::{AxisValue, Parallel, ParallelLine};
pub(crate) use scatter::rules;
pub use scatter::{Point, Scatter};
pub use sound::Sound;

/// Characters of a label beside a mark, at most.
const LABEL_CHARS_MAX: usize = 22;

/// A chart with its words.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// Above it.
    pub title: String,
    /// Below it: how to read it; may be empty.
    pub note: String,
    /// What it shows.
    pub plot: Plot,
}

/// A kind of chart with its numbers.
#[derive(Clone, Debug, PartialEq)]
pub enum Plot {
    /// Sizes of named things.
    Bars(Bars),
    /// How many lie where.
    Histogram(Histogram),
    /// What is left after each step.
    Funnel(Funnel),
    /// Values along an axis.
    Lines(Lines),
    /// Values over two axes, such as a spectrogram.
    HeatMap(HeatMap),
    /// What was taken for what.
    Matrix(Matrix),
    /// Points in a plane.
    Scatter(Scatter),
    /// Things along axes that stand side by side.
    Parallel(Parallel),
}

/// An axis of numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Axis {
    /// What it measures, with the unit.
    pub name: String,
    /// Its low end.
    pub from: f64,
    /// Its high end.
    pub to: f64,
}

/// What a legend says of one series.
struct Key {
    name: String,
    series: usize,
}

impl Chart {
    /// Whether a page with it needs to be allowed to play sounds.
    pub(crate) fn has_sound(&self) -> bool {
        self.plot.has_sound()
    }

    pub(crate) fn markup(&self) -> Markup {
        let alt = format!("{}. {}", self.title, self.plot.summary());
        let alt = Shown::new(&alt, TEXT_CHARS_MAX).text;
        html! {
            figure.wide[self.plot.is_wide()] {
                figcaption { (Shown::new(&self.title, TEXT_CHARS_MAX).markup()) }
                (self.plot.drawing(&alt))
                @if !self.plot.has_own_legend() { (legend(&self.plot.keys())) }
                @if !self.note.is_empty() {
                    p.note { (Shown::new(&self.note, TEXT_CHARS_MAX).markup()) }
                }
                details { summary { "Numbers" } (self.plot.table().markup()) }
            }
        }
    }
}

/// One series needs no legend: the title says what it is.
fn legend(keys: &[Key]) -> Markup {
    html! {
        @if keys.len() > 1 {
            ul.legend {
                @for key in keys {
                    li { span class={ "swatch k" (svg::Ink::Series(key.series).code()) } {} (Shown::new(&key.name, TEXT_CHARS_MAX).text) }
                }
            }
        }
    }
}

impl Plot {
    /// What stands in a page.
    fn drawing(&self, alt: &str) -> Markup {
        match self {
            Self::HeatMap(map) => map.drawing(alt),
            Self::Scatter(scatter) => scatter.drawing(alt),
            _ => match self.picture() {
                Some(picture) => picture.markup(alt),
                None => html! {},
            },
        }
    }

    /// What is drawn; none for what is a picture of pixels.
    fn picture(&self) -> Option<Picture> {
        match self {
            Self::Bars(bars) => Some(bars.picture()),
            Self::Histogram(histogram) => Some(histogram.picture()),
            Self::Funnel(funnel) => Some(funnel.picture()),
            Self::Lines(lines) => Some(lines.picture()),
            Self::HeatMap(_) => None,
            Self::Matrix(matrix) => Some(matrix.picture()),
            Self::Scatter(scatter) => Some(scatter.picture()),
            Self::Parallel(parallel) => Some(parallel.picture()),
        }
    }

    /// Whether it needs the whole width of a page.
    fn is_wide(&self) -> bool {
        match self {
            Self::Matrix(matrix) => matrix.is_wide(),
            Self::Parallel(parallel) => parallel.is_wide(),
            _ => false,
        }
    }

    /// Whether there is something to be heard.
    fn has_sound(&self) -> bool {
        matches!(self, Self::HeatMap(HeatMap { sound: Some(_), .. }))
    }

    /// Whether its names stand in the drawing's own buttons.
    fn has_own_legend(&self) -> bool {
        matches!(self, Self::Scatter(_))
    }

    /// One sentence for who cannot see the chart.
    fn summary(&self) -> String {
        match self {
            Self::Bars(bars) => bars.summary(),
            Self::Histogram(histogram) => histogram.summary(),
            Self::Funnel(funnel) => funnel.summary(),
            Self::Lines(lines) => lines.summary(),
            Self::HeatMap(map) => map.summary(),
            Self::Matrix(matrix) => matrix.summary(),
            Self::Scatter(scatter) => scatter.summary(),
            Self::Parallel(parallel) => parallel.summary(),
        }
    }

    fn keys(&self) -> Vec<Key> {
        match self {
            Self::Bars(bars) => bars.keys(),
            Self::Lines(lines) => lines.keys(),
            Self::Scatter(scatter) => scatter.keys(),
            Self::Parallel(parallel) => parallel.keys(),
            Self::Histogram(_) | Self::Funnel(_) | Self::HeatMap(_) | Self::Matrix(_) => Vec::new(),
        }
    }

    fn table(&self) -> Table {
        match self {
            Self::Bars(bars) => bars.table(),
            Self::Histogram(histogram) => histogram.table(),
            Self::Funnel(funnel) => funnel.table(),
            Self::Lines(lines) => lines.table(),
            Self::HeatMap(map) => map.table(),
            Self::Matrix(matrix) => matrix.table(),
            Self::Scatter(scatter) => scatter.table(),
            Self::Parallel(parallel) => parallel.table(),
        }
    }
}

/// What lies between a low and a high end.
#[derive(Clone, Copy, Debug)]
struct Span {
    low: f64,
    high: f64,
}

impl Span {
    /// From 0 to 1: of values that are not there.
    const UNIT: Self = Self {
        low: 0.0,
        high: 1.0,
    };

    /// Of finite values; `None` where there are none.
    fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut span: Option<Self> = None;
        for value in values.filter(|value| value.is_finite()) {
            span = Some(match span {
                None => Self {
                    low: value,
                    high: value,
                },
                Some(Self { low, high }) => Self {
                    low: low.min(value),
                    high: high.max(value),
                },
            });
        }
        span
    }

    /// One that has a length, as an axis needs it.
    fn widened(self) -> Self {
        if self.low < self.high {
            return self;
        }
        self.with_margin(self.low.abs().max(1.0) * 0.5)
    }

    /// So much more at both ends.
    fn with_margin(self, margin: f64) -> Self {
        Self {
            low: self.low - margin,
            high: self.high + margin,
        }
    }
}

impl Axis {
    /// From end to end, with a length.
    fn span(&self) -> Span {
        let span = Span {
            low: self.from,
            high: self.to,
        };
        span.widened()
    }
}
