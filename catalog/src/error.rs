//! Errors that stop the catalog: unreadable metadata, a failing cleaning step, or two rows for one clip.

use std::path::PathBuf;

use datafusion::error::DataFusionError;
use wavemill_schemas::exit;
use wavemill_source::SourceError;

/// The error type of the catalog. A bad row is a reject instead of an error.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The data set needs metadata, and none was given.
    #[error("data set `{dataset}` needs metadata: name its folder, zip or file with --metadata")]
    NoMetadata {
        /// Kind of the data set.
        dataset: &'static str,
    },
    /// A metadata file, folder or zip cannot be opened.
    #[error("metadata")]
    Source(#[from] SourceError),
    /// The folder or zip does not contain the file.
    #[error("metadata {path}: `{wanted}` not found; found: {found}")]
    NoFile {
        /// The folder or zip.
        path: PathBuf,
        /// The missing file.
        wanted: &'static str,
        /// The files found instead, shortened.
        found: String,
    },
    /// The header does not have the form that the data set requires.
    #[error(
        "metadata file {file}: no header line starts with `track_id` (FMA's files have one among the first {lines}): \
         --metadata takes FMA's folder, its zip, or tracks.csv"
    )]
    Header {
        /// The file's name.
        file: String,
        /// Number of lines searched for the header.
        lines: usize,
    },
    /// The header is not UTF-8.
    #[error("metadata file {file}: its header is not UTF-8")]
    HeaderEncoding {
        /// The file's name.
        file: String,
    },
    /// Two columns have the same name.
    #[error("metadata file {file}: two columns are named `{column}`")]
    DuplicateColumn {
        /// The file's name.
        file: String,
        /// The name, after flattening.
        column: String,
    },
    /// The file has too many columns.
    #[error(
        "metadata file {file}: {columns} columns exceed the limit of {columns_max}: remove columns that no cleaning step \
         needs, or move them to a separate file"
    )]
    TooManyColumns {
        /// The file's name.
        file: String,
        /// Number of columns in the header.
        columns: usize,
        /// Maximum number of columns.
        columns_max: usize,
    },
    /// The header does not end within the maximum length.
    #[error(
        "metadata file {file}: its first line does not end within {bytes_max} bytes: is it a CSV file?"
    )]
    LongHeader {
        /// The file's name.
        file: String,
        /// Maximum length of the header, in bytes.
        bytes_max: usize,
    },
    /// The operating system fails to read a CSV file.
    #[error("metadata file {file}")]
    Csv {
        /// The file's name.
        file: String,
        /// The cause.
        source: std::io::Error,
    },
    /// The operating system fails to read a Parquet file.
    #[error("metadata file {file}")]
    Parquet {
        /// The file's name.
        file: String,
        /// The cause.
        source: parquet::errors::ParquetError,
    },
    /// The bytes of a CSV or Parquet file cannot be decoded.
    #[error(
        "metadata file {file} is damaged, truncated, or not in the format of its file extension ({problem}): copy it again \
         from its source, or rewrite it"
    )]
    Damaged {
        /// The file's name.
        file: String,
        /// The reader's message.
        problem: String,
    },
    /// A cleaning step's SQL is refused or fails.
    #[error("cleaning step `{step}`: {message}")]
    Step {
        /// The step's name.
        step: String,
        /// One line: the engine's message, with the nearest known columns if a column is unknown. There is no `source`,
        /// because its message would list every known column.
        message: String,
    },
    /// A cleaning step reads an unknown table.
    #[error("cleaning step `{step}`: no table `{table}`: {hint}")]
    NoTable {
        /// The step's name.
        step: String,
        /// The table.
        table: String,
        /// The file that provides the table and the place where it is missing, or the tables with similar names.
        hint: String,
    },
    /// A step's query lost the columns that identify rows.
    #[error("cleaning step `{step}`: its result has {problem}; {remedy}")]
    StepKey {
        /// The step's name.
        step: String,
        /// Description of the problem.
        problem: String,
        /// The suggested solution.
        remedy: &'static str,
    },
    /// The rows cannot be matched to files after the last step.
    #[error(
        "the cleaned rows have {problem}: a cleaning step must set a unique text `clip_key` for each row"
    )]
    ClipKey {
        /// Description of the problem.
        problem: String,
    },
    /// A file has no lines.
    #[error("metadata file {file} is empty: its first line must name the columns")]
    NoHeader {
        /// The file's name.
        file: String,
    },
    /// A file has a column with the name of a column that the catalog adds.
    #[error(
        "metadata file {file}: the column name `{column}` is reserved by wavemill: rename the column in the file"
    )]
    OwnColumn {
        /// The file's name.
        file: String,
        /// The column.
        column: String,
    },
    /// Two clips have the same id.
    #[error(
        "track_id {track_id} belongs to two clips: {first} and {second}; the cleaning steps must keep track_id \
         unique"
    )]
    TrackIdCollision {
        /// The id.
        track_id: i64,
        /// Key of the first clip.
        first: String,
        /// Key of the second clip.
        second: String,
    },
    /// The recipe names a column that the cleaned rows do not have.
    #[error("{wanted_by}: the cleaned rows have no {kind} column `{column}`; nearest: {nearest}")]
    Column {
        /// The part of the recipe that uses the column.
        wanted_by: String,
        /// The required type.
        kind: &'static str,
        /// The column.
        column: String,
        /// Known columns with similar names.
        nearest: String,
    },
    /// A value of the split column is not a valid folder name.
    #[error(
        "split column `{column}` has the value {value:?}: sides are folders, named by letters, digits, `_`, `-`, `.`"
    )]
    SplitValue {
        /// The column.
        column: String,
        /// The value.
        value: String,
    },
    /// None of the rows has a file.
    #[error(
        "none of the {rows} rows has a file below the audio root: expected, for example, {example}{hint}"
    )]
    NoAudio {
        /// Number of rows before the audio step.
        rows: usize,
        /// The key of a missing file.
        example: String,
        /// A file that exists instead, preceded by a comma; empty if no file has a similar name.
        hint: String,
    },
    /// The catalog's own SQL or the engine failed, for example because it ran out of memory.
    #[error("catalog query")]
    Engine(#[from] DataFusionError),
    /// The recipe names a column of a type that it cannot use.
    #[error(
        "{wanted_by}: column `{column}` has type {found}, not {kind}: convert it in a cleaning step, such as \
         sql = \"SELECT * REPLACE (CAST({column} AS VARCHAR) AS {column}) FROM input\""
    )]
    ColumnType {
        /// The part of the recipe that uses the column.
        wanted_by: String,
        /// The required type.
        kind: &'static str,
        /// The column.
        column: String,
        /// The column's type.
        found: String,
    },
    /// A clip list for `folders` cannot be matched to the audio files.
    #[error("metadata file {file}{place}: {problem}")]
    ClipList {
        /// The list's name.
        file: String,
        /// `, line 3`, or empty if the error concerns the whole list.
        place: String,
        /// Description of the problem and of its solution.
        problem: String,
    },
    /// The job was asked to stop.
    #[error("interrupted; nothing was written")]
    Stopped,
    /// An arrow kernel failed.
    #[error("catalog columns")]
    Arrow(#[from] arrow::error::ArrowError),
}

impl CatalogError {
    /// Returns the exit code of the command. Metadata whose first lines are of another kind of file are a wrong path.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Stopped => exit::INTERRUPTED,
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
            | Self::Header { .. }
            | Self::HeaderEncoding { .. }
            | Self::NoHeader { .. }
            | Self::DuplicateColumn { .. } => exit::USAGE,
            Self::Csv { .. } | Self::Parquet { .. } | Self::Engine(_) | Self::Arrow(_) => {
                exit::FAILED
            }
        }
    }
}
