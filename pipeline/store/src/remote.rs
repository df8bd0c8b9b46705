//! Writing a store in an object store: files are written to local copies first, and sent in the order in which they
//! become durable in a folder. All functions do nothing for a store on this machine, unless stated otherwise.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{MutexGuard, PoisonError};

use wavemill_reader::{Purpose, StoreFolder, hash_file, leads_nowhere};
use wavemill_schemas::manifest::{FileEntry, Manifest, Receipt};

use super::durable::{remove_file, write_renamed};
use super::history::RUNS_FOLDER;
use super::planned::PLANS_FOLDER;
use super::receipts::SEEN_FOLDER;
use super::{Store, StoreError};

const RECEIPTS_FOLDER: &str = "_wavemill/receipts";

impl Store {
    /// Creates the handle of a store at a path or an address. It need not exist yet; this creates no folder of a store.
    ///
    /// # Errors
    /// [`StoreError::Remote`] if an object store cannot be read.
    pub fn find(place: &Path, purpose: Purpose) -> Result<Self, StoreError> {
        Ok(Self {
            folder: StoreFolder::find(place, purpose)?,
            ..Self::at(place)
        })
    }

    /// Returns the name of a path in the store, relative to the store.
    pub(super) fn name_in_store(&self, path: &Path) -> String {
        let name = path.strip_prefix(self.root()).unwrap_or(path);
        name.to_string_lossy().into_owned()
    }

    /// Copies the receipts of all plans, and keeps those that were not sent yet.
    pub fn pull_receipts(&self) -> Result<(), StoreError> {
        self.if_remote(|mirror| mirror.pull(RECEIPTS_FOLDER))
    }

    /// Makes the copies of all receipts equal to the objects. The caller must hold the store's exclusive lock.
    pub fn equalize_receipts(&self) -> Result<(), StoreError> {
        self.equalize(RECEIPTS_FOLDER)
    }

    /// Makes the copies of all receipts and plans equal to the objects.
    pub fn equalize_plans(&self) -> Result<(), StoreError> {
        self.equalize_receipts()?;
        self.equalize(PLANS_FOLDER)
    }

    /// Makes the copies of the files of a folder equal to the objects.
    fn equalize(&self, folder: &str) -> Result<(), StoreError> {
        self.if_remote(|mirror| mirror.equalize(folder))
    }

    /// Makes the copies of the records of runs equal to the objects.
    pub(super) fn pull_runs(&self) -> Result<(), StoreError> {
        self.equalize(RUNS_FOLDER)
    }

    /// Copies the receipts of a plan and the sizes of its files, which are then not asked for one by one.
    pub fn pull_plan(&self, plan_id: &str) -> Result<(), StoreError> {
        let Some(mirror) = self.mirror() else {
            return Ok(());
        };
        mirror.equalize(&format!("{RECEIPTS_FOLDER}/{plan_id}"))?;
        self.listed().has_receipts = true;
        self.list_sizes(plan_id)
    }

    /// Lists the sizes of the files of a plan, which are then not asked for one by one.
    pub fn list_sizes(&self, plan_id: &str) -> Result<(), StoreError> {
        self.if_remote(|mirror| {
            let found = mirror.remote().list(&format!("data/{plan_id}"))?;
            let sizes = found.into_iter().map(|found| (found.name, found.bytes));
            self.listed().sizes.extend(sizes);
            Ok(())
        })
    }

    fn listed(&self) -> MutexGuard<'_, Listed> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies the records of the inputs of a plan's shards `labels`.
    pub fn pull_seen(
        &self,
        plan_id: &str,
        labels: impl IntoIterator<Item = String>,
    ) -> Result<(), StoreError> {
        let Some(mirror) = self.mirror() else {
            return Ok(());
        };
        let folder = format!("{RECEIPTS_FOLDER}/{plan_id}/{SEEN_FOLDER}");
        let names = labels.into_iter();
        let names: Vec<String> = names
            .map(|label| format!("{folder}/{label}.json"))
            .collect();
        Ok(mirror.pull_files(&names)?)
    }

    /// Removes the copies of a plan's files that are not those in the object store now.
    pub(super) fn forget_changed(&self, plan_id: &str) -> Result<(), StoreError> {
        self.if_remote(|mirror| mirror.forget_changed(&format!("data/{plan_id}")))
    }

    /// Copies a file that other processes write, or removes the copy of a file that does not exist.
    pub(super) fn pull_file(&self, path: &Path) -> Result<(), StoreError> {
        self.if_remote(|mirror| mirror.pull_files(&[self.name_in_store(path)]))
    }

    /// Copies a receipt, unless all receipts of its plan were copied by [`Store::pull_plan`].
    pub(super) fn pull_unlisted(&self, path: &Path) -> Result<(), StoreError> {
        let is_listed = self.listed().has_receipts;
        match is_listed {
            true => Ok(()),
            false => self.pull_file(path),
        }
    }

    /// Sends files that were written.
    pub fn send(&self, paths: impl IntoIterator<Item = PathBuf>) -> Result<(), StoreError> {
        let files = paths.into_iter().map(|path| {
            let name = self.name_in_store(&path);
            (path, name)
        });
        self.if_remote(|mirror| mirror.remote().upload(files.collect()))
    }

    /// Sends a small file before its local copy is written: another process that opens the store may replace the copy
    /// by the object at any time.
    pub(super) fn send_text(&self, path: &Path, text: &str) -> Result<(), StoreError> {
        self.if_remote(|mirror| {
            let name = self.name_in_store(path);
            mirror.remote().put(&name, text.into())?;
            mirror.remote().require_written(&name, text.as_bytes())
        })
    }

    /// Checks that the server of an object store never replaces an object that it should create, such as a manifest.
    ///
    /// # Errors
    /// [`StoreError::Remote`] if it would.
    pub fn require_conditional_writes(&self) -> Result<(), StoreError> {
        self.if_remote(|mirror| mirror.remote().require_conditional_writes())
    }

    /// Sends those of the tables `entries` that are on this machine. The others were sent by the machine that planned.
    ///
    /// # Errors
    /// [`StoreError::Remote`]; [`StoreError::Io`] if a table cannot be read.
    pub fn send_tables<'e>(
        &self,
        entries: impl IntoIterator<Item = &'e FileEntry>,
    ) -> Result<(), StoreError> {
        if self.mirror().is_none() {
            return Ok(());
        }

        let mut paths = Vec::new();
        for entry in entries.into_iter().filter(|entry| entry.table.is_some()) {
            let path = self.root().join(&entry.path);
            match hash_file(&path) {
                Ok(hash) if hash == entry.blake3 => paths.push(path),
                // An earlier attempt has left another file.
                Ok(_) => {}
                Err(error) if leads_nowhere(&error) => {}
                Err(error) => return Err(StoreError::io_at(&path, "read")(error)),
            }
        }
        self.send(paths)
    }

    /// Removes objects below a folder.
    pub(super) fn remove_objects(&self, folder: &Path) -> Result<(), StoreError> {
        self.if_remote(|mirror| {
            let found = mirror.remote().list(&self.name_in_store(folder))?;
            let names: Vec<String> = found.into_iter().map(|found| found.name).collect();
            mirror.remote().delete(&names)
        })
    }

    /// Removes one object.
    pub(super) fn remove_object(&self, path: &Path) -> Result<(), StoreError> {
        self.if_remote(|mirror| mirror.remote().delete(&[self.name_in_store(path)]))
    }

    /// Copies a file again whose local copy has other content than the object should have. Returns false for a store on
    /// this machine.
    pub(super) fn copy_again(&self, entry: &FileEntry) -> Result<bool, StoreError> {
        if self.mirror().is_none() {
            return Ok(false);
        }
        // A copy that cannot be removed still has the other content.
        let _ = fs::remove_file(self.locate(&entry.path)?);
        self.fetch(&[entry])?;
        Ok(true)
    }

    /// Copies a file of another plan within the object store. Returns false for a store on this machine.
    pub(super) fn copy_object(&self, from: &str, to: &str) -> Result<bool, StoreError> {
        let Some(mirror) = self.mirror() else {
            return Ok(false);
        };
        mirror.remote().copy(from, to)?;
        // A worker that was killed may have left a file that would be sent with the receipt.
        remove_file(&self.root().join(to)).map(|_| true)
    }

    /// Returns the number of files that are best linked at the same time: an object store answers slowly, but copies
    /// many objects at once.
    pub fn links_at_once(&self) -> usize {
        if self.mirror().is_some() { 32 } else { 1 }
    }

    /// Reports whether an object has the size of its entry; `None` for a store on this machine.
    pub(super) fn has_object(&self, entry: &FileEntry) -> Result<Option<bool>, StoreError> {
        let Some(mirror) = self.mirror() else {
            return Ok(None);
        };
        let listed = self.listed().sizes.get(&entry.path).copied();
        let bytes = match listed {
            Some(bytes) => Some(bytes),
            None => mirror.remote().size(&entry.path)?,
        };
        Ok(Some(bytes == Some(entry.bytes)))
    }

    /// Creates an empty object. Returns false if it exists already, and `None` for a store on this machine.
    pub(super) fn put_mark(&self, path: &Path) -> Result<Option<bool>, StoreError> {
        let Some(mirror) = self.mirror() else {
            return Ok(None);
        };
        let put = mirror
            .remote()
            .put_absent(&self.name_in_store(path), Vec::new());
        Ok(Some(put?))
    }

    /// Reports whether an object exists; `None` for a store on this machine.
    pub(super) fn has_marked_object(&self, path: &Path) -> Result<Option<bool>, StoreError> {
        let Some(mirror) = self.mirror() else {
            return Ok(None);
        };
        let size = mirror.remote().size(&self.name_in_store(path))?;
        Ok(Some(size.is_some()))
    }

    /// Returns the receipt of the file of `receipt` that is in the object store now.
    ///
    /// # Errors
    /// [`StoreError::other_plan`] if another worker read other inputs.
    fn sent_receipt(
        &self,
        plan_id: &str,
        label: &str,
        receipt: &Receipt,
    ) -> Result<Option<Receipt>, StoreError> {
        let feature = receipt.file.name();
        self.pull_file(&self.receipt_path(plan_id, feature, label))?;
        match self.receipt(plan_id, feature, label)? {
            Some(theirs) if theirs.key != receipt.key => {
                self.remove_receipt(plan_id, feature, label)?;
                Err(self.inputs_changed(label))
            }
            theirs => Ok(theirs),
        }
    }

    /// Sends the file of a receipt and the record of its shard's inputs, and then the receipt, whose text is `text`.
    /// The local copy of the file is removed. If another worker has sent a receipt in the meantime, that one stays and
    /// is returned. Returns `None` for a store on this machine.
    pub(super) fn send_receipt(
        &self,
        plan_id: &str,
        label: &str,
        receipt: &Receipt,
        text: &str,
    ) -> Result<Option<Receipt>, StoreError> {
        let Some(mirror) = self.mirror() else {
            return Ok(None);
        };
        let file = self.root().join(&receipt.file.path);
        // A worker that is late must not replace an object that a version may name by now.
        if let Some(theirs) = self.sent_receipt(plan_id, label, receipt)?
            && self.holds(&theirs)?
        {
            // As below.
            let _ = fs::remove_file(file);
            return Ok(Some(theirs));
        }

        // A file that was copied from another plan is not on this machine.
        let mut written = Vec::new();
        for path in [file.clone(), self.seen_path(plan_id, label)] {
            if is_here(&path)? {
                written.push(path);
            }
        }
        self.send(written)?;

        let path = self.receipt_path(plan_id, receipt.file.name(), label);
        let name = self.name_in_store(&path);
        let remote = mirror.remote();
        if !remote.put_absent(&name, text.into())? {
            match self.sent_receipt(plan_id, label, receipt)? {
                Some(theirs) if theirs.file.blake3 == receipt.file.blake3 => {
                    // As below.
                    let _ = fs::remove_file(file);
                    return Ok(Some(theirs));
                }
                // Another worker sent other bytes for the same inputs. The receipt has to describe the object.
                _ => {
                    if is_here(&file)? {
                        self.send([file.clone()])?;
                    }
                    remote.put(&name, text.into())?;
                }
            }
        }
        write_renamed(&path, text.as_bytes())?;
        // The copy is not needed any more. If it cannot be removed, it only takes space.
        let _ = fs::remove_file(file);
        Ok(Some(receipt.clone()))
    }

    /// Commits a manifest, whose text is `text`, after sending the tables of its plan, and reads it back. Returns true
    /// if this call wrote it, and `None` for a store on this machine.
    pub(super) fn send_manifest(
        &self,
        version: u64,
        manifest: &Manifest,
        text: &str,
    ) -> Result<Option<bool>, StoreError> {
        let Some(mirror) = self.mirror() else {
            return Ok(None);
        };
        self.send_tables(&manifest.files)?;
        // The sizes that are known may be of files that were removed since.
        self.listed().sizes.clear();
        let problem = "not sent, or removed: repeat the command, which writes it again";
        self.require_files(manifest, problem)?;
        let name = self.name_in_store(&self.manifest_path(version));
        let is_ours = mirror.remote().put_absent(&name, text.into())?;
        if is_ours {
            mirror.remote().require_written(&name, text.as_bytes())?;
        }
        self.refresh()?;
        Ok(Some(is_ours))
    }
}

/// Reports whether a file exists on this machine.
fn is_here(path: &Path) -> Result<bool, StoreError> {
    path.try_exists().map_err(StoreError::io_at(path, "access"))
}

/// Facts about a plan that a process already read from an object store.
#[derive(Debug, Default)]
pub(super) struct Listed {
    /// Sizes of files, by their path in the store.
    sizes: HashMap<String, u64>,
    /// True if all receipts of the plan that is committed were copied.
    has_receipts: bool,
}
