//! Receipts: records of the shards that a plan has finished, so that it can resume and later plans can link its shards.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use wavemill_reader::{REMOVING_SUFFIX, list, read_plain};
use wavemill_schemas::input::InputSeen;
use wavemill_schemas::manifest::{Engine, Identity, ManifestError, Receipt, from_sealed, sealed};

use super::durable::{
    if_there, is_temporary, put_absent, remove_file, remove_folder, settle, sync_around,
    write_renamed,
};
use super::{Access, Store, StoreError};

/// Description of a plan, which a run writes when the plan begins, before its first shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanRecord {
    /// Hashes of the plan's parts, from which the plan's id is computed.
    pub identity: Identity,
    /// The engine that computes the features, in readable form.
    pub engine: Engine,
}

const PLAN_FILE: &str = "plan.json";
/// Folder of the records of each shard's inputs, next to the folders of the features. No feature can have this name.
pub(super) const SEEN_FOLDER: &str = "_seen";
/// Name of the only object in a data folder that is being removed; see [`REMOVING_SUFFIX`].
const REMOVAL_MARK: &str = "mark";

impl Store {
    pub(super) fn receipts_folder(&self, plan_id: &str) -> PathBuf {
        self.root().join("_wavemill/receipts").join(plan_id)
    }

    /// Writes the record which states that a plan has begun.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the record cannot be written.
    pub fn begin(&self, plan_id: &str, plan: &PlanRecord) -> Result<(), StoreError> {
        // An earlier run of the same plan may have written the record already. A damaged record is written again.
        if self.plan_record(plan_id)?.as_ref() == Some(plan) {
            return Ok(());
        }
        let path = self.receipts_folder(plan_id).join(PLAN_FILE);
        write_renamed(&path, sealed(&serde_json::to_string(plan)?).as_bytes())?;
        self.send([path])
    }

    /// Returns the path of the record of the inputs of the shard `label`.
    pub(super) fn seen_path(&self, plan_id: &str, label: &str) -> PathBuf {
        let folder = self.receipts_folder(plan_id).join(SEEN_FOLDER);
        folder.join(format!("{label}.json"))
    }

    pub(super) fn receipt_path(&self, plan_id: &str, feature: &str, label: &str) -> PathBuf {
        let folder = self.receipts_folder(plan_id).join(feature);
        folder.join(format!("{label}.json"))
    }

    /// Writes the receipt for a feature's file in the shard `label`. The file must already be durable. If another
    /// worker has written a receipt for the file in the meantime, that receipt stays and is returned.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the receipt cannot be written; [`StoreError::other_plan`] if the other worker read other
    /// inputs.
    pub fn write_receipt(
        &self,
        plan_id: &str,
        label: &str,
        receipt: Receipt,
    ) -> Result<Receipt, StoreError> {
        let path = self.receipt_path(plan_id, receipt.file.name(), label);
        let text = sealed(&serde_json::to_string(&receipt)?);
        if let Some(receipt) = self.send_receipt(plan_id, label, &receipt, &text)? {
            return Ok(receipt);
        }
        if put_absent(&path, text.as_bytes())? {
            return Ok(receipt);
        }

        // Both workers wrote the file. Usually the bytes are equal; if they are not, the receipt has to describe those
        // that were renamed last.
        match self.receipt(plan_id, receipt.file.name(), label)? {
            Some(theirs) if theirs.key != receipt.key => {
                // The record of the inputs is that of one of the two workers. Without a receipt, the file is written
                // again.
                self.remove_receipt(plan_id, receipt.file.name(), label)?;
                Err(self.inputs_changed(label))
            }
            Some(theirs) if self.holds(&theirs)? => Ok(theirs),
            _ => {
                write_renamed(&path, text.as_bytes())?;
                Ok(receipt)
            }
        }
    }

    /// Returns the error for a shard of which workers of one plan read different inputs.
    pub(crate) fn inputs_changed(&self, label: &str) -> StoreError {
        let problem = format!("an input of shard {label} changed after it was read: plan again");
        StoreError::other_plan(self.place(), problem)
    }

    /// Returns the receipt for a feature's file in the shard `label`; `None` if there is none or it is damaged.
    pub fn receipt(
        &self,
        plan_id: &str,
        feature: &str,
        label: &str,
    ) -> Result<Option<Receipt>, StoreError> {
        read_one(
            &self.receipt_path(plan_id, feature, label),
            Receipt::from_json,
        )
    }

    /// Returns the receipt for a feature's file in the shard `label` if the file has the length that the receipt
    /// states. The contents of the file are not read.
    pub fn receipt_with_file(
        &self,
        plan_id: &str,
        feature: &str,
        label: &str,
    ) -> Result<Option<Receipt>, StoreError> {
        self.pull_unlisted(&self.receipt_path(plan_id, feature, label))?;
        match self.receipt(plan_id, feature, label)? {
            Some(receipt) if self.has_entry(&receipt.file)? => Ok(Some(receipt)),
            _ => Ok(None),
        }
    }

    /// Removes the receipt for a feature's file in the shard `label`, so that the file is written again. Does nothing
    /// if there is none.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the receipt cannot be removed.
    pub fn remove_receipt(
        &self,
        plan_id: &str,
        feature: &str,
        label: &str,
    ) -> Result<(), StoreError> {
        let path = self.receipt_path(plan_id, feature, label);
        self.remove_object(&path)?;
        match remove_file(&path)? {
            // Otherwise the receipt could reappear after a power failure, although its file was written again.
            Some(()) => sync_around(&path),
            None => Ok(()),
        }
    }

    /// Records the state of the inputs of the shard `label`. This record is written before the shard's receipts,
    /// because a later run needs it to decide whether the receipts are still valid.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the record cannot be written.
    pub fn write_seen(
        &self,
        plan_id: &str,
        label: &str,
        inputs: &BTreeMap<String, InputSeen>,
    ) -> Result<(), StoreError> {
        let path = self.seen_path(plan_id, label);
        write_renamed(&path, sealed(&serde_json::to_string(inputs)?).as_bytes())
    }

    /// Returns the receipts of a plan, by feature and shard label. Skips damaged receipts. A receipt that names a file
    /// outside the store was edited on purpose and is an error.
    ///
    /// # Errors
    /// [`StoreError::Io`] if a folder or file exists but cannot be read, and [`StoreError::Damaged`].
    pub fn receipts(&self, plan_id: &str) -> Result<Receipts, StoreError> {
        let mut receipts = Receipts::new();
        for (feature, folder) in self.receipt_folders(plan_id)? {
            for (label, receipt) in read_all(&folder, Receipt::from_json)? {
                receipts.insert((feature.clone(), label), receipt);
            }
        }
        Ok(receipts)
    }

    /// Returns the folders of a plan's receipts, each with the name of its feature.
    fn receipt_folders(&self, plan_id: &str) -> Result<Vec<(String, PathBuf)>, StoreError> {
        let mut folders = Vec::new();
        for folder in list(&self.receipts_folder(plan_id))? {
            let feature = name_of(&folder).filter(|name| *name != SEEN_FOLDER);
            if let Some(feature) = feature.map(str::to_owned)
                && is_folder(&folder)?
            {
                folders.push((feature, folder));
            }
        }
        Ok(folders)
    }

    /// Returns the files among a plan's receipts and records whose content is damaged.
    ///
    /// # Errors
    /// [`StoreError::Io`] if a file cannot be read.
    pub(super) fn damaged_receipts(&self, plan_id: &str) -> Result<Vec<PathBuf>, StoreError> {
        let root = self.receipts_folder(plan_id);
        let mut damaged = Vec::new();
        let mut look = |folder: &Path, is_sound: &dyn Fn(&[u8]) -> bool| {
            for path in json_files(folder)? {
                if read(&path)?.is_some_and(|bytes| !is_sound(&bytes)) {
                    damaged.push(path);
                }
            }
            Ok::<_, StoreError>(())
        };

        look(&root.join(SEEN_FOLDER), &|bytes| {
            from_sealed::<BTreeMap<String, InputSeen>>(bytes).is_ok()
        })?;
        for (_, folder) in self.receipt_folders(plan_id)? {
            look(&folder, &|bytes| Receipt::from_json(bytes).is_ok())?;
        }

        let plan = root.join(PLAN_FILE);
        if read(&plan)?.is_some_and(|bytes| from_sealed::<PlanRecord>(&bytes).is_err()) {
            damaged.push(plan);
        }
        Ok(damaged)
    }

    /// Returns the state of a plan's inputs as recorded by its runs, by `clip_key`. The records only save work and no
    /// version depends on them, so a record that cannot be parsed is ignored.
    pub fn seen(&self, plan_id: &str) -> Result<BTreeMap<String, InputSeen>, StoreError> {
        let mut inputs = BTreeMap::new();
        // Under the rule `segment` several shards contain the same clip, and all recorded the same state of its file.
        let folder = self.receipts_folder(plan_id).join(SEEN_FOLDER);
        for receipts_of_shard in
            read_all(&folder, from_sealed::<BTreeMap<String, InputSeen>>)?.into_values()
        {
            inputs.extend(receipts_of_shard);
        }
        Ok(inputs)
    }

    /// Returns the recorded state of the inputs of the shard `label`, by `clip_key`; it is empty without a record.
    pub fn seen_of_shard(
        &self,
        plan_id: &str,
        label: &str,
    ) -> Result<BTreeMap<String, InputSeen>, StoreError> {
        let seen = read_one(&self.seen_path(plan_id, label), from_sealed)?;
        Ok(seen.unwrap_or_default())
    }

    /// Returns the ids of the plans that have begun, each with its record.
    pub fn begun(&self) -> Result<Vec<(String, Option<PlanRecord>)>, StoreError> {
        let folder = self.root().join("_wavemill/receipts");
        self.require_folder()?;

        let mut plans = Vec::new();
        for path in list(&folder)? {
            // A file is the user's.
            let Some(id) = path
                .file_name()
                .and_then(|s| s.to_str())
                .filter(|_| path.is_dir())
            else {
                continue;
            };
            let plan = self.plan_record(id)?;
            plans.push((id.to_owned(), plan));
        }
        Ok(plans)
    }

    /// Returns the record of a plan, or `None` if its file is missing or damaged.
    pub(super) fn plan_record(&self, plan_id: &str) -> Result<Option<PlanRecord>, StoreError> {
        let bytes = read(&self.receipts_folder(plan_id).join(PLAN_FILE))?;
        Ok(bytes.and_then(|bytes| from_sealed(&bytes).ok()))
    }

    /// Removes a plan: first what workers read, then its receipts, so that no receipt ever names a missing file, then
    /// its data. Each removal is durable before the next one begins. `was_committed` is true for the plan of a version.
    pub(super) fn drop_plan(&self, plan_id: &str, was_committed: bool) -> Result<(), StoreError> {
        let receipts = self.receipts_folder(plan_id);
        for folder in [self.planned_folder(plan_id), receipts] {
            self.remove_objects(&folder)?;
            remove_folder(&folder)?;
            sync_around(&folder)?;
        }

        // Rename the folder in one step first: a query that still reads the version then finds the whole folder or
        // none, and can distinguish removed data from damaged data. If the process is killed, the next collection
        // removes the folder.
        let data = self.data(plan_id);
        let going = self.data(&format!("{plan_id}{REMOVING_SUFFIX}"));
        // In an object store, a mark says the same. A plan that was never committed may begin again, and needs none.
        if was_committed {
            self.put_mark(&going.join(REMOVAL_MARK))?;
        }
        self.remove_objects(&data)?;
        self.remove_objects(&going)?;

        remove_folder(&going)?;
        if fs::rename(&data, &going).is_ok() {
            // Without the sync, a power failure could undo the rename of a folder that is already half empty.
            sync_around(&going)?;
        }
        for folder in [data, going] {
            remove_folder(&folder)?;
            sync_around(&folder)?;
        }
        Ok(())
    }

    /// Makes the names of all manifests durable: the process that committed the last version may have been killed
    /// before it did so.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the folder cannot be synced.
    pub fn settle_manifests(&self) -> Result<(), StoreError> {
        settle(&self.versions_folder())
    }

    /// Removes temporary manifest files left by runs that were killed while committing. Does nothing if there are none,
    /// so that a read-only store needs no lock.
    ///
    /// # Errors
    /// [`StoreError::Io`] if a file cannot be removed; [`StoreError::Locked`] while another process writes the store.
    pub fn clear_manifest_temporaries(&self) -> Result<(), StoreError> {
        let mut left = list(&self.versions_folder())?;
        left.retain(|path| is_temporary(path));
        if left.is_empty() {
            return Ok(());
        }

        let _lock = self.try_lock(Access::Exclusive)?;
        for path in left {
            remove_file(&path)?;
        }
        Ok(())
    }

    /// Removes temporary files left by a killed run. The caller must hold the store's lock.
    ///
    /// # Errors
    /// [`StoreError::Io`] if a file cannot be removed.
    pub fn clear_temporaries(&self, plan_id: &str) -> Result<(), StoreError> {
        let mut folders = vec![
            self.data(plan_id),
            self.planned_folder(plan_id),
            self.receipts_folder(plan_id),
            self.versions_folder(),
            self.tags_folder(),
        ];

        while let Some(folder) = folders.pop() {
            for path in list(&folder)? {
                // Links to folders are not followed: their targets were not written by a run.
                if path.is_dir() && !path.is_symlink() {
                    folders.push(path);
                } else if is_temporary(&path) {
                    fs::remove_file(&path).map_err(StoreError::io_at(&path, "remove"))?;
                }
            }
        }
        Ok(())
    }
}

/// Receipts of a plan by feature and shard label.
pub type Receipts = BTreeMap<(String, String), Receipt>;

/// Reads the JSON files of a folder except [`PLAN_FILE`], by file stem. Skips damaged files.
fn read_all<T>(
    folder: &Path,
    from_json: impl Fn(&[u8]) -> Result<T, ManifestError>,
) -> Result<BTreeMap<String, T>, StoreError> {
    let mut found = BTreeMap::new();
    for path in json_files(folder)? {
        if let (Some(label), Some(content)) = (path.file_stem(), read_one(&path, &from_json)?) {
            found.insert(label.to_string_lossy().into_owned(), content);
        }
    }
    Ok(found)
}

/// Reads one JSON file; `None` if it does not exist or is damaged.
fn read_one<T>(
    path: &Path,
    from_json: impl Fn(&[u8]) -> Result<T, ManifestError>,
) -> Result<Option<T>, StoreError> {
    let Some(bytes) = read(path)? else {
        return Ok(None);
    };
    match from_json(&bytes) {
        Ok(content) => Ok(Some(content)),
        Err(source @ ManifestError::Name { .. }) => Err(StoreError::Damaged {
            path: path.to_owned(),
            problem: "damaged receipt: remove it, and its shard is computed again".to_owned(),
            source: Some(source),
        }),
        Err(_) => Ok(None),
    }
}

/// Returns the JSON files of a folder except [`PLAN_FILE`] and temporary files.
fn json_files(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let mut files = list(folder)?;
    files.retain(|path| {
        let label = name_of(path).and_then(|name| name.strip_suffix(".json"));
        label.is_some_and(|label| !label.starts_with('.')) && !path.ends_with(PLAN_FILE)
    });
    Ok(files)
}

/// Reads a file; `None` if it does not exist. A link, a pipe or a device is treated as an empty file.
fn read(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    if_there(path, "read", read_plain(path))
}

fn is_folder(path: &Path) -> Result<bool, StoreError> {
    let found = if_there(path, "access", fs::metadata(path))?;
    Ok(found.is_some_and(|found| found.is_dir()))
}

fn name_of(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}
