//! Any bytes as frames of MPEG layer III: all decoders decode them, or say that they cannot.
//!
//! The first byte chooses the band of the mono decoder, and its first sample. The rest is a file.

#![no_main]

#[path = "../../kernels/tests/mp3/paths.rs"]
mod paths;
#[path = "../../kernels/tests/mp3/stream.rs"]
#[expect(dead_code, reason = "the tests of decoded samples need more of it")]
mod stream;

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use paths::{BANDS, Paths};
use stream::{Reservoir, frames};

thread_local! {
    /// Made once, as a worker makes it.
    static PATHS: RefCell<Paths> = RefCell::new(Paths::new());
}

fuzz_target!(|input: &[u8]| {
    let Some((&choice, file)) = input.split_first() else {
        return;
    };
    let band = usize::from(choice) % BANDS;
    let phase = usize::from(choice >> 6);

    PATHS.with_borrow_mut(|paths| {
        paths.restart(band, phase);
        let mut reservoir = Reservoir::default();
        for frame in &frames(file) {
            // A frame that does not decode is an answer, too. What must hold of both answers is checked in `decode`.
            let _ = reservoir.feed(frame, |side, main| paths.decode(&frame.header, side, main));
        }
    });
});
