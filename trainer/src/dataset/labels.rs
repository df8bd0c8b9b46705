//! What is to be learned: classes of each target, and how often each is seen in training.
//!
//! Vocabularies and counts come from training rows alone.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};

use super::rows::Rows;
use super::{DatasetError, Store};

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
    pub fn resolve(names: &[String], store: &Store, rows: &Rows, training: &[u32]) -> Result<Vec<Self>, DatasetError> {
        let entries = &store.manifest().targets;
        let first: Vec<String> = entries.iter().take(1).map(|t| t.name.clone()).collect();
        let names = if names.is_empty() { &first } else { names };
        let resolve = |name: &String| {
            if let Some(column) = entries.iter().position(|t| t.name == *name) {
                let classes = entries[column].classes.clone();
                return Ok(Self { name: name.clone(), classes, source: Source::Column(column) });
            }
            if name == GENRES_ALL {
                return Self::genres(store, rows, training);
            }
            let mut there: Vec<&str> = entries.iter().map(|t| t.name.as_str()).collect();
            there.push(GENRES_ALL);
            Err(DatasetError::NotThere { key: "targets", found: name.clone(), there: there.join(", ") })
        };
        if names.is_empty() {
            let problem = format!("the recipe has no target: {GENRES_ALL} is all that can be learned");
            return Err(DatasetError::Unfit { key: "targets", problem });
        }
        names.iter().map(resolve).collect()
    }

    fn genres(store: &Store, rows: &Rows, training: &[u32]) -> Result<Self, DatasetError> {
        let mut classes: BTreeMap<i32, i64> =
            training.iter().flat_map(|&row| rows.genres(row as usize)).map(|&id| (id, 0)).collect();
        (0..).zip(classes.values_mut()).for_each(|(class, slot)| *slot = class);
        if classes.is_empty() {
            let problem = "no training row has a genre in genres_all".to_owned();
            return Err(DatasetError::Unfit { key: "targets", problem });
        }
        let titles = genre_titles(store)?;
        let title = |id: &i32| titles.get(&i64::from(*id)).cloned().unwrap_or_else(|| id.to_string());
        let names = classes.keys().map(title).collect();
        Ok(Self { name: GENRES_ALL.to_owned(), classes: names, source: Source::Genres(classes) })
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
        let genres: &[i32] = if self.is_multi() { rows.genres(row as usize) } else { &[] };
        let class = |id: &i32| match &self.source {
            Source::Genres(classes) => classes.get(id).copied(),
            Source::Column(_) => None,
        };
        one.into_iter().chain(genres.iter().filter_map(class))
    }

    /// Rows of `of` in each class.
    #[must_use]
    pub fn counts(&self, rows: &Rows, of: &[u32]) -> Vec<u64> {
        let mut counts = vec![0; self.classes.len()];
        of.iter().flat_map(|&row| self.labels(rows, row)).for_each(|class| counts[class as usize] += 1);
        counts
    }
}

fn genre_titles(store: &Store) -> Result<BTreeMap<i64, String>, DatasetError> {
    let table = store.table("genres", |name| matches!(name, "genre_id" | "title"))?;
    let columns = table.as_ref().and_then(|t| Some((t.column_by_name("genre_id")?, t.column_by_name("title")?)));
    let Some((ids, titles)) = columns else { return Ok(BTreeMap::new()) };
    let unreadable = |e: arrow::error::ArrowError| DatasetError::column(store.root(), "title", e.to_string());
    let ids = cast(ids, &DataType::Int64).map_err(unreadable)?;
    let titles = cast(titles, &DataType::Utf8).map_err(unreadable)?;
    let (ids, titles) = (ids.as_primitive::<Int64Type>(), titles.as_string::<i32>());
    let named = |&row: &usize| ids.is_valid(row) && titles.is_valid(row);
    Ok((0..ids.len()).filter(named).map(|row| (ids.value(row), titles.value(row).to_owned())).collect())
}
