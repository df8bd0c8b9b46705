//! Events that the other threads send to the writing thread.

use wavemill_schemas::input::InputSeen;
use wavemill_store::shards::{EncodedGroup, Outcome};

use crate::error::ExtractError;

/// A result that another thread sends to the writing thread.
pub(super) enum Event {
    /// A clip became rows or a reject. This includes a clip on which a worker panicked.
    Clip {
        /// Position of the clip in plan order.
        seq: usize,
        /// Rows of the clip, or the reason for its rejection.
        outcome: Outcome,
        /// Hashes of the clip's file.
        seen: InputSeen,
    },
    /// All readers have ended, so the number of clips is known.
    ReadDone {
        /// Number of clips that were handed to workers.
        clips: usize,
    },
    /// A row group was encoded.
    Encoded(EncodedGroup),
    /// An error that is not caused by a clip. The run stops and can be resumed.
    Failed(ExtractError),
}
