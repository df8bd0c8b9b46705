//! Columns of the row files: the key of each row and several columns per target, with types that all Parquet readers
//! support.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Float32Array, Int32Array, Int32Builder, Int64Array, ListArray, ListBuilder,
    RecordBatch, StringArray, StringBuilder,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde::Serialize;
use wavemill_evaluation::report::ROWS_FORMAT;
use wavemill_schemas::exit::PlainError;
use wavemill_schemas::run::Leaks;
use wavemill_scores::metrics::{THRESHOLD, likeliest};

use super::rank_rows::RankRows;
use crate::dataset::{Dataset, Split, Target};

/// Metadata of a row file, stored in the file as JSON. Contains no times and no paths.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RowFileMetadata {
    format: u32,
    /// Name of the run's folder.
    pub run: String,
    /// Training step of the checkpoint.
    pub step: u64,
    pub model: String,
    side: Split,
    /// Rule by which rows are assigned to splits.
    split_rule: &'static str,
    feature: String,
    feature_id: String,
    /// Hash of the store's manifest.
    manifest: String,
    targets: Vec<TargetMetadata>,
    /// Number of tracks, artists and recordings that the split shares with the run's training tracks, if the run was
    /// trained on another version.
    #[serde(skip_serializing_if = "Option::is_none")]
    leaks: Option<Leaks>,
    /// Settings of the map of the vectors; only in map files.
    #[serde(skip_serializing_if = "Option::is_none")]
    map: Option<MapMetadata>,
}

/// Settings with which a map of vectors was computed.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct MapMetadata {
    pub method: &'static str,
    /// Effective perplexity of the map; 0 if there were too few rows, so that positions were drawn at random.
    pub perplexity: f64,
    pub seed: u64,
    pub steps: usize,
    /// Number of rows of the split, from which the rows of the map were drawn.
    pub rows_of_side: usize,
}

#[derive(Clone, Debug, Serialize)]
struct TargetMetadata {
    name: String,
    /// Class names in id order. Probabilities and logits are in the same order.
    classes: Vec<String>,
    /// `single` for one class per row, `multi` for any number.
    labels: &'static str,
}

impl RowFileMetadata {
    /// Creates the metadata for the outputs of model `model` on `split` of `data`, from the run's checkpoint
    /// at `step`. `leaks` is given if the run was trained on another version.
    pub(crate) fn new(
        run: String,
        step: u64,
        model: &str,
        split: Split,
        data: &Dataset,
        leaks: Option<&Leaks>,
    ) -> Self {
        let mut targets = Vec::new();
        for target in data.targets() {
            targets.push(TargetMetadata {
                name: target.name().to_owned(),
                classes: target.classes().to_vec(),
                labels: if target.is_multi() { "multi" } else { "single" },
            });
        }

        Self {
            format: ROWS_FORMAT,
            run,
            step,
            model: model.to_owned(),
            side: split,
            split_rule: data.split_rule().name(),
            feature: data.feature().name.clone(),
            feature_id: data.feature().feature_id.clone(),
            manifest: data.store().manifest_hash().to_owned(),
            targets,
            leaks: leaks.cloned(),
            map: None,
        }
    }

    /// Returns a copy of the metadata with the settings of a map.
    pub(crate) fn with_map(&self, map: MapMetadata) -> Self {
        Self {
            map: Some(map),
            ..self.clone()
        }
    }

    /// Returns the metadata as JSON.
    pub(crate) fn json(&self) -> String {
        // Serializing strings and numbers cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Content of a row file: the columns that follow the row's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// For each target its true classes, predicted classes, probabilities and logits.
    Predictions,
    /// The true class of each target, then the vector.
    Embeddings,
    /// True and predicted classes of each target, then the position on the map.
    Map,
}

/// The columns of a row file.
#[derive(Debug)]
pub(crate) struct Layout {
    split: Split,
    content: Content,
}

/// A column with its description in the schema.
type Column = (Field, ArrayRef);

fn column(name: impl Into<String>, is_nullable: bool, values: impl Array + 'static) -> Column {
    let field = Field::new(name, values.data_type().clone(), is_nullable);
    (field, Arc::new(values))
}

impl Layout {
    pub(crate) const fn new(content: Content, about: &RowFileMetadata) -> Self {
        Self {
            split: about.side,
            content,
        }
    }

    /// Returns the Arrow schema of the file, which is that of a batch without rows.
    pub(crate) fn schema(&self, data: &Dataset) -> Result<SchemaRef, PlainError> {
        let none = RankRows {
            targets: vec![Default::default(); data.targets().len()],
            ..RankRows::default()
        };
        Ok(self.batch(data, &none)?.schema())
    }

    /// Converts the rows of `part` to an Arrow record batch.
    pub(crate) fn batch(&self, data: &Dataset, part: &RankRows) -> Result<RecordBatch, PlainError> {
        let mut columns = self.keys(data, part);
        for (target, [probabilities, logits]) in data.targets().iter().zip(&part.targets) {
            let [ids, names] = truths(data, target, &part.rows);
            if self.content == Content::Embeddings {
                columns.push(names);
                continue;
            }
            columns.extend([ids, names]);
            columns.extend(predicted(target, probabilities));
            if self.content == Content::Predictions {
                columns.push(per_class(target, "probabilities", probabilities));
                columns.push(per_class(target, "logits", logits));
            }
        }

        match self.content {
            Content::Predictions => {}
            Content::Embeddings => {
                let vectors = lists_of(&part.vectors, part.width());
                columns.push(column("embedding", false, vectors));
            }
            Content::Map => {
                for (axis, name) in ["x", "y"].into_iter().enumerate() {
                    let places = part.places.iter();
                    let values = places.map(|place| place.map(|place| place[axis]));
                    columns.push(column(name, true, values.collect::<Float32Array>()));
                }
            }
        }
        let (fields, values): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), values).map_err(|error| {
            PlainError::failed("cannot encode the predictions as rows").caused_by(error)
        })
    }

    fn keys(&self, data: &Dataset, part: &RankRows) -> Vec<Column> {
        let all = data.rows();
        let rows: Vec<usize> = part.rows.iter().map(|&row| row as usize).collect();
        let clip_keys = StringArray::from_iter_values(rows.iter().map(|&row| &all.clip_keys[row]));
        let segments = Int32Array::from_iter_values(rows.iter().map(|&row| all.segments[row]));
        let variants = Float32Array::from_iter_values(rows.iter().map(|&row| all.variants[row]));
        let offsets_s = Float32Array::from_iter_values(rows.iter().map(|&row| all.offsets_s[row]));
        let track_ids = Int64Array::from_iter_values(rows.iter().map(|&row| all.track_ids[row]));
        let artist_ids: Int64Array = rows.iter().map(|&row| all.artist_ids[row]).collect();
        let splits = StringArray::from_iter_values(rows.iter().map(|_| self.split.name()));
        vec![
            column("clip_key", false, clip_keys),
            column("segment", false, segments),
            column("variant", false, variants),
            column("offset_s", false, offsets_s),
            column("track_id", false, track_ids),
            column("artist_id", true, artist_ids),
            column("split", false, splits),
        ]
    }
}

/// Returns a column of lists with one number per class. The field's metadata has the class names in the same order.
fn per_class(target: &Target, suffix: &str, values: &[f32]) -> Column {
    let name = format!("{}_{suffix}", target.name());
    let (field, values) = column(name, false, lists_of(values, target.classes().len()));
    let classes = serde_json::to_string(target.classes()).unwrap_or_default();
    let metadata = HashMap::from([("classes".to_owned(), classes)]);
    (field.with_metadata(metadata), values)
}

/// Returns the true classes of `rows`: id and name, or lists of both. They are null for unlabelled rows.
fn truths(data: &Dataset, target: &Target, rows: &[u32]) -> [Column; 2] {
    let mut labels: Vec<Vec<i32>> = Vec::with_capacity(rows.len());
    for &row in rows {
        let classes = target.labels(data.rows(), row);
        labels.push(classes.map(|class| class as i32).collect());
    }

    if target.is_multi() {
        let mut lists = Vec::with_capacity(rows.len());
        for mut classes in labels {
            // Class ids in ascending order, as in the columns of predicted classes, and without repetitions.
            classes.sort_unstable();
            classes.dedup();
            lists.push((!classes.is_empty()).then_some(classes));
        }
        return class_lists(target, "true", true, lists);
    }

    let ids = labels.iter().map(|classes| classes.first().copied());
    classes(target, "true", true, ids.collect())
}

/// Returns the most likely class of each row or, for a multi-label target, all classes with a probability of at least
/// [`THRESHOLD`].
fn predicted(target: &Target, probabilities: &[f32]) -> [Column; 2] {
    // `max` avoids chunks of length 0, which would panic.
    let rows = probabilities.chunks_exact(target.classes().len().max(1));
    if target.is_multi() {
        let mut lists = Vec::new();
        for row in rows {
            let above = (0..).zip(row).filter(|(_, p)| **p >= THRESHOLD);
            lists.push(Some(above.map(|(class, _)| class).collect()));
        }
        return class_lists(target, "predicted", false, lists);
    }

    let ids = Int32Array::from_iter_values(rows.map(|row| likeliest(row) as i32));
    classes(target, "predicted", false, ids)
}

fn name_of(target: &Target, class: i32) -> &str {
    usize::try_from(class)
        .ok()
        .and_then(|class| target.classes().get(class))
        .map_or("", String::as_str)
}

/// Returns a column with class ids and a column with their names.
fn classes(target: &Target, suffix: &str, is_nullable: bool, ids: Int32Array) -> [Column; 2] {
    let names: StringArray = ids.iter().map(|id| Some(name_of(target, id?))).collect();
    let name = format!("{}_{suffix}", target.name());
    [
        column(format!("{name}_id"), is_nullable, ids),
        column(name, is_nullable, names),
    ]
}

/// Returns a column with lists of class ids and a column with lists of their names.
fn class_lists(
    target: &Target,
    suffix: &str,
    is_nullable: bool,
    rows: Vec<Option<Vec<i32>>>,
) -> [Column; 2] {
    let item = |data_type| Field::new("item", data_type, false);
    let mut ids = ListBuilder::new(Int32Builder::new()).with_field(item(DataType::Int32));
    let mut names = ListBuilder::new(StringBuilder::new()).with_field(item(DataType::Utf8));
    for classes in rows {
        for &class in classes.iter().flatten() {
            ids.values().append_value(class);
            names.values().append_value(name_of(target, class));
        }
        ids.append(classes.is_some());
        names.append(classes.is_some());
    }

    let name = format!("{}_{suffix}", target.name());
    [
        column(format!("{name}_ids"), is_nullable, ids.finish()),
        column(name, is_nullable, names.finish()),
    ]
}

/// Returns lists that each have `length` values.
fn lists_of(values: &[f32], length: usize) -> ListArray {
    let item = Arc::new(Field::new("item", DataType::Float32, false));
    let rows = values.len() / length.max(1);
    let offsets = OffsetBuffer::from_repeated_length(length, rows);
    let values = Arc::new(Float32Array::from(values.to_vec()));
    ListArray::new(item, offsets, values, None)
}
