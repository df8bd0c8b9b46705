//! Decodes damaged MP3 frames with all decoders and checks conditions that must hold for any bits. Used by tests and by
//! a fuzzer (`tests/fuzz/`).

use wavemill_decode::layer3::{
    Band, FRAME_SAMPLES, FrameDecoder, FrameError, FrameHeader, GRANULE_SAMPLES, MainData, Mode,
    MonoDecoder, SideInfo,
};
use wavemill_signal::Level;

/// Number of frequency bands to choose from: the whole band, and two parts.
pub(crate) const BANDS: usize = 3;

/// The MP3 decoders that are compared, and their output buffers.
pub(crate) struct Paths {
    full: FrameDecoder,
    monos: [MonoDecoder; BANDS],
    /// Index of the frequency band that is decoded.
    band: usize,
    phase: usize,
    /// Number of bytes after the codes of the next frame of middle and side, if its main data are cut.
    n_spare_bytes: usize,
    planes: [[f32; FRAME_SAMPLES]; 2],
    mono: [f32; FRAME_SAMPLES],
}

impl Paths {
    pub(crate) fn new() -> Self {
        let level = Level::detect();
        let quarter = Band::new(44_100, 11_025).expect("less than half of the rate");
        let bands = [Band::WHOLE, Band::HALF, quarter];

        Self {
            full: FrameDecoder::new(level).expect("the level was detected"),
            monos: bands.map(|band| MonoDecoder::new(band, level).expect("the level was detected")),
            band: 0,
            phase: 0,
            n_spare_bytes: 0,
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
        self.n_spare_bytes = 0;
    }

    /// Decodes a frame with all decoders and returns the stereo decoder's result. The mean of middle and side is read
    /// without the codes of the side channel, unless the main data end shortly after them. So such a frame is also decoded
    /// with main data that end at most seven bytes after its codes.
    pub(crate) fn decode(
        &mut self,
        header: &FrameHeader,
        side: &SideInfo,
        main: MainData,
    ) -> Result<(), FrameError> {
        if matches!(header.mode, Mode::Joint { mid_side: true, .. }) {
            let n_bits: usize = side.granule_bits().iter().sum();
            let end = n_bits.saturating_sub(main.n_missing_bits) / 8 + self.n_spare_bytes;
            let bytes = &main.bytes[..end.min(main.bytes.len())];
            self.n_spare_bytes = (self.n_spare_bytes + 1) % 8;
            let _ = self.compare(header, side, MainData { bytes, ..main });
        }
        self.compare(header, side, main)
    }

    /// Decodes a frame with all decoders, compares the results, and returns that of the stereo decoder. The decoder of a
    /// part of the band reads less, so it may fail only if the stereo decoder fails.
    fn compare(
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
