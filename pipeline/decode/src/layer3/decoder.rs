//! Runs all layer III decoding steps for a whole frame.

use wavemill_signal::resample::ResampleError;
use wavemill_signal::{Lanes, Level};

use super::bands::RateBands;
use super::granules::{CodedFrame, GranuleReader, Spectrum};
use super::header::{FrameHeader, Mode};
use super::hybrid::Lines;
use super::imdct::Imdct;
use super::side_info::SideInfo;
use super::synthesis::Synthesis;
use super::{
    FRAME_SAMPLES, FRAME_SLOTS, FrameError, GRANULE_SAMPLES, LINES, MAX_CHANNELS, SUB_BAND_LINES,
    SUB_BANDS,
};

/// The main data of a layer III frame.
#[derive(Clone, Copy, Debug)]
pub struct MainData<'a> {
    /// The frame's main data from their start on, or from the first available byte if the start is missing.
    pub bytes: &'a [u8],
    /// Number of missing bits of main data before `bytes`. Granules that begin in the missing bits are silent.
    pub n_missing_bits: usize,
}

/// Decodes the consecutive frames of one MP3 stream.
pub struct FrameDecoder {
    lanes: Lanes,
    reader: GranuleReader,
    channels: [Channel; MAX_CHANNELS],
    /// Spectral lines, indexed by granule, then by channel.
    spectra: Box<[[Spectrum; MAX_CHANNELS]; 2]>,
    slots: Box<[[f32; SUB_BANDS]; FRAME_SLOTS]>,
    ordered: Box<[f32; LINES]>,
}

/// The state that is kept for a channel from frame to frame.
struct Channel {
    imdct: Imdct,
    synthesis: Synthesis,
}

impl FrameDecoder {
    /// Creates a decoder for a stream of any rate, mono or stereo.
    ///
    /// # Errors
    /// [`ResampleError::Level`] if this machine does not support the level.
    pub fn new(level: Level) -> Result<Self, ResampleError> {
        let lanes = Lanes::new(level).ok_or(ResampleError::Level { level })?;
        Ok(Self {
            lanes,
            reader: GranuleReader::new(lanes),
            channels: std::array::from_fn(|_| Channel {
                imdct: Imdct::new(lanes),
                synthesis: Synthesis::new(lanes, SUB_BANDS),
            }),
            spectra: Box::new([[Spectrum::SILENCE; MAX_CHANNELS]; 2]),
            slots: Box::new([[0.0; SUB_BANDS]; FRAME_SLOTS]),
            ordered: Box::new([0.0; LINES]),
        })
    }

    /// Returns the spectra of the last decoded frame.
    #[cfg(test)]
    pub(super) fn spectra(&self) -> &[[Spectrum; MAX_CHANNELS]; 2] {
        &self.spectra
    }

    /// Clears the state of earlier frames. Call this if the next frame follows a gap or belongs to another stream.
    pub fn reset(&mut self) {
        for channel in &mut self.channels {
            channel.imdct.reset();
            channel.synthesis.reset();
        }
    }

    /// Decodes a frame into one plane per channel and returns the number of samples of each plane. Full scale is ±1,
    /// and louder samples are not clipped. A mono frame leaves the second plane unchanged.
    ///
    /// # Errors
    /// [`FrameError`] if the main data is damaged. The state that is kept from frame to frame is then unchanged.
    pub fn decode(
        &mut self,
        header: &FrameHeader,
        side: &SideInfo,
        main: MainData,
        planes: [&mut [f32; FRAME_SAMPLES]; MAX_CHANNELS],
    ) -> Result<usize, FrameError> {
        self.read_spectra(header, side, main)?;

        let lanes = self.lanes;
        lanes.run(
            #[inline(always)]
            || self.sound(header, side, planes),
        );
        Ok(header.n_granules() * GRANULE_SAMPLES)
    }

    /// Decodes the main data of a frame to the spectral lines of left and right.
    fn read_spectra(
        &mut self,
        header: &FrameHeader,
        side: &SideInfo,
        main: MainData,
    ) -> Result<(), FrameError> {
        let mut frame = CodedFrame::new(header, side, main);
        for index in 0..header.n_granules() {
            if frame.passes_over(index) {
                self.spectra[index].iter_mut().for_each(Spectrum::silence);
                continue;
            }

            let [left, right] = &mut self.spectra[index];
            if header.mode == Mode::Mono {
                frame.read(&mut self.reader, index, 0, LINES, left)?;
                continue;
            }

            let n_wanted = [LINES; MAX_CHANNELS];
            let factors =
                frame.read_both(&mut self.reader, index, n_wanted, [&mut *left, &mut *right])?;
            if let Some(joint) = frame.joint(index, &factors) {
                let n_lines = left.n_lines.max(right.n_lines);
                joint.unjoin(n_lines, left, right);
            }
        }
        Ok(())
    }

    /// Transforms the spectral lines of a frame to samples.
    #[inline(always)]
    fn sound(
        &mut self,
        header: &FrameHeader,
        side: &SideInfo,
        planes: [&mut [f32; FRAME_SAMPLES]; MAX_CHANNELS],
    ) {
        let bands = RateBands::from_header(header);
        let n_granules = header.n_granules();

        for (at, plane) in planes.into_iter().take(header.n_channels()).enumerate() {
            let channel = &mut self.channels[at];
            let slots = &mut self.slots[..n_granules * SUB_BAND_LINES];
            let granules = slots.as_chunks_mut::<SUB_BAND_LINES>().0.iter_mut();

            for (index, slots) in granules.enumerate() {
                let granule = &side.granules[index][at];
                let lines = Lines::new(bands, granule, &mut self.spectra[index][at]);
                lines.transform(SUB_BANDS, &mut channel.imdct, &mut self.ordered, slots);
            }

            channel.synthesis.run(slots, &mut plane[..]);
        }
    }
}
