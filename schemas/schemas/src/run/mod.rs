//! Training runs on disk: the folder of a run, its result with all scores, and the file of a sweep over runs.
//!
//! Scores are computed by the crate wavemill-scores, which also has the log of a run.

mod error;
mod evaluation;
mod folder;
mod leaks;
mod result;
mod sweep;

pub use error::RunFilesError;
pub use evaluation::{
    Bootstrap, ClassReport, ClassScore, Draws, Evaluation, Interval, Level, Means, Report,
    SUPPORTED_TRACKS_MIN, SetReport, SetScore, UNITS_PER_CLASS_MIN, Unit,
};
pub use folder::{RunDir, run_stem};
pub use leaks::{ComparedWith, Leak, Leaks, Noun};
pub use result::RunResult;
pub use sweep::{Method, Sweep, TRIALS_MAX, Values};
