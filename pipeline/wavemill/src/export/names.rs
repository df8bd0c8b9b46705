//! Converts any text to names of files and folders that are safe in a path and differ for different texts.

use std::collections::BTreeSet;
use std::path::Path;

/// Maximum length of a name in bytes. File systems allow 255, and suffixes are appended.
const NAME_BYTES_MAX: usize = 150;

/// Number of hex digits of the hash that is appended to a name from which the text cannot be recovered.
const HASH_DIGITS: usize = 16;

/// Separates the hash from the name. It occurs nowhere else in a name.
const BEFORE_HASH: char = '~';

/// Replaces every character of `text` that is not allowed in a path, and `/` by `slash`. Different texts may give the
/// same name.
pub(super) fn safe(text: &str, slash: &str) -> String {
    let mut name = String::with_capacity(text.len() + 2);
    for c in text.chars() {
        match c {
            '/' => name.push_str(slash),
            c if is_plain(c) => name.push(c),
            _ => name.push('_'),
        }
    }

    // A leading dot hides a file; trailing dots and spaces are removed on some systems.
    if name.starts_with('.') {
        name.replace_range(..1, "_");
    }
    let kept = name.trim_end_matches(['.', ' ']).len();
    name.truncate(kept);
    let fits = name
        .char_indices()
        .map(|(at, c)| at + c.len_utf8())
        .take_while(|end| *end <= NAME_BYTES_MAX)
        .last()
        .unwrap_or(0);
    name.truncate(fits);
    if name.is_empty() {
        name.push('_');
    }
    name
}

/// Reports whether `c` is a letter or digit of any script, or one of a few allowed characters.
fn is_plain(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ' ')
}

/// Returns a name for a clip's key that is different for every key: `000__000002.mp3` for `000/000002.mp3`. A hash is
/// appended if the key cannot be recovered from the name.
pub(super) fn name_of_key(key: &str) -> String {
    let name = safe(key, "__");
    if is_unique_name(key, &name) {
        return name;
    }
    hashed(&name, key)
}

/// Reports whether no other clip key is converted to `name`.
fn is_unique_name(key: &str, name: &str) -> bool {
    // Every `__` stands for `/` if the key contains no `__`, and no `_` next to `/`.
    let is_reversible = !key.contains("__") && !key.contains("_/") && !key.contains("/_");
    is_reversible && name.replace("__", "/") == key
}

fn hashed(name: &str, text: &str) -> String {
    let hash = blake3::hash(text.as_bytes()).to_hex();
    format!("{name}{BEFORE_HASH}{}", &hash[..HASH_DIGITS])
}

/// Returns distinct folder names for `classes`, which must be distinct. None of the names is in `taken`. No two names
/// differ only in case, because they would be one folder on some disks.
pub(super) fn of_classes(classes: &[String], taken: &[&str]) -> Vec<String> {
    let mut used: BTreeSet<String> = taken.iter().map(|name| name.to_lowercase()).collect();
    let mut names = Vec::with_capacity(classes.len());
    for class in classes {
        let mut name = safe(class, "-");
        if used.contains(&name.to_lowercase()) {
            name = hashed(&name, class);
        }
        used.insert(name.to_lowercase());
        names.push(name);
    }
    names
}

/// Returns the name of a row's file without its extension: key, segment, and the tempo factor if the row is stretched.
pub(super) fn of_row(key: &str, segment: i32, variant: f32) -> String {
    let mut name = format!("{}_{segment}", name_of_key(key));
    // A variant of 1.0 is the clip as recorded. Most stores contain no other variants.
    if variant != 1.0 {
        name += &format!("_v{variant}");
    }
    name
}

/// Returns the extension of a clip's key with its dot, safe in a path; empty without an extension.
pub(super) fn extension(key: &str) -> String {
    let extension = Path::new(key).extension();
    let extension = extension.map(|extension| extension.to_string_lossy());
    extension.map_or_else(String::new, |text| format!(".{}", safe(&text, "-")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_keys_stay_readable() {
        assert_eq!(of_row("000/000002.mp3", 0, 1.0), "000__000002.mp3_0");
        assert_eq!(of_row("my_song.mp3", 3, 0.85), "my_song.mp3_3_v0.85");
        assert_eq!(name_of_key("Jazz/Ünï 1.ogg"), "Jazz__Ünï 1.ogg");
        assert_eq!(extension("Jazz/Ünï 1.ogg"), ".ogg");
        assert_eq!(extension("a.b/song"), "");
    }

    #[test]
    fn keys_that_would_meet_have_a_hash() {
        let keys = [
            "a/b", "a__b", "a_/b", "a/_b", "a:b", "a?b", "a\nb", ".a", "_a", "a.", "a",
        ];
        let names: BTreeSet<String> = keys.iter().map(|key| name_of_key(key)).collect();
        assert_eq!(names.len(), keys.len(), "{names:?}");
        assert!(names.contains("a__b") && names.contains("_a"));
        assert!(name_of_key("../../etc/passwd").starts_with('_'));
        assert_ne!(name_of_key(&"x".repeat(300)), name_of_key(&"x".repeat(301)));
        assert!(name_of_key(&"ü".repeat(300)).len() < 200);
    }

    #[test]
    fn classes_have_folders_of_their_own() {
        let classes = [
            "Old-Time / Historic",
            "Old-Time - Historic",
            "unlabelled",
            "..",
            "",
            "R&B",
            "r&b",
        ];

        let names = of_classes(&classes.map(str::to_owned), &["unlabelled"]);
        assert_eq!(names[0], "Old-Time - Historic");
        assert!(names[1].starts_with("Old-Time - Historic~"), "{names:?}");
        assert!(names[2].starts_with("unlabelled~"), "{names:?}");
        assert_eq!(names[5], "R_B");

        let distinct: BTreeSet<String> = names.iter().map(|name| name.to_lowercase()).collect();
        assert_eq!(distinct.len(), classes.len(), "{names:?}");
        assert!(
            names
                .iter()
                .all(|name| !name.is_empty() && !name.starts_with('.'))
        );
    }

    proptest! {
        #[test]
        fn every_name_is_one_part_of_a_path(key in "\\PC{0,80}") {
            let name = of_row(&key, 1, 1.0);
            prop_assert!(!name.contains('/') && !name.contains('\0'));
            prop_assert!(!name.starts_with('.') && name.len() < 250);
        }

        #[test]
        fn two_keys_have_two_names(a in "[a_/.:~]{0,6}", b in "[a_/.:~]{0,6}") {
            prop_assert_eq!(a == b, name_of_key(&a) == name_of_key(&b));
        }
    }
}
