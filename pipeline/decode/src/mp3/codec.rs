//! Decodes MP3 frames to samples in one of two ways: to the mean of the channels, which features are computed from, or
//! to both channels separately.

use wavemill_signal::Level;
use wavemill_signal::resample::ResampleError;

use crate::layer3::{
    Band, FRAME_SAMPLES, FrameDecoder, FrameError, FrameHeader, MainData, MonoDecoder, SideInfo,
};

use crate::output::Sink;

/// The MP3 decoders of one worker, which are kept from file to file.
pub(super) struct Codecs {
    level: Level,
    /// If `Some`, streams with at least twice this rate are decoded only in the sub-bands that reach output at this
    /// rate.
    band_hz: Option<u32>,
    /// One decoder per band used so far; there are at most as many as sample rates in MP3.
    monos: Vec<MonoDecoder>,
    mono: Box<[f32; FRAME_SAMPLES]>,
    /// Decoder of both channels. Created on first use, because feature extraction does not need it.
    stereo: Option<StereoCodec>,
}

/// The decoder of both channels, and the samples of its last frame.
struct StereoCodec {
    decoder: FrameDecoder,
    planes: Box<[[f32; FRAME_SAMPLES]; 2]>,
}

/// The decoder of one file's MP3 frames and its output buffer.
pub(super) enum Codec<'a> {
    Mono {
        decoder: &'a mut MonoDecoder,
        mono: &'a mut [f32; FRAME_SAMPLES],
    },
    Stereo {
        decoder: &'a mut FrameDecoder,
        planes: &'a mut [[f32; FRAME_SAMPLES]; 2],
    },
}

impl Codecs {
    /// Creates MP3 decoders for the full band.
    ///
    /// # Errors
    /// [`ResampleError::Level`] if this machine does not support `level`.
    pub(super) fn new(level: Level) -> Result<Self, ResampleError> {
        let whole = MonoDecoder::new(Band::WHOLE, level)?;
        Ok(Self {
            level,
            band_hz: None,
            monos: vec![whole],
            mono: Box::new([0.0; FRAME_SAMPLES]),
            stereo: None,
        })
    }

    /// Restricts decoding to the sub-bands that reach output at `to_hz`, for streams with at least twice that rate.
    pub(super) fn by_band(&mut self, to_hz: u32) {
        self.band_hz = Some(to_hz);
    }

    /// Returns the decoder for MP3 streams with this rate, which keeps the channels separate or decodes their mean. Creates
    /// it if necessary.
    pub(super) fn get(&mut self, rate_hz: u32, both_channels: bool) -> Codec<'_> {
        const LEVEL: &str = "`new` created a decoder of this level";
        if both_channels {
            let stereo = self.stereo.get_or_insert_with(|| StereoCodec {
                decoder: FrameDecoder::new(self.level).expect(LEVEL),
                planes: Box::new([[0.0; FRAME_SAMPLES]; 2]),
            });
            return Codec::Stereo {
                decoder: &mut stereo.decoder,
                planes: &mut stereo.planes,
            };
        }

        let part = self.band_hz.and_then(|to_hz| Band::new(rate_hz, to_hz));
        let band = part.unwrap_or(Band::WHOLE);
        let known = self.monos.iter().position(|known| known.band() == band);
        let at = known.unwrap_or_else(|| {
            let decoder = MonoDecoder::new(band, self.level).expect(LEVEL);
            self.monos.push(decoder);
            self.monos.len() - 1
        });
        Codec::Mono {
            decoder: &mut self.monos[at],
            mono: &mut self.mono,
        }
    }
}

impl Codec<'_> {
    /// Returns the number of stream samples per output sample.
    pub(super) fn step(&self) -> usize {
        match self {
            Self::Mono { decoder, .. } => decoder.band().step(),
            Self::Stereo { .. } => 1,
        }
    }

    /// Resets the decoder state that depends on earlier frames.
    pub(super) fn reset(&mut self) {
        match self {
            Self::Mono { decoder, .. } => decoder.reset(),
            Self::Stereo { decoder, .. } => decoder.reset(),
        }
    }

    /// Decodes an MP3 frame and returns the number of output samples. The first one is sample `phase` of the frame.
    ///
    /// # Errors
    /// [`FrameError`] if the frame is damaged.
    pub(super) fn decode(
        &mut self,
        header: &FrameHeader,
        side: &SideInfo,
        main: MainData,
        phase: usize,
    ) -> Result<usize, FrameError> {
        match self {
            Self::Mono { decoder, mono } => decoder.decode(header, side, main, phase, mono),
            Self::Stereo { decoder, planes } => {
                let [left, right] = &mut **planes;
                decoder.decode(header, side, main, [left, right])
            }
        }
    }

    /// Pushes the last frame's `n` samples to the sink, or silence if they are not valid audio (returns false).
    pub(super) fn push(&self, n: usize, n_channels: u8, sink: &mut Sink) -> bool {
        match self {
            Self::Mono { mono, .. } => sink.push(&[mono], 0..n),
            Self::Stereo { planes, .. } => sink.push(&planes[..usize::from(n_channels)], 0..n),
        }
    }
}
