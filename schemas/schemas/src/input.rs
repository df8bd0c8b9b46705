//! Input files as a store remembers them, so that a later run can detect changes.

use serde::{Deserialize, Serialize};

/// A value that changes when an input file or zip entry changes. It is known without reading the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stamp {
    /// Modification time of an input file in ns since the epoch.
    MtimeNs(i64),
    /// CRC-32 of the content of a zip entry.
    Crc32(u32),
}

/// Size and stamp of one input file or zip entry, which are compared to detect changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputId {
    /// Uncompressed size of the input in bytes.
    pub bytes: u64,
    /// Modification time or CRC-32 of the input.
    pub stamp: Stamp,
}

/// The state of an input when it was read. Receipts store the state so that a later run can detect changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputSeen {
    /// Size and stamp of the input.
    #[serde(flatten)]
    pub id: Option<InputId>,
    /// blake3 of the whole input in lower-case hex. Empty if the input could not be read.
    pub content: String,
    /// Hash from `wavemill_decode::InputFacts` in lower-case hex. Empty if the file contains no audio.
    pub decode_key: String,
}

impl InputSeen {
    /// Creates the state of an input that could not be read. Without an `id` the input does not exist.
    pub const fn unreadable(id: Option<InputId>) -> Self {
        Self {
            id,
            content: String::new(),
            decode_key: String::new(),
        }
    }

    /// Creates the state of an input that was read.
    pub fn read(
        id: Option<InputId>,
        content: blake3::Hash,
        decode_key: Option<blake3::Hash>,
    ) -> Self {
        let decode_key = decode_key.map(|key| key.to_hex().to_string());
        Self {
            id,
            content: content.to_hex().to_string(),
            decode_key: decode_key.unwrap_or_default(),
        }
    }
}
