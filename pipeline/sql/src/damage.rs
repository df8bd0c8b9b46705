//! Finds the cause of a failed query in the store.
//!
//! A damaged page results in an error or a panic of some reader, and neither names the file. A query therefore records
//! the files that it opens. After a failure they are compared with the manifest, starting with the last one because it
//! is the most likely cause. A file that another process removed is distinguished from one that was lost.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::ParquetFileReaderFactory;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use fail::fail_point;
use parquet::arrow::async_reader::AsyncFileReader;
use wavemill_schemas::exit::is_machine_fault;
use wavemill_schemas::manifest::{FileEntry, Manifest, TargetEntry};
use wavemill_store::{RemoteError, Store, has_footer};

use super::catalog::sql_name;
use super::{SqlError, classes};

/// Prefix of a reader's panic message.
pub(super) const READER_FAILED: &str = "the reader failed";

/// Number of bytes that are read at a time while a file is hashed.
const BLOCK_BYTES: usize = 1 << 20;

/// Files of the tables that a session has opened. Shared by the readers of all tables.
#[derive(Clone, Debug)]
pub(super) struct OpenedFiles {
    store: Store,
    state: Arc<Mutex<FileStates>>,
}

#[derive(Debug, Default)]
struct FileStates {
    /// The files, by their path in the manifest.
    entries: HashMap<String, FileEntry>,
    /// Paths of the files whose page index and footer are those of the manifest. Pages have their own checksums, which
    /// the reader verifies.
    checked: HashSet<String>,
    /// Paths of the files that the running query has opened, in the order of their last opening.
    paths: Vec<String>,
}

impl OpenedFiles {
    fn new(store: Store) -> Self {
        Self {
            store,
            state: Arc::default(),
        }
    }

    /// Records the files of a table that queries will open. Their footers have not been checked.
    pub(super) fn expect(&self, entries: &[FileEntry]) {
        let mut state = self.state();
        for entry in entries {
            state.checked.remove(&entry.path);
            state.entries.insert(entry.path.clone(), entry.clone());
        }
    }

    /// Clears the list of files that the previous query opened.
    pub(super) fn clear(&self) {
        self.state().paths.clear();
    }

    /// Records that the file at `path`, as written in the manifest, is being read.
    pub(super) fn note(&self, path: &str) {
        let mut state = self.state();
        state.paths.retain(|known| known != path);
        state.paths.push(path.to_owned());
    }

    /// Returns a copy of the paths: hashing takes long, and abandoned threads of a query may still record files.
    fn paths(&self) -> Vec<String> {
        self.state().paths.clone()
    }

    fn state(&self) -> MutexGuard<'_, FileStates> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Verifies the footer of the file at `path` when it is first read.
    ///
    /// # Errors
    /// [`SqlError::Damaged`] if the footer differs or cannot be read; [`SqlError::Failed`] if an object store cannot be
    /// read.
    pub(super) fn check_footer(&self, path: &str) -> Result<(), SqlError> {
        let state = self.state();
        let is_checked = state.checked.contains(path);
        let entry = state.entries.get(path).filter(|_| !is_checked).cloned();
        // Other files may be checked while an object store is asked for this one.
        drop(state);
        let Some(entry) = entry else {
            return Ok(());
        };

        let full = self.store.place().join(path);
        let is_sound = |footer: &Bytes| {
            let expected = entry.footer.as_ref();
            expected
                .is_none_or(|expected| blake3::hash(footer).to_hex().as_str() == expected.blake3)
        };
        let has_footer = match remote_footer(&self.store, &entry)? {
            Some(footer) if is_sound(&footer) => Ok(true),
            // The local copy may be damaged, and the object intact.
            Some(_) if self.forget_copy(&entry) => {
                let footer = remote_footer(&self.store, &entry)?;
                Ok(footer.as_ref().is_some_and(is_sound))
            }
            Some(_) => Ok(false),
            None => has_footer(&full, &entry),
        };
        let detail = match has_footer {
            Ok(true) => {
                self.state().checked.insert(path.to_owned());
                return Ok(());
            }
            Ok(false) => "its footer differs from the committed one".to_owned(),
            Err(error) if is_machine_fault(&error) => return Err(SqlError::unread(&full, &error)),
            Err(error) => error.to_string(),
        };
        Err(SqlError::Damaged { path: full, detail })
    }

    /// Removes the local copy of an object. Returns false if there is none.
    fn forget_copy(&self, entry: &FileEntry) -> bool {
        let mirror = self.store.mirror();
        mirror.is_some_and(|mirror| mirror.streamed(entry).forget_copy())
    }
}

/// Number of bytes at the end of a file in an object store that are read for its footer if the manifest does not say
/// where it begins.
const FOOTER_BYTES: u64 = 1 << 20;

/// Reads the page index and the footer of a file in an object store; returns `None` for a file on this machine.
///
/// # Errors
/// [`SqlError::Failed`] if the object store cannot be read.
pub(super) fn remote_footer(store: &Store, entry: &FileEntry) -> Result<Option<Bytes>, SqlError> {
    let Some(mirror) = store.mirror() else {
        return Ok(None);
    };
    let start = match &entry.footer {
        Some(footer) => footer.offset,
        None => entry.bytes.saturating_sub(FOOTER_BYTES),
    };
    let read = mirror.streamed(entry).read(start..entry.bytes);
    read.map(Some).map_err(not_read)
}

/// Returns the error for a file that cannot be read from an object store.
pub(super) fn not_read(error: RemoteError) -> SqlError {
    match error {
        RemoteError::Damaged { address, problem } => SqlError::Damaged {
            path: address.into(),
            detail: problem,
        },
        error => SqlError::Failed(error.to_string()),
    }
}

/// A reader factory that wraps `readers`, records the opened files, and verifies their footers.
#[derive(Debug)]
pub(super) struct RecordingReaders<R> {
    pub readers: R,
    pub opened: OpenedFiles,
}

impl<R: ParquetFileReaderFactory> ParquetFileReaderFactory for RecordingReaders<R> {
    fn create_reader(
        &self,
        partition_index: usize,
        file: PartitionedFile,
        metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> datafusion::common::Result<Box<dyn AsyncFileReader + Send>> {
        // Record the file before the reader is created, because its creation may panic.
        let path = file.object_meta.location.as_ref();
        self.opened.note(path);
        fail_point!("sql-read");
        self.opened.check_footer(path)?;
        self.readers
            .create_reader(partition_index, file, metadata_size_hint, metrics)
    }
}

/// The version that a session reads, and the files that it has opened, used to explain failures.
#[derive(Debug)]
pub(super) struct Version {
    store: Store,
    plan_id: String,
    files: Vec<FileEntry>,
    targets: Vec<TargetEntry>,
    pub opened: OpenedFiles,
}

impl Version {
    /// Creates the description of the version of `store` that `manifest` describes.
    pub(super) fn new(store: Store, manifest: &Manifest) -> Self {
        Self {
            opened: OpenedFiles::new(store.clone()),
            store,
            plan_id: manifest.plan_id.clone(),
            files: manifest.files.clone(),
            targets: manifest.targets.clone(),
        }
    }

    /// Returns the number of rows of a table by its SQL name, or `None` if it has no file.
    pub(super) fn rows_of(&self, table: &str) -> Option<u64> {
        let mut files = self
            .files
            .iter()
            .filter(|entry| sql_name(entry) == table)
            .peekable();

        // `files` and the user's own tables have no file in the manifest.
        files.peek()?;
        Some(files.map(|entry| entry.rows).sum())
    }

    /// Returns the cause of a failed query: the name of a class for its id, data that `gc` removed, a damaged file, or
    /// else `error` itself.
    ///
    /// Reads the files that the query opened, until one differs from the manifest or `stop` returns true.
    pub(super) fn explain(&self, error: SqlError, stop: impl Fn() -> bool) -> SqlError {
        if let SqlError::NotANumber { text, .. } = &error
            && let Some(remedy) = self
                .targets
                .iter()
                .find_map(|target| classes::remedy_for_class(text, target))
        {
            return SqlError::Usage(format!("'{text}' is not a number: {remedy}"));
        }
        if !may_be_damage(&error) {
            return error;
        }
        // Check this before reading any file: after `gc` has removed the version, a missing file is not damage.
        if let Some(version) = self.collected(&self.plan_of(&error)) {
            return SqlError::Usage(format!(
                "the data of version {version} was removed by `wavemill gc` in the meantime: use a later version"
            ));
        }
        // The error already names the file and the damage.
        if matches!(error, SqlError::Damaged { .. }) {
            return error;
        }

        // Nothing says yet whether the bytes or the connection are the cause.
        if self.store.remote().is_some() {
            return self.doubt(error);
        }

        for path in self.opened.paths().into_iter().rev() {
            let Some(entry) = self.opened.state().entries.get(&path).cloned() else {
                continue;
            };

            let full = self.store.root().join(&path);
            match is_as_committed(&full, &entry, &stop) {
                Err(error) if is_machine_fault(&error) => return SqlError::unread(&full, &error),
                Ok(Some(true)) => {
                    if let Some(detail) = self.store.page_fault(&entry) {
                        return SqlError::Damaged { path: full, detail };
                    }
                }
                Ok(Some(false)) | Err(_) => {
                    return SqlError::Damaged {
                        path: full,
                        detail: reader_message(&error),
                    };
                }
                Ok(None) => return SqlError::Interrupted,
            }
        }

        // Every file is intact, so the store is not the cause of the failure.
        not_damage(error)
    }

    /// Adds to an error the file of an object store that was read last. If there is none, the store is not the cause.
    fn doubt(&self, error: SqlError) -> SqlError {
        let Some(path) = self.opened.paths().pop() else {
            return not_damage(error);
        };
        let place = self.store.place().display();
        SqlError::Failed(format!(
            "{} (reading {place}/{path}; `wavemill verify --store {place}` compares its bytes)",
            reader_message(&error)
        ))
    }

    /// Returns the number of this version if `gc` has removed its data. `gc` always keeps the latest version, so a
    /// missing file of that version is damage.
    fn collected(&self, plan_id: &str) -> Option<u64> {
        // In an object store, another machine may have removed them. Without an answer, the data count as damaged.
        let _ = self.store.refresh();
        if self.store.data(plan_id).exists() {
            return None;
        }

        let versions = self.store.versions().ok()?;
        let version = versions
            .iter()
            .copied()
            .rev()
            .find(|version| self.is_described_by(*version, plan_id))?;
        (versions.last() != Some(&version)).then_some(version)
    }

    /// Reports whether `version` has the data of the plan.
    fn is_described_by(&self, version: u64, plan_id: &str) -> bool {
        self.store
            .manifest(Some(version))
            .is_ok_and(|(_, manifest)| manifest.plan_id == plan_id)
    }

    /// Returns the plan of the file that an error names, or of the file that was opened last. A query may read tables
    /// of several versions.
    fn plan_of(&self, error: &SqlError) -> String {
        let path = match error {
            SqlError::Damaged { path, .. } => path.strip_prefix(self.store.place()).ok(),
            _ => None,
        };
        let path = path.map(|path| path.to_string_lossy().into_owned());
        let path = path.or_else(|| self.opened.paths().pop());
        let plan = path
            .as_deref()
            .and_then(|path| path.strip_prefix("data/")?.split('/').next());
        plan.unwrap_or(&self.plan_id).to_owned()
    }
}

/// Reports whether damaged bytes can be the cause of an error. They cannot if the cause is the query text, memory or
/// the output.
fn may_be_damage(error: &SqlError) -> bool {
    matches!(
        error,
        SqlError::Damaged { .. }
            | SqlError::Unreadable(_)
            | SqlError::Panicked(_)
            | SqlError::Failed(_)
    )
}

/// Returns the error of a failure that the store did not cause.
fn not_damage(error: SqlError) -> SqlError {
    match error {
        SqlError::Unreadable(detail) => SqlError::Failed(detail),
        other => other,
    }
}

/// Returns the message of the reader that failed, shortened to 200 characters.
fn reader_message(error: &SqlError) -> String {
    match error {
        SqlError::Unreadable(detail) | SqlError::Failed(detail) => brief(detail),
        SqlError::Panicked(panic) => brief(&format!("{READER_FAILED}: {}", panic.message)),
        other => brief(&other.to_string()),
    }
}

/// Shortens a reader's message, which may be a page long, to 200 characters.
pub(super) fn brief(message: &str) -> String {
    const CHARS_MAX: usize = 200;
    if message.chars().count() <= CHARS_MAX {
        return message.to_owned();
    }

    message.chars().take(CHARS_MAX - 1).chain(['…']).collect()
}

/// Compares the length and hash of a file with the manifest. Returns `None` if `stop` ended the reading.
fn is_as_committed(
    path: &Path,
    entry: &FileEntry,
    stop: impl Fn() -> bool,
) -> io::Result<Option<bool>> {
    let mut file = File::open(path)?;
    let mut block = vec![0; BLOCK_BYTES];
    let mut hasher = blake3::Hasher::new();
    let mut bytes = 0;

    loop {
        if stop() {
            return Ok(None);
        }

        match file.read(&mut block) {
            Ok(0) => {
                let blake3 = hasher.finalize().to_hex();
                return Ok(Some(
                    bytes == entry.bytes && blake3.as_str() == entry.blake3,
                ));
            }
            Ok(n) => {
                bytes += n as u64;
                hasher.update(&block[..n]);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use arrow::array::RecordBatch;
    use arrow::datatypes::SchemaRef;
    use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
    use parquet::file::metadata::{PageIndexPolicy, ParquetMetaDataWriter};
    use parquet::file::writer::TrackedWrite;
    use wavemill_schemas::exit::{Classified, Kind};

    use super::super::testing::{TestStore, session};
    use super::super::{Format, Sink, output};
    use super::*;

    fn ask(store: &TestStore, table: &str) -> Result<Vec<u8>, SqlError> {
        let mut out = Vec::new();
        let sql = format!("SELECT * FROM {table}");
        session(store).run(&sql, output::sink(Format::Arrow, &mut out).as_mut())?;
        Ok(out)
    }

    /// Returns the positions of bytes to damage: every 11th byte of the footer, and every 61st before it.
    fn places(bytes: &[u8]) -> impl Iterator<Item = usize> {
        let length = bytes[bytes.len() - 8..bytes.len() - 4]
            .try_into()
            .map_or(0, u32::from_le_bytes) as usize;
        let footer = bytes.len() - 8 - length;
        (4..footer)
            .step_by(61)
            .chain((footer..bytes.len()).step_by(11))
    }

    #[test]
    fn flipped_bit_never_panics_and_errors_name_the_file() {
        let store = TestStore::small();
        let (mut damaged, mut panicked) = (0, 0);

        for (table, name) in [
            ("tracks", "tracks"),
            ("features_log_mel", "log_mel"),
            ("features_ragged", "ragged"),
        ] {
            let entry = store
                .manifest
                .files
                .iter()
                .find(|file| file.name() == name)
                .expect("a file");
            let path = store.folder.path().join(&entry.path);
            let whole = std::fs::read(&path).expect("a file");

            for at in places(&whole) {
                let mut flipped = whole.clone();
                flipped[at] ^= 1 << (at % 8);
                std::fs::write(&path, flipped).expect("a file");

                let Err(error) = ask(&store, table) else {
                    continue;
                };

                assert_eq!(error.kind(), Kind::Damaged, "{name}, byte {at}: {error}");
                assert!(
                    error.to_string().contains(&entry.path),
                    "{name}, byte {at}: {error}"
                );
                damaged += 1;
                panicked += usize::from(error.to_string().contains(READER_FAILED));
            }

            std::fs::write(&path, whole).expect("a file");
            ask(&store, table).expect("whole again");
        }

        assert!(
            damaged > 100 && panicked > 0,
            "{damaged} damaged, {panicked} panics"
        );
    }

    #[test]
    fn query_errors_do_not_reread_files() {
        let store = TestStore::small();
        let session = session(&store);
        let version = Version::new(store.handle(), &store.manifest);
        version.opened.expect(&store.manifest.files);
        version.opened.note(&store.manifest.files[0].path);

        let typo = SqlError::Usage("no such function".to_owned());

        let explained = version.explain(typo, || panic!("no file is read"));
        assert!(matches!(explained, SqlError::Usage(_)));

        for stops in [false, true] {
            let failed = SqlError::Failed("a reader's message".to_owned());
            let asked = std::cell::Cell::new(false);
            let explained = version.explain(failed, || {
                asked.set(true);
                stops
            });

            assert!(asked.get());
            assert_eq!(
                (
                    matches!(explained, SqlError::Failed(_)),
                    matches!(explained, SqlError::Interrupted)
                ),
                (!stops, stops)
            );
        }

        drop(session);
    }

    #[test]
    fn errors_without_a_file_of_an_object_store_are_no_damage() {
        let store = TestStore::small();
        let version = Version::new(store.handle(), &store.manifest);
        let unreadable = SqlError::Unreadable("Invalid Parquet file".to_owned());

        let explained = version.doubt(unreadable);
        assert!(
            matches!(&explained, SqlError::Failed(detail) if detail == "Invalid Parquet file"),
            "{explained}"
        );
    }

    /// Gives a feature's file a page index with negative page sizes, and updates its hash in the manifest.
    fn craft_page_index(store: &mut TestStore) -> String {
        let files = &mut store.manifest.files;
        let entry = files.iter_mut().find(|entry| entry.feature.is_some());
        let entry = entry.expect("a feature's file");
        let path = store.folder.path().join(&entry.path);

        let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required);
        let file = File::open(&path).expect("a file");
        let metadata = ArrowReaderMetadata::load(&file, options).expect("metadata");
        let metadata = metadata.metadata().as_ref().clone();
        let mut index = metadata.offset_index().expect("an index").clone();
        for page in index[0]
            .iter_mut()
            .flat_map(|column| &mut column.page_locations)
        {
            page.compressed_page_size = -1000;
        }
        let metadata = metadata
            .into_builder()
            .set_offset_index(Some(index))
            .build();

        // Append the new metadata to the file, so that all other offsets stay valid.
        let whole = std::fs::read(&path).expect("a file");
        let mut crafted = TrackedWrite::new(File::create(&path).expect("a file"));
        crafted.write_all(&whole).expect("room");
        let writer = ParquetMetaDataWriter::new_with_tracked(crafted, &metadata);
        writer.finish().expect("room");

        let crafted = std::fs::read(&path).expect("a file");
        entry.bytes = crafted.len() as u64;
        entry.blake3 = blake3::hash(&crafted).to_hex().to_string();
        entry.path.clone()
    }

    #[test]
    fn impossible_page_offsets_are_damage() {
        let mut store = TestStore::small();
        let path = craft_page_index(&mut store);
        let error = ask(&store, "features_log_mel WHERE track_id = 1")
            .expect_err("the pages end before they begin");
        assert_eq!(error.kind(), Kind::Damaged, "{error}");
        assert!(error.to_string().contains(&path), "{error}");
    }

    /// A sink that removes the version's data after the first result, as `gc` does.
    struct Collects<'a>(&'a TestStore);

    impl Sink for Collects<'_> {
        fn begin(&mut self, _: &SchemaRef) -> Result<(), SqlError> {
            Ok(())
        }
        fn write(&mut self, _: &RecordBatch) -> Result<(), SqlError> {
            Ok(())
        }
        fn finish(&mut self) -> Result<(), SqlError> {
            Ok(std::fs::remove_dir_all(self.0.folder.path().join("data"))?)
        }
    }

    #[test]
    fn version_removed_between_statements_is_not_damage() {
        for latest in [1, 2] {
            let store = TestStore::small();
            let versions = store.folder.path().join("_wavemill/versions");
            std::fs::create_dir_all(&versions).expect("a folder");

            for version in 1..=latest {
                let mut manifest = store.manifest.clone();
                if version > 1 {
                    manifest.identity.limit = Some(1);
                    manifest.plan_id = manifest.identity.plan_id().expect("an id");
                }

                let json = manifest.to_json().expect("a manifest");
                std::fs::write(versions.join(format!("{version:08}.json")), json).expect("a file");
            }

            let two = "SELECT 1 AS a; SELECT * FROM features_log_mel";
            let error = session(&store)
                .run(two, &mut Collects(&store))
                .expect_err("the data is gone");

            if latest == 1 {
                assert_eq!(
                    error.kind(),
                    Kind::Damaged,
                    "nobody removes the latest version: {error}"
                );
            } else {
                assert_eq!(error.kind(), Kind::Usage, "{error}");
                assert!(
                    error
                        .to_string()
                        .starts_with("the data of version 1 was removed by `wavemill gc`"),
                    "{error}"
                );
            }
        }
    }
}
