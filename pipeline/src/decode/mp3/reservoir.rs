//! Which granules lack their bits: symphonia puts zeros in their place and says nothing, so its bookkeeping is redone.
//!
//! Main data of frames follow one another without overlap; `main_data_begin` may not reach back over bytes that the
//! previous frame used, nor before the first byte there is. Where it does, a frame in between is gone.

use super::header::{Header, SideInfo};

const GRANULE_SAMPLES: u64 = 576;

/// The bytes that later frames may still refer to.
#[derive(Debug, Default)]
pub(super) struct Reservoir {
    unread_bytes: usize,
    /// A frame has had all its bits: from now on a missing bit is damage.
    was_complete: bool,
}

impl Reservoir {
    /// A frame enters; returns the samples that the decoder replaces by zeros for want of bits, and whether they are
    /// damage (before the first complete frame they are not: a clip cut by stream copy starts so).
    pub(super) fn enter(&mut self, header: &Header, side: &SideInfo) -> MissingBits {
        // No underflow: in MPEG-2 the shortest frame has 24 bytes (8 kbit/s at 24 kHz) and at most 23 of them come
        // before the main data; in MPEG-1 it has 96, and 38 of them.
        let main_data_bytes = header.bytes - header.main_data_offset();
        // Bits that the frame refers to and that are not there.
        let underflow_bits = 8 * side.main_data_begin.saturating_sub(self.unread_bytes) as u32;
        let reused_bytes = side.main_data_begin.min(self.unread_bytes);

        // The bits that are missing are those of the first granules, which come out as zeros.
        // Counted as symphonia's `read_main_data` does it, over all channels of a granule at once.
        let mut skipped_bits = 0;
        let mut used_bits = 0;
        let mut zeroed_granules = 0;
        for granule_bits in side.granule_bits.into_iter().flatten() {
            if skipped_bits < underflow_bits {
                zeroed_granules += 1;
                skipped_bits += granule_bits;
                used_bits = skipped_bits.saturating_sub(underflow_bits);
            } else {
                used_bits += granule_bits;
            }
        }

        // Later frames may refer to what this one did not use.
        self.unread_bytes =
            (reused_bytes + main_data_bytes).saturating_sub(used_bits.div_ceil(8) as usize);

        self.was_complete |= underflow_bits == 0;
        MissingBits {
            samples: zeroed_granules * GRANULE_SAMPLES,
            is_damage: self.was_complete,
        }
    }

    /// Some frame has had all its bits.
    pub(super) fn was_complete(&self) -> bool {
        self.was_complete
    }

    /// The decoder failed or was reset: nothing is left to refer to.
    pub(super) fn clear(&mut self) {
        self.unread_bytes = 0;
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
        // 128 kbit/s at 44.1 kHz: 417 bytes, 381 of main data.
        let header = Header::parse(&[0xFF, 0xFB, 0x90, 0x64]).unwrap();
        let side = SideInfo {
            main_data_begin,
            granule_bits: [Some(granule_bits); 2],
        };
        let missing = reservoir.enter(&header, &side);
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
