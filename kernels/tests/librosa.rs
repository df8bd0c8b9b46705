//! Kernels against librosa's own values on real clips.

use wavemill_tests::{Arguments, Trial};

fn main() {
    let tests: Vec<Trial> = Vec::new();
    wavemill_tests::run(&Arguments::from_args(), tests).exit();
}
