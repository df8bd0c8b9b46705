// Symphonia
// Copyright (c) 2019-2026 The Project Symphonia Developers.
//
// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

use symphonia_core::errors::{Result, decode_error};

use crate::common::FrameHeader;

use super::{GranuleChannel, codebooks, common::*};

use std::cmp::min;
use std::{f32, f64};

use lazy_static::lazy_static;

use log::info;

/// The length of the `POW43` table.
const POW43_LEN: usize = 8207;

lazy_static! {
    /// Lookup table for computing x(i) = s(i)^(4/3) where s(i) is a decoded Huffman sample. The
    /// value of s(i) is bound between 0..8207.
    static ref POW43: Box<[f32; POW43_LEN]> = {
        let pow43: Vec<f32> = (0..POW43_LEN).map(|i| f32::powf(i as f32, 4.0 / 3.0)).collect();
        pow43.into_boxed_slice().try_into().expect("vec initialized to POW43_LEN")
    };
}

/// Zero a sample buffer.
#[inline(always)]
pub(super) fn zero(buf: &mut [f32; 576]) {
    buf.fill(0.0);
}

/// Reads the Huffman coded spectral samples for a given channel in a granule, `part3_bits` bits from
/// bit `start_bit` of `main_data`, into a provided sample buffer. Returns the number of decoded
/// samples (the starting index of the rzero partition).
///
/// Note, each spectral sample is raised to the (4/3)-rd power. This is not actually part of the
/// Huffman decoding process, but, by converting the integer sample to floating point here we don't
/// need to do pointless casting or use an extra buffer.
pub(super) fn read_huffman_samples(
    main_data: &[u8],
    start_bit: usize,
    channel: &GranuleChannel,
    part3_bits: u32,
    buf: &mut [f32; 576],
) -> Result<usize> {
    // If there are no Huffman code bits, zero all samples and return immediately.
    if part3_bits == 0 {
        buf.fill(0.0);
        return Ok(0);
    }

    // Dereference the tables once per granule since there is a tiny overhead each time a
    // lazy_static is dereferenced that should be amortized over as many samples as possible.
    let pow43: &[f32; POW43_LEN] = &POW43;
    let tables: &HuffmanTables = &HUFFMAN_TABLES;

    let mut bs = BitBuffer::new(main_data, start_bit);
    // Bits of part 3 that are not read yet; below zero after an overrun.
    let mut bits_left = part3_bits as i32;
    let mut i = 0;

    // There are two samples per big_value, therefore multiply big_values by 2 to get number of
    // samples in the big_value partition.
    let big_values_len = min(2 * channel.big_values as usize, 576);

    // There are up-to 3 regions in the big_value partition. Determine the sample index denoting the
    // end of each region (non-inclusive). Clamp to the end of the big_values partition.
    let regions: [usize; 3] = [
        min(channel.region1_start, big_values_len),
        min(channel.region2_start, big_values_len),
        big_values_len,
    ];

    // Iterate over each region in big_values.
    for (region_idx, region_end) in regions.iter().enumerate() {
        // Select the Huffman table based on the region's table select value.
        let table_select = channel.table_select[region_idx] as usize;

        // Tables 0..16 are all unique, while tables 16..24 and 24..32 each use one table but
        // differ in the number of linbits to use.
        let pairs = match table_select {
            0..=15 => &tables.pairs[table_select],
            16..=23 => &tables.pairs[16],
            24..=31 => &tables.pairs[17],
            _ => unreachable!(),
        };

        let linbits = codebooks::CODEBOOK_LINBITS[table_select];

        if i >= *region_end {
            continue;
        }
        let region = &mut buf[i..*region_end];

        // If the table for a region is empty, fill the region with zeros and move on to the next
        // region.
        if pairs.is_empty() {
            region.fill(0.0);
            i = *region_end;
            continue;
        }

        i += 2 * if linbits == 0 {
            read_pairs::<false>(&mut bs, (pairs, 0), pow43, region, &mut bits_left)
        }
        else {
            read_pairs::<true>(&mut bs, (pairs, linbits), pow43, region, &mut bits_left)
        };
    }

    let quads = &tables.quads[usize::from(channel.count1table_select)];

    // Read the count1 partition.
    while i <= 572 && bits_left > 0 {
        // In the count1 partition, each Huffman code decodes to 4 samples: v, w, x, and y.
        // Each sample is 1-bit long (1 or 0).
        //
        // For each 1-bit sample, if it is 0, then the dequantized sample value is 0 as well. If
        // the 1-bit sample is 1, then a sign bit is read. The dequantized sample is then either
        // +/-1.0 depending on the sign bit.
        bs.refill();
        let entry = &quads[(bs.bits >> (u64::BITS - QUADS_BITS)) as usize];
        let mut signs = bs.bits << entry.code_len;
        for (k, sample) in buf[i..i + 4].iter_mut().enumerate() {
            let is_one = u32::from(entry.value >> (3 - k) & 1);
            *sample = signed(is_one as f32, signs);
            signs <<= is_one;
        }
        bs.consume(u32::from(entry.len));
        bits_left -= i32::from(entry.len);
        i += 4;
    }

    // All bits behind the end of `main_data` were read as 0. Extra "stuffing" bits are ignored, but
    // must be there.
    if bs.is_past_end(bits_left.max(0)) {
        return decode_error("mpa: huffman decode overrun");
    }

    // Word on the street is that some encoders are poor at "stuffing" bits, resulting in part3_len
    // being ever so slightly too large. This causes the Huffman decode loop to decode the next few
    // bits as spectral samples. However, these bits are actually random data and are not real
    // samples, therefore, undo them! The caller will be reponsible for re-aligning the bitstream
    // reader. Candy Pop confirms this.
    if bits_left < 0 && i > big_values_len {
        info!("count1 overrun, malformed bitstream");
        i -= 4;
    }
    else if bits_left < 0 {
        // It seems that most other decoders don't undo overruns of the big values. We'll just print
        // a message for now.
        info!("big_values overrun, malformed bitstream");
    }

    // The final partition after the count1 partition is the rzero partition. Samples in this
    // partition are all 0.
    buf[i..].fill(0.0);

    Ok(i)
}

/// Reads the pairs of a region until `bits_left` is used up, and returns their number.
///
/// Each Huffman code decodes to two samples, x and y, of 4 bits each. If a sample is saturated (15),
/// and the table specifies linbits, then `linbits` more bits follow, which are added to the sample.
/// If a sample is not 0, its sign bit follows.
fn read_pairs<const WITH_LINBITS: bool>(
    bs: &mut BitBuffer<'_>,
    (table, linbits): (&PairTable, u32),
    pow43: &[f32; POW43_LEN],
    region: &mut [f32],
    bits_left: &mut i32,
) -> usize {
    // Copies, which can stay in registers.
    let BitBuffer { data, mut next, mut bits, mut left } = *bs;
    let mut remaining = *bits_left;
    let mut n = 0;
    for pair in region.chunks_exact_mut(2) {
        if remaining <= 0 {
            break;
        }
        n += 1;
        let mut b = BitBuffer { data, next, bits, left };
        b.refill();
        let full = b.left;
        let entry = table.find(b.bits);
        let (mut x, mut y) = ((entry & 0xf) as usize, (entry >> 4 & 0xf) as usize);
        if WITH_LINBITS && (x == 15 || y == 15) {
            b.consume(entry >> 8 & 0xff);
            if x == 15 {
                x += b.take(linbits);
            }
            pair[0] = signed(pow43[x], b.bits);
            b.consume(u32::from(x != 0));
            if y == 15 {
                y += b.take(linbits);
            }
            pair[1] = signed(pow43[y], b.bits);
            b.consume(u32::from(y != 0));
        }
        else {
            let signs = b.bits << (entry >> 8 & 0xff);
            pair[0] = signed(pow43[x], signs);
            pair[1] = signed(pow43[y], signs << (entry >> 24));
            b.consume(entry >> 16 & 0xff);
        }
        remaining -= (full - b.left) as i32;
        BitBuffer { next, bits, left, .. } = b;
    }
    *bs = BitBuffer { data, next, bits, left };
    *bits_left = remaining;
    n
}

/// `magnitude` with the topmost bit of `signs` as its sign; 0.0 has none.
#[inline(always)]
fn signed(magnitude: f32, signs: u64) -> f32 {
    let bits = magnitude.to_bits();
    let sign = (signs >> 32) as u32 & u32::from(bits != 0) << 31;
    f32::from_bits(bits | sign)
}

/// The next bits of a slice in the topmost bits of a word: at least 56 after `refill`, which is enough
/// for a pair of samples. Bits behind the end of the slice are 0.
struct BitBuffer<'a> {
    data: &'a [u8],
    /// The next byte to go into `bits`, and bytes of 0 behind the end.
    next: usize,
    bits: u64,
    left: u32,
}

impl<'a> BitBuffer<'a> {
    fn new(data: &'a [u8], start_bit: usize) -> Self {
        let mut new = Self { data, next: start_bit >> 3, bits: 0, left: 0 };
        new.refill();
        new.consume((start_bit & 7) as u32);
        new
    }

    #[inline(always)]
    fn refill(&mut self) {
        let word = match self.data.get(self.next..).and_then(|rest| rest.first_chunk()) {
            Some(word) => u64::from_be_bytes(*word),
            None => self.last_word(),
        };
        self.bits |= word >> self.left;
        let bytes = (63 - self.left) >> 3;
        self.next += bytes as usize;
        self.left += 8 * bytes;
    }

    #[cold]
    fn last_word(&self) -> u64 {
        let rest = self.data.get(self.next..).unwrap_or_default();
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        u64::from_be_bytes(word)
    }

    #[inline(always)]
    fn consume(&mut self, n: u32) {
        self.bits <<= n;
        self.left -= n;
    }

    /// The next `n` bits; at least one.
    #[inline(always)]
    fn take(&mut self, n: u32) -> usize {
        let value = (self.bits >> (u64::BITS - n)) as usize;
        self.consume(n);
        value
    }

    /// Whether what was consumed, and `more` bits, reach behind the end of the slice.
    fn is_past_end(&self, more: i32) -> bool {
        8 * self.next as i64 - i64::from(self.left) + i64::from(more) > 8 * self.data.len() as i64
    }
}

/// Bits of the first lookup in a [`PairTable`].
const PAIR_BITS: u32 = 10;

/// Marks an entry of a [`PairTable`] that leads to more.
const LONG: u32 = 1 << 31;

/// The longest code of the two quads tables.
const QUADS_BITS: u32 = 6;

/// A Huffman table for pairs: the first `PAIR_BITS` bits lead to an entry, or to where the entries for
/// the bits that follow start (`LONG`).
///
/// An entry holds, from its lowest bits up: x (4 bits), y (4), the length of the code (8), its length
/// with the signs of x and y (8), and the number of signs of x (1).
#[derive(Default)]
struct PairTable {
    entries: Vec<u32>,
    more_bits: u32,
}

impl PairTable {
    fn new(codes: &[u32], lens: &[u8], wrap: u16) -> Self {
        let max_len = lens.iter().copied().max().map_or(0, u32::from);
        let more_bits = max_len.saturating_sub(PAIR_BITS);
        let mut entries = vec![0; if codes.is_empty() { 0 } else { 1 << PAIR_BITS }];
        for (i, (&code, &len)) in codes.iter().zip(lens).enumerate() {
            let (i, wrap, len) = (i as u32, u32::from(wrap), u32::from(len));
            let (x, y) = (i / wrap, i % wrap);
            let (x_signs, y_signs) = (u32::from(x != 0), u32::from(y != 0));
            let entry = x | y << 4 | len << 8 | (len + x_signs + y_signs) << 16 | x_signs << 24;
            let (first, n) = if len <= PAIR_BITS {
                ((code as usize) << (PAIR_BITS - len), 1 << (PAIR_BITS - len))
            }
            else {
                let prefix = (code >> (len - PAIR_BITS)) as usize;
                if entries[prefix] == 0 {
                    entries[prefix] = LONG | entries.len() as u32;
                    entries.resize(entries.len() + (1 << more_bits), 0);
                }
                let rest = max_len - len;
                let suffix = (code as usize) & ((1 << (len - PAIR_BITS)) - 1);
                ((entries[prefix] & !LONG) as usize + (suffix << rest), 1 << rest)
            };
            entries[first..first + n].fill(entry);
        }
        Self { entries, more_bits }
    }

    fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    #[inline(always)]
    fn find(&self, bits: u64) -> u32 {
        let entry = self.entries[(bits >> (u64::BITS - PAIR_BITS)) as usize];
        if entry & LONG == 0 {
            return entry;
        }
        let start = (entry & !LONG) as usize;
        self.entries[start + (bits << PAIR_BITS >> (u64::BITS - self.more_bits)) as usize]
    }
}

/// A code for four samples of 0 or 1.
#[derive(Clone, Copy, Default)]
struct QuadEntry {
    /// v, w, x, y from bit 3 down.
    value: u8,
    code_len: u8,
    /// With the signs.
    len: u8,
}

struct HuffmanTables {
    pairs: [PairTable; 18],
    quads: [[QuadEntry; 1 << QUADS_BITS]; 2],
}

lazy_static! {
    static ref HUFFMAN_TABLES: HuffmanTables = {
        let pairs = std::array::from_fn(|i| {
            let table = &codebooks::MPEG_TABLES[i];
            PairTable::new(table.codes, table.lens, table.wrap)
        });
        let quads = std::array::from_fn(|i| {
            let table = &codebooks::MPEG_QUADS_TABLES[i];
            let mut entries = [QuadEntry::default(); 1 << QUADS_BITS];
            for (value, (&code, &code_len)) in table.codes.iter().zip(table.lens).enumerate() {
                let free = QUADS_BITS - u32::from(code_len);
                let first = (code as usize) << free;
                let len = code_len + value.count_ones() as u8;
                entries[first..first + (1 << free)].fill(QuadEntry { value: value as u8, code_len, len });
            }
            entries
        });
        HuffmanTables { pairs, quads }
    };
}

/// Requantize long block samples in `buf`.
fn requantize_long(channel: &GranuleChannel, bands: &[usize], buf: &mut [f32; 576]) {
    // For long blocks dequantization and scaling is governed by the following equation:
    //
    //                     xr(i) = s(i)^(4/3) * 2^(0.25*A) * 2^(-B)
    // where:
    //       s(i) is the decoded Huffman sample
    //      xr(i) is the dequantized sample
    // and:
    //      A = global_gain[gr] - 210
    //      B = scalefac_multiplier * (scalefacs[gr][ch][sfb] + (preflag[gr] * pretab[sfb]))
    //
    // Note: The samples in buf are the result of s(i)^(4/3) for each sample i.
    debug_assert!(bands.len() <= 23);

    // The preemphasis table is from table B.6 in ISO/IEC 11172-3.
    const PRE_EMPHASIS: [u8; 22] =
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 3, 2, 0];

    // Calculate A, it is constant for the entire requantization.
    let a = i32::from(channel.global_gain) - 210;

    let scalefac_shift = if channel.scalefac_scale { 2 } else { 1 };

    // Requantize each scale-factor band in buf.
    for (i, (start, end)) in bands.iter().zip(&bands[1..]).enumerate() {
        // Do not requantize bands starting after the rzero sample since all samples from there on
        // are 0.
        if *start >= channel.rzero {
            break;
        }

        // Lookup the pre-emphasis amount if required.
        let pre_emphasis = if channel.preflag { PRE_EMPHASIS[i] } else { 0 };

        // Calculate B.
        let b = i32::from((channel.scalefacs[i] + pre_emphasis) << scalefac_shift);

        // Calculate 2^(0.25*A) * 2^(-B). This can be rewritten as 2^{ 0.25 * (A - 4 * B) }.
        // Since scalefac_shift was multiplies by 4 above, the final equation becomes
        // 2^{ 0.25 * (A - B) }.
        let pow2ab = f64::powf(2.0, 0.25 * f64::from(a - b)) as f32;

        // Calculate the ending sample index for the scale-factor band, clamping it to the length of
        // the sample buffer.
        let band_end = min(*end, channel.rzero);

        // The sample buffer contains s(i)^(4/3), now multiply in 2^(0.25*A) * 2^(-B) to get xr(i).
        for sample in &mut buf[*start..band_end] {
            *sample *= pow2ab;
        }
    }
}

/// Requantize short block samples in `buf` starting at scale-factor band `sfb_init`.
fn requantize_short(
    channel: &GranuleChannel,
    bands: &[usize],
    switch: usize,
    buf: &mut [f32; 576],
) {
    // For short blocks dequantization and scaling is governed by the following equation:
    //
    //                     xr(i) = s(i)^(4/3) * 2^(0.25*A) * 2^(-B)
    // where:
    //       s(i) is the decoded Huffman sample
    //      xr(i) is the dequantized sample
    // and:
    //      A = global_gain[gr] - 210 - (8 * subblock_gain[gr][win])
    //      B = scalefac_multiplier * scalefacs[gr][ch][sfb][win]
    //
    // Note: The samples in buf are the result of s(i)^(4/3) for each sample i.
    debug_assert!(bands.len() <= 40);

    // Calculate the window-independant part of A: global_gain[gr] - 210.
    let gain = i32::from(channel.global_gain) - 210;

    // Calculate A for each window.
    let a = [
        gain - 8 * i32::from(channel.subblock_gain[0]),
        gain - 8 * i32::from(channel.subblock_gain[1]),
        gain - 8 * i32::from(channel.subblock_gain[2]),
    ];

    // Likweise, the scalefac_multiplier is constant for the granule. The actual scale is multiplied
    // by 4 to combine the two pow2 operations into one by adding the exponents. The sum of the
    // exponent is multiplied by 0.25 so B must be multiplied by 4 to counter the quartering. A
    // bitshift operation is used for the actual multiplication, so scalefac_multiplier is named
    // scalefac_shift in this case.
    let scalefac_shift = if channel.scalefac_scale { 2 } else { 1 };

    for (i, (start, end)) in bands.iter().zip(&bands[1..]).enumerate() {
        // Do not requantize bands starting after the rzero sample since all samples from there on
        // are 0.
        if *start >= channel.rzero {
            break;
        }

        // Calculate B.
        let b = i32::from(channel.scalefacs[switch + i] << scalefac_shift);

        // Calculate 2^(0.25*A) * 2^(-B). This can be rewritten as 2^{ 0.25 * (A - 4 * B) }.
        // Since scalefac_shift multiplies by 4 above, the final equation becomes
        // 2^{ 0.25 * (A - B) }.
        let pow2ab = f64::powf(2.0, 0.25 * f64::from(a[i % 3] - b)) as f32;

        // Clamp the ending sample index to the rzero sample index. Since samples starting from
        // rzero are 0, there is no point in requantizing them.
        let win_end = min(*end, channel.rzero);

        // The sample buffer contains s(i)^(4/3), now multiply in 2^(0.25*A) * 2^(-B) to get
        // xr(i).
        for sample in &mut buf[*start..win_end] {
            *sample *= pow2ab;
        }
    }
}

/// Requantize samples in `buf` regardless of block type.
pub(super) fn requantize(header: &FrameHeader, channel: &GranuleChannel, buf: &mut [f32; 576]) {
    match channel.block_type {
        BlockType::Short { is_mixed: false } => {
            requantize_short(channel, &SFB_SHORT_BANDS[header.sample_rate_idx], 0, buf);
        }
        BlockType::Short { is_mixed: true } => {
            // A mixed block is a combination of a long block and short blocks. The first few scale
            // factor bands, and thus samples, belong to a single long block, while the remaining
            // bands and samples belong to short blocks. Therefore, requantization for mixed blocks
            // can be decomposed into short and long block requantizations.
            //
            // As per ISO/IEC 11172-3, the short scale factor band at which the long block ends and
            // the short blocks begin is denoted by switch_point_s.
            let bands = SFB_MIXED_BANDS[header.sample_rate_idx];
            let switch = SFB_MIXED_SWITCH_POINT[header.sample_rate_idx];

            requantize_long(channel, &bands[..=switch], buf);
            requantize_short(channel, &bands[switch..], switch, buf);
        }
        _ => {
            requantize_long(channel, &SFB_LONG_BANDS[header.sample_rate_idx], buf);
        }
    }
}
