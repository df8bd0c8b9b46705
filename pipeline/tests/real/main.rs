//! Library code of the pipeline on real files; one binary, a module a subject.

// clippy knows tests by `cfg(test)`, which a test binary without the standard harness lacks.
#![allow(clippy::unwrap_used)]

mod catalog;
mod conformance;
mod damaged;
mod decode;

use wavemill_tests::Arguments;

fn main() {
    let tests = [catalog::trials(), conformance::trials(), damaged::trials(), decode::trials()];
    wavemill_tests::run(&Arguments::from_args(), tests.into_iter().flatten().collect()).exit();
}
