//! Tests the pipeline on real files, and on one store of realistic size. One binary, with one module per subject.

// clippy detects tests by `cfg(test)`, which is not set for a test binary without the standard harness.
#![allow(clippy::unwrap_used)]

mod band;
mod batches;
mod catalog;
mod conformance;
mod damaged;
mod decode;
mod hostile;
mod memory;
mod ogg;
use wavemill_tests::Arguments;

fn main() {
    let tests = [
        band::trials(),
        batches::trials(),
        catalog::trials(),
        conformance::trials(),
        damaged::trials(),
        decode::trials(),
        hostile::trials(),
        memory::trials(),
        ogg::trials(),
    ];

    wavemill_tests::run(
        &Arguments::from_args(),
        tests.into_iter().flatten().collect(),
    )
    .exit();
}
