//! Decodes damaged MP3 frames with all decoders and checks conditions that must hold for any bits. Used by tests and by
//! a fuzzer (`fuzz/`).

use wavemill_decode::layer3::{
    Band, FRAME_SAMPLES, FrameDecoder, FrameError, FrameHeader, GRANULE_SAMPLES, MainData,
    MonoDecoder, SideInfo,
};
use wavemill_kernels::Level;

/// Number of frequency bands to choose from: the whole band, and two parts.
pub(crate) const BANDS: usize = 3;

/// The MP3 decoders that are compared, and their output buffers.
pub(crate) struct Paths {
    full: FrameDecoder,
    monos: [MonoDecoder; BANDS],
    /// Index of the frequency band that is decoded.
    band: usize,
    phase: usize,
    planes: [[f32; FRAME_SAMPLES]; 2],
    mono: [f32; FRAME_SAMPLES],
}

impl Paths {
    pub(crate) fn new() -> Self {
        let level = Level::detect();
        let [half, quarter] = [22_050, 11_025]
            .map(|to_hz| Band::new(44_100, to_hz).expect("at most half of the rate"));
        let bands = [Band::WHOLE, half, quarter];

        Self {
            full: FrameDecoder::new(level).expect("the level was detected"),
            monos: bands.map(|band| MonoDecoder::new(band, level).expect("the level was detected")),
            band: 0,
            phase: 0,
            planes: [[0.0; FRAME_SAMPLES]; 2],
            mono: [0.0; FRAME_SAMPLES],
        }
    }

    /// Resets the decoders. From then on, they decode `band` (below [`BANDS`]) from the sample `phase` on.
    pub(crate) fn restart(&mut self, band: usize, phase: usize) {
        self.full.reset();
        self.monos[band].reset();
        self.band = band;
        self.phase = phase;
    }

    /// Decodes a frame with all decoders and returns the stereo decoder's result. The decoder of a part of the band
    /// reads less, so it may fail only if the stereo decoder fails.
    pub(crate) fn decode(
        &mut self,
        header: &FrameHeader,
        side: &SideInfo,
        main: MainData,
    ) -> Result<(), FrameError> {
        let n_samples = header.n_granules() * GRANULE_SAMPLES;
        let [left, right] = &mut self.planes;
        let of_full = self.full.decode(header, side, main, [left, right]);
        let mono = &mut self.monos[self.band];
        let of_mono = mono.decode(header, side, main, self.phase, &mut self.mono);

        if let Ok(n) = of_full {
            assert_eq!(n, n_samples);
        }
        match of_mono {
            Ok(n) => assert_eq!(n * mono.band().step(), n_samples),
            Err(error) => assert!(of_full.is_err(), "only the mean: {error}"),
        }
        if mono.band() == Band::WHOLE {
            assert_eq!(of_mono, of_full);
        }

        let samples = self.planes.iter().flatten().chain(&self.mono);
        // Do not exit the loop early, so that it is vectorised.
        let are_finite = samples.fold(true, |are_finite, sample| are_finite & sample.is_finite());
        assert!(are_finite);
        of_full.map(|_| ())
    }
}
