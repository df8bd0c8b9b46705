//! Pages that show what a store holds or what a training did: templates, style and charts, once for all programs.
//!
//! A page is one HTML file. It loads nothing, needs no script, and reads in light and dark, on a phone and on paper.
//! Callers give plain data ([`Page`], [`Section`], [`Chart`], [`Table`]); every text of theirs is escaped, because titles
//! and biographies hold whatever their authors typed. Nothing here knows of stores, runs or files.

mod chart;
mod json;
mod page;
mod table;
mod text;

#[cfg(test)]
mod tests;

pub use chart::{
    Axis, AxisValue, Bars, Chart, Funnel, HeatMap, Histogram, Line, Lines, Matrix, Parallel,
    ParallelLine, Plot, PngPicture, Point, Scatter, Series, Sound, Spread, Step,
};
pub use page::{Fact, Page, Part, STYLE, Section};
pub use table::{Cell, Table};
pub use text::{binary_bytes, bytes, count, fraction, number, seconds};
