//! A committed version of a feature store, read-only: its manifest, and which files hold what.
//!
//! A store is a local folder. Object stores come in at two places: here (list versions, read a manifest) and in
//! `pages.rs` (read n bytes at an offset); nothing else opens files.

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

/// One version.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
    version: u64,
    manifest: Manifest,
    manifest_hash: String,
    checks_shards: bool,
}

impl Store {
    /// The latest version, or the one asked for.
    ///
    /// # Errors
    /// [`DatasetError::NoStore`], [`DatasetError::NoVersion`], [`DatasetError::NoTag`], [`DatasetError::Tag`],
    /// [`DatasetError::Manifest`], [`DatasetError::Newer`], [`DatasetError::Io`].
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
            ManifestError::Newer { found } => DatasetError::Newer { path, found },
            source => DatasetError::Manifest { path, source },
        })?;
        let data = root.join("data").join(&manifest.plan_id);
        if let Some(VersionName::Tag(tag)) = name
            && version < latest
            && !data
                .try_exists()
                .map_err(DatasetError::io_at(&data, "look at"))?
        {
            let problem = TagProblem::Collected { version };
            return Err(tags::damaged(root, tag, problem));
        }

        // The hash is over the bytes of the file, not over what was understood of them, so that every reader gets the
        // same name.
        Ok(Self {
            root: root.to_owned(),
            version,
            manifest,
            manifest_hash: blake3::hash(&bytes).to_hex().to_string(),
            checks_shards: true,
        })
    }

    /// Returns the same version without the comparison of each shard with its blake3 before its first row is read: for
    /// shards that were compared already, or for a reader who accepts that a flipped bit changes a value. Tables are
    /// compared all the same.
    #[must_use]
    pub fn without_shard_checks(mut self) -> Self {
        self.checks_shards = false;
        self
    }

    /// Reports whether shards are compared with their blake3: true unless [`Self::without_shard_checks`] was called.
    pub const fn checks_shards(&self) -> bool {
        self.checks_shards
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Its number.
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// All that is committed.
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The recipe's split rule, by which folders and statistics were made.
    pub fn rule(&self) -> &'static str {
        self.manifest.recipe.split.rule.name()
    }

    /// blake3 of the manifest's bytes, lower-case hex: names this state of the store.
    pub fn manifest_hash(&self) -> &str {
        &self.manifest_hash
    }

    /// The feature of that name; the recipe's first for `None`.
    ///
    /// # Errors
    /// [`DatasetError::NotThere`] with the names that there are.
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

    /// Where a file of the manifest lies; it need not be there. The store's own folder may be a link.
    ///
    /// # Errors
    /// [`DatasetError::Outside`]: a link in its path leads out of the store.
    pub fn path(&self, file: &FileEntry) -> Result<PathBuf, DatasetError> {
        // That the name is relative and has no `..` was checked when the manifest was read.
        let path = self.root.join(&file.path);
        // Both sides are made real: the store's own folder may be reached by a link too.
        match (path.canonicalize(), self.root.canonicalize()) {
            (Ok(real), Ok(root)) if !real.starts_with(&root) => Err(DatasetError::Outside {
                path: self.root.clone(),
                name: file.path.clone(),
            }),
            // What is missing is said by who opens it.
            _ => Ok(path),
        }
    }

    /// Compares blake3 of every file of a feature or table with the manifest. Damaged ones are returned, in file order.
    ///
    /// # Errors
    /// [`DatasetError::Io`]: a file that is there cannot be read; [`DatasetError::Outside`].
    pub fn verify(&self, name: &str) -> Result<Vec<DatasetError>, DatasetError> {
        let mut damaged = Vec::new();
        for entry in self.manifest.files_of(name) {
            let path = self.path(entry)?;
            // A missing file is damage and is listed. A refusal to read says nothing about the bytes, so it ends the
            // comparison.
            match require_content(&path, &entry.blake3) {
                Err(error) if error.is_damage() => damaged.push(error),
                compared => compared?,
            }
        }
        Ok(damaged)
    }

    /// The columns of a table for which `wanted` is true, all rows; `None` where the store has no such table.
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

    /// Names of a table's columns; none where the store has no such table.
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

/// Lower-case hex of a file's bytes.
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

/// Numbers of the versions whose manifests lie in a folder.
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

/// The version that a manifest of this name is of.
fn version_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".json")?;
    // `extract` names manifests by eight digits. Other names, such as those of unfinished writes, are no versions.
    if digits.len() != 8 {
        return None;
    }
    digits.parse().ok()
}
