//! Sizes of the training, validation and test sides of the split, and items that occur on several sides.

use wavemill_pages::{Cell, Section, Table, count, fraction};
use wavemill_schemas::sides::{SIDES, side_meant};
use wavemill_sql::SqlError;

use super::answers::Answers;
use crate::quote::{identifier, literal};

/// Name of the column with the hash of a clip's audio. Pictures have no such hash.
const AUDIO_COLUMN: &str = "audio_blake3";

/// Maximum number of pairs of sides per item, of which each side with another one makes two.
const PAIRS_MAX: usize = 60;

/// Columns whose values should not occur on two sides of the split, each with a plural noun for its values.
const SHARED: [(&str, &str); 4] = [
    ("clip_key", "clips"),
    (AUDIO_COLUMN, "identical recordings"),
    ("artist_id", "artists"),
    ("album_id", "albums"),
];

pub(super) fn section(answers: &Answers<'_>) -> Result<Section, SqlError> {
    let mut section = Section::new("Sides and data leakage");
    let Some(rows) = answers.rows_table() else {
        return Ok(section);
    };

    let spec = &answers.subject.manifest.recipe.split;
    section.add_text(format!(
        "The recipe splits the data by the rule “{}” with seed {}. A model that is tested on data it was trained on \
         scores too high, so nothing should be both on the test side and on another side.",
        spec.rule.name(),
        spec.seed
    ));
    let sides = sides_of(answers, &rows)?;
    section.add_table(sizes(&sides));

    let compared = Compared::new(&sides);
    if let Some(problem) = compared.problem(&sides) {
        section.add_warning(problem);
    }

    let mut found = Vec::new();
    let manifest = &answers.subject.manifest;
    for (column, what) in SHARED {
        if column == AUDIO_COLUMN && manifest.recipe.catalog.dataset.is_of_pictures() {
            continue;
        }
        found.push(Leak::query(answers, &rows, column, what, &compared)?);
    }
    if manifest.files_of("near_copies").next().is_some() {
        let rows = format!(
            "(SELECT f.*, n.group_key FROM {rows} f
              LEFT JOIN (SELECT DISTINCT clip_key, group_key FROM near_copies) n ON n.clip_key = f.clip_key)"
        );
        let leak = Leak::query(answers, &rows, "group_key", "near copies", &compared)?;
        found.push(leak);
    }

    let mut pairs = Table::new(
        "Clips that share an item with another side",
        &["item", "side", "clips", "other side"],
    );
    let mut leaking = Vec::new();
    for leak in &mut found {
        pairs.rows.append(&mut leak.pairs);
        if let Some(test_clips) = leak.test_clips.filter(|clips| *clips > 0) {
            leaking.push(format!("{} by {}", count(test_clips), leak.what));
        }
    }
    if !leaking.is_empty() {
        section.add_warning(format!(
            "Some of the {} test clips overlap with the training side: {}. This makes scores on the test side too high.",
            count(compared.test_clips),
            leaking.join(", ")
        ));
    }

    let share = |clips| Cell::Measure(fraction(clips, compared.test_clips));
    section.add_table(Table::of(
        "Overlap between sides",
        found,
        &[
            ("item", &|of| of.what.into()),
            ("distinct values", &|of| of.known.into()),
            // If no value is known, or there is no test side, nothing was compared, and 0 would be a false claim.
            ("on several sides", &|of| {
                (of.known > 0).then_some(of.on_several).into()
            }),
            ("test clips affected", &|of| of.test_clips.into()),
            ("share of test clips", &|of| {
                of.test_clips.map_or(Cell::None, share)
            }),
        ],
    ));
    section.add_table(pairs);
    Ok(section)
}

/// Sizes of one side of the split in a version.
struct SideSize {
    name: String,
    clips: u64,
    rows: u64,
    artists: u64,
}

/// Returns the sides of the split with their sizes, in the order training, validation, test, others.
fn sides_of(answers: &Answers<'_>, rows: &str) -> Result<Vec<SideSize>, SqlError> {
    let answer = answers.ask(&format!(
        "SELECT split, count(DISTINCT clip_key) AS clips, count(*) AS n, count(DISTINCT artist_id) AS artists
         FROM {rows} GROUP BY split ORDER BY split"
    ))?;
    let names = answer.texts("split")?;
    let clips = answer.counts("clips")?;
    let rows = answer.counts("n")?;
    let artists = answer.counts("artists")?;

    let mut sides = Vec::with_capacity(names.len());
    for (index, name) in names.into_iter().enumerate() {
        sides.push(SideSize {
            name: name.unwrap_or_default(),
            clips: clips[index],
            rows: rows[index],
            artists: artists[index],
        });
    }
    sides.sort_by_key(|side| place(&side.name));
    Ok(sides)
}

/// Returns the position of a side of the split in tables and charts: training, validation, test, and then any other.
pub(super) fn place(side: &str) -> usize {
    let places = SIDES
        .iter()
        .position(|known| side_meant(side) == Some(*known));
    places.unwrap_or(SIDES.len())
}

/// Builds a table with the numbers of clips, rows and artists on each side of the split.
fn sizes(sides: &[SideSize]) -> Table {
    let all: u64 = sides.iter().map(|side| side.clips).sum();
    Table::of(
        "Sides",
        sides,
        &[
            ("side", &|side| side.name.as_str().into()),
            ("clips", &|side| side.clips.into()),
            ("share", &|side| Cell::Measure(fraction(side.clips, all))),
            ("rows", &|side| side.rows.into()),
            ("artists", &|side| side.artists.into()),
        ],
    )
}

/// The sides of the split that are compared for leaks.
struct Compared<'a> {
    training: Vec<&'a str>,
    test: Vec<&'a str>,
    /// Number of clips on the test sides of the split.
    test_clips: u64,
}

impl<'a> Compared<'a> {
    fn new(sides: &'a [SideSize]) -> Self {
        let meant = |wanted| {
            let sides = sides.iter();
            sides.filter(move |side| side_meant(&side.name) == Some(wanted))
        };
        Self {
            training: meant("training").map(|side| side.name.as_str()).collect(),
            test: meant("test").map(|side| side.name.as_str()).collect(),
            test_clips: meant("test").map(|side| side.clips).sum(),
        }
    }

    /// Explains why no leaks between sides can be computed. Returns `None` if they can be computed.
    fn problem(&self, sides: &[SideSize]) -> Option<String> {
        let missing = match (self.training.is_empty(), self.test.is_empty()) {
            (false, false) => return None,
            (true, false) => "training",
            (false, true) => "test",
            (true, true) => "training and no test",
        };
        let names: Vec<&str> = sides.iter().map(|side| side.name.as_str()).collect();
        Some(format!(
            "There is no {missing} side, so leakage into the test side cannot be measured. The sides are named {}. A training \
             side must be named training or train, and a test side test or eval.",
            names.join(", ")
        ))
    }
}

/// Returns the SQL condition that a row is on one of the sides `names`, which must not be empty.
pub(super) fn on_sides(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| literal(name)).collect();
    format!("split IN ({})", names.join(", "))
}

/// Overlap of the sides of the split in the values of one column.
struct Leak {
    /// Plural noun for the values.
    what: &'static str,
    /// Number of distinct values in the column.
    known: u64,
    /// Number of values that occur on more than one side of the split.
    on_several: u64,
    /// Number of clips on the test side whose value also occurs on the training side. `None` if nothing was compared.
    test_clips: Option<u64>,
    /// Rows of a table: sides with the number of their clips that share a value with another side, and that side.
    pairs: Vec<Vec<Cell>>,
}

impl Leak {
    fn query(
        answers: &Answers<'_>,
        rows: &str,
        column: &str,
        what: &'static str,
        compared: &Compared<'_>,
    ) -> Result<Self, SqlError> {
        let column = identifier(column);
        // Rows whose split is `none` belong to no side and are not compared.
        let answer = answers.ask(&format!(
            "SELECT count(*) AS known, count(*) FILTER (WHERE sides > 1) AS on_several FROM
             (SELECT count(DISTINCT split) AS sides FROM {rows}
              WHERE {column} IS NOT NULL AND split <> 'none' GROUP BY {column})"
        ))?;

        let known = answer.count("known")?;
        let is_compared = known > 0 && !compared.training.is_empty() && !compared.test.is_empty();
        let test_clips = if is_compared {
            let query = format!(
                "SELECT count(DISTINCT clip_key) AS n FROM {rows} WHERE {} AND {column} IN
                 (SELECT {column} FROM {rows} WHERE {} AND {column} IS NOT NULL)",
                on_sides(&compared.test),
                on_sides(&compared.training)
            );
            Some(answers.ask(&query)?.count("n")?)
        } else {
            None
        };

        let pairs = answers.table(&format!(
            "SELECT {} AS item, f.split AS side, count(DISTINCT f.clip_key) AS clips, o.split AS \"other side\"
             FROM {rows} f JOIN (SELECT DISTINCT {column}, split FROM {rows}) o ON o.{column} = f.{column}
             WHERE f.split <> o.split AND f.split <> 'none' AND o.split <> 'none'
             GROUP BY f.split, o.split ORDER BY f.split, o.split LIMIT {PAIRS_MAX}",
            literal(what)
        ))?;

        Ok(Self {
            what,
            known,
            on_several: answer.count("on_several")?,
            pairs: pairs.rows,
            test_clips,
        })
    }
}
