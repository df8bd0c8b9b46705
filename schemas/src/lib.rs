//! What a wavemill store holds on disk, and nothing that reads or writes it.
//!
//! Recipes, configurations of training and experiments (TOML), manifests and receipts (JSON), reject reasons and Arrow
//! schemas, with the hash functions that give them their identities, and the random numbers that follow from such
//! hashes. The pipeline writes stores, the loader and the trainer read them; neither engine nor audio code lives here.

pub mod canonical;
mod columns;
pub mod config;
mod exact;
pub mod exit;
pub mod experiment;
pub mod local_path;
pub mod manifest;
pub mod recipe;
pub mod reject;
pub mod rng;
pub mod samples;
pub mod settings;
pub mod sides;
pub mod tables;
pub mod text;
pub mod version_name;

/// The revision of everything that decides stored numbers (decode rules, kernels, packing). Part of every identity:
/// raise it when a change of code changes a stored value, or makes a reject of a clip that was a row.
pub const NUMERICS_REVISION: u32 = 6;

/// `format_version` of the manifests that this crate writes and reads.
pub const FORMAT_VERSION: u32 = 3;
