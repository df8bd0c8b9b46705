//! Formats the tables of an experiment as text for a terminal. The module `pages` shows the same tables.

use wavemill_schemas::text::shown;

use super::outcome::Outcome;
use super::sweep::TrialOutcome;

/// Widths of the columns of score tables.
const TRAIN_COLUMNS: usize = 20;
const FIGURE_COLUMNS: usize = 26;
const DOCUMENT_COLUMNS: usize = 12;
const SCORE_COLUMNS: usize = 26;

/// Heading above the trials of a sweep.
pub(super) const SWEEP_NOTE: &str =
    "best validation value of `train.select` in each trial (for loss, lower is better)";

/// Scores of a variant and target in three columns: the document's claim, and wavemill's scores under the document's
/// split and under the recipe's split.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ScoreTable {
    /// Title of the table, such as `variant base: genre (12 classes)`.
    pub title: String,
    /// Heading of wavemill's scores under the document's split.
    pub as_in_document: String,
    /// Heading of wavemill's scores under the recipe's split.
    pub recipe: String,
    /// Lines of the table, in the order of the training runs.
    pub lines: Vec<ScoreLine>,
    /// Notes about the leakage of the splits, the document's claims, and the changes by the command.
    pub notes: Vec<String>,
}

/// One line of a score table: one figure of a training run. A figure that does not exist is a dash.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ScoreLine {
    /// Name of the training run.
    pub train: String,
    /// Name of the figure, such as `accuracy, segments`.
    pub measure: String,
    /// Value that the document claims for the figure.
    pub document: String,
    /// Wavemill's figure under the document's split.
    pub as_in_document: String,
    /// Wavemill's figure under the recipe's split.
    pub recipe: String,
}

/// Formats all score tables of an outcome as text.
pub(super) fn text(outcome: &Outcome) -> String {
    let mut text = String::new();
    for table in outcome.tables() {
        text += &format!("\n{}, ", outcome.experiment);
        text += &table.text();
    }
    text + &sweep_text(&outcome.sweep)
}

impl ScoreTable {
    fn text(&self) -> String {
        let mut text = format!("{}\n", shown(&self.title));
        text += &format!(
            "{:<TRAIN_COLUMNS$}{:<FIGURE_COLUMNS$}{:>DOCUMENT_COLUMNS$}  {:<SCORE_COLUMNS$}{}\n",
            "", "", "document", self.as_in_document, self.recipe
        );

        let mut train_before = "";
        for line in &self.lines {
            // The name of a training run is shown only in the first of its lines.
            let is_first = train_before != line.train;
            let name = if is_first { line.train.as_str() } else { "" };
            train_before = &line.train;
            let row = format!(
                "{name:<TRAIN_COLUMNS$}{:<FIGURE_COLUMNS$}{:>DOCUMENT_COLUMNS$}  {:<SCORE_COLUMNS$}{}",
                line.measure, line.document, line.as_in_document, line.recipe
            );
            text += row.trim_end();
            text.push('\n');
        }

        for note in &self.notes {
            text += &format!("{}\n", shown(note));
        }
        text
    }
}

/// Formats a line for each trial of a sweep, in the order of the trials.
fn sweep_text(trials: &[TrialOutcome]) -> String {
    if trials.is_empty() {
        return String::new();
    }
    let mut text = format!("\nsweep: {SWEEP_NOTE}\n");
    for trial in trials {
        text += &format!(
            "{:>10}  {}\n",
            trial.format_best(),
            shown(&trial.format_sets())
        );
    }
    text
}
