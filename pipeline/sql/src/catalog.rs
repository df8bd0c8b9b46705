//! The tables of one version by name: `tracks …` and `features_<name>` in the default schema `store`, the data set's
//! own files in `raw`, and `files` and `versions`, which are created from manifests; so is `classes` in versions that have no
//! file of it.
//!
//! A table is opened when a query first uses it, so a damaged file only affects queries over its table. `tracks@3` is the
//! table of another version, by number or tag.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{
    ArrayRef, BooleanArray, Int32Builder, ListBuilder, RecordBatch, StringArray, StringBuilder,
    UInt64Array, UInt64Builder,
};
use async_trait::async_trait;
use datafusion::catalog::{
    CatalogProvider, MemTable, MemoryCatalogProvider, SchemaProvider, TableProvider,
};
use datafusion::common::Result;
use datafusion::execution::object_store::ObjectStoreUrl;
use wavemill_schemas::manifest::{FileEntry, Manifest, TargetEntry};
use wavemill_schemas::tables::rejects_schema;
use wavemill_schemas::version_name::VersionName;
use wavemill_store::{Store, VersionLine};

use super::damage::OpenedFiles;
use super::error::nearest;
use super::table::StoreTable;
use super::{SqlError, classes};

/// Name of the catalog.
pub(super) const CATALOG: &str = "wavemill";
/// Schema of the version's own tables, and the default schema for unqualified names.
pub(super) const STORE: &str = "store";
/// Schema of the data set's original files.
pub(super) const RAW: &str = "raw";
/// Name of the table of all versions of the store.
const VERSIONS: &str = "versions";
/// Separates the name of a table and that of a version.
const AT: char = '@';
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
    let schema = |name| StoreSchema {
        name,
        store: store.clone(),
        url: url.clone(),
        opened: opened.clone(),
        files: files_by_table(manifest, name),
        targets: manifest.targets.clone(),
        open: Mutex::default(),
    };
    let (own, raw) = (schema(STORE), schema(RAW));
    for name in MADE {
        // A version without rejects has no file of the table `rejects`. A query over this table returns no rows.
        if !own.files.contains_key(name)
            && let Some(batch) = made(name, manifest)?
        {
            own.add(name, batch)?;
        }
    }

    let catalog = MemoryCatalogProvider::new();
    catalog.register_schema(STORE, Arc::new(own))?;
    catalog.register_schema(RAW, Arc::new(raw))?;
    Ok(catalog)
}

/// Tables that are made from the manifest if the version has no files of them.
const MADE: [&str; 3] = ["classes", "files", "rejects"];

fn made(name: &str, manifest: &Manifest) -> Result<Option<RecordBatch>, SqlError> {
    Ok(Some(match name {
        "classes" => classes(manifest)?,
        "files" => files(manifest)?,
        "rejects" => RecordBatch::new_empty(rejects_schema()),
        _ => return Ok(None),
    }))
}

/// Returns the files of a version's tables in a schema, by the name of the table.
fn files_by_table(manifest: &Manifest, schema: &str) -> BTreeMap<String, Vec<FileEntry>> {
    let mut files: BTreeMap<String, Vec<FileEntry>> = BTreeMap::new();
    for entry in &manifest.files {
        let name = entry.table_name();
        let raw = name.strip_prefix(RAW_PREFIX);
        let name = match schema == RAW {
            true => raw,
            false => raw.is_none().then_some(&*name),
        };
        if let Some(name) = name {
            files
                .entry(name.to_owned())
                .or_default()
                .push(entry.clone());
        }
    }
    files
}

/// Returns the name in SQL of the table to which a file belongs, such as `raw.x` for `raw_x`.
pub(super) fn sql_name(entry: &FileEntry) -> String {
    let name = entry.table_name();
    match name.strip_prefix(RAW_PREFIX) {
        Some(rest) => format!("{RAW}.{rest}"),
        None => name,
    }
}

/// A SQL schema: its open tables, and the files from which further tables are opened.
#[derive(Debug)]
pub(super) struct StoreSchema {
    name: &'static str,
    store: Store,
    url: ObjectStoreUrl,
    opened: OpenedFiles,
    files: BTreeMap<String, Vec<FileEntry>>,
    targets: Vec<TargetEntry>,
    open: Mutex<HashMap<String, Arc<dyn TableProvider>>>,
}

impl StoreSchema {
    fn add(&self, name: &str, batch: RecordBatch) -> Result<(), SqlError> {
        self.tables().insert(name.to_owned(), in_memory(batch)?);
        Ok(())
    }

    /// Opens a table of this version, `versions`, or `TABLE@VERSION`; returns `None` if there is no such table.
    fn open(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, SqlError> {
        if let Some(entries) = self.files.get(name) {
            return self.over(entries, &self.targets).map(Some);
        }
        if self.name == STORE && name == VERSIONS {
            return in_memory(versions(&self.store)?).map(Some);
        }
        match name.rsplit_once(AT) {
            Some((table, version)) => self.of_version(table, version).map(Some),
            None => Ok(None),
        }
    }

    fn over(
        &self,
        entries: &[FileEntry],
        targets: &[TargetEntry],
    ) -> Result<Arc<dyn TableProvider>, SqlError> {
        let table = StoreTable::open(&self.store, self.url.clone(), entries, &self.opened)?;
        match entries.iter().any(|entry| entry.feature.is_some()) {
            true => classes::with_names(table, targets),
            false => Ok(Arc::new(table)),
        }
    }

    /// Reports whether a table belongs to the store, and not to the user or the session.
    pub(super) fn is_stored(&self, name: &str) -> bool {
        // Only reading another version shows whether it has a table.
        let is_other = name.contains(AT) || (self.name == STORE && name == VERSIONS);
        let is_made = self.name == STORE && MADE.contains(&name);
        is_other || is_made || self.files.contains_key(name)
    }

    fn of_version(&self, table: &str, version: &str) -> Result<Arc<dyn TableProvider>, SqlError> {
        let version: VersionName = version
            .parse()
            .map_err(|error| SqlError::Usage(format!("{table}{AT}{version}: {error}")))?;
        let number = self.store.resolve(Some(&version))?;
        let (_, manifest) = self.store.readable(number)?;

        let files = files_by_table(&manifest, self.name);
        if let Some(entries) = files.get(table) {
            return self.over(entries, &manifest.targets);
        }
        if self.name == STORE
            && let Some(batch) = made(table, &manifest)?
        {
            return in_memory(batch);
        }
        let names: Vec<&str> = files.keys().map(String::as_str).collect();
        let near = nearest(table, &names);
        Err(SqlError::unknown(
            "table",
            &format!("{table}{AT}{version}"),
            SqlError::did_you_mean(&near),
        ))
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
            .chain((self.name == STORE).then(|| VERSIONS.to_owned()))
            .collect();
        // Tables of other versions have no end.
        names.retain(|name| !name.contains(AT));
        names.sort_unstable();
        names.dedup();
        names
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if let Some(table) = self.tables().get(name) {
            return Ok(Some(Arc::clone(table)));
        }
        // Do not hold the lock while footers are read from the disk. Two concurrent queries may then open the same
        // table twice, which is harmless.
        let opened = self.open(name);
        let Some(table) = opened? else {
            return Ok(None);
        };
        // Versions and tags may change while a session is open.
        if name != VERSIONS && !name.contains(AT) {
            self.tables().insert(name.to_owned(), Arc::clone(&table));
        }
        Ok(Some(table))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.is_stored(name) || self.tables().contains_key(name)
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

fn in_memory(batch: RecordBatch) -> Result<Arc<dyn TableProvider>, SqlError> {
    let table = MemTable::try_new(batch.schema(), vec![vec![batch]])?;
    Ok(Arc::new(table))
}

/// Creates the table `versions(version, committed, tags, recipe, clips, rows, has_data, changed)`.
fn versions(store: &Store) -> Result<RecordBatch, SqlError> {
    let lines = store.history(&store.tags()?)?;
    let held = |line: &VersionLine| line.held.clone();
    let numbers = lines.iter().map(|line| line.version);
    let committed: StringArray = lines.iter().map(|line| line.committed.as_deref()).collect();
    let changed: StringArray = lines.iter().map(|line| line.changed.as_deref()).collect();
    let recipes: StringArray = lines.iter().map(|line| Some(held(line)?.recipe)).collect();
    let clips: UInt64Array = lines.iter().map(|line| Some(held(line)?.clips)).collect();
    let rows: UInt64Array = lines.iter().map(|line| Some(held(line)?.rows)).collect();
    let has_data: BooleanArray = lines.iter().map(|line| Some(held(line)?.data)).collect();
    let mut tags = ListBuilder::new(StringBuilder::new());
    for line in &lines {
        tags.append_value(line.tags.iter().map(Some));
    }

    let columns: [(&str, ArrayRef); 8] = [
        ("version", Arc::new(UInt64Array::from_iter_values(numbers))),
        ("committed", Arc::new(committed)),
        ("tags", Arc::new(tags.finish())),
        ("recipe", Arc::new(recipes)),
        ("clips", Arc::new(clips)),
        ("rows", Arc::new(rows)),
        ("has_data", Arc::new(has_data)),
        ("changed", Arc::new(changed)),
    ];
    Ok(RecordBatch::try_from_iter(columns)?)
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
