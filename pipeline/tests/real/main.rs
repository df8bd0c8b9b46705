//! Library code of the pipeline on real files; one binary, a module a subject.

mod conformance;
mod damaged;
mod decode;

use wavemill_tests::Arguments;

fn main() {
    let tests = [conformance::trials(), damaged::trials(), decode::trials()].into_iter().flatten().collect();
    wavemill_tests::run(&Arguments::from_args(), tests).exit();
}
