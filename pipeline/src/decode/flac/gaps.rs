//! Where frames stand in time: their numbers tell how much is missing between them.

use super::frames::Frame;
use super::header::{Header, Number};

/// What lies between a frame and the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gap {
    /// Nothing that was audio.
    None,
    /// So many samples, by the numbers of the frames around it.
    Known(u64),
    /// Bytes that were audio, of a length that no number tells.
    Unknown,
}

/// Follows the frames of a file.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct GapTracker {
    last: Option<Header>,
}

impl GapTracker {
    /// The gap before the next frame.
    pub(super) fn gap(&mut self, frame: &Frame) -> Gap {
        let has_bytes = frame.skipped_bytes > 0;
        let number = frame.header.number;
        let gap = match self.last {
            // A stream that was cut out of another begins with any number. Where something stood before, it was audio.
            None if has_bytes => between(Number::first(number), number, frame.header.n_samples),
            None => Some(0),
            // By the size of the frame before: the last one of a stream may be shorter.
            Some(last) => between(last.next(), number, last.n_samples),
        };
        self.last = Some(frame.header);

        match gap {
            Some(0) => Gap::None,
            Some(n_samples) => Gap::Known(n_samples),
            // Numbers go back where streams were joined or frames are there twice: nothing is lost by that alone.
            None if has_bytes => Gap::Unknown,
            None => Gap::None,
        }
    }
}

impl Number {
    /// The number of this kind that a stream begins with.
    fn first(like: Self) -> Self {
        match like {
            Self::Frame(_) => Self::Frame(0),
            Self::Sample(_) => Self::Sample(0),
        }
    }
}

impl Header {
    /// The number that the frame behind this one has.
    pub(super) fn next(&self) -> Number {
        match self.number {
            Number::Frame(frame) => Number::Frame(frame + 1),
            Number::Sample(sample) => Number::Sample(sample + u64::from(self.n_samples)),
        }
    }
}

/// Samples from the place `expected` to the place `found`; `None` where it lies before, or is told in another way.
/// Frames that are counted have `frame_samples` each.
fn between(expected: Number, found: Number, frame_samples: u32) -> Option<u64> {
    match (expected, found) {
        (Number::Frame(expected), Number::Frame(found)) => {
            Some(found.checked_sub(expected)? * u64::from(frame_samples))
        }
        (Number::Sample(expected), Number::Sample(found)) => found.checked_sub(expected),
        _ => None,
    }
}
