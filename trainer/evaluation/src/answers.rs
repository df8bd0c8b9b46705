//! Predictions of a model that was trained elsewhere, and their order: each row of a split gets its own.
//!
//! A matrix is in the order of the split. The rows of a table have keys, so they may be in any order, and rows of other
//! splits are ignored. Values are compared with what probabilities must be, because scores of anything else would look
//! plausible.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::fs::File;
use std::path::Path;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, Int32Type, Int64Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use wavemill_loader::{Dataset, Split, Target};
use wavemill_schemas::exit::PlainError;

use crate::error::EvaluationError;
use crate::training_list::catch_reader_panic;

/// Maximum distance between 1 and the sum of a row's probabilities. A number of type bf16 has a relative error of up to
/// 2⁻⁹, so the sum of probabilities in this type differs from 1 by at most 0.002.
const SUM_TOLERANCE: f64 = 0.01;

/// The meaning of predicted values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Values {
    /// Probabilities: those of a row sum to 1 if each row has one class.
    #[default]
    Probabilities,
    /// Inputs of a softmax, or of a sigmoid if a row may have several classes.
    Logits,
}

impl Values {
    /// Returns the name of the column that contains these values as lists.
    const fn column(self) -> &'static str {
        match self {
            Self::Probabilities => "probabilities",
            Self::Logits => "logits",
        }
    }
}

/// Predictions for the rows of a split.
#[derive(Clone, Debug)]
pub enum Answers {
    /// A row of values for each row of the split, in the manifest's order.
    Matrix {
        /// The values, row-major.
        values: Vec<f64>,
        /// Number of rows and columns.
        shape: [usize; 2],
    },
    /// A table with the columns `clip_key` or `track_id`, `segment` and `variant` if these distinguish rows, and the
    /// values: lists in the column `TARGET_probabilities` or `probabilities`, or a column with the name of each class.
    /// The names for logits are `TARGET_logits` and `logits`. Other columns are ignored.
    Table(Vec<RecordBatch>),
}

impl Answers {
    /// Reads a table from a Parquet file.
    ///
    /// # Errors
    /// [`EvaluationError::Other`] if the file cannot be opened, or is not a Parquet file.
    pub fn read(path: &Path) -> Result<Self, EvaluationError> {
        let file = File::open(path).map_err(|error| {
            let message = format!("predictions: cannot read {}", path.display());
            PlainError::failed(message).caused_by(error)
        })?;
        let batches = catch_reader_panic::<_, Box<dyn Error>>(|| {
            let batches = ParquetRecordBatchReaderBuilder::try_new(file)?.build()?;
            let batches = batches.collect::<Result<_, _>>();
            Ok(batches.map_err(ParquetError::from)?)
        });
        batches.map(Self::Table).map_err(|problem| {
            let path = path.display();
            EvaluationError::predictions(format!(
                "{path} is not a readable Parquet file: {problem}"
            ))
        })
    }

    /// Returns the probabilities of the rows of `split` for the first target of `data`: `[rows, classes]`, row-major,
    /// in the manifest's order.
    pub(crate) fn probabilities(
        &self,
        data: &Dataset,
        split: Split,
        kind: Values,
    ) -> Result<Vec<f32>, EvaluationError> {
        let rows = data.rows_of(split);
        let target = &data.targets()[0];
        let n_classes = target.classes().len();
        let found;
        let (values, order) = match self {
            Self::Matrix { values, shape } => {
                if *shape != [rows.len(), n_classes] {
                    return Err(wrong_shape(*shape, data, split));
                }
                (values, (0..rows.len()).collect())
            }
            Self::Table(batches) => {
                found = values_in(batches, target, kind)?;
                (&found, order_of(batches, data, &rows)?)
            }
        };

        let mut probabilities = Vec::with_capacity(rows.len() * n_classes);
        for (&row, place) in rows.iter().zip(order) {
            let values = &values[place * n_classes..(place + 1) * n_classes];
            let row_values = match kind {
                Values::Logits => activated(values, target.is_multi()),
                Values::Probabilities => values.to_vec(),
            };
            if let Some(problem) = improbable(&row_values, target.is_multi()) {
                let row = row_name(data, row);
                return Err(EvaluationError::predictions(format!("{row}: {problem}")));
            }
            probabilities.extend(row_values.iter().map(|&value| value as f32));
        }
        Ok(probabilities)
    }
}

fn wrong_shape([n_rows, n_values]: [usize; 2], data: &Dataset, split: Split) -> EvaluationError {
    let target = &data.targets()[0];
    EvaluationError::predictions(format!(
        "{n_rows} rows of {n_values} values, but split {} of version {} has {} rows, and target {} has {} classes: give \
         all rows of the split in the manifest's order, or a table with the columns clip_key and segment",
        split.name(),
        data.store().version(),
        data.rows_of(split).len(),
        target.name(),
        target.classes().len()
    ))
}

/// Returns the softmax of a row's logits, or their sigmoids if a row may have several classes.
fn activated(logits: &[f64], is_multi: bool) -> Vec<f64> {
    if is_multi {
        return logits.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect();
    }
    // The largest logit is subtracted, so that no power overflows.
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = logits.iter().map(|x| (x - largest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|power| power / sum).collect()
}

/// Returns the reason why values are not probabilities. A value that is not a number is left to [`crate::push`], which
/// names its class.
fn improbable(values: &[f64], is_multi: bool) -> Option<String> {
    const REMEDY: &str =
        "give probabilities, or set logits if the values are inputs of a softmax or sigmoid";

    if let Some(value) = values.iter().find(|p| **p < 0.0 || **p > 1.0) {
        return Some(format!("{value} is not a probability: {REMEDY}"));
    }
    let sum: f64 = values.iter().sum();
    if !is_multi && (sum - 1.0).abs() > SUM_TOLERANCE {
        return Some(format!(
            "the probabilities sum to {sum:.4}, not 1: {REMEDY}"
        ));
    }
    None
}

fn row_name(data: &Dataset, row: u32) -> String {
    let rows = data.rows();
    let row = row as usize;
    format!("{}, segment {}", rows.clip_keys[row], rows.segments[row])
}

/// Returns the values of a table, row-major, with one value for each class.
fn values_in(
    batches: &[RecordBatch],
    target: &Target,
    kind: Values,
) -> Result<Vec<f64>, EvaluationError> {
    let own = format!("{}_{}", target.name(), kind.column());
    let mut values = Vec::new();
    for batch in batches {
        let lists = [own.as_str(), kind.column()];
        if let Some(name) = lists
            .iter()
            .find(|name| batch.column_by_name(name).is_some())
        {
            append_lists(&mut values, batch, name, target)?;
        } else {
            append_columns(&mut values, batch, target, lists)?;
        }
    }
    Ok(values)
}

/// Appends the values of a column of lists.
fn append_lists(
    values: &mut Vec<f64>,
    batch: &RecordBatch,
    name: &str,
    target: &Target,
) -> Result<(), EvaluationError> {
    // `eval --predictions` writes the classes into the metadata of the column.
    let schema = batch.schema();
    let field = schema.field_with_name(name).ok();
    let classes = field.and_then(|field| field.metadata().get("classes"));
    let classes: Option<Vec<String>> = classes.and_then(|text| serde_json::from_str(text).ok());
    if let Some(classes) = classes.filter(|classes| classes != target.classes()) {
        return Err(EvaluationError::predictions(format!(
            "column {name} has the classes {}, but target {} has {}: give the classes of the model, or the version that \
             it was trained on",
            classes.join(", "),
            target.name(),
            target.classes().join(", ")
        )));
    }

    let item = Field::new("item", DataType::Float64, true);
    let lists = column(batch, name, &DataType::LargeList(item.into()))?;
    let n_classes = target.classes().len();
    for list in lists.as_list::<i64>().iter().flatten() {
        let list = list.as_primitive::<Float64Type>();
        if list.len() != n_classes || list.null_count() > 0 {
            return Err(EvaluationError::predictions(format!(
                "column {name}: a list of {} values, {} of which are null, for {n_classes} classes",
                list.len(),
                list.null_count()
            )));
        }
        values.extend_from_slice(list.values());
    }
    Ok(())
}

/// Appends the values of the columns that have the names of the classes.
fn append_columns(
    values: &mut Vec<f64>,
    batch: &RecordBatch,
    target: &Target,
    lists: [&str; 2],
) -> Result<(), EvaluationError> {
    let n_classes = target.classes().len();
    let start = values.len();
    values.resize(start + batch.num_rows() * n_classes, 0.0);

    for (class, name) in target.classes().iter().enumerate() {
        if batch.column_by_name(name).is_none() {
            let [own, common] = lists;
            return Err(EvaluationError::predictions(format!(
                "no column {own} or {common} with a list of {n_classes} values in each row, and no column with the name \
                 of class {name}"
            )));
        }

        if target.classes()[..class].contains(name) {
            let [own, common] = lists;
            return Err(EvaluationError::predictions(format!(
                "two classes are called {name}: give a column {own} or {common} with a list of {n_classes} values in each \
                 row, instead of columns with the names of classes"
            )));
        }

        let numbers = column(batch, name, &DataType::Float64)?;
        let numbers = numbers.as_primitive::<Float64Type>().values();
        for (row, &value) in numbers.iter().enumerate() {
            values[start + row * n_classes + class] = value;
        }
    }
    Ok(())
}

/// Returns a column as values of the type `to`, none of which is null.
fn column(batch: &RecordBatch, name: &str, to: &DataType) -> Result<ArrayRef, EvaluationError> {
    let found = batch.column_by_name(name);
    let found = found.ok_or_else(|| EvaluationError::predictions(format!("no column {name}")))?;
    // A value that cannot be converted becomes null.
    let converted = cast(found, to)
        .map_err(|error| EvaluationError::predictions(format!("column {name}: {error}")))?;
    if converted.null_count() > 0 {
        return Err(EvaluationError::predictions(format!(
            "column {name}: {} of {} values are null or not of type {to}",
            converted.null_count(),
            converted.len()
        )));
    }
    Ok(converted)
}

/// The columns of a table that identify rows.
#[derive(Clone, Copy, Debug)]
struct KeyColumns {
    has_clip_key: bool,
    has_segment: bool,
    has_variant: bool,
}

/// Identifies a row by the columns in [`KeyColumns`]; columns that a table lacks are `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct RowKey {
    clip_key: Option<Box<str>>,
    track_id: Option<i64>,
    segment: Option<i32>,
    /// The bits of the tempo.
    variant: Option<u32>,
}

impl RowKey {
    fn name(&self) -> String {
        let mut name = match (&self.clip_key, self.track_id) {
            (Some(clip_key), _) => clip_key.to_string(),
            (None, track_id) => format!("track {}", track_id.unwrap_or_default()),
        };
        if let Some(segment) = self.segment {
            name += &format!(", segment {segment}");
        }
        name
    }
}

impl KeyColumns {
    fn new(batch: &RecordBatch) -> Result<Self, EvaluationError> {
        let has = |name| batch.column_by_name(name).is_some();
        if !has("clip_key") && !has("track_id") {
            return Err(EvaluationError::predictions(
                "a table needs the column clip_key or track_id, and segment if clips have several rows",
            ));
        }
        Ok(Self {
            has_clip_key: has("clip_key"),
            has_segment: has("segment"),
            has_variant: has("variant"),
        })
    }

    /// Returns the key of a row of the dataset.
    fn of_row(self, data: &Dataset, row: u32) -> RowKey {
        let rows = data.rows();
        let row = row as usize;
        RowKey {
            clip_key: self.has_clip_key.then(|| rows.clip_keys[row].clone()),
            track_id: (!self.has_clip_key).then(|| rows.track_ids[row]),
            segment: self.has_segment.then(|| rows.segments[row]),
            variant: self.has_variant.then(|| rows.variants[row].to_bits()),
        }
    }

    /// Returns the keys of a table's rows.
    fn in_batch(self, batch: &RecordBatch) -> Result<Vec<RowKey>, EvaluationError> {
        let mut keys = vec![RowKey::default(); batch.num_rows()];
        if self.has_clip_key {
            let texts = column(batch, "clip_key", &DataType::Utf8)?;
            for (key, text) in keys.iter_mut().zip(texts.as_string::<i32>()) {
                key.clip_key = text.map(Box::from);
            }
        } else {
            let ids = column(batch, "track_id", &DataType::Int64)?;
            for (key, id) in keys.iter_mut().zip(ids.as_primitive::<Int64Type>()) {
                key.track_id = id;
            }
        }

        if self.has_segment {
            let segments = column(batch, "segment", &DataType::Int32)?;
            for (key, segment) in keys.iter_mut().zip(segments.as_primitive::<Int32Type>()) {
                key.segment = segment;
            }
        }

        if self.has_variant {
            let variants = column(batch, "variant", &DataType::Float32)?;
            for (key, variant) in keys.iter_mut().zip(variants.as_primitive::<Float32Type>()) {
                key.variant = variant.map(f32::to_bits);
            }
        }
        Ok(keys)
    }
}

/// Returns the place of each of `rows` in a table.
fn order_of(
    batches: &[RecordBatch],
    data: &Dataset,
    rows: &[u32],
) -> Result<Vec<usize>, EvaluationError> {
    let first = batches.first();
    let first = first.ok_or_else(|| EvaluationError::predictions("the table has no rows"))?;
    let columns = KeyColumns::new(first)?;
    let mut keys = Vec::new();
    for batch in batches {
        keys.extend(columns.in_batch(batch)?);
    }

    let mut places: HashMap<RowKey, usize> = HashMap::new();
    for (place, &row) in rows.iter().enumerate() {
        match places.entry(columns.of_row(data, row)) {
            Entry::Vacant(entry) => {
                entry.insert(place);
            }
            Entry::Occupied(entry) => {
                return Err(EvaluationError::predictions(format!(
                    "several rows are {}: add the columns segment and variant to the table",
                    entry.key().name()
                )));
            }
        }
    }

    let known: HashSet<RowKey> = (0..data.rows().len() as u32)
        .map(|row| columns.of_row(data, row))
        .collect();
    let mut order = vec![None; rows.len()];
    for (place, key) in keys.into_iter().enumerate() {
        match places.get(&key) {
            Some(&row) if order[row].is_some() => {
                return Err(EvaluationError::predictions(format!(
                    "{} occurs twice: give one prediction for each row",
                    key.name()
                )));
            }
            Some(&row) => order[row] = Some(place),
            None if known.contains(&key) => {}
            None => {
                return Err(EvaluationError::predictions(format!(
                    "{} is not a row of {} in version {}",
                    key.name(),
                    data.feature().name,
                    data.store().version()
                )));
            }
        }
    }

    let n_missing = order.iter().filter(|place| place.is_none()).count();
    if let Some(first) = order.iter().position(Option::is_none) {
        return Err(EvaluationError::predictions(format!(
            "{n_missing} of the {} rows of the split are missing, the first is {}: predict all rows",
            rows.len(),
            row_name(data, rows[first])
        )));
    }
    Ok(order.into_iter().flatten().collect())
}
