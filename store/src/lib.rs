//! A store on disk: versions, receipts, and the one commit that makes a version exist.
//!
//! Invariants: a path is never rewritten once a manifest names it. A manifest is never overwritten. Data that varies
//! from run to run is stored in receipts and run records only.

pub mod plan;
pub mod shards;
pub mod tensors;

mod commit;
mod compare;
mod diff;
pub mod durable;
mod equal;
mod gc;
mod history;
mod parent;
mod place;
mod receipts;
mod resume;
mod tags;
mod verify;

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use parquet::errors::ParquetError;
use wavemill_schemas::FORMAT_VERSION;
use wavemill_schemas::exit;
use wavemill_schemas::manifest::{Manifest, ManifestError, remedy_of_format};
use wavemill_schemas::version_name::TagProblem;

pub use diff::{Change, Diff};
pub use gc::GcReport;
pub use history::{VersionContent, VersionLine};
pub use parent::Parent;
pub use receipts::{PlanRecord, Receipts};
pub use resume::{Decision, VersionInputs};
pub use tags::{TagReport, Tags};
pub use verify::has_footer;

/// Time between two attempts to take a lock that another process holds.
const LOCK_RETRY: Duration = Duration::from_millis(100);

/// The error type of a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file system operation failed.
    #[error("{path}: cannot {action}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operation that failed, such as `read`.
        action: &'static str,
        /// The operating system's error.
        source: io::Error,
    },
    /// The folder contains no store with a committed version.
    #[error(
        "{path}: no store with a committed version: check --store, or run `wavemill extract` (again if it was interrupted)"
    )]
    Missing {
        /// The path as given by the user.
        path: PathBuf,
    },
    /// The path of the store is a file.
    #[error("{path}: is a file, not the folder of a store: check --store")]
    NotAFolder {
        /// The path as given by the user.
        path: PathBuf,
    },
    /// The version does not exist.
    #[error("{path}: no version {version}; available: {there}")]
    NoVersion {
        /// Root folder of the store.
        path: PathBuf,
        /// The requested version.
        version: u64,
        /// Description of the existing versions.
        there: String,
    },
    /// The tag does not exist.
    #[error(
        "{path}: no tag {tag}; {there}: `wavemill info --versions` lists all versions, and `wavemill tag VERSION {tag}` \
         creates the tag"
    )]
    NoTag {
        /// Root folder of the store.
        path: PathBuf,
        /// The requested tag.
        tag: String,
        /// Description of the existing tags.
        there: String,
    },
    /// The tag does not name a readable version.
    #[error("{path}: damaged tag: {problem}: {}", problem.remedy())]
    Tag {
        /// The tag's file.
        path: PathBuf,
        /// The problem with the tag.
        problem: TagProblem,
    },
    /// The data of the version was removed by `wavemill gc`.
    #[error(
        "{path}: the data of version {version} was removed by `wavemill gc`: use a later version"
    )]
    Collected {
        /// Root folder of the store.
        path: PathBuf,
        /// The requested version.
        version: u64,
    },
    /// The manifest cannot be read.
    #[error("{path}: damaged manifest: restore it from a copy of the store")]
    Manifest {
        /// The manifest's file.
        path: PathBuf,
        /// The cause.
        source: ManifestError,
    },
    /// The manifest has another format than this program reads. It is not damaged.
    #[error(
        "{path}: this store {}: its format version is {found}, and this wavemill reads {FORMAT_VERSION}",
        remedy_of_format(*found)
    )]
    OtherFormat {
        /// The manifest's file.
        path: PathBuf,
        /// The format version of the manifest.
        found: u64,
    },
    /// The receipt contains invalid names.
    #[error("{path}: damaged receipt: remove it, and its shard is computed again")]
    Receipt {
        /// The receipt's file.
        path: PathBuf,
        /// The cause.
        source: ManifestError,
    },
    /// A symbolic link leads out of the store.
    #[error(
        "{path}: damaged store: {name} leads out of it through a symbolic link: replace the link with the files themselves"
    )]
    Outside {
        /// Root folder of the store.
        path: PathBuf,
        /// Path of the link, relative to the store.
        name: String,
    },
    /// A file of the latest version is missing or truncated.
    #[error(
        "{path}: lost or damaged: `wavemill verify` names every such file; --new-version computes them again"
    )]
    Lost {
        /// The missing or truncated file.
        path: PathBuf,
    },
    /// A table of the latest version, which the next version needs, cannot be read.
    #[error(
        "{path}: lost or damaged, but needed by the new version: restore it from a copy of the store, or assign all \
         sides again with --resplit"
    )]
    Needed {
        /// The table's file.
        path: PathBuf,
        /// The cause.
        source: ParquetError,
    },
    /// Another process holds the store's lock.
    #[error(
        "{path}: another wavemill is writing to this store: wait for it with --wait SECONDS, or stop it"
    )]
    Locked {
        /// Root folder of the store.
        path: PathBuf,
    },
    /// The latest version of the store was made from another recipe, engine or input.
    #[error(
        "{path}: version {version} was made differently ({changed}): add --new-version to also commit version {next}, \
         or use another --store",
        next = version + 1
    )]
    OtherPlan {
        /// Root folder of the store.
        path: PathBuf,
        /// The store's latest version.
        version: u64,
        /// Description of the differences.
        changed: String,
    },
    /// The store contains an unfinished plan that differs from this run only in its engine.
    #[error("{path}: an unfinished run used another engine ({was}; now {now}): {remedy}")]
    OtherEngine {
        /// Root folder of the store.
        path: PathBuf,
        /// Engine of the unfinished plan.
        was: String,
        /// Engine of this run.
        now: String,
        /// Options that resolve the conflict.
        remedy: String,
    },
    /// Another run has committed this version number with another plan in the meantime.
    #[error(
        "{path}: another run committed version {version} in the meantime: run again with --new-version"
    )]
    Raced {
        /// Root folder of the store.
        path: PathBuf,
        /// The version that the other run committed.
        version: u64,
    },
    /// The store's own JSON cannot be written. This does not happen.
    #[error("store metadata")]
    Json(#[from] serde_json::Error),
}

impl StoreError {
    /// Returns the exit code of the command.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Missing { .. }
            | Self::NotAFolder { .. }
            | Self::NoVersion { .. }
            | Self::NoTag { .. }
            | Self::Collected { .. }
            | Self::OtherFormat { .. } => exit::USAGE,
            // A path through a file.
            Self::Io { source, .. } if source.kind() == io::ErrorKind::NotADirectory => exit::USAGE,
            Self::Manifest { .. }
            | Self::Tag { .. }
            | Self::Receipt { .. }
            | Self::Outside { .. }
            | Self::Needed { .. }
            | Self::Lost { .. } => exit::DAMAGED,
            Self::OtherPlan { .. } | Self::OtherEngine { .. } | Self::Raced { .. } => {
                exit::OTHER_PLAN
            }
            Self::Locked { .. } => exit::BUSY,
            Self::Io { .. } | Self::Json(_) => exit::FAILED,
        }
    }

    /// Returns the underlying I/O error, if there is one.
    pub const fn io(&self) -> Option<&io::Error> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }

    /// Returns a function that maps an error of the manifest at `path` to [`StoreError::OtherFormat`] or
    /// [`StoreError::Manifest`].
    fn manifest_at(path: PathBuf) -> impl FnOnce(ManifestError) -> Self {
        move |source| match source {
            ManifestError::OtherFormat { found } => Self::OtherFormat { path, found },
            source => Self::Manifest { path, source },
        }
    }

    /// Returns a function that adds the path and the action to an I/O error.
    pub fn io_at(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            path,
            action,
            source,
        }
    }
}

/// A folder that contains, or will contain, versions.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
    /// Paths and hashes of the files whose blake3 was verified. A run checks the parent's files several times but reads
    /// each file only once for this.
    sound: Arc<Mutex<HashSet<(String, String)>>>,
}

/// The exclusive lock of a store. It is released on drop, and also if the process is killed.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Store {
    /// Opens an existing store with at least one version.
    ///
    /// # Errors
    /// Returns [`StoreError::Missing`] if the store has no version.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let store = Self::at(root);
        if store.versions()?.is_empty() {
            return Err(StoreError::Missing {
                path: root.to_owned(),
            });
        }
        Ok(store)
    }

    /// Creates the handle of a store that may not exist yet. Creates no folder before the first write.
    pub fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            sound: Arc::default(),
        }
    }

    /// Returns the store's root folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the path `data/<plan_id>` in the store.
    pub fn data(&self, plan_id: &str) -> PathBuf {
        self.root.join("data").join(plan_id)
    }

    /// Reports whether `path`, which need not exist, is the store's folder or a path inside it, after following all
    /// links.
    pub fn encloses(&self, path: &Path) -> bool {
        real(path).starts_with(real(&self.root))
    }

    fn versions_folder(&self) -> PathBuf {
        self.root.join("_wavemill/versions")
    }

    fn manifest_path(&self, version: u64) -> PathBuf {
        self.versions_folder().join(format!("{version:08}.json"))
    }

    /// Returns the numbers of the committed versions in ascending order.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the folder exists but cannot be read, and [`StoreError::NotAFolder`].
    pub fn versions(&self) -> Result<Vec<u64>, StoreError> {
        let folder = self.versions_folder();
        let entries = match fs::read_dir(&folder) {
            Err(_) if self.root.is_file() => {
                return Err(StoreError::NotAFolder {
                    path: self.root.clone(),
                });
            }
            // Nothing has been committed if there is no such folder.
            Err(error) if durable::leads_nowhere(&error) => return Ok(Vec::new()),
            other => other.map_err(StoreError::io_at(&folder, "list the versions"))?,
        };

        let mut versions = Vec::new();
        for entry in entries {
            let entry = entry.map_err(StoreError::io_at(&folder, "list the versions"))?;
            // The folder also contains temporary files of commits. Their names do not parse as version numbers.
            versions.extend(entry.file_name().to_str().and_then(version_of));
        }
        versions.sort_unstable();
        Ok(versions)
    }

    /// Returns the manifest of a version, by default the latest one, and its number.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::NoVersion`], [`StoreError::Manifest`],
    /// [`StoreError::OtherFormat`].
    pub fn manifest(&self, version: Option<u64>) -> Result<(u64, Manifest), StoreError> {
        let versions = self.versions()?;
        let Some(&latest) = versions.last() else {
            return Err(StoreError::Missing {
                path: self.root.clone(),
            });
        };

        let version = version.unwrap_or(latest);
        if !versions.contains(&version) {
            let there = if versions.len() == 1 {
                format!("version {latest} only")
            } else {
                // Manifests are never removed, so there are no gaps.
                format!("1 to {latest}")
            };
            return Err(StoreError::NoVersion {
                path: self.root.clone(),
                version,
                there,
            });
        }

        let (manifest, _hash) = self.manifest_with_hash(version)?;
        Ok((version, manifest))
    }

    /// Returns the manifest of an existing version and the blake3 of the manifest's file.
    fn manifest_with_hash(&self, version: u64) -> Result<(Manifest, String), StoreError> {
        let path = self.manifest_path(version);
        let bytes = fs::read(&path).map_err(StoreError::io_at(&path, "read"))?;
        let hash = blake3::hash(&bytes).to_hex().to_string();
        let manifest = Manifest::from_json(bytes).map_err(StoreError::manifest_at(path))?;
        Ok((manifest, hash))
    }

    /// Returns a version's manifest like [`Store::manifest`], but only if the version's data still exists inside the
    /// store.
    ///
    /// # Errors
    /// [`StoreError::Collected`], [`StoreError::Outside`], and those of [`Store::manifest`].
    pub fn readable(&self, version: Option<u64>) -> Result<(u64, Manifest), StoreError> {
        let (version, manifest) = self.manifest(version)?;
        if self.was_collected(version, &manifest, &self.versions()?)? {
            return Err(StoreError::Collected {
                path: self.root.clone(),
                version,
            });
        }
        self.locate_all(&manifest)?;
        Ok((version, manifest))
    }

    /// Reports whether `gc` removed the data of `version`. `versions` are all versions of the store.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    fn was_collected(
        &self,
        version: u64,
        manifest: &Manifest,
        versions: &[u64],
    ) -> Result<bool, StoreError> {
        // `gc` never removes the data of the latest version. If that data is missing, it was lost.
        let is_old = versions.last().is_some_and(|latest| version < *latest);
        if !is_old {
            return Ok(false);
        }
        let data = self.data(&manifest.plan_id);
        let is_there = data.try_exists();
        Ok(!is_there.map_err(StoreError::io_at(&data, "access"))?)
    }

    /// Creates the store's folders and takes its lock. While another process holds the lock, retries for up to `wait`
    /// or until `is_stopped` returns true.
    ///
    /// # Errors
    /// [`StoreError::Locked`], [`StoreError::Io`].
    pub fn lock(&self, wait: Duration, is_stopped: impl Fn() -> bool) -> Result<Lock, StoreError> {
        let start = Instant::now();
        loop {
            match self.try_lock() {
                Err(StoreError::Locked { .. }) if start.elapsed() < wait && !is_stopped() => {
                    std::thread::sleep(LOCK_RETRY.min(wait - start.elapsed().min(wait)));
                }
                other => return other,
            }
        }
    }

    /// Takes the lock like [`Store::lock`], but without waiting.
    fn try_lock(&self) -> Result<Lock, StoreError> {
        let folder = self.root.join("_wavemill");
        durable::make_folder(&folder).map_err(StoreError::io_at(&folder, "create the folder"))?;

        // The file is not removed on unlock: two processes that each create a new file would hold two different locks.
        let path = folder.join("lock");
        let file = File::create(&path).map_err(StoreError::io_at(&path, "create"))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StoreError::Locked {
                path: self.root.clone(),
            }),
            // The file system has no locks. The commit itself is still put-if-absent.
            Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Unsupported => {
                Ok(Lock { _file: file })
            }
            Err(TryLockError::Error(e)) => Err(StoreError::io_at(&path, "lock")(e)),
        }
    }
}

/// Returns the version whose manifest has this file name.
fn version_of(file_name: &str) -> Option<u64> {
    let number = file_name.strip_suffix(".json")?;
    if number.len() != 8 {
        return None;
    }
    number.parse().ok()
}

/// Resolves the symbolic links and `..` of `path` as far as it exists, and appends the rest.
fn real(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut real = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => _ = real.pop(),
            other => real.push(other),
        }
        // Canonicalize after each component: `..` refers to the parent of the folder that a link points to.
        real = real.canonicalize().unwrap_or(real);
    }
    real
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn store_contains_paths_through_links() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("store");
        fs::create_dir_all(root.join("data/x")).expect("folders");
        fs::create_dir(folder.path().join("store-2")).expect("a folder");
        std::os::unix::fs::symlink(root.join("data/x"), folder.path().join("link"))
            .expect("a link");

        let store = Store::at(&root);
        for inside in [
            "store",
            "store/new/file",
            "store-2/../store/x",
            "link/y",
            "link/..",
            "store/no/../data",
        ] {
            assert!(store.encloses(&folder.path().join(inside)), "{inside}");
        }

        for outside in [
            "",
            "store-2/x",
            "store/..",
            "link/../../../x",
            "new/store/x",
        ] {
            assert!(!store.encloses(&folder.path().join(outside)), "{outside}");
        }

        assert!(Store::at(Path::new(".")).encloses(Path::new("_wavemill/versions/00000001.json")));
    }

    #[test]
    fn files_are_not_stores() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert!(matches!(
            Store::at(file.path()).versions(),
            Err(StoreError::NotAFolder { .. })
        ));
    }
}
