//! The pipeline on real files, and on one store as large as real ones; one binary, a module a subject.

// clippy knows tests by `cfg(test)`, which a test binary without the standard harness lacks.
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
// Makes stores; the tests of SQL beside the code use the rest of it.
#[allow(dead_code)]
#[path = "../../src/sql/testing.rs"]
mod testing;

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
