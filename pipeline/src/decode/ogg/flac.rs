//! FLAC in Ogg goes through symphonia's own demuxer, which is not to be trusted: it panics at some granules, and stops at
//! the end of the first of several chained streams.

use std::panic::{AssertUnwindSafe, catch_unwind};

use wavemill_schemas::reject::{Reason, Reject};

use super::super::{mp3, reject};
use super::pages::Pages;

/// Reads such a file; what symphonia panics at is damaged.
///
/// # Errors
/// The [`Reject`] of `read`, or one for its panic.
pub fn guarded<T>(read: impl FnOnce() -> Result<T, Reject>) -> Result<T, Reject> {
    // What it leaves half done is begun anew for the next clip: a sink empties what it writes to, and resets its filter.
    catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(reject(Reason::Damaged, "the reader of FLAC in Ogg gives up at it")))
}

/// How much there is behind the first stream, which nobody decodes, in parts of that.
pub fn chained_share(file: &[u8]) -> f64 {
    let mut first_bytes = 0;
    let mut later_bytes = 0;
    let mut has_audio = false;
    let mut is_later = false;

    for page in Pages::new(file, mp3::behind_tags(file)) {
        // First pages come before all others, unless another link begins with them.
        is_later |= page.is_first && has_audio;
        has_audio |= !page.is_first;
        let bytes = if is_later { &mut later_bytes } else { &mut first_bytes };
        *bytes += page.body().len();
    }
    later_bytes as f64 / (first_bytes as f64).max(1.0)
}
