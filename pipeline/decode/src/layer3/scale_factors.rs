//! Reads scale factors, which set the gain of each band (ISO/IEC 11172-3 §2.4.2.7, ISO/IEC 13818-3 §2.4.3.2).

use super::bands::{BANDS_MAX, Bands};
use super::bits::BitReader;
use super::header::{FrameHeader, Mode, Version};
use super::side_info::{Block, Granule};

/// Number of bits of a scale factor in the lower and in the upper bands, by `scalefac_compress` (MPEG-1).
#[rustfmt::skip]
const LENGTHS: [(u32, u32); 16] = [
    (0, 0), (0, 1), (0, 2), (0, 3), (3, 0), (1, 1), (1, 2), (1, 3),
    (2, 1), (2, 2), (2, 3), (3, 1), (3, 2), (3, 3), (4, 2), (4, 3),
];

/// Ends of the groups of long bands whose scale factors two granules may share. The first two groups have the first
/// length of `LENGTHS`.
const GROUP_ENDS: [usize; 4] = [6, 11, 16, 21];

/// Number of bands for each of four scale factor lengths (MPEG-2), by the range of `scalefac_compress`, then for long,
/// short and mixed blocks.
type Partitions = [[usize; 4]; 3];
const PARTITIONS: [Partitions; 3] = [
    [[6, 5, 5, 5], [9, 9, 9, 9], [6, 9, 9, 9]],
    [[6, 5, 7, 3], [9, 9, 12, 6], [6, 9, 12, 6]],
    [[11, 10, 0, 0], [18, 18, 0, 0], [15, 18, 0, 0]],
];
/// Like `PARTITIONS`, for the right channel of intensity stereo, whose scale factors are stereo positions.
const INTENSITY_PARTITIONS: [Partitions; 3] = [
    [[7, 7, 7, 0], [12, 12, 12, 0], [6, 15, 12, 0]],
    [[6, 6, 6, 3], [12, 9, 9, 6], [6, 12, 9, 6]],
    [[8, 8, 5, 0], [15, 12, 9, 0], [6, 18, 9, 0]],
];

/// A value that is different from every scale factor, for bands where every position is legal.
const NEVER: u8 = u8::MAX;

/// The scale factors of one channel of a granule, in the order of [`Bands`].
#[derive(Clone, Copy, Debug)]
pub(super) struct ScaleFactors {
    pub(super) values: [u8; BANDS_MAX],
    /// In intensity stereo of MPEG-2, the value in each band that means "no position".
    pub(super) illegal: [u8; BANDS_MAX],
    /// True if the preflag table is added to the scale factors of high bands.
    pub(super) preflag: bool,
}

impl ScaleFactors {
    /// Scale factors of zero, for a channel without scale factors in the file.
    pub(super) const ZERO: Self = Self {
        values: [0; BANDS_MAX],
        illegal: [NEVER; BANDS_MAX],
        preflag: false,
    };

    /// Reads scale factors of MPEG-1. For the second granule, `first` contains those of the first granule and the flags
    /// of the groups that both share.
    pub(super) fn read_mpeg1(
        bits: &mut BitReader,
        granule: &Granule,
        bands: &Bands,
        first: Option<(&Self, [bool; 4])>,
    ) -> Self {
        let mut factors = Self {
            preflag: granule.preflag,
            ..Self::ZERO
        };
        let (lower_bits, upper_bits) = LENGTHS[usize::from(granule.scalefac_compress) % 16];

        if granule.block == Block::Short {
            // The scale factors of each window's upper six bands have the second length.
            let end = bands.n_transmitted();
            for (band, value) in factors.values[..end].iter_mut().enumerate() {
                *value = bits.read(if band < end - 18 {
                    lower_bits
                } else {
                    upper_bits
                }) as u8;
            }
            return factors;
        }

        let mut start = 0;
        for (group, end) in GROUP_ENDS.into_iter().enumerate() {
            match first {
                Some((first, shares)) if shares[group] => {
                    factors.values[start..end].copy_from_slice(&first.values[start..end]);
                }
                _ => {
                    let n_bits = if group < 2 { lower_bits } else { upper_bits };
                    // A word contains the scale factors of a group, which has at most six with four bits.
                    bits.reload();
                    for value in &mut factors.values[start..end] {
                        *value = bits.next(n_bits) as u8;
                    }
                }
            }
            start = end;
        }
        factors
    }

    /// Reads scale factors of MPEG-2, or the stereo positions in the right channel of intensity stereo.
    pub(super) fn read_mpeg2(bits: &mut BitReader, granule: &Granule, is_position: bool) -> Self {
        let (lengths, partitions) = if is_position {
            position_lengths(u32::from(granule.scalefac_compress) / 2)
        } else {
            factor_lengths(u32::from(granule.scalefac_compress))
        };
        let block = match granule.block {
            Block::Short if granule.is_mixed => 2,
            Block::Short => 1,
            _ => 0,
        };

        let mut factors = Self {
            preflag: !is_position && granule.scalefac_compress >= 500,
            ..Self::ZERO
        };
        let mut band = 0;
        for (n_bits, n_bands) in lengths.into_iter().zip(partitions[block]) {
            for _ in 0..n_bands {
                factors.values[band] = bits.read(n_bits) as u8;
                // The largest number means "no position". If a position has no bits in the file, it is 0.
                if n_bits > 0 {
                    factors.illegal[band] = (1 << n_bits) - 1;
                }
                band += 1;
            }
        }
        factors
    }

    /// Reports whether the scale factors of a channel are stereo positions.
    pub(super) fn are_positions(header: &FrameHeader, channel: usize) -> bool {
        let is_intensity = matches!(
            header.mode,
            Mode::Joint {
                intensity: true,
                ..
            }
        );
        is_intensity && channel == 1 && header.version != Version::Mpeg1
    }
}

/// Returns the number of bits of a scale factor in each partition of the bands, and the partitions.
fn factor_lengths(compress: u32) -> ([u32; 4], Partitions) {
    match compress {
        0..400 => (
            [
                compress / 80,
                compress / 16 % 5,
                compress % 16 / 4,
                compress % 4,
            ],
            PARTITIONS[0],
        ),
        400..500 => {
            let rest = compress - 400;
            ([rest / 20, rest / 4 % 5, rest % 4, 0], PARTITIONS[1])
        }
        _ => {
            let rest = compress - 500;
            ([rest / 3, rest % 3, 0, 0], PARTITIONS[2])
        }
    }
}

/// Like [`factor_lengths`], for stereo positions in intensity stereo.
fn position_lengths(compress: u32) -> ([u32; 4], Partitions) {
    match compress {
        0..180 => (
            [compress / 36, compress % 36 / 6, compress % 6, 0],
            INTENSITY_PARTITIONS[0],
        ),
        180..244 => {
            let rest = compress - 180;
            (
                [rest / 16, rest / 4 % 4, rest % 4, 0],
                INTENSITY_PARTITIONS[1],
            )
        }
        _ => {
            let rest = compress - 244;
            ([rest / 3, rest % 3, 0, 0], INTENSITY_PARTITIONS[2])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All bands but the highest one have a scale factor: 22 long bands, 13 short bands in each window, or six long
    /// bands and the short bands from the fourth on.
    #[test]
    fn partitions_hold_every_band_with_a_factor_once() {
        let n_bands = [21, 3 * 12, 6 + 3 * 9];
        for partitions in PARTITIONS.iter().chain(&INTENSITY_PARTITIONS) {
            let sums = partitions.map(|groups| groups.iter().sum::<usize>());
            assert_eq!(sums, n_bands, "{partitions:?}");
        }
    }
}
