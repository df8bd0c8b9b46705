//! `result.json` of an experiment, and its tables: what the document says, and our scores under its split and under the
//! honest one.

use serde::Serialize;
use wavemill_schemas::experiment::{Claim, ClaimMetric, Counted, Experiment, Side, SplitKind};
use wavemill_schemas::manifest::TargetEntry;
use wavemill_schemas::text::shown;
use wavemill_scores::metrics::{Evaluation, Level, Report};
use wavemill_scores::result::RunResult;

use super::sweep::TrialOutcome;
use super::work::Work;

/// Columns of the tables.
const TRAIN_COLUMNS: usize = 20;
const FIGURE_COLUMNS: usize = 26;
const DOCUMENT_COLUMNS: usize = 12;
const SCORE_COLUMNS: usize = 26;

/// All of an experiment's scores. Holds no time and no path outside its folder.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Outcome {
    /// Its name.
    pub experiment: String,
    /// What it reproduces.
    pub document: Option<String>,
    /// Whether the data was taken as it is (`--any-data`).
    pub any_data: bool,
    /// Clips of each store, if they were limited.
    pub limit: Option<u64>,
    /// Threads of every training.
    pub threads: u16,
    /// What was extracted.
    pub stores: Vec<StoreOutcome>,
    /// Each training in each variant under each split.
    pub results: Vec<CellOutcome>,
    /// The document's claims, each beside our figures.
    pub claims: Vec<ClaimOutcome>,
    /// The trials of a sweep, in order.
    pub sweep: Vec<TrialOutcome>,
}

/// A store.
#[derive(Clone, Debug, Serialize)]
pub(super) struct StoreOutcome {
    /// Its folder below `stores/`.
    pub name: String,
    /// What was changed in the recipe.
    pub sets: Vec<String>,
    /// Its plan.
    pub plan_id: String,
    /// blake3 of its manifest.
    pub manifest_hash: String,
    /// Clips with rows.
    pub clips: u64,
    /// Classes, and clips of each on every side.
    pub targets: Vec<TargetEntry>,
}

/// A training in a variant under a split.
#[derive(Clone, Debug, Serialize)]
pub(super) struct CellOutcome {
    /// As asked for.
    pub variant: String,
    /// The split.
    pub split: SplitKind,
    /// Name of the training.
    pub train: String,
    /// The run's folder below `runs/`.
    pub run: String,
    /// The store's folder below `stores/`.
    pub store: String,
    /// Its scores.
    pub result: RunResult,
}

/// A claim and our figures for it. A claim without a training has none.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ClaimOutcome {
    /// As in the experiment's file.
    #[serde(flatten)]
    pub claim: Claim,
    /// Under the document's split.
    pub as_in_document: Option<Figure>,
    /// Under the honest split.
    pub honest: Option<Figure>,
}

/// A score with its interval, where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Figure {
    /// Over the rows as they are.
    pub value: f64,
    /// 2.5 % of resamples lie below.
    pub low: Option<f64>,
    /// 2.5 % of resamples lie above.
    pub high: Option<f64>,
    /// Classes that were told apart.
    pub classes: u64,
}

/// What a line of a table asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Question {
    metric: ClaimMetric,
    side: Side,
    counted: Counted,
}

impl Outcome {
    /// Without any scores yet.
    pub(super) fn new(
        experiment: &Experiment,
        threads: u16,
        any_data: bool,
        limit: Option<u64>,
    ) -> Self {
        Self {
            experiment: experiment.name.clone(),
            document: experiment.document.clone(),
            any_data,
            limit,
            threads,
            stores: Vec::new(),
            results: Vec::new(),
            claims: Vec::new(),
            sweep: Vec::new(),
        }
    }

    /// Takes the scores of all runs, in the order of `work.runs`.
    pub(super) fn add(&mut self, experiment: &Experiment, work: &Work, results: &[RunResult]) {
        for cell in &work.cells {
            let run = &work.runs[cell.run];
            self.results.push(CellOutcome {
                variant: cell.variant.clone(),
                split: cell.split,
                train: cell.train.clone(),
                run: run.name.clone(),
                store: work.stores[run.store].name.clone(),
                result: results[cell.run].clone(),
            });
        }

        for claim in &experiment.claims {
            let outcome = ClaimOutcome {
                as_in_document: self.claimed(claim, SplitKind::AsInDocument),
                honest: self.claimed(claim, SplitKind::Honest),
                claim: claim.clone(),
            };
            self.claims.push(outcome);
        }
    }

    /// Our figure for a claim.
    fn claimed(&self, claim: &Claim, split: SplitKind) -> Option<Figure> {
        let train = claim.train.as_ref()?;
        let cell = self.cell(&claim.variant, train, split)?;
        let evaluation = evaluation(&cell.result, claim.side, claim.target.as_deref())?;
        figure(evaluation, Question::of(claim))
    }

    fn cell(&self, variant: &str, train: &str, split: SplitKind) -> Option<&CellOutcome> {
        self.results
            .iter()
            .find(|cell| cell.variant == variant && cell.train == train && cell.split == split)
    }

    /// For people: a table for each variant and target.
    pub(super) fn tables(&self) -> String {
        let mut text = String::new();
        let mut seen: Vec<(&str, &str)> = Vec::new();
        for cell in &self.results {
            for evaluation in &cell.result.test {
                let table = (cell.variant.as_str(), evaluation.target.as_str());
                if !seen.contains(&table) {
                    seen.push(table);
                    text += &self.table(table.0, table.1, evaluation.classes.len());
                }
            }
        }
        text + &self.sweep_table()
    }

    /// A line for each trial, in their order.
    fn sweep_table(&self) -> String {
        let mut text = String::new();
        for trial in &self.sweep {
            if text.is_empty() {
                text += "\nsweep: the best of what selects epochs on validation\n";
            }
            let best = trial
                .best
                .as_f64()
                .map_or("-".to_owned(), |best| format!("{best:.4}"));
            let set = trial.set.as_array().into_iter().flatten();
            let set: Vec<&str> = set.filter_map(serde_json::Value::as_str).collect();
            text += &format!("{best:>10}  {}\n", shown(&set.join(" ")));
        }
        text
    }

    fn table(&self, variant: &str, target: &str, n_classes: usize) -> String {
        let mut text = format!(
            "\n{}, variant {variant}: {} ({n_classes} classes)\n",
            self.experiment,
            shown(target)
        );
        text += &format!(
            "{:<TRAIN_COLUMNS$}{:<FIGURE_COLUMNS$}{:>DOCUMENT_COLUMNS$}  {:<SCORE_COLUMNS$}{}\n",
            "", "", "document", "ours, its split", "ours, honest split"
        );

        for train in self.trainings(variant) {
            let claims = self.claims_of(variant, target, train);
            let mut name = train;
            for question in self.questions(&claims) {
                let document = claims
                    .iter()
                    .find(|claim| Question::of(claim) == question)
                    .map_or("-".to_owned(), |claim| format!("{:.3}", claim.value));
                let ours = |split| {
                    self.cell(variant, train, split)
                        .and_then(|cell| evaluation(&cell.result, question.side, Some(target)))
                        .and_then(|found| figure(found, question))
                        .map_or("-".to_owned(), |figure| figure.words())
                };
                let line = format!(
                    "{name:<TRAIN_COLUMNS$}{:<FIGURE_COLUMNS$}{document:>DOCUMENT_COLUMNS$}  {:<SCORE_COLUMNS$}{}",
                    question.words(),
                    ours(SplitKind::AsInDocument),
                    ours(SplitKind::Honest)
                );
                text += line.trim_end();
                text.push('\n');
                // Its name stands before its first line alone.
                name = "";
            }
        }
        text + &self.notes(variant, target, n_classes)
    }

    /// What the splits leak, and what makes the document's figures answers to another question.
    fn notes(&self, variant: &str, target: &str, n_classes: usize) -> String {
        let mut text = String::new();
        let of = |split| {
            let mut cells = self.results.iter();
            cells.find(|cell| cell.variant == variant && cell.split == split)
        };
        let [document, honest] = [SplitKind::AsInDocument, SplitKind::Honest].map(of);
        let is_one_run = document.map(|cell| &cell.run) == honest.map(|cell| &cell.run);
        for (words, cell) in [("its split", document), ("honest split", honest)] {
            let found = cell.and_then(|cell| evaluation(&cell.result, Side::Test, Some(target)));
            let Some(found) = found else {
                continue;
            };
            let sentence = found.leaks.sentence();
            if is_one_run {
                text += &format!(
                    "both columns are one run, under the recipe's own split: {}\n",
                    shown(&sentence)
                );
                break;
            }
            text += &format!("{words}: {}\n", shown(&sentence));
        }

        let claims = self.claims.iter().map(|one| &one.claim);
        let mut told = Vec::new();
        for claim in claims.filter(|claim| is_about(claim, variant, target)) {
            let words = match claim.classes {
                Some(classes) if classes != n_classes as u64 => format!(
                    "document: {} ({classes} classes, here {n_classes}: another question); split: {}",
                    claim.says, claim.split
                ),
                _ => format!("document: {}; split: {}", claim.says, claim.split),
            };
            if !told.contains(&words) {
                text += &format!("{}\n", shown(&words));
                told.push(words);
            }
        }
        if self.any_data {
            text += "the data was taken as it is (--any-data): it need not be the document's\n";
        }
        text
    }

    /// Trainings of a variant, each once.
    fn trainings(&self, variant: &str) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for cell in self.results.iter().filter(|cell| cell.variant == variant) {
            if !names.contains(&cell.train.as_str()) {
                names.push(&cell.train);
            }
        }
        names
    }

    fn claims_of(&self, variant: &str, target: &str, train: &str) -> Vec<&Claim> {
        let claims = self.claims.iter().map(|one| &one.claim);
        claims
            .filter(|claim| is_about(claim, variant, target))
            .filter(|claim| claim.train.as_deref() == Some(train))
            .collect()
    }

    /// Two figures that every table has, and those that the document names.
    fn questions(&self, claims: &[&Claim]) -> Vec<Question> {
        let mut questions: Vec<Question> = [ClaimMetric::Accuracy, ClaimMetric::MacroF1]
            .map(|metric| Question {
                metric,
                side: Side::Test,
                counted: Counted::Tracks,
            })
            .to_vec();
        for question in claims.iter().map(|claim| Question::of(claim)) {
            if !questions.contains(&question) {
                questions.push(question);
            }
        }
        questions
    }
}

/// Claims without a target are about the first one, which all single-target experiments have.
fn is_about(claim: &Claim, variant: &str, target: &str) -> bool {
    let is_target = claim.target.as_deref().is_none_or(|name| name == target);
    claim.variant == variant && is_target
}

impl Question {
    const fn of(claim: &Claim) -> Self {
        Self {
            metric: claim.metric,
            side: claim.side,
            counted: claim.counted,
        }
    }

    /// `accuracy`, `accuracy, segments`, `loss, validation`.
    fn words(self) -> String {
        let mut words = self.metric.words().to_owned();
        if self.counted == Counted::Segments {
            words += ", segments";
        }
        if self.side == Side::Validation {
            words += ", validation";
        }
        words
    }
}

impl Figure {
    /// `0.850 [0.800, 0.900]`.
    fn words(&self) -> String {
        match (self.low, self.high) {
            (Some(low), Some(high)) => format!("{:.3} [{low:.3}, {high:.3}]", self.value),
            _ => format!("{:.3}", self.value),
        }
    }
}

/// The evaluation of a target on a side; without a name, of the first one.
fn evaluation<'a>(
    result: &'a RunResult,
    side: Side,
    target: Option<&str>,
) -> Option<&'a Evaluation> {
    let evaluations = match side {
        Side::Test => &result.test,
        Side::Validation => &result.validation,
    };
    match target {
        Some(target) => evaluations.iter().find(|found| found.target == target),
        None => evaluations.first(),
    }
}

/// The figure that is asked for; `None` where it does not exist.
fn figure(evaluation: &Evaluation, question: Question) -> Option<Figure> {
    let level = match question.counted {
        Counted::Tracks => evaluation.tracks(),
        Counted::Segments => &evaluation.segments,
    };
    let value = match question.metric {
        ClaimMetric::Loss => evaluation.loss?,
        metric => value_of(metric, level)?,
    };

    // Of the others no interval is drawn.
    let name = match question.metric {
        ClaimMetric::Accuracy => Some("accuracy"),
        ClaimMetric::BalancedAccuracy => Some("balanced_accuracy"),
        ClaimMetric::MacroF1 => Some("macro_f1"),
        ClaimMetric::Recall | ClaimMetric::Top3 | ClaimMetric::Loss => None,
    };
    let drawn = level.bootstrap.as_ref();
    let interval = name.and_then(|name| drawn?.intervals.get(name));
    Some(Figure {
        value,
        low: interval.map(|interval| interval.low),
        high: interval.map(|interval| interval.high),
        classes: evaluation.classes.len() as u64,
    })
}

fn value_of(metric: ClaimMetric, level: &Level) -> Option<f64> {
    let Report::Single(report) = &level.report else {
        return None;
    };
    match metric {
        ClaimMetric::Accuracy => Some(report.accuracy),
        ClaimMetric::BalancedAccuracy => Some(report.balanced_accuracy),
        ClaimMetric::MacroF1 => Some(report.macro_mean.f1),
        ClaimMetric::Recall => Some(report.macro_mean.recall),
        ClaimMetric::Top3 => report.top_3,
        ClaimMetric::Loss => None,
    }
}
