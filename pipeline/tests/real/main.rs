//! Library code of the pipeline on real files; one binary, a module a subject.

use wavemill_tests::{Arguments, Trial};

fn main() {
    let tests: Vec<Trial> = Vec::new();
    wavemill_tests::run(&Arguments::from_args(), tests).exit();
}
