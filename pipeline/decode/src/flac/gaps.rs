//! Finds gaps between FLAC frames. The numbers in the frames show how many samples are missing.

use super::frames::Frame;
use super::header::{Header, Number};

/// Audio that is missing between two consecutive FLAC frames of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gap {
    /// No audio is missing.
    None,
    /// This many samples are missing, according to the numbers of the frames before and after the gap.
    Known(u64),
    /// Audio of unknown length: bytes were skipped, and the frames' numbers do not show how many samples they
    /// contained.
    Unknown,
}

/// Finds gaps from the sequence of FLAC frames in a file.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct GapTracker {
    last: Option<Header>,
}

impl GapTracker {
    /// Returns the gap between the previous frame and the next one.
    pub(super) fn gap(&mut self, frame: &Frame) -> Gap {
        let has_bytes = frame.skipped_bytes > 0;
        let number = frame.header.number;
        let gap = match self.last {
            // A stream that was cut out of another may begin with any frame number. Bytes that were skipped before its
            // first frame contained audio.
            None if has_bytes => between(Number::first(number), number, frame.header.n_samples),
            None => Some(0),
            // Use the number of samples of the previous frame, because the last frame of a stream may be shorter.
            Some(last) => between(last.next(), number, last.n_samples),
        };
        self.last = Some(frame.header);

        match gap {
            Some(0) => Gap::None,
            Some(n_samples) => Gap::Known(n_samples),
            // Frame numbers decrease where streams were joined or frames are duplicated. If no bytes were skipped, no
            // audio was lost there.
            None if has_bytes => Gap::Unknown,
            None => Gap::None,
        }
    }
}

impl Number {
    /// Returns the number of a stream's first frame: a frame number or a sample number, as `like` is.
    fn first(like: Self) -> Self {
        match like {
            Self::Frame(_) => Self::Frame(0),
            Self::Sample(_) => Self::Sample(0),
        }
    }
}

impl Header {
    /// Returns the number that the following frame should have.
    pub(super) fn next(&self) -> Number {
        match self.number {
            Number::Frame(frame) => Number::Frame(frame + 1),
            Number::Sample(sample) => Number::Sample(sample + u64::from(self.n_samples)),
        }
    }
}

/// Returns the number of samples from position `expected` to position `found`; `None` if `found` is smaller or only one
/// of them is a frame number. For frame numbers, each frame has `frame_samples` samples.
fn between(expected: Number, found: Number, frame_samples: u32) -> Option<u64> {
    match (expected, found) {
        (Number::Frame(expected), Number::Frame(found)) => {
            Some(found.checked_sub(expected)? * u64::from(frame_samples))
        }
        (Number::Sample(expected), Number::Sample(found)) => found.checked_sub(expected),
        _ => None,
    }
}
