//! Writes a model's outputs for each row of a split to Parquet files for other programs: predictions, vectors, and a
//! map of the vectors.
//!
//! Rows are written while they are computed, in the manifest's order, regardless of the number of ranks. A file gets
//! its final name only when it is complete.

use std::path::{Path, PathBuf};

use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use tch::{Device, Kind, TchError, Tensor};
use wavemill_evaluation::report::METADATA_KEY;
use wavemill_schemas::exit::PlainError;
use wavemill_scores::map::{MapSettings, STEPS, map, perplexity_for, rows_on_map};

use crate::dataset::{Batch, Dataset, Split};
use crate::error::{TrainError, cannot_write};
use crate::ffi;
use crate::learner::ModelOutput;
use crate::part_file::PartFile;
use crate::strategy::Collective;

mod columns;
mod rank_rows;

use columns::{Content, Layout, MapMetadata};
use rank_rows::RankRows;

pub(crate) use columns::RowFileMetadata;

/// Approximate number of bytes of values per Parquet row group. A group is held in memory until it is written.
const ROW_GROUP_BYTES: usize = 16 << 20;
/// Name prefix of an incomplete row file. `wavemill experiment run` removes incomplete files of killed processes.
const PREFIX: &str = ".rows-";

/// Paths of the row files to write; `None` for files that were not requested.
#[derive(Clone, Debug, Default)]
pub(crate) struct RowFilePaths {
    /// File for the labels, classes, probabilities and logits of each row.
    pub predictions: Option<PathBuf>,
    /// File for the vector of each row that is the input of the heads.
    pub embeddings: Option<PathBuf>,
    /// File for the position of each vector on a map, and the settings of the map.
    pub map: Option<(PathBuf, MapSettings)>,
}

impl RowFilePaths {
    /// Reports whether no row file was requested.
    pub(crate) const fn is_empty(&self) -> bool {
        self.predictions.is_none() && self.embeddings.is_none() && self.map.is_none()
    }
}

/// The row files of one evaluation. Rank 0 writes them; the other ranks send their rows to rank 0.
#[derive(Debug)]
pub(crate) struct RowFiles {
    has_vectors: bool,
    predictions: Option<RowsFile>,
    embeddings: Option<RowsFile>,
    map: Option<MapFile>,
}

/// A map file, written as one batch when all of its rows are known.
#[derive(Debug)]
struct MapFile {
    path: PathBuf,
    about: RowFileMetadata,
    settings: MapSettings,
    /// Indices of the rows that are on the map, in ascending order.
    wanted: Vec<u32>,
    /// The rows of the map that have been collected so far.
    rows: RankRows,
}

/// A Parquet file that is being written under a temporary name.
#[derive(Debug)]
struct RowsFile {
    path: PathBuf,
    layout: Layout,
    writer: ArrowWriter<PartFile>,
}

impl RowFiles {
    /// Creates the row files of `split` at `paths`. Only rank 0 writes files, but all ranks have to call
    /// `append`.
    ///
    /// # Errors
    /// A file cannot be created, for example because its folder does not exist or is not writable.
    pub(crate) fn create(
        paths: &RowFilePaths,
        about: &RowFileMetadata,
        data: &Dataset,
        split: Split,
        rank: usize,
    ) -> Result<Self, PlainError> {
        let mut files = Self {
            has_vectors: paths.embeddings.is_some() || paths.map.is_some(),
            predictions: None,
            embeddings: None,
            map: None,
        };
        if rank > 0 {
            return Ok(files);
        }

        if let Some(path) = &paths.predictions {
            files.predictions = Some(RowsFile::create(path, Content::Predictions, data, about)?);
        }
        if let Some(path) = &paths.embeddings {
            files.embeddings = Some(RowsFile::create(path, Content::Embeddings, data, about)?);
        }
        if let Some((path, settings)) = &paths.map {
            files.map = Some(MapFile::new(path, *settings, about, &data.rows_of(split))?);
        }
        Ok(files)
    }

    /// Gathers the rows of a batch from all ranks and writes them. All ranks must call this for each batch, with the
    /// model's outputs `answers` if they have rows.
    pub(crate) fn append(
        &mut self,
        data: &Dataset,
        ranks: &dyn Collective,
        batch: &Batch,
        answers: Option<&ModelOutput>,
    ) -> Result<(), TrainError> {
        let own = RankRows::from_batch(batch, answers, self.has_vectors)?;
        let mut parts = Vec::new();
        if ranks.world_size() == 1 {
            parts.push(own);
        } else {
            let gathered = ranks.gather(&own.to_bytes())?;
            // Only rank 0 writes the gathered rows.
            if ranks.rank() == 0 {
                for bytes in &gathered {
                    parts.push(RankRows::from_bytes(bytes)?);
                }
            }
        }

        // Each rank has one contiguous slice of the batch, in rank order, so the rows are in the manifest's order.
        let files = [&mut self.predictions, &mut self.embeddings];
        for file in files.into_iter().flatten() {
            for part in parts.iter().filter(|part| !part.rows.is_empty()) {
                file.append(data, part)?;
            }
        }
        if let Some(map) = &mut self.map {
            for part in parts.iter().filter(|part| !part.rows.is_empty()) {
                map.rows.keep(part, &map.wanted);
            }
        }
        Ok(())
    }

    /// Completes the row files and renames them. The map is computed last; `progress` receives its completed steps, of
    /// [`STEPS`].
    pub(crate) fn finish(
        self,
        data: &Dataset,
        progress: &mut (dyn FnMut(usize) + Send),
    ) -> Result<(), PlainError> {
        for file in [self.predictions, self.embeddings].into_iter().flatten() {
            file.finish()?;
        }
        match self.map {
            Some(map) => map.finish(data, progress),
            None => Ok(()),
        }
    }
}

impl MapFile {
    /// Prepares the map file; `rows` are all rows of the split.
    fn new(
        path: &Path,
        settings: MapSettings,
        about: &RowFileMetadata,
        rows: &[u32],
    ) -> Result<Self, PlainError> {
        // Report a path that is not writable before the map is computed.
        let _ = temporary_for(path)?;

        let wanted = rows_wanted(rows, settings.seed);
        let metadata = MapMetadata {
            method: "t-SNE",
            perplexity: perplexity_for(wanted.len(), settings.perplexity),
            seed: settings.seed,
            steps: STEPS,
            rows_of_side: rows.len(),
        };
        Ok(Self {
            path: path.to_owned(),
            about: about.with_map(metadata),
            settings,
            wanted,
            rows: RankRows::default(),
        })
    }

    fn finish(
        self,
        data: &Dataset,
        progress: &mut (dyn FnMut(usize) + Send),
    ) -> Result<(), PlainError> {
        let mut rows = self.rows;
        rows.places = places(&rows, &self.settings, progress)?;

        let mut file = RowsFile::create(&self.path, Content::Map, data, &self.about)?;
        file.append(data, &rows)?;
        file.finish()
    }
}

/// Draws the rows of a split that are shown on its map, in ascending order.
fn rows_wanted(rows: &[u32], seed: u64) -> Vec<u32> {
    let on_map = rows_on_map(rows.len(), seed);
    let mut wanted: Vec<u32> = on_map.iter().map(|&at| rows[at]).collect();
    wanted.sort_unstable();
    wanted
}

/// Computes the position of each row on the map. Rows whose vector has a non-finite value are excluded and get no
/// position.
fn places(
    rows: &RankRows,
    settings: &MapSettings,
    progress: &mut (dyn FnMut(usize) + Send),
) -> Result<Vec<Option<[f32; 2]>>, PlainError> {
    let is_finite = |vector: &[f32]| vector.iter().all(|value| value.is_finite());
    let vectors = rows.vectors.chunks_exact(rows.width().max(1));
    let finite: Vec<&[f32]> = vectors.clone().filter(|vector| is_finite(vector)).collect();

    let found = map(&finite, settings, progress).map_err(|error| {
        PlainError::failed("cannot compute a map of the vectors").caused_by(error)
    })?;
    let mut found = found.into_iter();
    Ok(vectors
        .map(|vector| {
            if is_finite(vector) {
                found.next()
            } else {
                None
            }
        })
        .collect())
}

impl RowsFile {
    fn create(
        path: &Path,
        content: Content,
        data: &Dataset,
        about: &RowFileMetadata,
    ) -> Result<Self, PlainError> {
        let layout = Layout::new(content, about);
        let temporary = temporary_for(path)?;
        let level = ZstdLevel::try_new(1).unwrap_or_default();
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(level))
            .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
            .set_key_value_metadata(Some(vec![KeyValue::new(
                METADATA_KEY.to_owned(),
                about.json(),
            )]))
            .build();
        let writer = ArrowWriter::try_new(temporary, layout.schema(data)?, Some(properties))
            .map_err(cannot_write(path))?;

        Ok(Self {
            path: path.to_owned(),
            layout,
            writer,
        })
    }

    fn append(&mut self, data: &Dataset, rows: &RankRows) -> Result<(), PlainError> {
        let batch = self.layout.batch(data, rows)?;
        self.writer.write(&batch).map_err(cannot_write(&self.path))
    }

    fn finish(self) -> Result<(), PlainError> {
        let Self { path, writer, .. } = self;
        let temporary = writer.into_inner().map_err(cannot_write(&path))?;
        temporary.finish(&path).map_err(cannot_write(&path))
    }
}

/// Creates a temporary file in the folder of `path`, to be renamed to `path`.
fn temporary_for(path: &Path) -> Result<PartFile, PlainError> {
    PartFile::beside(path, PREFIX).map_err(cannot_write(path))
}

/// Returns the first `rows` rows of a tensor `[n, …]` as f32, row-major.
fn values(tensor: &Tensor, rows: i64) -> Result<Vec<f32>, TchError> {
    let own = ffi::send(&tensor.f_narrow(0, 0, rows)?, Device::Cpu)?.f_to_kind(Kind::Float)?;
    Vec::<f32>::try_from(own.f_contiguous()?.f_view(-1)?)
}

#[cfg(test)]
mod tests;
