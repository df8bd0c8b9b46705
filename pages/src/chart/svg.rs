//! A plotters backend that writes SVG whose colours are classes of the page's style.
//!
//! The SVG backend of plotters writes fixed colours, which would not change in dark mode. Here a colour is a number
//! that names a class ([`Ink`]).

use std::convert::Infallible;
use std::fmt::Write;

use maud::{Escaper, Markup, PreEscaped, html};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters_backend::{
    BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingErrorKind, FontTransform,
};

use crate::text::{ELLIPSIS, TEXT_CHARS_MAX, label};

/// Width of a drawing, in SVG units. A drawing is scaled to the space available, which is about this wide on a phone.
pub(super) const WIDTH: u32 = 480;

/// Font size, in SVG units.
pub(super) const TEXT_SIZE: i32 = 13;

/// Average width of a letter relative to the font size. Browsers choose the font, so this is an estimate for the
/// layout.
const LETTER_WIDTH: f64 = 0.56;

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

    /// Returns the colour in a form that plotters passes through unchanged: the class number is its red part.
    pub(super) fn colour(self) -> RGBAColor {
        let alpha = match self {
            Self::Faint(_) => 0.25,
            Self::Share(share) => SHARE_ALPHA_MAX * share.clamp(0.0, 1.0),
            _ => 1.0,
        };
        RGBAColor(self.code(), 0, 0, alpha)
    }
}

/// A plotters drawing area of fixed size.
pub(super) type Area<'a> = DrawingArea<Svg<'a>, Shift>;

/// The reason that a chart could not be drawn: no axis can represent its numbers.
pub(super) type DrawError = DrawingAreaErrorKind<Infallible>;

/// A drawing for a page or for a standalone file.
#[derive(Clone, Debug)]
pub(super) struct Picture {
    /// Width and height, in SVG units.
    pub size: (u32, u32),
    /// SVG elements, or `None` if no axis can represent the numbers.
    pub marks: Option<String>,
}

impl Picture {
    /// Creates a picture of the given size by calling `draw`.
    pub(super) fn new(
        size: (u32, u32),
        draw: impl FnOnce(&Area<'_>) -> Result<(), DrawError>,
    ) -> Self {
        let mut marks = String::new();
        let drawn = {
            let area = Svg {
                out: &mut marks,
                size,
            }
            .into_drawing_area();
            draw(&area)
        };
        Self {
            size,
            marks: drawn.is_ok().then_some(marks),
        }
    }

    /// Returns the HTML markup for a page, with the text `alt` for readers who cannot see the picture. A picture that
    /// could not be drawn is left out: the table below it contains the same numbers.
    pub(super) fn markup(&self, alt: &str) -> Markup {
        let (width, height) = self.size;

        // A drawing wider than [`WIDTH`] keeps its font size, and scrolls if the window is too narrow.
        let sizes = (width > WIDTH).then(|| {
            let least = width * 4 / 5;
            let most = width * 6 / 5;
            format!("min-width:{least}px;max-width:{most}px")
        });

        html! {
            @match &self.marks {
                None => p.note { "This chart cannot be drawn." },
                Some(marks) => {
                    div.drawing tabindex=[sizes.is_some().then_some("0")] {
                        svg role="img" aria-label=(alt) viewBox={ "0 0 " (width) " " (height) } style=[sizes] {
                            (PreEscaped(marks))
                        }
                    }
                }
            }
        }
    }
}

/// Returns the style of text in a chart, with the colour `ink` and anchored by `pos`.
pub(super) fn text_style(ink: Ink, pos: Pos) -> TextStyle<'static> {
    TextStyle {
        font: ("sans-serif", TEXT_SIZE).into_font(),
        color: ink.colour().to_backend_color(),
        pos,
    }
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

/// Separates the shown part of a text from the whole text. No shown text contains this character, because control
/// characters are replaced by spaces.
const WHOLE: char = '\0';

/// Joins the two parts of a text for [`Svg`], which plotters passes through unchanged: `shown` is visible, and `whole`
/// appears when the pointer rests on it.
pub(super) fn with_whole(shown: &str, whole: &str) -> String {
    let whole = label(whole, TEXT_CHARS_MAX);
    format!("{shown}{WHOLE}{whole}")
}

/// The plotters backend that writes SVG.
pub(super) struct Svg<'a> {
    out: &'a mut String,
    size: (u32, u32),
}

impl Svg<'_> {
    /// Opens an element without closing its tag, with the classes that set its colour.
    fn open(&mut self, element: &str, kind: &str, colour: BackendColor) {
        let (code, _, _) = colour.rgb;
        self.put(format_args!("<{element} class=\"{kind} k{code}\""));
        if colour.alpha < 1.0 {
            self.put(format_args!(" opacity=\"{:.2}\"", colour.alpha));
        }
    }

    fn put(&mut self, words: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.out.write_fmt(words);
    }

    fn path(&mut self, points: impl IntoIterator<Item = BackendCoord>) {
        self.put(format_args!(" d=\""));
        for (place, (x, y)) in points.into_iter().enumerate() {
            let letter = if place == 0 { 'M' } else { 'L' };
            self.put(format_args!("{letter}{x} {y}"));
        }
    }
}

impl DrawingBackend for Svg<'_> {
    type ErrorType = Infallible;

    fn get_size(&self) -> (u32, u32) {
        self.size
    }

    fn ensure_prepared(&mut self) -> Result<(), DrawingErrorKind<Infallible>> {
        Ok(())
    }

    fn present(&mut self) -> Result<(), DrawingErrorKind<Infallible>> {
        Ok(())
    }

    fn draw_pixel(
        &mut self,
        (x, y): BackendCoord,
        colour: BackendColor,
    ) -> Result<(), DrawingErrorKind<Infallible>> {
        self.draw_rect((x, y), (x + 1, y + 1), &colour, true)
    }

    fn draw_line<S: BackendStyle>(
        &mut self,
        from: BackendCoord,
        to: BackendCoord,
        style: &S,
    ) -> Result<(), DrawingErrorKind<Infallible>> {
        self.draw_path([from, to], style)
    }

    fn draw_rect<S: BackendStyle>(
        &mut self,
        (left, top): BackendCoord,
        (right, bottom): BackendCoord,
        style: &S,
        fill: bool,
    ) -> Result<(), DrawingErrorKind<Infallible>> {
        self.open("rect", if fill { "f" } else { "l" }, style.color());
        let width = (right - left).max(0);
        let height = (bottom - top).max(0);
        self.put(format_args!(
            " x=\"{left}\" y=\"{top}\" width=\"{width}\" height=\"{height}\"/>"
        ));
        Ok(())
    }

    fn draw_path<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(
        &mut self,
        points: I,
        style: &S,
    ) -> Result<(), DrawingErrorKind<Infallible>> {
        self.open("path", "l", style.color());
        self.path(points);
        self.put(format_args!(
            "\" stroke-width=\"{}\"/>",
            style.stroke_width()
        ));
        Ok(())
    }

    fn draw_circle<S: BackendStyle>(
        &mut self,
        (x, y): BackendCoord,
        radius: u32,
        style: &S,
        fill: bool,
    ) -> Result<(), DrawingErrorKind<Infallible>> {
        self.open("circle", if fill { "f" } else { "l" }, style.color());
        self.put(format_args!(" cx=\"{x}\" cy=\"{y}\" r=\"{radius}\"/>"));
        Ok(())
    }

    fn fill_polygon<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(
        &mut self,
        points: I,
        style: &S,
    ) -> Result<(), DrawingErrorKind<Infallible>> {
        self.open("path", "f", style.color());
        self.path(points);
        self.put(format_args!("Z\"/>"));
        Ok(())
    }

    fn draw_text<S: BackendTextStyle>(
        &mut self,
        text: &str,
        style: &S,
        (x, y): BackendCoord,
    ) -> Result<(), DrawingErrorKind<Infallible>> {
        let anchor = match style.anchor().h_pos {
            HPos::Left => "start",
            HPos::Center => "middle",
            HPos::Right => "end",
        };
        // The vertical distance of the text's baseline from its anchor.
        let down = match style.anchor().v_pos {
            VPos::Top => ".8em",
            VPos::Center => ".35em",
            VPos::Bottom => "-.3em",
        };
        let turned = match style.transform() {
            FontTransform::None => None,
            FontTransform::Rotate90 => Some(90),
            FontTransform::Rotate180 => Some(180),
            FontTransform::Rotate270 => Some(270),
        };

        self.open("text", "f", style.color());
        self.put(format_args!(
            " x=\"{x}\" y=\"{y}\" dy=\"{down}\" text-anchor=\"{anchor}\" font-size=\"{}\"",
            style.size()
        ));
        if let Some(degrees) = turned {
            self.put(format_args!(" transform=\"rotate({degrees},{x},{y})\""));
        }
        self.put(format_args!(">"));
        let (shown, whole) = match text.split_once(WHOLE) {
            Some((shown, whole)) => (shown, Some(whole)),
            None => (text, None),
        };
        // `Escaper` escapes every text that is written to it.
        let _ = write!(Escaper::new(self.out), "{shown}");
        if let Some(whole) = whole {
            self.put(format_args!("<title>"));
            let _ = write!(Escaper::new(self.out), "{whole}");
            self.put(format_args!("</title>"));
        }
        self.put(format_args!("</text>"));
        Ok(())
    }

    fn estimate_text_size<S: BackendTextStyle>(
        &self,
        text: &str,
        style: &S,
    ) -> Result<(u32, u32), DrawingErrorKind<Infallible>> {
        let letters = text.chars().count() as f64;
        let width = (letters * style.size() * LETTER_WIDTH).ceil();
        Ok((width as u32, style.size().ceil() as u32))
    }
}
