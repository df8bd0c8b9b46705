//! Frees the disk space of old versions and of plans that were never committed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Serialize;
use wavemill_reader::{REMOVING_SUFFIX, is_of_plan, list};
use wavemill_schemas::manifest::Manifest;

use super::durable::{if_there, settle};
use super::history::RUNS_FOLDER;
use super::{Store, StoreError};

/// The data that garbage collection removed, or would remove without `dry_run`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GcReport {
    /// Versions whose data is removed. The manifests of these versions stay as history.
    pub versions: Vec<u64>,
    /// Plan folders that are removed, including those of unfinished plans.
    pub plans: Vec<String>,
    /// Total size in bytes of the files that lose their last name. A file that a kept version also links keeps its
    /// space.
    pub bytes: u64,
    /// Old versions that are kept only because of their tags.
    pub kept: Vec<KeptVersion>,
    /// Unfinished plans in an object store that are kept, because a worker on another machine may still write them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub recent: Vec<String>,
}

/// Age of the newest object of an unfinished plan from which the plan is removed. Workers on other machines hold no lock.
const GRACE: Duration = Duration::from_secs(24 * 3600);

/// An old version that is kept because of its tags.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeptVersion {
    /// Number of the version.
    pub version: u64,
    /// Tags that keep the version.
    pub tags: Vec<String>,
}

impl Store {
    /// Removes the data of unfinished plans and of all versions except the last `keep` and the tagged ones. Plans that
    /// `wavemill plan` wrote are kept as long as they can be committed. Keeps all manifests, so that the chain of versions stays readable. With `dry_run`, only reports the data that would be
    /// removed. In an object store, also keeps unfinished plans with an object younger than a day.
    ///
    /// # Errors
    /// [`StoreError`], including the errors of a damaged tag and of a version that is known but not listed. After these,
    /// nothing has been removed.
    pub fn collect(&self, keep: usize, dry_run: bool) -> Result<GcReport, StoreError> {
        self.require_no_links(None)?;
        self.equalize_plans()?;
        let hashes = self.known_manifests()?;
        let versions: Vec<u64> = hashes.keys().copied().collect();
        // The latest version always keeps its data.
        let first_kept = versions.len().saturating_sub(keep.max(1));
        let (old, recent) = versions.split_at(first_kept);

        let kept = self.kept_by_tags(old)?;
        let tagged = kept.iter().map(|kept| kept.version);
        let mut kept_plans = BTreeSet::new();
        for version in recent.iter().copied().chain(tagged) {
            let (_, manifest) = self.manifest(Some(version))?;
            kept_plans.extend(self.plans_behind_links(&manifest)?);
            kept_plans.insert(manifest.plan_id);
        }

        let mut collected = GcReport {
            kept,
            ..GcReport::default()
        };
        let mut committed = BTreeSet::new();
        for &version in old {
            let (_, manifest) = self.manifest(Some(version))?;
            if self.has_data(&manifest)? && !kept_plans.contains(&manifest.plan_id) {
                collected.versions.push(version);
            }
            committed.insert(manifest.plan_id);
        }

        // A plan that follows the latest version can still be committed; one that follows an older version cannot.
        let latest = self.latest()?;
        let latest_hash = latest.as_ref().map(|latest| &latest.hash);
        for plan_id in self.planned_ids()? {
            let record = self.plan_record(&plan_id)?;
            if record.is_some_and(|record| record.identity.parent.as_ref() == latest_hash) {
                kept_plans.insert(plan_id);
            }
        }

        // List folders on the disk instead of versions, because a plan that was never committed has no version.
        collected.plans = self.plan_folders()?;
        // In an object store, a collection that was killed has left a mark beside the rest of the data.
        for plan_id in &mut collected.plans {
            if self.remote().is_some()
                && let Some(half_removed) = plan_id.strip_suffix(REMOVING_SUFFIX)
                && latest
                    .as_ref()
                    .is_none_or(|latest| latest.manifest.plan_id != half_removed)
            {
                kept_plans.remove(half_removed);
                committed.insert(half_removed.to_owned());
                *plan_id = half_removed.to_owned();
            }
        }
        collected.plans.sort_unstable();
        collected.plans.dedup();
        collected
            .plans
            .retain(|plan_id| !kept_plans.contains(plan_id));

        self.keep_recent(&mut collected, &committed)?;

        // Count all names before the first removal: two removed plans may share a file that no kept plan has.
        let mut names = FileNames::default();
        for plan_id in &collected.plans {
            names.add(&self.data(plan_id));
            names.add(&self.planned_folder(plan_id));
            names.add(&self.receipts_folder(plan_id));
        }
        // Objects have no second name, and their sizes were added already.
        if self.remote().is_none() {
            collected.bytes = names.freed_bytes();
        }

        if !dry_run {
            // A list that was wrong once is rarely wrong in the same way again.
            if self.known_manifests()? != hashes || self.kept_by_tags(old)? != collected.kept {
                let problem = "versions or tags were added or removed meanwhile, and nothing was removed: run gc again";
                return Err(StoreError::other_plan(self.place(), problem.to_owned()));
            }

            for plan_id in &collected.plans {
                self.drop_plan(plan_id, committed.contains(plan_id))?;
            }
            // A collection that was killed may have removed names that are still on the disk.
            for folder in ["data", "_wavemill/plans", "_wavemill/receipts"] {
                settle(&self.root().join(folder))?;
            }
        }
        Ok(collected)
    }

    /// Returns the hashes of all manifests by version, after checking that they include every version that is known from
    /// the records of runs and from plans that follow a version.
    fn known_manifests(&self) -> Result<BTreeMap<u64, String>, StoreError> {
        let recorded = self.recorded_version()?;
        let begun = self.begun()?;
        // Versions and tags that were added meanwhile are kept as well.
        self.refresh_all()?;
        let hashes = self.manifest_hashes()?;

        let lost = |path: PathBuf, witness: &str| {
            let problem = format!(
                "lost, although {witness} names this version: restore it from a copy of the store, or remove that too if \
                 you removed the version"
            );
            Err(StoreError::damaged(path, problem))
        };
        if let Some(version) = recorded.filter(|version| !hashes.contains_key(version)) {
            return lost(self.manifest_path(version), RUNS_FOLDER);
        }
        for (plan_id, record) in begun {
            let parent = record.and_then(|record| record.identity.parent);
            if parent.is_some_and(|parent| !hashes.values().any(|hash| *hash == parent)) {
                let witness = format!("_wavemill/receipts/{plan_id}");
                return lost(self.versions_folder(), &witness);
            }
        }
        Ok(hashes)
    }

    /// Adds the sizes of the objects that are removed, and keeps the unfinished plans that may still be written.
    /// `committed` are the plans of old versions.
    fn keep_recent(
        &self,
        collected: &mut GcReport,
        committed: &BTreeSet<String>,
    ) -> Result<(), StoreError> {
        let Some(remote) = self.remote() else {
            return Ok(());
        };

        let now = SystemTime::now();
        for plan_id in std::mem::take(&mut collected.plans) {
            let mut objects = Vec::new();
            for folder in ["data", "_wavemill/plans", "_wavemill/receipts"] {
                objects.extend(remote.list(&format!("{folder}/{plan_id}"))?);
            }

            // The clocks of this machine and of the object store may differ: a time in the future counts as now.
            let is_recent = objects.iter().any(|object| {
                let age = now.duration_since(object.modified);
                age.unwrap_or_default() < GRACE
            });
            if is_recent && !committed.contains(&plan_id) {
                collected.recent.push(plan_id);
                continue;
            }
            collected.bytes += objects.iter().map(|object| object.bytes).sum::<u64>();
            collected.plans.push(plan_id);
        }
        Ok(())
    }

    /// Returns the plans whose folders contain targets of a version's symbolic links. Deduplication tools create such
    /// links.
    fn plans_behind_links(&self, manifest: &Manifest) -> Result<Vec<String>, StoreError> {
        let Some(data) = real_path(&self.root().join("data"))? else {
            return Ok(Vec::new());
        };

        let mut plans = Vec::new();
        for file in &manifest.files {
            // A file that is already lost does not keep any plan.
            let real = real_path(&self.root().join(&file.path))?;
            let below = real
                .as_deref()
                .and_then(|real| real.strip_prefix(&data).ok());
            let plan = below.and_then(|below| below.iter().next()?.to_str());
            plans.extend(plan.map(str::to_owned));
        }
        Ok(plans)
    }

    /// Returns the versions among `old` that have tags.
    fn kept_by_tags(&self, old: &[u64]) -> Result<Vec<KeptVersion>, StoreError> {
        let mut tags = self.tags()?;
        // A damaged tag is an error, because it is unknown which version the tag should keep.
        if !tags.damaged.is_empty() {
            return Err(tags.damaged.swap_remove(0));
        }

        let mut kept = Vec::new();
        for &version in old {
            let tags = tags.of_version(version);
            if !tags.is_empty() {
                kept.push(KeptVersion { version, tags });
            }
        }
        Ok(kept)
    }

    fn plan_folders(&self) -> Result<Vec<String>, StoreError> {
        // List both folders: an interrupted removal leaves data without receipts, perhaps under another name.
        let mut ids: Vec<String> = self.begun()?.into_iter().map(|(id, _)| id).collect();
        ids.extend(self.planned_ids()?);
        for path in list(&self.root().join("data"))? {
            ids.extend(
                path.file_name()
                    .and_then(|id| id.to_str())
                    .map(str::to_owned),
            );
        }
        ids.retain(|id| is_of_plan(id));
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }
}

/// Resolves the symbolic links of a path. Returns `None` if the path does not exist.
fn real_path(path: &Path) -> Result<Option<PathBuf>, StoreError> {
    if_there(path, "access", path.canonicalize())
}

/// Counts the names of the files in the removed folders. New versions link unchanged files, so the space of a file is
/// freed only with its last name.
#[derive(Debug, Default)]
struct FileNames {
    /// Files by device and inode.
    files: BTreeMap<(u64, u64), NamedFile>,
}

#[derive(Debug)]
struct NamedFile {
    bytes: u64,
    /// Number of names of the file on the whole file system.
    names: u64,
    /// Number of names of the file that are removed.
    going: u64,
}

impl FileNames {
    /// Counts the names of the file at `path`, or of all files below it if it is a folder.
    fn add(&mut self, path: &Path) {
        // Links are removed, not followed. An unreadable path counts as 0 bytes; its removal will report the error.
        let Ok(metadata) = fs::symlink_metadata(path) else {
            return;
        };
        if metadata.is_dir() {
            for entry in fs::read_dir(path).into_iter().flatten().flatten() {
                self.add(&entry.path());
            }
            return;
        }

        let file = self
            .files
            .entry((metadata.dev(), metadata.ino()))
            .or_insert(NamedFile {
                bytes: metadata.len(),
                names: metadata.nlink(),
                going: 0,
            });
        file.going += 1;
    }

    /// Returns the total size of the files that lose all their names.
    fn freed_bytes(&self) -> u64 {
        let files = self.files.values();
        let freed = files.filter(|file| file.going >= file.names);
        freed.map(|file| file.bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_is_freed_with_its_last_link() {
        let root = tempfile::tempdir().expect("a folder");
        let root = root.path();
        for folder in ["kept", "old/a", "older"] {
            fs::create_dir_all(root.join(folder)).expect("a folder");
        }

        fs::write(root.join("old/a/own"), [0; 1]).expect("room");
        fs::write(root.join("old/a/shared"), [0; 10]).expect("room");
        fs::hard_link(root.join("old/a/shared"), root.join("older/shared")).expect("a link");
        fs::write(root.join("old/linked"), [0; 100]).expect("room");
        fs::hard_link(root.join("old/linked"), root.join("kept/linked")).expect("a link");
        fs::write(root.join("kept/own"), [0; 1000]).expect("room");

        for (folders, want) in [
            (&["old"][..], 1),
            (&["older"], 0),
            (&["old", "older"], 11),
            (&["old", "older", "kept"], 1111),
            (&["nowhere"], 0),
        ] {
            let mut names = FileNames::default();
            for folder in folders {
                names.add(&root.join(folder));
            }
            assert_eq!(names.freed_bytes(), want, "{folders:?}");
        }
    }
}
