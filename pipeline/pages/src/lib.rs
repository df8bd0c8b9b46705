//! Pages that show the contents of a store or the course of a training run: templates, style and charts shared by all
//! programs.
//!
//! A page is one HTML file. It loads nothing, needs no script, and is readable in light and dark, on a phone and on
//! paper. Callers pass plain data ([`Page`], [`Section`], [`Chart`], [`Table`]); all of their text is escaped, because
//! titles and biographies contain whatever their authors typed. This crate does not know stores, runs or files.
//! Exports take its encoders of PNG and WAVE files.

mod chart;
mod json;
mod page;
mod table;
mod text;
mod wav;

#[cfg(test)]
mod tests;

pub use chart::{
    Axis, Bars, Chart, Funnel, Grid, HeatMap, Histogram, Line, Lines, Matrix, Photo, Plot, Point,
    Scatter, Series, Sound, Span, Step, encode_png,
};
pub use page::{Fact, Page, Part, STYLE, Section};
pub use table::{Cell, Column, Table};
pub use text::{binary_bytes, bytes, count, fraction, number, seconds};
pub use wav::wave_of_floats;
