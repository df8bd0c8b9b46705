//! State that all stages of a run share: memory permits, progress and cancellation, and panics as errors. Also
//! checks the footers of Parquet files, which several stages read.

pub mod budget;
pub mod clock;
pub mod panics;
pub mod parallel;
pub mod parquet_footer;
pub mod progress;

// In place of the standard library's, tests/schedules.rs gives `budget` the primitives of shuttle.
use std::sync;
