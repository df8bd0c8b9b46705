//! Inputs that became no row, each with its reason: rows + rejects = inputs.

use serde::{Deserialize, Serialize};

/// Why an input was counted out. Only what the input's own bytes determine is a reject; a failing disk is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The metadata names a clip that is not among the audio.
    MissingFile,
    /// A file of zero bytes.
    Empty,
    /// No audio format is recognised in the bytes.
    NotAudio,
    /// An audio format that this version does not decode.
    UnsupportedCodec,
    /// A valid container or tag without a single audio sample.
    NoAudio,
    /// Less than `min_duration_s` of audio, and no damage seen; or a picture that its crop box leaves.
    TooShort,
    /// Over a size cap (bytes, channels, sample rate, pixels).
    TooLarge,
    /// Less than `min_duration_s` of audio left after damage; or a picture that cannot be decoded to its end.
    Damaged,
    /// The decoder or a kernel panicked on this clip.
    WorkerPanic,
    /// A metadata row that cannot be parsed.
    BadRow,
    /// A metadata row, or a path, that is not UTF-8.
    BadEncoding,
    /// A path that leaves the audio root.
    OutsideRoot,
    /// An encrypted zip entry.
    Encrypted,
    /// Several zip entries of one name, of which none is used.
    DuplicateEntry,
    /// No picture format is recognised in the bytes.
    NotImage,
}

impl Reason {
    /// Every reason, in the order of the table in docs/store.md.
    pub const ALL: [Self; 15] = [
        Self::MissingFile,
        Self::Empty,
        Self::NotAudio,
        Self::UnsupportedCodec,
        Self::NoAudio,
        Self::TooShort,
        Self::TooLarge,
        Self::Damaged,
        Self::WorkerPanic,
        Self::BadRow,
        Self::BadEncoding,
        Self::OutsideRoot,
        Self::Encrypted,
        Self::DuplicateEntry,
        Self::NotImage,
    ];

    /// The stored name, as in SQL: `missing_file`, `empty`, ….
    pub const fn name(self) -> &'static str {
        // Stores hold these names, and queries ask for them: none may change.
        match self {
            Self::MissingFile => "missing_file",
            Self::Empty => "empty",
            Self::NotAudio => "not_audio",
            Self::UnsupportedCodec => "unsupported_codec",
            Self::NoAudio => "no_audio",
            Self::TooShort => "too_short",
            Self::TooLarge => "too_large",
            Self::Damaged => "damaged",
            Self::WorkerPanic => "worker_panic",
            Self::BadRow => "bad_row",
            Self::BadEncoding => "bad_encoding",
            Self::OutsideRoot => "outside_root",
            Self::Encrypted => "encrypted",
            Self::DuplicateEntry => "duplicate_entry",
            Self::NotImage => "not_image",
        }
    }

    /// Whether it counts out a whole row of the metadata, where the catalog gives it: that row names no clip.
    pub const fn is_of_row(self) -> bool {
        matches!(self, Self::BadRow | Self::BadEncoding)
    }
}

/// Where in the pipeline an input was counted out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Parsing the metadata.
    Catalog,
    /// Reading the clip's bytes.
    Read,
    /// Decoding them.
    Decode,
    /// Computing features.
    Features,
}

impl Stage {
    /// The stored name: `catalog`, `read`, `decode`, `features`.
    pub const fn name(self) -> &'static str {
        // As for `Reason::name`: queries ask for these names.
        match self {
            Self::Catalog => "catalog",
            Self::Read => "read",
            Self::Decode => "decode",
            Self::Features => "features",
        }
    }
}

/// One row of the `rejects` table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reject {
    /// The clip, where the reject has one (a broken metadata row may not).
    pub clip_key: Option<String>,
    /// Its track id, where known.
    pub track_id: Option<i64>,
    /// Where it was counted out.
    pub stage: Stage,
    /// Why.
    pub reason: Reason,
    /// One sentence for a person.
    pub detail: String,
    /// Offset in the clip's bytes, where the trouble starts.
    pub byte_offset: Option<u64>,
    /// Physical line in the metadata file, from 1.
    pub line: Option<u64>,
    /// Column name in the metadata file.
    pub column: Option<String>,
    /// Seconds that decoded before the clip was given up.
    pub decoded_s: Option<f32>,
}

impl Reject {
    /// A reject with a reason and a sentence; the other fields start empty.
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

    /// The names that serde knows, as its error lists them: those of all variants, whatever `ALL` has.
    fn serde_names() -> Vec<String> {
        let error = serde_json::from_str::<Reason>("\"none\"").expect_err("no such reason");
        let error = error.to_string();
        // The first name in backticks is the unknown one.
        let names = error.split('`').skip(3).step_by(2);
        names.map(str::to_owned).collect()
    }

    /// The first column of the table in docs/store.md, where a row may have several names.
    fn documented_names() -> Vec<&'static str> {
        let page = include_str!("../../docs/store.md");
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

    /// `REASONS` of the program that reads a store without any code of wavemill.
    fn checked_names() -> Vec<&'static str> {
        let script = include_str!("../../scripts/check_store.py");
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
        assert_eq!(documented_names(), names, "docs/store.md");
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
