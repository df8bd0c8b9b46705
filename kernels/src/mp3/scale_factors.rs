//! Scale factors: how loud each band is (ISO/IEC 11172-3 §2.4.2.7, ISO/IEC 13818-3 §2.4.3.2).

use super::bands::{BANDS_MAX, Bands};
use super::bits::BitReader;
use super::header::{FrameHeader, Mode, Version};
use super::side_info::{Block, Granule};

/// Bits of a scale factor in the lower and in the upper bands, by `scalefac_compress` (MPEG-1).
#[rustfmt::skip]
const LENGTHS: [(u32, u32); 16] = [
    (0, 0), (0, 1), (0, 2), (0, 3), (3, 0), (1, 1), (1, 2), (1, 3),
    (2, 1), (2, 2), (2, 3), (3, 1), (3, 2), (3, 3), (4, 2), (4, 3),
];

/// Where the groups of a long block's bands end which two granules may share. The lengths change behind the second.
const GROUP_ENDS: [usize; 4] = [6, 11, 16, 21];

/// Bands of each of four lengths (MPEG-2), by the range of `scalefac_compress`, then for long, short and mixed blocks.
type Partitions = [[usize; 4]; 3];
const PARTITIONS: [Partitions; 3] = [
    [[6, 5, 5, 5], [9, 9, 9, 9], [6, 9, 9, 9]],
    [[6, 5, 7, 3], [9, 9, 12, 6], [6, 9, 12, 6]],
    [[11, 10, 0, 0], [18, 18, 0, 0], [15, 18, 0, 0]],
];
/// The same for the right channel of intensity stereo, where they are positions.
const INTENSITY_PARTITIONS: [Partitions; 3] = [
    [[7, 7, 7, 0], [12, 12, 12, 0], [6, 15, 12, 0]],
    [[6, 6, 6, 3], [12, 9, 9, 6], [6, 12, 9, 6]],
    [[8, 8, 5, 0], [15, 12, 9, 0], [6, 18, 9, 0]],
];

/// A position that no scale factor has.
const NEVER: u8 = u8::MAX;

/// The scale factors of one channel of a granule, in the order of [`Bands`].
#[derive(Clone, Copy, Debug)]
pub(super) struct ScaleFactors {
    pub(super) values: [u8; BANDS_MAX],
    /// As positions in intensity stereo, those that equal it stand for none (MPEG-2).
    pub(super) illegal: [u8; BANDS_MAX],
    /// High bands are louder by a table.
    pub(super) preflag: bool,
}

impl ScaleFactors {
    /// None: where nothing was transmitted.
    pub(super) const ZERO: Self = Self {
        values: [0; BANDS_MAX],
        illegal: [NEVER; BANDS_MAX],
        preflag: false,
    };

    /// Those of MPEG-1. `first` are the first granule's, if this is the second one, with the groups that it shares.
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
            // The upper six bands of each window have the second length.
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
                    for value in &mut factors.values[start..end] {
                        *value = bits.read(n_bits) as u8;
                    }
                }
            }
            start = end;
        }
        factors
    }

    /// Those of MPEG-2, or the positions of its right channel in intensity stereo.
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
                // The largest one. Where nothing is transmitted, the position is 0.
                if n_bits > 0 {
                    factors.illegal[band] = (1 << n_bits) - 1;
                }
                band += 1;
            }
        }
        factors
    }

    /// Whether a channel's factors are positions.
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

/// Bits in each partition, and the partitions.
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

/// As [`factor_lengths`], in intensity stereo.
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

    /// All bands but the highest one, which has no factor: 22 long ones, 13 short ones of each window, or six long ones and
    /// those of the short ones behind the third.
    #[test]
    fn partitions_hold_every_band_with_a_factor_once() {
        let n_bands = [21, 3 * 12, 6 + 3 * 9];
        for partitions in PARTITIONS.iter().chain(&INTENSITY_PARTITIONS) {
            let sums = partitions.map(|groups| groups.iter().sum::<usize>());
            assert_eq!(sums, n_bands, "{partitions:?}");
        }
    }
}
