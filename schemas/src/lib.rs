//! What a wavemill store holds on disk, and nothing that reads or writes it.
//!
//! Recipes (TOML), manifests and receipts (JSON), reject reasons and Arrow schemas, with the hash functions that give
//! them their identities. The pipeline writes these, the trainer reads them; neither engine nor audio code lives here.

pub mod canonical;
pub mod manifest;
pub mod recipe;
pub mod reject;
pub mod settings;
pub mod tables;
pub mod text;

/// The revision of everything that decides stored numbers (decode rules, kernels, packing). Part of every identity:
/// raise it when a change of code changes a stored value.
pub const NUMERICS_REVISION: u32 = 2;

/// `format_version` of the manifests that this crate writes. It reads those before, too.
pub const FORMAT_VERSION: u32 = 2;
