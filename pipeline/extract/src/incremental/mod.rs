//! Incremental rebuilding: what a new version takes over from its parent, and what a run still has to compute.
//!
//! The parent is the latest version of the store. [`crate::run::run`] calls this folder in the following order:
//!
//! 1. `input` lists the audio and cleans the metadata. The store is not read.
//! 2. `draft` plans the version: [`parent`] reads the splits, class ids and shard counts that the parent assigned,
//!    `renames` finds files with a new name, `shrink` refuses a run without most of the parent's files, and
//!    `moves` reports tracks that change splits. `plan` is the result, a pure function of the rows, the recipe and
//!    the parent.
//! 3. `Store::decide` (crate `wavemill-store`, `resume.rs`) compares the plan's identity with the latest version:
//!    nothing to do, refuse, or go on. [`changes`] lists the differences. `Store::refuse_other_engine` refuses to
//!    start if an unfinished plan differs only in its engine.
//! 4. `EarlierRuns::finished` in `reuse` finds the files that exist already. This is where a killed run finds its
//!    finished shards: each has a receipt (`wavemill-store`, `receipts.rs`), and the receipt's key (`shards/key.rs`)
//!    covers everything that determines the file's bytes. `known` supplies the content hashes of the inputs for these
//!    keys, from the `_seen` records beside the receipts if the files' stamps are unchanged. Files of other plans with
//!    equal keys are linked. The rest is divided into passes.
//! 5. `take` selects the rows that a pass copies from the parent, because their input and their feature are
//!    unchanged; `shards/taken.rs` reads them.
//!
//! Invariants:
//! - Stamps (modification times, CRC-32) only save reads. Equal inputs give equal bytes, whatever was reused.
//! - A file counts as finished only if its receipt's key, its length and its BLAKE3 hash are as expected
//!   (`Store::holds`). A preview checks only the key.
//! - In a pass, either all features of a clip are copied or all are computed.

pub mod changes;
pub(crate) mod copies;
pub(crate) mod draft;
pub(crate) mod input;
pub(crate) mod known;
pub(crate) mod moves;
pub mod parent;
pub(crate) mod plan;
pub(crate) mod renames;
pub(crate) mod reuse;
pub(crate) mod shrink;
pub(crate) mod take;
