//! Counts files below the audio root that are not clips, so that a run can account for every file that it
//! finds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Maximum number of example paths that are stored with each count of files.
const EXAMPLES: usize = 5;

/// Maximum length of a file extension. With the rule for digits it prevents `song.0001` from having its own count.
const EXTENSION_CHARS_MAX: usize = 10;

/// Extensions of archives. An archive within a folder or zip is not opened.
const ARCHIVES: [&str; 9] = ["7z", "bz2", "gz", "rar", "tar", "tgz", "xz", "zip", "zst"];

/// Reason why a file is not a clip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NoClip {
    /// The file's extension belongs to a format that wavemill does not decode.
    Unsupported,
    /// The file's extension does not belong to a format of clips.
    OtherKind,
    /// The name of the file or of a parent folder begins with a dot, or macOS added the file to an archive.
    Hidden,
    /// The file has a clip's name, but its path cannot be a clip key.
    BadName,
}

/// Files that are counted together because they have the same extension and the same reason for not being clips.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileCount {
    /// Number of files that were counted.
    pub files: u64,
    /// Total size of the counted files in bytes.
    pub bytes: u64,
    /// The first paths that were counted, in the order of names.
    pub examples: BTreeSet<String>,
}

impl FileCount {
    /// Adds one file to the count.
    pub fn add(&mut self, path: &str, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;

        let is_full = self.examples.len() == EXAMPLES;
        let last = self.examples.last();
        if is_full && last.is_some_and(|last| last.as_str() <= path) {
            return;
        }
        self.examples.insert(path.to_owned());
        if is_full {
            self.examples.pop_last();
        }
    }
}

/// The files of a folder or zip that are not clips.
#[derive(Clone, Debug, Default)]
pub struct OtherFiles {
    /// Counts of files by reason and by extension ([`extension_of`]).
    pub counts: BTreeMap<(NoClip, String), FileCount>,
    /// Files of formats that wavemill does not decode, by the key that each file would have as a clip.
    pub unsupported: BTreeSet<String>,
}

impl OtherFiles {
    /// Counts a file that is not a clip. `path` is relative to the folder or zip that the user named.
    pub(super) fn add(&mut self, why: NoClip, path: &str, bytes: u64) {
        let count = self.counts.entry((why, extension_of(path))).or_default();
        count.add(path, bytes);
    }

    /// Makes the paths of counted files relative to the audio root, the folder `root` (empty, or ending in `/`).
    pub(super) fn below(self, root: &str) -> Self {
        let mut counts = self.counts;
        for count in counts.values_mut() {
            let examples = count.examples.iter();
            count.examples = examples.map(|path| relative(path, root)).collect();
        }

        let unsupported = self.unsupported.iter();
        let unsupported = unsupported.filter_map(|path| path.strip_prefix(root));
        Self {
            counts,
            unsupported: unsupported.map(str::to_owned).collect(),
        }
    }

    /// Describes the files in formats that wavemill does not decode, such as `10 wma, 2 ape`; empty without such files.
    pub fn format_unsupported(&self) -> String {
        self.format_counts(|why, _| why == NoClip::Unsupported)
    }

    /// Describes the archives among the files, such as `3 zip`; empty without archives.
    pub(super) fn format_archives(&self) -> String {
        self.format_counts(|_, extension| ARCHIVES.contains(&extension))
    }

    fn format_counts(&self, is_described: impl Fn(NoClip, &str) -> bool) -> String {
        let mut words = Vec::new();
        for ((why, extension), count) in &self.counts {
            if is_described(*why, extension) {
                words.push(format!("{} {extension}", count.files));
            }
        }
        words.join(", ")
    }
}

/// Returns a path relative to the audio root.
fn relative(path: &str, root: &str) -> String {
    match path.strip_prefix(root) {
        Some(below) => below.to_owned(),
        None => format!("{}{path}", "../".repeat(root.matches('/').count())),
    }
}

/// Returns the lower-case extension under which a file is counted. Empty if the file name ends in no plausible
/// extension.
pub fn extension_of(path: &str) -> String {
    let extension = Path::new(path).extension().unwrap_or_default();
    let extension = extension.to_string_lossy().to_ascii_lowercase();
    let is_plain = extension.len() <= EXTENSION_CHARS_MAX
        && extension.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && extension.bytes().any(|byte| byte.is_ascii_alphabetic());
    if is_plain { extension } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn implausible_extensions_count_as_none() {
        for (path, extension) in [
            ("a/b.M4A", "m4a"),
            ("b.mp3", "mp3"),
            ("notes", ""),
            (".DS_Store", ""),
            ("._b.mp3", "mp3"),
            ("song.0001", ""),
            ("draft of b. see also", ""),
            ("b.mp3~", ""),
        ] {
            assert_eq!(extension_of(path), extension, "{path}");
        }
    }

    #[test]
    fn the_first_paths_are_examples_whatever_their_order() {
        let mut count = FileCount::default();
        for path in ["g", "c", "a", "f", "b", "e", "d"] {
            count.add(path, 2);
        }
        assert_eq!((count.files, count.bytes), (7, 14));
        assert_eq!(Vec::from_iter(&count.examples), ["a", "b", "c", "d", "e"]);
    }

    #[test]
    fn paths_are_those_below_the_audio_root() {
        let mut found = OtherFiles::default();
        for path in ["data/fma/000/a.wma", "data/b.wma"] {
            found.add(NoClip::Unsupported, path, 1);
            found.unsupported.insert(path.to_owned());
        }

        let below = found.below("data/fma/");
        assert_eq!(Vec::from_iter(&below.unsupported), ["000/a.wma"]);
        let count = &below.counts[&(NoClip::Unsupported, "wma".to_owned())];
        assert_eq!(
            Vec::from_iter(&count.examples),
            ["../../data/b.wma", "000/a.wma"]
        );
        assert_eq!(below.format_unsupported(), "2 wma");
    }
}
