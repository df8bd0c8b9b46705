//! Every byte of a version against its manifest.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use wavemill_schemas::manifest::Manifest;

use super::Store;
use super::resume::hash_file;

/// One damaged file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Damage {
    /// Below the store.
    pub path: String,
    /// What is wrong with it.
    pub problem: String,
}

/// The result of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Files read.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Empty: all is well.
    pub damage: Vec<Damage>,
}

impl Store {
    /// Reads every file of a version on `threads` threads and compares length and blake3.
    #[must_use]
    pub fn verify(&self, manifest: &Manifest, threads: usize) -> Verified {
        let next = AtomicUsize::new(0);
        let damage = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..threads.max(1) {
                scope.spawn(|| {
                    while let Some(entry) = manifest.files.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if let Some(problem) = self.problem(&entry.path, entry.bytes, &entry.blake3) {
                            let damaged = Damage { path: entry.path.clone(), problem };
                            damage.lock().unwrap_or_else(PoisonError::into_inner).push(damaged);
                        }
                    }
                });
            }
        });
        let mut damage = damage.into_inner().unwrap_or_else(PoisonError::into_inner);
        damage.sort();
        let bytes = manifest.files.iter().map(|f| f.bytes).sum();
        Verified { files: manifest.files.len(), bytes, damage }
    }

    fn problem(&self, path: &str, bytes: u64, blake3: &str) -> Option<String> {
        let full = self.root.join(path);
        match fs::metadata(&full) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Some("missing".to_owned()),
            Err(e) => return Some(format!("cannot be read: {e}")),
            Ok(m) if m.len() != bytes => return Some(format!("{} bytes, not {bytes}", m.len())),
            Ok(_) => {}
        }
        match hash_file(&full) {
            Err(e) => Some(format!("cannot be read: {e}")),
            Ok(hash) => (hash != blake3).then(|| "other bytes (blake3 differs)".to_owned()),
        }
    }
}
