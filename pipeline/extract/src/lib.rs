//! From an archive to a committed version of a store. [`run::run`] is the whole flow.

mod engine;
pub mod error;
pub mod features;
pub mod incremental;
pub mod job;
pub mod onnx;
pub mod run;
pub mod settings;
pub mod single;
pub mod threads;
