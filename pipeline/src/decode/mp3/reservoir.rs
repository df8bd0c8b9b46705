//! The main data of frames, which may begin in the frames before, and the books on what is missing of it.
//!
//! Main data of frames follow one another without overlap; `main_data_begin` may not reach back over bytes that the
//! previous frame used, nor before the first byte there is. Where it does, a frame in between is gone.

use wavemill_kernels::mp3::MainData;

use super::header::SideInfo;

const GRANULE_SAMPLES: u64 = 576;

/// The bytes that the frame in hand and later ones may refer to.
#[derive(Debug, Default)]
pub(super) struct Reservoir {
    bytes: Vec<u8>,
    /// How many of them the frame in hand uses up.
    n_used: usize,
    /// Bits that the frame in hand refers to and that are not there.
    n_missing_bits: usize,
    /// A frame has had all its bits: from now on a missing bit is damage.
    was_complete: bool,
}

impl Reservoir {
    /// A frame enters with its own main data; returns the samples that the decoder replaces by zeros for want of bits,
    /// and whether they are damage (before the first complete frame they are not: a clip cut by stream copy starts so).
    pub(super) fn enter(&mut self, side: &SideInfo, main_data: &[u8]) -> MissingBits {
        // Of what the frame before left, the last bytes are this one's. What lies before them is filling.
        let n_unread = self.bytes.len() - self.n_used;
        let n_reused = side.main_data_begin.min(n_unread);
        self.bytes.drain(..self.bytes.len() - n_reused);
        self.bytes.extend_from_slice(main_data);

        let underflow_bits = 8 * (side.main_data_begin - n_reused);
        self.n_missing_bits = underflow_bits;

        // The bits that are missing are those of the first granules, which come out as zeros.
        let mut skipped_bits = 0;
        let mut used_bits = 0;
        let mut zeroed_granules = 0;
        for granule_bits in side.granule_bits.into_iter().flatten() {
            if skipped_bits < underflow_bits {
                zeroed_granules += 1;
                skipped_bits += granule_bits as usize;
                used_bits = skipped_bits.saturating_sub(underflow_bits);
            } else {
                used_bits += granule_bits as usize;
            }
        }
        self.n_used = used_bits.div_ceil(8).min(self.bytes.len());

        self.was_complete |= underflow_bits == 0;
        MissingBits {
            samples: zeroed_granules * GRANULE_SAMPLES,
            is_damage: self.was_complete,
        }
    }

    /// The main data of the frame that entered last.
    pub(super) fn main_data(&self) -> MainData<'_> {
        MainData {
            bytes: &self.bytes,
            n_missing_bits: self.n_missing_bits,
        }
    }

    /// Some frame has had all its bits.
    pub(super) fn was_complete(&self) -> bool {
        self.was_complete
    }

    /// A frame did not decode, or a hole follows: nothing is left to refer to.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.n_used = 0;
    }

    /// Forgets everything: another stream follows.
    pub(super) fn restart(&mut self) {
        self.clear();
        self.was_complete = false;
    }
}

/// Samples of a frame that came out as zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MissingBits {
    /// Samples a channel.
    pub samples: u64,
    /// They count as lost.
    pub is_damage: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(reservoir: &mut Reservoir, main_data_begin: usize, granule_bits: u32) -> (u64, bool) {
        let side = SideInfo {
            main_data_begin,
            granule_bits: [Some(granule_bits); 2],
        };
        // 128 kbit/s at 44.1 kHz: 417 bytes, 381 of main data.
        let missing = reservoir.enter(&side, &[0; 381]);
        (missing.samples, missing.is_damage)
    }

    #[test]
    fn a_stream_cut_at_the_start_is_no_damage_until_it_was_whole() {
        let mut reservoir = Reservoir::default();
        assert_eq!(enter(&mut reservoir, 300, 8 * 150), (1152, false));
        assert_eq!(enter(&mut reservoir, 0, 8 * 150), (0, true));
        assert_eq!(enter(&mut reservoir, 81, 8 * 150), (0, true));
    }

    #[test]
    fn a_missing_frame_shows_where_main_data_would_overlap() {
        let mut reservoir = Reservoir::default();
        assert_eq!(enter(&mut reservoir, 0, 8 * 190), (0, true));
        // One byte is left: the next may go back one byte, not a hundred.
        assert_eq!(enter(&mut reservoir, 1, 8 * 190), (0, true));
        assert_eq!(enter(&mut reservoir, 100, 8 * 190), (576, true));
    }
}
