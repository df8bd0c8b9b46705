//! The fields of a frame header that decoding depends on. Frame lengths and bit rates are left to the code that finds
//! the frames.

/// The edition of the MPEG standard that a frame follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// ISO/IEC 11172-3, with two granules per frame.
    Mpeg1,
    /// ISO/IEC 13818-3, with half the sample rates and one granule per frame.
    Mpeg2,
    /// Half the sample rates of MPEG-2. It is not standardised, but all encoders support it.
    Mpeg25,
}

/// The channel mode of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One channel.
    Mono,
    /// Two independent channels.
    Stereo,
    /// Two channels with scale factor bands that may be coded jointly.
    Joint {
        /// Whether middle and side channels are coded in place of left and right.
        mid_side: bool,
        /// Whether scale factor bands above a bound are coded as one channel and a stereo position.
        intensity: bool,
    },
}

impl Mode {
    /// Reports whether bands may be coded jointly. Joint stereo with both of its flags off is plain left and right.
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

/// The fields of a layer III frame header that decoding the frame depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Edition of the MPEG standard.
    pub version: Version,
    /// Index of the sample rate, as in the frame header: 44.1, 48, 32 kHz, or a half or a quarter of them.
    pub(super) rate_index: usize,
    /// Channel mode of the frame.
    pub mode: Mode,
}

impl FrameHeader {
    /// Parses the four bytes of a header; `None` if they are not a layer III header. The bit rate is ignored.
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

    /// Returns the number of channels of the frame, 1 or 2.
    pub fn n_channels(&self) -> usize {
        if self.mode == Mode::Mono { 1 } else { 2 }
    }

    /// Returns the number of granules of a frame, each with [`GRANULE_SAMPLES`](super::GRANULE_SAMPLES) samples per
    /// channel.
    pub fn n_granules(&self) -> usize {
        if self.version == Version::Mpeg1 { 2 } else { 1 }
    }

    /// Returns the size of the frame's side info in bytes.
    pub fn side_info_bytes(&self) -> usize {
        match (self.version, self.n_channels()) {
            (Version::Mpeg1, 1) => 17,
            (Version::Mpeg1, _) => 32,
            (_, 1) => 9,
            _ => 17,
        }
    }
}
