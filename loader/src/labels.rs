//! What is to be learned: classes of each target, and how often each is seen in training.
//!
//! Vocabularies and counts come from training rows alone.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};

use crate::rows::Rows;
use crate::{DatasetError, Store};

/// The target of several labels a row: ids of `genres_all` that training rows have.
pub const GENRES_ALL: &str = "genres_all";

/// A target.
#[derive(Clone, Debug)]
pub struct Target {
    name: String,
    classes: Vec<String>,
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    /// Index among the manifest's targets.
    Column(usize),
    /// Class of each genre id.
    Genres(BTreeMap<i32, i64>),
}

impl Target {
    /// The targets named, or the recipe's first.
    ///
    /// `training`: the training rows.
    ///
    /// # Errors
    /// [`DatasetError::NotThere`] with the store's targets.
    pub(crate) fn resolve(
        names: &[String],
        store: &Store,
        rows: &Rows,
        training: &[u32],
    ) -> Result<Vec<Self>, DatasetError> {
        if names.is_empty() {
            let Some(first) = store.manifest().targets.first() else {
                return Err(DatasetError::Unfit {
                    key: "targets",
                    problem: format!(
                        "the recipe has no target: {GENRES_ALL} is all that can be learned"
                    ),
                });
            };
            return Ok(vec![Self::named(&first.name, store, rows, training)?]);
        }

        names
            .iter()
            .map(|name| Self::named(name, store, rows, training))
            .collect()
    }

    fn named(
        name: &str,
        store: &Store,
        rows: &Rows,
        training: &[u32],
    ) -> Result<Self, DatasetError> {
        let entries = &store.manifest().targets;
        if let Some(column) = entries.iter().position(|target| target.name == name) {
            return Ok(Self {
                name: name.to_owned(),
                classes: entries[column].classes.clone(),
                source: Source::Column(column),
            });
        }
        if name == GENRES_ALL {
            return Self::genres(store, rows, training);
        }

        // `genres_all` needs no entry in the manifest, so it is named beside the store's targets.
        let mut there: Vec<&str> = entries.iter().map(|target| target.name.as_str()).collect();
        there.push(GENRES_ALL);
        Err(DatasetError::NotThere {
            key: "targets",
            found: name.to_owned(),
            there: there.join(", "),
        })
    }

    /// The target of several labels a row: its classes are the genres of `training` rows, by ascending id.
    fn genres(store: &Store, rows: &Rows, training: &[u32]) -> Result<Self, DatasetError> {
        let ids: BTreeSet<i32> = training
            .iter()
            .flat_map(|&row| rows.genres(row as usize))
            .copied()
            .collect();
        if ids.is_empty() {
            return Err(DatasetError::Unfit {
                key: "targets",
                problem: "no training row has a genre in genres_all".to_owned(),
            });
        }

        let titles = genre_titles(store)?;
        let mut classes = Vec::with_capacity(ids.len());
        for &id in &ids {
            // The table of genres need not have every id; the number is then the name.
            let title = titles.get(&i64::from(id)).cloned();
            classes.push(title.unwrap_or_else(|| id.to_string()));
        }

        Ok(Self {
            name: GENRES_ALL.to_owned(),
            classes,
            source: Source::Genres(ids.into_iter().zip(0..).collect()),
        })
    }

    /// As configured.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Names in id order.
    #[must_use]
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// Whether a row may have several classes.
    #[must_use]
    pub const fn is_multi(&self) -> bool {
        matches!(self.source, Source::Genres(_))
    }

    /// Class of a row; -1 for none, and for every row of a target of several labels.
    #[must_use]
    pub fn label(&self, rows: &Rows, row: u32) -> i64 {
        match &self.source {
            Source::Column(column) => i64::from(rows.targets[*column][row as usize]),
            Source::Genres(_) => -1,
        }
    }

    /// Classes of a row, one or several; empty for an unlabelled one. Genres that training never saw are left out.
    pub fn labels<'a>(&'a self, rows: &'a Rows, row: u32) -> impl Iterator<Item = i64> + 'a {
        let one = Some(self.label(rows, row)).filter(|label| *label >= 0);
        let genres: &[i32] = if self.is_multi() {
            rows.genres(row as usize)
        } else {
            &[]
        };
        one.into_iter()
            .chain(genres.iter().filter_map(|&id| self.class_of_genre(id)))
    }

    fn class_of_genre(&self, id: i32) -> Option<i64> {
        match &self.source {
            Source::Genres(classes) => classes.get(&id).copied(),
            Source::Column(_) => None,
        }
    }

    /// Rows of `of` in each class.
    #[must_use]
    pub fn counts(&self, rows: &Rows, of: &[u32]) -> Vec<u64> {
        let mut counts = vec![0; self.classes.len()];
        for &row in of {
            for class in self.labels(rows, row) {
                counts[class as usize] += 1;
            }
        }
        counts
    }
}

/// Titles by id, from the store's `genres`; empty where it has no such table.
fn genre_titles(store: &Store) -> Result<BTreeMap<i64, String>, DatasetError> {
    let table = store.table("genres", |name| matches!(name, "genre_id" | "title"))?;
    let columns = table.as_ref().and_then(|table| {
        Some((
            table.column_by_name("genre_id")?,
            table.column_by_name("title")?,
        ))
    });
    let Some((ids, titles)) = columns else {
        return Ok(BTreeMap::new());
    };

    let unreadable =
        |e: arrow::error::ArrowError| DatasetError::column(store.root(), "title", e.to_string());
    let ids = cast(ids, &DataType::Int64).map_err(unreadable)?;
    let ids = ids.as_primitive::<Int64Type>();
    let titles = cast(titles, &DataType::Utf8).map_err(unreadable)?;
    let titles = titles.as_string::<i32>();

    let mut by_id = BTreeMap::new();
    for row in 0..ids.len() {
        if ids.is_valid(row) && titles.is_valid(row) {
            by_id.insert(ids.value(row), titles.value(row).to_owned());
        }
    }
    Ok(by_id)
}
