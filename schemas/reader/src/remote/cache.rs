//! Local copies of the files of stores in object stores.
//!
//! A store's copies are in a folder of the same layout, so that everything that reads a local store reads them.
//! Manifests and tags are copied when the store is opened, and data files when they are needed. All copies together
//! stay below a limit: the files that were not used for the longest time are removed.

use std::collections::HashSet;
use std::env;
use std::fs::{self, File, FileTimes, Metadata, TryLockError};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use wavemill_schemas::durable::{TemporaryPath, if_there, random_token};
use wavemill_schemas::exit::PlainError;
use wavemill_schemas::manifest::FileEntry;
use wavemill_schemas::size::parse_bytes;
use wavemill_schemas::version_name::{TAGS_FOLDER, VERSIONS_FOLDER};

use crate::hash_file;
use crate::remote::{Download, Found, Remote, RemoteError, of_process};

/// Folders of a store's versions and tags, which are copied whole.
const VERSION_FOLDERS: [&str; 2] = [VERSIONS_FOLDER, TAGS_FOLDER];
/// Folder of the plans' data, whose files are copied when they are needed.
const DATA_FOLDER: &str = "data";
/// Default limit of all copies in bytes: 50 GiB.
const LIMIT_BYTES: u64 = 50 << 30;
/// Files that a process began to use or to write within this time may still be used by it and are not removed.
const GRACE: Duration = Duration::from_secs(24 * 3600);
/// Copies that are unfinished and were not continued within this time belong to processes that have ended.
const UNFINISHED_GRACE: Duration = Duration::from_secs(600);
/// End of the name of a folder of copies for writing.
const WRITTEN: &str = "-written";
/// Prefix of the names of unfinished copies.
const UNFINISHED: &str = ".copy-";
/// File that marks a folder of copies. Nothing is counted or removed in other folders: `WAVEMILL_CACHE` may name a
/// folder with files of the user.
const MARK: &str = "copies.txt";
/// Beginning of its text.
const MARK_TEXT: &str = "Copies of files of ";
/// Names in a folder of copies; the last one is that of the lock and of manifests.
const COPIED: [&str; 2] = [DATA_FOLDER, "_wavemill"];

/// Suffix of the name of a data folder that is being removed. In an object store, which cannot rename folders, it has a
/// mark, and the folder without the suffix counts as removed.
pub const REMOVING_SUFFIX: &str = ".going";
/// Difference of the clock of files from that of the system.
const CLOCK_STEP: Duration = Duration::from_millis(20);

/// Copies that this process reads; see [`of_process`].
static IN_USE: [LazyLock<Mutex<HashSet<PathBuf>>>; 2] =
    [const { LazyLock::new(Mutex::default) }; 2];

/// Purpose of a local copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Only reading: the copy has nothing that the object store lacks.
    Reading,
    /// Writing: the copy also has files that were not sent yet, perhaps those of another process. It is another folder.
    Writing,
}

/// The local copy of a store in an object store.
#[derive(Clone, Debug)]
pub struct Mirror {
    remote: Remote,
    root: PathBuf,
    purpose: Purpose,
}

impl Mirror {
    /// Opens the store at `address` and copies its manifests and tags. Removes what killed processes left unfinished.
    pub fn open(address: &str, purpose: Purpose) -> Result<Self, RemoteError> {
        let remote = Remote::new(address)?;
        let name = blake3::hash(remote.address().as_bytes()).to_hex();
        let name = match purpose {
            Purpose::Reading => name[..16].to_owned(),
            Purpose::Writing => format!("{}{WRITTEN}", &name[..16]),
        };
        let mirror = Self {
            remote,
            root: cache_folder()?.join(name),
            purpose,
        };
        mark(&mirror.root, mirror.remote.address())?;
        require_no_links(&mirror.root)?;
        remove_unfinished(&mirror.root, SystemTime::now());
        mirror.refresh()?;
        Ok(mirror)
    }

    /// Returns the folder of the local copies.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the folder of the lock, which is one for all purposes.
    pub fn lock_root(&self) -> PathBuf {
        let name = self.root.file_name().unwrap_or_default().to_string_lossy();
        self.root
            .with_file_name(name.strip_suffix(WRITTEN).unwrap_or(&name))
    }

    /// Returns the store's folder in the object store.
    pub fn remote(&self) -> &Remote {
        &self.remote
    }

    /// Copies those objects below a small folder that differ from their copies.
    pub fn pull(&self, folder: &str) -> Result<(), RemoteError> {
        self.pull_found(&self.list(folder)?)
    }

    /// Returns the objects below a folder whose names can be those of files beside each other.
    fn list(&self, folder: &str) -> Result<Vec<Found>, RemoteError> {
        let mut found = self.remote.list(folder)?;
        // Only the objects directly in these folders are manifests and tags.
        if VERSION_FOLDERS.contains(&folder) {
            found.retain(|found| Path::new(&found.name).parent() == Some(Path::new(folder)));
        }
        let parents = found
            .iter()
            .flat_map(|found| Path::new(&found.name).ancestors().skip(1));
        let parents: HashSet<PathBuf> = parents.map(Path::to_owned).collect();
        found.retain(|found| !parents.contains(Path::new(&found.name)));
        Ok(found)
    }

    fn pull_found(&self, found: &[Found]) -> Result<(), RemoteError> {
        let found = found.iter().filter(|found| is_plain(&found.name));
        let changed = found.filter(|found| !self.is_current(found));
        let copies = changed.map(|found| self.copy_of(&found.name, None));
        self.remote.download(copies.collect()).map(|_| ())
    }

    /// Makes the copies below a small folder equal to the objects: like [`Mirror::pull`], and removes copies without an
    /// object. No other process may write files there.
    pub fn equalize(&self, folder: &str) -> Result<(), RemoteError> {
        let listed_at = SystemTime::now();
        let found = self.list(folder)?;
        self.remove_others(folder, &found.iter().collect::<Vec<_>>(), listed_at)?;
        self.pull_found(&found)
    }

    /// Removes the copies below a folder that are not those of the objects `kept`, which were listed at `listed_at`. A
    /// copy that another process made since then may be that of an object that the list lacks.
    fn remove_others(
        &self,
        folder: &str,
        kept: &[&Found],
        listed_at: SystemTime,
    ) -> Result<(), RemoteError> {
        let names: HashSet<&str> = kept.iter().map(|found| found.name.as_str()).collect();
        let mut copies = Vec::new();
        add_copies(&self.root.join(folder), &mut copies)?;
        for Copy { path, .. } in copies {
            let name = path.strip_prefix(&self.root).unwrap_or(&path);
            let name = name.to_string_lossy();
            if !is_hidden(&path) && !names.contains(&*name) && !is_changed_since(&path, listed_at) {
                // A version or tag that is known here may only be missing in the list.
                let is_known = VERSION_FOLDERS.contains(&folder);
                if is_known && path.parent() == Some(&self.root.join(folder)) {
                    self.remote.require_absent(&name)?;
                }
                remove(&path)?;
            }
        }
        Ok(())
    }

    fn copy_of(&self, name: &str, blake3: Option<String>) -> Download {
        Download {
            name: name.to_owned(),
            to: self.root.join(name),
            blake3,
        }
    }

    /// Removes the copies below a folder that are not equal to an object, by size and time of modification.
    pub fn forget_changed(&self, folder: &str) -> Result<(), RemoteError> {
        let listed_at = SystemTime::now();
        let mut found = self.list(folder)?;
        found.retain(|found| self.is_current(found));
        self.remove_others(folder, &found.iter().collect::<Vec<_>>(), listed_at)
    }

    /// Copies small files again, or removes the copies of those that do not exist.
    pub fn pull_files(&self, names: &[String]) -> Result<(), RemoteError> {
        let copies = names.iter().map(|name| self.copy_of(name, None));
        let exist = self.remote.download(copies.collect())?;
        for (name, exists) in names.iter().zip(exist) {
            if !exists {
                remove(&self.root.join(name))?;
            }
        }
        Ok(())
    }

    /// Copies manifests and tags again, and the names of the plans with data.
    pub fn refresh(&self) -> Result<(), RemoteError> {
        for folder in VERSION_FOLDERS {
            self.equalize(folder)?;
        }

        let mut plans = self.remote.folders(DATA_FOLDER)?;
        let all = plans.clone();
        plans.retain(|plan| !all.contains(&format!("{plan}{REMOVING_SUFFIX}")));
        let data = self.root.join(DATA_FOLDER);
        if self.purpose == Purpose::Reading {
            for path in entries(&data)? {
                let is_there = plans.iter().any(|plan| path.ends_with(plan));
                if !is_there {
                    remove(&path)?;
                }
            }
        }
        for plan in plans.iter().filter(|plan| is_plain(plan)) {
            let folder = data.join(plan);
            fs::create_dir_all(&folder).map_err(RemoteError::copy_at(&folder, "create"))?;
        }
        Ok(())
    }

    fn is_current(&self, found: &Found) -> bool {
        // Some answers give times in whole seconds. A tag may move within a second, without a change of its size.
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).map(|time| time.as_secs());
        let is_same = |copy: Metadata| {
            let modified = copy.modified().ok().and_then(|time| seconds(time).ok());
            copy.len() == found.bytes && modified == seconds(found.modified).ok()
        };
        let copy = fs::metadata(self.root.join(&found.name));
        !found.name.starts_with(TAGS_FOLDER) && copy.is_ok_and(is_same)
    }

    /// Copies `files` that are not copied yet. A file that does not exist has no copy afterwards.
    ///
    /// # Errors
    /// [`RemoteError::Damaged`] if the content of a file differs from its entry; [`RemoteError::Copies`]; errors of
    /// requests and of writing.
    pub fn fetch(&self, files: &[&FileEntry]) -> Result<(), RemoteError> {
        self.fetch_below(files, limit_bytes()?)
    }

    /// Copies files as [`Mirror::fetch`] does, but leaves a tenth of the limit to files that have to be copied.
    pub fn fetch_spare(&self, files: &[&FileEntry]) -> Result<(), RemoteError> {
        self.fetch_below(files, limit_bytes()? / 10 * 9)
    }

    fn fetch_below(&self, files: &[&FileEntry], limit_bytes: u64) -> Result<(), RemoteError> {
        let mut missing = Vec::new();
        for &file in files {
            let path = self.root.join(&file.path);
            let is_first_use = in_use().insert(path.clone());
            // Only a writer that was killed leaves other bytes of the same length.
            let checks_hash = is_first_use && self.purpose == Purpose::Writing;
            if is_copy_of(&path, file, checks_hash) {
                note_use(&path);
            } else {
                remove(&path)?;
                missing.push(file);
            }
        }
        if missing.is_empty() {
            return Ok(());
        }

        let bytes = missing.iter().map(|file| file.bytes).sum();
        make_room(&cache_folder()?, bytes, limit_bytes)?;
        let copies = missing
            .iter()
            .map(|file| self.copy_of(&file.path, Some(file.blake3.clone())));
        self.remote.download(copies.collect()).map(|_| ())
    }
}

/// Reports whether a file is unfinished: a copy, or a file that a writer will rename.
fn is_hidden(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().starts_with('.')
}

/// Reports whether a file was written or renamed at `time` or later.
fn is_changed_since(path: &Path, time: SystemTime) -> bool {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    fs::symlink_metadata(path).is_ok_and(|found| {
        let changed = Duration::new(
            found.ctime().max(0) as u64,
            found.ctime_nsec().clamp(0, 999_999_999) as u32,
        );
        changed + CLOCK_STEP >= since
    })
}

/// Reports whether a name stays within the folder to which it is relative.
fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    parts.all(|part| matches!(part, Component::Normal(_)))
}

fn in_use() -> std::sync::MutexGuard<'static, HashSet<PathBuf>> {
    of_process(&IN_USE)
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}

/// Returns the folder of all local copies: `WAVEMILL_CACHE`, or `wavemill` in the user's cache folder.
fn cache_folder() -> Result<PathBuf, RemoteError> {
    let given = |name: &str| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let folder = given("WAVEMILL_CACHE")
        .or_else(|| Some(given("XDG_CACHE_HOME")?.join("wavemill")))
        .or_else(|| Some(given("HOME")?.join(".cache/wavemill")));
    folder.ok_or_else(|| {
        let problem = "name a folder for local copies of remote files in this environment variable";
        RemoteError::address("WAVEMILL_CACHE", problem)
    })
}

/// Returns the limit of all copies in bytes.
fn limit_bytes() -> Result<u64, RemoteError> {
    let Ok(limit) = env::var("WAVEMILL_CACHE_LIMIT") else {
        return Ok(LIMIT_BYTES);
    };
    let bytes = parse_bytes(&limit).map_err(|problem| {
        RemoteError::address(format!("WAVEMILL_CACHE_LIMIT={limit}"), problem)
    })?;
    Ok(bytes as u64)
}

/// Marks the folder of a store's copies, and creates it.
///
/// # Errors
/// [`RemoteError::Address`] if the folder has other files: a command would remove those that the store lacks.
fn mark(folder: &Path, address: &str) -> Result<(), RemoteError> {
    if is_marked(folder) {
        return Ok(());
    }
    // Folders that earlier versions made have no mark, and another process may just be writing it.
    let is_new = |text: String| text.is_empty() || text.starts_with(MARK_TEXT);
    let is_new_mark = |path: &Path| {
        path.ends_with(MARK) && path.is_file() && fs::read_to_string(path).is_ok_and(is_new)
    };
    let is_copied = |path: &PathBuf| {
        let is_known = COPIED.iter().any(|name| path.ends_with(name));
        !path.is_symlink() && (is_known || is_new_mark(path))
    };
    if folder.is_symlink() || !entries(folder)?.iter().all(is_copied) {
        let problem = format!(
            "not a folder of local copies, which has the file {MARK}: move it to another place, or choose another \
             folder with WAVEMILL_CACHE"
        );
        return Err(RemoteError::address(folder.to_string_lossy(), problem));
    }

    fs::create_dir_all(folder).map_err(RemoteError::copy_at(folder, "create"))?;
    let text = format!("{MARK_TEXT}{address}. wavemill removes files in this folder.\n");
    let path = folder.join(MARK);
    fs::write(&path, text).map_err(RemoteError::copy_at(&path, "write"))
}

fn is_marked(folder: &Path) -> bool {
    let text = || fs::read_to_string(folder.join(MARK)).unwrap_or_default();
    !folder.is_symlink() && folder.join(MARK).is_file() && text().starts_with(MARK_TEXT)
}

/// Checks that the folders of copies are not symbolic links, through which files of the user would be replaced and
/// removed.
fn require_no_links(root: &Path) -> Result<(), RemoteError> {
    let mut folders = COPIED.map(|name| root.join(name)).to_vec();
    folders.extend(VERSION_FOLDERS.map(|name| root.join(name)));
    folders.extend(entries(&root.join(DATA_FOLDER))?);
    match folders.into_iter().find(|folder| folder.is_symlink()) {
        None => Ok(()),
        Some(link) => {
            let problem = "a symbolic link in a folder of local copies: remove it";
            Err(RemoteError::address(link.to_string_lossy(), problem))
        }
    }
}

/// A local copy, by which copies are removed.
struct Copy {
    used: SystemTime,
    bytes: u64,
    path: PathBuf,
}

/// Removes copies in the marked folders in `folder`, those first that were not used for the longest time, until `bytes`
/// more fit below the limit. Removes none if they cannot fit.
fn make_room(folder: &Path, bytes: u64, limit_bytes: u64) -> Result<(), RemoteError> {
    let mut copies = Vec::new();
    for store in entries(folder)? {
        // A writer's folder has files that were not sent yet.
        if is_marked(&store)
            && require_no_links(&store).is_ok()
            && !store.to_string_lossy().ends_with(WRITTEN)
        {
            add_copies(&store.join(DATA_FOLDER), &mut copies)?;
        }
    }
    let mut total = bytes + bytes_of(&copies);

    let now = SystemTime::now();
    // No other thread may begin to use a file that is about to be removed.
    let in_use = in_use();
    copies.retain(|copy| {
        let grace = if is_hidden(&copy.path) {
            UNFINISHED_GRACE
        } else {
            GRACE
        };
        let is_recent = now
            .duration_since(copy.used)
            .is_ok_and(|unused| unused < grace);
        !is_recent && !in_use.contains(&copy.path)
    });
    // Copies that other processes may read again are not removed in vain.
    let needed_bytes = total - bytes_of(&copies);
    if needed_bytes > limit_bytes {
        let message = format!(
            "{}: the local copies that this process needs take {needed_bytes} bytes, and the limit is {limit_bytes}: raise \
             it with WAVEMILL_CACHE_LIMIT, such as 200GiB",
            folder.display()
        );
        return Err(PlainError::usage(message).into());
    }

    copies.sort_by_key(|copy| copy.used);
    for copy in copies {
        if total <= limit_bytes {
            break;
        }
        remove(&copy.path)?;
        total -= copy.bytes;
    }
    Ok(())
}

fn bytes_of(copies: &[Copy]) -> u64 {
    copies.iter().map(|copy| copy.bytes).sum()
}

fn add_copies(folder: &Path, copies: &mut Vec<Copy>) -> Result<(), RemoteError> {
    for path in entries(folder)? {
        // Another process may remove a file at any time.
        let Ok(found) = fs::symlink_metadata(&path) else {
            continue;
        };
        if found.is_dir() {
            add_copies(&path, copies)?;
        } else {
            let used = match is_hidden(&path) {
                // `NewFile::finish` sets the time of modification. This one cannot be set.
                true => Ok(UNIX_EPOCH + Duration::from_secs(found.ctime().max(0) as u64)),
                false => found.accessed(),
            };
            copies.push(Copy {
                used: used.unwrap_or(SystemTime::UNIX_EPOCH),
                bytes: found.len(),
                path,
            });
        }
    }
    Ok(())
}

/// Removes files below a folder that killed processes have left unfinished. `now` is the current time. If a file cannot
/// be removed, it only takes space.
fn remove_unfinished(folder: &Path, now: SystemTime) {
    let mut copies = Vec::new();
    let _ = add_copies(folder, &mut copies);
    copies.retain(|copy| is_hidden(&copy.path));
    for Copy { used, path, .. } in copies {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // A writer may compute for long before it continues its file.
        let grace = match name.starts_with(UNFINISHED) {
            true => UNFINISHED_GRACE,
            false => GRACE,
        };
        let is_old = now.duration_since(used).is_ok_and(|unused| unused >= grace);
        if is_old && !is_locked(&path) {
            let _ = fs::remove_file(&path);
        }
    }
}

/// Reports whether a process holds the lock of a [`NewFile`] at `path`: it may wait for the network for long.
fn is_locked(path: &Path) -> bool {
    let locked = File::open(path).map(|file| file.try_lock());
    matches!(locked, Ok(Err(TryLockError::WouldBlock)))
}

/// Reports whether there is a copy of `file` at `path`. Its hash is only compared if `checks_hash` is set: a process
/// compares each copy once. A killed process may have left other bytes of the same length.
fn is_copy_of(path: &Path, file: &FileEntry, checks_hash: bool) -> bool {
    if !fs::metadata(path).is_ok_and(|copy| copy.len() == file.bytes) {
        return false;
    }
    !checks_hash || hash_file(path).is_ok_and(|hash| hash == file.blake3)
}

/// Sets the time of a copy's last use. Its time of modification is that of the object.
fn note_use(path: &Path) {
    // If this fails, the copy is only removed earlier.
    let now = FileTimes::new().set_accessed(SystemTime::now());
    let _ = File::open(path).and_then(|copy| copy.set_times(now));
}

/// Returns the paths in a folder, which need not exist.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, RemoteError> {
    let listed = if_there(fs::read_dir(folder)).map_err(RemoteError::copy_at(folder, "list"))?;
    let entries = listed.into_iter().flatten().flatten();
    Ok(entries.map(|entry| entry.path()).collect())
}

/// Removes a file or a folder that another process may have removed already.
fn remove(path: &Path) -> Result<(), RemoteError> {
    let removed = match path.is_dir() && !path.is_symlink() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    };
    let removed = if_there(removed).map_err(RemoteError::copy_at(path, "remove"));
    removed.map(drop)
}

/// A local copy that is being written, under another name. It is removed on drop unless it was finished.
pub(crate) struct NewFile {
    file: File,
    unfinished: TemporaryPath,
    path: PathBuf,
}

impl NewFile {
    /// Creates the copy, and its folder.
    pub(crate) fn create(path: &Path) -> Result<Self, RemoteError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let token = random_token();
        let unfinished = format!("{UNFINISHED}{token:016x}-{name}");
        let unfinished = TemporaryPath::new(path.with_file_name(unfinished));

        let folder = path.parent().unwrap_or(path);
        fs::create_dir_all(folder).map_err(RemoteError::copy_at(folder, "create"))?;
        let created = File::options()
            .write(true)
            .create_new(true)
            .open(&*unfinished);
        let file = created.map_err(RemoteError::copy_at(&unfinished, "create"))?;

        // Without locks, a copy may be removed that was not continued for long.
        let _ = file.try_lock();
        Ok(Self {
            file,
            unfinished,
            path: path.to_owned(),
        })
    }

    /// Appends a block.
    pub(crate) fn write(&mut self, block: &[u8]) -> Result<(), RemoteError> {
        let written = self.file.write_all(block);
        written.map_err(RemoteError::copy_at(&self.unfinished, "write"))
    }

    /// Makes the copy durable and gives it its name. Otherwise a power cut could leave a copy of the right length with
    /// other bytes.
    pub(crate) fn finish(self, modified: SystemTime) -> Result<(), RemoteError> {
        let finished = self
            .file
            .set_modified(modified)
            .and_then(|()| self.file.sync_all());
        // The copies of objects below this name may have left an empty folder.
        let _ = fs::remove_dir(&self.path);
        let finished = finished.and_then(|()| fs::rename(&*self.unfinished, &self.path));
        finished.map_err(RemoteError::copy_at(&self.path, "write"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Creates a copy of 10 bytes that was last used `hours` hours ago.
    fn copy(folder: &Path, name: &str, hours: u64) -> PathBuf {
        let path = folder.join("store/data/plan").join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("room");
        fs::write(&path, [0; 10]).expect("room");
        let used = SystemTime::now() - Duration::from_secs(hours * 3600);
        let file = File::open(&path).expect("a file");
        file.set_times(FileTimes::new().set_accessed(used))
            .expect("the owner of the file");
        path
    }

    #[test]
    fn files_of_the_user_are_neither_counted_nor_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let (cache, elsewhere) = (folder.path().join("cache"), folder.path().join("other"));
        let theirs = [copy(&cache, "old", 100), copy(&elsewhere, "old", 100)];
        std::os::unix::fs::symlink(elsewhere.join("store"), cache.join("link")).expect("room");
        fs::write(elsewhere.join("store").join(MARK), "").expect("room");

        make_room(&cache, 50, 50).expect("room");
        let error = mark(&cache, "s3://music/store").expect_err("a folder with other files");
        assert!(error.to_string().contains("WAVEMILL_CACHE"), "{error}");
        let link = cache.join("link");
        mark(&link, "s3://music/store").expect_err("a link to a folder elsewhere");
        assert_eq!(theirs.map(|file| file.exists()), [true, true]);

        let ours = cache.join("store");
        mark(&ours, "s3://music/store").expect("the layout of copies");
        mark(&ours, "s3://music/store").expect("a mark");
        make_room(&cache, 50, 50).expect("room");
        assert!(!ours.join("data/plan/old").exists());

        // The user's file has the name of the mark.
        let named = copy(&cache, "named", 100);
        fs::write(cache.join("store").join(MARK), "my copies\n").expect("room");
        make_room(&cache, 50, 50).expect("room");
        assert!(named.exists());
    }

    #[test]
    fn processes_may_mark_one_folder_at_the_same_time() {
        let folder = tempfile::tempdir().expect("a folder");
        for at in 0..500 {
            let root = folder.path().join(at.to_string());
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| mark(&root, "s3://music/store").expect("a new folder"));
                }
            });
            // A process was killed before it wrote the text.
            fs::write(root.join(MARK), "").expect("room");
            mark(&root, "s3://music/store").expect("an unfinished mark");
            assert!(is_marked(&root));
        }
    }

    #[test]
    fn folders_of_copies_are_no_links() {
        for name in ["data", "data/plan", "_wavemill", "_wavemill/versions"] {
            let folder = tempfile::tempdir().expect("a folder");
            let root = folder.path().join("store");
            mark(&root, "s3://music/store").expect("room");
            require_no_links(&root).expect("no link");
            let link = root.join(name);
            fs::create_dir_all(link.parent().expect("a parent")).expect("room");
            std::os::unix::fs::symlink(folder.path(), &link).expect("room");
            let error = require_no_links(&root).expect_err(name).to_string();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn copies_are_removed_in_the_order_of_their_last_use() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        mark(&folder.join("store"), "s3://music/store").expect("room");
        let [old, older, used, recent] = [
            copy(folder, "old", 32),
            copy(folder, "older", 33),
            copy(folder, "used", 34),
            copy(folder, "recent", 1),
        ];
        in_use().insert(used.clone());

        make_room(folder, 10, 50).expect("room");
        assert!(older.exists());
        make_room(folder, 20, 50).expect("room");
        assert!(!older.exists() && old.exists());
        let error = make_room(folder, 31, 50).expect_err("two files must stay");
        assert!(error.to_string().contains("needs take 51 bytes"), "{error}");
        assert!(old.exists() && used.exists() && recent.exists());

        make_room(folder, 30, 50).expect("room");
        assert!(!old.exists() && used.exists() && recent.exists());
    }

    #[test]
    fn unfinished_copies_have_another_name_and_are_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("data/file");
        let mut copy = NewFile::create(&path).expect("room");
        copy.write(b"half").expect("room");
        assert!(!path.exists());
        drop(copy);
        assert_eq!(
            entries(&folder.path().join("data"))
                .expect("a folder")
                .len(),
            0
        );

        let mut copy = NewFile::create(&path).expect("room");
        copy.write(b"whole").expect("room");
        copy.finish(UNIX_EPOCH).expect("room");
        assert_eq!(fs::read(&path).expect("a file"), b"whole");
        let modified = fs::metadata(&path).and_then(|copy| copy.modified());
        assert_eq!(modified.expect("a time"), UNIX_EPOCH);
    }

    #[test]
    fn files_that_killed_processes_left_are_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        let paths = [
            "data/plan/.copy-0123-file",
            "_wavemill/versions/.copy-0123-file",
            "_wavemill/receipts/plan/.file.0123.tmp",
            "data/plan/file",
        ]
        .map(|name| folder.join(name));
        for path in &paths {
            fs::create_dir_all(path.parent().expect("a folder")).expect("room");
            // A copy that is about to be renamed has the time of its object.
            let file = File::create(path).expect("room");
            file.set_modified(UNIX_EPOCH)
                .expect("the owner of the file");
        }

        let left_after = |minutes: u64| {
            let now = SystemTime::now() + Duration::from_secs(minutes * 60);
            remove_unfinished(folder, now);
            paths.each_ref().map(|path| path.exists())
        };
        assert_eq!(left_after(9), [true; 4]);
        assert_eq!(left_after(11), [false, false, true, true]);
        assert_eq!(left_after(25 * 60), [false, false, false, true]);
    }

    #[test]
    fn names_stay_within_their_folder() {
        for plain in ["a", "data/p/features/x/split=test/00000.parquet"] {
            assert!(is_plain(plain), "{plain}");
        }
        for other in ["../a", "/a", "a/../../b"] {
            assert!(!is_plain(other), "{other}");
        }
    }
}
