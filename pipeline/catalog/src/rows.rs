//! Derives ids, class lists and splits from the cleaned rows, as the plan needs them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, ListArray, RecordBatch, StringBuilder, StringViewArray,
};
use arrow::compute::{CastOptions, cast, cast_with_options, sort_to_indices, take_record_batch};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, UInt64Type};
use wavemill_runtime::parallel::in_parts;
use wavemill_schemas::canonical;
use wavemill_schemas::clip::ClipRow;
use wavemill_schemas::recipe::{Recipe, SplitRule, TargetSpec};
use wavemill_schemas::split::NO_SPLIT;
use wavemill_schemas::tables::sides_schema;

use super::engine::nearest;
use super::load::without_line;
use super::split::{GroupSplits, KeptRule, KeptSplits, Placement, SplitRow, SplitSettings};
use super::steps::{clip_keys, with_first_column};
use super::{CatalogError, Recordings, SplitMove, spelling};

/// Number of rows per unit of parallel work.
const PART_ROWS: usize = 4096;

/// Returns the cleaned rows in the order of `clip_key`, each with a `track_id`, without line numbers.
///
/// # Errors
/// `Unusable` if a key is missing or repeated, or if two clips share an id.
pub(super) fn keyed(rows: &RecordBatch) -> Result<RecordBatch, CatalogError> {
    let keys = clip_keys(rows).map_err(CatalogError::clip_key)?;
    let mut rows = with_stored_types(&without_line(rows)?)?;
    // Rows are sorted by key, so that the result does not depend on their order in the file.
    if !keys.iter().is_sorted() {
        rows = take_record_batch(&rows, &sort_to_indices(&keys, None, None)?)?;
    }

    // The keys are read again, because sorting may have changed their order.
    let keys = clip_keys(&rows).map_err(CatalogError::clip_key)?;
    if rows.column_by_name("track_id").is_none() {
        let ids = keys.iter().map(|key| key.map(canonical::track_id));
        let ids: Int64Array = ids.collect();
        rows = with_first_column("track_id", Arc::new(ids), &rows)?;
    }

    let ids = int_column(&rows, "track_id", "track_id")?;
    refuse_repeated_ids(&ids, &keys)?;
    Ok(rows)
}

/// Returns `rows` with the key as plain text, which may be a dictionary (pandas: category), and with signed ids of artists
/// and albums, as features store them. An unsigned id of 2⁶³ or more, such as a hash, keeps its 64 bits and becomes
/// negative.
fn with_stored_types(rows: &RecordBatch) -> Result<RecordBatch, CatalogError> {
    let mut fields = rows.schema().fields().to_vec();
    let mut columns = rows.columns().to_vec();
    for (field, column) in fields.iter_mut().zip(&mut columns) {
        let stored = match field.name().as_str() {
            "clip_key" => Some(cast(column, &DataType::Utf8View)?),
            "album_id" => signed_ids(column).or_else(|| parsed_ids(column)),
            name if ARTIST_COLUMNS.contains(&name) => signed_ids(column),
            _ => None,
        };
        if let Some(stored) = stored {
            let data_type = stored.data_type().clone();
            *field = Arc::new(field.as_ref().clone().with_data_type(data_type));
            *column = stored;
        }
    }
    Ok(RecordBatch::try_new(
        Arc::new(Schema::new(fields)),
        columns,
    )?)
}

fn signed_ids(column: &ArrayRef) -> Option<ArrayRef> {
    let ids = column.as_primitive_opt::<UInt64Type>()?;
    let ids: Int64Array = ids.unary(u64::cast_signed);
    Some(Arc::new(ids))
}

/// Returns the ids of a column of texts if all of them are integers: one id of 2⁶³ or more makes a CSV column text.
fn parsed_ids(column: &ArrayRef) -> Option<ArrayRef> {
    let texts = column.as_string_view_opt()?;
    let mut ids = Int64Array::builder(texts.len());
    for text in texts {
        match text {
            Some(text) => ids.append_value(integer_id(text)?),
            None => ids.append_null(),
        }
    }
    Some(Arc::new(ids.finish()))
}

/// Parses a signed or unsigned integer of 64 bits.
fn integer_id(text: &str) -> Option<i64> {
    let unsigned = || text.parse::<u64>().ok().map(u64::cast_signed);
    text.parse().ok().or_else(unsigned)
}

/// Checks that every clip has an id, and that no two clips share one.
fn refuse_repeated_ids(ids: &Int64Array, keys: &StringViewArray) -> Result<(), CatalogError> {
    // Strictly ascending ids, as in FMA's own files, cannot repeat.
    if ids.null_count() == 0 && ids.values().is_sorted_by(|id, next| id < next) {
        return Ok(());
    }

    let mut clip_of = HashMap::with_capacity(ids.len());
    for (row, id) in ids.iter().enumerate() {
        let Some(track_id) = id else {
            let problem = format!("clip {} without a track_id", keys.value(row));
            return Err(CatalogError::clip_key(problem));
        };
        if let Some(first) = clip_of.insert(track_id, row) {
            return Err(CatalogError::Unusable(format!(
                "track_id {track_id} belongs to two clips: {} and {}; the cleaning steps must keep track_id unique",
                keys.value(first),
                keys.value(row)
            )));
        }
    }
    Ok(())
}

/// Class names of one target in id order, and the class of every row.
#[derive(Clone)]
pub(super) struct Labels {
    /// Class names of the target, in id order.
    pub classes: Vec<String>,
    /// Class id of each row, or `None` if the row is unlabelled.
    pub ids: Vec<Option<i32>>,
    /// Number of rows whose label is not in the recipe's list; they count as unlabelled.
    pub unlisted: usize,
}

/// Returns the classes and the class ids of all rows for one target, and adds a warning if labels differ only in their
/// spelling.
///
/// # Errors
/// `Unusable` if the target's column is missing or is not text.
pub(super) fn labels(
    rows: &RecordBatch,
    target: &TargetSpec,
    warnings: &mut Vec<String>,
) -> Result<Labels, CatalogError> {
    let column = text_column(rows, &format!("target `{}`", target.name), &target.column)?;
    let classes = match &target.classes {
        Some(classes) => classes.clone(),
        None => {
            // Class names are sorted, so that class ids do not depend on the order of rows.
            let found: BTreeSet<&str> = column.iter().flatten().collect();
            found.into_iter().map(str::to_owned).collect()
        }
    };

    let listed = classes.iter().map(String::as_str);
    let names = column.iter().flatten().chain(listed);
    let merged = format!("normalized({})", spelling::identifier(&target.column));
    if let Some(alike) = spelling::alike(&target.column, &merged, names.map(|name| (name, name))) {
        // The labels that the step makes are not in a list of other spellings.
        let mut listed = target.classes.iter().flatten();
        let list = match listed.find(|class| spelling::normalized(class) != **class) {
            Some(class) => format!(
                ", if the target's `classes` are normalized too: `{}` for `{class}`",
                spelling::normalized(class)
            ),
            None => String::new(),
        };
        warnings.push(format!("target `{}`: {alike}{list}", target.name));
    }

    let id_of: HashMap<&str, i32> = classes.iter().map(String::as_str).zip(0..).collect();
    let ids: Vec<Option<i32>> = column
        .iter()
        .map(|label| id_of.get(label?).copied())
        .collect();
    let unlisted = ids
        .iter()
        .zip(column.iter())
        .filter(|(id, label)| id.is_none() && label.is_some())
        .count();
    Ok(Labels {
        classes,
        ids,
        unlisted,
    })
}

/// The cleaned rows with their splits (training, validation or test).
pub(super) struct SplitTables {
    /// The cleaned rows, with `split_official`, `split_stratified`, `split_artist` (and `split_column`) added.
    pub tracks: RecordBatch,
    /// The table `sides`: the split of every group that was ever assigned, see [`sides_schema`].
    pub sides: RecordBatch,
    /// Rows that left their previous split under the recipe's split rule, ordered by key.
    pub merges: Vec<SplitMove>,
}

/// Assigns each row to a split (such as training) by every split rule.
///
/// `classes` is the class of each row for the first target, `recordings` groups copies, and `kept` contains the
/// splits to keep. The official split of a row is the value of its column `split_official` or `set_split`.
///
/// # Errors
/// `Unusable` if the column of rule `column` is missing, or if a split is not a valid folder name.
pub(super) fn with_splits(
    rows: &RecordBatch,
    classes: &[Option<i32>],
    recordings: &Recordings,
    kept: Option<&KeptSplits>,
    recipe: &Recipe,
    threads: usize,
) -> Result<SplitTables, CatalogError> {
    let keys = text_column(rows, "split", "clip_key")?;
    let artists = artist_ids(rows)?;
    let mut split_rows = Vec::with_capacity(rows.num_rows());
    for index in 0..rows.num_rows() {
        split_rows.push(SplitRow {
            key: keys.value(index),
            class: classes.get(index).copied().flatten(),
            artist: value_of(artists.as_ref(), index),
            recording: recordings.hashes.get(keys.value(index)).copied(),
            near_group: recordings.near_groups.get(keys.value(index)).copied(),
        });
    }

    let official = official_splits(rows, recipe.split.rule)?;
    // The slower split rule is computed first.
    let by_rule = in_parts(threads, KeptRule::ALL.len(), |index| {
        let rule = KeptRule::ALL[index];
        Ok::<_, CatalogError>(RuleSplits::new(rule, &split_rows, kept, recipe))
    })?;

    let mut columns = vec![("split_official", official)];
    let mut merges = Vec::new();
    // The columns are added in the reverse order of the split rules above.
    for of_rule in by_rule.iter().rev() {
        let splits = of_rule.placement.splits.iter();
        let names: StringViewArray = splits.map(|split| Some(split.name())).collect();
        columns.push((of_rule.column, names));
        if split_column(recipe.split.rule) == Some(of_rule.column) {
            merges = of_rule.merges(&split_rows);
        }
    }
    if recipe.split.rule == SplitRule::Column {
        let name = recipe.split.column.as_deref().unwrap_or_default();
        let values = text_column(rows, "split.column", name)?;
        require_plain(name, &values)?;
        columns.push(("split_column", or_no_split(&values)));
    }

    Ok(SplitTables {
        tracks: with_last_columns(rows, columns)?,
        sides: sides_table(&by_rule)?,
        merges,
    })
}

/// The splits that one rule assigned to rows and to groups of rows.
struct RuleSplits {
    rule: KeptRule,
    /// Name of the rule's column in the table `tracks`.
    column: &'static str,
    placement: Placement,
    /// Splits of the current groups and of all groups of earlier versions.
    groups: GroupSplits,
}

impl RuleSplits {
    fn new(
        rule: KeptRule,
        rows: &[SplitRow<'_>],
        kept: Option<&KeptSplits>,
        recipe: &Recipe,
    ) -> Self {
        let settings = SplitSettings {
            seed: recipe.split.seed,
            fractions: recipe.split.fractions,
        };
        let kept = kept.map(|kept| kept.by(rule));
        let placement = rule.place(rows, settings, kept);

        let mut groups = rule.group_splits(rows, &placement.splits);
        if let Some(kept) = kept {
            groups = groups.with_earlier(kept);
        }
        Self {
            rule,
            column: match rule {
                KeptRule::Artist => "split_artist",
                KeptRule::Stratified => "split_stratified",
            },
            placement,
            groups,
        }
    }

    fn merges(&self, rows: &[SplitRow<'_>]) -> Vec<SplitMove> {
        let mut moves = Vec::with_capacity(self.placement.merges.len());
        for merge in &self.placement.merges {
            moves.push(SplitMove {
                clip_key: rows[merge.row].key.to_owned(),
                from: merge.was.name().to_owned(),
                to: self.placement.splits[merge.row].name().to_owned(),
            });
        }
        moves
    }
}

/// Creates the table `sides`, ordered by rule and group.
fn sides_table(by_rule: &[RuleSplits]) -> Result<RecordBatch, CatalogError> {
    let mut rules = StringBuilder::new();
    let mut groups = StringBuilder::new();
    let mut splits = StringBuilder::new();
    for of_rule in by_rule {
        for (group, split) in of_rule.groups.iter() {
            rules.append_value(of_rule.rule.name());
            groups.append_value(group);
            splits.append_value(split.name());
        }
    }

    let columns: Vec<ArrayRef> = vec![
        Arc::new(rules.finish()),
        Arc::new(groups.finish()),
        Arc::new(splits.finish()),
    ];
    Ok(RecordBatch::try_new(sides_schema(), columns)?)
}

/// Returns each row's value of its column `split_official` or `set_split`, or `none` if there is no such column.
fn official_splits(rows: &RecordBatch, rule: SplitRule) -> Result<StringViewArray, CatalogError> {
    let own = ["split_official", "set_split"]
        .into_iter()
        .find(|name| rows.column_by_name(name).is_some());
    let Some(name) = own else {
        return Ok(rows_without_split(rows.num_rows()));
    };
    let values = text_column(rows, "split", name)?;
    if rule == SplitRule::Official {
        require_plain(name, &values)?;
    }
    Ok(or_no_split(&values))
}

/// Checks that all split names of a column are valid folder names: splits of the rule in use become folders.
fn require_plain(column: &str, splits: &StringViewArray) -> Result<(), CatalogError> {
    match splits.iter().flatten().find(|split| !is_plain(split)) {
        Some(value) => Err(CatalogError::Unusable(format!(
            "split column `{column}` has the value {value:?}: splits are folders, named by letters, digits, `_`, `-`, `.`"
        ))),
        None => Ok(()),
    }
}

fn is_plain(split: &str) -> bool {
    let mut chars = split.chars();
    !split.is_empty() && chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
}

fn or_no_split(column: &StringViewArray) -> StringViewArray {
    column
        .iter()
        .map(|split| Some(split.unwrap_or(NO_SPLIT)))
        .collect()
}

fn rows_without_split(n: usize) -> StringViewArray {
    std::iter::repeat_n(Some(NO_SPLIT), n).collect()
}

fn with_last_columns(
    rows: &RecordBatch,
    columns: Vec<(&'static str, StringViewArray)>,
) -> Result<RecordBatch, CatalogError> {
    let mut rows = rows.clone();
    // A user's column with the name of an added column is replaced.
    for (name, _) in &columns {
        if let Ok(index) = rows.schema().index_of(name) {
            rows.remove_column(index);
        }
    }

    let mut fields = rows.schema().fields().to_vec();
    let mut arrays = rows.columns().to_vec();
    for (name, column) in columns {
        fields.push(Arc::new(Field::new(name, DataType::Utf8View, false)));
        arrays.push(Arc::new(column));
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?)
}

/// Returns the column of `tracks` that contains the splits by `rule`. `None` for the segment rules, which assign
/// segments instead of tracks.
pub const fn split_column(rule: SplitRule) -> Option<&'static str> {
    match rule {
        SplitRule::Official => Some("split_official"),
        SplitRule::Stratified => Some("split_stratified"),
        SplitRule::Artist => Some("split_artist"),
        SplitRule::Column => Some("split_column"),
        SplitRule::Segment | SplitRule::SegmentStretched => None,
    }
}

/// Converts the rows of `tracks`, the result of [`with_splits`], to the clips of a plan, in the same order.
///
/// `labels` has one entry per target, in the recipe's order.
///
/// # Errors
/// `Unusable` if `artist_id`, `album_id` or the genres have another type, or values that the plan cannot represent.
pub(super) fn clips(
    tracks: &RecordBatch,
    labels: &[Labels],
    rule: SplitRule,
    threads: usize,
) -> Result<Vec<ClipRow>, CatalogError> {
    let keys = text_column(tracks, "plan", "clip_key")?;
    let ids = int_column(tracks, "plan", "track_id")?;
    let artists = artist_ids(tracks)?;
    let albums = optional_ints(tracks, "album_id")?;
    let genres = genre_lists(tracks)?;
    let splits = match split_column(rule) {
        Some(column) => text_column(tracks, "split", column)?,
        None => rows_without_split(tracks.num_rows()),
    };

    let n_rows = tracks.num_rows();
    let parts = in_parts(threads, n_rows.div_ceil(PART_ROWS), |part| {
        let end = n_rows.min((part + 1) * PART_ROWS);
        let mut clips = Vec::with_capacity(PART_ROWS);
        for row in part * PART_ROWS..end {
            clips.push(ClipRow {
                clip_key: keys.value(row).to_owned(),
                track_id: ids.value(row),
                targets: labels.iter().map(|target| target.ids[row]).collect(),
                genres_all: genre_ids(genres.as_ref(), row),
                artist_id: value_of(artists.as_ref(), row),
                album_id: value_of(albums.as_ref(), row),
                split: splits.value(row).to_owned(),
            });
        }
        Ok::<_, CatalogError>(clips)
    })?;
    Ok(parts.into_iter().flatten().collect())
}

/// Returns a column's value in a row, or `None` if the data set lacks the column or the row has no value in it.
fn value_of(column: Option<&Int64Array>, row: usize) -> Option<i64> {
    let values = column?;
    values.is_valid(row).then(|| values.value(row))
}

fn genre_ids(lists: Option<&ListArray>, row: usize) -> Vec<i32> {
    match lists.filter(|lists| lists.is_valid(row)) {
        Some(lists) => {
            let ids = lists.value(row);
            ids.as_primitive::<Int32Type>().iter().flatten().collect()
        }
        None => Vec::new(),
    }
}

/// Columns that may contain the artist of a row; the first one present does.
const ARTIST_COLUMNS: [&str; 3] = ["artist_id", "artist_name", "artist"];

fn artist_column(rows: &RecordBatch) -> Option<(&'static str, &ArrayRef)> {
    let mut names = ARTIST_COLUMNS.into_iter();
    names.find_map(|name| Some((name, rows.column_by_name(name)?)))
}

/// Returns a warning if names of different artists differ only in their spelling or not at all.
pub(super) fn artists_alike(rows: &RecordBatch) -> Result<Option<String>, CatalogError> {
    let (Some((id_column, _)), Some(ids)) = (artist_column(rows), artist_ids(rows)?) else {
        return Ok(None);
    };
    for name in ARTIST_COLUMNS {
        let column = rows.column_by_name(name);
        let Some(column) = column.filter(|column| !column.data_type().is_numeric()) else {
            continue;
        };
        let Ok(names) = cast(column, &DataType::Utf8View) else {
            continue;
        };

        let form = format!("normalized({})", spelling::identifier(name));
        let merged = if name == id_column {
            form
        } else {
            // Artists without a name keep their ids.
            format!("min({id_column}) OVER (PARTITION BY coalesce({form}, {id_column}::text))")
        };
        let names = names.as_string_view().iter().zip(&ids);
        let named = names.filter_map(|(name, id)| name.zip(id));
        if let Some(alike) = spelling::alike(id_column, &merged, named) {
            return Ok(Some(format!("split.rule = \"artist\": {alike}")));
        }
    }
    Ok(None)
}

/// Returns the artist id of each row, from the first column present of [`ARTIST_COLUMNS`]. A value that is not an integer
/// is converted to an id by its hash, so that rows with the same name (or the same `unknown` in a column of numbers) still
/// belong together.
///
/// # Errors
/// `Unusable` if the column cannot be cast to text.
pub(super) fn artist_ids(rows: &RecordBatch) -> Result<Option<Int64Array>, CatalogError> {
    let Some((name, column)) = artist_column(rows) else {
        return Ok(None);
    };
    if column.data_type().is_integer() {
        let ids = cast(column, &DataType::Int64)?;
        return Ok(Some(ids.as_primitive::<Int64Type>().clone()));
    }

    let text = cast_all(name, column, &DataType::Utf8View)?;
    let artists = text.as_string_view().iter();
    let ids = artists.map(|artist| artist.map(artist_id));
    Ok(Some(ids.collect()))
}

/// Parses an integer, including one that pandas writes as a float in a column with gaps (`12.0`). Other texts are
/// hashed.
fn artist_id(text: &str) -> i64 {
    if let Some(id) = integer_id(text) {
        return id;
    }
    match text.parse::<f64>() {
        // f64 represents every integer up to 2⁵³ exactly.
        Ok(id) if id.fract() == 0.0 && id.abs() < 9e15 => id as i64,
        _ => canonical::track_id(text),
    }
}

/// Returns `track_genres_all` or `genres_all` as lists of i32, or `None` if the data set has neither.
///
/// # Errors
/// `Unusable` if an item of a list is not an i32.
fn genre_lists(tracks: &RecordBatch) -> Result<Option<ListArray>, CatalogError> {
    let column = ["track_genres_all", "genres_all"]
        .into_iter()
        .find_map(|name| Some((name, tracks.column_by_name(name)?)));
    let is_list = |column: &ArrayRef| {
        use DataType::{FixedSizeList, LargeList, List};
        matches!(
            column.data_type(),
            List(_) | LargeList(_) | FixedSizeList(..)
        )
    };
    let Some((name, column)) = column.filter(|(_, column)| is_list(column)) else {
        return Ok(None);
    };

    let item = Field::new_list_field(DataType::Int32, true);
    let lists = cast_all(name, column, &DataType::List(Arc::new(item)))?;
    Ok(Some(lists.as_list::<i32>().clone()))
}

/// Casts a column to a type that must be able to represent all of its values.
///
/// # Errors
/// `Unusable` if the type cannot represent a value.
fn cast_all(name: &str, column: &ArrayRef, data_type: &DataType) -> Result<ArrayRef, CatalogError> {
    let options = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    cast_with_options(column, data_type, &options).map_err(|error| {
        CatalogError::Unusable(format!(
            "column `{name}`: {error}: in a cleaning step, drop the rows with such values, or rename the column"
        ))
    })
}

/// Returns the first row (by `track_id`) of `tracks` for each value of the column `id`, in the order of these values.
/// Only columns whose names start with `prefix` are included. `None` if there is no such id column.
///
/// # Errors
/// `Arrow` if an arrow function fails.
pub(super) fn distinct(
    tracks: &RecordBatch,
    id: &str,
    prefix: &str,
) -> Result<Option<RecordBatch>, CatalogError> {
    let Some(ids) = optional_ints(tracks, id)? else {
        return Ok(None);
    };
    let track_ids = int_column(tracks, "track_id", "track_id")?;

    // Maps each id to the smallest `track_id` of its rows, and to the row of that track.
    let mut first: BTreeMap<i64, (i64, u32)> = BTreeMap::new();
    for (row, (id, &track_id)) in (0..).zip(ids.iter().zip(track_ids.values())) {
        let Some(id) = id else { continue };
        let entry = first.entry(id).or_insert((track_id, row));
        *entry = (*entry).min((track_id, row));
    }
    let rows = arrow::array::UInt32Array::from_iter_values(first.values().map(|(_, row)| *row));

    // Selects only the columns that describe the id: the columns of an album, for example, but not those of its track.
    let schema = tracks.schema();
    let fields = schema.fields();
    let wanted: Vec<usize> = (0..fields.len())
        .filter(|&index| fields[index].name().starts_with(prefix))
        .collect();
    Ok(Some(take_record_batch(&tracks.project(&wanted)?, &rows)?))
}

fn text_column(
    rows: &RecordBatch,
    wanted_by: &str,
    column: &str,
) -> Result<StringViewArray, CatalogError> {
    let text = typed_column(rows, wanted_by, column, &DataType::Utf8View, "text")?;
    Ok(text.as_string_view().clone())
}

fn int_column(
    rows: &RecordBatch,
    wanted_by: &str,
    column: &str,
) -> Result<Int64Array, CatalogError> {
    let ints = typed_column(rows, wanted_by, column, &DataType::Int64, "integer")?;
    Ok(ints.as_primitive::<Int64Type>().clone())
}

/// Returns a column that a data set may lack. A column that is not an integer (such as an artist's name) counts as
/// absent.
fn optional_ints(rows: &RecordBatch, column: &str) -> Result<Option<Int64Array>, CatalogError> {
    match rows.column_by_name(column).map(Array::data_type) {
        Some(data_type) if data_type.is_integer() => int_column(rows, column, column).map(Some),
        _ => Ok(None),
    }
}

fn typed_column(
    rows: &RecordBatch,
    wanted_by: &str,
    column: &str,
    data_type: &DataType,
    kind: &str,
) -> Result<ArrayRef, CatalogError> {
    let Some(array) = rows.column_by_name(column) else {
        let schema = rows.schema();
        let fields = schema.fields().iter();
        let known: Vec<&str> = fields.map(|field| field.name().as_str()).collect();
        let nearest = nearest(column, &known);
        return Err(CatalogError::Unusable(format!(
            "{wanted_by}: the cleaned rows have no {kind} column `{column}`; nearest: {nearest}"
        )));
    };

    let found = array.data_type();
    // A label may be a number, and pandas writes categories as dictionaries.
    let is_text = matches!(
        found,
        DataType::Utf8
            | DataType::LargeUtf8
            | DataType::Utf8View
            | DataType::Dictionary(..)
            | DataType::Boolean
    );
    let fits = found.is_integer() || (*data_type != DataType::Int64 && is_text);
    if fits {
        return cast_all(column, array, data_type);
    }

    Err(CatalogError::Unusable(format!(
        "{wanted_by}: column `{column}` has type {found}, not {kind}: convert it in a cleaning step, such as \
         sql = \"SELECT * REPLACE (CAST({column} AS VARCHAR) AS {column}) FROM input\""
    )))
}

#[cfg(test)]
mod tests {
    use arrow::array::{FixedSizeListArray, LargeListArray, UInt64Array};

    use super::*;

    /// Returns the texts of the column `genre`.
    fn texts(column: ArrayRef) -> Result<Vec<String>, CatalogError> {
        let rows = RecordBatch::try_from_iter([("genre", column)]).unwrap();
        let column = text_column(&rows, "target `genre`", "genre")?;
        Ok(column.iter().flatten().map(str::to_owned).collect())
    }

    #[test]
    fn labels_are_texts_numbers_or_categories() {
        assert_eq!(
            texts(Arc::new(Int64Array::from(vec![3, 10]))).unwrap(),
            ["3", "10"]
        );

        let category: arrow::array::DictionaryArray<arrow::datatypes::Int8Type> =
            ["b", "a", "b"].into_iter().collect();
        assert_eq!(texts(Arc::new(category)).unwrap(), ["b", "a", "b"]);

        let error = texts(Arc::new(arrow::array::Float64Array::from(vec![1.5])))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("`genre` has type Float64") && error.contains("CAST(genre AS VARCHAR)"),
            "{error}"
        );
    }

    #[test]
    fn genres_are_lists_of_any_kind() {
        let ids = || [Some(vec![Some(3), Some(10)]), None];
        let lists: [ArrayRef; 3] = [
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(ids())),
            // As polars writes them.
            Arc::new(LargeListArray::from_iter_primitive::<Int64Type, _, _>(
                ids().map(|ids| {
                    ids.map(|ids| {
                        ids.into_iter()
                            .map(|id| id.map(i64::from))
                            .collect::<Vec<_>>()
                    })
                }),
            )),
            Arc::new(FixedSizeListArray::from_iter_primitive::<Int32Type, _, _>(
                ids(),
                2,
            )),
        ];
        for list in lists {
            let tracks = RecordBatch::try_from_iter_with_nullable([("genres_all", list, true)]);
            let lists = genre_lists(&tracks.unwrap()).unwrap();
            assert_eq!(genre_ids(lists.as_ref(), 0), [3, 10]);
            assert!(genre_ids(lists.as_ref(), 1).is_empty());
        }
    }

    #[test]
    fn artists_are_grouped_by_name_or_number() {
        let names: ArrayRef = Arc::new(StringViewArray::from(vec![
            Some("A"),
            Some("7"),
            Some("A"),
            None,
            Some("7.0"),
        ]));

        let rows = RecordBatch::try_from_iter([("artist_id", names)]).unwrap();
        let ids = artist_ids(&rows).unwrap().unwrap();
        assert_eq!(
            (ids.value(0), ids.value(1), ids.value(4)),
            (ids.value(2), 7, 7)
        );
        assert!(ids.is_null(3) && ids.value(0) != 7);

        let hashes: ArrayRef = Arc::new(UInt64Array::from(vec![u64::MAX, 1 << 63, 5]));
        let keys: ArrayRef = Arc::new(StringViewArray::from(vec!["a", "b", "c"]));
        let rows = RecordBatch::try_from_iter([("clip_key", keys), ("artist_id", hashes)]).unwrap();
        let rows = keyed(&rows).unwrap();
        let signed = Int64Array::from(vec![-1, i64::MIN, 5]);
        assert_eq!(artist_ids(&rows).unwrap().unwrap(), signed);
        assert_eq!(rows["artist_id"].as_primitive::<Int64Type>(), &signed);

        let floats: ArrayRef = Arc::new(arrow::array::Float64Array::from(vec![Some(3.0), None]));
        let rows = RecordBatch::try_from_iter([("artist_id", floats)]).unwrap();
        assert_eq!(
            artist_ids(&rows).unwrap().unwrap(),
            Int64Array::from(vec![Some(3), None])
        );
    }
}
