//! Which columns of a store's tables differ between two versions.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;
use wavemill_schemas::manifest::Manifest;

use crate::parent;
use crate::store::{Store, StoreError};

/// A column that one version has and the other has not, or has with another type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ColumnChange {
    /// The table's name.
    pub table: String,
    /// The column's name.
    pub column: String,
    /// Arrow's name of its type before; `None` if there was no such column.
    pub from: Option<String>,
    /// Arrow's name of its type now.
    pub to: Option<String>,
}

impl fmt::Display for ColumnChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, column, .. } = self;
        match (&self.from, &self.to) {
            (None, Some(to)) => write!(f, "column {table}.{column} added ({to})"),
            (Some(from), None) => write!(f, "column {table}.{column} removed ({from})"),
            (from, to) => {
                let [from, to] = [from, to].map(|name| name.as_deref().unwrap_or_default());
                write!(f, "column {table}.{column}: {from} -> {to}")
            }
        }
    }
}

/// Compares the columns of the tables that both versions have, by table and name.
///
/// # Errors
/// [`StoreError`] if a table is lost or damaged.
pub(crate) fn column_changes(
    store: &Store,
    from: &Manifest,
    to: &Manifest,
) -> Result<Vec<ColumnChange>, StoreError> {
    let mut changes = Vec::new();
    for table in tables(from).intersection(&tables(to)) {
        let was = parent::column_types(store, from, table)?;
        let is = parent::column_types(store, to, table)?;
        let names: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
        for column in names {
            let (before, now) = (was.get(column), is.get(column));
            if before != now {
                changes.push(ColumnChange {
                    table: (*table).to_owned(),
                    column: column.clone(),
                    from: before.cloned(),
                    to: now.cloned(),
                });
            }
        }
    }
    Ok(changes)
}

fn tables(manifest: &Manifest) -> BTreeSet<&str> {
    let files = manifest.files.iter();
    files.filter_map(|file| file.table.as_deref()).collect()
}
