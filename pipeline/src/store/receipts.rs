//! Receipts: what an unfinished plan has finished, and which shards a later plan can link.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use wavemill_schemas::manifest::{Engine, Identity, ManifestError, OldReceipt, Receipt};

use super::commit::write_renamed;
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
        let path = self.receipts_folder(plan_id).join(PLAN_FILE);
        // A run of the same plan has written it already.
        if path.exists() {
            return Ok(());
        }
        write_renamed(&path, serde_json::to_string(plan)?.as_bytes())
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
        write_renamed(&path, serde_json::to_string(receipt)?.as_bytes())
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
        write_renamed(&path, serde_json::to_string(inputs)?.as_bytes())
    }

    /// The receipts of a plan, by feature and shard label. One that cannot be read is as good as none; one that names
    /// what is not in the store is somebody's doing.
    ///
    /// # Errors
    /// [`StoreError::Io`] when the folder is there but cannot be listed, [`StoreError::Receipt`].
    pub(crate) fn receipts(&self, plan_id: &str) -> Result<Receipts, StoreError> {
        let mut receipts = Receipts::new();
        for folder in list(&self.receipts_folder(plan_id))? {
            let Some(feature) = name_of(&folder).filter(|name| *name != SEEN_FOLDER) else {
                continue;
            };
            if !folder.is_dir() {
                continue;
            }
            for (label, receipt) in read_all(&folder, Receipt::from_json)? {
                receipts.insert((feature.to_owned(), label), receipt);
            }
        }
        Ok(receipts)
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
        for of_shard in read_all(&folder, from_json::<BTreeMap<String, InputSeen>>)?.into_values() {
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
            let plan = fs::read_to_string(path.join(PLAN_FILE))
                .ok()
                .and_then(|t| serde_json::from_str(&t).ok());
            plans.push((id.to_owned(), plan));
        }
        Ok(plans)
    }

    /// Whether any run has begun here.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(crate) fn begun_any(&self) -> Result<bool, StoreError> {
        Ok(!self.begun()?.is_empty())
    }

    /// Forgets a plan: its receipts first, so that no receipt ever names a missing file, then its data.
    pub(super) fn drop_plan(&self, plan_id: &str) -> Result<(), StoreError> {
        remove_folder(&self.receipts_folder(plan_id))?;

        // Out of the way in one step: a query that still reads the version sees its folder or none, and so can tell what
        // was removed from what is damaged. What a killed process leaves under this name goes with the next collection.
        let data = self.data(plan_id);
        let going = self.data(&format!("{plan_id}{GOING}"));
        let data = if fs::rename(&data, &going).is_ok() {
            going
        } else {
            data
        };
        remove_folder(&data)
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
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                // Behind a link nothing is a run's.
                if path.is_dir() && !path.is_symlink() {
                    folders.push(path);
                } else if name.starts_with('.') && name.ends_with(".tmp") {
                    fs::remove_file(&path).map_err(StoreError::io_at(&path, "remove"))?;
                }
            }
        }
        Ok(())
    }
}

/// Receipts by feature and shard label.
pub(crate) type Receipts = BTreeMap<(String, String), Receipt>;

/// The JSON files of a folder by their names, but for [`PLAN_FILE`]. One that is not understood is passed over.
fn read_all<T>(
    folder: &Path,
    from_json: impl Fn(&[u8]) -> Result<T, ManifestError>,
) -> Result<BTreeMap<String, T>, StoreError> {
    let mut found = BTreeMap::new();
    for path in list(folder)? {
        let Some(label) = name_of(&path).and_then(|name| name.strip_suffix(".json")) else {
            continue;
        };
        let is_other = label.starts_with('.') || path.ends_with(PLAN_FILE);
        let Some(bytes) = fs::read(&path).ok().filter(|_| !is_other) else {
            continue;
        };

        match from_json(&bytes) {
            Ok(content) => _ = found.insert(label.to_owned(), content),
            Err(source @ ManifestError::Name { .. }) => {
                return Err(StoreError::Receipt { path, source });
            }
            Err(_) => {}
        }
    }
    Ok(found)
}

fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ManifestError> {
    Ok(serde_json::from_slice(bytes)?)
}

fn name_of(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
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
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(StoreError::io_at(folder, "list the folder"))?,
    };
    let paths: Result<Vec<_>, _> = entries.map(|entry| entry.map(|e| e.path())).collect();
    let mut paths = paths.map_err(StoreError::io_at(folder, "list the folder"))?;
    paths.sort();
    Ok(paths)
}
