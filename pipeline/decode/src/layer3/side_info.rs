//! Parses side info, which describes how to read the main data of a frame (ISO/IEC 11172-3 §2.4.1.7, ISO/IEC 13818-3
//! §2.4.1.7).

use super::FrameError;
use super::bands::RateBands;
use super::bits::BitReader;
use super::header::{FrameHeader, Version};
use super::{LINES, MAX_CHANNELS};

/// Number of pairs of lines in a granule, which is the maximum for the pairs of big values.
const PAIRS_MAX: usize = LINES / 2;

/// The window shape of a granule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Block {
    /// A block with one long window.
    #[default]
    Long,
    /// A block with one long window that ends steeply, before a short block.
    Start,
    /// A block with three short windows.
    Short,
    /// A block with one long window that starts steeply, after a short block.
    End,
}

/// Side info of one channel of a granule.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Granule {
    /// Number of bits of the scale factors (part 2) and Huffman codes (part 3): `part2_3_length`.
    pub(super) n_bits: usize,
    /// Number of spectral lines that are coded in pairs, twice `big_values`.
    pub(super) n_big: usize,
    /// Gain of the quantiser, in factors of 2^(1/4); 210 is a factor of one.
    pub(super) global_gain: u8,
    /// Index of the lengths of the scale factors (`scalefac_compress`).
    pub(super) scalefac_compress: u16,
    /// Window shape of the granule (`block_type`).
    pub(super) block: Block,
    /// Whether the two lowest sub-bands have the normal long window, whatever `block` is (`mixed_block_flag`).
    pub(super) is_mixed: bool,
    /// Huffman table number of each region of the big values.
    pub(super) table_select: [u8; 3],
    /// End of each of the first two regions of big values, as an index of a spectral line.
    pub(super) region_ends: [usize; 2],
    /// Attenuation of each short window, in factors of four.
    pub(super) subblock_gain: [u8; 3],
    /// Whether the preflag table is added to the scale factors of high bands.
    pub(super) preflag: bool,
    /// Whether the scale factors have double weight.
    pub(super) scalefac_scale: bool,
    /// Whether quadruples are coded with the second Huffman book of quadruples (`count1table_select`).
    pub(super) uses_quads_b: bool,
}

/// The side info of a layer III frame.
#[derive(Clone, Copy, Debug, Default)]
pub struct SideInfo {
    /// Number of bytes by which the main data begin before the frame's own main data bytes.
    pub main_data_begin: usize,
    /// For each channel, whether the second granule shares each group of scale factors with the first one
    /// (`scfsi`).
    pub(super) shares: [[bool; 4]; MAX_CHANNELS],
    /// Side info by granule, then by channel.
    pub(super) granules: [[Granule; MAX_CHANNELS]; 2],
}

impl SideInfo {
    /// Parses the side info, which follows the frame header and its checksum.
    ///
    /// [`FrameError`] if the standard does not allow this side info: more big values than lines, or window switching to
    /// the normal long window.
    pub fn parse(header: &FrameHeader, bytes: &[u8]) -> Result<Self, FrameError> {
        let n_channels = header.n_channels();
        let is_mpeg1 = header.version == Version::Mpeg1;
        let mut bits = BitReader::new(bytes, 0);
        let mut side = Self::default();

        // Skip the private bits.
        if is_mpeg1 {
            side.main_data_begin = bits.read(9) as usize;
            bits.read(if n_channels == 1 { 5 } else { 3 });
            for shares in &mut side.shares[..n_channels] {
                *shares = std::array::from_fn(|_| bits.flag());
            }
        } else {
            side.main_data_begin = bits.read(8) as usize;
            bits.read(if n_channels == 1 { 1 } else { 2 });
        }

        for granule in &mut side.granules[..header.n_granules()] {
            for channel in &mut granule[..n_channels] {
                *channel = Granule::parse(header, &mut bits)?;
            }
        }
        Ok(side)
    }

    /// Returns by how many bytes the main data begin before the frame's own main data bytes, even for side info that
    /// [`Self::parse`] refuses.
    pub fn main_data_begin(header: &FrameHeader, bytes: &[u8]) -> usize {
        let n_bits = if header.version == Version::Mpeg1 {
            9
        } else {
            8
        };
        BitReader::new(bytes, 0).read(n_bits) as usize
    }

    /// Returns the number of bits of main data of each granule, over all channels.
    pub fn granule_bits(&self) -> [usize; 2] {
        self.granules
            .map(|channels| channels.iter().map(|channel| channel.n_bits).sum())
    }
}

impl Granule {
    fn parse(header: &FrameHeader, bits: &mut BitReader) -> Result<Self, FrameError> {
        let is_mpeg1 = header.version == Version::Mpeg1;
        let mut granule = Self {
            n_bits: bits.read(12) as usize,
            ..Self::default()
        };
        let n_pairs = bits.read(9) as usize;
        if n_pairs > PAIRS_MAX {
            return Err(FrameError::BigValues);
        }
        granule.n_big = 2 * n_pairs;
        granule.global_gain = bits.read(8) as u8;
        granule.scalefac_compress = bits.read(if is_mpeg1 { 4 } else { 9 }) as u16;

        let bands = RateBands::from_header(header);
        if bits.flag() {
            granule.block = match bits.read(2) {
                1 => Block::Start,
                2 => Block::Short,
                3 => Block::End,
                _ => return Err(FrameError::BlockType),
            };
            granule.is_mixed = bits.flag();
            granule.table_select = [bits.read(5) as u8, bits.read(5) as u8, 0];
            granule.subblock_gain = std::array::from_fn(|_| bits.read(3) as u8);
            granule.region_ends = [bands.first_region_end(header.version, &granule), LINES];
        } else {
            granule.table_select = std::array::from_fn(|_| bits.read(5) as u8);
            // The fields contain the numbers of bands of the first two regions, minus one.
            let first = bits.read(4) as usize + 1;
            let second = bits.read(3) as usize + 1;
            granule.region_ends = [bands.long_edge(first), bands.long_edge(first + second)];
        }

        // MPEG-2 has no preflag bit: the scale factor lengths imply the preflag.
        granule.preflag = is_mpeg1 && bits.flag();
        granule.scalefac_scale = bits.flag();
        granule.uses_quads_b = bits.flag();
        Ok(granule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn side_info_is_read_across_byte_borders() {
        let header = FrameHeader::parse([0xFF, 0xFB, 0x90, 0x64]).unwrap();
        // main_data_begin = 511 in 9 bits; part2_3_length of granule 0, channel 0 = 4095 at bit 20.
        let mut bytes = vec![0; header.side_info_bytes()];
        bytes[..5].copy_from_slice(&[0xFF, 0x80, 0x0F, 0xFF, 0x00]);

        let side = SideInfo::parse(&header, &bytes).unwrap();
        assert_eq!(side.main_data_begin, 511);
        assert_eq!(SideInfo::main_data_begin(&header, &bytes), 511);
        assert_eq!(side.granule_bits(), [4095, 0]);
    }
}
