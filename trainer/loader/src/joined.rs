//! Metadata of a row's track: columns of `fma_features`, artists and albums, near copies.
//!
//! Means, deviations and vocabularies are computed from training rows only.

use std::collections::{BTreeSet, HashMap};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, Int64Type};

use crate::rows::Rows;
use crate::spec::MetadataColumn;
use crate::{DatasetError, Store};

/// Name of the table with the published features of tracks.
const TABLE: &str = "fma_features";

/// Returns the groups of near copies by `clip_key`; none if the store has no table of them.
pub(crate) fn near_groups(store: &Store) -> Result<HashMap<String, String>, DatasetError> {
    let columns = ["clip_key", "group_key"];
    let Some(table) = store.table("near_copies", |name| columns.contains(&name))? else {
        return Ok(HashMap::new());
    };
    let clips = column(store, &table, columns[0], &DataType::Utf8)?;
    let groups = column(store, &table, columns[1], &DataType::Utf8)?;
    let pairs = clips
        .as_string::<i32>()
        .iter()
        .zip(groups.as_string::<i32>());
    let pairs = pairs.filter_map(|(clip, group)| Some((clip?.to_owned(), group?.to_owned())));
    Ok(pairs.collect())
}

/// The metadata columns of each track, from the table `fma_features`.
#[derive(Debug)]
pub(crate) struct Metadata {
    names: Vec<String>,
    /// The values of all columns, track by track; NaN if missing.
    values: Vec<f32>,
    /// The index of each row's track in `values`; `None` if the table does not contain the track.
    place_of: Vec<Option<u32>>,
}

impl Metadata {
    /// Reads the columns of the store's `fma_features` that begin with one of `prefixes`, in the table's order.
    ///
    /// # Errors
    /// [`DatasetError::Unfit`] if there is no such table, no prefix, or no column for a prefix; the latter names the
    /// existing prefixes.
    pub(crate) fn read(
        store: &Store,
        rows: &Rows,
        prefixes: &[String],
    ) -> Result<Self, DatasetError> {
        if prefixes.is_empty() {
            return Err(DatasetError::unfit(
                "metadata",
                "the model needs columns of fma_features: name some, such as [\"mfcc\"]",
            ));
        }
        let table = published(store, |name| {
            prefixes.iter().any(|prefix| name.starts_with(prefix))
        })?;

        let mut names = Vec::new();
        for field in table.schema().fields() {
            if field.name() != "track_id" {
                names.push(field.name().clone());
            }
        }
        // Each prefix must match a column: with fewer columns than requested, a model would only score worse.
        for prefix in prefixes {
            if !names.iter().any(|name| name.starts_with(prefix)) {
                return Err(DatasetError::not_there("metadata", prefix, &stems(store)?));
            }
        }

        Self::from_columns(store, rows, &table, names)
    }

    /// Reads the columns of the store's `fma_features` with these names, in this order.
    ///
    /// # Errors
    /// [`DatasetError::Unfit`] if there is no such table or no such column; the error names the existing prefixes.
    pub(crate) fn named(
        store: &Store,
        rows: &Rows,
        names: Vec<String>,
    ) -> Result<Self, DatasetError> {
        let table = published(store, |name| names.iter().any(|wanted| wanted == name))?;
        if let Some(missing) = names
            .iter()
            .find(|name| table.column_by_name(name).is_none())
        {
            return Err(DatasetError::not_there("metadata", missing, &stems(store)?));
        }
        Self::from_columns(store, rows, &table, names)
    }

    /// Reads the columns `names` of `table` for the track of each row.
    fn from_columns(
        store: &Store,
        rows: &Rows,
        table: &RecordBatch,
        names: Vec<String>,
    ) -> Result<Self, DatasetError> {
        let tracks = column(store, table, "track_id", &DataType::Int64)?;
        let mut metadata = Self {
            names,
            values: Vec::new(),
            place_of: Vec::new(),
        };
        // Segments of a track share its values. Only tracks that have rows are kept, since the table may contain many
        // others.
        let kept = metadata.place(rows, tracks.as_primitive::<Int64Type>().values());

        let width = metadata.names.len();
        // A missing value remains NaN until `MetadataColumn::standardised` replaces it by the mean.
        metadata.values = vec![f32::NAN; kept.len() * width];
        for (place, name) in metadata.names.iter().enumerate() {
            let values = column(store, table, name, &DataType::Float32)?;
            let values = values.as_primitive::<Float32Type>();
            for (track, &row) in kept.iter().enumerate() {
                if values.is_valid(row) {
                    metadata.values[track * width + place] = values.value(row);
                }
            }
        }
        Ok(metadata)
    }

    /// Finds the track of each row in the table, and returns the indices of the tracks that are kept.
    fn place(&mut self, rows: &Rows, tracks: &[i64]) -> Vec<usize> {
        let in_table: HashMap<i64, usize> = tracks
            .iter()
            .enumerate()
            .map(|(row, &track)| (track, row))
            .collect();

        let mut kept = Vec::new();
        let mut places: HashMap<i64, u32> = HashMap::new();
        for track in &rows.track_ids {
            let Some(&row) = in_table.get(track) else {
                self.place_of.push(None);
                continue;
            };
            let place = *places.entry(*track).or_insert_with(|| {
                kept.push(row);
                kept.len() as u32 - 1
            });
            self.place_of.push(Some(place));
        }
        kept
    }

    /// Returns the columns with their mean and deviation over `training` rows.
    pub(crate) fn columns(&self, training: &[u32]) -> Vec<MetadataColumn> {
        let mut columns = Vec::with_capacity(self.names.len());
        for (place, name) in self.names.iter().enumerate() {
            let values = training
                .iter()
                .filter_map(|&row| self.row(row))
                .map(|row| f64::from(row[place]))
                .filter(|value| value.is_finite());
            let (mean, std) = moments(values);
            columns.push(MetadataColumn {
                name: name.clone(),
                mean,
                std,
            });
        }
        columns
    }

    /// Returns the metadata of `rows`, row by row; NaN if missing.
    pub(crate) fn values(&self, rows: &[u32]) -> Vec<f32> {
        let mut values = Vec::with_capacity(rows.len() * self.names.len());
        for &row in rows {
            match self.row(row) {
                Some(row) => values.extend_from_slice(row),
                None => values.resize(values.len() + self.names.len(), f32::NAN),
            }
        }
        values
    }

    /// Reports whether the table contains the track of a row.
    pub(crate) fn has(&self, row: u32) -> bool {
        self.place_of[row as usize].is_some()
    }

    fn row(&self, row: u32) -> Option<&[f32]> {
        let place = self.place_of[row as usize]? as usize;
        self.values
            .get(place * self.names.len()..(place + 1) * self.names.len())
    }
}

/// Returns the mean and the population deviation; the deviation of equal values is exactly 0.
fn moments(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let mut n = 0_u64;
    let mut sum = 0.0;
    let mut least = f64::INFINITY;
    let mut most = f64::NEG_INFINITY;
    for value in values.clone() {
        n += 1;
        sum += value;
        least = value.min(least);
        most = value.max(most);
    }
    // The condition is also true if there are no values. Rounding could give equal values a tiny deviation, and
    // dividing by it would amplify noise.
    if least >= most {
        return (if n == 0 { 0.0 } else { least }, 0.0);
    }

    let mean = sum / n as f64;
    // Compute the deviation in a second pass: the mean of squares minus the square of the mean would lose precision.
    let squares: f64 = values.map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / n as f64).sqrt())
}

/// Reads `track_id` and the columns of `fma_features` for whose name `wanted` returns true.
fn published(store: &Store, wanted: impl Fn(&str) -> bool) -> Result<RecordBatch, DatasetError> {
    let table = store.table(TABLE, |name| name == "track_id" || wanted(name))?;
    table.ok_or_else(|| {
        DatasetError::unfit(
            "metadata",
            "the store has no table fma_features: extract it with features.csv next to tracks.csv",
        )
    })
}

/// Returns a column of `table`, cast to the type `to`.
fn column(
    store: &Store,
    table: &RecordBatch,
    name: &str,
    to: &DataType,
) -> Result<ArrayRef, DatasetError> {
    let column = table
        .column_by_name(name)
        .ok_or_else(|| DatasetError::column(store.root(), name, "missing in its table"))?;
    cast(column, to).map_err(|e| DatasetError::column(store.root(), name, e))
}

/// Returns the prefixes of the table's column names: `mfcc` for `mfcc_mean_01`.
fn stems(store: &Store) -> Result<String, DatasetError> {
    let mut stems = BTreeSet::new();
    for name in store.columns(TABLE)? {
        let parts: Vec<&str> = name.rsplitn(3, '_').collect();
        if let [_number, _statistic, stem] = parts[..] {
            stems.insert(stem.to_owned());
        }
    }
    Ok(stems.into_iter().collect::<Vec<_>>().join(", "))
}

/// Returns a vocabulary: the distinct ids of artists or albums of `rows`, in ascending order.
pub(crate) fn vocabulary(ids: &[Option<i64>], rows: &[u32]) -> Vec<i64> {
    let known: BTreeSet<i64> = rows.iter().filter_map(|&row| ids[row as usize]).collect();
    known.into_iter().collect()
}
