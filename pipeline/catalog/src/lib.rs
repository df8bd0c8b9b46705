//! Converts metadata files to cleaned rows, class lists and splits.
//!
//! A broken row becomes a reject with line and column, never an error. Cleaning runs the recipe's own SQL in
//! DataFusion. This module never opens a clip: it only uses the index of the audio files.

mod clean;
mod csv_blocks;
mod csv_record;
mod csv_text;
mod engine;
mod error;
mod extra;
mod files;
mod fma;
mod folders;
mod load;
mod metadata;
mod numbering;
mod python_list;
mod rows;
mod rows_hash;
mod spelling;
pub mod split;
mod splitting;
pub mod statements;
mod steps;
#[cfg(test)]
mod tests;
mod timings;
mod types;
mod wide;

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use arrow::array::{AsArray, RecordBatch};
use wavemill_schemas::clip::ClipRow;
use wavemill_schemas::recipe::AUDIO_STEP;
use wavemill_schemas::recipe::GroupDuplicates;
use wavemill_schemas::reject::Reject;

pub use self::clean::clean;
pub use self::error::CatalogError;
pub use self::extra::{ExtraTable, extra_tables};
pub use self::files::{Fate, FileAccount, FilesOfKind, NearMatch, hint_of_file};
pub use self::metadata::{MetadataFiles, fingerprints};
pub use self::numbering::ClassLists;
use self::rows::Labels;
pub use self::rows::split_column;
pub use self::steps::parse_where;
pub use self::timings::Timings;

/// Default of [`CatalogSettings::reject_fraction`]. A file of which most rows are rejected has another form.
const REJECT_FRACTION: f64 = 0.5;

/// Memory and thread limits of the catalog.
#[derive(Clone, Copy, Debug)]
pub struct CatalogSettings {
    /// Memory limit for sorts, joins and groups of the cleaning steps, in bytes. Memory for the rows themselves is not
    /// included. Default 256 MiB: FMA's 106,574 rows need a tenth of it.
    pub memory_bytes: usize,
    /// Number of threads for parsing CSV files, converting their types and other parallel work. Default: the number of
    /// processors of the machine.
    pub threads: usize,
    /// Maximum fraction of a file's rows that may be rejected. Default 0.5.
    pub reject_fraction: f64,
}

impl Default for CatalogSettings {
    fn default() -> Self {
        Self {
            memory_bytes: 256 << 20,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            reject_fraction: REJECT_FRACTION,
        }
    }
}

/// Numbers of rows that one cleaning step kept and dropped.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct StepCount {
    /// Name of the cleaning step.
    pub step: String,
    /// Number of rows that the cleaning step dropped.
    pub dropped: u64,
    /// Number of rows that remain after the cleaning step.
    pub kept: u64,
}

/// The recordings of clips, by `clip_key`, as found for `split.group_duplicates`.
#[derive(Clone, Debug, Default)]
pub struct Recordings {
    /// Audio hashes (`audio_blake3`). A clip without an entry counts as a separate recording.
    pub hashes: HashMap<String, blake3::Hash>,
    /// Number of the group of a clip that has near copies.
    pub near_groups: HashMap<String, usize>,
}

/// Duplicate recordings found for `split.group_duplicates`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Duplicates {
    /// Number of clips whose audio was hashed.
    pub clips_hashed: u64,
    /// Number of recordings that occur under two or more clip keys.
    pub recordings: u64,
    /// Number of clips whose recording occurs under two or more clip keys.
    pub clips: u64,
    /// Number of clips with near copies; `None` if these were not looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clips_near: Option<u64>,
}

impl Duplicates {
    fn new(recordings: &Recordings, grouping: GroupDuplicates) -> Self {
        let hashes = &recordings.hashes;
        let mut clips_of: HashMap<_, u64> = HashMap::new();
        for hash in hashes.values() {
            *clips_of.entry(hash).or_default() += 1;
        }

        let repeated: Vec<u64> = clips_of.into_values().filter(|clips| *clips > 1).collect();
        Self {
            clips_hashed: hashes.len() as u64,
            recordings: repeated.len() as u64,
            clips: repeated.iter().sum(),
            clips_near: (grouping == GroupDuplicates::Near)
                .then_some(recordings.near_groups.len() as u64),
        }
    }
}

/// A clip whose split (training, validation or test) differs from its split in the previous version.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SplitMove {
    /// Key of the clip.
    pub clip_key: String,
    /// Split of the clip in the previous version.
    pub from: String,
    /// Split of the clip in this version.
    pub to: String,
}

impl fmt::Display for SplitMove {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} -> {}", self.clip_key, self.from, self.to)
    }
}

/// The cleaned rows, before they are assigned to training, validation and test.
pub struct CleanedRows {
    rows: RecordBatch,
    labels: Vec<Labels>,
    threads: usize,
    /// Files that are missing from the clip list of a `folders` data set.
    unlisted: Vec<String>,
    /// The finished parts of the catalog: all but `clips`, `duplicates` and some of the tables.
    catalog: Catalog,
}

/// The complete result of reading, cleaning and splitting the metadata.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// Cleaned rows, ordered by `clip_key`.
    pub clips: Vec<ClipRow>,
    /// Class names in id order, per target name.
    pub classes: ClassLists,
    /// Those of the following tables that the data set provides: `tracks` (cleaned, with the splits by every rule, in
    /// the order of `clips`), `tracks_all` (as parsed, in file order, with `dropped_by`), `albums`, `artists`,
    /// `genres`. Their text columns are `Utf8View`. For `sides` see `wavemill_schemas::tables::sides_schema`.
    pub tables: BTreeMap<String, RecordBatch>,
    /// Number of records in the main metadata file, without header lines.
    pub rows_read: u64,
    /// Counts per cleaning step, in order: `subset` if the recipe sets one, the recipe's steps, and `audio` if audio is
    /// required.
    pub steps: Vec<StepCount>,
    /// Sorted keys without an audio file: keys of rows that step `audio` dropped, and keys of a clip list (`folders`).
    pub absent: Vec<String>,
    /// Rejected rows of the main metadata file, with the reason `bad_row` or `bad_encoding`, by line. The rows read are
    /// the kept, the dropped and these rejected rows.
    pub rejects: Vec<Reject>,
    /// Rejected rows of the other metadata files, such as `genres.csv`; not included in the number of rows read.
    pub further_rejects: Vec<Reject>,
    /// Duplicate recordings; set only with `split.group_duplicates`.
    pub duplicates: Option<Duplicates>,
    /// Clips that changed splits because their group was merged with a group of another split, ordered by key.
    pub merges: Vec<SplitMove>,
    /// Warnings for the user (such as: over half of the rows have no audio), one sentence each.
    pub warnings: Vec<String>,
    /// Wall-clock seconds of the phases `read` (from files to typed rows), `clean` (the steps), `labels` and `split`.
    pub wall_s: BTreeMap<&'static str, f64>,
}

impl Catalog {
    /// Returns the number of rows that were dropped because their clip has no file.
    pub fn clips_absent(&self) -> u64 {
        self.steps
            .iter()
            .find(|step| step.step == AUDIO_STEP)
            .map_or(0, |step| step.dropped)
    }
}

impl Catalog {
    /// Returns the BLAKE3 hash over every column of `tracks`, in hex. A preview does not need this hash.
    ///
    /// # Errors
    /// Fails if arrow cannot format a value of an unusual type.
    pub fn rows_hash(&self) -> Result<String, CatalogError> {
        Ok(self
            .tables
            .get("tracks")
            .map(rows_hash::rows_hash)
            .transpose()?
            .unwrap_or_default())
    }
}

impl CleanedRows {
    /// Returns the keys of the cleaned rows, in order. If the key column is not text, which [`CleanedRows::split`]
    /// refuses, the iterator is empty.
    pub fn clip_keys(&self) -> impl Iterator<Item = &str> {
        let keys = self.rows["clip_key"].as_string_view_opt();
        keys.into_iter().flat_map(|keys| keys.iter().flatten())
    }

    /// Reports whether no row remains after cleaning.
    pub fn is_empty(&self) -> bool {
        self.rows.num_rows() == 0
    }

    /// Returns the row counts of each cleaning step, in order.
    pub fn steps(&self) -> &[StepCount] {
        &self.catalog.steps
    }

    /// Returns class names per target name, in the order of the ids that a first version would assign.
    pub const fn classes(&self) -> &ClassLists {
        &self.catalog.classes
    }
}
