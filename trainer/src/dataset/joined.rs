//! What is known of a row's track beyond its sound: columns of `fma_features`, artists and albums.
//!
//! Means, deviations and vocabularies come from training rows alone.

use std::collections::{BTreeSet, HashMap};

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, Int64Type};

use super::rows::Rows;
use super::spec::MetadataColumn;
use super::{DatasetError, Store};

/// Table of the published numbers.
const TABLE: &str = "fma_features";

/// Values of each track's columns, as published.
#[derive(Debug)]
pub struct Metadata {
    names: Vec<String>,
    /// Track by track; NaN where missing.
    values: Vec<f32>,
    /// Place of each row's track; `None` where the table has none.
    place_of: Vec<Option<u32>>,
}

impl Metadata {
    /// The columns of the store's `fma_features` that begin with one of `prefixes`, in the table's order.
    ///
    /// # Errors
    /// [`DatasetError::Unfit`]: no such table, no prefix; [`DatasetError::NotThere`] with what its columns begin with.
    pub fn read(store: &Store, rows: &Rows, prefixes: &[String]) -> Result<Self, DatasetError> {
        let unfit = |problem: &str| DatasetError::Unfit { key: "metadata", problem: problem.to_owned() };
        if prefixes.is_empty() {
            return Err(unfit("the model needs columns of fma_features: name some, such as [\"mfcc\"]"));
        }
        let table = store.table(TABLE, |name| name == "track_id" || prefixes.iter().any(|p| name.starts_with(p)))?;
        let absent = "the store has no table fma_features: extract it with features.csv beside tracks.csv";
        let table = table.ok_or_else(|| unfit(absent))?;
        let schema = table.schema();
        let is_value = |name: &str| name != "track_id";
        let names: Vec<String> = schema.fields().iter().map(|f| f.name().clone()).filter(|n| is_value(n)).collect();
        if let Some(prefix) = prefixes.iter().find(|p| !names.iter().any(|name| name.starts_with(p.as_str()))) {
            let there = stems(store)?;
            return Err(DatasetError::NotThere { key: "metadata", found: prefix.clone(), there });
        }

        let column = |name: &str, to: &DataType| {
            let missing = || DatasetError::column(store.root(), name, format!("missing in {TABLE}"));
            let column = table.column_by_name(name).ok_or_else(missing)?;
            cast(column, to).map_err(|e| DatasetError::column(store.root(), name, format!("{e} in {TABLE}")))
        };
        let tracks = column("track_id", &DataType::Int64)?;
        let mut metadata = Self { names, values: Vec::new(), place_of: Vec::new() };
        let kept = metadata.place(rows, tracks.as_primitive::<Int64Type>().values());
        let width = metadata.names.len();
        metadata.values = vec![f32::NAN; kept.len() * width];
        for (place, name) in metadata.names.iter().enumerate() {
            let values = column(name, &DataType::Float32)?;
            let values = values.as_primitive::<Float32Type>();
            for (track, &row) in kept.iter().enumerate().filter(|(_, row)| values.is_valid(**row)) {
                metadata.values[track * width + place] = values.value(row);
            }
        }
        Ok(metadata)
    }

    /// Finds each row's track in the table; gives the table's rows that are kept.
    fn place(&mut self, rows: &Rows, tracks: &[i64]) -> Vec<usize> {
        let in_table: HashMap<i64, usize> = tracks.iter().enumerate().map(|(row, &track)| (track, row)).collect();
        let mut kept = Vec::new();
        let mut places: HashMap<i64, u32> = HashMap::new();
        for track in &rows.track_ids {
            let place = in_table.get(track).map(|&row| {
                *places.entry(*track).or_insert_with(|| {
                    kept.push(row);
                    kept.len() as u32 - 1
                })
            });
            self.place_of.push(place);
        }
        kept
    }

    /// The columns with mean and deviation over `training` rows.
    #[must_use]
    pub fn columns(&self, training: &[u32]) -> Vec<MetadataColumn> {
        let one = |(place, name): (usize, &String)| {
            let values = || training.iter().filter_map(|&row| self.row(row)).map(|row| row[place]);
            let (mean, std) = moments(values().filter(|value| value.is_finite()).map(f64::from));
            MetadataColumn { name: name.clone(), mean, std }
        };
        self.names.iter().enumerate().map(one).collect()
    }

    /// Values of `rows`, row by row; NaN where missing.
    #[must_use]
    pub fn values(&self, rows: &[u32]) -> Vec<f32> {
        let mut values = Vec::with_capacity(rows.len() * self.names.len());
        for &row in rows {
            match self.row(row) {
                Some(row) => values.extend_from_slice(row),
                None => values.resize(values.len() + self.names.len(), f32::NAN),
            }
        }
        values
    }

    /// Whether the table has a row's track.
    #[must_use]
    pub fn has(&self, row: u32) -> bool {
        self.place_of[row as usize].is_some()
    }

    fn row(&self, row: u32) -> Option<&[f32]> {
        let place = self.place_of[row as usize]? as usize;
        self.values.get(place * self.names.len()..(place + 1) * self.names.len())
    }
}

/// Mean and population deviation; the deviation of equal values is 0 and no rounding error.
fn moments(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let (mut n, mut sum, mut least, mut most) = (0_u64, 0.0, f64::INFINITY, f64::NEG_INFINITY);
    for value in values.clone() {
        n += 1;
        sum += value;
        least = value.min(least);
        most = value.max(most);
    }
    if least >= most {
        return (if n == 0 { 0.0 } else { least }, 0.0);
    }
    let mean = sum / n as f64;
    let squares: f64 = values.map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / n as f64).sqrt())
}

/// What the table's columns begin with: `mfcc` for `mfcc_mean_01`.
fn stems(store: &Store) -> Result<String, DatasetError> {
    let mut stems = BTreeSet::new();
    for name in store.columns(TABLE)? {
        let parts = name.rsplitn(3, '_').count();
        stems.extend(name.rsplitn(3, '_').last().filter(|_| parts == 3).map(str::to_owned));
    }
    Ok(stems.into_iter().collect::<Vec<_>>().join(", "))
}

/// The ids that `rows` have, ascending: a vocabulary.
#[must_use]
pub fn vocabulary(ids: &[Option<i64>], rows: &[u32]) -> Vec<i64> {
    let known: BTreeSet<i64> = rows.iter().filter_map(|&row| ids[row as usize]).collect();
    known.into_iter().collect()
}
