//! A store on disk: versions, receipts, and the commit by which a version comes into existence.
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
mod planned;
mod receipts;
mod remote;
mod resume;
mod tags;
mod verify;

use std::collections::HashSet;
use std::fs::{File, TryLockError};
use std::io;
use std::ops::Deref;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use remote::Listed;

pub use diff::{Change, Diff, named_parts};
pub use gc::GcReport;
pub use history::{VersionContent, VersionLine};
pub use planned::{BLOCK_SHARDS, Claims, PlannedClip, PlannedShard};
pub use receipts::{PlanRecord, Receipts};
pub use resume::{Decision, VersionInputs, is_lost};
pub use tags::{TagReport, Tags};
pub use verify::has_footer;
/// The version that precedes a new version.
pub use wavemill_reader::CommittedVersion as Parent;
use wavemill_reader::Mirror;
pub use wavemill_reader::{
    Purpose, RemoteError, StoreError, StoreFolder, StorePlace, encloses, leads_nowhere, traffic,
};

/// Time between two attempts to take a lock that another process holds.
const LOCK_RETRY: Duration = Duration::from_millis(100);

/// A store that can be written: its versions, which [`StoreFolder`] reads, and the plans of its runs.
#[derive(Clone, Debug)]
pub struct Store {
    folder: StoreFolder,
    /// Paths and hashes of the files whose blake3 was verified. A run checks the parent's files several times but reads
    /// each file only once for this.
    sound: Arc<Mutex<HashSet<(String, String)>>>,
    /// Facts about a plan that were already read from an object store.
    listed: Arc<Mutex<Listed>>,
}

impl Deref for Store {
    type Target = StoreFolder;

    fn deref(&self) -> &StoreFolder {
        &self.folder
    }
}

/// The other holders that a store's lock excludes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Excludes everyone: for planning, commits and garbage collection.
    Exclusive,
    /// Excludes only exclusive holders: for workers of a plan, which may run side by side, and for tags.
    Shared,
}

/// The lock of a store. The lock is released on drop, and also if the process is killed.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Store {
    /// Opens an existing store with at least one version.
    pub fn open(place: &Path) -> Result<Self, StoreError> {
        Ok(Self {
            folder: StoreFolder::open(place)?,
            ..Self::at(place)
        })
    }

    /// Creates the handle of a store that may not exist yet. Creates no folder before the first write.
    pub fn at(root: &Path) -> Self {
        Self {
            folder: StoreFolder::at(root),
            sound: Arc::default(),
            listed: Arc::default(),
        }
    }

    /// Creates the store's folders and takes its lock. While another process holds the lock, retries for up to `wait`
    /// or until `is_stopped` returns true.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if the lock is not free in time; [`StoreError::Io`] if a folder cannot be created;
    /// [`StoreError::Damaged`] if a folder of the store is a symbolic link; [`StoreError::Remote`] if the list of versions
    /// in an object store lacks one.
    pub fn lock(
        &self,
        access: Access,
        wait: Duration,
        is_stopped: impl Fn() -> bool,
    ) -> Result<Lock, StoreError> {
        let start = Instant::now();
        loop {
            match self.try_lock(access) {
                Err(StoreError::Locked { .. }) if start.elapsed() < wait && !is_stopped() => {
                    std::thread::sleep(LOCK_RETRY.min(wait - start.elapsed().min(wait)));
                }
                Ok(lock) => {
                    // On an object store, the lock only excludes processes of this machine.
                    self.refresh_all()?;
                    return Ok(lock);
                }
                other => return other,
            }
        }
    }

    /// Takes the store's lock like [`Store::lock`], but without waiting.
    fn try_lock(&self, access: Access) -> Result<Lock, StoreError> {
        self.require_no_links(None)?;
        let root = self.folder.mirror().map(Mirror::lock_root);
        let folder = root.unwrap_or_else(|| self.root().to_owned());
        let folder = folder.join("_wavemill");
        durable::make_folder(&folder)?;

        // The lock file is kept after unlocking: two processes that each create a new file would hold different locks.
        let path = folder.join("lock");
        // NFS grants a shared lock only for a file that is open for reading, and an exclusive one only for writing.
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(StoreError::io_at(&path, "create"))?;
        let take = || match access {
            Access::Exclusive => file.try_lock(),
            Access::Shared => file.try_lock_shared(),
        };
        let mut locked = take();
        // Unlike `read`, `try_lock` does not repeat a call that a signal interrupted.
        while matches!(&locked, Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Interrupted)
        {
            locked = take();
        }
        match locked {
            Ok(()) => Ok(Lock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StoreError::Locked {
                path: self.place().to_owned(),
            }),
            // The file system has no locks, so the run continues without one. The commit itself is still put-if-absent.
            Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Unsupported => {
                Ok(Lock { _file: file })
            }
            Err(TryLockError::Error(e)) => Err(StoreError::io_at(&path, "lock")(e)),
        }
    }
}
