//! A small store in memory, of which a target replaces a file.

#[path = "../../../trainer/loader/src/fixture.rs"]
mod fixture;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use tempfile::TempDir;
use wavemill_loader::{Dataset, Loader, LoaderPlan, Split};
use wavemill_schemas::config::Data;
use wavemill_schemas::manifest::Manifest;
use wavemill_sql::{Format, Limits, output};
use wavemill_store::Store;

pub(crate) use fixture::{FEATURE, Fixture};

/// Statements that read every table and value of a store.
pub(crate) const STATEMENTS: [&str; 3] = [
    "SELECT * FROM tracks",
    "SELECT clip_key, tensor_mean(log_mel) FROM features_log_mel",
    "SELECT f.split, count(*) FROM features_log_mel f JOIN tracks t USING (clip_key) GROUP BY f.split",
];

pub(crate) struct SmallStore {
    folder: TempDir,
    pub manifest: Manifest,
}

impl SmallStore {
    pub(crate) fn new() -> Self {
        let folder = in_memory();
        let fixture = Fixture { clips: 12, artists: 6, shape: [2, 3], ..Fixture::default() };
        let manifest = fixture.write(folder.path());
        Self { folder, manifest }
    }

    pub(crate) fn root(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the path of the latest version's manifest.
    pub(crate) fn manifest_path(&self) -> PathBuf {
        self.root().join("_wavemill/versions/00000001.json")
    }

    /// Returns the path of the first training shard below the root.
    pub(crate) fn shard(&self) -> &str {
        let is_shard = |path: &&str| path.contains("split=training");
        let mut paths = self.manifest.files.iter().map(|file| file.path.as_str());
        paths.find(is_shard).expect("a training clip")
    }

    /// Reads everything as a training job does. An error is a valid result.
    pub(crate) fn load(&self) -> Result<(), wavemill_loader::DatasetError> {
        let store = wavemill_loader::Store::open(self.root(), None)?.without_shard_checks();
        let data = Data { feature: Some(FEATURE.to_owned()), ..Data::default() };
        let dataset = Dataset::<Vec<u8>>::open_stored(store, &data, &AtomicBool::new(false))?;
        for split in Split::ALL {
            let plan = LoaderPlan { split, ..LoaderPlan::default() };
            Loader::read(&dataset, &plan, &dataset.rows_of(split))?;
        }
        Ok(())
    }

    /// Reads everything with SQL. An error is a valid result.
    pub(crate) fn query(&self, manifest: &Manifest) -> Result<(), wavemill_sql::SqlError> {
        let session = wavemill_sql::open(&Store::at(self.root()), manifest, LIMITS)?;
        for statement in STATEMENTS {
            // A statement that fails does not keep the others from being tried.
            let _ = session.run(statement, output::sink(Format::Csv, std::io::sink()).as_mut());
        }
        Ok(())
    }
}

pub(crate) const LIMITS: Limits = Limits { memory_bytes: 256 << 20, threads: 1, allow_write: false };

/// Makes a temporary folder, in memory if that is possible.
pub(crate) fn in_memory() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a folder for temporary files")
}

/// Writes a file whose folder exists.
pub(crate) fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).expect("room");
}
