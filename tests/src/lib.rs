//! What every test binary shares: where the real data lies, and a trial that shows as ignored where it is absent.

use std::path::{Path, PathBuf};

pub use libtest_mimic::{Arguments, Failed, Trial, run};

/// The folder of real inputs: `WAVEMILL_DATA`, else `../shared/data` beside the checkout; `None` where there is none.
pub fn data_dir() -> Option<PathBuf> {
    let folder = match std::env::var_os("WAVEMILL_DATA") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"),
    };
    folder.canonicalize().ok()
}

/// A test on real data. Without the data it shows as ignored, and fails under `WAVEMILL_REQUIRE_DATA=1`.
pub fn real(name: &str, body: impl FnOnce(&Path) -> Result<(), Failed> + Send + 'static) -> Trial {
    let data = data_dir();
    let required = std::env::var("WAVEMILL_REQUIRE_DATA").is_ok_and(|value| value == "1");

    // Where the data must be there, its absence is a failure and never a test that was not run.
    let ignored = data.is_none() && !required;
    let trial = Trial::test(name, move || match data {
        Some(folder) => body(&folder),
        None => Err("the real test data is absent: set WAVEMILL_DATA to its folder".into()),
    });
    trial.with_ignored_flag(ignored)
}
