//! Scale factor bands, which divide the lines of a granule (ISO/IEC 11172-3 table 3-B.8, ISO/IEC 13818-3 table B.2; for
//! MPEG-2.5, the bands that every encoder uses).

use super::LINES;
use super::header::{FrameHeader, Version};
use super::side_info::{Block, Granule};

/// First lines of the 22 scale factor bands of a long block, and the end of the last band.
type LongBands = [u16; 23];
/// First lines of the 13 scale factor bands of each window of a short block, and the end of the last band.
type ShortBands = [u16; 14];

#[rustfmt::skip]
const LONG_44100: LongBands = [0, 4, 8, 12, 16, 20, 24, 30, 36, 44, 52, 62, 74, 90, 110, 134, 162, 196, 238, 288, 342, 418, 576];
#[rustfmt::skip]
const LONG_48000: LongBands = [0, 4, 8, 12, 16, 20, 24, 30, 36, 42, 50, 60, 72, 88, 106, 128, 156, 190, 230, 276, 330, 384, 576];
#[rustfmt::skip]
const LONG_32000: LongBands = [0, 4, 8, 12, 16, 20, 24, 30, 36, 44, 54, 66, 82, 102, 126, 156, 194, 240, 296, 364, 448, 550, 576];
#[rustfmt::skip]
const LONG_22050: LongBands = [0, 6, 12, 18, 24, 30, 36, 44, 54, 66, 80, 96, 116, 140, 168, 200, 238, 284, 336, 396, 464, 522, 576];
#[rustfmt::skip]
const LONG_24000: LongBands = [0, 6, 12, 18, 24, 30, 36, 44, 54, 66, 80, 96, 114, 136, 162, 194, 232, 278, 332, 394, 464, 540, 576];
#[rustfmt::skip]
const LONG_8000: LongBands = [0, 12, 24, 36, 48, 60, 72, 88, 108, 132, 160, 192, 232, 280, 336, 400, 476, 566, 568, 570, 572, 574, 576];

const SHORT_44100: ShortBands = [0, 4, 8, 12, 16, 22, 30, 40, 52, 66, 84, 106, 136, 192];
const SHORT_48000: ShortBands = [0, 4, 8, 12, 16, 22, 28, 38, 50, 64, 80, 100, 126, 192];
const SHORT_32000: ShortBands = [0, 4, 8, 12, 16, 22, 30, 42, 58, 78, 104, 138, 180, 192];
const SHORT_22050: ShortBands = [0, 4, 8, 12, 18, 24, 32, 42, 56, 74, 100, 132, 174, 192];
const SHORT_24000: ShortBands = [0, 4, 8, 12, 18, 26, 36, 48, 62, 80, 104, 136, 180, 192];
const SHORT_16000: ShortBands = [0, 4, 8, 12, 18, 26, 36, 48, 62, 80, 104, 134, 174, 192];
const SHORT_8000: ShortBands = [0, 8, 16, 24, 36, 52, 72, 96, 124, 160, 162, 164, 166, 192];

/// Maximum number of scale factor bands of a granule: 13 in each of three windows.
pub(super) const BANDS_MAX: usize = 39;
/// The first scale factor band of the short part of a mixed block.
const MIXED_SHORT_FROM: usize = 3;

/// The scale factor bands of a granule in the order of its lines: the long bands, then three windows per short band.
#[derive(Debug)]
pub(super) struct Bands {
    edges: [u16; BANDS_MAX + 1],
    /// Number of all scale factor bands.
    pub(super) n: usize,
    /// Number of scale factor bands with a long window.
    pub(super) n_long: usize,
}

impl Bands {
    const fn new(long: &LongBands, n_long: usize, short: &ShortBands, short_from: usize) -> Self {
        let mut edges = [LINES as u16; BANDS_MAX + 1];
        let mut n = 0;
        while n < n_long {
            edges[n] = long[n];
            n += 1;
        }

        let mut band = short_from;
        while band < 13 {
            let width = short[band + 1] - short[band];
            let mut window = 0;
            while window < 3 {
                edges[n] = 3 * short[band] + window * width;
                n += 1;
                window += 1;
            }
            band += 1;
        }
        Self { edges, n, n_long }
    }

    /// Returns the range of spectral lines of a scale factor band.
    #[inline]
    pub(super) fn lines(&self, band: usize) -> std::ops::Range<usize> {
        usize::from(self.edges[band])..usize::from(self.edges[band + 1])
    }

    /// Returns the window of a scale factor band: 0 to 2, or 0 for a long band.
    pub(super) fn window(&self, band: usize) -> usize {
        band.saturating_sub(self.n_long) % 3
    }

    /// Returns the number of bands whose scale factors are transmitted: all but the highest.
    pub(super) fn n_transmitted(&self) -> usize {
        if self.n_long == self.n {
            self.n - 1
        } else {
            self.n - 3
        }
    }
}

/// The scale factor bands of long, short and mixed blocks at a sample rate.
#[derive(Debug)]
pub(super) struct RateBands {
    long: Bands,
    short: Bands,
    mixed: Bands,
}

impl RateBands {
    const fn new(long: &LongBands, short: &ShortBands, n_long_of_mixed: usize) -> Self {
        Self {
            long: Bands::new(long, 22, short, 13),
            short: Bands::new(long, 0, short, 0),
            mixed: Bands::new(long, n_long_of_mixed, short, MIXED_SHORT_FROM),
        }
    }

    /// Returns the scale factor bands for a frame's version and sample rate.
    pub(super) fn from_header(header: &FrameHeader) -> &'static Self {
        let version = match header.version {
            Version::Mpeg1 => 0,
            Version::Mpeg2 => 1,
            Version::Mpeg25 => 2,
        };
        &RATES[version][header.rate_index]
    }

    /// Returns the scale factor bands of a granule.
    pub(super) fn for_granule(&self, granule: &Granule) -> &Bands {
        match granule.block {
            Block::Short if granule.is_mixed => &self.mixed,
            Block::Short => &self.short,
            _ => &self.long,
        }
    }

    /// Returns the first spectral line of a long band, or the end of the lines after the last band.
    pub(super) fn long_edge(&self, band: usize) -> usize {
        usize::from(self.long.edges[band.min(22)])
    }

    /// Returns the first spectral line of the second Huffman region, for granules with window switching.
    pub(super) fn first_region_end(&self, version: Version, granule: &Granule) -> usize {
        match granule.block {
            // Decoders disagree on the region in mixed blocks of MPEG-2.5: mpg123 counts long bands, ffmpeg short ones.
            Block::Short if granule.is_mixed && version == Version::Mpeg25 => self.long_edge(8),
            // The first region of a short block contains three bands with three windows each.
            Block::Short => usize::from(self.short.edges[9]),
            _ => self.long_edge(8),
        }
    }
}

// The lines of a mixed block below short band 3 are long: eight long bands in MPEG-1, six in the other versions.
static RATES: [[RateBands; 3]; 3] = [
    [
        RateBands::new(&LONG_44100, &SHORT_44100, 8),
        RateBands::new(&LONG_48000, &SHORT_48000, 8),
        RateBands::new(&LONG_32000, &SHORT_32000, 8),
    ],
    [
        RateBands::new(&LONG_22050, &SHORT_22050, 6),
        RateBands::new(&LONG_24000, &SHORT_24000, 6),
        RateBands::new(&LONG_22050, &SHORT_16000, 6),
    ],
    [
        RateBands::new(&LONG_22050, &SHORT_16000, 6),
        RateBands::new(&LONG_22050, &SHORT_16000, 6),
        RateBands::new(&LONG_8000, &SHORT_8000, 6),
    ],
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_follow_one_another_in_pairs_of_lines_and_mixed_ones_meet() {
        for rate in RATES.iter().flatten() {
            for bands in [&rate.long, &rate.short, &rate.mixed] {
                assert_eq!((bands.edges[0], bands.edges[bands.n]), (0, 576));
                for band in 0..bands.n {
                    let lines = bands.lines(band);
                    assert!(!lines.is_empty() && lines.len() % 2 == 0, "{bands:?}");
                }
            }

            let switch = rate.mixed.edges[rate.mixed.n_long];
            assert_eq!(usize::from(switch), rate.long_edge(rate.mixed.n_long));
        }
    }
}
