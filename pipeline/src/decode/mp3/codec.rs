//! The two ways from a frame to samples: their mean, which is what features are made of, or both channels.

use wavemill_kernels::Level;
use wavemill_kernels::mp3::{
    Band, FRAME_SAMPLES, FrameDecoder, FrameError, FrameHeader, MainData, MonoDecoder, SideInfo,
};
use wavemill_kernels::resample::ResampleError;

use crate::decode::output::Sink;

/// The decoders of one worker, kept from file to file.
pub(super) struct Codecs {
    level: Level,
    /// `Some`: of streams at twice this rate or more, only what reaches it is computed.
    band_hz: Option<u32>,
    /// One for each part of a band that was wanted: there are at most as many as rates of MP3.
    monos: Vec<MonoDecoder>,
    mono: Box<[f32; FRAME_SAMPLES]>,
    /// Extraction has no use for it, so it is made when it is asked for.
    stereo: Option<StereoCodec>,
}

/// The decoder of both channels, and its samples.
struct StereoCodec {
    decoder: FrameDecoder,
    planes: Box<[[f32; FRAME_SAMPLES]; 2]>,
}

/// What the frames of one file are decoded by, and into.
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
    /// For the whole band.
    ///
    /// # Errors
    /// [`ResampleError::Level`] where this machine lacks the level.
    pub(super) fn new(level: Level) -> Result<Self, ResampleError> {
        let whole =
            MonoDecoder::new(Band::WHOLE, level).map_err(|_| ResampleError::Level { level })?;
        Ok(Self {
            level,
            band_hz: None,
            monos: vec![whole],
            mono: Box::new([0.0; FRAME_SAMPLES]),
            stereo: None,
        })
    }

    /// Of streams at twice `to_hz` or more, only what reaches it is computed.
    pub(super) fn by_band(&mut self, to_hz: u32) {
        self.band_hz = Some(to_hz);
    }

    /// What a stream of this rate is decoded by.
    pub(super) fn of_stream(&mut self, rate_hz: u32) -> Codec<'_> {
        let part = self.band_hz.and_then(|to_hz| Band::of(rate_hz, to_hz));
        let band = part.unwrap_or(Band::WHOLE);

        let known = self.monos.iter().position(|known| known.band() == band);
        let at = known.unwrap_or_else(|| {
            let decoder = MonoDecoder::new(band, self.level);
            self.monos
                .push(decoder.expect("`new` has made a decoder of this level"));
            self.monos.len() - 1
        });
        Codec::Mono {
            decoder: &mut self.monos[at],
            mono: &mut self.mono,
        }
    }

    /// Where left and right are wanted.
    pub(super) fn of_both_channels(&mut self) -> Codec<'_> {
        let stereo = self.stereo.get_or_insert_with(|| StereoCodec {
            decoder: FrameDecoder::new(self.level).expect("`new` has made a decoder of this level"),
            planes: Box::new([[0.0; FRAME_SAMPLES]; 2]),
        });
        Codec::Stereo {
            decoder: &mut stereo.decoder,
            planes: &mut stereo.planes,
        }
    }
}

impl Codec<'_> {
    /// Samples of the stream for one that comes out.
    pub(super) fn step(&self) -> usize {
        match self {
            Self::Mono { decoder, .. } => decoder.band().step(),
            Self::Stereo { .. } => 1,
        }
    }

    /// Forgets the frames before.
    pub(super) fn reset(&mut self) {
        match self {
            Self::Mono { decoder, .. } => decoder.reset(),
            Self::Stereo { decoder, .. } => decoder.reset(),
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
            Self::Mono { decoder, mono } => decoder.decode(header, side, main, phase, mono),
            Self::Stereo { decoder, planes } => {
                let [left, right] = &mut **planes;
                decoder.decode(header, side, main, [left, right])
            }
        }
    }

    /// Pushes the `n` samples of the frame that was decoded last. What cannot be audio becomes silence; then this is
    /// false.
    pub(super) fn push(&self, n: usize, n_channels: u8, sink: &mut Sink) -> bool {
        match self {
            Self::Mono { mono, .. } => sink.push(&mono[..n], None),
            Self::Stereo { planes, .. } => {
                let [left, right] = &**planes;
                let right = (n_channels == 2).then_some(&right[..n]);
                sink.push(&left[..n], right)
            }
        }
    }
}
