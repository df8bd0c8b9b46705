//! Makes fingerprints of files for a thread that looks for copies of recordings.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use wavemill_decode::{Decode, DecodeArgs, FileDecoder, Pcm};
use wavemill_kernels::chromaprint::{FINGERPRINT_RATE_HZ, Fingerprinter};
use wavemill_kernels::{KernelError, Level};

use super::clip::extension;
use crate::error::ExtractError;

/// Seconds of a file that are fingerprinted, as AcoustID does.
const SECONDS_MAX: f64 = 120.0;

/// Decodes files and makes their fingerprints. The buffers are kept from file to file.
pub(super) struct FileFingerprinter {
    level: Level,
    // Dropped after a panic, which may leave it in an invalid state, and created again.
    decoder: Option<FileDecoder>,
    fingerprinter: Fingerprinter,
    pcm: Pcm,
}

impl FileFingerprinter {
    /// Upper bound on the bytes that a fingerprint takes in addition to the file: the samples, twice while their buffer
    /// grows.
    pub(super) const BYTES: u64 = 8 * SECONDS_MAX as u64 * FINGERPRINT_RATE_HZ as u64;

    /// # Errors
    /// [`KernelError::Level`] if this machine does not support the level.
    pub(super) fn new(level: Level) -> Result<Self, KernelError> {
        Ok(Self {
            level,
            decoder: None,
            fingerprinter: Fingerprinter::new(level)?,
            pcm: Pcm::default(),
        })
    }

    /// Returns the fingerprint of the file of a clip; empty if the file is rejected or too short for an item.
    ///
    /// # Errors
    /// None in practice: every decoder converts to this rate.
    pub(super) fn run(&mut self, clip_key: &str, bytes: &[u8]) -> Result<Arc<[u32]>, ExtractError> {
        let Self {
            level,
            decoder,
            fingerprinter,
            pcm,
        } = self;
        let decoder = match decoder {
            Some(decoder) => decoder,
            none => {
                let args = DecodeArgs {
                    sample_rate_hz: FINGERPRINT_RATE_HZ,
                    duration_s: Some(SECONDS_MAX),
                    min_duration_s: 0.0,
                    keep_rate: false,
                };
                // The sub-bands that this leaves out are above all notes.
                none.insert(FileDecoder::new(args, *level)?.by_band())
            }
        };

        let items = catch_unwind(AssertUnwindSafe(|| {
            decoder.decode(extension(clip_key), bytes, pcm).ok()?;
            let samples = &pcm.samples[..pcm.n_samples.min(pcm.samples.len())];
            fingerprinter.run(samples).ok().map(Arc::from)
        }));
        if items.is_err() {
            self.decoder = None;
        }
        // The run counts rejects and panics when it processes the clip.
        Ok(items.ok().flatten().unwrap_or_default())
    }
}
