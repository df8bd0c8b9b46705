//! The misclassified tracks of a run, by descending confidence of the prediction.

use std::collections::HashSet;

use wavemill_pages::{Cell, Part, Section, Table, count, fraction};
use wavemill_scores::metrics::{Label, Noun, Predictions, Row, likeliest};

use super::RunRecord;
use super::run_record::PREDICTIONS;
use super::titles::Titles;
use super::words;

/// Maximum number of misclassified tracks shown per run and target. A longer list can be queried with SQL.
const MISTAKES_MAX: usize = 100;

/// A track for which the wrong class was predicted.
struct Mistake<'a> {
    row: Row<'a>,
    truth: usize,
    guess: usize,
}

pub(super) fn section(runs: &[RunRecord], targets: &[String]) -> Section {
    let noun = runs.first().map(RunRecord::noun).unwrap_or_default();
    let mut section = Section::new(&noun.in_text("Misclassified tracks"));
    for run in runs {
        if run.predictions.is_none() {
            section.add_text(run.lacks("--predictions", PREDICTIONS));
        }
        for target in targets {
            // Targets with several labels per row are skipped, because a prediction may be partly right.
            let single = run.predictions_of(target).filter(|of| !of.is_multi());
            if let Some(predictions) = single {
                add_run(&mut section, run, predictions, runs.len() > 1);
            }
        }
    }
    section
}

fn add_run(section: &mut Section, run: &RunRecord, predictions: &Predictions, is_folded: bool) {
    let noun = run.noun();
    let name = format!(
        "{}, {} on {}",
        run.name,
        predictions.target(),
        run.predicted_side()
    );
    // All rows of a track have the same label, so mistakes are listed per track.
    let tracks = match predictions.per_track_mean() {
        Ok(tracks) => tracks,
        Err(error) => {
            section.add_text(format!(
                "{name}: the predictions cannot be combined per {}: {error}.",
                noun.one()
            ));
            return;
        }
    };

    let n_labelled = tracks.labelled().count() as u64;
    let mistakes = mistakes_of(&tracks);
    let n_wrong = mistakes.len() as u64;
    let mut words = format!(
        "{name}: {} of {} {} ({}) were misclassified.",
        count(n_wrong),
        count(n_labelled),
        noun.many(),
        fraction(n_wrong, n_labelled)
    );
    if mistakes.len() > MISTAKES_MAX {
        words += &format!(
            " The {MISTAKES_MAX} with the highest confidence are shown; docs/trainer.md contains a query for all of \
             them."
        );
    }
    section.add_text(words);
    if mistakes.is_empty() {
        return;
    }

    let shown = &mistakes[..mistakes.len().min(MISTAKES_MAX)];
    let ids: HashSet<i64> = shown.iter().map(|mistake| mistake.row.track_id).collect();
    let manifest = run
        .predictions
        .as_ref()
        .map(|of| of.about.manifest.as_str());
    let titles = Titles::read(run.store.as_ref(), manifest.unwrap_or_default(), &ids);
    let table = table(shown, tracks.classes(), &titles, noun);
    section.parts.push(if is_folded {
        Part::Details(
            format!("{} of {name}", noun.in_text("Misclassified tracks")),
            table,
        )
    } else {
        Part::Table(table)
    });
    section.parts.extend(titles.missing.map(Part::Text));
}

/// Returns the misclassified tracks in descending order of confidence. Tracks with equal confidence stay in the order
/// of `tracks`.
fn mistakes_of(tracks: &Predictions) -> Vec<Mistake<'_>> {
    let mut mistakes = Vec::new();
    for row in tracks.labelled() {
        let Label::Class(truth) = row.label else {
            continue;
        };
        let guess = likeliest(row.probabilities);
        if guess != truth {
            mistakes.push(Mistake { row, truth, guess });
        }
    }
    mistakes.sort_by(|a, b| b.sure().total_cmp(&a.sure()));
    mistakes
}

impl Mistake<'_> {
    /// Returns the confidence, which is the probability of the predicted class.
    fn sure(&self) -> f32 {
        self.row.probabilities[self.guess]
    }
}

fn table(mistakes: &[Mistake<'_>], classes: &[String], titles: &Titles, noun: Noun) -> Table {
    // Omit the columns of titles and artists if they are not available.
    let has_titles = titles.missing.is_none();
    let mut head = vec![
        noun.one(),
        "true class",
        "predicted class",
        "confidence",
        "probability of true class",
    ];
    if has_titles {
        head.extend(["title", "artist"]);
    }
    head.push("clip");
    let mut table = Table::new("", &head);

    for mistake in mistakes {
        let track_id = mistake.row.track_id;
        let of_truth = mistake.row.probabilities[mistake.truth];
        let mut cells = vec![
            // Track ids are shown without thousands separators.
            Cell::Text(track_id.to_string()),
            classes[mistake.truth].as_str().into(),
            classes[mistake.guess].as_str().into(),
            words::score(f64::from(mistake.sure())),
            words::score(f64::from(of_truth)),
        ];
        if has_titles {
            cells.extend(titles.get(track_id).map(Cell::from));
        }
        cells.push(mistake.row.clip_key.into());
        table.rows.push(cells);
    }
    table
}
