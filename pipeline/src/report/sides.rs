//! Training, validation and test: how large they are, and what is on several of them.

use wavemill_pages::{Cell, Part, Section, Table, count, fraction};
use wavemill_schemas::recipe::SplitRule;

use super::ReportError;
use super::answers::{Answers, quoted};

/// The hash of a clip's audio: pictures have none.
const AUDIO_COLUMN: &str = "audio_blake3";

/// What two sides should not share: the column, and a thing of it in words.
const SHARED: [(&str, &str); 4] = [
    ("clip_key", "clips"),
    (AUDIO_COLUMN, "equal recordings"),
    ("artist_id", "artists"),
    ("album_id", "albums"),
];

pub(super) fn section(answers: &Answers<'_>) -> Result<Section, ReportError> {
    let mut section = Section::new("Sides, and what leaks between them");
    let Some(rows) = answers.rows_table() else {
        return Ok(section);
    };

    let spec = &answers.subject.manifest.recipe.split;
    section.parts.push(Part::Text(format!(
        "The recipe's rule is “{}” with seed {}. A model that is tested on what it was trained on looks better than it is: \
         so nothing should be on the test side and on another one.",
        rule_name(spec.rule),
        spec.seed
    )));
    section.parts.push(Part::Table(sizes(answers, &rows)?));

    let mut leaks = Table::new(
        "On several sides",
        &[
            "what",
            "known",
            "on several sides",
            "test clips concerned",
            "of the test side",
        ],
    );
    let test_clips = number_of(
        answers,
        &format!("SELECT count(DISTINCT clip_key) AS n FROM {rows} WHERE split = 'test'"),
    )?;
    let mut leaking = Vec::new();
    let recipe = &answers.subject.manifest.recipe;
    for (column, what) in SHARED {
        if column == AUDIO_COLUMN && recipe.catalog.dataset.is_of_pictures() {
            continue;
        }
        let leak = Leak::of(answers, &rows, column)?;
        if leak.test_clips > 0 {
            leaking.push(format!("{} by {what}", count(leak.test_clips)));
        }
        // Where none is known, nothing was compared, and 0 would be a promise.
        let (on_several, concerned, share) = if leak.known == 0 {
            (Cell::None, Cell::None, Cell::None)
        } else {
            let share = fraction(leak.test_clips, test_clips);
            (
                leak.on_several.into(),
                leak.test_clips.into(),
                Cell::Measure(share),
            )
        };
        leaks.rows.push(vec![
            what.into(),
            leak.known.into(),
            on_several,
            concerned,
            share,
        ]);
    }
    if !leaking.is_empty() {
        section.parts.push(Part::Warning(format!(
            "Of {} test clips, some are known from the training side: {}. Scores on the test side are too good by that.",
            count(test_clips),
            leaking.join(", ")
        )));
    }
    section.parts.push(Part::Table(leaks));
    Ok(section)
}

fn rule_name(rule: SplitRule) -> String {
    // As it stands in a recipe.
    let name = serde_json::to_value(rule).unwrap_or_default();
    name.as_str().unwrap_or_default().to_owned()
}

/// Clips, rows and artists of each side.
fn sizes(answers: &Answers<'_>, rows: &str) -> Result<Table, ReportError> {
    let answer = answers.ask(&format!(
        "SELECT split, count(DISTINCT clip_key) AS clips, count(*) AS n, count(DISTINCT artist_id) AS artists,
                CASE split WHEN 'training' THEN 0 WHEN 'validation' THEN 1 WHEN 'test' THEN 2 ELSE 3 END AS place
         FROM {rows} GROUP BY split ORDER BY place, split"
    ))?;

    let mut table = Table::new("Sides", &["side", "clips", "of all", "rows", "artists"]);
    let clips = answer.counts("clips")?;
    let all: u64 = clips.iter().sum();

    let sides = answer.texts("split")?.into_iter().zip(clips);
    let sizes = answer
        .counts("n")?
        .into_iter()
        .zip(answer.counts("artists")?);

    for ((side, clips), (n, artists)) in sides.zip(sizes) {
        table.rows.push(vec![
            side.into(),
            clips.into(),
            Cell::Measure(fraction(clips, all)),
            n.into(),
            artists.into(),
        ]);
    }
    Ok(table)
}

/// What sides share of one kind.
struct Leak {
    /// How many there are.
    known: u64,
    /// How many of them are on more than one side.
    on_several: u64,
    /// Clips on the test side whose value is on the training side, too.
    test_clips: u64,
}

impl Leak {
    fn of(answers: &Answers<'_>, rows: &str, column: &str) -> Result<Self, ReportError> {
        let column = quoted(column);
        // Rows without a side are on none.
        let answer = answers.ask(&format!(
            "SELECT count(*) AS known, count(*) FILTER (WHERE sides > 1) AS on_several FROM
             (SELECT count(DISTINCT split) AS sides FROM {rows}
              WHERE {column} IS NOT NULL AND split <> 'none' GROUP BY {column})"
        ))?;

        let test_clips = number_of(
            answers,
            &format!(
                "SELECT count(DISTINCT clip_key) AS n FROM {rows} WHERE split = 'test' AND {column} IN
                 (SELECT {column} FROM {rows} WHERE split = 'training' AND {column} IS NOT NULL)"
            ),
        )?;

        Ok(Self {
            known: answer.counts("known")?.first().copied().unwrap_or(0),
            on_several: answer.counts("on_several")?.first().copied().unwrap_or(0),
            test_clips,
        })
    }
}

fn number_of(answers: &Answers<'_>, query: &str) -> Result<u64, ReportError> {
    let answer = answers.ask(query)?;
    Ok(answer.counts("n")?.first().copied().unwrap_or(0))
}
