//! Amounts of decoded audio, of audio lost to damage, and of silent and duplicate clips.

use wavemill_pages::{Cell, Section, Table, seconds};
use wavemill_sql::SqlError;

use super::answers::Answers;
use super::bins::{self, Values};

/// Maximum number of clips in the list of clips that lost the most audio.
const LOST_MAX: usize = 10;

pub(super) fn section(answers: &Answers<'_>) -> Result<Section, SqlError> {
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

    section.add_table(totals(answers, &clips)?);
    let lost = answers.table(&format!(
        "SELECT clip_key AS clip, lost_s AS \"lost (s)\", duration_s AS \"decoded (s)\" FROM {clips}
         WHERE lost_s > 0 ORDER BY lost_s DESC, clip_key LIMIT {LOST_MAX}"
    ))?;
    section.add_details("Clips with largest losses", lost);
    section.add_charts(bins::histogram(
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
    )?);
    Ok(section)
}

fn totals(answers: &Answers<'_>, clips: &str) -> Result<Table, SqlError> {
    let answer = answers.ask(&format!(
        "SELECT count(*) AS clips, sum(CAST(duration_s AS DOUBLE)) AS decoded_s,
                count(*) FILTER (WHERE lost_s > 0) AS damaged, sum(CAST(lost_s AS DOUBLE)) AS lost_s,
                count(*) FILTER (WHERE silent) AS silent, count(audio_blake3) - count(DISTINCT audio_blake3) AS copies
         FROM {clips}"
    ))?;
    let clips = |column| Ok(answer.count(column)?.into());
    // A sum over no rows is null and counts as 0.
    let time = |column| {
        Ok(Cell::Measure(seconds(
            answer.number(column)?.unwrap_or(0.0),
        )))
    };

    let totals: [(&str, Result<Cell, SqlError>); 6] = [
        ("clips with rows", clips("clips")),
        ("audio decoded", time("decoded_s")),
        ("clips with audio lost to damage", clips("damaged")),
        ("total audio lost", time("lost_s")),
        ("clips that contain only silence", clips("silent")),
        (
            "clips that duplicate the audio of another clip",
            clips("copies"),
        ),
    ];
    let mut table = Table::new("", &["decoded audio", ""]);
    for (name, total) in totals {
        table.rows.push(vec![name.into(), total?]);
    }
    Ok(table)
}
