//! The two ways from a frame to samples: all of the band, or the part of it that reaches a lower rate.

use wavemill_kernels::Level;
use wavemill_kernels::mp3::{
    Band, BandDecoder, FRAME_SAMPLES, FrameDecoder, FrameError, FrameHeader, MainData, SideInfo,
};
use wavemill_kernels::resample::ResampleError;

use crate::decode::output::Sink;

/// The decoders of one worker, kept from file to file.
pub(super) struct Codecs {
    level: Level,
    full: FrameDecoder,
    planes: Box<[[f32; FRAME_SAMPLES]; 2]>,
    /// `Some`: of streams at twice this rate or more, only what reaches it is computed.
    band_hz: Option<u32>,
    /// One for each part of a band that was wanted: there are at most as many as rates of MP3.
    bands: Vec<BandDecoder>,
    mono: Box<[f32; FRAME_SAMPLES / 2]>,
}

/// What the frames of one file are decoded by, and into.
pub(super) enum Codec<'a> {
    Full {
        decoder: &'a mut FrameDecoder,
        planes: &'a mut [[f32; FRAME_SAMPLES]; 2],
    },
    Band {
        decoder: &'a mut BandDecoder,
        mono: &'a mut [f32; FRAME_SAMPLES / 2],
    },
}

impl Codecs {
    /// For the full band.
    ///
    /// # Errors
    /// [`ResampleError::Level`] where this machine lacks the level.
    pub(super) fn new(level: Level) -> Result<Self, ResampleError> {
        let full = FrameDecoder::new(level).map_err(|_| ResampleError::Level { level })?;
        Ok(Self {
            level,
            full,
            planes: Box::new([[0.0; FRAME_SAMPLES]; 2]),
            band_hz: None,
            bands: Vec::new(),
            mono: Box::new([0.0; FRAME_SAMPLES / 2]),
        })
    }

    /// Of streams at twice `to_hz` or more, only what reaches it is computed.
    pub(super) fn by_band(&mut self, to_hz: u32) {
        self.band_hz = Some(to_hz);
    }

    /// What a stream of this rate is decoded by.
    pub(super) fn of_stream(&mut self, rate_hz: u32) -> Codec<'_> {
        let band = self.band_hz.and_then(|to_hz| Band::of(rate_hz, to_hz));
        let Some(band) = band else {
            return Codec::Full {
                decoder: &mut self.full,
                planes: &mut self.planes,
            };
        };

        let known = self.bands.iter().position(|known| known.band() == band);
        let at = known.unwrap_or_else(|| {
            let decoder = BandDecoder::new(band, self.level);
            self.bands
                .push(decoder.expect("`new` has made a decoder of this level"));
            self.bands.len() - 1
        });
        Codec::Band {
            decoder: &mut self.bands[at],
            mono: &mut self.mono,
        }
    }
}

impl Codec<'_> {
    /// Samples of the stream for one that comes out.
    pub(super) fn step(&self) -> usize {
        match self {
            Self::Full { .. } => 1,
            Self::Band { decoder, .. } => decoder.band().step(),
        }
    }

    /// Forgets the frames before.
    pub(super) fn reset(&mut self) {
        match self {
            Self::Full { decoder, .. } => decoder.reset(),
            Self::Band { decoder, .. } => decoder.reset(),
        }
    }

    /// Decodes a frame; returns how many samples come of it. The first one is sample `phase` of the frame.
    ///
    /// # Errors
    /// [`FrameError`] where it does not decode.
    pub(super) fn decode(
        &mut self,
        header: &FrameHeader,
        side: &SideInfo,
        main: MainData,
        phase: usize,
    ) -> Result<usize, FrameError> {
        match self {
            Self::Full { decoder, planes } => {
                let [left, right] = &mut **planes;
                decoder.decode(header, side, main, [left, right])
            }
            Self::Band { decoder, mono } => decoder.decode(header, side, main, phase, mono),
        }
    }

    /// Pushes the `n` samples of the frame that was decoded last. What cannot be audio becomes silence; then this is
    /// false.
    #[must_use]
    pub(super) fn push(&self, n: usize, n_channels: u8, sink: &mut Sink) -> bool {
        match self {
            Self::Full { planes, .. } => {
                let [left, right] = &**planes;
                let right = (n_channels == 2).then_some(&right[..n]);
                sink.push(&left[..n], right)
            }
            Self::Band { mono, .. } => sink.push(&mono[..n], None),
        }
    }
}
