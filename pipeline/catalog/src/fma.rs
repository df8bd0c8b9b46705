//! Properties of FMA's files: the types of their columns, and the mapping from track ids to clips.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};

use super::CatalogError;
use super::types::ColumnKind;

/// Adds the column `clip_key` to the typed tracks, after the line column. The key of track 2 is `000/000002.mp3`: the
/// id with at least six digits, in a folder named after the first three.
///
/// # Errors
/// `Arrow` if the batch cannot be built.
pub(super) fn keyed(tracks: &RecordBatch) -> Result<RecordBatch, CatalogError> {
    let ids = tracks["track_id"].as_primitive::<Int64Type>();
    let keys: StringViewArray = ids.iter().map(|id| id.map(clip_key)).collect();

    let mut fields = tracks.schema().fields().to_vec();
    let mut columns = tracks.columns().to_vec();
    // `clip_key` is inserted after the line column, which is first.
    fields.insert(
        1,
        Arc::new(Field::new("clip_key", DataType::Utf8View, true)),
    );
    columns.insert(1, Arc::new(keys));
    Ok(RecordBatch::try_new(
        Arc::new(Schema::new(fields)),
        columns,
    )?)
}

fn clip_key(track_id: i64) -> String {
    let name = format!("{track_id:0>6}");
    [&name[..3], "/", &name, ".mp3"].concat()
}

/// Returns the name of the metadata file that contains a further table, such as `features.csv`.
pub(super) fn file_of(table: &str) -> Option<String> {
    match table {
        "fma_features" => Some("features.csv".to_owned()),
        "genres" | "echonest" => Some(format!("{table}.csv")),
        _ => table.starts_with("raw_").then(|| format!("{table}.csv")),
    }
}

/// Returns the type of a column of `tracks.csv`, `genres.csv`, `echonest.csv` or `features.csv`, by its flattened name.
pub(super) fn kind(column: &str) -> ColumnKind {
    match column {
        "track_id" | "genre_id" | "parent" | "top_level" | "tracks" => ColumnKind::Int,
        "album_id" | "artist_id" => ColumnKind::Id,
        "album_comments" | "album_favorites" | "album_listens" | "album_tracks" => ColumnKind::Int,
        "artist_comments" | "artist_favorites" => ColumnKind::Int,
        "track_bit_rate" | "track_comments" | "track_duration" | "track_favorites" => {
            ColumnKind::Int
        }
        "track_interest" | "track_listens" | "track_number" => ColumnKind::Int,
        "artist_latitude" | "artist_longitude" => ColumnKind::Float,
        "album_date_created" | "album_date_released" => ColumnKind::Timestamp,
        "artist_active_year_begin" | "artist_active_year_end" | "artist_date_created" => {
            ColumnKind::Timestamp
        }
        "track_date_created" | "track_date_recorded" => ColumnKind::Timestamp,
        "track_genres" | "track_genres_all" => ColumnKind::Ints,
        "album_tags" | "artist_tags" | "track_tags" => ColumnKind::Texts,
        _ => ColumnKind::Text,
    }
}
