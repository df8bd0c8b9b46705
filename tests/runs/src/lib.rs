//! Helpers shared by all test binaries: the location of the real test data, and tests that are ignored if it is
//! missing.

use std::path::{Path, PathBuf};

pub use libtest_mimic::{Arguments, Failed, Trial, run};

/// Returns the folder of real test data: `WAVEMILL_DATA`, by default `../shared/data` next to the checkout. Returns
/// `None` if the folder does not exist.
pub fn data_dir() -> Option<PathBuf> {
    let folder = match std::env::var_os("WAVEMILL_DATA") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"),
    };
    folder.canonicalize().ok()
}

/// Creates a test that needs the real test data. If the data is missing, the test is ignored, or fails under
/// `WAVEMILL_REQUIRE_DATA=1`.
pub fn real(name: &str, body: impl FnOnce(&Path) -> Result<(), Failed> + Send + 'static) -> Trial {
    let data = data_dir();
    let required = std::env::var("WAVEMILL_REQUIRE_DATA").is_ok_and(|value| value == "1");

    // If the data is required, the test runs and fails, because an ignored test would look like success.
    let ignored = data.is_none() && !required;
    let trial = Trial::test(name, move || match data {
        Some(folder) => body(&folder),
        None => Err("the real test data is absent: set WAVEMILL_DATA to its folder".into()),
    });
    trial.with_ignored_flag(ignored)
}
