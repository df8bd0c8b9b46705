//! A store on disk: versions, receipts, and the one commit that makes a version exist.
//!
//! Invariants: a path is never rewritten once a manifest names it; a manifest is never overwritten; what varies from run
//! to run lies in receipts and run records only.

mod commit;
mod compare;
mod diff;
pub(crate) mod durable;
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
use wavemill_schemas::manifest::{Manifest, ManifestError};
use wavemill_schemas::version_name::TagProblem;

pub(crate) use diff::{Change, Diff};
pub(crate) use gc::GcReport;
pub(crate) use history::{VersionContent, VersionLine};
pub(crate) use parent::Parent;
pub(crate) use receipts::{PlanRecord, Receipts};
pub(crate) use resume::{Decision, VersionInputs};
pub(crate) use tags::{TagReport, Tags};
pub(crate) use verify::has_footer;

/// Time between two attempts to take a lock that another process holds.
const LOCK_RETRY: Duration = Duration::from_millis(100);

/// What can be wrong with a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused.
    #[error("{path}: cannot {action}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Its answer.
        source: io::Error,
    },
    /// No store there.
    #[error(
        "{path}: no store with a committed version here: check --store, or run `wavemill extract` (again, if it was stopped)"
    )]
    Missing {
        /// As given.
        path: PathBuf,
    },
    /// A file where the folder should be.
    #[error("{path}: a file, and no folder of a store: check --store")]
    NotAFolder {
        /// As given.
        path: PathBuf,
    },
    /// A version that does not exist.
    #[error("{path}: no version {version}; there is {there}")]
    NoVersion {
        /// The store.
        path: PathBuf,
        /// Asked for.
        version: u64,
        /// What exists, in words.
        there: String,
    },
    /// A tag that does not exist.
    #[error(
        "{path}: no tag {tag}; {there}: `wavemill info --versions` lists all versions, and `wavemill tag VERSION {tag}` \
         gives one of them this name"
    )]
    NoTag {
        /// The store.
        path: PathBuf,
        /// Asked for.
        tag: String,
        /// What exists, in words.
        there: String,
    },
    /// A tag that names no version that can be read.
    #[error("{path}: damaged tag: {problem}: {}", problem.remedy())]
    Tag {
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        problem: TagProblem,
    },
    /// A version whose data is gone on purpose.
    #[error(
        "{path}: the data of version {version} was removed by `wavemill gc`: use a later version"
    )]
    Collected {
        /// The store.
        path: PathBuf,
        /// Asked for.
        version: u64,
    },
    /// A manifest that cannot be read.
    #[error("{path}: damaged manifest: restore it from a copy of the store")]
    Manifest {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ManifestError,
    },
    /// A manifest of a later format: no damage.
    #[error(
        "{path}: this store needs a newer wavemill: its format version is {found}, and this one reads up to {FORMAT_VERSION}"
    )]
    Newer {
        /// The manifest.
        path: PathBuf,
        /// What it says.
        found: u64,
    },
    /// A receipt whose names cannot be used.
    #[error("{path}: damaged receipt: remove it, and its shard is made anew")]
    Receipt {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ManifestError,
    },
    /// A link that leads out of the store.
    #[error(
        "{path}: damaged store: {name} leads out of it by a link: put the files themselves in its place"
    )]
    Outside {
        /// The store.
        path: PathBuf,
        /// Below it.
        name: String,
    },
    /// A file that the latest version names is gone or cut.
    #[error(
        "{path}: lost or damaged: `wavemill verify` names every such file; --new-version makes them anew"
    )]
    Lost {
        /// The file.
        path: PathBuf,
    },
    /// A table of the latest version that the next one is made upon.
    #[error(
        "{path}: lost or damaged, and a new version is made upon it: restore it from a copy of the store, or draw all \
         sides anew with --resplit"
    )]
    Needed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ParquetError,
    },
    /// Another process writes here.
    #[error(
        "{path}: another wavemill is writing this store: wait for it with --wait SECONDS, or stop it"
    )]
    Locked {
        /// The store.
        path: PathBuf,
    },
    /// The store was made from something else.
    #[error(
        "{path}: version {version} was made otherwise ({changed}): add --new-version to commit version {next} beside it, \
         or use another --store",
        next = version + 1
    )]
    OtherPlan {
        /// The store.
        path: PathBuf,
        /// Its latest version.
        version: u64,
        /// What differs.
        changed: String,
    },
    /// An unfinished plan that differs in engine alone.
    #[error("{path}: an unfinished run used another engine ({was}; now {now}): {remedy}")]
    OtherEngine {
        /// The store.
        path: PathBuf,
        /// Of the unfinished plan.
        was: String,
        /// Of this run.
        now: String,
        /// What to type.
        remedy: String,
    },
    /// Somebody else committed in between, and not the same plan.
    #[error(
        "{path}: another run committed version {version} meanwhile: run again with --new-version"
    )]
    Raced {
        /// The store.
        path: PathBuf,
        /// Theirs.
        version: u64,
    },
    /// JSON of our own that cannot be written; cannot happen.
    #[error("store metadata")]
    Json(#[from] serde_json::Error),
}

impl StoreError {
    /// The I/O error at the bottom, where there is one.
    pub const fn io(&self) -> Option<&io::Error> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }

    /// What is wrong with a version: damage, or a format of the future.
    fn manifest_at(path: PathBuf) -> impl FnOnce(ManifestError) -> Self {
        move |source| match source {
            ManifestError::Newer { found } => Self::Newer { path, found },
            source => Self::Manifest { path, source },
        }
    }

    pub(crate) fn io_at(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            path,
            action,
            source,
        }
    }
}

/// A folder that holds, or will hold, versions.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    root: PathBuf,
    /// Paths and hashes of the files that were compared with their blake3 and are sound: a run looks at the parent's
    /// files several times, and reads each once for it.
    sound: Arc<Mutex<HashSet<(String, String)>>>,
}

/// Held while a store is written; released when dropped, or when the process ends in any way.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Store {
    /// An existing store with at least one version.
    ///
    /// # Errors
    /// [`StoreError::Missing`].
    pub(crate) fn open(root: &Path) -> Result<Self, StoreError> {
        let store = Self::at(root);
        if store.versions()?.is_empty() {
            return Err(StoreError::Missing {
                path: root.to_owned(),
            });
        }
        Ok(store)
    }

    /// A store that may not exist yet; nothing is made until something is written.
    pub(crate) fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            sound: Arc::default(),
        }
    }

    /// The folder.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// `data/<plan_id>`.
    pub(crate) fn data(&self, plan_id: &str) -> PathBuf {
        self.root.join("data").join(plan_id)
    }

    /// Whether `path`, which need not exist, is this store's folder or would lie in it, whatever links lead there.
    pub(crate) fn encloses(&self, path: &Path) -> bool {
        real(path).starts_with(real(&self.root))
    }

    fn versions_folder(&self) -> PathBuf {
        self.root.join("_wavemill/versions")
    }

    fn manifest_path(&self, version: u64) -> PathBuf {
        self.versions_folder().join(format!("{version:08}.json"))
    }

    /// Committed versions, ascending.
    ///
    /// # Errors
    /// [`StoreError::Io`] when the folder is there but cannot be read, [`StoreError::NotAFolder`].
    pub(crate) fn versions(&self) -> Result<Vec<u64>, StoreError> {
        let folder = self.versions_folder();
        let entries = match fs::read_dir(&folder) {
            Err(_) if self.root.is_file() => {
                return Err(StoreError::NotAFolder {
                    path: self.root.clone(),
                });
            }
            // No folder: nothing was ever committed.
            Err(error) if durable::leads_nowhere(&error) => return Ok(Vec::new()),
            other => other.map_err(StoreError::io_at(&folder, "list the versions"))?,
        };

        let mut versions = Vec::new();
        for entry in entries {
            let entry = entry.map_err(StoreError::io_at(&folder, "list the versions"))?;
            // Temporary files of a commit lie here too, under names that are no version's.
            versions.extend(entry.file_name().to_str().and_then(version_of));
        }
        versions.sort_unstable();
        Ok(versions)
    }

    /// A version's manifest, the latest by default, with its number.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::NoVersion`], [`StoreError::Manifest`], [`StoreError::Newer`].
    pub(crate) fn manifest(&self, version: Option<u64>) -> Result<(u64, Manifest), StoreError> {
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

    /// The manifest of a version that is there, and the blake3 of its file.
    fn manifest_with_hash(&self, version: u64) -> Result<(Manifest, String), StoreError> {
        let path = self.manifest_path(version);
        let bytes = fs::read(&path).map_err(StoreError::io_at(&path, "read"))?;
        let hash = blake3::hash(&bytes).to_hex().to_string();
        let manifest = Manifest::from_json(bytes).map_err(StoreError::manifest_at(path))?;
        Ok((manifest, hash))
    }

    /// A version's manifest, as [`Store::manifest`], where its data is still there and lies in the store.
    ///
    /// # Errors
    /// [`StoreError::Collected`], [`StoreError::Outside`], and those of [`Store::manifest`].
    pub(crate) fn readable(&self, version: Option<u64>) -> Result<(u64, Manifest), StoreError> {
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

    /// Reports whether `gc` removed the data of a version, one of `versions`.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    fn was_collected(
        &self,
        version: u64,
        manifest: &Manifest,
        versions: &[u64],
    ) -> Result<bool, StoreError> {
        // It never removes the data of the latest version: where that is missing, it is lost.
        let is_old = versions.last().is_some_and(|latest| version < *latest);
        if !is_old {
            return Ok(false);
        }
        let data = self.data(&manifest.plan_id);
        let is_there = data.try_exists();
        Ok(!is_there.map_err(StoreError::io_at(&data, "look at"))?)
    }

    /// Makes the store's folders and takes its lock. Tries again for as long as `wait` while another process holds the
    /// lock, unless `is_stopped`.
    ///
    /// # Errors
    /// [`StoreError::Locked`], [`StoreError::Io`].
    pub(crate) fn lock(
        &self,
        wait: Duration,
        is_stopped: impl Fn() -> bool,
    ) -> Result<Lock, StoreError> {
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

    /// As [`Store::lock`], without waiting.
    fn try_lock(&self) -> Result<Lock, StoreError> {
        let folder = self.root.join("_wavemill");
        durable::make_folder(&folder).map_err(StoreError::io_at(&folder, "create the folder"))?;

        // The file stays when the lock is given back: two processes that each make it anew would hold two locks.
        let path = folder.join("lock");
        let file = File::create(&path).map_err(StoreError::io_at(&path, "create"))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StoreError::Locked {
                path: self.root.clone(),
            }),
            // A file system without locks: the commit itself is still put-if-absent.
            Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Unsupported => {
                Ok(Lock { _file: file })
            }
            Err(TryLockError::Error(e)) => Err(StoreError::io_at(&path, "lock")(e)),
        }
    }
}

/// The version whose manifest has this name.
fn version_of(file_name: &str) -> Option<u64> {
    let number = file_name.strip_suffix(".json")?;
    if number.len() != 8 {
        return None;
    }
    number.parse().ok()
}

/// Where `path` leads: links and `..` are followed as far as it exists, and the rest is appended.
fn real(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut real = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => _ = real.pop(),
            other => real.push(other),
        }
        // Each part before the next: `..` leads out of the folder that a link names, not of the one that it lies in.
        real = real.canonicalize().unwrap_or(real);
    }
    real
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_encloses_what_leads_into_it_by_any_name() {
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
    fn a_file_is_no_store() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert!(matches!(
            Store::at(file.path()).versions(),
            Err(StoreError::NotAFolder { .. })
        ));
    }
}
