//! File formats of a wavemill store and of training runs, without code that reads or writes stores.
//!
//! Contains recipes, training configurations and experiments (TOML), manifests, receipts and results of runs (JSON),
//! reject reasons and Arrow schemas, the hash functions for identities, and random numbers derived from such hashes.
//! The pipeline writes stores; the loader and the trainer read them. Engine and audio code is in other crates.

pub mod canonical;
pub mod clip;
pub mod columns;
pub mod config;
pub mod durable;
pub mod exit;
pub mod experiment;
pub mod input;
#[cfg(test)]
mod key_tables;
pub mod local_path;
pub mod manifest;
pub mod number;
pub mod recipe;
pub mod reject;
pub mod rng;
#[cfg(feature = "arrow")]
pub mod row_arrays;
pub mod run;
pub mod samples;
pub mod settings;
pub mod size;
pub mod split;
#[cfg(feature = "arrow")]
pub mod tables;
#[cfg(feature = "arrow")]
pub mod tensor_arrays;
pub mod text;
pub mod version_name;
mod wording;

pub use wavemill_options::named_enum;

/// Revision of all code that determines stored values (decode rules, kernels, packing). Part of every identity:
/// increment it if a code change alters a stored value, or rejects a clip that had rows before.
pub const NUMERICS_REVISION: u32 = 9;

/// Value of `format_version` in manifests that this crate writes and reads.
pub const FORMAT_VERSION: u32 = 3;
