//! Decodes a frame to the mean of its channels: runs all decoding steps.

use wavemill_signal::resample::ResampleError;
use wavemill_signal::{Lanes, Level};

use super::Band;
use super::edge::{EDGE, EdgeFilters};
use super::half::HALF;
use crate::layer3::bands::{Bands, RateBands};
use crate::layer3::granules::{CodedFrame, GranuleReader, Spectrum};
use crate::layer3::header::{FrameHeader, Mode};
use crate::layer3::hybrid::Lines;
use crate::layer3::imdct::{Imdct, Windows};
use crate::layer3::side_info::{Block, Granule, SideInfo};
use crate::layer3::synthesis::Synthesis;
use crate::layer3::{
    FRAME_SAMPLES, FRAME_SLOTS, FrameError, GRANULE_SAMPLES, LINES, MAX_CHANNELS, MainData,
    SUB_BAND_LINES, SUB_BANDS, SubBandSamples,
};

const SQRT_HALF: f32 = std::f32::consts::FRAC_1_SQRT_2;

/// Decodes the consecutive frames of one MP3 stream to the mean of their channels.
pub struct MonoDecoder {
    lanes: Lanes,
    band: Band,
    reader: GranuleReader,
    /// Spectral lines, indexed by granule, then by channel.
    spectra: Box<[[Spectrum; MAX_CHANNELS]; 2]>,
    hybrid: Hybrid,
    synthesis: AnySynthesis,
    slots: Box<[[f32; SUB_BANDS]; FRAME_SLOTS]>,
}

/// The synthesis filter for 32 or 16 samples per time slot. If the band ends at the new Nyquist frequency, the sub-bands at
/// its edge have filters of their own.
enum AnySynthesis {
    Whole(Synthesis),
    Half(Synthesis<HALF>, Option<EdgeFilters>),
}

/// Transforms spectral lines to sub-band samples.
struct Hybrid {
    /// Transform of the mean of both channels, or of the left channel if the windows of both channels differ.
    mean: Imdct,
    /// Transform of the right channel, used if the windows of both channels differ.
    right: Imdct,
    /// True if samples of the right channel's transform overlap with the next granule.
    right_overlaps: bool,
    ordered: Box<[f32; LINES]>,
    right_samples: Box<SubBandSamples>,
}

impl MonoDecoder {
    /// Creates a decoder of the sub-bands `band` for streams of any rate, mono or stereo.
    ///
    /// # Errors
    /// [`ResampleError::Level`] if this machine does not support the level.
    pub fn new(band: Band, level: Level) -> Result<Self, ResampleError> {
        let lanes = Lanes::new(level).ok_or(ResampleError::Level { level })?;

        Ok(Self {
            lanes,
            band,
            reader: GranuleReader::new(lanes),
            spectra: Box::new([[Spectrum::SILENCE; MAX_CHANNELS]; 2]),
            hybrid: Hybrid {
                mean: Imdct::new(lanes),
                right: Imdct::new(lanes),
                right_overlaps: false,
                ordered: Box::new([0.0; LINES]),
                right_samples: Box::new([[0.0; SUB_BANDS]; SUB_BAND_LINES]),
            },
            synthesis: if band == Band::WHOLE {
                AnySynthesis::Whole(Synthesis::new(lanes, SUB_BANDS))
            } else if band == Band::HALF {
                AnySynthesis::Half(Synthesis::new(lanes, EDGE.start), Some(EdgeFilters::new()))
            } else {
                AnySynthesis::Half(Synthesis::new(lanes, band.n_sub_bands), None)
            },
            slots: Box::new([[0.0; SUB_BANDS]; FRAME_SLOTS]),
        })
    }

    /// Returns the part of the frequency range that this decoder computes.
    pub fn band(&self) -> Band {
        self.band
    }

    /// Clears the state of earlier frames. Call this if the next frame follows a gap or belongs to another stream.
    pub fn reset(&mut self) {
        self.hybrid.mean.reset();
        self.hybrid.right.reset();
        self.hybrid.right_overlaps = false;
        match &mut self.synthesis {
            AnySynthesis::Whole(synthesis) => synthesis.reset(),
            AnySynthesis::Half(synthesis, edge) => {
                synthesis.reset();
                edge.iter_mut().for_each(EdgeFilters::reset);
            }
        }
    }

    /// Decodes a frame to the mean of its channels, writes every [`Band::step`]-th sample to `out`, and returns their
    /// number. The first one is sample `phase` of the frame, where `phase` is less than the step; all frames between
    /// two resets have the same phase. Full scale is ±1, and louder samples are not clipped.
    ///
    /// # Errors
    /// [`FrameError`] if the main data is damaged in the part that is read, which is all of it for the whole band. The
    /// state that is kept from frame to frame is then unchanged.
    pub fn decode(
        &mut self,
        header: &FrameHeader,
        side: &SideInfo,
        main: MainData,
        phase: usize,
        out: &mut [f32; FRAME_SAMPLES],
    ) -> Result<usize, FrameError> {
        self.read_spectra(header, side, main)?;

        let lanes = self.lanes;
        lanes.run(
            #[inline(always)]
            || self.sound(header, side, phase % self.band.step(), out),
        );
        Ok(header.n_granules() * GRANULE_SAMPLES / self.band.step())
    }

    /// Decodes main data to one spectrum per granule if both channels have the same windows, otherwise to two. The sum
    /// of the transformed spectra is the mean of the channels.
    fn read_spectra(
        &mut self,
        header: &FrameHeader,
        side: &SideInfo,
        main: MainData,
    ) -> Result<(), FrameError> {
        let mut frame = CodedFrame::new(header, side, main);
        if has_middle(header, side) {
            return self.read_middles(&mut frame);
        }
        for index in 0..header.n_granules() {
            if frame.passes_over(index) {
                self.spectra[index].iter_mut().for_each(Spectrum::silence);
            } else {
                self.read_granule(&mut frame, index)?;
            }
        }
        Ok(())
    }

    /// Reads the middle channel of each granule, the sum of left and right over √2. The side channel does not affect
    /// their mean.
    fn read_middles(&mut self, frame: &mut CodedFrame) -> Result<(), FrameError> {
        let n_wanted = [0, 1].map(|index| {
            let bands = frame.bands_of(&frame.side.granules[index][0]);
            n_coded(bands, self.band.n_lines())
        });
        // A frame is rejected for damage of the side channel only if the whole band is decoded.
        let checks_side = self.band == Band::WHOLE;
        let spectra = self.spectra.each_mut().map(|[middle, _]| middle);
        frame.read_firsts(&mut self.reader, n_wanted, checks_side, SQRT_HALF, spectra)
    }

    /// Reads the mean of both channels of a granule, or half of each channel if the windows of both differ.
    fn read_granule(&mut self, frame: &mut CodedFrame, index: usize) -> Result<(), FrameError> {
        let [left_side, right_side] = &frame.side.granules[index];
        let [left, right] = &mut self.spectra[index];
        let n_left = n_coded(frame.bands_of(left_side), self.band.n_lines());
        if frame.header.mode == Mode::Mono {
            frame.read(&mut self.reader, index, 0, n_left, left)?;
            return Ok(());
        }

        let have_equal_windows = have_equal_windows(left_side, right_side);
        if have_equal_windows && !frame.header.mode.is_joined() {
            return frame.read_mean(&mut self.reader, index, n_left, [left, right]);
        }

        let n_right = n_coded(frame.bands_of(right_side), self.band.n_lines());
        // Each line of joint stereo is computed from both channels, and the blocks of one may need more lines.
        let n_joint = n_left.max(n_right);
        let n_wanted = match frame.header.mode {
            // Intensity stereo begins above the right channel's last nonzero line, which may be above the needed lines.
            Mode::Joint {
                intensity: true, ..
            } => [n_joint, LINES],
            Mode::Joint { mid_side: true, .. } => [n_joint; MAX_CHANNELS],
            Mode::Joint { .. } | Mode::Stereo | Mode::Mono => [n_left, n_right],
        };
        let factors =
            frame.read_both(&mut self.reader, index, n_wanted, [&mut *left, &mut *right])?;
        if let Some(joint) = frame.joint(index, &factors) {
            let n_lines = left.n_lines.max(right.n_lines).min(n_joint);
            joint.unjoin(n_lines, left, right);
        }
        mix(left, right, have_equal_windows);
        Ok(())
    }

    /// Transforms the spectral lines of a frame to samples.
    #[inline(always)]
    fn sound(
        &mut self,
        header: &FrameHeader,
        side: &SideInfo,
        phase: usize,
        out: &mut [f32; FRAME_SAMPLES],
    ) {
        let bands = RateBands::from_header(header);
        let slots = &mut self.slots[..header.n_granules() * SUB_BAND_LINES];
        let granules = slots.as_chunks_mut::<SUB_BAND_LINES>().0.iter_mut();
        for (index, slots) in granules.enumerate() {
            let [left_side, right_side] = &side.granules[index];
            let [left, right] = &mut self.spectra[index];
            let has_two = header.n_channels() == 2 && !have_equal_windows(left_side, right_side);

            let left = Lines::new(bands, left_side, left);
            let right = has_two.then(|| Lines::new(bands, right_side, right));
            self.hybrid.run(self.band, left, right, slots);
        }

        match &mut self.synthesis {
            AnySynthesis::Whole(synthesis) => synthesis.run(slots, out),
            AnySynthesis::Half(synthesis, edge) => {
                synthesis.run_half(phase, slots, out);
                if let Some(edge) = edge {
                    edge.add(phase, slots, &mut out[..slots.len() * HALF]);
                }
            }
        }
    }
}

impl Hybrid {
    /// Computes the sub-band samples of the mean of both channels. If their windows differ, each channel is transformed
    /// separately.
    #[inline(always)]
    fn run(&mut self, band: Band, left: Lines, right: Option<Lines>, slots: &mut SubBandSamples) {
        left.transform(band.n_sub_bands, &mut self.mean, &mut self.ordered, slots);

        let has_right = right.is_some();
        if !has_right && !self.right_overlaps {
            return;
        }
        match right {
            Some(right) => right.transform(
                band.n_sub_bands,
                &mut self.right,
                &mut self.ordered,
                &mut self.right_samples,
            ),
            // Finish the right channel: the second half of its previous window is not yet part of the output.
            None => {
                let windows = Windows {
                    block: Block::Long,
                    is_mixed: false,
                };
                let silence = [0.0; LINES];
                self.right
                    .run(windows, 0, &silence, &mut self.right_samples);
            }
        }
        for (sum, right) in slots.iter_mut().zip(self.right_samples.iter()) {
            for (sum, right) in sum.iter_mut().zip(right) {
                *sum += right;
            }
        }
        self.right_overlaps = has_right;
    }
}

/// Returns how many lines must be read to get the lowest `n_wanted` lines: short blocks store the windows of a band one
/// after another.
pub(super) fn n_coded(bands: &Bands, n_wanted: usize) -> usize {
    let short = (bands.n_long..bands.n).step_by(3);
    short
        .map(|band| bands.lines(band).start..bands.lines(band + 2).end)
        .find(|band| band.end >= n_wanted)
        .map_or(n_wanted, |band| {
            if band.start < n_wanted {
                band.end
            } else {
                n_wanted
            }
        })
}

/// Reports whether the frame has a middle channel in place of the left one, and the mean depends on that channel only.
fn has_middle(header: &FrameHeader, side: &SideInfo) -> bool {
    let is_mid_side = matches!(
        header.mode,
        Mode::Joint {
            mid_side: true,
            intensity: false
        }
    );
    let granules = &side.granules[..header.n_granules()];
    is_mid_side
        && granules
            .iter()
            .all(|[left, right]| have_equal_windows(left, right))
}

fn have_equal_windows(left: &Granule, right: &Granule) -> bool {
    left.block == right.block && left.is_mixed == right.is_mixed
}

/// Mixes the spectra of two channels. With equal windows the first one becomes the mean, otherwise both are halved so
/// that their sum is the mean.
fn mix(left: &mut Spectrum, right: &mut Spectrum, have_equal_windows: bool) {
    if !have_equal_windows {
        scale(&mut left.lines[..left.n_lines], 0.5);
        scale(&mut right.lines[..right.n_lines], 0.5);
        return;
    }
    left.n_lines = left.n_lines.max(right.n_lines);
    let n = left.n_lines;
    for (left, right) in left.lines[..n].iter_mut().zip(&right.lines[..n]) {
        *left = (*left + right) * 0.5;
    }
}

fn scale(lines: &mut [f32], factor: f32) {
    for line in lines {
        *line *= factor;
    }
}
