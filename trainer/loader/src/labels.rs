//! Targets: the classes to be learned and the number of training rows in each class.
//!
//! Vocabularies and counts are computed from training rows only. If rows are read for a trained model, its classes are
//! used.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use wavemill_schemas::manifest::TargetEntry;

use crate::rows::Rows;
use crate::{DatasetError, Store};

/// Name of the multi-label target, whose classes are the genres in `genres_all` of training rows.
pub const GENRES_ALL: &str = "genres_all";

/// A target to be predicted, with its classes.
#[derive(Clone, Debug)]
pub struct Target {
    name: String,
    classes: Vec<String>,
    source: Source,
    /// Names of the labels that rows have but the model's `classes` lack, by the store's id. Empty unless the classes
    /// are those of a trained model.
    unknown: BTreeMap<i32, String>,
}

#[derive(Clone, Debug)]
enum Source {
    /// Index of the target in the manifest; the stored ids are the classes.
    Column(usize),
    /// Index of the target in the manifest, and the class of each stored id.
    Matched(usize, BTreeMap<i32, i64>),
    /// The class of each genre id in `genres_all`.
    Genres(BTreeMap<i32, i64>),
}

impl Target {
    /// Returns the targets with these names, or the recipe's first target if `names` is empty.
    ///
    /// `training` are the indices of the training rows.
    ///
    /// # Errors
    /// [`DatasetError::Unfit`], which names the store's targets, if a target does not exist.
    pub(crate) fn resolve(
        names: &[String],
        store: &Store,
        rows: &Rows,
        training: &[u32],
    ) -> Result<Vec<Self>, DatasetError> {
        if names.is_empty() {
            let Some(first) = store.manifest().targets.first() else {
                let problem = format!("the recipe has no target: only {GENRES_ALL} can be learned");
                return Err(DatasetError::unfit("targets", problem));
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
            if entries[column].classes.is_empty() {
                let problem = format!("{name} has no class: all rows are unlabelled");
                return Err(DatasetError::unfit("targets", problem));
            }
            return Ok(Self {
                name: name.to_owned(),
                classes: entries[column].classes.clone(),
                source: Source::Column(column),
                unknown: BTreeMap::new(),
            });
        }

        if name == GENRES_ALL {
            return Self::genres(store, rows, training);
        }
        Err(not_there(name, entries))
    }

    /// Returns the targets of a trained model, each with its name and classes. A row's label is matched to a class by
    /// its name because its id may differ between versions of the store.
    ///
    /// # Errors
    /// The same errors as for [`Self::resolve`].
    pub(crate) fn matched(
        targets: &[(String, Vec<String>)],
        store: &Store,
        rows: &Rows,
    ) -> Result<Vec<Self>, DatasetError> {
        targets
            .iter()
            .map(|(name, classes)| Self::with_classes(name, classes, store, rows))
            .collect()
    }

    fn with_classes(
        name: &str,
        classes: &[String],
        store: &Store,
        rows: &Rows,
    ) -> Result<Self, DatasetError> {
        let entries = &store.manifest().targets;
        let column = entries.iter().position(|target| target.name == name);

        let mut there: Vec<(i32, String)> = Vec::new();
        if let Some(column) = column {
            there.extend((0..).zip(entries[column].classes.iter().cloned()));
        } else if name == GENRES_ALL {
            let ids = genre_ids(rows, 0..rows.len());
            let names = genre_names(store, &ids)?;
            there.extend(ids.into_iter().zip(names));
        } else {
            return Err(not_there(name, entries));
        }

        let (known, unknown) = by_name(classes, there);
        Ok(Self {
            name: name.to_owned(),
            classes: classes.to_vec(),
            source: match column {
                Some(column) => Source::Matched(column, known),
                None => Source::Genres(known),
            },
            unknown,
        })
    }

    /// Creates the multi-label target. Its classes are the genres of `training` rows, in ascending order of their ids.
    fn genres(store: &Store, rows: &Rows, training: &[u32]) -> Result<Self, DatasetError> {
        let ids = genre_ids(rows, training.iter().map(|&row| row as usize));
        if ids.is_empty() {
            let problem = "no training row has a genre in genres_all";
            return Err(DatasetError::unfit("targets", problem));
        }

        Ok(Self {
            name: GENRES_ALL.to_owned(),
            classes: genre_names(store, &ids)?,
            source: Source::Genres(ids.into_iter().zip(0..).collect()),
            unknown: BTreeMap::new(),
        })
    }

    /// Returns the name of the target, as configured.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the names of the target's classes, in id order.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// Reports whether a row may have several classes.
    pub const fn is_multi(&self) -> bool {
        matches!(self.source, Source::Genres(_))
    }

    /// Returns the class of a row; -1 if the row has no class, and for every row of a multi-label target.
    pub fn label(&self, rows: &Rows, row: u32) -> i64 {
        match &self.source {
            Source::Column(column) => i64::from(rows.targets[*column][row as usize]),
            Source::Matched(column, classes) => {
                let id = rows.targets[*column][row as usize];
                classes.get(&id).copied().unwrap_or(-1)
            }
            Source::Genres(_) => -1,
        }
    }

    /// Returns the classes of a row; empty for an unlabelled row. Genres that no training row has are left out.
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
            Source::Column(_) | Source::Matched(..) => None,
        }
    }

    /// Returns the names of a row's labels that a trained model does not know; none if the classes are those of the
    /// store.
    pub(crate) fn unknown_of<'a>(
        &'a self,
        rows: &'a Rows,
        row: u32,
    ) -> impl Iterator<Item = &'a str> {
        let ids: &[i32] = match &self.source {
            Source::Matched(column, _) => {
                std::slice::from_ref(&rows.targets[*column][row as usize])
            }
            Source::Genres(_) => rows.genres(row as usize),
            Source::Column(_) => &[],
        };
        ids.iter()
            .filter_map(|id| self.unknown.get(id))
            .map(String::as_str)
    }

    /// Returns the number of the rows `of`, without repetitions, in each class.
    pub fn counts(&self, rows: &Rows, of: &[u32]) -> Vec<u64> {
        let mut counts = vec![0; self.classes.len()];
        // A row counts once in a class, although its list may repeat a genre.
        let mut counted_last = vec![None; self.classes.len()];
        for &row in of {
            for class in self.labels(rows, row) {
                let last = counted_last[class as usize].replace(row);
                counts[class as usize] += u64::from(last != Some(row));
            }
        }
        counts
    }
}

/// Matches the stored ids and names `there` to classes by name. Returns the class of each id, and the ids whose names
/// match no class.
///
/// If several genres share a name, the first id with this name gets the first class with this name, and so on; further
/// ids get the last such class.
fn by_name(
    classes: &[String],
    there: Vec<(i32, String)>,
) -> (BTreeMap<i32, i64>, BTreeMap<i32, String>) {
    let mut places: HashMap<&str, Vec<i64>> = HashMap::new();
    for (place, class) in (0..).zip(classes) {
        places.entry(class.as_str()).or_default().push(place);
    }

    let mut known = BTreeMap::new();
    let mut unknown = BTreeMap::new();
    for (id, name) in there {
        let Some(left) = places.get_mut(name.as_str()) else {
            unknown.insert(id, name);
            continue;
        };
        known.insert(id, left[0]);
        if left.len() > 1 {
            left.remove(0);
        }
    }
    (known, unknown)
}

fn not_there(name: &str, entries: &[TargetEntry]) -> DatasetError {
    // `genres_all` has no entry in the manifest, so it is added to the names of the store's targets.
    let mut there: Vec<&str> = entries.iter().map(|target| target.name.as_str()).collect();
    there.push(GENRES_ALL);
    DatasetError::not_there("targets", name, &there.join(", "))
}

/// Returns the ids of the genres of the rows `of`.
fn genre_ids(rows: &Rows, of: impl Iterator<Item = usize>) -> BTreeSet<i32> {
    of.flat_map(|row| rows.genres(row)).copied().collect()
}

/// Returns the names of genres, in the order of their ids.
fn genre_names(store: &Store, ids: &BTreeSet<i32>) -> Result<Vec<String>, DatasetError> {
    let titles = genre_titles(store)?;
    let mut names = Vec::with_capacity(ids.len());
    for &id in ids {
        // If the table `genres` lacks an id, the number is used as the name.
        let title = titles.get(&i64::from(id)).cloned();
        names.push(title.unwrap_or_else(|| id.to_string()));
    }
    Ok(names)
}

/// Returns the titles of genres by id, from the store's table `genres`; empty if there is no such table.
fn genre_titles(store: &Store) -> Result<BTreeMap<i64, String>, DatasetError> {
    let table = store.table("genres", |name| matches!(name, "genre_id" | "title"))?;
    let pairs = store.pairs(table.as_ref(), "genre_id", "title")?;
    Ok(pairs.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn genres_of_one_name_are_its_classes_in_their_order() {
        let classes = ["a", "x", "x"].map(str::to_owned);
        let there = [(1, "x"), (3, "a"), (5, "x"), (6, "x"), (7, "y")];
        let there = there.map(|(id, name)| (id, name.to_owned()));
        let (known, unknown) = by_name(&classes, there.to_vec());
        assert_eq!(known, BTreeMap::from([(1, 1), (3, 0), (5, 2), (6, 2)]));
        assert_eq!(unknown, BTreeMap::from([(7, "y".to_owned())]));
    }
}
