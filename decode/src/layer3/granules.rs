//! Decodes main data to spectral lines: reads scale factors and Huffman codes, one channel of a granule after another.

use super::bands::{Bands, RateBands};
use super::bits::BitReader;
use super::header::{FrameHeader, Mode, Version};
use super::huffman::{self, CodedLines};
use super::requantize::Gains;
use super::scale_factors::ScaleFactors;
use super::side_info::{Granule, SideInfo};
use super::stereo::{self, JointGranule, Positions};
use super::{FrameError, LINES, MAX_CHANNELS, MainData};

/// Spectral lines of one channel of a granule. All lines from `n_lines` on are zero.
#[derive(Clone, Copy)]
pub(super) struct Spectrum {
    pub(super) lines: [f32; LINES],
    pub(super) n_lines: usize,
}

impl Spectrum {
    pub(super) const SILENCE: Self = Self {
        lines: [0.0; LINES],
        n_lines: 0,
    };

    /// Sets all spectral lines to zero.
    pub(super) fn silence(&mut self) {
        self.lines.fill(0.0);
        self.n_lines = 0;
    }
}

impl JointGranule<'_> {
    /// Converts both channels of a jointly coded granule to left and right. All lines from `n_lines` on are zero.
    pub(super) fn unjoin(&self, n_lines: usize, left: &mut Spectrum, right: &mut Spectrum) {
        stereo::decode(self, n_lines, &mut left.lines, &mut right.lines);
        left.n_lines = n_lines;
        right.n_lines = n_lines;
    }
}

/// The Huffman tables for reading granules, and buffers for the gains of a granule.
pub(super) struct GranuleReader {
    codes: huffman::Reader,
    /// Gains of the spectral lines, by channel.
    gains: [Gains; MAX_CHANNELS],
}

impl GranuleReader {
    pub(super) fn new() -> Self {
        Self {
            codes: huffman::Reader::new(),
            gains: [Gains::ZERO; MAX_CHANNELS],
        }
    }
}

/// A frame whose granules are read in order.
pub(super) struct CodedFrame<'a> {
    pub(super) header: &'a FrameHeader,
    pub(super) side: &'a SideInfo,
    main: MainData<'a>,
    bands: &'static RateBands,
    first_factors: [ScaleFactors; MAX_CHANNELS],
    n_skipped_bits: usize,
    /// Index of the first bit of the next channel in the main data.
    start: usize,
}

impl<'a> CodedFrame<'a> {
    pub(super) fn new(header: &'a FrameHeader, side: &'a SideInfo, main: MainData<'a>) -> Self {
        Self {
            header,
            side,
            main,
            bands: RateBands::from_header(header),
            first_factors: [ScaleFactors::ZERO; MAX_CHANNELS],
            n_skipped_bits: 0,
            start: 0,
        }
    }

    /// Returns the side info of a granule's channels.
    fn channels(&self, index: usize) -> &'a [Granule] {
        &self.side.granules[index][..self.header.n_channels()]
    }

    pub(super) fn bands_of(&self, granule: &Granule) -> &'static Bands {
        self.bands.for_granule(granule)
    }

    /// Skips a granule if its first bits are missing. Returns whether it was skipped and must be silent.
    pub(super) fn passes_over(&mut self, index: usize) -> bool {
        if self.n_skipped_bits >= self.main.n_missing_bits {
            return false;
        }
        let n_bits = self.channels(index).iter().map(|granule| granule.n_bits);
        self.n_skipped_bits += n_bits.sum::<usize>();
        self.start = self.n_skipped_bits.saturating_sub(self.main.n_missing_bits);
        true
    }

    /// Skips the bits of a channel whose spectral lines are not needed.
    pub(super) fn skip(&mut self, index: usize, channel: usize) -> Result<(), FrameError> {
        self.start = self.end(&self.channels(index)[channel])?;
        Ok(())
    }

    /// Reads at least the first `n_wanted` lines of a channel, if there are that many. Returns the scale factors.
    pub(super) fn read(
        &mut self,
        reader: &mut GranuleReader,
        index: usize,
        channel: usize,
        n_wanted: usize,
        spectrum: &mut Spectrum,
    ) -> Result<ScaleFactors, FrameError> {
        let gains = &mut reader.gains[channel];
        let (factors, mut coded) = self.open(index, channel, n_wanted, gains, spectrum)?;
        reader.codes.read(&mut coded);
        spectrum.n_lines = self.n_lines(coded)?;
        Ok(factors)
    }

    /// Reads the first channel of a granule like [`Self::read`], and skips the second one. If `checks_second`, damage of
    /// the second channel is an error, as if it were read; `unused` is a buffer for that purpose.
    pub(super) fn read_first(
        &mut self,
        reader: &mut GranuleReader,
        index: usize,
        n_wanted: usize,
        checks_second: bool,
        [first, unused]: [&mut Spectrum; MAX_CHANNELS],
    ) -> Result<(), FrameError> {
        let [gains, unused_gains] = &mut reader.gains;
        let (_, mut coded) = self.open(index, 0, n_wanted, gains, first)?;

        if checks_second {
            let (_, mut second) = self.open(index, 1, LINES, unused_gains, unused)?;
            if self.may_overrun(second.end) {
                reader.codes.read(&mut second);
                self.n_lines(second)?;
            }
        } else {
            self.skip(index, 1)?;
        }

        reader.codes.read(&mut coded);
        first.n_lines = self.n_lines(coded)?;
        Ok(())
    }

    /// Reports whether codes of a channel, whose bits end at `end`, can extend beyond the end of the main data.
    ///
    /// This is the only damage that reading the codes can find. All books are complete prefix codes, so any bits are
    /// codes. The last code begins before `end` and has at most [`huffman::CODE_BITS_MAX`] bits. So a channel that ends
    /// that many bits before the main data do decodes without an error, whatever its bits are.
    fn may_overrun(&self, end: usize) -> bool {
        end + huffman::CODE_BITS_MAX > 8 * self.main.bytes.len()
    }

    /// Reads both channels of a granule like [`Self::read`], and returns the scale factors of the second channel.
    pub(super) fn read_both(
        &mut self,
        reader: &mut GranuleReader,
        index: usize,
        n_wanted: [usize; MAX_CHANNELS],
        spectra: [&mut Spectrum; MAX_CHANNELS],
    ) -> Result<ScaleFactors, FrameError> {
        let [left, right] = spectra;
        let [left_gains, right_gains] = &mut reader.gains;
        let (_, mut coded_left) = self.open(index, 0, n_wanted[0], left_gains, left)?;
        let (factors, mut coded_right) = self.open(index, 1, n_wanted[1], right_gains, right)?;

        reader.codes.read_two(&mut coded_left, &mut coded_right);
        left.n_lines = self.n_lines(coded_left)?;
        right.n_lines = self.n_lines(coded_right)?;
        Ok(factors)
    }

    /// Reads the scale factors of the next channel and skips its Huffman codes. Returns factors and unread codes.
    fn open<'b>(
        &mut self,
        index: usize,
        channel: usize,
        n_wanted: usize,
        gains: &'b mut Gains,
        spectrum: &'b mut Spectrum,
    ) -> Result<(ScaleFactors, CodedLines<'b>), FrameError>
    where
        'a: 'b,
    {
        let granule = &self.channels(index)[channel];
        let bands = self.bands.for_granule(granule);
        let end = self.end(granule)?;

        let mut bits = BitReader::new(self.main.bytes, self.start);
        let factors = if self.header.version == Version::Mpeg1 {
            let first = &self.first_factors[channel];
            let first = (index > 0).then_some((first, self.side.shares[channel]));
            ScaleFactors::read_mpeg1(&mut bits, granule, bands, first)
        } else {
            let is_position = ScaleFactors::are_positions(self.header, channel);
            ScaleFactors::read_mpeg2(&mut bits, granule, is_position)
        };
        if bits.position() > end {
            return Err(FrameError::ScaleFactors);
        }

        self.start = end;
        if index == 0 {
            self.first_factors[channel] = factors;
        }
        gains.set(granule, bands, &factors, n_wanted);
        let coded = CodedLines {
            bits,
            end,
            granule,
            n_wanted,
            gains,
            lines: &mut spectrum.lines,
            n_lines: 0,
        };
        Ok((factors, coded))
    }

    /// Returns the number of spectral lines that were read, or an error if the codes extend beyond the main data.
    fn n_lines(&self, coded: CodedLines) -> Result<usize, FrameError> {
        if coded.bits.position() > 8 * self.main.bytes.len() {
            return Err(FrameError::MainData);
        }
        Ok(coded.n_lines)
    }

    /// Returns the parameters for converting a jointly coded granule to left and right, or `None` if it is not jointly
    /// coded. `factors` are the right channel's.
    pub(super) fn joint<'b>(
        &self,
        index: usize,
        factors: &'b ScaleFactors,
    ) -> Option<JointGranule<'b>> {
        let Mode::Joint {
            mid_side,
            intensity,
        } = self.header.mode
        else {
            return None;
        };
        if !self.header.mode.is_joined() {
            return None;
        }

        let right = &self.side.granules[index][1];
        Some(JointGranule {
            bands: self.bands.for_granule(right),
            mid_side,
            intensity: intensity.then_some(Positions {
                factors,
                version: self.header.version,
                is_coarse: right.scalefac_compress & 1 == 1,
            }),
        })
    }

    /// Returns the index of the first bit after a channel whose bits begin at `start`.
    fn end(&self, granule: &Granule) -> Result<usize, FrameError> {
        let end = self.start + granule.n_bits;
        if end > 8 * self.main.bytes.len() {
            return Err(FrameError::MainData);
        }
        Ok(end)
    }
}
