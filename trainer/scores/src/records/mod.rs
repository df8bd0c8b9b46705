//! The files of a run in `runs/<id>/`: configuration, log, TensorBoard events, checkpoints and result.
//!
//! The log is authoritative; the TensorBoard events repeat its figures for other tools. Times are written only to log
//! and events. This module writes no checkpoints, it only defines their paths.

mod log;
mod run_dir;
mod tensorboard;

pub use log::{Entry, Log, PROFILE_OTHERS, PROFILE_PARTS, read_log};
pub use run_dir::{RunDir, run_stem};
pub use tensorboard::{EventWriter, ResumePoint};
