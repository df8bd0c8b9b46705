//! What a clip lost to damage, whatever its format.

/// Seconds that are missing or silenced, and where the trouble starts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Loss {
    /// Seconds of audio lost.
    pub lost_s: f64,
    /// The part of `lost_s` that stands in the output as silence.
    pub silenced_s: f64,
    /// Offset in the file of the first damage.
    pub byte_offset: Option<u64>,
}

impl Loss {
    /// Audio that is gone: the output closes up over it.
    pub(super) fn add_missing(&mut self, byte_offset: Option<usize>, seconds: f64) {
        self.lost_s += seconds;
        self.byte_offset = self.byte_offset.or(byte_offset.map(|offset| offset as u64));
    }

    /// Audio in whose place the output has silence.
    pub(super) fn add_silenced(&mut self, byte_offset: Option<usize>, seconds: f64) {
        self.add_missing(byte_offset, seconds);
        self.silenced_s += seconds;
    }
}

/// How many times as much as is there an announcement may be, and still be believed.
///
/// A count in a header costs its writer nothing, while audio costs bytes. The bytes of a layer III frame span one to ten
/// (32 to 320 kbit/s in MPEG-1). So ten times what is there is about what a file's bytes could hold at the lowest rate of
/// its format. A download that broke off within its first tenth shows by its last frame only.
const ANNOUNCED_TIMES_MAX: u64 = 10;

/// The largest announcement that is believed where so many samples, frames or bytes are `there`. So no announcement counts
/// for more than nine times the audio that came with it.
pub(super) fn credible_max(there: u64) -> u64 {
    there.saturating_mul(ANNOUNCED_TIMES_MAX)
}

/// Whether to believe in `announced` samples, frames or bytes where so many are `there`.
pub(super) fn is_credible(announced: u64, there: u64) -> bool {
    announced <= credible_max(there)
}
