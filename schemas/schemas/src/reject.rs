//! Rejected inputs with their reasons. Every input has rows or a reject: rows + rejects = inputs.

use serde::{Deserialize, Serialize};

use crate::named_enum;

// The names of reasons and stages must not change: they are in existing stores and in users' queries.
named_enum! {
    /// Reason for rejecting an input. Rejects depend only on the bytes of the input; a failing disk is an error
    /// instead. The order is that of the table in docs/store-format.md.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum Reason {
        /// The metadata names a clip whose audio file does not exist.
        MissingFile = "missing_file",
        /// The file has zero bytes.
        Empty = "empty",
        /// The bytes are not in a known audio format.
        NotAudio = "not_audio",
        /// This version of wavemill does not support the audio format.
        UnsupportedCodec = "unsupported_codec",
        /// The file is a valid container or tag without a single audio sample.
        NoAudio = "no_audio",
        /// The clip has less than `min_duration_s` of audio, without damage; or a picture does not contain the crop
        /// box.
        TooShort = "too_short",
        /// The clip exceeds a limit of bytes, channels, sample rate or pixels.
        TooLarge = "too_large",
        /// The clip is damaged, with less than `min_duration_s` of audio left; or a picture cannot be decoded
        /// completely.
        Damaged = "damaged",
        /// The decoder or a kernel panicked on the clip.
        WorkerPanic = "worker_panic",
        /// A metadata row that cannot be parsed.
        BadRow = "bad_row",
        /// A metadata row or a path that is not UTF-8.
        BadEncoding = "bad_encoding",
        /// A path that leaves the audio root.
        OutsideRoot = "outside_root",
        /// An encrypted zip entry.
        Encrypted = "encrypted",
        /// Several zip entries have the same name; none of these entries is used.
        DuplicateEntry = "duplicate_entry",
        /// The bytes are not in a known picture format.
        NotImage = "not_image",
        /// A model's output for the clip is NaN or infinite.
        NotFinite = "not_finite",
    }
}

impl Reason {
    /// Reports whether the reason, if given by the catalog, rejects a whole metadata row, which names no clip.
    pub const fn is_of_row(self) -> bool {
        matches!(self, Self::BadRow | Self::BadEncoding)
    }
}

named_enum! {
    /// Stage of the pipeline that rejected an input.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum Stage {
        /// Parsing the metadata.
        Catalog = "catalog",
        /// Reading the bytes of the clip.
        Read = "read",
        /// Decoding the clip.
        Decode = "decode",
        /// Computing features.
        Features = "features",
    }
}

/// One row of the `rejects` table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reject {
    /// Key of the clip; absent if a broken metadata row names none.
    pub clip_key: Option<String>,
    /// Track id of the clip, if known.
    pub track_id: Option<i64>,
    /// Stage of the pipeline that rejected the input.
    pub stage: Stage,
    /// Reason for rejecting the input.
    pub reason: Reason,
    /// Description of the problem, in one sentence.
    pub detail: String,
    /// Offset in the clip's bytes at which the problem begins.
    pub byte_offset: Option<u64>,
    /// Physical line of the rejected record in the metadata file, from 1.
    pub line: Option<u64>,
    /// Name of the column in the metadata file with the problem.
    pub column: Option<String>,
    /// Number of seconds that were decoded before the clip was rejected.
    pub decoded_s: Option<f32>,
}

impl Reject {
    /// Creates a reject whose optional fields are empty.
    pub fn new(stage: Stage, reason: Reason, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self {
            clip_key: None,
            track_id: None,
            stage,
            reason,
            detail,
            byte_offset: None,
            line: None,
            column: None,
            decoded_s: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the names of all reasons, independent of `ALL`, as listed by serde's error.
    fn serde_names() -> Vec<String> {
        let error = serde_json::from_str::<Reason>("\"none\"").expect_err("no such reason");
        let error = error.to_string();
        // The first name in backquotes is the unknown reason.
        let names = error.split('`').skip(3).step_by(2);
        names.map(str::to_owned).collect()
    }

    /// Returns the first column of the table in docs/store-format.md. A row of the table may contain several names.
    fn documented_names() -> Vec<&'static str> {
        let page = include_str!("../../../docs/store-format.md");
        let (_, table) = page
            .split_once("| reason | meaning |\n|---|---|\n")
            .expect("the table of reasons");

        let mut names = Vec::new();
        for row in table.lines().take_while(|line| line.starts_with('|')) {
            let column = row.split('|').nth(1).expect("a first column");
            names.extend(column.split(',').map(|name| name.trim().trim_matches('`')));
        }
        names
    }

    /// Returns the names in `REASONS` of the script that reads stores without code of wavemill.
    fn checked_names() -> Vec<&'static str> {
        let script = include_str!("../../../scripts/check_store.py");
        let (_, rest) = script.split_once("\nREASONS = {").expect("the set");
        let (names, _) = rest.split_once('}').expect("its end");

        let names = names.split(',').map(str::trim);
        names
            .filter(|name| !name.is_empty())
            .map(|name| name.trim_matches('"'))
            .collect()
    }

    #[test]
    fn every_place_that_lists_reasons_has_the_same_ones() {
        let names = Reason::ALL.map(Reason::name);
        assert_eq!(serde_names(), names, "variants of the enum");
        assert_eq!(documented_names(), names, "docs/store-format.md");
        assert_eq!(checked_names(), names, "scripts/check_store.py");
    }

    #[test]
    fn a_reason_is_stored_by_its_name() {
        for reason in Reason::ALL {
            let stored = serde_json::to_value(reason).expect("a name");
            assert_eq!(stored, reason.name());
        }
    }
}
