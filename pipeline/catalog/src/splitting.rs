//! Assigns cleaned rows to training, validation and test by the recipe's rule, and warns if one of them has no clips.

use std::collections::BTreeMap;

use arrow::array::{Array, RecordBatch};
use wavemill_runtime::parallel::in_parts;
use wavemill_schemas::clip::ClipRow;
use wavemill_schemas::recipe::{GroupDuplicates, Recipe, SplitRule, SplitSpec};
use wavemill_schemas::split::{NO_SPLIT, Split};

use super::rows::{self, Labels, SplitTables};
use super::split::KeptSplits;
use super::{
    Catalog, CatalogError, ClassLists, CleanedRows, Duplicates, Recordings, Timings, numbering,
};

/// Minimum number of clips for a warning that a split is empty. With fewer, nobody expects to train a model.
const SPLITS_CLIPS_MIN: usize = 20;

/// Maximum number of values of the split column that a warning lists.
const SPLITS_LISTED_MAX: usize = 5;

impl CleanedRows {
    /// Assigns each clip to a split (such as training), and gives each class its id in `kept_classes`. The rules
    /// `artist` and `stratified` keep copies of a recording together, and keep every group of clips in the split that
    /// it has in `kept`.
    ///
    /// The rows are not consumed, so that they can be split again with other arguments. All catalogs made
    /// from the same rows share the columns of their tables.
    ///
    /// # Errors
    /// `Unusable` if the recipe's split does not fit the rows.
    pub fn split(
        &self,
        recipe: &Recipe,
        recordings: &Recordings,
        kept: Option<&KeptSplits>,
        kept_classes: &ClassLists,
    ) -> Result<Catalog, CatalogError> {
        let Self {
            rows,
            labels,
            threads,
            catalog,
            ..
        } = self;
        let threads = *threads;
        let mut catalog = catalog.clone();
        let mut timings = Timings::start();

        let labels = number_classes(&mut catalog, recipe, labels, kept_classes);
        let first_target = labels.first().map_or(&[][..], |target| &target.ids);
        let SplitTables {
            tracks,
            sides,
            merges,
        } = rows::with_splits(rows, first_target, recordings, kept, recipe, threads)?;

        // Name of each table, its id column, and the prefix of the names of its columns.
        let distinct = [
            ("albums", "album_id", "album_"),
            ("artists", "artist_id", "artist_"),
        ];
        let tables = in_parts(threads, distinct.len(), |index| {
            rows::distinct(&tracks, distinct[index].1, distinct[index].2)
        })?;
        for ((table, ..), rows) in distinct.iter().zip(tables) {
            if let Some(rows) = rows {
                catalog.tables.insert((*table).to_owned(), rows);
            }
        }

        if recipe.split.rule == SplitRule::Artist {
            catalog.warnings.extend(artists_unknown(rows)?);
            catalog.warnings.extend(rows::artists_alike(rows)?);
        }
        catalog.clips = rows::clips(&tracks, &labels, recipe.split.rule, threads)?;
        // With the other rules, the split of each row is only known after segmentation.
        if !recipe.split.rule.is_by_segment() {
            let clips = clips_by_split(&catalog.clips);
            if recipe.split.rule == SplitRule::Column {
                catalog.warnings.extend(splits_unknown(&clips));
            }
            catalog.warnings.extend(splits_empty(&recipe.split, &clips));
        }
        let grouping = recipe.split.group_duplicates;
        catalog.duplicates =
            (grouping != GroupDuplicates::None).then(|| Duplicates::new(recordings, grouping));
        catalog.merges = merges;
        catalog.tables.insert("tracks".to_owned(), tracks);
        catalog.tables.insert("sides".to_owned(), sides);

        timings.end("split");
        catalog.wall_s.append(&mut timings.wall_s);
        Ok(catalog)
    }
}

/// Gives classes the ids that they have in `kept_classes`. Returns the labels of each target, in the recipe's order.
fn number_classes(
    catalog: &mut Catalog,
    recipe: &Recipe,
    labels: &[Labels],
    kept_classes: &ClassLists,
) -> Vec<Labels> {
    let mut numbered = Vec::with_capacity(labels.len());
    for (target, labels) in recipe.targets.iter().zip(labels) {
        let Some(before) = kept_classes.get(&target.name) else {
            numbered.push(labels.clone());
            continue;
        };
        let warning = numbering::empty_classes(&target.name, labels, before);
        catalog.warnings.extend(warning);
        let kept = numbering::keep_ids(labels, before);
        let classes = kept.classes.clone();
        catalog.classes.insert(target.name.clone(), classes);
        numbered.push(kept);
    }
    numbered
}

/// Counts the clips of each split, such as training.
fn clips_by_split(clips: &[ClipRow]) -> BTreeMap<&str, usize> {
    let mut splits: BTreeMap<&str, usize> = BTreeMap::new();
    for clip in clips {
        *splits.entry(clip.split.as_str()).or_default() += 1;
    }
    splits
}

/// Returns a warning if the split column has values that no trainer reads, such as `Training` or `train`.
fn splits_unknown(splits: &BTreeMap<&str, usize>) -> Option<String> {
    let mut unknown = splits.clone();
    unknown.retain(|split, _| *split != NO_SPLIT && Split::named(split).is_none());
    if unknown.is_empty() {
        return None;
    }

    Some(format!(
        "split.column: splits that no training reads, with their clips: {}; it reads {}",
        first_splits(&unknown),
        Split::ALL.map(Split::name).join(", ")
    ))
}

/// Returns a warning if training, validation or test has no clips, although its share is not 0: no model could be
/// trained, chosen or tested.
fn splits_empty(split: &SplitSpec, splits: &BTreeMap<&str, usize>) -> Option<String> {
    let n_clips: usize = splits.values().sum();
    if split.column.is_none() && n_clips < SPLITS_CLIPS_MIN {
        return None;
    }
    let mut empty = Vec::new();
    for (name, share) in Split::ALL.map(Split::name).into_iter().zip(split.fractions) {
        let is_wanted = share > 0.0 || split.column.is_some();
        if is_wanted && !splits.contains_key(name) {
            empty.push(name);
        }
    }
    if empty.is_empty() || n_clips == 0 {
        return None;
    }

    let (empty, found) = (empty.join(", "), first_splits(splits));
    Some(match &split.column {
        Some(column) => format!(
            "split.column: no clip is for {empty}: the values of `{column}`, with their clips, are {found}; splits are named \
             {}",
            Split::ALL.map(Split::name).join(", ")
        ),
        None => format!(
            "split.rule = \"{}\": no clip is for {empty}; splits with clips are {found}: raise its share in split.fractions, \
             or choose another split.rule",
            split.rule.name()
        ),
    })
}

/// Formats the first split names in alphabetical order, each with its number of clips.
fn first_splits(splits: &BTreeMap<&str, usize>) -> String {
    let mut listed = Vec::with_capacity(SPLITS_LISTED_MAX);
    for (split, n_clips) in splits.iter().take(SPLITS_LISTED_MAX) {
        listed.push(format!("`{split}` ({n_clips})"));
    }

    let more = if splits.len() > SPLITS_LISTED_MAX {
        ", …"
    } else {
        ""
    };
    format!("{}{more}", listed.join(", "))
}

/// Returns a warning if some artists are unknown, so that the rule `artist` cannot keep their clips together.
fn artists_unknown(rows: &RecordBatch) -> Result<Option<String>, CatalogError> {
    let of = rows.num_rows();
    let unknown = rows::artist_ids(rows)?.map(|ids| ids.null_count());
    let what = match unknown {
        Some(0) => return Ok(None),
        Some(unknown) => format!("the artist of {unknown} of {of} clips is unknown"),
        None => "the metadata have no column artist_id, artist_name or artist".to_owned(),
    };
    Ok(Some(format!(
        "split.rule = \"artist\": {what}, so clips of one artist may be in several splits: add the artists to the \
         metadata, or set split.rule = \"stratified\""
    )))
}
