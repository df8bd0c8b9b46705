//! Gives back the space of old versions and of plans that were never committed.

use std::fs;
use std::path::Path;

use serde::Serialize;

use super::{Store, StoreError};

/// What was, or would be, removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct GcReport {
    /// Versions whose data goes; their manifests stay as history.
    pub versions: Vec<u64>,
    /// Plan folders that go, unfinished ones among them.
    pub plans: Vec<String>,
    /// Bytes of their files. Files that a kept version links keep their space.
    pub bytes: u64,
}

impl Store {
    /// Removes the data of all but the last `keep` versions, and of unfinished plans. Manifests stay: the chain of
    /// versions remains readable. `dry_run`: only says what would go.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn collect(&self, keep: usize, dry_run: bool) -> Result<GcReport, StoreError> {
        let versions = self.versions()?;
        // The latest version always keeps its data.
        let first_kept = versions.len().saturating_sub(keep.max(1));
        let mut kept = Vec::new();
        for &version in &versions[first_kept..] {
            kept.push(self.manifest(Some(version))?.1.plan_id);
        }

        let mut collected = GcReport::default();
        for &version in &versions[..first_kept] {
            let plan_id = self.manifest(Some(version))?.1.plan_id;
            if !kept.contains(&plan_id) && self.data(&plan_id).exists() {
                collected.versions.push(version);
            }
        }

        // By what lies on the disk and not by versions, because a plan that was never committed has none.
        for plan_id in self.plan_folders()? {
            if kept.contains(&plan_id) {
                continue;
            }
            collected.bytes += folder_bytes(&self.data(&plan_id));
            if !dry_run {
                self.drop_plan(&plan_id)?;
            }
            collected.plans.push(plan_id);
        }
        Ok(collected)
    }

    fn plan_folders(&self) -> Result<Vec<String>, StoreError> {
        // Both places are listed: a removal that was cut off leaves data without receipts, perhaps under another name.
        let mut ids: Vec<String> = self.begun()?.into_iter().map(|(id, _)| id).collect();
        let entries = fs::read_dir(self.root.join("data"))
            .into_iter()
            .flatten()
            .flatten();
        ids.extend(entries.filter_map(|e| e.file_name().into_string().ok()));
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }
}

fn folder_bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => folder_bytes(&entry.path()),
        _ => entry.metadata().map_or(0, |m| m.len()),
    });
    sizes.sum()
}
