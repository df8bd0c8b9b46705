//! The tables of an experiment as text for a terminal. A page shows the same ones (`pages`).

use wavemill_schemas::text::shown;

use super::outcome::{Figure, Outcome};
use super::sweep::TrialOutcome;

/// Columns of the tables.
const TRAIN_COLUMNS: usize = 20;
const FIGURE_COLUMNS: usize = 26;
const DOCUMENT_COLUMNS: usize = 12;
const SCORE_COLUMNS: usize = 26;

/// What stands above a sweep's trials.
pub(super) const SWEEP_WORDS: &str =
    "of each trial the best validation of `train.select` (loss: the lower the better)";

/// The scores of a variant and target, in three columns: the document's, ours under its split, and ours under the
/// recipe's.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ScoreTable {
    /// As asked for.
    pub variant: String,
    /// What is predicted.
    pub target: String,
    /// Classes that are told apart.
    pub n_classes: usize,
    /// Heading of our scores under the document's split.
    pub as_in_document: String,
    /// Heading of our scores under the recipe's split.
    pub recipe: String,
    /// In the order of trainings.
    pub lines: Vec<ScoreLine>,
    /// What the splits leak, what the document says, and what the command changed.
    pub notes: Vec<String>,
}

/// A figure of a training.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ScoreLine {
    /// Name of the training.
    pub train: String,
    /// Such as `accuracy, segments`.
    pub measure: String,
    /// What the document claims.
    pub document: Option<f64>,
    /// Under the document's split.
    pub as_in_document: Option<Figure>,
    /// Under the recipe's split.
    pub recipe: Option<Figure>,
}

impl ScoreLine {
    /// The document's figure as it is shown; a dash where it names none.
    pub(super) fn document_words(&self) -> String {
        self.document
            .map_or("-".to_owned(), |value| format!("{value:.3}"))
    }
}

/// One of our figures as it is shown; a dash where there is none.
pub(super) fn figure_words(figure: Option<&Figure>) -> String {
    figure.map_or("-".to_owned(), Figure::words)
}

/// All tables of an outcome.
pub(super) fn text(outcome: &Outcome) -> String {
    let mut text = String::new();
    for table in outcome.tables() {
        text += &format!("\n{}, ", outcome.experiment);
        text += &table.text();
    }
    text + &sweep_text(&outcome.sweep)
}

impl ScoreTable {
    /// `variant base: genre (12 classes)`.
    pub(super) fn title(&self) -> String {
        let Self {
            variant,
            target,
            n_classes,
            ..
        } = self;
        format!("variant {variant}: {target} ({n_classes} classes)")
    }

    fn text(&self) -> String {
        let mut text = format!("{}\n", shown(&self.title()));
        text += &format!(
            "{:<TRAIN_COLUMNS$}{:<FIGURE_COLUMNS$}{:>DOCUMENT_COLUMNS$}  {:<SCORE_COLUMNS$}{}\n",
            "", "", "document", self.as_in_document, self.recipe
        );

        let mut train_before = None;
        for line in &self.lines {
            // Its name stands before its first line alone.
            let is_first = train_before != Some(&line.train);
            let name = if is_first { line.train.as_str() } else { "" };
            train_before = Some(&line.train);
            let row = format!(
                "{name:<TRAIN_COLUMNS$}{:<FIGURE_COLUMNS$}{:>DOCUMENT_COLUMNS$}  {:<SCORE_COLUMNS$}{}",
                line.measure,
                line.document_words(),
                figure_words(line.as_in_document.as_ref()),
                figure_words(line.recipe.as_ref())
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

/// A line for each trial, in their order.
fn sweep_text(trials: &[TrialOutcome]) -> String {
    let mut text = String::new();
    for trial in trials {
        if text.is_empty() {
            text += &format!("\nsweep: {SWEEP_WORDS}\n");
        }
        let best = trial.best_value();
        let best = best.map_or("-".to_owned(), |best| format!("{best:.4}"));
        text += &format!("{best:>10}  {}\n", shown(&trial.set_words()));
    }
    text
}
