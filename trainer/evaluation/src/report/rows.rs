//! Reads the files that `eval` writes: the predictions for each row, and the positions of the rows' vectors on a map.

use std::error::Error;
use std::fs::File;
use std::path::Path;

use arrow::array::{
    Array, ArrayRef, AsArray, Float32Array, Int32Array, Int64Array, ListArray, RecordBatch,
    StringArray,
};
use arrow::datatypes::{Float32Type, Int32Type};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::Deserialize;
use wavemill_schemas::durable::if_there;
use wavemill_schemas::exit::PlainError;
use wavemill_schemas::split::Split;
use wavemill_scores::metrics::{Label, Predictions, Row};

use super::{cannot_read, damaged};
use crate::EvaluationError;
use crate::training_list::{catch_reader_panic, metadata_of};

/// Version of the format of row files. Increase it when the columns change.
pub const ROWS_FORMAT: u32 = 1;
/// Key under which a Parquet file's metadata contains the description of the rows as JSON.
pub const METADATA_KEY: &str = "wavemill";

/// Value of a target's `labels` in the metadata if the target has several labels per row.
const MULTI_LABEL: &str = "multi";

/// Metadata of a file with predictions or a map.
#[derive(Clone, Debug, Deserialize)]
pub struct RowsMetadata {
    format: u32,
    /// Training step of the checkpoint that was evaluated.
    pub step: u64,
    /// Split that the rows belong to.
    pub side: Split,
    /// blake3 hash of the manifest of the evaluated store.
    pub manifest: String,
    targets: Vec<TargetMetadata>,
    /// Parameters of the map; `None` in a file with predictions.
    pub map: Option<MapMetadata>,
}

#[derive(Clone, Debug, Deserialize)]
struct TargetMetadata {
    name: String,
    /// Names of the target's classes in the order of their ids.
    classes: Vec<String>,
    labels: String,
}

/// Parameters with which a map was computed.
#[derive(Clone, Debug, Deserialize)]
pub struct MapMetadata {
    /// Name of the method, for example `t-SNE`.
    pub method: String,
    /// Perplexity, about the number of neighbours of a row.
    pub perplexity: f64,
    /// Number of rows in the split from which the rows of the map were sampled.
    pub rows_of_side: u64,
}

/// Contents of `predictions.parquet`.
#[derive(Clone, Debug)]
pub struct PredictionRows {
    /// Metadata of the file.
    pub about: RowsMetadata,
    /// Predictions of all rows, one entry per target.
    pub targets: Vec<Predictions>,
}

/// Contents of `map.parquet`.
#[derive(Clone, Debug)]
pub struct MapRows {
    /// Metadata of the file.
    pub about: RowsMetadata,
    /// Clip key of each row on the map.
    pub clip_keys: Vec<String>,
    /// Track id of each row on the map.
    pub track_ids: Vec<i64>,
    /// Position of each row on the map. `None` if the row's vector contains a value that is not a number.
    pub places: Vec<Option<[f32; 2]>>,
    /// True and predicted classes for each target with one class per row.
    pub targets: Vec<MapTarget>,
}

/// True and predicted classes of a map's rows, for one target.
#[derive(Clone, Debug)]
pub struct MapTarget {
    /// Name of the target.
    pub name: String,
    /// Names of the target's classes in the order of their ids.
    pub classes: Vec<String>,
    /// True class of each row. `None` if the row has no label.
    pub truths: Vec<Option<usize>>,
    /// Predicted class of each row, as an index in `classes`.
    pub predicted: Vec<Option<usize>>,
}

/// The reason why the content of a file cannot be understood.
type Damage = Box<dyn Error + Send + Sync>;

impl RowsMetadata {
    /// Creates the metadata of predictions that are not in a file.
    pub(super) fn new(split: Split, manifest: &str) -> Self {
        Self {
            format: ROWS_FORMAT,
            step: 0,
            side: split,
            manifest: manifest.to_owned(),
            targets: Vec::new(),
            map: None,
        }
    }
}

impl PredictionRows {
    /// Reads the predictions in the file `path`. Returns `None` if the file does not exist.
    ///
    /// # Errors
    /// [`EvaluationError::Other`] if the file cannot be read, is damaged, or was written by a later version of
    /// wavemill.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, EvaluationError> {
        read(path, "--predictions", Self::from_batches)
    }

    fn from_batches(about: RowsMetadata, batches: &[RecordBatch]) -> Result<Self, Damage> {
        let mut targets = Vec::new();
        for target in &about.targets {
            targets.push(predictions(target, batches)?);
        }
        Ok(Self { about, targets })
    }
}

impl MapRows {
    /// Reads the map in the file `path`. Returns `None` if the file does not exist.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, EvaluationError> {
        read(path, "--map", Self::from_batches)
    }

    fn from_batches(about: RowsMetadata, batches: &[RecordBatch]) -> Result<Self, Damage> {
        let mut clip_keys = Vec::new();
        let mut track_ids = Vec::new();
        let mut places = Vec::new();
        for batch in batches {
            let keys = column::<StringArray>(batch, "clip_key")?.iter();
            clip_keys.extend(keys.map(|key| key.unwrap_or_default().to_owned()));
            track_ids.extend(column::<Int64Array>(batch, "track_id")?.values());

            let x: &Float32Array = column(batch, "x")?;
            let y: &Float32Array = column(batch, "y")?;
            for (x, y) in x.iter().zip(y.iter()) {
                places.push(x.zip(y).map(|(x, y)| [x, y]));
            }
        }

        let mut targets = Vec::new();
        for target in about.targets.iter().filter(|of| of.labels != MULTI_LABEL) {
            targets.push(MapTarget {
                name: target.name.clone(),
                classes: target.classes.clone(),
                truths: class_ids(batches, &format!("{}_true_id", target.name))?,
                predicted: class_ids(batches, &format!("{}_predicted_id", target.name))?,
            });
        }
        Ok(Self {
            about,
            clip_keys,
            track_ids,
            places,
            targets,
        })
    }
}

/// Reads the file `path` and converts its metadata and rows with `of`. Returns `None` if the file does not exist.
fn read<T>(
    path: &Path,
    flag: &str,
    of: fn(RowsMetadata, &[RecordBatch]) -> Result<T, Damage>,
) -> Result<Option<T>, EvaluationError> {
    let Some(file) = if_there(File::open(path)).map_err(cannot_read(path))? else {
        return Ok(None);
    };

    let understood = match catch_reader_panic(|| content_of(file)) {
        Ok((about, _)) if about.format > ROWS_FORMAT => {
            return Err(PlainError::usage(format!(
                "{}: format {}; this `wavemill train` reads up to {ROWS_FORMAT}: use a newer one",
                path.display(),
                about.format
            ))
            .into());
        }
        Ok((about, batches)) => of(about, &batches),
        Err(problem) => Err(problem),
    };
    understood.map(Some).map_err(|damage| {
        let remedy =
            format!("remove it, or write it again with `wavemill train eval RUN {flag} FILE`");
        damaged(path, damage, &remedy).into()
    })
}

/// Reads all columns of a file except the logits, which a report does not show.
fn content_of(file: File) -> Result<(RowsMetadata, Vec<RecordBatch>), Damage> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
    let about =
        metadata_of(&builder, METADATA_KEY).map_err(|_| "it has no metadata of wavemill")?;

    let fields = builder.schema().fields();
    let wanted = (0..fields.len()).filter(|&place| !fields[place].name().ends_with("_logits"));
    let mask = ProjectionMask::roots(builder.parquet_schema(), wanted);
    let batches = builder.with_projection(mask).build()?;
    Ok((about, batches.collect::<Result<_, _>>()?))
}

/// Column with the true classes of the rows.
enum Truths<'a> {
    /// One class id per row, or null for an unlabelled row.
    One(&'a Int32Array),
    /// A list of class ids per row, or null for an unlabelled row.
    Several(&'a ListArray),
}

fn predictions(target: &TargetMetadata, batches: &[RecordBatch]) -> Result<Predictions, Damage> {
    let is_multi = target.labels == MULTI_LABEL;
    let mut all = Predictions::new(&target.name, &target.classes, is_multi);
    for batch in batches {
        append(&mut all, batch)?;
    }
    Ok(all)
}

/// Appends the rows of `batch` to the predictions `all`.
fn append(all: &mut Predictions, batch: &RecordBatch) -> Result<(), Damage> {
    let target = all.target().to_owned();
    let clip_keys: &StringArray = column(batch, "clip_key")?;
    let segments: &Int32Array = column(batch, "segment")?;
    let track_ids: &Int64Array = column(batch, "track_id")?;
    let artist_ids: &Int64Array = column(batch, "artist_id")?;
    let probabilities: &ListArray = column(batch, &format!("{target}_probabilities"))?;
    let truths = if all.is_multi() {
        Truths::Several(column(batch, &format!("{target}_true_ids"))?)
    } else {
        Truths::One(column(batch, &format!("{target}_true_id"))?)
    };

    let mut set = vec![false; all.classes().len()];
    for row in 0..batch.num_rows() {
        let label = match &truths {
            Truths::One(ids) if ids.is_null(row) => Label::Unknown,
            Truths::One(ids) => Label::Class(class_of(ids.value(row))?),
            Truths::Several(ids) if ids.is_null(row) => Label::Unknown,
            Truths::Several(ids) => {
                fill(&mut set, &ids.value(row))?;
                Label::Set(&set)
            }
        };
        let values = probabilities.value(row);
        let values = values.as_primitive_opt::<Float32Type>();
        let values = values.ok_or("probabilities are not f32")?;
        let index = all.len() as u64;
        all.push(&Row {
            index,
            clip_key: clip_keys.value(row),
            segment: segments.value(row),
            track_id: track_ids.value(row),
            artist_id: artist_ids.is_valid(row).then(|| artist_ids.value(row)),
            label,
            probabilities: values.values(),
        })?;
    }
    Ok(())
}

/// Sets the elements of `set` at the class ids in `ids` to true, and all others to false.
fn fill(set: &mut [bool], ids: &ArrayRef) -> Result<(), Damage> {
    set.fill(false);
    let ids = ids.as_primitive_opt::<Int32Type>();
    for &id in ids.ok_or("class ids are not i32")?.values() {
        let class = class_of(id)?;
        *set.get_mut(class)
            .ok_or_else(|| format!("class {class} does not exist"))? = true;
    }
    Ok(())
}

fn class_of(id: i32) -> Result<usize, Damage> {
    usize::try_from(id).map_err(|_| format!("class {id} does not exist").into())
}

/// Reads the class of each row from the column `name`. Returns `None` for a null.
fn class_ids(batches: &[RecordBatch], name: &str) -> Result<Vec<Option<usize>>, Damage> {
    let mut classes = Vec::new();
    for batch in batches {
        for id in column::<Int32Array>(batch, name)? {
            classes.push(id.map(class_of).transpose()?);
        }
    }
    Ok(classes)
}

fn column<'a, T: 'static>(batch: &'a RecordBatch, name: &str) -> Result<&'a T, Damage> {
    let column = batch.column_by_name(name);
    let typed = column.and_then(|column| column.as_any().downcast_ref());
    typed.ok_or_else(|| format!("column {name} is missing or has the wrong type").into())
}
