//! The misclassified tracks of a run, by descending confidence of the prediction.

use std::collections::HashSet;

use wavemill_pages::{Part, Section, Table, count, fraction};
use wavemill_schemas::run::Noun;
use wavemill_scores::metrics::{Label, Predictions, Row, likeliest};

use super::RunRecord;
use super::gallery;
use super::titles::Titles;
use super::words;

/// Maximum number of misclassified tracks shown per run and target. A longer list can be queried with SQL.
const MISTAKES_MAX: usize = 100;

/// A track for which the wrong class was predicted.
pub(super) struct Mistake<'a> {
    pub row: Row<'a>,
    pub truth: usize,
    pub guess: usize,
}

pub(super) fn section(runs: &[RunRecord], targets: &[String]) -> Section {
    let noun = runs.first().map(RunRecord::noun).unwrap_or_default();
    let mut section = Section::new(&noun.in_text("Misclassified tracks"));
    for run in runs {
        section
            .parts
            .extend(run.lacks_predictions().map(Part::Text));
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
    let name = run.caption(predictions.target());
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
    let mut message = format!(
        "{name}: {} of {} {} ({}) were misclassified.",
        count(n_wrong),
        count(n_labelled),
        noun.many(),
        fraction(n_wrong, n_labelled)
    );
    if mistakes.len() > MISTAKES_MAX {
        message += &format!(
            " The {MISTAKES_MAX} with the highest confidence are shown; docs/training.md contains a query for all of \
             them."
        );
    }
    section.add_text(message);
    if mistakes.is_empty() {
        return;
    }

    let shown = &mistakes[..mistakes.len().min(MISTAKES_MAX)];
    let ids: HashSet<i64> = shown.iter().map(|mistake| mistake.row.track_id).collect();
    let rows = run.predictions.as_ref();
    let store = run.open_store(rows.map_or("", |rows| &rows.about.manifest));
    let titles = Titles::read(&store, &ids);
    let table = table(shown, tracks.classes(), &titles, noun);
    if is_folded {
        let title = noun.in_text("Misclassified tracks");
        section.add_details(format!("{title} of {name}"), table);
    } else {
        section.add_table(table);
    }
    section.parts.extend(titles.missing.clone().map(Part::Text));

    // The pictures of several runs would make the page too long.
    if !is_folded {
        let feature = run.result.as_ref().map(|result| result.feature.as_str());
        gallery::add(section, store, feature, shown, |mistake| {
            caption(mistake, tracks.classes(), &titles)
        });
    }
}

/// Returns the title and the note of a picture of a misclassified track.
fn caption(mistake: &Mistake<'_>, classes: &[String], titles: &Titles) -> [String; 2] {
    let title = format!(
        "{}, predicted as {} with probability {:.3}",
        classes[mistake.truth],
        classes[mistake.guess],
        mistake.sure()
    );
    let mut note: Vec<String> = titles
        .get(mistake.row.track_id)
        .into_iter()
        .flatten()
        .collect();
    note.push(mistake.row.clip_key.to_owned());
    [title, note.join(" – ")]
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
    let name = |class: usize| classes[class].as_str().into();
    let title = |row: Row<'_>, which: usize| titles.get(row.track_id)[which].clone().into();
    let mut table = Table::of(
        "",
        mistakes,
        &[
            // Track ids are shown without thousands separators.
            (noun.one(), &|of| of.row.track_id.to_string().into()),
            ("true class", &|of| name(of.truth)),
            ("predicted class", &|of| name(of.guess)),
            ("confidence", &|of| words::score(of.sure().into())),
            ("probability of true class", &|of| {
                words::score(of.row.probabilities[of.truth].into())
            }),
            ("title", &|of| title(of.row, 0)),
            ("artist", &|of| title(of.row, 1)),
            ("clip", &|of| of.row.clip_key.into()),
        ],
    );
    // Omit the columns of titles and artists if they are not available.
    if titles.missing.is_some() {
        table.remove("title");
        table.remove("artist");
    }
    table
}
