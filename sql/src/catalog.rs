//! The tables of one version by name: `tracks …` and `features_<name>` in the default schema `store`, the data set's
//! own files in `raw`, and `classes` and `files`, which are created from the manifest.
//!
//! A table is opened when a query first uses it, so a damaged file only affects queries over its table.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{
    ArrayRef, Int32Builder, ListBuilder, RecordBatch, StringArray, StringBuilder, UInt64Array,
    UInt64Builder,
};
use async_trait::async_trait;
use datafusion::catalog::{
    CatalogProvider, MemTable, MemoryCatalogProvider, SchemaProvider, TableProvider,
};
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::object_store::ObjectStoreUrl;
use wavemill_schemas::manifest::{FileEntry, Manifest};
use wavemill_schemas::tables::rejects_schema;
use wavemill_store::Store;

use super::SqlError;
use super::damage::OpenedFiles;
use super::table::StoreTable;

/// Name of the catalog.
pub(super) const CATALOG: &str = "wavemill";
/// Schema of the version's own tables, and the default schema for unqualified names.
pub(super) const STORE: &str = "store";
/// Schema of the data set's original files.
pub(super) const RAW: &str = "raw";
/// Manifest tables with this prefix are in the schema [`RAW`], without the prefix.
const RAW_PREFIX: &str = "raw_";

/// Builds the catalog of the version of `store` that `manifest` describes. Queries read its files through `url` and record them in `opened`.
///
/// # Errors
/// [`SqlError::Failed`] if Arrow rejects the tables created from the manifest, which does not occur in practice.
pub(super) fn build(
    store: &Store,
    url: &ObjectStoreUrl,
    manifest: &Manifest,
    opened: &OpenedFiles,
) -> Result<MemoryCatalogProvider, SqlError> {
    let mut own = StoreSchema::new(store.clone(), url.clone(), opened.clone());
    let mut raw = StoreSchema::new(store.clone(), url.clone(), opened.clone());
    for entry in &manifest.files {
        let name = table_name(entry);
        match name.strip_prefix(RAW_PREFIX) {
            Some(rest) => raw
                .files
                .entry(rest.to_owned())
                .or_default()
                .push(entry.clone()),
            None => own.files.entry(name).or_default().push(entry.clone()),
        }
    }

    own.add("classes", classes(manifest)?)?;
    own.add("files", files(manifest)?)?;
    // A version without rejects has no file of the table `rejects`. A query over this table returns no rows.
    if !own.files.contains_key("rejects") {
        own.add("rejects", RecordBatch::new_empty(rejects_schema()))?;
    }

    let catalog = MemoryCatalogProvider::new();
    catalog.register_schema(STORE, Arc::new(own))?;
    catalog.register_schema(RAW, Arc::new(raw))?;
    Ok(catalog)
}

/// Returns the name of a file's table in the manifest, such as `raw_x`. Its name in SQL is then `raw.x`.
pub(super) fn table_name(entry: &FileEntry) -> String {
    match &entry.feature {
        Some(feature) => format!("features_{feature}"),
        None => entry.name().to_owned(),
    }
}

/// Returns the name in SQL of the table to which a file belongs.
fn sql_name(entry: &FileEntry) -> String {
    let name = table_name(entry);
    match name.strip_prefix(RAW_PREFIX) {
        Some(rest) => format!("{RAW}.{rest}"),
        None => name,
    }
}

/// A SQL schema: its open tables, and the files from which further tables are opened.
#[derive(Debug)]
struct StoreSchema {
    store: Store,
    url: ObjectStoreUrl,
    opened: OpenedFiles,
    files: BTreeMap<String, Vec<FileEntry>>,
    open: Mutex<HashMap<String, Arc<dyn TableProvider>>>,
}

impl StoreSchema {
    fn new(store: Store, url: ObjectStoreUrl, opened: OpenedFiles) -> Self {
        Self {
            store,
            url,
            opened,
            files: BTreeMap::new(),
            open: Mutex::default(),
        }
    }

    fn add(&self, name: &str, batch: RecordBatch) -> Result<(), SqlError> {
        let table = MemTable::try_new(batch.schema(), vec![vec![batch]])?;
        self.tables().insert(name.to_owned(), Arc::new(table));
        Ok(())
    }

    fn tables(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<dyn TableProvider>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl SchemaProvider for StoreSchema {
    fn table_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .files
            .keys()
            .cloned()
            .chain(self.tables().keys().cloned())
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if let Some(table) = self.tables().get(name) {
            return Ok(Some(Arc::clone(table)));
        }
        let Some(entries) = self.files.get(name) else {
            return Ok(None);
        };

        // Do not hold the lock while footers are read from the disk. Two concurrent queries may then open the same
        // table twice, which is harmless.
        let table = StoreTable::open(&self.store, self.url.clone(), entries, &self.opened)
            .map_err(|error| DataFusionError::External(Box::new(error)))?;
        let table: Arc<dyn TableProvider> = Arc::new(table);
        self.tables().insert(name.to_owned(), Arc::clone(&table));
        Ok(Some(table))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.files.contains_key(name) || self.tables().contains_key(name)
    }

    fn register_table(
        &self,
        name: String,
        table: Arc<dyn TableProvider>,
    ) -> Result<Option<Arc<dyn TableProvider>>> {
        // The table was added by the user with `--table`, or with CREATE if that is permitted.
        Ok(self.tables().insert(name, table))
    }

    fn deregister_table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        // For a table of the store, this only closes it. The next query that uses the table opens it again.
        Ok(self.tables().remove(name))
    }
}

/// Creates the table `classes(target, class_id, class)`.
fn classes(manifest: &Manifest) -> Result<RecordBatch, SqlError> {
    let mut target_names = StringBuilder::new();
    let mut ids = Int32Builder::new();
    let mut names = StringBuilder::new();
    for target in &manifest.targets {
        for (id, class) in target.classes.iter().enumerate() {
            target_names.append_value(&target.name);
            ids.append_value(id as i32);
            names.append_value(class);
        }
    }

    let columns: [(&str, ArrayRef); 3] = [
        ("target", Arc::new(target_names.finish())),
        ("class_id", Arc::new(ids.finish())),
        ("class", Arc::new(names.finish())),
    ];
    Ok(RecordBatch::try_from_iter(columns)?)
}

/// Creates the table `files(table_name, split, path, rows, bytes, blake3, row_groups)`. `table_name` is the SQL name.
fn files(manifest: &Manifest) -> Result<RecordBatch, SqlError> {
    let files = &manifest.files;
    let table_names = files.iter().map(sql_name);
    let splits: StringArray = files.iter().map(|file| file.split.as_deref()).collect();
    let paths = files.iter().map(|file| &file.path);
    let rows = files.iter().map(|file| file.rows);
    let bytes = files.iter().map(|file| file.bytes);
    let hashes = files.iter().map(|file| &file.blake3);
    let mut row_groups = ListBuilder::new(UInt64Builder::new());
    for file in files {
        row_groups.append_value(file.row_groups.iter().map(|&rows| Some(rows)));
    }

    let columns: [(&str, ArrayRef); 7] = [
        (
            "table_name",
            Arc::new(StringArray::from_iter_values(table_names)),
        ),
        ("split", Arc::new(splits)),
        ("path", Arc::new(StringArray::from_iter_values(paths))),
        ("rows", Arc::new(UInt64Array::from_iter_values(rows))),
        ("bytes", Arc::new(UInt64Array::from_iter_values(bytes))),
        ("blake3", Arc::new(StringArray::from_iter_values(hashes))),
        ("row_groups", Arc::new(row_groups.finish())),
    ];
    Ok(RecordBatch::try_from_iter(columns)?)
}
