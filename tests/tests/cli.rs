//! To come.

use wavemill_tests::Trial;

pub fn trials() -> Vec<Trial> {
    Vec::new()
}
