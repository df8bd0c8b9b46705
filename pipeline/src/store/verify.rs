//! Every byte of a version against its manifest, and the manifest against what its files say.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use wavemill_schemas::manifest::{FileEntry, Manifest, OldReceipt};

use super::compare::{self, FileFacts};
use super::resume::hash_file;
use super::stats::finish_stats;
use super::{Store, StoreError};

/// The last format without a checksum: what the files do not tell is compared with receipts.
const LAST_WITHOUT_CHECKSUM: u32 = 1;

/// One damaged file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Damage {
    /// Below the store.
    pub path: String,
    /// What is wrong with it.
    pub problem: String,
}

/// The result of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct VerifyReport {
    /// Files read.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Empty: all is well.
    pub damage: Vec<Damage>,
}

impl Store {
    /// Reads every file of a version on `threads` threads, compares length and blake3, and then the manifest with what
    /// the files say: classes, shapes, feature ids, row groups, and every sum.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Receipt`]: the store's folders or receipts cannot be read.
    pub(crate) fn verify(
        &self,
        version: u64,
        manifest: &Manifest,
        threads: usize,
    ) -> Result<VerifyReport, StoreError> {
        let (mut damage, told) = self.read_files(manifest, threads);
        damage.extend(self.strangers(manifest)?);

        // With a file missing no sum is right: the file is what is named.
        if damage.is_empty() {
            // Only now does `told` have an entry for each file, in the manifest's order, as `whole` needs it.
            let mut wrong = compare::whole(manifest, &told);
            wrong.extend(self.other_stats(manifest)?);
            let path = format!("_wavemill/versions/{version:08}.json");
            damage.extend(wrong.into_iter().map(|problem| Damage {
                path: path.clone(),
                problem,
            }));
        }

        damage.sort();
        let bytes = manifest.files.iter().map(|f| f.bytes).sum();
        Ok(VerifyReport {
            files: manifest.files.len(),
            bytes,
            damage,
        })
    }

    /// What is wrong with each file, and what the others say, in the manifest's order.
    fn read_files(&self, manifest: &Manifest, threads: usize) -> (Vec<Damage>, Vec<FileFacts>) {
        // Threads take files in turn; afterwards they are put back into the manifest's order.
        let next = AtomicUsize::new(0);
        let read = Mutex::new(Vec::with_capacity(manifest.files.len()));
        std::thread::scope(|scope| {
            for _ in 0..threads.max(1) {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let Some(entry) = manifest.files.get(number) else {
                            break;
                        };
                        let told = self.read_file(entry, manifest);
                        read.lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .push((number, told));
                    }
                });
            }
        });

        let mut read = read.into_inner().unwrap_or_else(PoisonError::into_inner);
        read.sort_by_key(|(number, _)| *number);
        let mut damage = Vec::new();
        let mut all_told = Vec::with_capacity(read.len());
        for (number, told) in read {
            match told {
                Ok(told) => all_told.push(told),
                Err(problem) => damage.push(Damage {
                    path: manifest.files[number].path.clone(),
                    problem,
                }),
            }
        }
        (damage, all_told)
    }

    /// What one file says; else what is wrong with it.
    fn read_file(&self, entry: &FileEntry, manifest: &Manifest) -> Result<FileFacts, String> {
        let path = self
            .locate(&entry.path)
            .map_err(|error| error.to_string())?;
        match fs::metadata(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err("missing".to_owned()),
            Err(e) => return Err(format!("cannot be read: {e}")),
            Ok(m) if m.len() != entry.bytes => {
                return Err(format!("{} bytes, not {}", m.len(), entry.bytes));
            }
            Ok(_) => {}
        }

        let hash = hash_file(&path).map_err(|error| format!("cannot be read: {error}"))?;
        if hash != entry.blake3 {
            return Err("other bytes (blake3 differs)".to_owned());
        }
        // Parquet's reader believes some numbers of a footer; with the right hash it may be anybody's.
        catch_unwind(AssertUnwindSafe(|| compare::file(&path, entry, manifest)))
            .unwrap_or_else(|_| Err("not a readable Parquet file: its reader panicked".to_owned()))
    }

    /// Parquet files in the plan's folder that the manifest does not name: a glob over the folder would read them.
    fn strangers(&self, manifest: &Manifest) -> Result<Vec<Damage>, StoreError> {
        let files = manifest.files.iter();
        let named: BTreeSet<&str> = files.map(|file| file.path.as_str()).collect();

        let mut found = Vec::new();
        let mut folders = vec![self.data(&manifest.plan_id)];
        while let Some(folder) = folders.pop() {
            for path in super::receipts::list(&folder)? {
                // A link is not followed: it may lead back to where it is.
                if path.is_dir() && !path.is_symlink() {
                    folders.push(path);
                    continue;
                }
                let name = path
                    .strip_prefix(&self.root)
                    .unwrap_or(&path)
                    .to_string_lossy();
                if is_visible_parquet(&path) && !named.contains(&*name) {
                    let problem = "not a file of this version: move it away".to_owned();
                    found.push(Damage {
                        path: name.into_owned(),
                        problem,
                    });
                }
            }
        }
        Ok(found)
    }

    /// Without a checksum nothing guards the statistics but the sums in the receipts, where those are there. What is
    /// wrong, a sentence each.
    fn other_stats(&self, manifest: &Manifest) -> Result<Vec<String>, StoreError> {
        if manifest.format_version > LAST_WITHOUT_CHECKSUM {
            return Ok(Vec::new());
        }

        let receipts = self.old_receipts(&manifest.plan_id)?;
        let mut wrong = Vec::new();
        for feature in &manifest.features {
            let files = manifest.files_of(&feature.name);
            let of_files: Option<Vec<&OldReceipt>> = files
                .map(|file| {
                    let mut receipts = receipts.iter();
                    receipts.find(|receipt| receipt.files.contains(file))
                })
                .collect();
            // Receipts are no part of a version. Where one is missing, nobody can tell.
            let Some(of_files) = of_files else { continue };

            let partials = of_files
                .iter()
                .filter_map(|receipt| receipt.partials.get(&feature.name))
                .flatten();
            if finish_stats(partials).as_ref() != manifest.stats.get(&feature.name) {
                wrong.push(format!(
                    "stats of {} and the sums in the receipts differ",
                    feature.name
                ));
            }
        }
        Ok(wrong)
    }
}

/// Whether other readers' globs would take it for data.
fn is_visible_parquet(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with(".parquet") && !name.starts_with('.')
}
