//! Helpers shared by tests of several crates: the location of the real test data, tests that are ignored if it is
//! missing, and the options of features.

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

/// Returns the `FeatureSpec` with these options as a recipe gives them, and without others: `options!(n_fft: 512)`. After
/// a semicolon follows the `FeatureSpec` with the others: `options!(lag: 3; small())`. As in a struct, `lag` is short for
/// `lag: lag`.
#[macro_export]
macro_rules! options {
    ($($key:ident $(: $value:expr)?),+) => {
        $crate::options!($($key $(: $value)?),+; FeatureSpec::default())
    };
    ($($key:ident $(: $value:expr)?),+; $others:expr) => {
        FeatureSpec {
            $($key: $crate::options!(@ $key $($value)?),)+
            ..$others
        }
    };
    // An option may be absent, so the value or an `Option` of it is accepted.
    (@ $key:ident) => {
        From::from($key)
    };
    (@ $key:ident $value:expr) => {
        From::from($value)
    };
}
