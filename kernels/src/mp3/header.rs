//! What the header of a frame says about decoding it. Lengths and bit rates are for whoever finds the frames.

/// Which edition of the standard a frame follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// ISO/IEC 11172-3: two granules a frame.
    Mpeg1,
    /// ISO/IEC 13818-3, half the rates: one granule a frame.
    Mpeg2,
    /// Half of those rates again, in no standard but in every encoder.
    Mpeg25,
}

/// How the channels of a frame are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One channel.
    Mono,
    /// Two channels that have nothing to do with each other.
    Stereo,
    /// Two channels, of which bands may be coded together.
    Joint {
        /// Middle and side in the place of left and right.
        mid_side: bool,
        /// One channel and a position, above a bound.
        intensity: bool,
    },
}

impl Mode {
    /// Whether any band may be coded for both channels together. Joint stereo may also be left and right.
    pub(super) const fn is_joined(self) -> bool {
        match self {
            Self::Mono | Self::Stereo => false,
            Self::Joint {
                mid_side,
                intensity,
            } => mid_side || intensity,
        }
    }
}

/// The facts of a layer III frame header that its decoding depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Edition.
    pub version: Version,
    /// Which of the edition's three rates, as in the header: 44.1, 48, 32 kHz, or a half or a quarter of them.
    pub(super) rate_index: usize,
    /// Channels.
    pub mode: Mode,
}

impl FrameHeader {
    /// Reads the four bytes of a header; `None` where they are none of layer III. The bit rate is not looked at.
    pub fn parse([sync, b1, b2, b3]: [u8; 4]) -> Option<Self> {
        let version = match b1 >> 3 & 3 {
            0 => Version::Mpeg25,
            2 => Version::Mpeg2,
            3 => Version::Mpeg1,
            _ => return None,
        };
        let is_layer_3 = b1 >> 1 & 3 == 1;
        let rate_index = usize::from(b2 >> 2 & 3);
        if sync != 0xFF || b1 < 0xE0 || !is_layer_3 || rate_index == 3 {
            return None;
        }

        let mode = match b3 >> 6 {
            3 => Mode::Mono,
            1 => Mode::Joint {
                mid_side: b3 >> 5 & 1 == 1,
                intensity: b3 >> 4 & 1 == 1,
            },
            _ => Mode::Stereo,
        };
        Some(Self {
            version,
            rate_index,
            mode,
        })
    }

    /// 1 or 2.
    pub fn n_channels(&self) -> usize {
        if self.mode == Mode::Mono { 1 } else { 2 }
    }

    /// Granules of a frame, each of [`GRANULE_SAMPLES`](super::GRANULE_SAMPLES) samples a channel.
    pub fn n_granules(&self) -> usize {
        if self.version == Version::Mpeg1 { 2 } else { 1 }
    }

    /// Bytes of the side info.
    pub fn side_info_bytes(&self) -> usize {
        match (self.version, self.n_channels()) {
            (Version::Mpeg1, 1) => 17,
            (Version::Mpeg1, _) => 32,
            (_, 1) => 9,
            _ => 17,
        }
    }
}
