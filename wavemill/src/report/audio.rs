//! Amounts of decoded audio, of audio lost to damage, and of silent and duplicate clips.

use wavemill_pages::{Cell, Part, Section, Table, seconds};

use super::ReportError;
use super::answers::{Answer, Answers};
use super::bins::{self, Values};

/// Maximum number of clips in the list of clips that lost the most audio.
const LOST_MAX: usize = 10;

pub(super) fn section(answers: &Answers<'_>) -> Result<Section, ReportError> {
    let mut section = Section::new("Audio");
    let dataset = answers.subject.manifest.recipe.catalog.dataset;
    if dataset.is_of_pictures() {
        return Ok(section);
    }
    let Some(rows) = answers.rows_table() else {
        return Ok(section);
    };
    // The subquery has one row per clip, because all feature rows of a clip contain the same decoding results.
    let clips = format!(
        "(SELECT clip_key, max(duration_s) AS duration_s, max(lost_s) AS lost_s, bool_and(silent) AS silent,
                 min(audio_blake3) AS audio_blake3 FROM {rows} GROUP BY clip_key)"
    );

    section.parts.push(Part::Table(totals(answers, &clips)?));
    let lost = most_lost(answers, &clips)?;
    if !lost.rows.is_empty() {
        section
            .parts
            .push(Part::Details("Clips with largest losses".to_owned(), lost));
    }
    let lengths = bins::histogram(
        answers,
        "Clips by decoded length",
        "Before padding. Longer audio is truncated to the recipe's duration_s.",
        &Values {
            value: "duration_s",
            rows: &clips,
            is_time: true,
            axis: "length (s)",
            counted: "clips",
        },
    )?;
    section
        .parts
        .extend(lengths.map(|chart| Part::Charts(vec![chart])));
    Ok(section)
}

fn totals(answers: &Answers<'_>, clips: &str) -> Result<Table, ReportError> {
    let answer = answers.ask(&format!(
        "SELECT count(*) AS clips, sum(CAST(duration_s AS DOUBLE)) AS decoded_s,
                count(*) FILTER (WHERE lost_s > 0) AS damaged, sum(CAST(lost_s AS DOUBLE)) AS lost_s,
                count(*) FILTER (WHERE silent) AS silent, count(audio_blake3) - count(DISTINCT audio_blake3) AS copies
         FROM {clips}"
    ))?;

    let mut table = Table::new("", &["decoded audio", ""]);
    table.rows = vec![
        vec!["clips with rows".into(), first_count(&answer, "clips")?],
        vec!["audio decoded".into(), first_time(&answer, "decoded_s")?],
        vec![
            "clips with audio lost to damage".into(),
            first_count(&answer, "damaged")?,
        ],
        vec!["total audio lost".into(), first_time(&answer, "lost_s")?],
        vec![
            "clips that contain only silence".into(),
            first_count(&answer, "silent")?,
        ],
        vec![
            "clips that duplicate the audio of another clip".into(),
            first_count(&answer, "copies")?,
        ],
    ];
    Ok(table)
}

/// Returns the count in a column of a query result with one row.
fn first_count(answer: &Answer, column: &str) -> Result<Cell, ReportError> {
    Ok(answer.counts(column)?.first().copied().unwrap_or(0).into())
}

/// Returns the time in a column of a query result with one row. A sum over no rows is null and counts as 0.
fn first_time(answer: &Answer, column: &str) -> Result<Cell, ReportError> {
    let span_s = answer.numbers(column)?.first().copied().flatten();
    Ok(Cell::Measure(seconds(span_s.unwrap_or(0.0))))
}

fn most_lost(answers: &Answers<'_>, clips: &str) -> Result<Table, ReportError> {
    let answer = answers.ask(&format!(
        "SELECT clip_key, lost_s, duration_s FROM {clips} WHERE lost_s > 0
         ORDER BY lost_s DESC, clip_key LIMIT {LOST_MAX}"
    ))?;
    let mut table = Table::new("", &["clip", "lost (s)", "decoded (s)"]);
    let spans = answer
        .numbers("lost_s")?
        .into_iter()
        .zip(answer.numbers("duration_s")?);
    for (key, (lost_s, duration_s)) in answer.texts("clip_key")?.into_iter().zip(spans) {
        table
            .rows
            .push(vec![key.into(), lost_s.into(), duration_s.into()]);
    }
    Ok(table)
}
