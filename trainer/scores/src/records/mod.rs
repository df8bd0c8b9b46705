//! The log of a run and its TensorBoard events, in the run's folder.
//!
//! The log is authoritative; the TensorBoard events repeat its figures for other tools. Times are written only to log
//! and events.

mod log;
mod tensorboard;

pub use log::{Entry, Log, PROFILE_OTHERS, PROFILE_PARTS, read_log};
pub use tensorboard::EventWriter;
