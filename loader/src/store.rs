//! A committed, read-only version of a feature store: its manifest and its files.
//!
//! A store is a local folder. Support for object stores would affect two places: this module (list versions, read a
//! manifest) and `pages.rs` (read n bytes at an offset); nothing else opens files.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use arrow::array::{RecordBatch, RecordBatchReader};
use arrow::compute::concat_batches;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use wavemill_schemas::manifest::{FeatureEntry, FileEntry, Manifest, ManifestError};
use wavemill_schemas::version_name::{TagProblem, VersionName};

use crate::DatasetError;
use crate::tags;

/// One version of a store.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
    version: u64,
    manifest: Manifest,
    manifest_hash: String,
    checks_shards: bool,
}

impl Store {
    /// Opens the requested version, or the latest one.
    ///
    /// # Errors
    /// [`DatasetError::NoStore`], [`DatasetError::NoVersion`], [`DatasetError::NoTag`], [`DatasetError::Tag`],
    /// [`DatasetError::Manifest`], [`DatasetError::OtherFormat`], [`DatasetError::Io`].
    pub fn open(root: &Path, name: Option<&VersionName>) -> Result<Self, DatasetError> {
        let folder = root.join("_wavemill/versions");
        let versions = versions(&folder)?;
        let Some(latest) = versions.iter().copied().max() else {
            return Err(DatasetError::NoStore {
                path: root.to_owned(),
            });
        };

        let version = match name {
            None => latest,
            Some(VersionName::Number(number)) => *number,
            Some(VersionName::Tag(tag)) => tags::version_of(root, tag, &versions)?,
        };
        if !versions.contains(&version) {
            return Err(DatasetError::NoVersion {
                path: root.to_owned(),
                version,
                latest,
            });
        }

        let path = folder.join(format!("{version:08}.json"));
        let bytes = fs::read(&path).map_err(DatasetError::io_at(&path, "read"))?;
        let manifest = Manifest::from_json(&bytes).map_err(|source| match source {
            ManifestError::OtherFormat { found } => DatasetError::OtherFormat { path, found },
            source => DatasetError::Manifest { path, source },
        })?;
        let data = root.join("data").join(&manifest.plan_id);
        if let Some(VersionName::Tag(tag)) = name
            && version < latest
            && !data
                .try_exists()
                .map_err(DatasetError::io_at(&data, "inspect"))?
        {
            let problem = TagProblem::Collected { version };
            return Err(tags::damaged(root, tag, problem));
        }

        // Hash the bytes of the file, not the parsed manifest, so that every reader computes the same hash.
        Ok(Self {
            root: root.to_owned(),
            version,
            manifest,
            manifest_hash: blake3::hash(&bytes).to_hex().to_string(),
            checks_shards: true,
        })
    }

    /// Returns the same version without the comparison of each shard with its blake3 before its first row is read: for
    /// shards that were already compared, or for a reader who accepts that a flipped bit changes a value. Tables are
    /// still compared.
    #[must_use]
    pub fn without_shard_checks(mut self) -> Self {
        self.checks_shards = false;
        self
    }

    /// Reports whether shards are compared with their blake3: true unless [`Self::without_shard_checks`] was called.
    pub const fn checks_shards(&self) -> bool {
        self.checks_shards
    }

    /// Returns the folder of the store.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the version number.
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// Returns the manifest of the version.
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Returns the recipe's split rule, which determined folders and statistics.
    pub fn rule(&self) -> &'static str {
        self.manifest.recipe.split.rule.name()
    }

    /// Returns the blake3 of the manifest's bytes as lower-case hex, which identifies this state of the store.
    pub fn manifest_hash(&self) -> &str {
        &self.manifest_hash
    }

    /// Returns the feature with this name, or the recipe's first feature for `None`.
    ///
    /// # Errors
    /// [`DatasetError::NotThere`] with the existing names.
    pub fn feature(&self, name: Option<&str>) -> Result<&FeatureEntry, DatasetError> {
        let features = &self.manifest.features;
        let found = features
            .iter()
            .find(|feature| name.is_none_or(|name| feature.name == name));
        found.ok_or_else(|| {
            let names: Vec<&str> = features
                .iter()
                .map(|feature| feature.name.as_str())
                .collect();
            DatasetError::NotThere {
                key: "feature",
                found: name.unwrap_or_default().to_owned(),
                there: names.join(", "),
            }
        })
    }

    /// Returns the path of a file in the manifest; the file need not exist. The store's own folder may be a link.
    ///
    /// # Errors
    /// [`DatasetError::Outside`]: a link in its path leads out of the store.
    pub fn path(&self, file: &FileEntry) -> Result<PathBuf, DatasetError> {
        // Parsing the manifest already checked that the path is relative and has no `..`.
        let path = self.root.join(&file.path);
        // Canonicalize both paths: the store's own folder may be reached through a link, too.
        match (path.canonicalize(), self.root.canonicalize()) {
            (Ok(real), Ok(root)) if !real.starts_with(&root) => Err(DatasetError::Outside {
                path: self.root.clone(),
                name: file.path.clone(),
            }),
            // A missing file is reported when it is opened.
            _ => Ok(path),
        }
    }

    /// Compares the blake3 of every file of a feature or table with the manifest and returns the errors of damaged
    /// files, in file order.
    ///
    /// # Errors
    /// [`DatasetError::Io`] if an existing file cannot be read; [`DatasetError::Outside`].
    pub fn verify(&self, name: &str) -> Result<Vec<DatasetError>, DatasetError> {
        let mut damaged = Vec::new();
        for entry in self.manifest.files_of(name) {
            let path = self.path(entry)?;
            // A missing file is damage and is listed. A failed read proves nothing about the bytes, so it ends the
            // comparison.
            match require_content(&path, &entry.blake3) {
                Err(error) if error.is_damage() => damaged.push(error),
                compared => compared?,
            }
        }
        Ok(damaged)
    }

    /// Reads the columns of a table for which `wanted` is true; returns `None` if the store has no such table.
    ///
    /// # Errors
    /// [`DatasetError::Io`], [`DatasetError::Parquet`], [`DatasetError::Outside`].
    pub fn table(
        &self,
        name: &str,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Option<RecordBatch>, DatasetError> {
        let mut whole: Option<RecordBatch> = None;
        for entry in self.manifest.files_of(name) {
            let path = self.path(entry)?;
            require_content(&path, &entry.blake3)?;
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
                .map_err(DatasetError::arrow_at(&path))?;
            let batch = concat_batches(&schema, whole.iter().chain(&batches))
                .map_err(DatasetError::arrow_at(&path))?;
            whole = Some(batch);
        }
        Ok(whole)
    }

    /// Returns the names of a table's columns; empty if the store has no such table.
    ///
    /// # Errors
    /// As [`Self::table`].
    pub fn columns(&self, name: &str) -> Result<Vec<String>, DatasetError> {
        let Some(entry) = self.manifest.files_of(name).next() else {
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

/// Compares a file with its blake3.
///
/// # Errors
/// [`DatasetError::Changed`] if the file is missing or has another content, [`DatasetError::Io`].
pub(crate) fn require_content(path: &Path, blake3: &str) -> Result<(), DatasetError> {
    let problem = match blake3_of(path) {
        Ok(hash) if hash == blake3 => return Ok(()),
        Ok(_) => "other bytes (blake3 differs)",
        Err(error) if error.kind() == io::ErrorKind::NotFound => "missing",
        Err(error) => return Err(DatasetError::io_at(path, "read")(error)),
    };
    Err(DatasetError::Changed {
        path: path.to_owned(),
        problem: problem.to_owned(),
    })
}

/// Returns the blake3 of a file's bytes as lower-case hex.
fn blake3_of(path: &Path) -> io::Result<String> {
    let file = File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    io::copy(
        &mut io::BufReader::with_capacity(1 << 20, file),
        &mut hasher,
    )?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// Opens a table's file and reads its footer.
fn builder(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>, DatasetError> {
    let file = File::open(path).map_err(DatasetError::io_at(path, "open"))?;
    ParquetRecordBatchReaderBuilder::try_new(file).map_err(DatasetError::parquet_at(path))
}

/// Returns the numbers of the versions whose manifests are in a folder.
fn versions(folder: &Path) -> Result<Vec<u64>, DatasetError> {
    let entries = match fs::read_dir(folder) {
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(Vec::new());
        }
        other => other.map_err(DatasetError::io_at(folder, "list the versions"))?,
    };

    let mut versions = Vec::new();
    for entry in entries {
        let entry = entry.map_err(DatasetError::io_at(folder, "list the versions"))?;
        versions.extend(entry.file_name().to_str().and_then(version_of));
    }
    Ok(versions)
}

/// Returns the version number in the name of a manifest file.
fn version_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".json")?;
    // `extract` names manifests by eight digits. Other names, such as those of unfinished writes, are not versions.
    if digits.len() != 8 {
        return None;
    }
    digits.parse().ok()
}
