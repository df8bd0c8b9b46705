//! Verifies every byte of a version against its manifest, and the manifest against the content of its files.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use serde::Serialize;
use wavemill_reader::{LINK_PROBLEM, RemoteError, hash_file, list};
use wavemill_runtime::panics;
use wavemill_runtime::parallel::in_parts;
use wavemill_schemas::exit;
use wavemill_schemas::manifest::{FileEntry, Manifest};

use super::compare::{self, FileFacts};
use super::{Store, StoreError};

/// A damaged file of a version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Damage {
    /// Path of the file relative to the store.
    pub path: String,
    /// Description of the damage.
    pub problem: String,
}

/// The result of verifying a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Number of files read.
    pub files: usize,
    /// Total size of the files in bytes.
    pub bytes: u64,
    /// The damaged files. Empty if the version is intact.
    pub damage: Vec<Damage>,
}

impl Store {
    /// Reads every file of a version on `threads` threads and compares its length and blake3. Then compares the
    /// manifest with the content of the files: classes, shapes, feature ids, row groups, shard numbers, statistics, and
    /// all sums. Compares receipts and tags with their checksums.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the store's folders or receipts cannot be read.
    pub fn verify(
        &self,
        version: u64,
        manifest: &Manifest,
        threads: usize,
    ) -> Result<VerifyReport, StoreError> {
        self.fetch_again(manifest)?;
        for entry in &manifest.files {
            let path = self.root().join(&entry.path);
            // A file of another user is not damaged.
            if path.is_file()
                && let Err(error) = File::open(&path)
                && exit::is_denied(&error)
            {
                return Err(StoreError::io_at(&path, "read")(error));
            }
        }
        let (mut damage, facts) = self.read_files(manifest, threads);
        damage.extend(self.strangers(manifest)?);
        for path in self.links(Some(&manifest.plan_id))? {
            damage.push(Damage {
                path: self.name_in_store(&path),
                problem: LINK_PROBLEM.to_owned(),
            });
        }
        let mut receipts = Vec::new();
        for path in self.damaged_receipts(&manifest.plan_id)? {
            receipts.push(Damage {
                path: self.name_in_store(&path),
                problem: "the content does not match its checksum: remove this record of a run"
                    .to_owned(),
            });
        }

        // If a file is missing, all sums are wrong. Only the missing file is reported then.
        if damage.is_empty() {
            // Without damage, `facts` has facts of each file in the manifest's order, as `whole` requires.
            let wrong = compare::whole(manifest, &facts);
            let path = format!("_wavemill/versions/{version:08}.json");
            damage.extend(wrong.into_iter().map(|problem| Damage {
                path: path.clone(),
                problem,
            }));
        }

        damage.extend(receipts);
        for error in self.tags()?.damaged {
            // A tag of a version that is gone has the right bytes.
            if let StoreError::Tag {
                path,
                problem,
                is_content: true,
            } = error
            {
                let path = self.name_in_store(&path);
                damage.push(Damage { path, problem });
            }
        }
        damage.sort();
        let bytes = manifest.files.iter().map(|f| f.bytes).sum();
        Ok(VerifyReport {
            files: manifest.files.len(),
            bytes,
            damage,
        })
    }

    /// Copies the files of an object store that are not copied, or that changed since.
    fn fetch_again(&self, manifest: &Manifest) -> Result<(), StoreError> {
        self.forget_changed(&manifest.plan_id)?;
        let files: Vec<&FileEntry> = manifest.files.iter().collect();
        match self.fetch(&files) {
            // Each damaged file is named when it is read.
            Err(StoreError::Remote(RemoteError::Damaged { .. })) => Ok(()),
            fetched => fetched,
        }
    }

    /// Returns the damaged files, and the facts of the sound files in the manifest's order.
    fn read_files(&self, manifest: &Manifest, threads: usize) -> (Vec<Damage>, Vec<FileFacts>) {
        let files = &manifest.files;
        let Ok(read) = in_parts(threads, files.len(), |number| {
            Ok::<_, Infallible>(self.read_file(&files[number], manifest))
        });

        let mut damage = Vec::new();
        let mut all_facts = Vec::with_capacity(read.len());
        for (file, facts) in files.iter().zip(read) {
            match facts {
                Ok(facts) => all_facts.push(facts),
                Err(problem) => damage.push(Damage {
                    path: file.path.clone(),
                    problem,
                }),
            }
        }
        (damage, all_facts)
    }

    /// Returns the facts read from one file, or a description of the file's damage.
    fn read_file(&self, entry: &FileEntry, manifest: &Manifest) -> Result<FileFacts, String> {
        let path = self.file(entry).map_err(|error| error.to_string())?;
        match fs::metadata(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err("missing".to_owned()),
            Err(e) => return Err(format!("cannot be read: {e}")),
            Ok(m) if m.len() != entry.bytes => {
                return Err(format!("{} bytes instead of {}", m.len(), entry.bytes));
            }
            Ok(_) => {}
        }

        let hash = || hash_file(&path).map_err(|error| format!("cannot be read: {error}"));
        let mut is_same = hash()? == entry.blake3;
        // The local copy of an object may be damaged although the object is not.
        if !is_same && self.copy_again(entry).map_err(|error| error.to_string())? {
            is_same = hash()? == entry.blake3;
        }
        if !is_same {
            return Err("different content (blake3 differs)".to_owned());
        }
        if !has_footer(&path, entry).map_err(|error| format!("cannot be read: {error}"))? {
            return Err("the file's footer differs from files.footer (blake3)".to_owned());
        }
        // The Parquet reader trusts some numbers in a footer, and a matching hash does not make them right.
        panics::caught(|| compare::file(&path, entry, manifest))
            .unwrap_or_else(|_| Err("not a readable Parquet file: its reader panicked".to_owned()))
    }

    /// Checks the page locations of a file whose content was verified, because Parquet readers rely on them. Returns
    /// `None` if they are right. An edited manifest with recomputed checksums can name any file.
    pub fn page_fault(&self, entry: &FileEntry) -> Option<String> {
        let path = self.root().join(&entry.path);
        panics::caught(|| compare::pages(&path))
            .unwrap_or_else(|_| Err("not a readable Parquet file: its reader panicked".to_owned()))
            .err()
    }

    /// Returns Parquet files in the plan's folder that the manifest does not contain. A glob over the folder would read
    /// them.
    fn strangers(&self, manifest: &Manifest) -> Result<Vec<Damage>, StoreError> {
        let files = manifest.files.iter();
        let named: BTreeSet<&str> = files.map(|file| file.path.as_str()).collect();

        let mut found = Vec::new();
        let mut folders = vec![self.data(&manifest.plan_id)];
        while let Some(folder) = folders.pop() {
            for path in list(&folder)? {
                // Links are not followed, because a link may point to one of its parent folders.
                if path.is_dir() && !path.is_symlink() {
                    folders.push(path);
                    continue;
                }
                let name = self.name_in_store(&path);
                if is_visible_parquet(&path) && !named.contains(&*name) {
                    let problem = "not a file of this version: move it away".to_owned();
                    found.push(Damage {
                        path: name,
                        problem,
                    });
                }
            }
        }
        Ok(found)
    }
}

/// Reports whether the globs of other readers would match the file as data.
fn is_visible_parquet(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with(".parquet") && !name.starts_with('.')
}

/// Reports whether the page index and footer match the manifest. Returns true if the manifest has no hash of them.
///
/// # Errors
/// An I/O error if the file cannot be read.
pub fn has_footer(path: &Path, entry: &FileEntry) -> io::Result<bool> {
    let Some(footer) = &entry.footer else {
        return Ok(true);
    };
    let Some(length) = entry.bytes.checked_sub(footer.offset) else {
        return Ok(false);
    };
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(footer.offset))?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file.take(length))?;
    Ok(hasher.finalize().to_hex().as_str() == footer.blake3)
}
