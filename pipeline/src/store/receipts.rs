//! Receipts: what an unfinished plan has finished, and which shards a later plan can link.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use wavemill_schemas::manifest::{
    Engine, Identity, ManifestError, OldReceipt, Receipt, from_sealed, sealed,
};

use super::commit::write_renamed;
use super::durable::{self, leads_nowhere};
use super::{Store, StoreError};
use crate::source::InputSeen;

/// What a plan that has begun says of itself, before its first shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlanRecord {
    /// What its id was made of.
    pub identity: Identity,
    /// In words.
    pub engine: Engine,
}

const PLAN_FILE: &str = "plan.json";
/// The folder, beside those of the features, of what was seen of each shard's inputs. No feature has a name like it.
const SEEN_FOLDER: &str = "_seen";
/// End of the name of a data folder that is being removed.
const GOING: &str = ".going";

impl Store {
    pub(super) fn receipts_folder(&self, plan_id: &str) -> PathBuf {
        self.root.join("_wavemill/receipts").join(plan_id)
    }

    /// Records that a plan has begun.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(crate) fn begin(&self, plan_id: &str, plan: &PlanRecord) -> Result<(), StoreError> {
        // A run of the same plan has written it already, unless what is there is damaged.
        if self.plan_record(plan_id)?.as_ref() == Some(plan) {
            return Ok(());
        }
        let path = self.receipts_folder(plan_id).join(PLAN_FILE);
        write_renamed(&path, sealed(&serde_json::to_string(plan)?).as_bytes())
    }

    /// Writes the receipt of a feature's file of the shard `label`. The file is durable already.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(crate) fn write_receipt(
        &self,
        plan_id: &str,
        label: &str,
        receipt: &Receipt,
    ) -> Result<(), StoreError> {
        let folder = self.receipts_folder(plan_id).join(receipt.file.name());
        let path = folder.join(format!("{label}.json"));
        write_renamed(&path, sealed(&serde_json::to_string(receipt)?).as_bytes())
    }

    /// Writes what was seen of the inputs of the shard `label`: before its receipts, because it tells whether they are
    /// still true.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(crate) fn write_seen(
        &self,
        plan_id: &str,
        label: &str,
        inputs: &BTreeMap<String, InputSeen>,
    ) -> Result<(), StoreError> {
        let folder = self.receipts_folder(plan_id).join(SEEN_FOLDER);
        let path = folder.join(format!("{label}.json"));
        write_renamed(&path, sealed(&serde_json::to_string(inputs)?).as_bytes())
    }

    /// Returns the receipts of a plan, by feature and shard label. A damaged one counts as none; one that names what is
    /// not in the store was edited on purpose.
    ///
    /// # Errors
    /// [`StoreError::Io`] if a folder or file is there but cannot be read, [`StoreError::Receipt`].
    pub(crate) fn receipts(&self, plan_id: &str) -> Result<Receipts, StoreError> {
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

    /// Returns the files beside a plan's receipts and the receipts themselves that are not what a run wrote. Receipts of
    /// formats 1 and 2 have no checksum.
    ///
    /// # Errors
    /// [`StoreError::Io`].
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

    /// The receipts of a plan of format 1 or 2; none for those of later formats.
    ///
    /// # Errors
    /// As [`Store::receipts`].
    pub(crate) fn old_receipts(&self, plan_id: &str) -> Result<Vec<OldReceipt>, StoreError> {
        let receipts = read_all(&self.receipts_folder(plan_id), OldReceipt::from_json)?;
        Ok(receipts.into_values().collect())
    }

    /// What runs of a plan saw of its inputs, by `clip_key`. It helps to save work, and no version depends on it: what is
    /// not understood tells nothing.
    ///
    /// # Errors
    /// As [`Store::receipts`].
    pub(crate) fn seen(&self, plan_id: &str) -> Result<BTreeMap<String, InputSeen>, StoreError> {
        let mut inputs = BTreeMap::new();
        for old in self.old_receipts(plan_id)? {
            for (clip_key, seen) in old.inputs {
                if let Ok(seen) = serde_json::from_value(seen) {
                    inputs.insert(clip_key, seen);
                }
            }
        }

        // Under the rule `segment` several shards name a clip, and all of them saw the same.
        let folder = self.receipts_folder(plan_id).join(SEEN_FOLDER);
        for of_shard in read_all(&folder, from_sealed::<BTreeMap<String, InputSeen>>)?.into_values()
        {
            inputs.extend(of_shard);
        }
        Ok(inputs)
    }

    /// Plans that have begun.
    pub(crate) fn begun(&self) -> Result<Vec<(String, Option<PlanRecord>)>, StoreError> {
        let folder = self.root.join("_wavemill/receipts");
        if self.root.is_file() {
            return Err(StoreError::NotAFolder {
                path: self.root.clone(),
            });
        }

        let mut plans = Vec::new();
        for path in list(&folder)? {
            let Some(id) = path.file_name().and_then(|s| s.to_str()) else {
                continue;
            };
            let plan = self.plan_record(id)?;
            plans.push((id.to_owned(), plan));
        }
        Ok(plans)
    }

    /// Returns what a plan says of itself; `None` if its file is absent or damaged.
    fn plan_record(&self, plan_id: &str) -> Result<Option<PlanRecord>, StoreError> {
        let bytes = read(&self.receipts_folder(plan_id).join(PLAN_FILE))?;
        Ok(bytes.and_then(|bytes| from_sealed(&bytes).ok()))
    }

    /// Whether any run has begun here.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(crate) fn begun_any(&self) -> Result<bool, StoreError> {
        Ok(!self.begun()?.is_empty())
    }

    /// Forgets a plan: its receipts first, so that no receipt ever names a missing file, then its data. Each removal is
    /// durable before the next begins.
    pub(super) fn drop_plan(&self, plan_id: &str) -> Result<(), StoreError> {
        let receipts = self.receipts_folder(plan_id);
        remove_folder(&receipts)?;
        sync_around(&receipts)?;

        // Out of the way in one step: a query that still reads the version sees its folder or none, and so can tell what
        // was removed from what is damaged. What a killed process leaves under this name goes with the next collection.
        let data = self.data(plan_id);
        let going = self.data(&format!("{plan_id}{GOING}"));
        let data = if fs::rename(&data, &going).is_ok() {
            going
        } else {
            data
        };
        remove_folder(&data)?;
        sync_around(&data)
    }

    /// Removes the temporary names of manifests that runs left which were killed while they committed. Does nothing in a
    /// store that this process cannot write.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Locked`] while another process writes the store.
    pub(crate) fn clear_manifest_temporaries(&self) -> Result<(), StoreError> {
        let mut left = list(&self.versions_folder())?;
        left.retain(|path| is_temporary(path));
        if left.is_empty() {
            return Ok(());
        }

        let _lock = self.try_lock()?;
        for path in left {
            match fs::remove_file(&path) {
                Err(error) if !leads_nowhere(&error) => {
                    return Err(StoreError::io_at(&path, "remove")(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes temporary files that a killed run left. Call it under the lock.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(crate) fn clear_temporaries(&self, plan_id: &str) -> Result<(), StoreError> {
        let mut folders = vec![
            self.data(plan_id),
            self.receipts_folder(plan_id),
            self.versions_folder(),
            self.tags_folder(),
        ];

        while let Some(folder) = folders.pop() {
            for path in list(&folder)? {
                // Behind a link nothing is a run's.
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

/// Receipts by feature and shard label.
pub(crate) type Receipts = BTreeMap<(String, String), Receipt>;

/// Reads the JSON files of a folder, but for [`PLAN_FILE`], by their names. A damaged one is skipped.
fn read_all<T>(
    folder: &Path,
    from_json: impl Fn(&[u8]) -> Result<T, ManifestError>,
) -> Result<BTreeMap<String, T>, StoreError> {
    let mut found = BTreeMap::new();
    for path in json_files(folder)? {
        let (Some(label), Some(bytes)) = (path.file_stem(), read(&path)?) else {
            continue;
        };
        match from_json(&bytes) {
            Ok(content) => _ = found.insert(label.to_string_lossy().into_owned(), content),
            Err(source @ ManifestError::Name { .. }) => {
                return Err(StoreError::Receipt { path, source });
            }
            Err(_) => {}
        }
    }
    Ok(found)
}

/// Returns the JSON files of a folder, but for [`PLAN_FILE`] and temporary files.
fn json_files(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let mut files = list(folder)?;
    files.retain(|path| {
        let label = name_of(path).and_then(|name| name.strip_suffix(".json"));
        label.is_some_and(|label| !label.starts_with('.')) && !path.ends_with(PLAN_FILE)
    });
    Ok(files)
}

/// Reads a file; `None` if there is none. A device or a pipe, which may have no end, counts as an empty file.
fn read(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    let bytes = fs::metadata(path).and_then(|found| match found.is_file() {
        true => fs::read(path),
        false => Ok(Vec::new()),
    });
    match bytes {
        Err(error) if leads_nowhere(&error) => Ok(None),
        read => Ok(Some(read.map_err(StoreError::io_at(path, "read"))?)),
    }
}

fn is_folder(path: &Path) -> Result<bool, StoreError> {
    match fs::metadata(path) {
        Err(error) if leads_nowhere(&error) => Ok(false),
        found => Ok(found.map_err(StoreError::io_at(path, "look at"))?.is_dir()),
    }
}

fn is_temporary(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with('.') && name.ends_with(".tmp")
}

fn name_of(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

/// Makes the removal of `path` durable, if its folder is there.
fn sync_around(path: &Path) -> Result<(), StoreError> {
    let folder = path.parent().unwrap_or(path);
    match durable::sync_folder(folder) {
        Err(error) if !leads_nowhere(&error) => {
            Err(StoreError::io_at(folder, "sync the folder")(error))
        }
        _ => Ok(()),
    }
}

fn remove_folder(folder: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(StoreError::io_at(folder, "remove the folder")(e))
        }
        _ => Ok(()),
    }
}

/// What lies in a folder, sorted; nothing where it is not there.
pub(super) fn list(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if leads_nowhere(&error) => return Ok(Vec::new()),
        other => other.map_err(StoreError::io_at(folder, "list the folder"))?,
    };
    let paths: Result<Vec<_>, _> = entries.map(|entry| entry.map(|e| e.path())).collect();
    let mut paths = paths.map_err(StoreError::io_at(folder, "list the folder"))?;
    paths.sort();
    Ok(paths)
}
