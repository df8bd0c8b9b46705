//! Points in a plane without axes, such as a map of vectors. Who reads it chooses what the colours say: the group of a
//! point, one group alone, or whether the point is right. That needs no script: the choice is one of radio buttons, and
//! the page's style looks at them. Nor does it need one to say what a point is: a browser shows the `title` of the
//! element below the pointer.

use std::fmt::Write;

use maud::{Escaper, Markup, html};
use plotters::prelude::*;

use super::svg::{DrawError, Ink, Picture, WIDTH};
use super::{Key, Span};
use crate::table::{Cell, Table};
use crate::text::{Shown, TEXT_CHARS_MAX, count, fraction};

/// Units.
const HEIGHT: u32 = 400;
/// Units around the points.
const EDGE: f64 = 8.0;
/// Letters of an id, at most.
const ID_CHARS_MAX: usize = 20;
/// Groups that can be shown alone, at most.
const ALONE_MAX: usize = 60;
/// Characters of a point's name, at most.
const NAME_CHARS_MAX: usize = 160;

/// Points in a plane.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scatter {
    /// Tells its buttons from those of another one of the page; of letters and digits.
    pub id: String,
    /// What a point is, in the plural.
    pub counted: String,
    /// What a group is, such as `class`.
    pub grouped: String,
    /// Names of the groups.
    pub groups: Vec<String>,
    /// In any order.
    pub points: Vec<Point>,
}

/// A point of a [`Scatter`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Point {
    /// From left to right.
    pub x: f64,
    /// Upwards.
    pub y: f64,
    /// Its group's number; none where that is not known.
    pub group: Option<usize>,
    /// Whether what was said of it is right; none where that is not known.
    pub is_right: Option<bool>,
    /// What is shown when the pointer rests on it; may be empty. A point with a name is an element of its own.
    pub name: String,
}

/// How many points of a group are what.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    points: u64,
    right: u64,
    wrong: u64,
}

impl Scatter {
    pub(super) fn picture(&self) -> Picture {
        let mut picture = Picture::new((WIDTH, HEIGHT), |area| {
            // The points are written below: all points of a kind have their look from one element.
            let frame = [(0, 0), (WIDTH as i32 - 1, HEIGHT as i32 - 1)];
            area.draw(&Rectangle::new(frame, Ink::Grid.colour()))?;
            Ok::<(), DrawError>(())
        });
        if let Some(marks) = &mut picture.marks {
            self.write_points(marks);
        }
        picture
    }

    /// An element for each group and verdict. Wrong ones come last, so that no right one hides them.
    fn write_points(&self, marks: &mut String) {
        let Some(place_of) = self.places() else {
            return;
        };

        let verdicts = [
            (None, "unknown"),
            (Some(true), "right"),
            (Some(false), "wrong"),
        ];
        // Points of no group first: those of a group may cover them.
        let groups = (0..self.groups.len()).map(Some);
        let groups: Vec<Option<usize>> = std::iter::once(None).chain(groups).collect();

        for (verdict, verdict_name) in verdicts {
            for &group in &groups {
                let mut dots = Dots::default();
                for point in &self.points {
                    if point.is_right == verdict
                        && self.group_of(point) == group
                        && let Some(place) = place_of(point)
                    {
                        dots.add(place, &point.name);
                    }
                }
                if dots.is_empty() {
                    continue;
                }

                let ink = group.map_or(Ink::Muted, Ink::Series);
                let name = group.map_or("none".to_owned(), |group| group.to_string());
                // Writing to a string does not fail.
                let _ = write!(
                    marks,
                    "<g class=\"l p k{} g{name} {verdict_name}\" stroke-linecap=\"round\" stroke-width=\"5\" \
                     stroke-opacity=\".7\">",
                    ink.code()
                );
                dots.write(marks);
                marks.push_str("</g>");
            }
        }
    }

    /// The group of a point, if there is such a one.
    fn group_of(&self, point: &Point) -> Option<usize> {
        point.group.filter(|group| *group < self.groups.len())
    }

    /// Where points lie in the drawing; none where no point has a place. Both axes have one scale, since only distances
    /// say something.
    fn places(&self) -> Option<impl Fn(&Point) -> Option<(f64, f64)>> {
        let across = Span::of(self.points.iter().map(|point| point.x))?;
        let up = Span::of(self.points.iter().map(|point| point.y))?;

        // What is divided by is never 0, also where all points lie side by side.
        let span_x = (across.high - across.low).max(f64::MIN_POSITIVE);
        let span_y = (up.high - up.low).max(f64::MIN_POSITIVE);
        let width = f64::from(WIDTH) - 2.0 * EDGE;
        let height = f64::from(HEIGHT) - 2.0 * EDGE;
        let scale = (width / span_x).min(height / span_y);
        // All points in one place have no distances.
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

    /// The drawing below the buttons that choose its colours. The rules are in the page's style ([`rules`]).
    pub(super) fn drawing(&self, alt: &str) -> Markup {
        let letters = self.id.chars().filter(char::is_ascii_alphanumeric);
        let id: String = letters.take(ID_CHARS_MAX).collect();
        let has_verdict = self.points.iter().any(|point| point.is_right.is_some());

        html! {
            input.pick type="radio" name=(id) id={ (id) "-all" } checked;
            label for={ (id) "-all" } { "colour by " (Shown::new(&self.grouped, TEXT_CHARS_MAX).text) }
            @if has_verdict {
                input.pick.by-verdict type="radio" name=(id) id={ (id) "-verdict" };
                label for={ (id) "-verdict" } { "right and wrong" }
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
                    li { span.swatch.right {} "right" }
                    li { span.swatch.wrong {} "wrong" }
                    li { span.swatch.unknown {} "without a label" }
                }
            }
            div.plot { (self.picture().markup(alt)) }
        }
    }

    /// For a file of its own, in which nothing can be chosen.
    pub(super) fn keys(&self) -> Vec<Key> {
        let mut keys = Vec::new();
        for (series, name) in self.groups.iter().enumerate() {
            keys.push(Key {
                name: name.clone(),
                series,
            });
        }
        keys
    }

    pub(super) fn summary(&self) -> String {
        let all = self.tally(|_| true);
        let mut words = format!(
            "Map of {} {} in {} groups.",
            count(all.points),
            self.counted,
            self.groups.len()
        );
        if all.right + all.wrong > 0 {
            words += &format!(
                " Of those with a label {} are right.",
                fraction(all.right, all.right + all.wrong)
            );
        }
        words
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

    pub(super) fn table(&self) -> Table {
        let mut table = Table::new("", &[&self.grouped, &self.counted, "right", "wrong"]);
        for (place, name) in self.groups.iter().enumerate() {
            let tally = self.tally(|group| group == Some(place));
            table.rows.push(tally.cells(name));
        }
        let unknown = self.tally(|group| group.is_none());
        if unknown.points > 0 {
            table.rows.push(unknown.cells("not known"));
        }
        table
    }
}

/// Points that look alike.
#[derive(Clone, Debug, Default)]
struct Dots {
    /// One path of those without a name: a tenth of what an element for each takes.
    nameless: String,
    /// An element for each of the others.
    named: String,
}

impl Dots {
    fn add(&mut self, (x, y): (f64, f64), name: &str) {
        // A line of no length is a dot, by its round ends. Writing to a string does not fail.
        if name.is_empty() {
            let _ = write!(self.nameless, "M{x:.1} {y:.1}h0");
            return;
        }
        let _ = write!(self.named, "<path d=\"M{x:.1} {y:.1}h0\"><title>");
        let name = Shown::new(name, NAME_CHARS_MAX).text;
        let _ = write!(Escaper::new(&mut self.named), "{name}");
        self.named.push_str("</title></path>");
    }

    fn is_empty(&self) -> bool {
        self.nameless.is_empty() && self.named.is_empty()
    }

    fn write(&self, marks: &mut String) {
        if !self.nameless.is_empty() {
            let _ = write!(marks, "<path d=\"{}\"/>", self.nameless);
        }
        marks.push_str(&self.named);
    }
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

/// Rules by which a button shows one group alone, for as many groups as the largest scatter of a page has.
pub(crate) fn rules(groups: usize) -> String {
    let mut rules = String::new();
    for place in 0..groups.min(ALONE_MAX) {
        // Writing to a string does not fail.
        let _ = write!(
            rules,
            ".only-{place}:checked~.plot .p:not(.g{place}){{--ink:var(--line)}}"
        );
    }
    rules
}
