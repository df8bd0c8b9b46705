//! Differences between the columns of two versions' tables.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;
use wavemill_schemas::manifest::Manifest;
use wavemill_store::{Store, StoreError};

use crate::incremental::parent;

/// A column that only one of two versions has, or whose type differs between them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ColumnChange {
    /// Name of the table.
    pub table: String,
    /// Name of the column.
    pub column: String,
    /// Arrow's name of the type before; `None` if the column did not exist.
    pub from: Option<String>,
    /// Arrow's name of the type now; `None` if the column no longer exists.
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
pub fn column_changes(
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
