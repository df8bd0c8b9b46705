//! Titles and artists of tracks, read from the store that a run was trained on.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use wavemill_loader::Store;

/// Columns of the table `tracks` that may contain a track's title, in order of preference.
const TITLES: [&str; 2] = ["track_title", "title"];
/// Columns of the table `tracks` that may contain a track's artist, in order of preference.
const ARTISTS: [&str; 2] = ["artist_name", "artist"];

/// Titles and artists of the tracks shown on a page.
#[derive(Clone, Debug, Default)]
pub(super) struct Titles {
    tracks: HashMap<i64, [Option<String>; 2]>,
    /// Sentence that states why titles and artists are not available; `None` if they are.
    pub missing: Option<String>,
}

impl Titles {
    /// Reads the titles of the tracks `wanted` from `store`, or states why the store cannot be read. Never fails: if
    /// titles cannot be read, the page shows only the ids of the tracks.
    pub(super) fn read(store: &Result<Store, &'static str>, wanted: &HashSet<i64>) -> Self {
        let store = match store {
            Ok(store) => store,
            Err(reason) => return Self::without(reason),
        };
        let is_wanted =
            |name: &str| name == "track_id" || TITLES.contains(&name) || ARTISTS.contains(&name);
        // The Parquet reader panics on some damaged pages, so panics are caught.
        let table = catch_unwind(AssertUnwindSafe(|| store.table("tracks", is_wanted)));
        let Ok(Ok(Some(table))) = table else {
            return Self::without("the store's tracks cannot be read");
        };
        let tracks = tracks_of(&table, wanted).unwrap_or_default();
        if tracks.is_empty() {
            return Self::without("the store has no titles for these tracks");
        }
        Self {
            tracks,
            missing: None,
        }
    }

    fn without(reason: &str) -> Self {
        Self {
            tracks: HashMap::new(),
            missing: Some(format!("Titles and artists are not available: {reason}.")),
        }
    }

    /// Returns the title and artist of a track, if known.
    pub(super) fn get(&self, track_id: i64) -> [Option<String>; 2] {
        self.tracks.get(&track_id).cloned().unwrap_or_default()
    }
}

/// Returns titles and artists by track id, or `None` if the table has no column of ids, or neither titles nor artists.
fn tracks_of(
    table: &RecordBatch,
    wanted: &HashSet<i64>,
) -> Option<HashMap<i64, [Option<String>; 2]>> {
    let ids = table.column_by_name("track_id")?;
    let ids = cast(ids, &DataType::Int64).ok()?;
    let ids = ids.as_primitive::<Int64Type>();
    let titles = first_texts(table, &TITLES);
    let artists = first_texts(table, &ARTISTS);
    if titles.is_none() && artists.is_none() {
        return None;
    }

    let mut tracks = HashMap::new();
    for (row, id) in ids.iter().enumerate() {
        let Some(id) = id.filter(|id| wanted.contains(id)) else {
            continue;
        };
        let names =
            [&titles, &artists].map(|texts| texts.as_ref().and_then(|texts| texts[row].clone()));
        tracks.insert(id, names);
    }
    Some(tracks)
}

/// Returns the values of the first existing column among the given names, as text.
fn first_texts(table: &RecordBatch, names: &[&str]) -> Option<Vec<Option<String>>> {
    let mut columns = names.iter().filter_map(|name| table.column_by_name(name));
    let texts = cast(columns.next()?, &DataType::Utf8).ok()?;
    let texts = texts.as_string_opt::<i32>()?;
    Some(texts.iter().map(|text| text.map(str::to_owned)).collect())
}
