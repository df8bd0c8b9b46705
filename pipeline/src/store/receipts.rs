//! Receipts: what an unfinished plan has finished, and which shards a later plan can link.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use wavemill_schemas::manifest::{Engine, Identity, ManifestError, Receipt};

use super::commit::write_renamed;
use super::{Store, StoreError};

/// What a plan that has begun says of itself, before its first shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlanRecord {
    /// What its id was made of.
    pub identity: Identity,
    /// In words.
    pub engine: Engine,
}

const PLAN_FILE: &str = "plan.json";
/// End of the name of a data folder that is being removed.
const GOING: &str = ".going";

impl Store {
    fn receipts_folder(&self, plan_id: &str) -> PathBuf {
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

    /// Writes a shard's receipt. Its files are durable already.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(crate) fn write_receipt(
        &self,
        plan_id: &str,
        label: &str,
        receipt: &Receipt,
    ) -> Result<(), StoreError> {
        let path = self.receipts_folder(plan_id).join(format!("{label}.json"));
        write_renamed(&path, serde_json::to_string(receipt)?.as_bytes())
    }

    /// The receipts of a plan by shard label. One that cannot be read is as good as none; one that names what is not in
    /// the store is somebody's doing.
    ///
    /// # Errors
    /// [`StoreError::Io`] when the folder is there but cannot be listed, [`StoreError::Receipt`].
    pub(crate) fn receipts(&self, plan_id: &str) -> Result<BTreeMap<String, Receipt>, StoreError> {
        let mut receipts = BTreeMap::new();
        for path in json_files(&self.receipts_folder(plan_id))? {
            let Some(label) = path.file_stem().and_then(|s| s.to_str()) else {
                continue;
            };
            let Ok(bytes) = fs::read(&path) else { continue };

            match Receipt::from_json(&bytes) {
                Ok(receipt) => _ = receipts.insert(label.to_owned(), receipt),
                Err(source @ ManifestError::Name { .. }) => {
                    return Err(StoreError::Receipt { path, source });
                }
                Err(_) => {}
            }
        }
        Ok(receipts)
    }

    /// Plans that have receipts.
    pub(super) fn begun(&self) -> Result<Vec<(String, Option<PlanRecord>)>, StoreError> {
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

/// All receipts of all plans by shard key: what a new plan may link instead of computing.
///
/// # Errors
/// [`StoreError::Io`].
pub(crate) fn linked_key(
    store: &Store,
    except: &str,
) -> Result<BTreeMap<String, Receipt>, StoreError> {
    let mut by_key = BTreeMap::new();
    for (plan_id, _) in store.begun()? {
        if plan_id == except {
            continue;
        }
        for receipt in store.receipts(&plan_id)?.into_values() {
            // Several plans may have a shard of one key. Any of them will do, because their bytes are equal.
            by_key.insert(receipt.key.clone(), receipt);
        }
    }
    Ok(by_key)
}

fn json_files(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let mut paths = list(folder)?;
    paths.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.ends_with(".json") && !name.starts_with('.') && name != PLAN_FILE
    });
    Ok(paths)
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
