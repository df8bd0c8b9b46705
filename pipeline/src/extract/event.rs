//! What the other threads tell the thread that writes.

use super::ExtractError;
use crate::shards::{EncodedGroup, Outcome};
use crate::source::InputSeen;

/// One piece of finished work.
pub(super) enum Event {
    /// A clip became rows, or a reject (a dead worker's clip is one too).
    Clip {
        /// Its place in plan order.
        seq: usize,
        /// What became of it.
        outcome: Outcome,
        /// What was read.
        seen: InputSeen,
    },
    /// Readers have ended: no more than so many clips will come.
    ReadDone {
        /// How many were given to workers.
        clips: usize,
    },
    /// A row group is encoded.
    Encoded(EncodedGroup),
    /// The machine's fault, not the clip's: the run stops and can be resumed.
    Failed(ExtractError),
}
