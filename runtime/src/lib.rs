//! State that all stages of a run share: its limits, memory permits, progress and cancellation, and panics as errors.

pub mod budget;
pub mod clock;
pub mod course;
pub mod panics;
pub mod settings;
