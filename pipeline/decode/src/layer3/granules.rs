//! Decodes main data to spectral lines: reads scale factors and Huffman codes, one channel of a granule after another.

use wavemill_signal::Lanes;

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

/// The tables for reading granules, and buffers for the gains of two channels.
pub(super) struct GranuleReader {
    lanes: Lanes,
    codes: huffman::Reader,
    gains: [Gains; 2],
}

/// A channel of a granule whose scale factors have been read.
struct CodedChannel<'a> {
    bands: &'static Bands,
    factors: ScaleFactors,
    /// The codes, which follow the scale factors.
    coded: CodedLines<'a>,
}

impl GranuleReader {
    pub(super) fn new(lanes: Lanes) -> Self {
        Self {
            lanes,
            codes: huffman::Reader::new(),
            gains: [(); 2].map(|()| Gains::new()),
        }
    }

    /// Reads the spectral lines of a channel, multiplied by `factor`.
    fn read(&mut self, channel: &mut CodedChannel, factor: f32) {
        let gains = &mut self.gains[0];
        self.lanes.run(
            #[inline(always)]
            || {
                self.codes.read(&mut channel.coded);
                channel.set_gains(gains);
                channel.apply(gains, factor);
            },
        );
    }

    /// Reads the spectral lines of two channels, multiplied by `factor`.
    fn read_two(&mut self, a: &mut CodedChannel, b: &mut CodedChannel, factor: f32) {
        self.read_codes(a, b);
        self.lanes.run(
            #[inline(always)]
            || {
                a.apply(&self.gains[0], factor);
                b.apply(&self.gains[1], factor);
            },
        );
    }

    /// Reads the spectral lines of the mean of two channels to the first one.
    fn read_mean(&mut self, a: &mut CodedChannel, b: &mut CodedChannel) {
        self.read_codes(a, b);
        let n_lines = a.coded.n_lines.max(b.coded.n_lines);
        self.lanes.run(
            #[inline(always)]
            || Gains::mean(&self.gains, n_lines, a.coded.lines, b.coded.lines),
        );
    }

    /// Reads the codes of two channels side by side, and sets their gains.
    fn read_codes(&mut self, a: &mut CodedChannel, b: &mut CodedChannel) {
        let [gains_a, gains_b] = &mut self.gains;
        self.lanes.run(
            #[inline(always)]
            || {
                self.codes.read_two(&mut a.coded, &mut b.coded);
                a.set_gains(gains_a);
                b.set_gains(gains_b);
            },
        );
    }
}

impl CodedChannel<'_> {
    #[inline(always)]
    fn set_gains(&self, gains: &mut Gains) {
        let coded = &self.coded;
        gains.set(coded.granule, self.bands, &self.factors, coded.n_lines);
    }

    #[inline(always)]
    fn apply(&mut self, gains: &Gains, factor: f32) {
        gains.apply(factor, self.coded.n_lines, self.coded.lines);
    }
}

/// A frame whose granules are read in order.
pub(super) struct CodedFrame<'a> {
    pub(super) header: &'a FrameHeader,
    pub(super) side: &'a SideInfo,
    main: MainData<'a>,
    bands: &'static RateBands,
    first_factors: [ScaleFactors; MAX_CHANNELS],
    /// Number of bits of the granules that were skipped so far, including the missing ones.
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
        let mut opened = self.open(index, channel, n_wanted, &mut spectrum.lines)?;
        reader.read(&mut opened, 1.0);
        spectrum.n_lines = self.n_lines(&opened)?;
        Ok(opened.factors)
    }

    /// Reads both channels of a granule like [`Self::read`], and returns the scale factors of the second channel.
    pub(super) fn read_both(
        &mut self,
        reader: &mut GranuleReader,
        index: usize,
        n_wanted: [usize; MAX_CHANNELS],
        [left, right]: [&mut Spectrum; MAX_CHANNELS],
    ) -> Result<ScaleFactors, FrameError> {
        let mut opened_left = self.open(index, 0, n_wanted[0], &mut left.lines)?;
        let mut opened_right = self.open(index, 1, n_wanted[1], &mut right.lines)?;
        reader.read_two(&mut opened_left, &mut opened_right, 1.0);

        left.n_lines = self.n_lines(&opened_left)?;
        right.n_lines = self.n_lines(&opened_right)?;
        Ok(opened_right.factors)
    }

    /// Reads the mean of both channels of a granule, which have equal bands, to the first spectrum. `right` is a buffer.
    pub(super) fn read_mean(
        &mut self,
        reader: &mut GranuleReader,
        index: usize,
        n_wanted: usize,
        [left, right]: [&mut Spectrum; MAX_CHANNELS],
    ) -> Result<(), FrameError> {
        let mut opened_left = self.open(index, 0, n_wanted, &mut left.lines)?;
        let mut opened_right = self.open(index, 1, n_wanted, &mut right.lines)?;
        reader.read_mean(&mut opened_left, &mut opened_right);

        let n_lines = self.n_lines(&opened_left)?;
        left.n_lines = n_lines.max(self.n_lines(&opened_right)?);
        Ok(())
    }

    /// Reads the first channel of each granule like [`Self::read`], multiplied by `factor`, and skips the second one. If
    /// `checks_second`, damage of the second channel is an error, as if it were read.
    pub(super) fn read_firsts(
        &mut self,
        reader: &mut GranuleReader,
        n_wanted: [usize; 2],
        checks_second: bool,
        factor: f32,
        [first, second]: [&mut Spectrum; 2],
    ) -> Result<(), FrameError> {
        // If no code of the first granule can be damaged, it makes no difference that the second one is opened before.
        let n_bits: usize = self.channels(0).iter().map(|granule| granule.n_bits).sum();
        let has_two = self.header.n_granules() == 2 && self.main.n_missing_bits == 0;
        if has_two && !self.may_overrun(n_bits) {
            let lines = &mut first.lines;
            let mut opened = self.open_first(reader, 0, n_wanted[0], checks_second, lines)?;
            let lines = &mut second.lines;
            let mut opened_2 = self.open_first(reader, 1, n_wanted[1], checks_second, lines)?;
            reader.read_two(&mut opened, &mut opened_2, factor);
            first.n_lines = self.n_lines(&opened)?;
            second.n_lines = self.n_lines(&opened_2)?;
            return Ok(());
        }

        let spectra = [first, second].into_iter().take(self.header.n_granules());
        for (index, spectrum) in spectra.enumerate() {
            if self.passes_over(index) {
                spectrum.silence();
                continue;
            }
            let lines = &mut spectrum.lines;
            let mut opened =
                self.open_first(reader, index, n_wanted[index], checks_second, lines)?;
            reader.read(&mut opened, factor);
            spectrum.n_lines = self.n_lines(&opened)?;
        }
        Ok(())
    }

    /// Opens the first channel of a granule, and skips the second one.
    fn open_first<'b>(
        &mut self,
        reader: &mut GranuleReader,
        index: usize,
        n_wanted: usize,
        checks_second: bool,
        lines: &'b mut [f32; LINES],
    ) -> Result<CodedChannel<'b>, FrameError>
    where
        'a: 'b,
    {
        let opened = self.open(index, 0, n_wanted, lines)?;
        if !checks_second {
            self.skip(index, 1)?;
            return Ok(opened);
        }

        // Nothing has been read to the lines of the first channel, so they are free.
        let mut second = self.open(index, 1, LINES, opened.coded.lines)?;
        if self.may_overrun(second.coded.end) {
            reader.read(&mut second, 1.0);
            self.n_lines(&second)?;
        }
        Ok(opened)
    }

    /// Reports whether codes of a channel, whose bits end at `end`, can extend beyond the end of the main data.
    ///
    /// This is the only damage that reading the codes can find. All books are complete prefix codes, so any bits are
    /// codes. The last code begins before `end` and has at most [`huffman::CODE_BITS_MAX`] bits. So a channel that ends
    /// that many bits before the main data do decodes without an error, whatever its bits are.
    fn may_overrun(&self, end: usize) -> bool {
        end + huffman::CODE_BITS_MAX > 8 * self.main.bytes.len()
    }

    /// Reads the scale factors of the next channel and skips its Huffman codes. Returns factors and unread codes.
    fn open<'b>(
        &mut self,
        index: usize,
        channel: usize,
        n_wanted: usize,
        lines: &'b mut [f32; LINES],
    ) -> Result<CodedChannel<'b>, FrameError>
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
        let coded = CodedLines {
            bytes: self.main.bytes,
            position: bits.position(),
            end,
            granule,
            n_wanted,
            lines,
            n_lines: 0,
            n_regions: 0,
        };
        Ok(CodedChannel {
            bands,
            factors,
            coded,
        })
    }

    /// Returns the number of spectral lines that were read, or an error if the codes extend beyond the main data.
    fn n_lines(&self, channel: &CodedChannel) -> Result<usize, FrameError> {
        if channel.coded.position > 8 * self.main.bytes.len() {
            return Err(FrameError::MainData);
        }
        Ok(channel.coded.n_lines)
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
