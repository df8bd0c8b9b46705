//! Transforms the lines of one channel of a granule to sub-band samples: reordering, anti-aliasing butterflies, IMDCT.

use super::antialias::antialias;
use super::bands::{Bands, RateBands};
use super::granules::Spectrum;
use super::imdct::{Imdct, MIXED_SUB_BANDS, Windows};
use super::reorder::reorder;
use super::side_info::{Block, Granule};
use super::{LINES, SUB_BAND_LINES, SUB_BANDS, SubBandSamples};

/// The spectral lines of one channel of a granule, with the parameters of their transform.
pub(super) struct Lines<'a> {
    bands: &'static Bands,
    granule: &'a Granule,
    spectrum: &'a mut Spectrum,
}

impl<'a> Lines<'a> {
    pub(super) fn new(
        bands: &'static RateBands,
        granule: &'a Granule,
        spectrum: &'a mut Spectrum,
    ) -> Self {
        Self {
            bands: bands.for_granule(granule),
            granule,
            spectrum,
        }
    }

    /// Computes the samples of the lowest `n_sub_bands` sub-bands. Samples of higher sub-bands are undefined. `ordered`
    /// is a buffer for reordered lines.
    #[inline(always)]
    pub(super) fn transform(
        self,
        n_sub_bands: usize,
        imdct: &mut Imdct,
        ordered: &mut [f32; LINES],
        slots: &mut SubBandSamples,
    ) {
        let granule = self.granule;
        let mut lines = &mut self.spectrum.lines;
        let mut n_lines = self.spectrum.n_lines;
        let mut n_long_sub_bands = SUB_BANDS;
        if granule.block == Block::Short {
            n_lines = reorder(self.bands, n_lines, lines, ordered);
            lines = ordered;
            n_long_sub_bands = if granule.is_mixed { MIXED_SUB_BANDS } else { 1 };
        }

        // Apply butterflies at all borders up to the one above the highest requested sub-band.
        n_lines = antialias(n_long_sub_bands.min(n_sub_bands + 1), n_lines, lines);

        let windows = Windows {
            block: granule.block,
            is_mixed: granule.is_mixed,
        };
        let n_lines = n_lines.min(n_sub_bands * SUB_BAND_LINES);
        imdct.run(windows, n_lines, lines, slots);
    }
}
