//! Caches compiled kernels between runs, in a private folder of files with checksums.
//!
//! The cache only saves time: if anything is wrong with it, kernels are compiled again.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::PathBuf;

use rustix::process::geteuid;

/// Returns the 128-bit FNV-1a hash of `parts`, each preceded by its length, so that different divisions have different
/// hashes. Source: Fowler, Noll, Vo, "The FNV Non-Cryptographic Hash Algorithm" (IETF draft). It detects damage only;
/// users with write access to the folder are trusted.
pub(super) fn hash<const N: usize>(parts: [&[u8]; N]) -> u128 {
    const OFFSET_BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

    let mut hash = OFFSET_BASIS;
    for part in parts {
        let length = (part.len() as u64).to_le_bytes();
        for byte in length.iter().chain(part) {
            hash = (hash ^ u128::from(*byte)).wrapping_mul(PRIME);
        }
    }
    hash
}

/// A cache folder that no other user can read or write.
pub(super) struct Cache(PathBuf);

impl Cache {
    /// Opens `wavemill/kernels` in `$XDG_CACHE_HOME`, or in `~/.cache` by default; `None` if the folder cannot be used.
    pub(super) fn open() -> Option<Self> {
        let base = match folder_of("XDG_CACHE_HOME") {
            Some(cache) => cache,
            None => folder_of("HOME")?.join(".cache"),
        };
        Self::at(base.join("wavemill/kernels"))
    }

    /// Opens the cache in `folder`; `None` if the folder cannot be created or is accessible to other users.
    fn at(folder: PathBuf) -> Option<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .ok()?;

        let metadata = fs::metadata(&folder).ok()?;
        let is_private = is_private(metadata.mode(), metadata.uid(), geteuid().as_raw());
        is_private.then_some(Self(folder))
    }

    /// Returns the compiled kernels stored under `key`, if the entry is intact.
    pub(super) fn get(&self, architecture: &str, key: u128) -> Option<Vec<u8>> {
        let mut entry = fs::read(self.path(architecture, key)).ok()?;
        // The checksum is at the end, so a truncated file fails the check.
        let header = entry.len().checked_sub(16)?;
        let sum = entry.split_off(header);
        (sum == seal(key, &entry)).then_some(entry)
    }

    /// Stores `bytes` under `key`; readers see either all of them or no entry.
    pub(super) fn put(&self, architecture: &str, key: u128, bytes: &[u8]) {
        let path = self.path(architecture, key);
        // Another process may write the same entry at the same time, so each process writes its own temporary file.
        let part = path.with_extension(format!("part-{}", std::process::id()));
        let entry = [bytes, &seal(key, bytes)].concat();
        if fs::write(&part, entry)
            .and_then(|()| fs::rename(&part, path))
            .is_err()
        {
            // Writing fails, for example, on a full disk. Then the next run compiles the kernels again.
            let _ = fs::remove_file(part);
        }
    }

    fn path(&self, architecture: &str, key: u128) -> PathBuf {
        self.0.join(format!("{architecture}-{key:032x}.cubin"))
    }
}

/// Reports whether a folder of this mode and owner is accessible to `user` only: the driver loads code from it. Root
/// can access the folders of all users, and must not use theirs.
const fn is_private(mode: u32, owner: u32, user: u32) -> bool {
    mode & 0o077 == 0 && owner == user
}

/// Returns the folder named by an environment variable, if it is an absolute path.
fn folder_of(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable)
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
}

/// Returns the checksum at the end of a cache entry: the hash of the entry's key and bytes.
fn seal(key: u128, bytes: &[u8]) -> [u8; 16] {
    hash([&key.to_le_bytes(), bytes]).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A temporary folder of one test, removed at its end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let folder =
                std::env::temp_dir().join(format!("wavemill-{name}-{}", std::process::id()));
            fs::create_dir_all(&folder).unwrap();
            Self(folder)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn the_hash_is_fnv_1a_and_keeps_parts_apart() {
        // The hash includes the length of each part, so FNV's published value of "foobar" does not apply. The test
        // repeats the algorithm with decimal constants, over length and text.
        let mut want = 144_066_263_297_769_815_596_495_629_667_062_367_629_u128;
        for byte in [6, 0, 0, 0, 0, 0, 0, 0].into_iter().chain(*b"foobar") {
            want = (want ^ u128::from(byte)).wrapping_mul(309_485_009_821_345_068_724_781_371);
        }
        assert_eq!(hash([b"foobar"]), want);
        assert_ne!(hash([b"ab", b"c"]), hash([b"a", b"bc"]));
    }

    #[test]
    fn entries_are_found_only_by_their_key() {
        let folder = Folder::new("entry");
        let cache = Cache::at(folder.0.join("a/b")).unwrap();

        cache.put("sm_90", 1, b"machine code");
        assert_eq!(cache.get("sm_90", 1).as_deref(), Some(&b"machine code"[..]));
        assert_eq!(cache.get("sm_90", 2), None);
        assert_eq!(cache.get("sm_80", 1), None);

        fs::rename(cache.path("sm_90", 1), cache.path("sm_90", 2)).unwrap();
        assert_eq!(cache.get("sm_90", 2), None, "another key's");
        assert_eq!(
            fs::read_dir(&cache.0).unwrap().count(),
            1,
            "nothing half written is left"
        );
    }

    #[test]
    fn damaged_entries_are_ignored() {
        let folder = Folder::new("damaged");
        let cache = Cache::at(folder.0.join("kernels")).unwrap();
        cache.put("sm_90", 1, b"machine code");
        let whole = fs::read(cache.path("sm_90", 1)).unwrap();

        for keep in 0..whole.len() {
            fs::write(cache.path("sm_90", 1), &whole[..keep]).unwrap();
            assert_eq!(cache.get("sm_90", 1), None, "cut to {keep} bytes");
        }

        for at in 0..whole.len() {
            let mut entry = whole.clone();
            entry[at] ^= 1;
            fs::write(cache.path("sm_90", 1), entry).unwrap();
            assert_eq!(cache.get("sm_90", 1), None, "byte {at} changed");
        }

        cache.put("sm_90", 1, b"machine code");
        assert_eq!(cache.get("sm_90", 1).as_deref(), Some(&b"machine code"[..]));
    }

    #[test]
    fn folder_accessible_to_others_is_not_used() {
        let folder = Folder::new("open");
        let kernels = folder.0.join("kernels");

        assert_eq!(
            fs::metadata(&Cache::at(kernels.clone()).unwrap().0)
                .unwrap()
                .permissions()
                .mode()
                & 0o777,
            0o700
        );

        fs::set_permissions(&kernels, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(Cache::at(kernels).is_none());

        assert!(is_private(0o40_700, 1_000, 1_000));
        assert!(!is_private(0o40_700, 1_000, 0), "another user's");

        fs::write(folder.0.join("file"), "").unwrap();
        assert!(Cache::at(folder.0.join("file")).is_none());
    }
}
