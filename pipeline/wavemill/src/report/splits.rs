//! Sizes of the training, validation and test splits, and items that occur in several splits.

use wavemill_pages::{Cell, Section, Table, count, fraction};
use wavemill_schemas::split::Split;
use wavemill_sql::SqlError;

use super::answers::Answers;
use crate::quote::{identifier, literal};

/// Name of the column with the hash of a clip's audio. Pictures have no such hash.
const AUDIO_COLUMN: &str = "audio_blake3";

/// Maximum number of pairs of splits per item, of which each split with another one makes two.
const PAIRS_MAX: usize = 60;

/// Columns whose values should not occur in two splits, each with a plural noun for its values.
const SHARED: [(&str, &str); 4] = [
    ("clip_key", "clips"),
    (AUDIO_COLUMN, "identical recordings"),
    ("artist_id", "artists"),
    ("album_id", "albums"),
];

pub(super) fn section(answers: &Answers<'_>) -> Result<Section, SqlError> {
    let mut section = Section::new("Splits and data leakage");
    let Some(rows) = answers.rows_table() else {
        return Ok(section);
    };

    let spec = &answers.subject.manifest.recipe.split;
    section.add_text(format!(
        "The recipe splits the data by the rule “{}” with seed {}. A model that is tested on data it was trained on \
         scores too high, so nothing should be both in the test split and in another split.",
        spec.rule.name(),
        spec.seed
    ));
    let splits = splits_of(answers, &rows)?;
    section.add_table(sizes(&splits));

    let compared = Compared::new(&splits);
    if let Some(problem) = compared.problem(&splits) {
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
        "Clips that share an item with another split",
        &["item", "split", "clips", "other split"],
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
            "Some of the {} test clips overlap with the training split: {}. This makes scores on the test split too high.",
            count(compared.test_clips),
            leaking.join(", ")
        ));
    }

    let share = |clips| Cell::Measure(fraction(clips, compared.test_clips));
    section.add_table(Table::of(
        "Overlap between splits",
        found,
        &[
            ("item", &|of| of.what.into()),
            ("distinct values", &|of| of.known.into()),
            // If no value is known, or there is no test split, nothing was compared, and 0 would be a false claim.
            ("in several splits", &|of| {
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

/// Sizes of one split in a version.
struct SplitSize {
    name: String,
    clips: u64,
    rows: u64,
    artists: u64,
}

/// Returns the splits with their sizes, in the order training, validation, test, others.
fn splits_of(answers: &Answers<'_>, rows: &str) -> Result<Vec<SplitSize>, SqlError> {
    let answer = answers.ask(&format!(
        "SELECT split, count(DISTINCT clip_key) AS clips, count(*) AS n, count(DISTINCT artist_id) AS artists
         FROM {rows} GROUP BY split ORDER BY split"
    ))?;
    let names = answer.texts("split")?;
    let clips = answer.counts("clips")?;
    let rows = answer.counts("n")?;
    let artists = answer.counts("artists")?;

    let mut splits = Vec::with_capacity(names.len());
    for (index, name) in names.into_iter().enumerate() {
        splits.push(SplitSize {
            name: name.unwrap_or_default(),
            clips: clips[index],
            rows: rows[index],
            artists: artists[index],
        });
    }
    splits.sort_by_key(|split| place(&split.name));
    Ok(splits)
}

/// Returns the position of a split in tables and charts: training, validation, test, and then any other.
pub(super) fn place(split: &str) -> usize {
    Split::meant(split).map_or(Split::ALL.len(), |split| split as usize)
}

/// Builds a table with the numbers of clips, rows and artists in each split.
fn sizes(splits: &[SplitSize]) -> Table {
    let all: u64 = splits.iter().map(|split| split.clips).sum();
    Table::of(
        "Splits",
        splits,
        &[
            ("split", &|split| split.name.as_str().into()),
            ("clips", &|split| split.clips.into()),
            ("share", &|split| Cell::Measure(fraction(split.clips, all))),
            ("rows", &|split| split.rows.into()),
            ("artists", &|split| split.artists.into()),
        ],
    )
}

/// The splits that are compared for leaks.
struct Compared<'a> {
    training: Vec<&'a str>,
    test: Vec<&'a str>,
    /// Number of clips in the test splits.
    test_clips: u64,
}

impl<'a> Compared<'a> {
    fn new(splits: &'a [SplitSize]) -> Self {
        let meant = |wanted| {
            let splits = splits.iter();
            splits.filter(move |split| Split::meant(&split.name) == Some(wanted))
        };
        let names = |wanted| meant(wanted).map(|split| split.name.as_str()).collect();
        Self {
            training: names(Split::Training),
            test: names(Split::Test),
            test_clips: meant(Split::Test).map(|split| split.clips).sum(),
        }
    }

    /// Explains why no leaks between splits can be computed. Returns `None` if they can be computed.
    fn problem(&self, splits: &[SplitSize]) -> Option<String> {
        let missing = match (self.training.is_empty(), self.test.is_empty()) {
            (false, false) => return None,
            (true, false) => "training",
            (false, true) => "test",
            (true, true) => "training and no test",
        };
        let names: Vec<&str> = splits.iter().map(|split| split.name.as_str()).collect();
        Some(format!(
            "There is no {missing} split, so leakage into the test split cannot be measured. The splits are named {}. A training \
             split must be named training or train, and a test split test or eval.",
            names.join(", ")
        ))
    }
}

/// Returns the SQL condition that a row is in one of the splits `names`, which must not be empty.
pub(super) fn in_splits(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| literal(name)).collect();
    format!("split IN ({})", names.join(", "))
}

/// Overlap of the splits in the values of one column.
struct Leak {
    /// Plural noun for the values.
    what: &'static str,
    /// Number of distinct values in the column.
    known: u64,
    /// Number of values that occur in more than one split.
    on_several: u64,
    /// Number of clips in the test split whose value also occurs in the training split. `None` if nothing was compared.
    test_clips: Option<u64>,
    /// Rows of a table: splits with the number of their clips that share a value with another split, and that split.
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
        // Rows whose split is `none` belong to no split and are not compared.
        let answer = answers.ask(&format!(
            "SELECT count(*) AS known, count(*) FILTER (WHERE splits > 1) AS on_several FROM
             (SELECT count(DISTINCT split) AS splits FROM {rows}
              WHERE {column} IS NOT NULL AND split <> 'none' GROUP BY {column})"
        ))?;

        let known = answer.count("known")?;
        let is_compared = known > 0 && !compared.training.is_empty() && !compared.test.is_empty();
        let test_clips = if is_compared {
            let query = format!(
                "SELECT count(DISTINCT clip_key) AS n FROM {rows} WHERE {} AND {column} IN
                 (SELECT {column} FROM {rows} WHERE {} AND {column} IS NOT NULL)",
                in_splits(&compared.test),
                in_splits(&compared.training)
            );
            Some(answers.ask(&query)?.count("n")?)
        } else {
            None
        };

        let pairs = answers.table(&format!(
            "SELECT {} AS item, f.split AS one, count(DISTINCT f.clip_key) AS clips, o.split AS other
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
