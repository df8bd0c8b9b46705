//! Data sets with one row per file: the folder is the genre, and a clip list of the user can add columns.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringViewArray, UInt32Array,
};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use wavemill_runtime::parallel::in_parts;
use wavemill_schemas::canonical;
use wavemill_source::AudioIndex;

use super::CatalogError;
use super::csv_text::LINE;
use super::engine::nearest;
use super::files::near_matches;
use super::load::{ParsedMetadata, TableFormat};

/// Name of the column by which a clip list refers to clips.
const KEY: &str = "clip_key";

/// Creates one row per clip of the audio root: `clip_key`, `track_id`, `genre` (the first folder, or null for a file in
/// no folder).
///
/// # Errors
/// `Arrow` if the batch cannot be built.
pub(super) fn rows(audio: &AudioIndex) -> Result<ParsedMetadata, CatalogError> {
    let n_clips: i64 = audio
        .len()
        .try_into()
        .expect("a count of map entries fits in i64");
    // There is no metadata file, so the line column contains the numbers of the clips.
    let lines = Int64Array::from_iter_values(1..=n_clips);
    let keys: StringViewArray = audio.keys().map(Some).collect();
    let ids = Int64Array::from_iter_values(audio.keys().map(|key| canonical::track_id(key)));
    // The first folder of a clip's path is its class.
    let genres: StringViewArray = audio
        .keys()
        .map(|key| key.split_once('/').map(|(folder, _)| folder))
        .collect();

    let schema = Schema::new(vec![
        Field::new(LINE, DataType::Int64, false),
        Field::new(KEY, DataType::Utf8View, false),
        Field::new("track_id", DataType::Int64, false),
        Field::new("genre", DataType::Utf8View, true),
    ]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(lines),
        Arc::new(keys),
        Arc::new(ids),
        Arc::new(genres),
    ];

    let rows = RecordBatch::try_new(Arc::new(schema), columns)?;
    Ok(ParsedMetadata::from_rows(rows))
}

/// Adds the columns of a clip list to the clips' rows, which [`rows`] created. Clips that are not in the list get
/// nulls. Keys must be equal byte by byte.
///
/// `file` is the name of the clip list for messages, `listed` the content of the list.
///
/// # Errors
/// `Unusable` if keys are missing, repeated or all unknown, or if the list has a column that the folders provide
/// already. A column `genre` is allowed if its values are equal to the folders.
pub(super) fn with_list(
    clips: ParsedMetadata,
    file: &str,
    listed: ParsedMetadata,
    threads: usize,
) -> Result<ParsedMetadata, CatalogError> {
    let list = ClipList {
        file,
        rows: &listed.rows,
    };
    let keys = list.keys()?;
    let places = list.places(&keys, &clips.rows)?;

    let mut fields = clips.rows.schema().fields().to_vec();
    let mut added = Vec::new();
    for (index, field) in listed.rows.schema().fields().iter().enumerate() {
        match field.name().as_str() {
            LINE | KEY => {}
            "genre" => list.require_same_genres(index, &clips.rows, &places)?,
            "track_id" => {
                let problem = "column `track_id` is derived from the folders: rename it";
                return Err(list.fault_of_header(problem.to_owned()));
            }
            _ => {
                added.push(listed.rows.column(index));
                // Clips that are not in the list get nulls, so every column must be nullable.
                fields.push(Arc::new(field.as_ref().clone().with_nullable(true)));
            }
        }
    }

    let mut columns = clips.rows.columns().to_vec();
    columns.extend(in_parts(threads, added.len(), |index| {
        take(added[index].as_ref(), &places, None)
    })?);

    let absent = ClipList::absent(&keys, &places);
    let unlisted = ClipList::unlisted(&places, &clips.rows);
    let mut warnings = list.unmatched(keys.len(), &absent, places.len(), &unlisted);
    warnings.extend(listed.warnings);
    if !listed.rejects.is_empty() {
        warnings.push(format!(
            "metadata file {file}: {} of {} records cannot be read; the table `rejects` has their lines",
            listed.rejects.len(),
            listed.rows_read
        ));
    }
    Ok(ParsedMetadata {
        rows: RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?,
        // Rows of the catalog are clips, so rejected records of the clip list are counted separately.
        further_rejects: listed.rejects,
        absent,
        unlisted,
        warnings,
        ..clips
    })
}

/// A clip list: a table of the user whose rows refer to clips.
struct ClipList<'a> {
    /// Name of the clip list for messages.
    file: &'a str,
    /// Rows of the clip list, with their line numbers.
    rows: &'a RecordBatch,
}

impl ClipList<'_> {
    /// Returns the clip key of each row of the list.
    fn keys(&self) -> Result<StringViewArray, CatalogError> {
        let Some(column) = self.rows.column_by_name(KEY) else {
            let schema = self.rows.schema();
            let names: Vec<&str> = schema
                .fields()
                .iter()
                .map(|field| field.name().as_str())
                .filter(|name| *name != LINE)
                .collect();
            return Err(self.fault_of_header(format!(
                "no column `{KEY}` with the path of each row's file below the audio root; nearest: {}",
                nearest(KEY, &names)
            )));
        };
        let text = cast(column, &DataType::Utf8View)
            .map_err(|_| self.fault_of_header(format!("column `{KEY}` is not text")))?;
        Ok(text.as_string_view().clone())
    }

    /// Returns for each clip of `clips` the index of the list's row that names the clip, or null.
    fn places(
        &self,
        keys: &StringViewArray,
        clips: &RecordBatch,
    ) -> Result<UInt32Array, CatalogError> {
        let mut row_of: HashMap<&str, u32> = HashMap::with_capacity(keys.len());
        for (row, key) in (0..).zip(keys) {
            let Some(key) = key else {
                return Err(self.fault_of_row(row, format!("no `{KEY}`")));
            };
            if let Some(first) = row_of.insert(key, row) {
                let there = self.place(first);
                let problem = format!("`{KEY}` {key} is already on {there}");
                return Err(self.fault_of_row(row, problem));
            }
        }

        let clip_keys = clips[KEY].as_string_view();
        let places: UInt32Array = clip_keys
            .iter()
            .map(|key| row_of.get(key?).copied())
            .collect();
        // If no key of the list matches a clip, the keys have another form. This is an error, not a list without clips.
        if places.null_count() == places.len() {
            return Err(self.fault("", &no_match(keys, clip_keys)));
        }
        Ok(places)
    }

    /// Checks that the values of the list's column `genre` are equal to the folders.
    fn require_same_genres(
        &self,
        column: usize,
        clips: &RecordBatch,
        places: &UInt32Array,
    ) -> Result<(), CatalogError> {
        let listed = cast(self.rows.column(column), &DataType::Utf8View).map_err(|_| {
            self.fault_of_header("column `genre` is not text: rename it".to_owned())
        })?;
        let listed = listed.as_string_view();
        let folders = clips["genre"].as_string_view();

        for (clip, row) in places.iter().enumerate() {
            let Some(row) = row.filter(|&row| listed.is_valid(row as usize)) else {
                continue;
            };
            let genre = listed.value(row as usize);
            let folder = folders.is_valid(clip).then(|| folders.value(clip));
            if folder == Some(genre) {
                continue;
            }
            let lies = match folder {
                Some(folder) => format!("in the folder `{folder}`"),
                None => "in no folder".to_owned(),
            };
            return Err(self.fault_of_row(
                row,
                format!(
                    "column `genre` has `{genre}`, but the file is {lies}, which determines its genre: rename the column \
                     to keep both"
                ),
            ));
        }
        Ok(())
    }

    /// Returns a warning for list rows that name no clip, and one for clips that no list row names.
    fn unmatched(
        &self,
        n_rows: usize,
        absent: &[String],
        n_clips: usize,
        unlisted: &[String],
    ) -> Vec<String> {
        let mut warnings = Vec::new();
        let file = self.file;
        if let Some(first) = absent.first() {
            warnings.push(format!(
                "metadata file {file}: {} of its {n_rows} rows name no file below the audio root, such as {first}",
                absent.len()
            ));
        }
        if let Some(first) = unlisted.first() {
            warnings.push(format!(
                "metadata file {file}: {} of {n_clips} files have no row in it, such as {first}: its columns are null there",
                unlisted.len()
            ));
        }
        warnings
    }

    /// Returns the keys of the clip list that belong to no clip, in the list's order.
    fn absent(keys: &StringViewArray, places: &UInt32Array) -> Vec<String> {
        let mut is_matched = vec![false; keys.len()];
        for row in places.iter().flatten() {
            is_matched[row as usize] = true;
        }
        let keys = keys.iter().flatten().zip(is_matched);
        keys.filter(|(_, is_matched)| !is_matched)
            .map(|(key, _)| key.to_owned())
            .collect()
    }

    /// Returns the keys of the clips that no row of the clip list names.
    fn unlisted(places: &UInt32Array, clips: &RecordBatch) -> Vec<String> {
        let keys = clips[KEY].as_string_view().iter().flatten();
        let keys = keys.zip(places);
        keys.filter(|(_, row)| row.is_none())
            .map(|(key, _)| key.to_owned())
            .collect()
    }

    /// Formats the position of a row: `line 3` in a CSV file, `row 3` in a Parquet file.
    fn place(&self, row: u32) -> String {
        let word = if TableFormat::of(self.file) != TableFormat::Csv {
            "row"
        } else {
            "line"
        };
        let lines = self.rows[LINE].as_primitive::<Int64Type>();
        format!("{word} {}", lines.value(row as usize))
    }

    fn fault_of_row(&self, row: u32, problem: String) -> CatalogError {
        self.fault(&format!(", {}", self.place(row)), &problem)
    }

    /// Creates an error about the header of a CSV file or the schema of a Parquet file.
    fn fault_of_header(&self, problem: String) -> CatalogError {
        let place = if TableFormat::of(self.file) != TableFormat::Csv {
            ""
        } else {
            ", line 1"
        };
        self.fault(place, &problem)
    }

    fn fault(&self, place: &str, problem: &str) -> CatalogError {
        CatalogError::Unusable(format!("metadata file {}{place}: {problem}", self.file))
    }
}

/// Describes that no row matches a file, with an example of a key and of a file. The preferred example is a file of
/// almost the same name, or of the same name in another folder, because it shows the difference best.
fn no_match(keys: &StringViewArray, clip_keys: &StringViewArray) -> String {
    let Some(listed) = keys.iter().flatten().next() else {
        return "it contains no rows".to_owned();
    };
    let mut clips = clip_keys.iter().flatten();
    let near = near_matches(&BTreeSet::from([listed]), clips.clone()).pop();
    let near = near.and_then(|pair| clips.clone().find(|key| *key == pair.file));
    let moved = clips
        .clone()
        .find(|key| file_name(stem(key)) == file_name(stem(listed)));
    let found = near.or(moved).or_else(|| clips.next());
    format!(
        "none of its {} rows names an existing file: it lists {listed}, but the audio root contains {}; each `{KEY}` \
         must be the path below the audio root, including the file extension",
        keys.len(),
        found.unwrap_or("no file")
    )
}

/// Returns a clip key without its file extension.
fn stem(key: &str) -> &str {
    key.rsplit_once('.').map_or(key, |(stem, _)| stem)
}

fn file_name(key: &str) -> &str {
    key.rsplit_once('/').map_or(key, |(_, name)| name)
}
