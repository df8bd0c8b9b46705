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
    /// Less than `min_duration_s` of audio, and no damage seen.
    TooShort,
    /// Over a size cap (bytes, channels, sample rate).
    TooLarge,
    /// Less than `min_duration_s` of audio left after damage.
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
}

impl Reason {
    /// The stored name, as in SQL: `missing_file`, `empty`, ….
    #[must_use]
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
        }
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
    #[must_use]
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
