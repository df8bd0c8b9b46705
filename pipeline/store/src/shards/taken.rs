//! Reads rows from the files of an earlier version, so that they need not be computed again.
//!
//! Only the tensor and the facts that came from decoding the clip are copied. All other columns come from the current
//! metadata, and the same code encodes them, so a file does not depend on which of its rows were copied.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder, RowSelection, RowSelector,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::PageIndexPolicy;
use wavemill_schemas::columns::{RowColumn, RowFacts, row_columns};
use wavemill_schemas::input::InputSeen;
use wavemill_schemas::manifest::FeatureEntry;
use wavemill_schemas::reject::Reject;

use crate::StoreError;
use crate::tensors::{self, Tensor};

/// Number of rows of a clip that are read at a time. The batch that Parquet decodes needs memory besides the rows.
pub const TAKEN_BATCH_ROWS: usize = 4;

/// Maximum number of shards whose files a thread keeps open.
const OPEN_SHARDS: usize = 8;

/// Consecutive rows of one variant of a clip in one row group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowRun {
    /// Variant of the rows: 1.0, or the factor by which the clip was stretched.
    pub variant: f32,
    /// Index into the shards of [`TakenRows::files`].
    pub shard: usize,
    /// Number of the row group in the file, from 0.
    pub group: usize,
    /// First row of the run, from 0 within the row group.
    pub first: usize,
    /// Number of rows in the run.
    pub n: usize,
}

/// A clip whose rows are copied.
#[derive(Clone, Debug)]
pub struct TakenClip {
    /// Rows of all segments of the requested variants, or the reason why the clip has none.
    pub outcome: Result<Vec<RowRun>, Reject>,
    /// Decoded duration of the clip in seconds, before padding; 0 for a reject.
    pub duration_s: f32,
    /// The current content of the clip's file.
    pub seen: InputSeen,
}

/// All rows that are copied in one pass.
#[derive(Debug, Default)]
pub struct TakenRows {
    /// Copied clips by index into the cleaned rows.
    pub clips: HashMap<usize, TakenClip>,
    /// Files to copy from, by shard of the earlier version, then by feature of the pass. Their blake3 was checked.
    pub files: Vec<Vec<PathBuf>>,
    /// Entry of each feature of the pass in the earlier version's manifest, which names the feature's column.
    pub columns: Vec<FeatureEntry>,
}

/// A row of an earlier version.
#[derive(Default)]
pub struct TakenRow {
    /// Facts about the row.
    pub facts: RowFacts,
    /// One tensor per feature, in the order of the pass.
    pub tensors: Vec<Tensor>,
}

/// Reads rows to be copied from an earlier version; each thread has its own reader.
pub struct RowReader<'a> {
    taken: &'a TakenRows,
    /// The open files of each shard, one per feature.
    open: HashMap<usize, Vec<OpenFile>>,
}

struct OpenFile {
    path: PathBuf,
    file: File,
    metadata: ArrowReaderMetadata,
}

impl<'a> RowReader<'a> {
    /// Creates a reader without opening a file.
    pub fn new(taken: &'a TakenRows) -> Self {
        Self {
            taken,
            open: HashMap::new(),
        }
    }

    /// Returns the rows of a clip, ordered by variant (the original tempo first) and segment.
    ///
    /// # Errors
    /// [`StoreError::rows`] if the rows cannot be read.
    pub fn rows(&mut self, runs: &[RowRun]) -> Result<Vec<TakenRow>, StoreError> {
        let mut rows = Vec::new();
        for run in runs {
            self.read_run(run, &mut rows)?;
        }
        // Under the rules by segment, the segments of a clip are spread over several shards.
        rows.sort_by(|TakenRow { facts: a, .. }, TakenRow { facts: b, .. }| {
            let by_variant = (a.variant != 1.0).cmp(&(b.variant != 1.0));
            by_variant
                .then(a.variant.total_cmp(&b.variant))
                .then(a.segment.cmp(&b.segment))
        });
        Ok(rows)
    }

    fn read_run(&mut self, run: &RowRun, rows: &mut Vec<TakenRow>) -> Result<(), StoreError> {
        let columns = &self.taken.columns;
        let files = self.files(run.shard)?;
        let first = rows.len();
        for (number, (open, feature)) in files.iter().zip(columns).enumerate() {
            let facts = (number == 0).then_some(&mut *rows);
            let tensors = open.read_run(run, feature, facts);
            let tensors = tensors.map_err(|error| unreadable(&open.path, error))?;
            for (row, tensor) in rows[first..].iter_mut().zip(tensors) {
                row.tensors.push(tensor);
            }
        }
        Ok(())
    }

    fn files(&mut self, shard: usize) -> Result<&[OpenFile], StoreError> {
        if !self.open.contains_key(&shard) {
            // The clips of a shard come from one shard of the earlier version in most cases, and from a few at most.
            if self.open.len() == OPEN_SHARDS {
                self.open.clear();
            }
            let paths = &self.taken.files[shard];
            let opened: Result<Vec<_>, _> = paths.iter().map(OpenFile::open).collect();
            self.open.insert(shard, opened?);
        }
        Ok(&self.open[&shard])
    }
}

impl OpenFile {
    fn open(path: &PathBuf) -> Result<Self, StoreError> {
        Self::open_by_page(path).map_err(|error| unreadable(path, error))
    }

    fn open_by_page(path: &PathBuf) -> Result<Self, ParquetError> {
        let file = File::open(path)?;
        // With the page index, only the pages of the requested rows are read.
        let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
        let metadata = ArrowReaderMetadata::load(&file, options)?;
        Ok(Self {
            path: path.clone(),
            file,
            metadata,
        })
    }

    /// Returns the tensors of a feature in the rows of `run`. Appends rows with the other columns to `facts`, if it is
    /// given.
    fn read_run(
        &self,
        run: &RowRun,
        feature: &FeatureEntry,
        mut facts: Option<&mut Vec<TakenRow>>,
    ) -> Result<Vec<Tensor>, ParquetError> {
        let mut tensors = Vec::with_capacity(run.n);
        for batch in self.read(run, feature, facts.is_some())? {
            let batch = batch?;
            if let Some(rows) = &mut facts {
                append_rows(&batch, rows)?;
            }
            tensors.extend(tensors::read(&batch, feature)?);
        }

        if tensors.len() != run.n {
            let problem = format!(
                "row group {} has {} rows instead of {}",
                run.group,
                tensors.len(),
                run.n
            );
            return Err(ParquetError::General(problem));
        }
        Ok(tensors)
    }

    /// Returns the rows of `run` in small batches: the feature's tensor and, if `with_facts`, the columns of facts.
    fn read(
        &self,
        run: &RowRun,
        feature: &FeatureEntry,
        with_facts: bool,
    ) -> Result<ParquetRecordBatchReader, ParquetError> {
        let tensor_columns = tensors::columns(feature);
        let mut names: Vec<&str> = tensor_columns.iter().map(String::as_str).collect();
        if with_facts {
            names.extend(facts().map(|column| column.name));
        }

        let schema = self.metadata.schema();
        let mut roots = Vec::with_capacity(names.len());
        for name in names {
            roots.push(schema.index_of(name)?);
        }
        let mask = ProjectionMask::roots(self.metadata.parquet_schema(), roots);
        let selection = vec![RowSelector::skip(run.first), RowSelector::select(run.n)];

        let file = self.file.try_clone()?;
        ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone())
            .with_projection(mask)
            .with_row_groups(vec![run.group])
            .with_row_selection(RowSelection::from(selection))
            .with_batch_size(TAKEN_BATCH_ROWS)
            .build()
    }
}

/// Returns the error for a file whose bytes are as committed but whose rows cannot be read.
fn unreadable(path: &Path, error: ParquetError) -> StoreError {
    let path = path.display();
    let problem =
        format!("{path}: cannot read rows to copy them; use --recompute to compute all rows");
    StoreError::rows(problem)(error)
}

/// Returns the columns that are copied in addition to tensors.
fn facts() -> impl Iterator<Item = &'static RowColumn> {
    row_columns().filter(|column| column.is_fact())
}

fn append_rows(batch: &RecordBatch, rows: &mut Vec<TakenRow>) -> Result<(), ParquetError> {
    let first = rows.len();
    rows.resize_with(first + batch.num_rows(), TakenRow::default);
    for column in facts() {
        let array = batch.column_by_name(column.name);
        let rows = rows[first..].iter_mut().map(|row| &mut row.facts);
        let copied = array.and_then(|array| column.copy_facts(array, rows));
        let problem = "the columns of a clip do not have the expected types";
        copied.ok_or_else(|| ParquetError::General(problem.to_owned()))?;
    }
    Ok(())
}
