//! Formatting of scores, shared by all sections of a report.

use wavemill_pages::Cell;
use wavemill_schemas::run::{Draws, Interval, Noun, Unit};

/// Formats a score with three decimals.
pub(super) fn score(value: f64) -> Cell {
    Cell::Measure(format!("{value:.3}"))
}

/// Formats a score, or a dash if `is_there` is false because the score is undefined.
pub(super) fn score_if(is_there: bool, value: f64) -> Cell {
    if is_there { score(value) } else { Cell::None }
}

/// Formats a score with its confidence interval, or without it if the interval is a single value.
pub(super) fn between(interval: &Interval) -> Cell {
    // Resamples of very few tracks have one value, which says nothing about other tracks.
    if interval.low == interval.high {
        return Cell::Measure(format!("{:.3}", interval.value));
    }
    Cell::Measure(format!(
        "{:.3} [{:.3}, {:.3}]",
        interval.value, interval.low, interval.high
    ))
}

/// Describes the resampling from which the confidence intervals were computed, as a sentence. `noun` is the word for a
/// clip.
pub(super) fn draws(draws: &Draws, noun: Noun) -> String {
    let what = noun.in_text(match draws.unit {
        Unit::Artist => "artists, each with all of their tracks",
        Unit::Track => "tracks, because no artist is known",
    });
    let mut message = format!(
        "Brackets contain 95 % bootstrap confidence intervals: {} resamples of {} {what}.",
        draws.resamples, draws.units
    );
    if draws.has_small_classes() {
        message += &format!(" There are {}.", draws.small_classes(noun));
    }
    message
}
