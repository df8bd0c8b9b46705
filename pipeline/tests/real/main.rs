//! Library code of the pipeline on real files; one binary, a module a subject.

mod catalog;

use wavemill_tests::Arguments;

fn main() {
    let tests = catalog::trials();
    wavemill_tests::run(&Arguments::from_args(), tests).exit();
}
