//! Compiled kernels between runs: a private folder of files that say whether they are whole.
//!
//! It saves time and nothing depends on it: whatever goes wrong with it, kernels are compiled anew.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::PathBuf;

/// FNV-1a of 128 bits over `parts`, each with its length before it, so that they do not run into each other.
/// Source: Fowler, Noll, Vo, "The FNV Non-Cryptographic Hash Algorithm" (IETF draft). It finds damage; whoever can
/// write into the folder is trusted.
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

/// A folder that no one else can read or write.
pub(super) struct Cache(PathBuf);

impl Cache {
    /// `wavemill/kernels` in `$XDG_CACHE_HOME`, else in `~/.cache`; none where it cannot be had.
    pub(super) fn open() -> Option<Self> {
        let base = match folder_of("XDG_CACHE_HOME") {
            Some(cache) => cache,
            None => folder_of("HOME")?.join(".cache"),
        };
        Self::at(base.join("wavemill/kernels"))
    }

    /// Errors: the folder cannot be made, or others may enter it.
    fn at(folder: PathBuf) -> Option<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .ok()?;

        // The driver loads what lies in this folder, so nobody else may write there.
        let mode = fs::metadata(&folder).ok()?.permissions().mode();
        (mode & 0o077 == 0).then_some(Self(folder))
    }

    /// What was put under `key`, if it is whole.
    pub(super) fn get(&self, architecture: &str, key: u128) -> Option<Vec<u8>> {
        let mut entry = fs::read(self.path(architecture, key)).ok()?;
        // The seal is at the end, so a file that was cut short fails the check.
        let header = entry.len().checked_sub(16)?;
        let sum = entry.split_off(header);
        (sum == seal(key, &entry)).then_some(entry)
    }

    /// Keeps `bytes` under `key`; readers see all of them or nothing.
    pub(super) fn put(&self, architecture: &str, key: u128, bytes: &[u8]) {
        let path = self.path(architecture, key);
        // Another process may write the same entry at this moment, so each one writes a temporary file of its own.
        let part = path.with_extension(format!("part-{}", std::process::id()));
        let entry = [bytes, &seal(key, bytes)].concat();
        if fs::write(&part, entry)
            .and_then(|()| fs::rename(&part, path))
            .is_err()
        {
            // A full disk, say: the next run compiles again.
            let _ = fs::remove_file(part);
        }
    }

    fn path(&self, architecture: &str, key: u128) -> PathBuf {
        self.0.join(format!("{architecture}-{key:032x}.cubin"))
    }
}

/// The folder that a variable names by its whole path.
fn folder_of(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable)
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
}

/// What ends an entry: the hash of its key and its bytes.
fn seal(key: u128, bytes: &[u8]) -> [u8; 16] {
    hash([&key.to_le_bytes(), bytes]).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of the test's own, gone at its end.
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
        // The published value of "foobar", reached by undoing the length that goes before it: none can be, so the
        // algorithm is written out once more, digit by digit, over length and text.
        let mut want = 144_066_263_297_769_815_596_495_629_667_062_367_629_u128;
        for byte in [6, 0, 0, 0, 0, 0, 0, 0].into_iter().chain(*b"foobar") {
            want = (want ^ u128::from(byte)).wrapping_mul(309_485_009_821_345_068_724_781_371);
        }
        assert_eq!(hash([b"foobar"]), want);
        assert_ne!(hash([b"ab", b"c"]), hash([b"a", b"bc"]));
    }

    #[test]
    fn an_entry_comes_back_under_its_key_alone() {
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
    fn a_damaged_entry_is_none() {
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
    fn a_folder_that_others_may_enter_is_not_used() {
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
        fs::write(folder.0.join("file"), "").unwrap();
        assert!(Cache::at(folder.0.join("file")).is_none());
    }
}
