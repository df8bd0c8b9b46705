//! Contents of `result.json` and of the tables: the document's claims, and wavemill's scores under the document's split
//! and under the recipe's split.

use serde::Serialize;
use wavemill_schemas::experiment::{Claim, ClaimMetric, Counted, Experiment, SplitKind};
use wavemill_schemas::manifest::TargetEntry;
use wavemill_schemas::run::{Evaluation, Leaks, Level, Report, RunResult};
use wavemill_schemas::split::Split;

use super::sweep::TrialOutcome;
use super::tables::{ScoreLine, ScoreTable};
use super::work::{Selection, Work};

/// All scores of an experiment. Contains no time and no path outside the experiment's folder.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Outcome {
    /// Name of the experiment.
    pub experiment: String,
    /// Document that the experiment reproduces.
    pub document: Option<String>,
    /// True if the data was used without comparing it with the published sha1 (`--any-data`).
    pub any_data: bool,
    /// Maximum number of clips in each store, if limited.
    pub limit: Option<u64>,
    /// Changes that the command makes to every recipe, as `key=value`.
    pub sets: Vec<String>,
    /// Changes that the command makes to every training configuration, as `key=value`.
    pub train_sets: Vec<String>,
    /// Number of threads of every training run.
    pub threads: u16,
    /// Stores that were extracted for the experiment.
    pub stores: Vec<StoreOutcome>,
    /// Result of each training run in each variant under each split.
    pub results: Vec<CellOutcome>,
    /// Claims of the document, each with wavemill's figures.
    pub claims: Vec<ClaimOutcome>,
    /// Trials of the sweep, in order.
    pub sweep: Vec<TrialOutcome>,
}

/// A store that was extracted for the experiment.
#[derive(Clone, Debug, Serialize)]
pub(super) struct StoreOutcome {
    /// Name of the store's folder in `stores/`.
    pub name: String,
    /// Changes to the recipe of this store, as `key=value`.
    pub sets: Vec<String>,
    /// Identifier of the plan by which the store was extracted.
    pub plan_id: String,
    /// blake3 of the store's manifest.
    pub manifest_hash: String,
    /// Number of clips that have feature rows.
    pub clips: u64,
    /// Classes of each target, and the number of clips of each class in every split.
    pub targets: Vec<TargetEntry>,
}

/// Result of one training run in a variant under a split.
#[derive(Clone, Debug, Serialize)]
pub(super) struct CellOutcome {
    /// Name of the variant, without its split.
    pub variant: String,
    /// Split by which the model was trained and tested.
    pub split: SplitKind,
    /// Name of the training run in the experiment's file.
    pub train: String,
    /// Name of the run's folder in `runs/`.
    pub run: String,
    /// Name of the store's folder in `stores/`.
    pub store: String,
    /// Scores of the training run.
    pub result: RunResult,
}

/// A claim and wavemill's figures for it, which are `None` if the model of the claim was not trained.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ClaimOutcome {
    /// The claim as in the experiment's file, except that `variant` names the variant of wavemill's figures, which may
    /// have another split.
    #[serde(flatten)]
    pub claim: Claim,
    /// Wavemill's figure under the document's split.
    pub as_in_document: Option<Figure>,
    /// Wavemill's figure under the recipe's split.
    pub recipe: Option<Figure>,
}

/// A score, with its bootstrap interval if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Figure {
    /// Score over the original test or validation rows, without resampling.
    pub value: f64,
    /// Lower limit of the interval: 2.5 % of the resamples are below it.
    pub low: Option<f64>,
    /// Upper limit of the interval: 2.5 % of the resamples are above it.
    pub high: Option<f64>,
    /// Number of classes of the predicted target.
    pub classes: u64,
}

/// The metric, the split and the counted unit of the figure in a table's line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Question {
    metric: ClaimMetric,
    split: Split,
    counted: Counted,
}

impl Outcome {
    /// Creates an outcome that contains no scores yet.
    pub(super) fn new(
        experiment: &Experiment,
        threads: u16,
        any_data: bool,
        selection: &Selection,
    ) -> Self {
        Self {
            experiment: experiment.name.clone(),
            document: experiment.document.clone(),
            any_data,
            limit: selection.limit,
            sets: selection.sets.clone(),
            train_sets: selection.train_sets.clone(),
            threads,
            ..Self::default()
        }
    }

    /// Adds the scores of all runs and wavemill's figures for the claims. `results` is in the order of `work.runs`.
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

        let variants = unique(self.results.iter().map(|cell| cell.variant.as_str()));
        let claims = experiment.claims_beside(&variants);
        for claim in claims {
            let outcome = ClaimOutcome {
                as_in_document: self.claimed(&claim, SplitKind::AsInDocument),
                recipe: self.claimed(&claim, SplitKind::Recipe),
                claim,
            };
            self.claims.push(outcome);
        }
    }

    /// Returns wavemill's figure for a claim under a split, or `None` if there is no such figure.
    fn claimed(&self, claim: &Claim, split: SplitKind) -> Option<Figure> {
        let cell = self.cell(&claim.variant, &claim.train, split)?;
        let evaluation = evaluation(&cell.result, claim.side, claim.target.as_deref())?;
        figure(evaluation, Question::from_claim(claim))
    }

    fn cell(&self, variant: &str, train: &str, split: SplitKind) -> Option<&CellOutcome> {
        self.results
            .iter()
            .find(|cell| cell.variant == variant && cell.train == train && cell.split == split)
    }

    /// Returns a table of scores for each variant and target.
    pub(super) fn tables(&self) -> Vec<ScoreTable> {
        let cells = self.results.iter();
        let targets = cells.flat_map(|cell| {
            let tests = cell.result.test.iter();
            tests.map(|test| (cell.variant.as_str(), test.target.as_str()))
        });
        let tables = unique(targets).into_iter();
        tables
            .map(|(variant, target)| self.table(variant, target))
            .collect()
    }

    fn table(&self, variant: &str, target: &str) -> ScoreTable {
        let mut cells = self.results.iter().filter(|cell| cell.variant == variant);
        let first = cells.find_map(|cell| evaluation(&cell.result, Split::Test, Some(target)));
        let n_classes = first.map_or(0, |first| first.classes.len());

        let of_variant = self.results.iter().filter(|cell| cell.variant == variant);
        let mut lines = Vec::new();
        for train in unique(of_variant.map(|cell| cell.train.as_str())) {
            let claims = self.claims_of(variant, target);
            let claims: Vec<&Claim> = claims.filter(|claim| claim.train == train).collect();
            for question in questions(&claims) {
                let claim = claims
                    .iter()
                    .find(|claim| Question::from_claim(claim) == question);
                let ours = |split| {
                    let cell = self.cell(variant, train, split)?;
                    let found = evaluation(&cell.result, question.split, Some(target))?;
                    figure(found, question)
                };
                lines.push(ScoreLine {
                    train: train.to_owned(),
                    measure: question.describe(),
                    document: claim.map_or("-".to_owned(), |claim| format!("{:.3}", claim.value)),
                    as_in_document: format_figure(ours(SplitKind::AsInDocument)),
                    recipe: format_figure(ours(SplitKind::Recipe)),
                });
            }
        }

        ScoreTable {
            title: format!("variant {variant}: {target} ({n_classes} classes)"),
            as_in_document: self.heading(variant, target, SplitKind::AsInDocument),
            recipe: self.heading(variant, target, SplitKind::Recipe),
            lines,
            notes: self.notes(variant, target, n_classes),
        }
    }

    /// Returns the notes below a table: the leakage of the splits, and the reasons why the document's figures may not
    /// be comparable with wavemill's figures.
    fn notes(&self, variant: &str, target: &str, n_classes: usize) -> Vec<String> {
        let mut notes = Vec::new();
        let runs = [SplitKind::AsInDocument, SplitKind::Recipe]
            .map(|split| self.first_cell(variant, split).map(|cell| &cell.run));
        let is_one_run = runs[0] == runs[1];
        for split in [SplitKind::AsInDocument, SplitKind::Recipe] {
            let Some(leaks) = self.leaks(variant, target, split) else {
                continue;
            };
            let message = if is_one_run {
                "both columns show the same run"
            } else {
                describe_split(split)
            };
            notes.push(format!("{message}: {}", leaks.sentence()));

            let known = leaks.shared.get("artist").map_or(0, |leak| leak.known);
            if known < leaks.tracks && leaks.rule.leak().is_none() {
                notes.push(format!(
                    "    the artist of {known} of {} {} tracks is known: the artists of the others may also occur in \
                     training",
                    leaks.tracks, leaks.split
                ));
            }
            if is_one_run {
                break;
            }
        }

        for claim in self.claims_of(variant, target) {
            let message = match claim.classes {
                Some(classes) if classes != n_classes as u64 => format!(
                    "document: {} ({classes} classes, here {n_classes}: not comparable); split: {}",
                    claim.says, claim.split
                ),
                _ => format!("document: {}; split: {}", claim.says, claim.split),
            };
            if !notes.contains(&message) {
                notes.push(message);
            }
        }
        for (what, sets) in [("recipe", &self.sets), ("training", &self.train_sets)] {
            if !sets.is_empty() {
                notes.push(format!("changed in the {what}: {}", sets.join(", ")));
            }
        }
        if let Some(limit) = self.limit {
            notes.push(format!("at most {limit} clips per store (--limit)"));
        }
        if self.any_data {
            let message =
                "the data was not checked (--any-data): it may differ from the document's";
            notes.push(message.to_owned());
        }
        notes
    }

    /// Returns a heading such as `ours: artist (honest)`. A split is called honest if its rule promises not to leak and
    /// no leak was found (see [`is_honest`]).
    fn heading(&self, variant: &str, target: &str, split: SplitKind) -> String {
        match self.leaks(variant, target, split) {
            Some(leaks) if is_honest(leaks) => format!("ours: {} (honest)", leaks.rule.name()),
            Some(leaks) => format!("ours: {}", leaks.rule.name()),
            None => "ours: not requested".to_owned(),
        }
    }

    /// Returns one result of a variant under a split. All such results were computed from the same rows.
    fn first_cell(&self, variant: &str, split: SplitKind) -> Option<&CellOutcome> {
        let mut cells = self.results.iter();
        cells.find(|cell| cell.variant == variant && cell.split == split)
    }

    fn leaks(&self, variant: &str, target: &str, split: SplitKind) -> Option<&Leaks> {
        let cell = self.first_cell(variant, split)?;
        let found = evaluation(&cell.result, Split::Test, Some(target))?;
        Some(&found.leaks)
    }

    /// Returns the claims that belong to the table of a variant and target. A claim without a target is about the
    /// variant's first target.
    fn claims_of(&self, variant: &str, target: &str) -> impl Iterator<Item = &Claim> {
        let mut cells = self.results.iter();
        let cell = cells.find(|cell| cell.variant == variant);
        let first = cell.and_then(|cell| cell.result.test.first());
        let is_first = first.is_some_and(|first| first.target == target);

        let claims = self.claims.iter().map(|one| &one.claim);
        claims.filter(move |claim| {
            let claimed = claim.target.as_deref();
            claim.variant == variant && claimed.map_or(is_first, |claimed| claimed == target)
        })
    }
}

pub(super) const fn describe_split(split: SplitKind) -> &'static str {
    match split {
        SplitKind::AsInDocument => "as in the document",
        SplitKind::Recipe => "as in the recipe",
    }
}

/// Returns the items without duplicates, in the order in which they first occur.
pub(super) fn unique<T: PartialEq>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut found = Vec::new();
    for item in items {
        if !found.contains(&item) {
            found.push(item);
        }
    }
    found
}

/// Returns the figures that a table shows: accuracy and macro F1 of test tracks, followed by the figures that the
/// document claims.
fn questions(claims: &[&Claim]) -> Vec<Question> {
    let always = [ClaimMetric::Accuracy, ClaimMetric::MacroF1].map(|metric| Question {
        metric,
        split: Split::Test,
        counted: Counted::Tracks,
    });
    let claimed = claims.iter().map(|claim| Question::from_claim(claim));
    unique(always.into_iter().chain(claimed))
}

/// Reports whether test scores are known to be those of new music: no track, recording or artist leaks into the test.
fn is_honest(leaks: &Leaks) -> bool {
    let artists = leaks.shared.get("artist").map_or(0, |leak| leak.known);
    let is_clean = |kind: &str| leaks.shared.get(kind).is_some_and(|leak| leak.tracks == 0);
    leaks.rule.leak().is_none()
        && ["track", "recording", "artist"].into_iter().all(is_clean)
        && artists == leaks.tracks
}

impl ClaimOutcome {
    /// Describes the claimed figure, such as `accuracy, segments`.
    pub(super) fn measure(&self) -> String {
        Question::from_claim(&self.claim).describe()
    }
}

impl Question {
    const fn from_claim(claim: &Claim) -> Self {
        Self {
            metric: claim.metric,
            split: claim.side,
            counted: claim.counted,
        }
    }

    /// Describes the figure as `accuracy`, `accuracy, segments` or `loss, validation`.
    fn describe(self) -> String {
        let mut name = self.metric.display_name().to_owned();
        if self.counted == Counted::Segments {
            name += ", segments";
        }
        if self.split == Split::Validation {
            name += ", validation";
        }
        name
    }
}

/// Formats one of wavemill's figures as `0.850 [0.800, 0.900]`; a dash if there is none.
pub(super) fn format_figure(figure: Option<Figure>) -> String {
    let Some(Figure {
        value, low, high, ..
    }) = figure
    else {
        return "-".to_owned();
    };
    match (low, high) {
        (Some(low), Some(high)) => format!("{value:.3} [{low:.3}, {high:.3}]"),
        _ => format!("{value:.3}"),
    }
}

/// Returns the evaluation of a target on a split; without a target, that of the first target.
fn evaluation<'a>(
    result: &'a RunResult,
    split: Split,
    target: Option<&str>,
) -> Option<&'a Evaluation> {
    let evaluations = match split {
        Split::Test => &result.test,
        Split::Validation => &result.validation,
        // Models are not scored on the rows that they learn from.
        Split::Training => return None,
    };
    match target {
        Some(target) => evaluations.iter().find(|found| found.target == target),
        None => evaluations.first(),
    }
}

/// Returns the requested figure, or `None` if the evaluation does not contain it.
fn figure(evaluation: &Evaluation, question: Question) -> Option<Figure> {
    let level = match question.counted {
        Counted::Tracks => evaluation.tracks(),
        Counted::Segments => &evaluation.segments,
    };
    let value = match question.metric {
        ClaimMetric::Loss => evaluation.loss?,
        metric => value_of(metric, level)?,
    };

    // Bootstrap intervals are computed only for these three metrics.
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use wavemill_schemas::experiment::ExperimentSource;
    use wavemill_schemas::recipe::SplitRule;
    use wavemill_schemas::run::{ClassReport, ComparedWith, Means, Noun};

    use super::super::tables::text;
    use super::*;

    /// Returns the scores of rows or of tracks, all with one value.
    fn level(score: f64) -> Level {
        let means = Means {
            precision: score,
            recall: score,
            f1: score,
        };
        let report = ClassReport {
            rows: 3,
            unlabelled: 0,
            tracks: 2,
            accuracy: score,
            balanced_accuracy: score,
            top_3: None,
            macro_mean: means,
            weighted_mean: means,
            macro_f1_supported: None,
            supported_classes: 0,
            classes: Vec::new(),
            confusion: Vec::new(),
        };
        Level {
            report: Report::Single(report),
            log_loss: None,
            bootstrap: None,
        }
    }

    /// Returns an evaluation of three segments of two tracks; two segments and both tracks are classified correctly.
    fn evaluation_of_genre() -> Evaluation {
        Evaluation {
            target: "genre".to_owned(),
            classes: vec!["blues".to_owned(), "rock".to_owned()],
            class_set: String::new(),
            loss: None,
            segments: level(2.0 / 3.0),
            tracks_mean: Some(level(1.0)),
            tracks_majority: Some(level(1.0)),
            leaks: Leaks {
                rule: SplitRule::Column,
                promise: String::new(),
                noun: Noun::Track,
                split: Split::Test,
                tracks: 2,
                training_tracks: 0,
                compared_with: ComparedWith::Training,
                shared: BTreeMap::new(),
            },
        }
    }

    fn result() -> RunResult {
        RunResult {
            model: "genregenie-cnn".to_owned(),
            parameters: 1,
            start: "from scratch".to_owned(),
            feature: "picture".to_owned(),
            feature_id: String::new(),
            manifest_hash: String::new(),
            config_hash: String::new(),
            world_size: 1,
            batch_norm_per_rank: false,
            ended_by_sweep: false,
            epochs: 1,
            steps: 1,
            temperatures: Vec::new(),
            best_epoch: Some(0),
            training_rows: 3,
            damaged_rows: 0,
            warnings: Vec::new(),
            validation: vec![evaluation_of_genre()],
            test: vec![evaluation_of_genre()],
            test_asked: 1,
        }
    }

    /// Returns the outcome of `gtzan-segments` as if every run had the same scores.
    fn outcome(variants: &[&str]) -> Outcome {
        let source = ExperimentSource::find("gtzan-segments").expect("shipped");
        let selection = Selection {
            variants: variants.iter().map(|&name| name.to_owned()).collect(),
            ..Selection::default()
        };
        let work = Work::new(&source, &selection).expect("sound");
        let results = vec![result(); work.runs.len()];

        let mut outcome = Outcome::new(&source.experiment, 1, true, &selection);
        outcome.add(&source.experiment, &work, &results);
        outcome
    }

    #[test]
    fn the_documents_figures_stand_beside_a_variant_with_another_split() {
        for (variant, figures) in [
            ("base", "0.740  0.667"),
            ("fault-filtered", "0.740  0.667"),
            ("stretched", "0.920  0.667"),
            ("stretched+fault-filtered", "0.920  0.667"),
            ("fault-filtered+stretched", "0.920  0.667"),
        ] {
            let tables = text(&outcome(&[variant]));
            let mut lines = tables.lines();
            let line = lines.find(|line| line.contains("accuracy, segments"));
            let line = line.expect("a line with a claim");
            assert!(line.contains(figures), "{variant}: {line}");
        }

        // The variant `plain` has another feature and so another model, about which the document claims nothing.
        let tables = text(&outcome(&["plain"]));
        assert!(!tables.contains("accuracy, segments"), "{tables}");
    }

    #[test]
    fn result_json_names_the_variant_whose_figures_stand_beside_a_claim() {
        let claims = outcome(&["base", "fault-filtered"]).claims;

        let mut accuracies = Vec::new();
        for ClaimOutcome { claim, recipe, .. } in &claims {
            if claim.metric == ClaimMetric::Accuracy {
                accuracies.push((claim.variant.as_str(), recipe.is_some()));
            }
        }

        // A claim about a model that was not trained is listed as well.
        let wanted = [
            ("base", true),
            ("fault-filtered", true),
            ("stretched", false),
        ];
        assert_eq!(accuracies, wanted);
    }
}
