//! The bit reservoir of an MP3 stream: the main data of frames, which may begin in earlier frames, and the number of
//! bits missing from them.
//!
//! The main data of consecutive frames do not overlap: `main_data_begin` may reach neither into bytes that the previous
//! frame used, nor before the first available byte. If it reaches further back, a frame in between is missing.

use crate::layer3::MainData;

const GRANULE_SAMPLES: u64 = 576;

/// Main data that the current MP3 frame and later ones may refer to.
#[derive(Debug, Default)]
pub(super) struct Reservoir {
    bytes: Vec<u8>,
    /// Number of reservoir bytes that the current frame uses.
    n_used: usize,
    /// Number of missing bits that the current frame refers to.
    n_missing_bits: usize,
    /// True once a frame was complete. From then on, missing bits count as damage.
    was_complete: bool,
}

impl Reservoir {
    /// Adds a frame with its own main data. The main data of its granules begin `main_data_begin` bytes before the
    /// frame's own main data and have `granule_bits` bits.
    ///
    /// Returns the number of samples that the decoder replaces by zeros because of missing bits, and whether they are
    /// damage. They are not before the first complete frame, because a clip cut by stream copy starts in this way.
    pub(super) fn enter(
        &mut self,
        main_data_begin: usize,
        granule_bits: &[usize],
        main_data: &[u8],
    ) -> MissingBits {
        // The frame uses the last unused bytes of the previous frame. Any unused bytes before them are padding.
        let n_unread = self.bytes.len() - self.n_used;
        let n_reused = main_data_begin.min(n_unread);
        self.bytes.drain(..self.bytes.len() - n_reused);
        self.bytes.extend_from_slice(main_data);

        let underflow_bits = 8 * (main_data_begin - n_reused);
        self.n_missing_bits = underflow_bits;

        // The missing bits belong to the frame's first granules, which are decoded as zeros.
        let mut skipped_bits = 0;
        let mut used_bits = 0;
        let mut zeroed_granules = 0;
        for n_bits in granule_bits {
            if skipped_bits < underflow_bits {
                zeroed_granules += 1;
                skipped_bits += n_bits;
                used_bits = skipped_bits.saturating_sub(underflow_bits);
            } else {
                used_bits += n_bits;
            }
        }
        self.n_used = used_bits.div_ceil(8).min(self.bytes.len());

        self.was_complete |= underflow_bits == 0;
        MissingBits {
            samples: zeroed_granules * GRANULE_SAMPLES,
            is_damage: self.was_complete,
        }
    }

    /// Returns the main data of the frame that was added last.
    pub(super) fn main_data(&self) -> MainData<'_> {
        MainData {
            bytes: &self.bytes,
            n_missing_bits: self.n_missing_bits,
        }
    }

    /// Reports whether any frame since the last restart was complete.
    pub(super) fn was_complete(&self) -> bool {
        self.was_complete
    }

    /// Discards all main data. Called if a frame could not be decoded or a gap follows.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.n_used = 0;
    }

    /// Resets the reservoir for another MP3 stream.
    pub(super) fn restart(&mut self) {
        self.clear();
        self.was_complete = false;
    }
}

/// Samples of a frame that the decoder replaces by zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MissingBits {
    /// Number of samples per channel.
    pub samples: u64,
    /// True if the samples count as lost.
    pub is_damage: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(reservoir: &mut Reservoir, main_data_begin: usize, n_bits: usize) -> (u64, bool) {
        // Size of a frame of 128 kbit/s at 44.1 kHz: 417 bytes, 381 of which are main data.
        let missing = reservoir.enter(main_data_begin, &[n_bits; 2], &[0; 381]);
        (missing.samples, missing.is_damage)
    }

    #[test]
    fn missing_reservoir_at_the_start_is_not_damage() {
        let mut reservoir = Reservoir::default();
        assert_eq!(enter(&mut reservoir, 300, 8 * 150), (1152, false));
        assert_eq!(enter(&mut reservoir, 0, 8 * 150), (0, true));
        assert_eq!(enter(&mut reservoir, 81, 8 * 150), (0, true));
    }

    #[test]
    fn missing_frame_is_detected_by_overlapping_main_data() {
        let mut reservoir = Reservoir::default();
        assert_eq!(enter(&mut reservoir, 0, 8 * 190), (0, true));
        // One byte of the reservoir is unused: the next frame may reach back one byte, but not a hundred.
        assert_eq!(enter(&mut reservoir, 1, 8 * 190), (0, true));
        assert_eq!(enter(&mut reservoir, 100, 8 * 190), (576, true));
    }
}
