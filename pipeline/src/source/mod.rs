//! Where compressed clips come from: a folder, or a zip read in place.

use std::collections::BTreeMap;

use wavemill_schemas::reject::Reject;

/// What tells one state of an input from another, without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stamp {
    /// A file: modification time in ns since the epoch.
    MtimeNs(i64),
    /// A zip entry: CRC-32 of the content.
    Crc32(u32),
}

/// Identity of one input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct InputId {
    /// Uncompressed size in bytes.
    pub bytes: u64,
    /// Its stamp.
    pub stamp: Stamp,
}

/// `clip_key` → identity, of everything below the audio root.
pub type AudioIndex = BTreeMap<String, InputId>;

/// Why a clip's bytes did not come.
#[derive(Debug)]
pub enum ReadFailure {
    /// The clip's own fault: it is counted out.
    Reject(Reject),
    /// The machine's fault: the run stops and can be resumed.
    Io(std::io::Error),
}

/// A place that holds clips. Shared by the reader threads.
pub trait Source: Send + Sync {
    /// What there is.
    fn index(&self) -> &AudioIndex;

    /// Reads one clip whole into `buffer` (cleared first).
    ///
    /// # Errors
    /// [`ReadFailure::Reject`] for what the clip's bytes determine, [`ReadFailure::Io`] for the rest.
    fn read(&self, clip_key: &str, buffer: &mut Vec<u8>) -> Result<(), ReadFailure>;
}
