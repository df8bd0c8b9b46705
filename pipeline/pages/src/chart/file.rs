//! Charts as standalone SVG files for papers and slides: with title and legend, and with colours of their own.

use maud::{Markup, PreEscaped, html};

use super::Chart;
use super::svg::{Ink, TEXT_SIZE, text_width};
use crate::text::{Shown, TEXT_CHARS_MAX};

/// CSS class numbers with their colours in light and in dark mode; the same as in style.css.
const COLOURS: [(u8, &str, &str); 15] = [
    (0, "#1d2126", "#e6e9ec"),
    (1, "#5d6570", "#a0a8b2"),
    (2, "#dfe2e6", "#33393f"),
    (10, "#2f6fb0", "#6aa9e8"),
    (11, "#d97b24", "#f0a45a"),
    (12, "#20887b", "#56c7b8"),
    (13, "#a63d6f", "#e089b4"),
    (14, "#777e88", "#a5abb3"),
    (15, "#a08a12", "#d6c450"),
    (16, "#6a4fb3", "#a996ee"),
    (17, "#b3372f", "#f08a80"),
    (18, "#4f8a2b", "#9bd06f"),
    (19, "#1b8fb5", "#68cdec"),
    (20, "#8a5a33", "#c79a70"),
    (21, "#c457b9", "#f0a3e8"),
];
/// The background colour in light and in dark mode.
const PAPER: [&str; 2] = ["#fff", "#1c2024"];

/// Text in an SVG file that identifies it as a chart written by this program.
const MAKER: &str = "wavemill chart";
/// Length of the prefix in which `Chart::is_ours` looks for the mark, in bytes.
const HEAD_BYTES: usize = 512;

/// Height of the title above the drawing, in SVG units.
const TITLE: u32 = 30;
/// Height of a legend line, in SVG units.
const KEY_STEP: u32 = 20;
/// Margin at the left and right of the legend, in SVG units.
const EDGE: u32 = 10;
/// Maximum number of characters in a title: as many as fit the width of a drawing.
const TITLE_CHARS_MAX: usize = 62;
/// Maximum number of characters of a name in the legend.
const KEY_CHARS_MAX: usize = 40;

impl Chart {
    /// Returns the chart as an SVG file that depends on no other file, or `None` if the chart is not a vector drawing.
    pub fn to_svg(&self) -> Option<String> {
        let plot = self.plot.drawing();
        let picture = plot.picture()?;
        let (width, drawn_height) = picture.size;
        let (legend, legend_height) = legend(&plot.series_names(), TITLE + drawn_height, width);
        let height = TITLE + drawn_height + legend_height;
        let title = Shown::new(&self.title, TITLE_CHARS_MAX).text;
        let about = Shown::new(&plot.summary(), TEXT_CHARS_MAX).text;
        let svg = html! {
            svg xmlns="http://www.w3.org/2000/svg" width=(width) height=(height) role="img"
                aria-labelledby="title about" viewBox={ "0 0 " (width) " " (height) } {
                metadata { (MAKER) }
                title id="title" { (title) }
                desc id="about" { (about) }
                style { (PreEscaped(style())) }
                rect.paper width="100%" height="100%" {}
                text.f.k0 x=(EDGE) y="20" font-size="15" font-weight="600" { (title) }
                g transform={ "translate(0," (TITLE) ")" } { (PreEscaped(picture.marks)) }
                (legend)
            }
        };
        Some(svg.into_string() + "\n")
    }

    /// Reports whether a file that begins with `bytes` is a chart written by this program, which a new chart may
    /// replace.
    pub fn is_ours(bytes: &[u8]) -> bool {
        let head = &bytes[..bytes.len().min(HEAD_BYTES)];
        let mark = format!("<metadata>{MAKER}</metadata>");
        head.starts_with(b"<svg ") && head.windows(mark.len()).any(|part| part == mark.as_bytes())
    }
}

/// Returns the names of several series below `top`, as many per line as fit in `width`, and the height of this legend.
fn legend(names: &[&str], top: u32, width: u32) -> (Markup, u32) {
    if names.len() < 2 {
        return (html! {}, 0);
    }

    let mut keys = Vec::new();
    let mut left = EDGE;
    let mut line = 0;
    for (series, name) in names.iter().enumerate() {
        let name = Shown::new(name, KEY_CHARS_MAX).text;
        let room = TEXT_SIZE + 6 + text_width(&name) + 14;
        if left > EDGE && left + room > width {
            left = EDGE;
            line += 1;
        }
        let y = top + 4 + line * KEY_STEP;
        keys.push(html! {
            rect class={ "f k" (Ink::Series(series).code()) } x=(left) y=(y) width=(TEXT_SIZE) height=(TEXT_SIZE) {}
            text.f.k0 x=(left + TEXT_SIZE + 6) y=(y + TEXT_SIZE - 2) font-size=(TEXT_SIZE) { (name) }
        });
        left += room;
    }
    (
        html! { @for key in keys { (key) } },
        (line + 1) * KEY_STEP + 8,
    )
}

/// Returns the style sheet. It uses no CSS variables because drawing programs do not support them.
fn style() -> String {
    let mut style =
        "svg{font-family:system-ui,sans-serif}.l{fill:none;stroke-linejoin:round}".to_owned();
    let mut dark = String::new();
    for (code, light, other) in COLOURS {
        style += &format!(".f.k{code}{{fill:{light}}}.l.k{code}{{stroke:{light}}}");
        dark += &format!(".f.k{code}{{fill:{other}}}.l.k{code}{{stroke:{other}}}");
    }
    let [paper, dark_paper] = PAPER;
    style += &format!(".paper{{fill:{paper}}}");
    style += &format!("@media(prefers-color-scheme:dark){{.paper{{fill:{dark_paper}}}{dark}}}");
    style
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_those_of_the_page() {
        let page = include_str!("../style.css");

        for (code, light, dark) in COLOURS {
            let name = match code {
                0 => "text".to_owned(),
                1 => "muted".to_owned(),
                2 => "line".to_owned(),
                series => format!("s{}", series - 10),
            };

            for colour in [light, dark] {
                assert!(
                    page.contains(&format!("--{name}:{colour}")),
                    "{name}: {colour}"
                );
            }
        }
    }
}
