//! Finds symbolic links in the place of a store's own files. What is written or removed through them belongs to somebody
//! else.

use std::path::PathBuf;

use wavemill_schemas::manifest::PLAN_ID_DIGITS;

use crate::{REMOVING_SUFFIX, StoreError, StoreFolder, list};

/// Problem with a link in a store, and its remedy.
pub const LINK_PROBLEM: &str = "a symbolic link: replace it with the files themselves";

impl StoreFolder {
    /// Returns the symbolic links among the store's own folders, the folders of plans, manifests, tags and records of runs.
    /// With `plan_id`, adds those below the folders of that plan, except for data files: deduplication tools replace them by
    /// links, and [`StoreFolder::locate`] checks where these lead.
    ///
    /// # Errors
    /// [`StoreError::Io`] if a folder exists but cannot be read.
    pub fn links(&self, plan_id: Option<&str>) -> Result<Vec<PathBuf>, StoreError> {
        let mut links = Vec::new();
        let mut paths = vec![self.root().join("data"), self.root().join("_wavemill")];
        while let Some(path) = paths.pop() {
            let below = path.strip_prefix(self.root()).unwrap_or(&path);
            let names: Vec<_> = below.iter().map(|name| name.to_string_lossy()).collect();
            let is_data = names[0] == "data";
            // Other folders beside those of plans are the user's.
            if is_data && names.len() == 2 && !is_of_plan(&names[1]) {
                continue;
            }

            let is_folder = path.is_dir();
            let is_own = names.iter().any(|name| Some(&**name) == plan_id);
            let is_shallow = names.len() == 1 || !is_data && names.len() == 2;
            if path.is_symlink() {
                if is_folder || !is_data || names.len() < 3 {
                    links.push(path);
                }
            } else if is_folder && (is_own || is_shallow) {
                paths.extend(list(&path)?);
            }
        }
        Ok(links)
    }

    /// Checks that there are no [links](StoreFolder::links).
    ///
    /// # Errors
    /// [`StoreError::Damaged`] for one of the links, and [`StoreError::Io`].
    pub fn require_no_links(&self, plan_id: Option<&str>) -> Result<(), StoreError> {
        let Some(link) = self.links(plan_id)?.pop() else {
            return Ok(());
        };
        let name = link.strip_prefix(self.root()).unwrap_or(&link);
        let problem = format!("damaged store: {}: {LINK_PROBLEM}", name.display());
        Err(StoreError::damaged(self.place().to_owned(), problem))
    }
}

/// Reports whether a folder's name is the id of a plan, or of one that is being removed. All other folders are the user's.
pub fn is_of_plan(name: &str) -> bool {
    let id = name.strip_suffix(REMOVING_SUFFIX).unwrap_or(name);
    id.len() == PLAN_ID_DIGITS && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_in_place_of_own_folders_and_files_are_found() {
        let plan = "0123456789abcdef";
        for (name, needs_plan) in [
            ("data", false),
            ("data/0123456789abcdef", false),
            ("data/0123456789abcdef.going", false),
            ("data/0123456789abcdef/features/x", true),
            ("_wavemill", false),
            ("_wavemill/lock", false),
            ("_wavemill/runs", false),
            ("_wavemill/runs/1-2.jsonl", false),
            ("_wavemill/tags", false),
            ("_wavemill/tags/paper", false),
            ("_wavemill/versions/00000001.json", false),
            ("_wavemill/plans", false),
            ("_wavemill/plans/0123456789abcdef/claims", true),
            ("_wavemill/receipts/0123456789abcdef", false),
            (
                "_wavemill/receipts/0123456789abcdef/x/training-00000.json",
                true,
            ),
        ] {
            let folder = tempfile::tempdir().expect("a folder");
            let (root, other) = (folder.path().join("store"), folder.path().join("other"));
            fs::create_dir_all(other.join("x/y")).expect("folders");
            let link = root.join(name);
            fs::create_dir_all(link.parent().expect("a parent")).expect("folders");
            symlink(&other, &link).expect("a link");

            let store = StoreFolder::at(&root);
            let found = store.links(Some(plan)).expect(name);
            assert_eq!(found, std::slice::from_ref(&link), "{name}");
            let found = store.links(None).expect(name);
            assert_eq!(found.is_empty(), needs_plan, "{name}");
            let error = store.require_no_links(Some(plan)).expect_err(name);
            let told = format!("{name}: {LINK_PROBLEM}");
            assert!(error.to_string().contains(&told), "{error}");
        }
    }

    #[test]
    fn links_of_the_user_and_to_data_files_stay() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        let data = root.join("data/0123456789abcdef/features/x");
        fs::create_dir_all(&data).expect("folders");
        fs::create_dir_all(root.join("_wavemill/versions")).expect("folders");
        for link in ["data/latest", "notes"] {
            symlink("elsewhere", root.join(link)).expect("a link");
        }
        symlink("elsewhere", data.join("00000.parquet")).expect("a link");
        let links = StoreFolder::at(root).links(Some("0123456789abcdef"));
        assert_eq!(links.expect("folders"), [] as [PathBuf; 0]);
    }
}
