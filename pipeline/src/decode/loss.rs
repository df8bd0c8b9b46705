//! What a clip lost to damage, whatever its format.

/// Seconds that are missing or silenced, and where the trouble starts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Loss {
    /// Seconds of audio lost.
    pub lost_s: f64,
    /// The part of `lost_s` that stands in the output as silence.
    pub silenced_s: f64,
    /// Offset in the file of the first damage.
    pub byte_offset: Option<u64>,
}

impl Loss {
    /// Audio that is gone: the output closes up over it.
    pub fn add_missing(&mut self, byte_offset: Option<usize>, seconds: f64) {
        self.lost_s += seconds;
        self.byte_offset = self.byte_offset.or(byte_offset.map(|offset| offset as u64));
    }

    /// Audio in whose place the output has silence.
    pub fn add_silenced(&mut self, byte_offset: Option<usize>, seconds: f64) {
        self.add_missing(byte_offset, seconds);
        self.silenced_s += seconds;
    }
}
