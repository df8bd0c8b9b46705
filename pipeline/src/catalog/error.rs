//! What can stop the catalog: the metadata as a whole, a step's SQL, or two rows that claim to be one clip.

use std::path::PathBuf;

use datafusion::error::DataFusionError;

use crate::source::SourceError;

/// Why there is no catalog. A bad row is no error but a reject.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The data set needs metadata, and none was named.
    #[error("data set `{dataset}` needs metadata: name its folder, zip or file with --metadata")]
    NoMetadata {
        /// Kind of the data set.
        dataset: &'static str,
    },
    /// A metadata file, folder or zip cannot be opened.
    #[error("metadata")]
    Source(#[from] SourceError),
    /// The folder or zip does not hold the file.
    #[error("metadata {path}: no `{wanted}` in it; there is {found}")]
    NoFile {
        /// The folder or zip.
        path: PathBuf,
        /// What is missing.
        wanted: &'static str,
        /// What there is, shortened.
        found: String,
    },
    /// The header is not of the data set's form.
    #[error(
        "metadata file {file}: no header line starts with `track_id` (FMA's files have one among the first {lines}): \
         --metadata takes FMA's folder, its zip, or tracks.csv"
    )]
    Header {
        /// The file's name.
        file: String,
        /// Lines that were looked at.
        lines: usize,
    },
    /// The header is no text.
    #[error("metadata file {file}: its header is not UTF-8")]
    HeaderEncoding {
        /// The file's name.
        file: String,
    },
    /// Two columns of one name.
    #[error("metadata file {file}: two columns are named `{column}`")]
    DuplicateColumn {
        /// The file's name.
        file: String,
        /// The name, after flattening.
        column: String,
    },
    /// More columns than are read.
    #[error(
        "metadata file {file}: {columns} columns, and at most {columns_max} are read: leave those out that no cleaning \
         step needs, or keep them in a file of their own"
    )]
    TooManyColumns {
        /// The file's name.
        file: String,
        /// What its header says.
        columns: usize,
        /// What is allowed.
        columns_max: usize,
    },
    /// No line break where the header should have ended.
    #[error(
        "metadata file {file}: its first line does not end within {bytes_max} bytes: is it a CSV file?"
    )]
    LongHeader {
        /// The file's name.
        file: String,
        /// What is looked at.
        bytes_max: usize,
    },
    /// A CSV file cannot be read on.
    #[error("metadata file {file}")]
    Csv {
        /// The file's name.
        file: String,
        /// The cause.
        source: std::io::Error,
    },
    /// The system fails to read a Parquet file.
    #[error("metadata file {file}")]
    Parquet {
        /// The file's name.
        file: String,
        /// The cause.
        source: parquet::errors::ParquetError,
    },
    /// The bytes of a CSV or Parquet file cannot be followed.
    #[error(
        "metadata file {file} is damaged, cut off, or not of the format that its name says ({problem}): copy it again from \
         where it came from, or write it anew"
    )]
    Damaged {
        /// The file's name.
        file: String,
        /// The reader's message.
        problem: String,
    },
    /// A cleaning step's SQL is refused, or fails.
    #[error("cleaning step `{step}`: {message}")]
    Step {
        /// The step's name.
        step: String,
        /// One line: the engine's message, with the nearest known columns where a name is unknown. No `source` beside
        /// it: that would list every column there is behind them.
        message: String,
    },
    /// A cleaning step reads a table that is not there.
    #[error("cleaning step `{step}`: no table `{table}`: {hint}")]
    NoTable {
        /// The step's name.
        step: String,
        /// The table.
        table: String,
        /// The file that it comes from and where that was looked for, or the tables that there are.
        hint: String,
    },
    /// A step's query lost what tells one row from another.
    #[error("cleaning step `{step}`: its result has {problem}; {remedy}")]
    StepKey {
        /// The step's name.
        step: String,
        /// What is wrong.
        problem: String,
        /// What to do.
        remedy: &'static str,
    },
    /// After the last step the rows cannot be joined to files.
    #[error(
        "the cleaned rows have {problem}: a cleaning step must give each row its own text in `clip_key`"
    )]
    ClipKey {
        /// What is wrong.
        problem: String,
    },
    /// A file without a line.
    #[error("metadata file {file} is empty: its first line must name the columns")]
    NoHeader {
        /// The file's name.
        file: String,
    },
    /// A column that rows are given here.
    #[error(
        "metadata file {file}: column `{column}` is one that wavemill adds: rename it in the file"
    )]
    OwnColumn {
        /// The file's name.
        file: String,
        /// The column.
        column: String,
    },
    /// Two clips with one id.
    #[error(
        "track_id {track_id} belongs to two clips: {first} and {second}; the cleaning steps must leave each clip one of \
         its own"
    )]
    TrackIdCollision {
        /// The id.
        track_id: i64,
        /// The one clip.
        first: String,
        /// The other clip.
        second: String,
    },
    /// The recipe names a column that the cleaned rows lack, or one of another type.
    #[error("{wanted_by}: the cleaned rows have no {kind} column `{column}`; nearest: {nearest}")]
    Column {
        /// Which part of the recipe wants it.
        wanted_by: String,
        /// The type that it should have.
        kind: &'static str,
        /// The column.
        column: String,
        /// Known columns with similar names.
        nearest: String,
    },
    /// A value of the split column that cannot be the name of a folder.
    #[error(
        "split column `{column}` has the value {value:?}: sides are folders, named by letters, digits, `_`, `-`, `.`"
    )]
    SplitValue {
        /// The column.
        column: String,
        /// The value.
        value: String,
    },
    /// Not one row has a file.
    #[error(
        "none of the {rows} rows has a file below the audio root: expected {example}, for one{hint}"
    )]
    NoAudio {
        /// Rows before the audio step.
        rows: usize,
        /// A key that was looked for.
        example: String,
        /// The file that is there instead, preceded by a comma; empty if no file is similar.
        hint: String,
    },
    /// Our own SQL or the engine failed (out of memory, for one).
    #[error("catalog query")]
    Engine(#[from] DataFusionError),
    /// The recipe names a column of a type that it cannot use.
    #[error(
        "{wanted_by}: column `{column}` holds {found}, not {kind}: change it in a cleaning step, such as \
         sql = \"SELECT * REPLACE (CAST({column} AS VARCHAR) AS {column}) FROM input\""
    )]
    ColumnType {
        /// Which part of the recipe wants it.
        wanted_by: String,
        /// The type that it should have.
        kind: &'static str,
        /// The column.
        column: String,
        /// Its type.
        found: String,
    },
    /// A list of clips for `folders` that cannot be joined to the audio's files.
    #[error("metadata file {file}{place}: {problem}")]
    ClipList {
        /// The list's name.
        file: String,
        /// `, line 3`, or empty where it is about the whole list.
        place: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The job was asked to stop.
    #[error("interrupted; nothing was written")]
    Stopped,
    /// A kernel of arrow failed.
    #[error("catalog columns")]
    Arrow(#[from] arrow::error::ArrowError),
}

impl CatalogError {
    /// Whether the recipe or the command line is at fault, and not the files.
    pub const fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::NoMetadata { .. }
                | Self::Source(_)
                | Self::NoFile { .. }
                | Self::Damaged { .. }
                | Self::Step { .. }
                | Self::NoTable { .. }
                | Self::StepKey { .. }
                | Self::ClipKey { .. }
                | Self::Column { .. }
                | Self::ColumnType { .. }
                | Self::ClipList { .. }
                | Self::TrackIdCollision { .. }
                | Self::OwnColumn { .. }
                | Self::TooManyColumns { .. }
                | Self::LongHeader { .. }
                | Self::SplitValue { .. }
                | Self::NoAudio { .. }
        )
    }
}
