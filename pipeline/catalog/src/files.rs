//! Accounts for every file below the audio root, and finds rows whose file has almost the same name.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use arrow::array::AsArray;
use icu_normalizer::ComposingNormalizerBorrowed;
use serde::{Deserialize, Serialize};
use wavemill_schemas::named_enum;
use wavemill_schemas::recipe::Dataset;
use wavemill_schemas::reject::{Reject, Stage};
use wavemill_schemas::text::counted;
use wavemill_source::others::{FileCount, NoClip, extension_of};
use wavemill_source::{Media, Source, unsupported};

use super::CleanedRows;

/// Characters between the stem of a name and a suffix, such as in `214.low.mp3`.
const SEPARATORS: [char; 4] = ['.', '_', '-', ' '];

/// Maximum number of pairs of a row's file name and a similar existing name, in a warning or a report.
const PAIRS_SHOWN: usize = 3;
const PAIRS_LISTED: usize = 20;

/// Differences between the names of a row and of a file that is near.
const DIFFERENCES: &str = "case, in Unicode normalization or in a suffix";

named_enum! {
    /// The fate of a file that was found below the audio root.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum Fate {
        /// A row that remains after cleaning names the file.
        Used = "used",
        /// Only a row that a cleaning step dropped names the file.
        Dropped = "dropped",
        /// No row names the file, but a row has a name that differs from the file's only in case, Unicode normalization
        /// or a suffix.
        NearRow = "near_row",
        /// No row names the file.
        NoRow = "no_row",
        /// The file's extension belongs to a format that wavemill does not decode.
        Unsupported = "unsupported",
        /// The file's extension is not an audio extension.
        NotAudio = "not_audio",
        /// The file's extension is not an image extension.
        NotImage = "not_image",
        /// The name of the file or of a parent folder begins with a dot, or a macOS archive added the file.
        Hidden = "hidden",
        /// The file's path cannot be used as a key.
        BadName = "bad_name",
    }
}

impl Fate {
    const fn for_unusable_file(why: NoClip, media: Media) -> Self {
        match (why, media) {
            (NoClip::Unsupported, _) => Self::Unsupported,
            (NoClip::OtherKind, Media::Audio) => Self::NotAudio,
            (NoClip::OtherKind, Media::Pictures) => Self::NotImage,
            (NoClip::Hidden, _) => Self::Hidden,
            (NoClip::BadName, _) => Self::BadName,
        }
    }
}

/// Number and examples of the files of one fate and extension: a row of the table `audio_files`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilesOfKind {
    /// Fate of all files that this row counts.
    pub fate: Fate,
    /// File extension in lower case; empty for files without an extension.
    pub extension: String,
    /// Number of files with this fate and extension.
    pub files: u64,
    /// Total size of these files in bytes.
    pub bytes: u64,
    /// Paths of the first few of these files.
    pub examples: Vec<String>,
    /// For [`Fate::NearRow`], the similar name that a metadata row contains for each of the example files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub near_rows: Option<Vec<String>>,
}

/// A metadata row whose file does not exist, and the existing file that the row probably means.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NearMatch {
    /// Name of the missing file, as written in the metadata row.
    pub row: String,
    /// Name of the existing file that the row probably means.
    pub file: String,
}

/// The account of all files below the audio root.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct FileAccount {
    /// Counts of all files, ordered by fate, then by extension.
    pub found: Vec<FilesOfKind>,
    /// Number of rows without a file for which there is a file whose name differs only in case, in Unicode
    /// normalization or in a suffix.
    pub rows_near: usize,
    /// The first rows for which there is a file with almost the same name, each with this file.
    pub near: Vec<NearMatch>,
    /// Rejects for files of undecoded formats, if a dropped row names the file or the file is in a class folder.
    #[serde(skip)]
    pub rejects: Vec<Reject>,
}

impl CleanedRows {
    /// Accounts for every file that `source` found.
    pub fn account_for(&self, source: &dyn Source, dataset: Dataset) -> FileAccount {
        let index = source.index();
        let used: HashSet<&str> = self.clip_keys().collect();
        let all = self.catalog.tables.get("tracks_all");
        let all = all.and_then(|rows| rows.column_by_name("clip_key")?.as_string_view_opt());
        let named: HashSet<&str> = all
            .into_iter()
            .flat_map(|keys| keys.iter().flatten())
            .collect();

        let mut counts = FileCounts::new();
        let mut no_row = BTreeSet::new();
        for (key, id) in index {
            let fate = if used.contains(key.as_str()) {
                Fate::Used
            } else if named.contains(key.as_str()) {
                Fate::Dropped
            } else {
                no_row.insert(key.as_str());
                continue;
            };
            add(&mut counts, fate, key, id.bytes);
        }

        let kept_absent = used.iter().filter(|key| !index.contains_key(**key));
        let absent = self.catalog.absent.iter().map(String::as_str);
        let absent: BTreeSet<&str> = absent.chain(kept_absent.copied()).collect();
        let unlisted = self.unlisted.iter().map(String::as_str);
        let mut near = near_matches(&absent, no_row.iter().copied().chain(unlisted));

        let near_rows: HashMap<&str, &str> = near
            .iter()
            .map(|pair| (pair.file.as_str(), pair.row.as_str()))
            .collect();
        for key in no_row {
            let fate = if near_rows.contains_key(key) {
                Fate::NearRow
            } else {
                Fate::NoRow
            };
            add(&mut counts, fate, key, index[key].bytes);
        }

        for ((why, extension), count) in &source.others().counts {
            let fate = Fate::for_unusable_file(*why, source.media());
            counts.insert((fate, extension.clone()), count.clone());
        }

        let found = group_by_kind(counts, &near_rows);
        let rows_near = near.len();
        near.truncate(PAIRS_LISTED);
        FileAccount {
            found,
            rows_near,
            near,
            rejects: self.unsupported(source, dataset),
        }
    }

    /// Creates the rejects for files of formats that are not decoded: [`FileAccount::rejects`].
    fn unsupported(&self, source: &dyn Source, dataset: Dataset) -> Vec<Reject> {
        let files = &source.others().unsupported;
        let is_clip = |key: &&String| {
            if dataset.is_of_folders() {
                key.contains('/')
            } else {
                // Files of rows that were not dropped are in the plan, and the reading stage rejects them.
                self.catalog.absent.binary_search(key).is_ok()
            }
        };

        let mut rejects = Vec::new();
        for key in files.iter().filter(is_clip) {
            let mut reject = unsupported(key, Stage::Catalog);
            reject.clip_key = Some(key.clone());
            rejects.push(reject);
        }
        rejects
    }

    /// Adds warnings about the files below the audio root.
    pub fn warn_of(&mut self, files: &FileAccount) {
        self.catalog.warnings.extend(files.warnings());
    }
}

/// Returns the end of a sentence that names the file which `clip_key` probably means, or an empty text if there is
/// none.
pub fn hint_of_file(clip_key: &str, source: &dyn Source) -> String {
    if source.others().unsupported.contains(clip_key) {
        let extension = extension_of(clip_key);
        return format!(
            ", which exists, but wavemill does not decode {extension}: convert the files"
        );
    }
    let files = source.index().keys().map(String::as_str);
    match near_matches(&BTreeSet::from([clip_key]), files).pop() {
        Some(pair) => format!("; found {}, whose name differs in {DIFFERENCES}", pair.file),
        None => "; give --audio the folder in which it is".to_owned(),
    }
}

/// Numbers of files by fate and extension.
type FileCounts = BTreeMap<(Fate, String), FileCount>;

fn add(counts: &mut FileCounts, fate: Fate, key: &str, bytes: u64) {
    let count = counts.entry((fate, extension_of(key))).or_default();
    count.add(key, bytes);
}

/// Converts counts to rows of the table `audio_files`. `near_rows` maps a file to its name in a metadata row.
fn group_by_kind(counts: FileCounts, near_rows: &HashMap<&str, &str>) -> Vec<FilesOfKind> {
    let mut found = Vec::with_capacity(counts.len());
    for ((fate, extension), count) in counts {
        let row_of = |file: &String| near_rows.get(file.as_str()).copied().unwrap_or_default();
        let rows = count.examples.iter().map(|file| row_of(file).to_owned());
        let near_rows = (fate == Fate::NearRow).then(|| rows.collect());
        found.push(FilesOfKind {
            fate,
            extension,
            files: count.files,
            bytes: count.bytes,
            examples: count.examples.into_iter().collect(),
            near_rows,
        });
    }
    found
}

/// Finds, for each of the `absent` keys, the first of the `files` whose name differs from the key only in case or in
/// Unicode normalization, or else also in a suffix.
pub(super) fn near_matches<'a>(
    absent: &BTreeSet<&str>,
    files: impl Iterator<Item = &'a str>,
) -> Vec<NearMatch> {
    if absent.is_empty() {
        return Vec::new();
    }

    let mut by_folded: BTreeMap<String, &str> = BTreeMap::new();
    for file in files {
        by_folded.entry(folded(file)).or_insert(file);
    }
    let mut near = Vec::new();
    for row in absent {
        let folded = folded(row);
        let equal = by_folded.get(&folded).copied();
        if let Some(file) = equal.or_else(|| with_other_suffix(&by_folded, &folded)) {
            near.push(NearMatch {
                row: (*row).to_owned(),
                file: file.to_owned(),
            });
        }
    }
    near
}

/// Returns a file whose name differs from `row` only in what follows the stem: `214.low.mp3` for `214.mp3` or `214`,
/// and the other way round.
fn with_other_suffix<'a>(files: &BTreeMap<String, &'a str>, row: &str) -> Option<&'a str> {
    let name = row.rfind('/').map_or(0, |slash| slash + 1);
    let extension = name + row[name..].rfind('.').unwrap_or(row.len() - name);
    let cuts = row[name..].rmatch_indices(SEPARATORS);
    let ends = std::iter::once(row.len()).chain(cuts.map(|(cut, _)| name + cut));

    // The longest stem of the row comes first, because it is that of the nearest name.
    for end in ends.filter(|end| *end > name) {
        for separator in SEPARATORS {
            let start = format!("{}{separator}", &row[..end]);
            // If the row has a suffix, the file must have none: `a.1.mp3` is not near `a.2.mp3`.
            if let Some((folded, file)) = files.range(start.clone()..).next()
                && let Some(rest) = folded.strip_prefix(&start)
                && (end >= extension || !rest.contains(SEPARATORS))
            {
                return Some(file);
            }
        }
    }
    None
}

/// Returns a text that is equal for names that differ only in case or in Unicode normalization.
fn folded(key: &str) -> String {
    let normalizer = ComposingNormalizerBorrowed::new_nfc();
    let lower = normalizer.normalize(key).to_lowercase();
    // The lower case of a composed letter may be a sequence.
    normalizer.normalize(&lower).into_owned()
}

impl FileAccount {
    /// Formats the sum `files found 61 = used 58 + no_row 1 + hidden 2`, in the order of [`Fate`].
    pub fn format_sums(&self) -> String {
        let mut by_fate: BTreeMap<Fate, u64> = BTreeMap::new();
        for kind in &self.found {
            *by_fate.entry(kind.fate).or_default() += kind.files;
        }
        let all: u64 = by_fate.values().sum();
        let parts = by_fate.iter();
        let parts: Vec<String> = parts
            .map(|(fate, files)| format!("{} {files}", fate.name()))
            .collect();
        format!("files found {all} = {}", parts.join(" + "))
    }

    /// Returns warnings about the files below the audio root, one sentence each.
    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        warnings.extend(self.files_of(Fate::Unsupported).map(|message| {
            format!(
                "{message}: wavemill does not decode these formats; convert the files to have them"
            )
        }));
        warnings.extend(
            self.files_of(Fate::NoRow)
                .map(|message| format!("{message}: no row names these files")),
        );
        warnings.extend(self.near_warning());
        warnings
    }

    /// Returns a warning about metadata rows whose file name is almost equal to that of an existing file.
    fn near_warning(&self) -> Option<String> {
        if self.near.is_empty() {
            return None;
        }

        let mut shown = Vec::new();
        for NearMatch { row, file } in self.near.iter().take(PAIRS_SHOWN) {
            shown.push(format!("a row names {row}, the folder has {file}"));
        }
        let more = if self.rows_near > PAIRS_SHOWN {
            "; …"
        } else {
            ""
        };
        Some(format!(
            "{} rows name a file whose name differs in {DIFFERENCES}, and get no audio: {}{more}; rename the files, or correct \
             the rows",
            self.rows_near,
            shown.join("; ")
        ))
    }

    /// Formats `12 files (10 ape, 2 wma), such as a/b.ape`, or returns `None` if no file has this fate.
    fn files_of(&self, fate: Fate) -> Option<String> {
        let kinds: Vec<&FilesOfKind> = self.found.iter().filter(|kind| kind.fate == fate).collect();
        let example = kinds.first()?.examples.first()?;
        let files: u64 = kinds.iter().map(|kind| kind.files).sum();
        let mut extensions = Vec::new();
        for kind in &kinds {
            extensions.push(format!("{} {}", kind.files, kind.extension));
        }
        Some(format!(
            "{} below the audio root ({}), such as {example}",
            counted(files, "file"),
            extensions.join(", ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_except_for_case_normalization_and_suffix() {
        let files = [
            "14/214.low.mp3",
            "14/2145.mp3",
            "14/22.mp3",
            "14/23_30s.mp3",
            "a/24.1.mp3",
            "a/Bj\u{f6}rk.mp3",
            "a/x.MP3",
            "a/z.mp3",
        ];
        let absent = [
            "14/21.mp3",
            "14/214.mp3",
            "14/22.low.flac",
            "14/23",
            "a/24.2.mp3",
            "a/Bjo\u{308}rk.mp3",
            "a/X.mp3",
            "a/y.mp3",
            "z.mp3",
        ];

        let near = near_matches(&BTreeSet::from(absent), files.into_iter());
        let pairs: Vec<(&str, &str)> = near
            .iter()
            .map(|pair| (pair.row.as_str(), pair.file.as_str()))
            .collect();

        assert_eq!(
            pairs,
            [
                ("14/214.mp3", "14/214.low.mp3"),
                ("14/22.low.flac", "14/22.mp3"),
                ("14/23", "14/23_30s.mp3"),
                ("a/Bjo\u{308}rk.mp3", "a/Bj\u{f6}rk.mp3"),
                ("a/X.mp3", "a/x.MP3")
            ]
        );
    }
}
