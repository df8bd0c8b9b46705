//! The axes of charts with two numeric axes.

use super::svg::{Anchor, Ink, Picture, Position, TEXT_SIZE, WIDTH};
use super::{LABEL_CHARS_MAX, Span};
use crate::text::{label, number};

/// Width reserved for the numbers at the left, in SVG units.
const LEFT: f64 = 52.0;
/// Height reserved for the numbers and the axis name below the chart, in SVG units.
const BELOW: f64 = 38.0;
/// Margin above the chart, in SVG units.
const ABOVE: f64 = 8.0;
/// Margin at the right, in SVG units: half of the last number of the horizontal axis.
const RIGHT: f64 = 22.0;
/// Length of the marks between an axis and its numbers, in SVG units.
const MARK: f64 = 3.0;
/// Approximate number of numbers at the horizontal axis.
const ACROSS_MARKS: f64 = 7.0;
/// Approximate number of numbers at the vertical axis.
const UP_MARKS: f64 = 6.0;
/// Maximum number of numbers at an axis, also if its range is too narrow for exact steps.
const MARKS_MAX: f64 = 20.0;

/// The area between two numeric axes.
pub(super) struct Plane {
    height: u32,
    across: Span,
    up: Span,
}

impl Plane {
    pub(super) fn new(height: u32, across: Span, up: Span) -> Self {
        Self { height, across, up }
    }

    /// Returns the upper left and the lower right corner of the area.
    pub(super) fn corners(&self) -> [Position; 2] {
        let right = f64::from(WIDTH) - RIGHT;
        let bottom = f64::from(self.height) - BELOW;
        [(LEFT, ABOVE), (right, bottom)]
    }

    /// Returns the position of a point in the drawing.
    pub(super) fn position(&self, (x, y): (f64, f64)) -> Position {
        let [(left, top), (right, bottom)] = self.corners();
        let x = left + self.across.share(x) * (right - left);
        let y = bottom - self.up.share(y) * (bottom - top);
        (x, y)
    }

    pub(super) fn positions(&self, points: Vec<(f64, f64)>) -> Vec<Position> {
        points
            .into_iter()
            .map(|point| self.position(point))
            .collect()
    }

    /// Creates a picture of both axes with the name of the horizontal one.
    pub(super) fn picture(&self, name: &str) -> Picture {
        let mut picture = Picture::new(WIDTH, self.height);
        let [(left, top), (right, bottom)] = self.corners();
        let half_line = f64::from(TEXT_SIZE) / 2.0;

        for y in marks(self.up, UP_MARKS) {
            let (_, at) = self.position((self.across.low, y));
            picture.line(&[(left - MARK, at), (right, at)], 1, Ink::Grid);
            let numbers = (left - MARK - 3.0, at);
            picture.text(numbers, Anchor::End, Ink::Muted, &axis_number(y));
        }
        for x in marks(self.across, ACROSS_MARKS) {
            let (at, _) = self.position((x, self.up.low));
            picture.line(&[(at, bottom), (at, bottom + MARK)], 1, Ink::Grid);
            let numbers = (at, bottom + MARK + half_line + 1.0);
            picture.text(numbers, Anchor::Middle, Ink::Muted, &axis_number(x));
        }

        picture.line(
            &[(left, top), (left, bottom), (right, bottom)],
            1,
            Ink::Grid,
        );
        let name = label(name, 2 * LABEL_CHARS_MAX);
        let below = (
            f64::midpoint(left, right),
            f64::from(self.height) - half_line,
        );
        picture.text(below, Anchor::Middle, Ink::Muted, &name);
        picture
    }
}

/// Returns round numbers in a range, about `wanted` of them.
fn marks(span: Span, wanted: f64) -> Vec<f64> {
    let least = (span.high - span.low) / wanted;
    let power = 10_f64.powf(least.log10().floor());
    let factors = [1.0, 2.0, 5.0];
    let factor = factors
        .into_iter()
        .find(|factor| factor * power >= 0.999 * least);
    let step = factor.unwrap_or(10.0) * power;

    // The quotient of an end of the range may be slightly off a whole number.
    let first = (span.low / step - 1e-6).ceil();
    let last = (span.high / step + 1e-6).floor();
    let steps = (last - first).min(MARKS_MAX) as u32;
    let marks = (0..=steps).map(|place| (first + f64::from(place)) * step);
    // The step of the smallest range is 0, of which there is no multiple in the range.
    marks.filter(|mark| mark.is_finite()).collect()
}

/// Formats a number for an axis: `12k` for 12,000.
fn axis_number(value: f64) -> String {
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
        return small_number(value);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round_and_within_the_range() {
        for (low, high, wanted) in [
            (0.0, 1.0, &[0.0, 0.2, 0.4, 0.6, 0.8, 1.0][..]),
            (-0.3, 0.25, &[-0.3, -0.2, -0.1, 0.0, 0.1, 0.2]),
            (1999.0, 2024.0, &[2000.0, 2005.0, 2010.0, 2015.0, 2020.0]),
            (3.0, 4.0, &[3.0, 3.2, 3.4, 3.6, 3.8, 4.0]),
        ] {
            let found = marks(Span { low, high }, ACROSS_MARKS);
            assert_eq!(found.len(), wanted.len(), "{found:?}");
            for (mark, wanted) in found.iter().zip(wanted) {
                assert!((mark - wanted).abs() < 1e-9, "{found:?}");
            }
        }
    }

    #[test]
    fn ranges_of_any_size_have_few_marks() {
        for (low, high) in [
            (-1e300, 1e300),
            (1e300, 1.000_000_000_000_000_2e300),
            (0.0, f64::MIN_POSITIVE),
            (0.0, 5e-324),
            (1.0, 1.0 + f64::EPSILON),
        ] {
            let found = marks(Span { low, high }, UP_MARKS);
            assert!(found.len() <= 21, "{low} to {high}: {found:?}");
        }
    }
}
