//! Names of the columns of feature rows. A recipe may not use them for its own, and the rows' schema is made of them.

/// Columns that every feature row has, besides the targets and the tensor: no feature or target may take their names.
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

/// Name of the column with the shapes of a ragged feature.
pub fn shape_column(feature: &str) -> String {
    format!("{feature}_shape")
}
