//! Column names of feature rows, from which their schema is built. Recipes may not use them for their own columns.

/// Columns of all feature rows, without the targets and the tensor. Features and targets may not have these names.
pub(crate) const ROW_COLUMNS: [&str; 12] = [
    "clip_key",
    "track_id",
    "segment",
    "offset_s",
    "variant",
    "genres_all",
    "artist_id",
    "album_id",
    "duration_s",
    "lost_s",
    "silent",
    "audio_blake3",
];

/// Returns the name of the column with the shapes of a ragged feature.
pub fn shape_column(feature: &str) -> String {
    format!("{feature}_shape")
}
