//! Scatter plots without axes, such as a map of vectors. The reader chooses the meaning of the colours: the group of a
//! point, a single group, or whether the point is correct. The choice needs no script: it is a set of radio buttons to
//! which the page's style reacts. Names need no script either: a browser shows the `title` of the element below the
//! pointer.

use maud::{Markup, html};

use super::svg::{Ink, Picture, WIDTH};
use super::{Drawing, Span};
use crate::table::{Cell, Table};
use crate::text::{Shown, TEXT_CHARS_MAX, count, fraction, label};

/// Height of the drawing, in SVG units.
const HEIGHT: u32 = 400;
/// Margin around the points, in SVG units.
const EDGE: f64 = 8.0;
/// Maximum number of characters in the id of a scatter plot.
const ID_CHARS_MAX: usize = 20;
/// Maximum number of groups with a button that shows only that group.
const ALONE_MAX: usize = 60;
/// Maximum number of characters in a point's name.
const NAME_CHARS_MAX: usize = 160;

/// A scatter plot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scatter {
    /// Distinguishes the buttons from those of other scatter plots on the page; consists of letters and digits.
    pub id: String,
    /// The plural noun for the points.
    pub counted: String,
    /// The name of the grouping, such as `class`.
    pub grouped: String,
    /// Names of the groups of points.
    pub groups: Vec<String>,
    /// The points, in any order.
    pub points: Vec<Point>,
}

/// A point of a [`Scatter`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Point {
    /// The horizontal position of the point, from left to right.
    pub x: f64,
    /// The vertical position of the point, upwards.
    pub y: f64,
    /// The index of the point's group, or `None` if the group is unknown.
    pub group: Option<usize>,
    /// True if the prediction for the point is correct, or `None` if that is unknown.
    pub is_right: Option<bool>,
    /// The text shown when the pointer rests on the point; may be empty. A point with a name is an element of its own.
    pub name: String,
}

/// Numbers of points, correct predictions and wrong predictions in a group.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    points: u64,
    right: u64,
    wrong: u64,
}

impl Scatter {
    /// Writes an SVG element for the points of each group and verdict. Wrong ones come last so that they stay visible.
    fn write_points(&self, marks: &mut String) {
        let Some(place_of) = self.places() else {
            return;
        };

        let verdicts = [
            (None, "unknown"),
            (Some(true), "right"),
            (Some(false), "wrong"),
        ];
        // Points without a group are written first, because points of a group may cover them.
        let groups = (0..self.groups.len()).map(Some);
        let groups: Vec<Option<usize>> = std::iter::once(None).chain(groups).collect();

        for (verdict, verdict_name) in verdicts {
            for &group in &groups {
                let of_kind =
                    |point: &&Point| point.is_right == verdict && self.group_of(point) == group;
                let dots = dots(self.points.iter().filter(of_kind), &place_of);
                if dots.is_empty() {
                    continue;
                }

                let ink = group.map_or(Ink::Muted, Ink::Series);
                let name = group.map_or("none".to_owned(), |group| group.to_string());
                *marks += &format!(
                    "<g class=\"l p k{} g{name} {verdict_name}\" stroke-linecap=\"round\" stroke-width=\"5\" \
                     stroke-opacity=\".7\">{dots}</g>",
                    ink.code()
                );
            }
        }
    }

    /// Returns the group of a point, if the group exists.
    fn group_of(&self, point: &Point) -> Option<usize> {
        point.group.filter(|group| *group < self.groups.len())
    }

    /// Returns a function that computes the position of a point in the drawing, or `None` if no point has finite
    /// coordinates. Both axes have the same scale because only distances are meaningful.
    fn places(&self) -> Option<impl Fn(&Point) -> Option<(f64, f64)>> {
        let across = Span::from_values(self.points.iter().map(|point| point.x))?;
        let up = Span::from_values(self.points.iter().map(|point| point.y))?;

        // Avoid division by zero if all points share a coordinate.
        let span_x = (across.high - across.low).max(f64::MIN_POSITIVE);
        let span_y = (up.high - up.low).max(f64::MIN_POSITIVE);
        let width = f64::from(WIDTH) - 2.0 * EDGE;
        let height = f64::from(HEIGHT) - 2.0 * EDGE;
        let scale = (width / span_x).min(height / span_y);
        // If all points coincide, there are no distances to scale, and the scale is 1.
        let scale = if scale.is_finite() && scale < 1e12 {
            scale
        } else {
            1.0
        };

        let centre_x = across.low + (across.high - across.low) / 2.0;
        let centre_y = up.low + (up.high - up.low) / 2.0;
        Some(move |point: &Point| {
            let x = f64::from(WIDTH) / 2.0 + (point.x - centre_x) * scale;
            let y = f64::from(HEIGHT) / 2.0 - (point.y - centre_y) * scale;
            (x.is_finite() && y.is_finite()).then_some((x, y))
        })
    }

    fn tally(&self, counts: impl Fn(Option<usize>) -> bool) -> Tally {
        let mut tally = Tally::default();
        for point in &self.points {
            if counts(self.group_of(point)) {
                tally.points += 1;
                tally.right += u64::from(point.is_right == Some(true));
                tally.wrong += u64::from(point.is_right == Some(false));
            }
        }
        tally
    }
}

impl Drawing for Scatter {
    fn picture(&self) -> Option<Picture> {
        let mut picture = Picture::new(WIDTH, HEIGHT);
        let corner = (f64::from(WIDTH) - 1.0, f64::from(HEIGHT) - 1.0);
        picture.frame([(0.0, 0.0), corner], Ink::Grid);
        // Points of one kind share an element that sets their look.
        self.write_points(&mut picture.marks);
        Some(picture)
    }

    /// Returns the drawing below the buttons that choose its colours. The page's style contains the rules ([`rules`]).
    fn drawing(&self, alt: &str) -> Markup {
        let letters = self.id.chars().filter(char::is_ascii_alphanumeric);
        let id: String = letters.take(ID_CHARS_MAX).collect();
        let has_verdict = self.points.iter().any(|point| point.is_right.is_some());

        html! {
            input.pick type="radio" name=(id) id={ (id) "-all" } checked;
            label for={ (id) "-all" } { "colour by " (Shown::new(&self.grouped, TEXT_CHARS_MAX).text) }
            @if has_verdict {
                input.pick.by-verdict type="radio" name=(id) id={ (id) "-verdict" };
                label for={ (id) "-verdict" } { "correct and incorrect" }
            }
            @for (place, name) in self.groups.iter().enumerate().take(ALONE_MAX) {
                input class={ "pick only-" (place) } type="radio" name=(id) id={ (id) "-" (place) };
                label for={ (id) "-" (place) } {
                    span class={ "swatch k" (Ink::Series(place).code()) } {}
                    (Shown::new(name, TEXT_CHARS_MAX).text)
                }
            }
            @if has_verdict {
                ul.legend.verdicts {
                    li { span.swatch.right {} "correct" }
                    li { span.swatch.wrong {} "incorrect" }
                    li { span.swatch.unknown {} "unlabelled" }
                }
            }
            div.plot { @if let Some(picture) = self.picture() { (picture.markup(alt)) } }
        }
    }

    /// Returns false: the buttons serve as the legend of a page. A standalone file has no buttons.
    fn has_legend(&self) -> bool {
        false
    }

    fn series_names(&self) -> Vec<&str> {
        self.groups.iter().map(String::as_str).collect()
    }

    fn summary(&self) -> String {
        let all = self.tally(|_| true);
        let mut message = format!(
            "Scatter plot of {} {} in {} groups.",
            count(all.points),
            self.counted,
            self.groups.len()
        );
        if all.right + all.wrong > 0 {
            message += &format!(
                " {} of the labelled points are correct.",
                fraction(all.right, all.right + all.wrong)
            );
        }
        message
    }

    fn table(&self) -> Table {
        let mut table = Table::new("", &[&self.grouped, &self.counted, "correct", "incorrect"]);
        for (place, name) in self.groups.iter().enumerate() {
            let tally = self.tally(|group| group == Some(place));
            table.rows.push(tally.cells(name));
        }
        let unknown = self.tally(|group| group.is_none());
        if unknown.points > 0 {
            table.rows.push(unknown.cells("unknown"));
        }
        table
    }
}

/// Returns the SVG elements of points that look the same: one path for all points without a name, a tenth of the size
/// of one element per point, and one element for each point with a name.
fn dots<'a>(
    points: impl Iterator<Item = &'a Point>,
    place_of: impl Fn(&Point) -> Option<(f64, f64)>,
) -> String {
    let (mut nameless, mut named) = (String::new(), String::new());
    for point in points {
        let Some((x, y)) = place_of(point) else {
            continue;
        };
        // A line of length 0 is drawn as a dot because its ends are round.
        let dot = format!("M{x:.1} {y:.1}h0");
        if point.name.is_empty() {
            nameless += &dot;
        } else {
            let name = label(&point.name, NAME_CHARS_MAX);
            named += &html! { path d=(dot) { title { (name) } } }.into_string();
        }
    }
    if nameless.is_empty() {
        return named;
    }
    format!("<path d=\"{nameless}\"/>{named}")
}

impl Tally {
    fn cells(self, name: &str) -> Vec<Cell> {
        vec![
            name.into(),
            self.points.into(),
            self.right.into(),
            self.wrong.into(),
        ]
    }
}

/// Returns the style rules by which a button shows a single group, for as many groups as the largest scatter plot of a
/// page has.
pub(crate) fn rules(groups: usize) -> String {
    let mut rules = String::new();
    for place in 0..groups.min(ALONE_MAX) {
        rules += &format!(".only-{place}:checked~.plot .p:not(.g{place}){{--ink:var(--line)}}");
    }
    rules
}
