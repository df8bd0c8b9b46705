//! A committed, read-only version of a feature store: its manifest and its files.
//!
//! The features of a store in an object store are read by ranges, and copied meanwhile. Its tables are copied first.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch, RecordBatchReader};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Int64Type};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use wavemill_reader::{
    CommittedVersion, RemoteError, StoreError, StoreFolder, continue_in_background, hash_reader,
};
use wavemill_schemas::durable::if_there;
use wavemill_schemas::manifest::{FeatureEntry, FileEntry, Manifest};
use wavemill_schemas::version_name::VersionName;

use crate::DatasetError;
use crate::file::FeatureFile;

/// Id of the process in which a thread copies files in the background; 0 if there is none. A lock could be held by a thread
/// that a forked process does not have.
static COPIER: AtomicU32 = AtomicU32::new(0);

/// The turn of a thread that copies files.
struct Turn;

impl Turn {
    /// Waits until no other thread of this process copies files; returns `None` if `stop` is set.
    fn take(stop: &AtomicBool) -> Option<Self> {
        loop {
            if stop.load(Ordering::Relaxed) {
                return None;
            }
            let copier = COPIER.load(Ordering::Relaxed);
            let is_free = copier != process::id();
            let (acquire, relaxed) = (Ordering::Acquire, Ordering::Relaxed);
            if is_free
                && COPIER
                    .compare_exchange(copier, process::id(), acquire, relaxed)
                    .is_ok()
            {
                return Some(Self);
            }
            std::thread::sleep(TURN_EVERY);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        COPIER.store(0, Ordering::Release);
    }
}

/// Time between two attempts to take a turn.
const TURN_EVERY: Duration = Duration::from_millis(50);
/// Number of files that are copied in the background at the same time.
const COPIED_AT_ONCE: usize = 4;

/// Copying in the background, which ends after the current files when this is dropped.
#[derive(Debug)]
pub(crate) struct Copying {
    stops: Arc<AtomicBool>,
}

impl Drop for Copying {
    fn drop(&mut self) {
        self.stops.store(true, Ordering::Relaxed);
    }
}

/// One committed version of a store.
#[derive(Clone, Debug)]
pub struct Store {
    folder: StoreFolder,
    committed: CommittedVersion,
    checks_shards: bool,
}

impl Store {
    /// Opens the version with the name `name`, or the latest version.
    ///
    /// # Errors
    /// [`DatasetError::Store`] if the store or the version does not exist or cannot be read.
    pub fn open(root: &Path, name: Option<&VersionName>) -> Result<Self, DatasetError> {
        let folder = StoreFolder::open(root)?;
        let committed = folder.committed(folder.resolve(name)?)?;
        Ok(Self {
            folder,
            committed,
            checks_shards: true,
        })
    }

    /// Returns the same version, but without comparing each shard with its blake3 hash before its first row is read:
    /// for shards that were already compared, or for readers who accept that a flipped bit changes a value. Tables are
    /// still compared.
    #[must_use]
    pub fn without_shard_checks(mut self) -> Self {
        self.checks_shards = false;
        self
    }

    /// Reports whether shards are compared with their blake3 hash: true unless [`Self::without_shard_checks`] was
    /// called.
    pub const fn checks_shards(&self) -> bool {
        self.checks_shards
    }

    /// Returns the root folder of the store, or its address.
    pub fn root(&self) -> &Path {
        self.folder.place()
    }

    /// Returns the number of the version.
    pub const fn version(&self) -> u64 {
        self.committed.version
    }

    /// Returns the manifest of the version.
    pub const fn manifest(&self) -> &Manifest {
        &self.committed.manifest
    }

    /// Returns the split rule of the recipe, which determines folders and statistics.
    pub fn rule(&self) -> &'static str {
        self.manifest().recipe.split.rule.name()
    }

    /// Returns the blake3 hash of the manifest as lower-case hex, which identifies this state of the store.
    pub fn manifest_hash(&self) -> &str {
        &self.committed.hash
    }

    /// Returns the feature with the name `name`, or the recipe's first feature for `None`.
    ///
    /// # Errors
    /// [`DatasetError::Unfit`], which names the existing features, if there is no such feature.
    pub fn feature(&self, name: Option<&str>) -> Result<&FeatureEntry, DatasetError> {
        let features = &self.manifest().features;
        let found = features
            .iter()
            .find(|feature| name.is_none_or(|name| feature.name == name));
        found.ok_or_else(|| {
            let names: Vec<&str> = features
                .iter()
                .map(|feature| feature.name.as_str())
                .collect();
            DatasetError::not_there("feature", name.unwrap_or_default(), &names.join(", "))
        })
    }

    /// Returns the path of a file that the manifest names, to be opened; the file need not exist. The store's root folder
    /// may be a symbolic link. A file of an object store is copied first.
    ///
    /// # Errors
    /// [`DatasetError::Store`] if a symbolic link in the path leads out of the store, or the file cannot be copied.
    pub fn path(&self, file: &FileEntry) -> Result<PathBuf, DatasetError> {
        match self.folder.file(file) {
            Err(StoreError::Remote(error)) => Err(DatasetError::of_remote(error)),
            found => Ok(found?),
        }
    }

    /// Returns the path of a file that has the content in the manifest, comparing it until `stop` is set. A damaged copy
    /// of an object is copied again.
    pub(crate) fn sound_path(
        &self,
        entry: &FileEntry,
        stop: Option<&AtomicBool>,
    ) -> Result<PathBuf, DatasetError> {
        let path = self.path(entry)?;
        let mut compared = require_content(&path, &entry.blake3, stop);
        if self.is_remote() && compared.as_ref().is_err_and(DatasetError::is_damage) {
            // A copy that cannot be removed is compared again.
            let _ = fs::remove_file(&path);
            compared = require_content(&self.path(entry)?, &entry.blake3, stop);
        }
        compared.map(|()| path)
    }

    /// Checks that `wavemill gc` has not removed the data of the version.
    pub(crate) fn require_data(&self) -> Result<(), DatasetError> {
        Ok(self.folder.require_data(&self.committed)?)
    }

    /// Reports whether the store is in an object store.
    pub(crate) fn is_remote(&self) -> bool {
        self.folder.remote().is_some()
    }

    /// Opens a file of a feature. A file in an object store is not copied.
    ///
    /// # Errors
    /// [`DatasetError::Damaged`] if the file is missing, [`DatasetError::Store`] if it cannot be opened.
    pub(crate) fn open_file(&self, entry: &FileEntry) -> Result<FeatureFile, DatasetError> {
        // Files of earlier programs have no checksums of pages.
        if let Some(mirror) = self.folder.mirror()
            && entry.footer.is_some()
        {
            let address = self.root().join(&entry.path);
            return Ok(FeatureFile::streamed(address, mirror.streamed(entry)));
        }
        let path = self.path(entry)?;
        // A missing file is damage, which `data.skip_damaged` skips; other operating system errors are not skipped.
        let opened = if_there(FeatureFile::open(path.clone()));
        let opened = opened.map_err(DatasetError::io_at(&path, "open"))?;
        opened.ok_or_else(|| DatasetError::changed(&path, "missing"))
    }

    /// Copies the files of a feature from an object store while they are read, as long as the limit of local copies
    /// permits. Copying ends when the result is dropped.
    pub(crate) fn copy_in_background(&self, name: &str) -> Option<Copying> {
        self.folder.remote()?;
        let mut files: Vec<FileEntry> = self.manifest().files_of(name).cloned().collect();
        // Processes that share the local copies begin with different files.
        let first = process::id().wrapping_mul(2_654_435_761) as usize % files.len().max(1);
        files.rotate_left(first);

        let stops = Arc::new(AtomicBool::new(false));
        let (folder, stop) = (self.folder.clone(), Arc::clone(&stops));
        let copy = move || {
            continue_in_background();
            for files in files.chunks(COPIED_AT_ONCE) {
                let files: Vec<&FileEntry> = files.iter().collect();
                // Splits of one feature have the same files.
                let Some(_turn) = Turn::take(&stop) else {
                    return;
                };
                // Readers report what cannot be read. They need no copies.
                if folder.fetch_spare(&files).is_err() {
                    return;
                }
            }
        };
        let copying = std::thread::Builder::new().name("copies".to_owned());
        // Without a thread, there are no copies.
        copying.spawn(copy).ok().map(|_| Copying { stops })
    }

    /// Copies the files of a feature or table, several at a time, if the store is in an object store.
    ///
    /// # Errors
    /// [`DatasetError::Store`] if a file cannot be copied.
    pub(crate) fn fetch(&self, name: &str) -> Result<(), DatasetError> {
        let files: Vec<&FileEntry> = self.manifest().files_of(name).collect();
        match self.folder.fetch(&files) {
            // A damaged file is named when it is opened.
            Err(StoreError::Remote(RemoteError::Damaged { .. })) => Ok(()),
            fetched => Ok(fetched?),
        }
    }

    /// Compares the blake3 hash of every file of a feature or table with the manifest. Returns the errors of damaged
    /// files, in file order.
    ///
    /// # Errors
    /// [`DatasetError::Store`] if an existing file cannot be read or is outside of the store.
    pub fn verify(&self, name: &str) -> Result<Vec<DatasetError>, DatasetError> {
        let mut damaged = Vec::new();
        for entry in self.manifest().files_of(name) {
            // A missing file counts as damaged. A read error of the system does not show that bytes are damaged, so it
            // ends the comparison.
            match self.sound_path(entry, None) {
                Err(error) if error.is_damage() => damaged.push(error),
                compared => _ = compared?,
            }
        }
        Ok(damaged)
    }

    /// Reads the columns of a table for whose name `wanted` returns true; returns `None` if the store has no such
    /// table.
    ///
    /// # Errors
    /// [`DatasetError::Store`] if a file cannot be read, [`DatasetError::Damaged`] if a file is damaged.
    pub fn table(
        &self,
        name: &str,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Option<RecordBatch>, DatasetError> {
        let mut whole: Option<RecordBatch> = None;
        for entry in self.manifest().files_of(name) {
            let path = self.sound_path(entry, None)?;
            let builder = builder(&path)?;

            let fields = builder.schema().fields();
            let columns: Vec<usize> = (0..fields.len())
                .filter(|&i| wanted(fields[i].name()))
                .collect();
            let mask = ProjectionMask::roots(builder.parquet_schema(), columns);
            let reader = builder
                .with_projection(mask)
                .build()
                .map_err(DatasetError::parquet_at(&path))?;

            let schema = reader.schema();
            let batches: Vec<RecordBatch> = reader
                .collect::<Result<_, _>>()
                .map_err(DatasetError::parquet_at(&path))?;
            let batch = concat_batches(&schema, whole.iter().chain(&batches))
                .map_err(DatasetError::parquet_at(&path))?;
            whole = Some(batch);
        }
        Ok(whole)
    }

    /// Returns the pairs of the number in column `key` and the text in column `text` of each row of `table`. Omits rows
    /// in which one of them is missing; returns `None` if the table lacks one of the columns.
    ///
    /// # Errors
    /// [`DatasetError::Other`] if a column has another type.
    pub(crate) fn pairs(
        &self,
        table: Option<&RecordBatch>,
        key: &str,
        text: &str,
    ) -> Result<Option<Vec<(i64, String)>>, DatasetError> {
        let keys = table.and_then(|table| table.column_by_name(key));
        let texts = table.and_then(|table| table.column_by_name(text));
        let (Some(keys), Some(texts)) = (keys, texts) else {
            return Ok(None);
        };

        let keys = cast(keys, &DataType::Int64)
            .map_err(|error| DatasetError::column(self.root(), key, error))?;
        let texts = cast(texts, &DataType::Utf8)
            .map_err(|error| DatasetError::column(self.root(), text, error))?;

        let mut pairs = Vec::new();
        for pair in keys
            .as_primitive::<Int64Type>()
            .iter()
            .zip(texts.as_string::<i32>())
        {
            if let (Some(key), Some(text)) = pair {
                pairs.push((key, text.to_owned()));
            }
        }
        Ok(Some(pairs))
    }

    /// Returns the column names of a table; empty if the store has no such table.
    ///
    /// # Errors
    /// The same errors as for [`Self::table`].
    pub fn columns(&self, name: &str) -> Result<Vec<String>, DatasetError> {
        let Some(entry) = self.manifest().files_of(name).next() else {
            return Ok(Vec::new());
        };
        let builder = builder(&self.path(entry)?)?;
        Ok(builder
            .schema()
            .fields()
            .iter()
            .map(|field| field.name().clone())
            .collect())
    }
}

/// Compares a file with its blake3 hash, until the flag `stop` is set.
///
/// # Errors
/// [`DatasetError::Damaged`] if the file is missing or has another hash, [`DatasetError::Store`] if it cannot be read
/// or the comparison was stopped.
pub(crate) fn require_content(
    path: &Path,
    blake3: &str,
    stop: Option<&AtomicBool>,
) -> Result<(), DatasetError> {
    let hashed = File::open(path).and_then(|file| hash_reader(Stoppable { file, stop }));
    match if_there(hashed).map_err(DatasetError::io_at(path, "read"))? {
        Some(hash) if hash == blake3 => Ok(()),
        Some(_) => Err(DatasetError::changed(path, "other bytes (blake3 differs)")),
        None => Err(DatasetError::changed(path, "missing")),
    }
}

/// A file that can be read until a flag is set.
struct Stoppable<'a> {
    file: File,
    stop: Option<&'a AtomicBool>,
}

impl Read for Stoppable<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // `Relaxed` suffices: if the flag is seen late, only more bytes are read.
        if self.stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
            // `ErrorKind::Interrupted` would make the caller read again.
            return Err(io::Error::other("stopped"));
        }
        self.file.read(buffer)
    }
}

/// Opens a table's Parquet file and reads its footer.
fn builder(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>, DatasetError> {
    let file = File::open(path).map_err(DatasetError::io_at(path, "open"))?;
    ParquetRecordBatchReaderBuilder::try_new(file).map_err(DatasetError::parquet_at(path))
}
