//! Drawings: SVG elements whose colours are classes of the page's style, so that they change in dark mode.

use maud::{Markup, PreEscaped, Render, html};

use crate::text::{ELLIPSIS, TEXT_CHARS_MAX, label};

/// Width of a drawing, in SVG units. A drawing is scaled to the space available, which is about this wide on a phone.
pub(super) const WIDTH: u32 = 480;

/// Font size, in SVG units.
pub(super) const TEXT_SIZE: u32 = 13;

/// Number of colours for series; further series reuse them from the first one.
const SERIES_COLOURS: usize = 12;

/// The class number of the first series.
const SERIES_CODE: u8 = 10;

/// Maximum opacity of a colour below text, which keeps the text readable in light and in dark.
const SHARE_ALPHA_MAX: f64 = 0.55;

/// A colour of the page's style.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ink {
    /// The colour of text.
    Text,
    /// The colour of less important text.
    Muted,
    /// The colour of lines below the marks.
    Grid,
    /// The colour of the marks of a series.
    Series(usize),
    /// The translucent variant of a series' colour.
    Faint(usize),
    /// The colour of the first series below text, more opaque for larger shares, from 0 to 1.
    Share(f64),
}

impl Ink {
    /// Returns the number in the name of this colour's CSS class.
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Text => 0,
            Self::Muted => 1,
            Self::Grid => 2,
            Self::Series(n) | Self::Faint(n) => SERIES_CODE + (n % SERIES_COLOURS) as u8,
            Self::Share(_) => SERIES_CODE,
        }
    }

    /// Returns the CSS classes of a mark: `f` for a filled one and `l` for a line, followed by its colour.
    fn class(self, kind: char) -> String {
        format!("{kind} k{}", self.code())
    }

    /// Returns the opacity of a translucent colour.
    fn opacity(self) -> Option<f64> {
        match self {
            Self::Faint(_) => Some(0.25),
            Self::Share(share) => Some(rounded(SHARE_ALPHA_MAX * share.clamp(0.0, 1.0), 100.0)),
            _ => None,
        }
    }
}

/// A position in a drawing, in SVG units from its upper left corner.
pub(super) type Position = (f64, f64);

/// The part of a text that is at its position. All texts are centred vertically.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
    /// The start of a text that reads upwards.
    Upwards,
}

/// A drawing for a page or for a standalone file.
#[derive(Clone, Debug)]
pub(super) struct Picture {
    /// Width and height, in SVG units.
    pub size: (u32, u32),
    /// SVG elements.
    pub marks: String,
}

impl Picture {
    pub(super) fn new(width: u32, height: u32) -> Self {
        Self {
            size: (width, height),
            marks: String::new(),
        }
    }

    /// Draws a filled rectangle between two opposite corners.
    pub(super) fn fill(&mut self, corners: [Position; 2], ink: Ink) {
        self.rectangle('f', corners, ink);
    }

    /// Draws the outline of a rectangle between two opposite corners.
    pub(super) fn frame(&mut self, corners: [Position; 2], ink: Ink) {
        self.rectangle('l', corners, ink);
    }

    fn rectangle(&mut self, kind: char, [from, to]: [Position; 2], ink: Ink) {
        let [x, y] = [from.0.min(to.0), from.1.min(to.1)].map(tenths);
        let [width, height] = [from.0 - to.0, from.1 - to.1].map(|size| tenths(size.abs()));
        self.add(html! {
            rect class=(ink.class(kind)) opacity=[ink.opacity()] x=(x) y=(y) width=(width) height=(height) {}
        });
    }

    /// Draws a line through all points.
    pub(super) fn line(&mut self, points: &[Position], width: u32, ink: Ink) {
        self.add(html! { path class=(ink.class('l')) d=(path(points)) stroke-width=(width) {} });
    }

    /// Draws a filled polygon.
    pub(super) fn polygon(&mut self, corners: &[Position], ink: Ink) {
        self.add(html! {
            path class=(ink.class('f')) opacity=[ink.opacity()] d={ (path(corners)) "Z" } {}
        });
    }

    /// Draws a filled circle.
    pub(super) fn dot(&mut self, (x, y): Position, radius: u32, ink: Ink) {
        let [x, y] = [x, y].map(tenths);
        self.add(html! { circle class=(ink.class('f')) cx=(x) cy=(y) r=(radius) {} });
    }

    /// Writes a text, which may contain a `title` element as its tooltip.
    pub(super) fn text(
        &mut self,
        (x, y): Position,
        anchor: Anchor,
        ink: Ink,
        text: &(impl Render + ?Sized),
    ) {
        let [x, y] = [x, y].map(tenths);
        let side = match anchor {
            Anchor::Start | Anchor::Upwards => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let turn = (anchor == Anchor::Upwards).then(|| format!("rotate(270,{x},{y})"));
        self.add(html! {
            text class=(ink.class('f')) x=(x) y=(y) dy=".35em" text-anchor=(side) font-size=(TEXT_SIZE)
                transform=[turn] { (text) }
        });
    }

    fn add(&mut self, mark: Markup) {
        self.marks.push_str(&mark.into_string());
    }

    /// Returns the HTML markup for a page, with the text `alt` for readers who cannot see the picture.
    pub(super) fn markup(&self, alt: &str) -> Markup {
        let (width, height) = self.size;

        // A drawing wider than [`WIDTH`] keeps its font size, and scrolls if the window is too narrow.
        let sizes = (width > WIDTH).then(|| {
            let least = width * 4 / 5;
            let most = width * 6 / 5;
            format!("min-width:{least}px;max-width:{most}px")
        });

        html! {
            div.drawing tabindex=[sizes.is_some().then_some("0")] {
                svg role="img" aria-label=(alt) viewBox={ "0 0 " (width) " " (height) } style=[sizes] {
                    (PreEscaped(&self.marks))
                }
            }
        }
    }
}

/// Returns the data of an SVG path through all points.
fn path(points: &[Position]) -> String {
    let mut path = String::new();
    for (place, &(x, y)) in points.iter().enumerate() {
        let letter = if place == 0 { 'M' } else { 'L' };
        path += &format!("{letter}{} {}", tenths(x), tenths(y));
    }
    path
}

/// Rounds a coordinate to tenths, the resolution of a drawing.
fn tenths(coordinate: f64) -> f64 {
    rounded(coordinate, 10.0)
}

/// Rounds a value to the multiple of `1 / per_unit` nearest to it.
fn rounded(value: f64, per_unit: f64) -> f64 {
    (value * per_unit).round() / per_unit
}

/// Estimates the width of a text in SVG units. The estimate is rather too wide than too narrow because the layout
/// reserves this space.
pub(super) fn text_width(text: &str) -> u32 {
    let heights: f64 = text.chars().map(letter_width).sum();
    (heights * f64::from(TEXT_SIZE)).ceil() as u32
}

/// Estimates the width of a letter relative to the font size, in the sans-serif fonts of browsers.
fn letter_width(c: char) -> f64 {
    match c {
        'i' | 'j' | 'l' | 't' | 'f' | 'r' | 'I' | ' ' | '.' | ',' | ':' | ';' | '\'' | '|' => 0.42,
        'm' | 'w' | 'M' | 'W' | '@' | '%' | '…' | '—' => 1.0,
        // Square letters of some scripts, and emoji, are a little wider than the font size.
        '\u{1100}'.. => 1.05,
        c if c.is_uppercase() => 0.75,
        _ => 0.64,
    }
}

/// Shortens a text to fit in `width` SVG units.
pub(super) fn fitting(text: &str, width: u32) -> String {
    let shown = label(text, TEXT_CHARS_MAX);
    if text_width(&shown) <= width {
        return shown;
    }

    let most = f64::from(width) / f64::from(TEXT_SIZE) - letter_width(ELLIPSIS);
    let mut cut = String::new();
    let mut so_far = 0.0;
    for c in shown.chars() {
        so_far += letter_width(c);
        if so_far > most {
            break;
        }
        cut.push(c);
    }
    cut.push(ELLIPSIS);
    cut
}
