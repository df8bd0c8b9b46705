//! Compares two runs on the same tracks: differences of scores, with intervals from resamples that both runs share.

use wavemill_pages::{Cell, Part, Section, Table};
use wavemill_schemas::exit::PlainError;
use wavemill_scores::metrics::{Paired, Predictions, paired};

use super::RunRecord;
use super::words;

pub(super) fn section(runs: &[RunRecord], targets: &[String]) -> Section {
    let mut section = Section::new("Differences");
    let Some((first, others)) = runs.split_first().filter(|(_, others)| !others.is_empty()) else {
        return section;
    };

    section.add_text(first.noun().in_text(
        "Both runs are resampled on the same tracks, so a difference is more precise than the separate scores. If its \
         interval contains 0, the difference is not significant.",
    ));
    let lacking = runs.iter().filter_map(RunRecord::lacks_predictions);
    section.parts.extend(lacking.map(Part::Text));
    for target in targets {
        for other in others {
            add_pair(&mut section, target, first, other);
        }
    }
    section
}

fn add_pair(section: &mut Section, target: &str, first: &RunRecord, other: &RunRecord) {
    let (Some(a), Some(b)) = (first.predictions_of(target), other.predictions_of(target)) else {
        return;
    };
    let names = format!("{target}: {} and {}", first.name, other.name);
    if first.predicted_split() != other.predicted_split() {
        section.add_text(format!(
            "{names} are not compared: their predictions are for different splits."
        ));
        return;
    }

    let split = first.predicted_split();
    match by_tracks(a, b, first.seed()) {
        // The error is shown on the page, because other pairs of runs may still be comparable.
        Err(error) => section.add_text(format!("{names} are not compared: {error}.")),
        Ok(None) => section.add_text(format!(
            "{names} are not compared: a single artist or {} cannot be resampled.",
            first.noun().one()
        )),
        Ok(Some(pair)) => {
            let caption = format!("{names}, on {split}");
            section.add_table(table(&caption, &pair, [&first.name, &other.name]));
            section.add_text(words::draws(&pair.draws, first.noun()));
        }
    }
}

/// Compares two runs per track, since they may divide clips into different segments.
fn by_tracks(a: &Predictions, b: &Predictions, seed: u64) -> Result<Option<Paired>, PlainError> {
    paired(&a.per_track_mean()?, &b.per_track_mean()?, seed)
}

fn table(caption: &str, pair: &Paired, [a, b]: [&str; 2]) -> Table {
    Table::of(
        caption,
        &pair.differences,
        &[
            ("metric", &|(figure, _)| figure.replace('_', " ").into()),
            (a, &|(_, of)| words::score(of.a)),
            (b, &|(_, of)| words::score(of.b)),
            ("difference", &|(_, of)| {
                Cell::Measure(signed(of.difference.value))
            }),
            ("95 % CI", &|(_, of)| {
                let [low, high] = [of.difference.low, of.difference.high].map(signed);
                Cell::Measure(format!("{low} to {high}"))
            }),
            // A difference whose interval contains 0 may be due to chance.
            ("", &|(_, of)| {
                let may_be_chance = of.difference.low <= 0.0 && of.difference.high >= 0.0;
                if may_be_chance { "not significant" } else { "" }.into()
            }),
        ],
    )
}

/// Formats a difference of scores with its sign and three decimals.
fn signed(value: f64) -> String {
    format!("{value:+.3}").replace('-', "−")
}
