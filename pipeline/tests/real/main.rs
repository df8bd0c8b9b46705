//! Library code of the pipeline on real files; one binary, a module a subject.

// clippy knows tests by `cfg(test)`, which a test binary without the standard harness lacks.
#![allow(clippy::unwrap_used)]

mod conformance;
mod damaged;
mod decode;

use wavemill_tests::Arguments;

fn main() {
    let tests = [conformance::trials(), damaged::trials(), decode::trials()].into_iter().flatten().collect();
    wavemill_tests::run(&Arguments::from_args(), tests).exit();
}
