//! Fingerprints that identify recordings: Chromaprint's algorithm 1 (`TEST2`), which AcoustID and `fpcalc` use.
//!
//! Shape: `[n_samples]` at 11,025 Hz → `[n_items]` of u32, one item for each 0.124 s. An item has 32 bits that describe the
//! energies of the 12 notes over the following 2.7 s, relative to each other, so it depends on neither loudness nor
//! encoding. Source: <https://github.com/acoustid/chromaprint>, whose tables are under the MIT licence.
//!
//! The crate `rusty-chromaprint`, with which the tests compare the items, is not used: it is slower, and its transform
//! selects its instructions at run time, so its bits depend on the machine.

mod cpu;
mod filters;

pub use cpu::Fingerprinter;

/// Sample rate of the samples of which fingerprints are made, in Hz.
pub const FINGERPRINT_RATE_HZ: u32 = 11_025;
/// Number of samples from one item to the next.
pub const ITEM_SAMPLES: usize = 1365;
