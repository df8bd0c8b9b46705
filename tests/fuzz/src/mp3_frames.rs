//! Fuzz test: decodes arbitrary bytes as MPEG layer III frames. Every decoder must decode them or report an error.
//!
//! Decoders of the mean, which skip codes that cannot be damaged, must fail exactly where the decoder of both channels
//! fails. The input's first byte selects the mono decoder's sub-bands and first sample. The remaining bytes are the file.

#[path = "../../../pipeline/decode/tests/layer3/paths.rs"]
mod paths;
#[path = "../../../pipeline/decode/tests/layer3/stream.rs"]
#[expect(dead_code, reason = "the tests of decoded samples need more of it")]
mod stream;

use std::cell::RefCell;

use paths::{BANDS, Paths};
use stream::{Reservoir, frames};

thread_local! {
    /// Decoders are reused for all inputs, as in a worker, so that state left by one input is noticed.
    static PATHS: RefCell<Paths> = RefCell::new(Paths::new());
}

pub(crate) fn run(input: &[u8]) {
    let Some((&choice, file)) = input.split_first() else {
        return;
    };
    let band = usize::from(choice) % BANDS;
    let phase = usize::from(choice >> 6);

    PATHS.with_borrow_mut(|paths| {
        paths.restart(band, phase);
        let mut reservoir = Reservoir::default();
        for frame in &frames(file) {
            // A frame that cannot be decoded is a valid result. `decode` itself checks its invariants in both cases.
            let _ = reservoir.feed(frame, |side, main| paths.decode(&frame.header, side, main));
        }
    });
}
