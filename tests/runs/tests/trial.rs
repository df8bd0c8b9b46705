//! Registration of tests. A test is a function below the attribute `#[apply(trial)]`.

use wavemill_tests::Trial;

/// Creates the trials of a test function, or of a table of cases.
pub(crate) struct Trials(pub fn() -> Vec<Trial>);

inventory::collect!(Trials);

/// Registers a function as the test `module::function`.
///
/// A function with the parameter `data: &Path` receives the folder of real test data, and is ignored if that data is
/// missing. Below `#[needs(first, second)]`, a test is ignored unless the functions `first` and `second` return true.
macro_rules! trial {
    (
        $(#[doc = $doc:literal])*
        $(#[needs($($need:path),+)])?
        fn $name:ident() $($rest:tt)*
    ) => {
        $(#[doc = $doc])*
        fn $name() $($rest)*

        inventory::submit!($crate::trial::Trials(|| {
            let name = $crate::trial::name(module_path!(), stringify!($name));
            let trial = wavemill_tests::Trial::test(name, $name);
            vec![$crate::trial::with_needs(trial, &[$($($need),+)?])]
        }));
    };

    (
        $(#[doc = $doc:literal])*
        $(#[needs($($need:path),+)])?
        fn $name:ident($data:ident: &Path) $($rest:tt)*
    ) => {
        $(#[doc = $doc])*
        fn $name($data: &Path) $($rest)*

        inventory::submit!($crate::trial::Trials(|| {
            let name = $crate::trial::name(module_path!(), stringify!($name));
            let trial = wavemill_tests::real(&name, $name);
            vec![$crate::trial::with_needs(trial, &[$($($need),+)?])]
        }));
    };
}

/// Returns the name of a test: the path of its function without the name of this crate.
pub(crate) fn name(module_path: &str, function: &str) -> String {
    let (_, module) = module_path.split_once("::").unwrap();
    format!("{module}::{function}")
}

/// Marks a trial as ignored unless all `needs` return true.
pub(crate) fn with_needs(trial: Trial, needs: &[fn() -> bool]) -> Trial {
    let ignored = trial.has_ignored_flag() || !needs.iter().all(|is_met| is_met());
    trial.with_ignored_flag(ignored)
}

/// Returns all registered trials, sorted by name.
pub(crate) fn all() -> Vec<Trial> {
    let mut trials = Vec::new();
    for registered in inventory::iter::<Trials> {
        trials.extend((registered.0)());
    }

    trials.sort_by(|a, b| a.name().cmp(b.name()));
    trials
}
