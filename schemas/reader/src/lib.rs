//! The versions of a store: finding them by number or tag, reading their manifests, and locating their files. Both
//! programs, `wavemill` and `wavemill-train`, use this crate. It writes no files of a store and reads no rows, but
//! [`layout`] states how rows lie in the files.
//!
//! A store in an object store is read through a folder with local copies of its files. [`remote`] has the folders in
//! object stores, also for inputs.

mod error;
pub mod layout;
mod links;
mod listed;
mod place;
pub mod remote;
mod tags;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::ops::Deref;
use std::path::{Component, Path, PathBuf};

use fail::fail_point;
use wavemill_schemas::local_path::scheme;
use wavemill_schemas::manifest::Manifest;
use wavemill_schemas::version_name::VERSIONS_FOLDER;

pub use error::StoreError;
pub use links::{LINK_PROBLEM, is_of_plan};
pub use remote::{
    Mirror, Purpose, REMOVING_SUFFIX, Remote, RemoteError, StreamedFile, Traffic,
    continue_in_background, traffic,
};

/// Largest number of a version: the names of manifests have eight digits.
pub const VERSION_MAX: u64 = 99_999_999;

/// Maximum number of stores that an error names.
const NAMED_MAX: usize = 3;

/// A folder that contains versions of a feature store, or will contain them.
#[derive(Clone, Debug)]
pub struct StoreFolder {
    /// The store's folder, or the folder with local copies of its files.
    root: PathBuf,
    mirror: Option<Mirror>,
}

/// Path or address of a store, as commands are given it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorePlace(PathBuf);

impl From<OsString> for StorePlace {
    fn from(place: OsString) -> Self {
        Self(place.into())
    }
}

impl Deref for StorePlace {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

/// A committed version of a store.
#[derive(Clone, Debug)]
pub struct CommittedVersion {
    /// Number of the version.
    pub version: u64,
    /// Manifest of the version.
    pub manifest: Manifest,
    /// blake3 hash of the manifest in lower-case hex, which identifies this state of the store. The plan id of the next
    /// version depends on it.
    pub hash: String,
}

impl StoreFolder {
    /// Opens an existing store with at least one version, at a path or at an address such as `s3://bucket/store`.
    ///
    /// # Errors
    /// [`StoreError::Absent`] if the store has no version; [`StoreError::Remote`] if an object store cannot be read.
    pub fn open(place: &Path) -> Result<Self, StoreError> {
        let store = Self::find(place, Purpose::Reading)?;
        match store.versions()?.is_empty() {
            true => Err(store.missing()),
            false => Ok(store),
        }
    }

    /// Creates a handle for a store at a path or an address that may not exist yet.
    ///
    /// # Errors
    /// [`StoreError::Remote`] if an object store cannot be read.
    pub fn find(place: &Path, purpose: Purpose) -> Result<Self, StoreError> {
        if place.as_os_str().is_empty() {
            return Err(StoreError::absent(
                place,
                "no store is named: check --store",
            ));
        }
        if scheme(place.as_os_str()).is_none() {
            return Ok(Self::at(place));
        }
        let mirror = Mirror::open(&place.to_string_lossy(), purpose)?;
        Ok(Self {
            root: mirror.root().to_owned(),
            mirror: Some(mirror),
        })
    }

    /// Copies the manifests and tags again that an object store has now.
    pub fn refresh(&self) -> Result<(), StoreError> {
        self.if_remote(Mirror::refresh)
    }

    /// Runs `run` for a store in an object store.
    pub fn if_remote(
        &self,
        run: impl FnOnce(&Mirror) -> Result<(), RemoteError>,
    ) -> Result<(), StoreError> {
        Ok(self.mirror().map_or(Ok(()), run)?)
    }

    /// Creates a handle for a store on this machine that may not exist yet.
    pub fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            mirror: None,
        }
    }

    fn missing(&self) -> StoreError {
        let remedy = self.near().unwrap_or_else(|| {
            "check --store, or run `wavemill extract` (again if it was interrupted)".to_owned()
        });
        let problem = format!("no store with a committed version: {remedy}");
        StoreError::absent(self.place(), problem)
    }

    /// Returns the remedy for a path of no store if there are stores near it: the folders around it, or its subfolders.
    fn near(&self) -> Option<String> {
        let around = self.root.ancestors().skip(1).map(Path::to_owned);
        let below = list(&self.root).unwrap_or_default();
        let mut stores = around.chain(below).collect::<Vec<_>>();
        stores.retain(|folder| folder.is_dir() && folder.join(VERSIONS_FOLDER).is_dir());
        stores.truncate(NAMED_MAX);
        let stores: Vec<_> = stores
            .iter()
            .map(|store| store.display().to_string())
            .collect();
        (!stores.is_empty()).then(|| format!("did you mean {}?", stores.join(" or ")))
    }

    /// Returns the store's root folder, or the folder with local copies of its files.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the store's root folder, or its address.
    pub fn place(&self) -> &Path {
        match &self.mirror {
            Some(mirror) => Path::new(mirror.remote().address()),
            None => &self.root,
        }
    }

    /// Returns the local copy of a store in an object store; `None` for a store on this machine.
    pub fn mirror(&self) -> Option<&Mirror> {
        self.mirror.as_ref()
    }

    /// Returns the folder in an object store, if the store is in one.
    pub fn remote(&self) -> Option<&Remote> {
        self.mirror.as_ref().map(Mirror::remote)
    }

    /// Returns the path of a plan's data, `data/<plan_id>` in the store.
    pub fn data(&self, plan_id: &str) -> PathBuf {
        self.root.join("data").join(plan_id)
    }

    /// Reports whether `path`, which need not exist, is the store's folder or a path inside it, after resolving all
    /// symbolic links.
    pub fn encloses(&self, path: &Path) -> bool {
        encloses(&self.root, path)
    }

    /// Returns the folder of the store's manifests.
    pub fn versions_folder(&self) -> PathBuf {
        self.root.join(VERSIONS_FOLDER)
    }

    /// Returns the path of a version's manifest, which need not exist.
    pub fn manifest_path(&self, version: u64) -> PathBuf {
        self.versions_folder().join(format!("{version:08}.json"))
    }

    /// Checks that the path of the store is not a file.
    ///
    /// # Errors
    /// [`StoreError::Absent`] if the path is a file.
    pub fn require_folder(&self) -> Result<(), StoreError> {
        if self.root.is_file() {
            let remedy = self.near().unwrap_or_else(|| "check --store".to_owned());
            let problem = format!("is a file, not the folder of a store: {remedy}");
            return Err(StoreError::absent(&self.root, problem));
        }
        Ok(())
    }

    /// Returns the numbers of the committed versions in ascending order.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the folder exists but cannot be read, and the errors of [`StoreFolder::require_folder`].
    pub fn versions(&self) -> Result<Vec<u64>, StoreError> {
        self.require_folder()?;
        // The folder also contains temporary files, whose names are not version numbers.
        let paths = list(&self.versions_folder())?;
        Ok(paths.iter().filter_map(|path| version_of(path)).collect())
    }

    /// Returns the version with this number, or the latest version for `None`.
    ///
    /// # Errors
    /// [`StoreError::Absent`] if there is no such version, and errors of reading its manifest: [`StoreError::Damaged`],
    /// [`StoreError::OtherFormat`], [`StoreError::Io`].
    pub fn committed(&self, version: Option<u64>) -> Result<CommittedVersion, StoreError> {
        let versions = self.versions()?;
        let Some(&latest) = versions.last() else {
            return Err(self.missing());
        };

        let version = version.unwrap_or(latest);
        if !versions.contains(&version) {
            let there = if versions.len() == 1 {
                format!("version {latest} only")
            } else {
                // Manifests are never removed, so version numbers have no gaps.
                format!("1 to {latest}")
            };
            let problem = format!("no version {version}; available: {there}");
            return Err(StoreError::absent(self.place(), problem));
        }
        self.read(version)
    }

    /// Returns only the number and the manifest of a version, like [`StoreFolder::committed`].
    ///
    /// # Errors
    /// The same errors as for [`StoreFolder::committed`].
    pub fn manifest(&self, version: Option<u64>) -> Result<(u64, Manifest), StoreError> {
        let committed = self.committed(version)?;
        Ok((committed.version, committed.manifest))
    }

    /// Returns the latest version, or `None` if no version has been committed yet. Unless the caller holds the store's
    /// lock, another version may be committed at any time.
    ///
    /// # Errors
    /// The same errors as for [`StoreFolder::committed`], except that a store without versions is not an error.
    pub fn latest(&self) -> Result<Option<CommittedVersion>, StoreError> {
        let latest = self.versions()?.last().copied();
        latest.map(|version| self.read(version)).transpose()
    }

    /// Reads the manifest of an existing version.
    fn read(&self, version: u64) -> Result<CommittedVersion, StoreError> {
        let path = self.manifest_path(version);
        fail_point!("manifest-read");
        // Read the file once, so that the manifest and the hash are of the same bytes.
        let bytes = read_plain(&path).map_err(StoreError::io_at(&path, "read"))?;
        let hash = blake3::hash(&bytes).to_hex().to_string();
        let manifest = Manifest::from_json(bytes).map_err(StoreError::manifest_at(path))?;
        Ok(CommittedVersion {
            version,
            manifest,
            hash,
        })
    }

    /// Returns a version's number and manifest like [`StoreFolder::manifest`], but only if the data of the version
    /// exist inside the store.
    ///
    /// # Errors
    /// The errors of [`StoreFolder::committed`], and [`StoreError::Absent`] if the data were removed.
    pub fn readable(&self, version: Option<u64>) -> Result<(u64, Manifest), StoreError> {
        let committed = self.committed(version)?;
        self.require_data(&committed)?;
        self.locate_all(&committed.manifest)?;
        Ok((committed.version, committed.manifest))
    }

    /// Checks that `wavemill gc` has not removed the data of a version.
    ///
    /// # Errors
    /// [`StoreError::Absent`] if it has, and the errors of [`StoreFolder::versions`].
    pub fn require_data(&self, committed: &CommittedVersion) -> Result<(), StoreError> {
        if !self.was_collected(committed, &self.versions()?)? {
            return Ok(());
        }
        let problem = format!(
            "the data of version {} was removed by `wavemill gc`: use a later version",
            committed.version
        );
        Err(StoreError::absent(self.place(), problem))
    }

    /// Reports whether `wavemill gc` has removed the data of a version. `versions` are the numbers of all versions of
    /// the store.
    fn was_collected(
        &self,
        committed: &CommittedVersion,
        versions: &[u64],
    ) -> Result<bool, StoreError> {
        // `gc` never removes the data of the latest version. If they are missing, they were lost.
        let is_old = versions
            .last()
            .is_some_and(|latest| committed.version < *latest);
        Ok(is_old && !self.has_data(&committed.manifest)?)
    }

    /// Reports whether the data folder named in a manifest exists.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the existence of the data folder cannot be determined.
    pub fn has_data(&self, manifest: &Manifest) -> Result<bool, StoreError> {
        let data = self.data(&manifest.plan_id);
        let is_there = data.try_exists();
        is_there.map_err(StoreError::io_at(&data, "access"))
    }
}

/// Returns the number of the version whose manifest has the path `path`.
fn version_of(path: &Path) -> Option<u64> {
    let number = path.file_name()?.to_str()?.strip_suffix(".json")?;
    if number.len() != 8 || !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    number.parse().ok().filter(|version| *version > 0)
}

/// Reports whether `path`, which need not exist, is `folder` or a path inside it, after resolving all symbolic links.
pub fn encloses(folder: &Path, path: &Path) -> bool {
    real(path).starts_with(real(folder))
}

/// Resolves symbolic links and `..` in the existing part of `path`, and appends the rest.
fn real(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut real = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => _ = real.pop(),
            other => real.push(other),
        }
        // Resolve links after each component: `..` means the parent of the folder that a link points to.
        real = real.canonicalize().unwrap_or(real);
    }
    real
}

/// Reports whether an error means that a path does not exist. After any other error, such as EIO or EACCES, the path
/// may exist, and data would be lost if it were treated as absent.
pub fn leads_nowhere(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Returns the sorted entries of a folder, or an empty list if the folder does not exist.
///
/// # Errors
/// [`StoreError::Io`] if the folder exists but cannot be read.
pub fn list(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let entries = match fs::read_dir(folder) {
        // A file in its place is an error.
        Err(error) if leads_nowhere(&error) && !folder.exists() => return Ok(Vec::new()),
        other => other.map_err(StoreError::io_at(folder, "list the folder"))?,
    };
    let paths: Result<Vec<_>, _> = entries.map(|entry| entry.map(|e| e.path())).collect();
    let mut paths = paths.map_err(StoreError::io_at(folder, "list the folder"))?;
    paths.sort();
    Ok(paths)
}

/// Reads a whole small file of a store. A link, which may lead out of the store, a pipe, which may never end, and
/// everything else that is no file counts as an empty file, which is a damaged one.
///
/// # Errors
/// The error of the file system.
pub fn read_plain(path: &Path) -> io::Result<Vec<u8>> {
    match fs::symlink_metadata(path)?.is_file() {
        true => fs::read(path),
        false => Ok(Vec::new()),
    }
}

/// Returns the blake3 hash of a file in lower-case hex.
///
/// # Errors
/// An I/O error if the file cannot be read.
pub fn hash_file(path: &Path) -> io::Result<String> {
    hash_reader(File::open(path)?)
}

/// Returns the blake3 hash of everything that `reader` returns, in lower-case hex.
pub fn hash_reader(reader: impl io::Read) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(reader)?;
    Ok(hasher.finalize().to_hex().to_string())
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

        let store = StoreFolder::at(&root);
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

        assert!(
            StoreFolder::at(Path::new(".")).encloses(Path::new("_wavemill/versions/00000001.json"))
        );
    }

    #[test]
    fn numbers_of_versions_have_eight_digits() {
        for (name, version) in [
            ("00000012.json", Some(12)),
            ("00000000.json", None),
            ("+0000003.json", None),
            ("0000003.json", None),
        ] {
            assert_eq!(version_of(Path::new(name)), version, "{name}");
        }
    }

    #[test]
    fn errors_name_the_stores_around_and_below_a_path() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path().display();
        for store in ["a/one", "a/two"] {
            fs::create_dir_all(folder.path().join(store).join(VERSIONS_FOLDER)).expect("folders");
        }
        fs::write(folder.path().join("a/one/_wavemill/lock"), "").expect("a file");

        let no_store = "no store with a committed version";
        for (path, want) in [
            (
                "a/one/_wavemill",
                format!("{no_store}: did you mean {at}/a/one?"),
            ),
            (
                "a/one/data/none",
                format!("{no_store}: did you mean {at}/a/one?"),
            ),
            (
                "a",
                format!("{no_store}: did you mean {at}/a/one or {at}/a/two?"),
            ),
            (
                "a/one/_wavemill/lock",
                format!("is a file, not the folder of a store: did you mean {at}/a/one?"),
            ),
            (
                "b",
                format!(
                    "{no_store}: check --store, or run `wavemill extract` (again if it was interrupted)"
                ),
            ),
        ] {
            let error = StoreFolder::open(&folder.path().join(path)).expect_err(path);
            assert_eq!(error.to_string(), format!("{at}/{path}: {want}"));
        }
    }

    #[test]
    fn files_are_not_stores() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let error = StoreFolder::at(file.path()).versions();
        assert_eq!(
            error.expect_err("a file").to_string(),
            format!(
                "{}: is a file, not the folder of a store: check --store",
                file.path().display()
            )
        );
    }
}
