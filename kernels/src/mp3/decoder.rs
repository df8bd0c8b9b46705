//! The steps in their order, for a whole frame.

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
use crate::error::KernelError;
use crate::level::{Lanes, Level};

/// The main data of a frame.
#[derive(Clone, Copy, Debug)]
pub struct MainData<'a> {
    /// From where the frame's main data begins, or from the first byte behind that which there is.
    pub bytes: &'a [u8],
    /// Bits that should come before them and are not there. The granules that begin in them are silent.
    pub n_missing_bits: usize,
}

/// Decodes the frames of one stream, which follow one another.
pub struct FrameDecoder {
    lanes: Lanes,
    reader: GranuleReader,
    channels: [Channel; MAX_CHANNELS],
    /// Spectra by granule, then by channel.
    spectra: Box<[[Spectrum; MAX_CHANNELS]; 2]>,
    slots: Box<[[f32; SUB_BANDS]; FRAME_SLOTS]>,
    ordered: Box<[f32; LINES]>,
}

/// What a channel keeps from frame to frame.
struct Channel {
    imdct: Imdct,
    synthesis: Synthesis,
}

impl FrameDecoder {
    /// Makes a decoder for a stream of any rate, mono or stereo.
    ///
    /// # Errors
    /// [`KernelError::Level`] where this machine lacks the level.
    pub fn new(level: Level) -> Result<Self, KernelError> {
        let lanes = Lanes::new(level).ok_or(KernelError::Level { level })?;
        Ok(Self {
            lanes,
            reader: GranuleReader::new(),
            channels: std::array::from_fn(|_| Channel {
                imdct: Imdct::new(),
                synthesis: Synthesis::new(),
            }),
            spectra: Box::new([[Spectrum::SILENCE; MAX_CHANNELS]; 2]),
            slots: Box::new([[0.0; SUB_BANDS]; FRAME_SLOTS]),
            ordered: Box::new([0.0; LINES]),
        })
    }

    /// The spectra of the frame that was decoded last.
    #[cfg(test)]
    pub(super) fn spectra(&self) -> &[[Spectrum; MAX_CHANNELS]; 2] {
        &self.spectra
    }

    /// Forgets the frames before: the next one follows a hole, or is another stream's.
    pub fn reset(&mut self) {
        for channel in &mut self.channels {
            channel.imdct.reset();
            channel.synthesis.reset();
        }
    }

    /// Decodes a frame into a plane for each channel and returns how many samples each has. Full scale is ±1, and louder
    /// samples are not cut. A mono frame leaves the second plane as it is.
    ///
    /// # Errors
    /// [`FrameError`] for main data that cannot be right. Then what is kept from frame to frame stays as it was.
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

    /// From main data to spectra of left and right.
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

    /// From spectra to samples.
    #[inline(always)]
    fn sound(
        &mut self,
        header: &FrameHeader,
        side: &SideInfo,
        planes: [&mut [f32; FRAME_SAMPLES]; MAX_CHANNELS],
    ) {
        let bands = RateBands::of(header);
        let n_granules = header.n_granules();

        for (at, plane) in planes.into_iter().take(header.n_channels()).enumerate() {
            let channel = &mut self.channels[at];
            let slots = &mut self.slots[..n_granules * SUB_BAND_LINES];
            let granules = slots.as_chunks_mut::<SUB_BAND_LINES>().0.iter_mut();

            for (index, slots) in granules.enumerate() {
                let granule = &side.granules[index][at];
                let lines = Lines::of(bands, granule, &mut self.spectra[index][at]);
                lines.transform(SUB_BANDS, &mut channel.imdct, &mut self.ordered, slots);
            }

            channel.synthesis.run(slots, &mut plane[..]);
        }
    }
}
