//! A model as a picture: its description as an SVG file that needs nothing else.
//!
//! A box a stage, from top to bottom; branches lie side by side between their inputs and the stage that joins them. The
//! picture is laid out here, by the usual widths of letters, since a file that is only opened has no one to ask. Draws
//! what a description says, and knows no model.

use std::fmt::Write as _;

use super::describe::{Description, thousands};
use super::walk::{OperationKind, Stage};

/// Around everything.
const MARGIN: f64 = 24.0;
/// Between two boxes, one above another: room for an arrow.
const GAP: f64 = 30.0;
/// Where ways part or meet, an arrow has a corner.
const FORK_GAP: f64 = 46.0;
/// Between boxes side by side.
const ASIDE: f64 = 26.0;
/// Inside a box, at its left and right edge.
const PAD: f64 = 14.0;
/// Of a line of text in a box.
const LINE: f64 = 19.0;
/// A box's first baseline below its upper edge, and its lower edge below the last one.
const ABOVE: f64 = 22.0;
const BELOW: f64 = 12.0;
const NARROWEST: f64 = 150.0;
/// A box alone in its row may be wider than one of several.
const WIDEST_ALONE: f64 = 460.0;
const WIDEST_BRANCH: f64 = 330.0;
/// Of an arrow's head.
const HEAD: [f64; 2] = [4.5, 8.0];

/// Pixels of a letter, on average and rounded up, in DejaVu Sans, the widest of the usual fonts, at the sizes in [`STYLE`].
const LETTER: f64 = 7.0;
const BOLD_LETTER: f64 = 8.8;
const MONOSPACE_LETTER: f64 = 7.9;

/// Every rule begins with the drawing's own name (`%`), because a page may hold several drawings, and styles of a drawing
/// inside a page are those of the whole page.
const STYLE: &str = "\
% text{font:13px system-ui,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;fill:#1f2328}
% .title{font-size:20px;font-weight:600}
% .name{font-size:14px;font-weight:600}
% .shape{font-family:ui-monospace,'DejaVu Sans Mono',monospace;text-anchor:end}
% .note,% .about{fill:#59636e}
% .paper{fill:#fff}
% .box rect{fill:#f6f8fa;stroke:#818b98;stroke-width:1.2}
% .convolution rect{fill:#ddf4ff;stroke:#0969da}
% .recurrent rect{fill:#fbefff;stroke:#8250df}
% .dense rect{fill:#dafbe1;stroke:#1a7f37}
% .head rect{fill:#fff8c5;stroke:#9a6700}
% .input rect{fill:#fff;stroke-dasharray:5 4}
% .arrow{fill:none;stroke:#59636e;stroke-width:1.5}
% .tip{fill:#59636e}
@media (prefers-color-scheme:dark){
% text{fill:#e6edf3}
% .note,% .about{fill:#9198a1}
% .paper{fill:#0d1117}
% .box rect{fill:#161b22;stroke:#818b98}
% .convolution rect{fill:#0c2d4d;stroke:#4493f8}
% .recurrent rect{fill:#2b1a4a;stroke:#ab7df8}
% .dense rect{fill:#0f2f1a;stroke:#3fb950}
% .head rect{fill:#332a0a;stroke:#d29922}
% .input rect{fill:#0d1117}
% .arrow{stroke:#9198a1}
% .tip{fill:#9198a1}
}
";

/// A drawing of `model`.
pub(crate) fn svg(model: &Description) -> String {
    let picture = Picture::of(model);
    // Of letters, digits and hyphens, as architectures are named: fit for an id and for a rule of style.
    let id = format!("wavemill-{}", model.name);
    let [width, height] = picture.size;

    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" id=\"{id}\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" role=\"img\" aria-labelledby=\"{id}-title {id}-desc\">\n"
    );
    out += &format!(
        "<title id=\"{id}-title\">{}: architecture</title>\n<desc id=\"{id}-desc\">{}</desc>\n",
        escaped(model.name),
        escaped(&in_words(model))
    );
    let style = STYLE.replace('%', &format!("#{id}"));
    out += &format!("<style>\n{style}</style>\n");
    out += &format!("<rect class=\"paper\" width=\"{width}\" height=\"{height}\"/>\n");
    out += &picture.body;
    out + "</svg>\n"
}

/// What the drawing shows, for those who do not see it.
fn in_words(model: &Description) -> String {
    let mut words = format!(
        "{}. {} parameters.",
        model.about,
        thousands(model.parameters)
    );

    for input in &model.inputs {
        words += &format!(" Input {}: {}.", input.name, axes(&input.shape));
    }

    for stage in &model.stages {
        let branch = stage
            .branch
            .map_or_else(String::new, |branch| format!(" (branch {branch})"));
        let operations: Vec<String> = operations(stage);

        words += &format!(
            " Stage {}{branch}: {}; gives {}.",
            stage.name,
            operations.join(", then "),
            axes(&stage.shape)
        );
    }

    for (target, classes) in &model.heads {
        words += &format!(" Head of {target}: {classes} classes.");
    }
    words
}

/// A place of the picture, in pixels from its upper left corner.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    x: f64,
    y: f64,
}

/// What a box says, before it has a place.
#[derive(Clone, Debug)]
struct Card {
    /// Class of its style.
    class: &'static str,
    name: String,
    shape: String,
    /// Operations, before they are cut into lines.
    operations: Vec<String>,
    parameters: i64,
}

impl Card {
    fn of_stage(stage: &Stage) -> Self {
        Self {
            class: class_of(stage),
            name: stage.name.clone(),
            shape: axes(&stage.shape),
            operations: operations(stage),
            parameters: stage.parameters,
        }
    }

    /// The width at which every operation has a line, within limits.
    fn wanted_width(&self, widest: f64) -> f64 {
        let title = letters(&self.name) * BOLD_LETTER + letters(&self.shape) * MONOSPACE_LETTER;
        let mut width = title + 2.0 * PAD + 20.0;
        for operation in &self.operations {
            // With the arrow to the next one.
            width = width.max((letters(operation) + 2.0) * LETTER + 2.0 * PAD);
        }
        width.clamp(NARROWEST, widest)
    }

    /// Operations one after another, with an arrow between two, in lines of at most `width` pixels.
    fn lines(&self, width: f64) -> Vec<String> {
        let room = (width - 2.0 * PAD) / LETTER;
        let mut lines: Vec<String> = Vec::new();
        for (i, operation) in self.operations.iter().enumerate() {
            let mut words = operation.clone();
            if i + 1 < self.operations.len() {
                words += " →";
            }
            match lines.last_mut() {
                Some(line) if letters(line) + 1.0 + letters(&words) <= room => {
                    *line += &format!(" {words}");
                }
                // Where one operation alone is too long, it is cut at its commas and spaces.
                _ => lines.extend(cut(&words, room)),
            }
        }
        lines
    }

    fn height(&self, width: f64) -> f64 {
        let parameters = usize::from(self.parameters > 0);
        let lines = self.lines(width).len() + parameters;
        ABOVE + lines as f64 * LINE + BELOW
    }
}

/// Words in lines of at most `room` letters.
fn cut(words: &str, room: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words.split(' ') {
        match lines.last_mut() {
            Some(line) if letters(line) + 1.0 + letters(word) <= room => {
                *line += &format!(" {word}");
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Boxes of equal width below each other.
#[derive(Debug)]
struct Column {
    cards: Vec<Card>,
    width: f64,
    /// Index of the input that it begins at; of no use but for branches.
    input: usize,
}

impl Column {
    fn new(cards: Vec<Card>, widest: f64) -> Self {
        let wanted = cards.iter().map(|card| card.wanted_width(widest));
        Self {
            width: wanted.fold(NARROWEST, f64::max),
            cards,
            input: 0,
        }
    }
}

/// What is drawn so far.
#[derive(Debug)]
struct Picture {
    body: String,
    size: [f64; 2],
}

impl Picture {
    fn of(model: &Description) -> Self {
        let inputs: Vec<Card> = model
            .inputs
            .iter()
            .map(|input| Card {
                class: "input",
                name: input.name.to_owned(),
                shape: axes(&input.shape),
                operations: Vec::new(),
                parameters: 0,
            })
            .collect();
        let heads: Vec<Column> = model
            .heads
            .iter()
            .map(|(target, classes)| {
                let head = Card {
                    class: "head",
                    name: format!("head of {target}"),
                    shape: classes.to_string(),
                    operations: vec![format!("dense {classes} wide")],
                    parameters: model.head_parameters(*classes),
                };
                Column::new(vec![head], WIDEST_BRANCH)
            })
            .collect();
        let branches = branches(model, &inputs);
        let trunk = Column::new(of_branch(model, None), WIDEST_ALONE);

        let title = format!(
            "{} parameters, {} values before the heads",
            thousands(model.parameters),
            thousands(model.width)
        );
        let rows = [
            row_width(&widths_of(&branches)),
            row_width(&widths_of(&heads)),
            trunk.width,
            letters(&title) * LETTER,
        ];
        let inside = rows.into_iter().fold(0.0, f64::max);
        let mut picture = Self {
            body: String::new(),
            size: [inside + 2.0 * MARGIN, 0.0],
        };

        let y = picture.heading(model, &title);
        let (ends, y) = picture.branches(&branches, &inputs, y);
        let (ends, y) = picture.trunk(&trunk, ends, y);
        picture.heads(&heads, &ends, y);
        picture
    }

    /// Name, what it is, and how many parameters; the lower edge.
    fn heading(&mut self, model: &Description, numbers: &str) -> f64 {
        let x = MARGIN;
        let mut y = MARGIN + 16.0;
        self.text("title", Point { x, y }, model.name);

        let room = (self.size[0] - 2.0 * MARGIN) / LETTER;
        let mut lines = cut(model.about, room);
        lines.push(numbers.to_owned());
        y += 4.0;
        for line in lines {
            y += LINE;
            self.text("about", Point { x, y }, &line);
        }
        y + 18.0
    }

    /// Inputs, and below them the branches from each; where the ways end, and the lowest edge.
    fn branches(&mut self, branches: &[Column], inputs: &[Card], y: f64) -> (Vec<Point>, f64) {
        let centres = self.centres(&widths_of(branches));

        let mut ends = Vec::new();
        let mut lowest = y;
        for (number, input) in inputs.iter().enumerate() {
            let own: Vec<usize> = (0..branches.len())
                .filter(|&index| branches[index].input == number)
                .collect();
            let (Some(&first), Some(&last)) = (own.first(), own.last()) else {
                continue;
            };
            // Above the middle of all that begin at it.
            let centre = (centres[first] + centres[last]) / 2.0;
            let from = self.card(
                input,
                Point { x: centre, y },
                input.wanted_width(WIDEST_BRANCH),
            );
            lowest = lowest.max(from.y);

            // A branch without a stage leads from its input to the join.
            let gap = if own.len() > 1 { FORK_GAP } else { GAP };
            let (through, straight): (Vec<usize>, Vec<usize>) = own
                .into_iter()
                .partition(|&index| !branches[index].cards.is_empty());
            ends.extend(straight.iter().map(|_| from));
            let tops: Vec<Point> = through
                .iter()
                .map(|&index| Point {
                    x: centres[index],
                    y: from.y + gap,
                })
                .collect();
            self.connect(&[from], &tops);

            for (&index, &top) in through.iter().zip(&tops) {
                let end = self.column(&branches[index], top);
                lowest = lowest.max(end.y);
                ends.push(end);
            }
        }
        (ends, lowest)
    }

    /// The stages behind the join; where they end.
    fn trunk(&mut self, trunk: &Column, ends: Vec<Point>, lowest: f64) -> (Vec<Point>, f64) {
        if trunk.cards.is_empty() {
            return (ends, lowest);
        }
        let gap = if ends.len() > 1 { FORK_GAP } else { GAP };
        let top = Point {
            x: self.size[0] / 2.0,
            y: lowest + gap,
        };
        self.connect(&ends, &[top]);
        let end = self.column(trunk, top);
        (vec![end], end.y)
    }

    /// A box a target, and with it the picture's lower edge.
    fn heads(&mut self, heads: &[Column], ends: &[Point], lowest: f64) {
        let gap = if heads.len() > 1 || ends.len() > 1 {
            FORK_GAP
        } else {
            GAP
        };
        let tops: Vec<Point> = self
            .centres(&widths_of(heads))
            .into_iter()
            .map(|x| Point { x, y: lowest + gap })
            .collect();
        self.connect(ends, &tops);

        let mut bottom = lowest;
        for (head, &top) in heads.iter().zip(&tops) {
            bottom = bottom.max(self.column(head, top).y);
        }
        self.size[1] = bottom + MARGIN;
    }

    /// The middles of columns of `widths` side by side, in the middle of the picture.
    fn centres(&self, widths: &[f64]) -> Vec<f64> {
        let mut left = (self.size[0] - row_width(widths)) / 2.0;
        let mut centres = Vec::new();
        for width in widths {
            centres.push(left + width / 2.0);
            left += width + ASIDE;
        }
        centres
    }

    /// Boxes below each other, the first with the middle of its upper edge at `top`; the middle of the last lower edge.
    fn column(&mut self, column: &Column, top: Point) -> Point {
        let mut end = top;
        for (number, card) in column.cards.iter().enumerate() {
            if number > 0 {
                let next = Point {
                    y: end.y + GAP,
                    ..end
                };
                self.connect(&[end], &[next]);
                end = next;
            }
            end = self.card(card, end, column.width);
        }
        end
    }

    /// A box with the middle of its upper edge at `top`; the middle of its lower edge.
    fn card(&mut self, card: &Card, top: Point, width: f64) -> Point {
        let height = card.height(width);
        let left = top.x - width / 2.0;
        let _ = writeln!(
            self.body,
            "<g class=\"box {}\" data-name=\"{}\">\n<rect x=\"{left}\" y=\"{}\" width=\"{width}\" height=\"{height}\" \
             rx=\"7\"/>",
            card.class,
            escaped(&card.name),
            top.y
        );

        let mut at = Point {
            x: left + PAD,
            y: top.y + ABOVE,
        };
        self.text("name", at, &card.name);
        let right = Point {
            x: left + width - PAD,
            ..at
        };
        self.text("shape", right, &card.shape);
        for line in card.lines(width) {
            at.y += LINE;
            self.text("operation", at, &line);
        }
        if card.parameters > 0 {
            at.y += LINE;
            let words = format!("{} parameters", thousands(card.parameters));
            self.text("note", at, &words);
        }

        self.body += "</g>\n";
        Point {
            y: top.y + height,
            ..top
        }
    }

    /// Arrows from every place of `from` to every one of `to`, which lie at one height: straight down, or by a line
    /// across where there are several.
    fn connect(&mut self, from: &[Point], to: &[Point]) {
        let Some(target) = to.first() else {
            return;
        };
        let straight = match (from, to) {
            ([from], [to]) => (from.x - to.x).abs() < 0.01,
            _ => false,
        };

        let across = target.y - FORK_GAP / 2.0;
        for point in from {
            let end = if straight { target.y - HEAD[1] } else { across };
            self.line(*point, Point { x: point.x, y: end });
        }
        for point in to {
            if !straight {
                let start = Point {
                    x: point.x,
                    y: across,
                };
                let end = Point {
                    x: point.x,
                    y: point.y - HEAD[1],
                };
                self.line(start, end);
            }
            let [half, length] = HEAD;
            let _ = writeln!(
                self.body,
                "<path class=\"tip\" d=\"M{} {}l{} {}h{}z\"/>",
                point.x,
                point.y,
                -half,
                -length,
                2.0 * half
            );
        }
        if straight {
            return;
        }

        let places = from.iter().chain(to).map(|point| point.x);
        let left = places.clone().fold(f64::INFINITY, f64::min);
        let right = places.fold(f64::NEG_INFINITY, f64::max);
        self.line(
            Point { x: left, y: across },
            Point {
                x: right,
                y: across,
            },
        );
    }

    fn line(&mut self, from: Point, to: Point) {
        let _ = writeln!(
            self.body,
            "<path class=\"arrow\" d=\"M{} {}L{} {}\"/>",
            from.x, from.y, to.x, to.y
        );
    }

    fn text(&mut self, class: &str, at: Point, words: &str) {
        let _ = writeln!(
            self.body,
            "<text class=\"{class}\" x=\"{}\" y=\"{}\">{}</text>",
            at.x,
            at.y,
            escaped(words)
        );
    }
}

/// The branches in the order of their inputs, so that no two arrows cross. Without any, each input leads to the first
/// stage.
fn branches(model: &Description, inputs: &[Card]) -> Vec<Column> {
    let mut columns = Vec::new();
    for (input, card) in inputs.iter().enumerate() {
        let mut own = Vec::new();
        if model.branches.is_empty() {
            own.push(Column::new(Vec::new(), WIDEST_BRANCH));
        }

        for branch in &model.branches {
            if branch.input == card.name {
                own.push(Column::new(
                    of_branch(model, Some(branch.name)),
                    WIDEST_BRANCH,
                ));
            }
        }

        for column in own {
            columns.push(Column {
                input,
                // The input's box stands above it.
                width: column.width.max(card.wanted_width(WIDEST_BRANCH)),
                ..column
            });
        }
    }
    columns
}

/// The boxes of a branch, or of what lies outside of branches.
fn of_branch(model: &Description, branch: Option<&str>) -> Vec<Card> {
    let mut cards = Vec::new();
    for stage in &model.stages {
        if stage.branch == branch {
            cards.push(Card::of_stage(stage));
        }
    }
    cards
}

fn widths_of(columns: &[Column]) -> Vec<f64> {
    columns.iter().map(|column| column.width).collect()
}

fn row_width(widths: &[f64]) -> f64 {
    widths.iter().sum::<f64>() + ASIDE * widths.len().saturating_sub(1) as f64
}

/// The colour of a stage: that of the operation that learns.
fn class_of(stage: &Stage) -> &'static str {
    if has(stage, OperationKind::Convolution) {
        "convolution"
    } else if has(stage, OperationKind::Recurrent) {
        "recurrent"
    } else if has(stage, OperationKind::Dense) {
        "dense"
    } else {
        "other"
    }
}

fn has(stage: &Stage, kind: OperationKind) -> bool {
    stage.operations.iter().any(|one| one.kind == kind)
}

fn operations(stage: &Stage) -> Vec<String> {
    stage
        .operations
        .iter()
        .map(|one| format!("{} {}", one.name, one.settings).trim().to_owned())
        .collect()
}

fn axes(shape: &[i64]) -> String {
    let axes: Vec<String> = shape.iter().map(ToString::to_string).collect();
    axes.join(" × ")
}

/// Letters, as a factor of widths.
fn letters(words: &str) -> f64 {
    words.chars().count() as f64
}

/// Text as XML has it, also between quotes. Control characters, which XML 1.0 has no form for, become �.
fn escaped(words: &str) -> String {
    let mut out = String::with_capacity(words.len());
    for letter in words.chars() {
        match letter {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            '\n' | '\t' => out.push(' '),
            letter if letter.is_control() || matches!(letter, '\u{FFFE}' | '\u{FFFF}') => {
                out.push('\u{FFFD}');
            }
            letter => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests;
