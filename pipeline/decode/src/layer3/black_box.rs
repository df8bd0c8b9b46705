//! Uses symphonia's MP3 decoder as a black box: decodes crafted frames and derives the coded values from the samples.
//!
//! The code tables of `huffman/tables.rs` were created and are checked in this way. The input consists only of bits
//! that the standard's syntax defines, and the output only of samples: nothing depends on the internals of the other
//! decoder.

use symphonia_bundle_mp3::MpaDecoder;
use symphonia_core::audio::{Audio, GenericAudioBufferRef};
use symphonia_core::codecs::audio::well_known::CODEC_ID_MP3;
use symphonia_core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia_core::packet::PacketRef;
use symphonia_core::units::{Duration, Timestamp};

/// Frame size in bytes at 320 kbit/s, 44.1 kHz, mono.
const FRAME_BYTES: usize = 1_044;
/// Minimum number of bits of main data in the crafted granule.
const MAIN_BITS: usize = 64;
/// Length in bits of the longest code word of all Huffman books.
const CODE_BITS_MAX: usize = 19;

/// Writes bits to a byte buffer, most significant bit first.
#[derive(Default)]
pub(super) struct BitWriter {
    pub(super) bytes: Vec<u8>,
    n_bits: usize,
}

impl BitWriter {
    pub(super) fn put(&mut self, value: u32, n: usize) {
        for at in (0..n).rev() {
            if self.n_bits.is_multiple_of(8) {
                self.bytes.push(0);
            }
            let bit = (value >> at & 1) as u8;
            *self.bytes.last_mut().unwrap() |= bit << (7 - self.n_bits % 8);
            self.n_bits += 1;
        }
    }
}

/// Creates symphonia's MP3 decoder.
pub(super) fn decoder() -> MpaDecoder {
    let mut params = AudioCodecParameters::new();
    params.for_codec(CODEC_ID_MP3);
    MpaDecoder::try_new(&params, &AudioDecoderOptions::default().gapless(false)).unwrap()
}

/// Returns the samples of a frame, one plane per channel, or `None` if symphonia cannot decode the frame.
pub(super) fn decode(decoder: &mut MpaDecoder, frame: &[u8]) -> Option<Vec<Vec<f32>>> {
    let packet = PacketRef::new(0, Timestamp::ZERO, Duration::ZERO, frame);
    match decoder.decode_ref(&packet) {
        Ok(GenericAudioBufferRef::F32(buffer)) => Some(
            (0..buffer.spec().channels().count())
                .map(|channel| buffer.plane(channel).unwrap().to_vec())
                .collect(),
        ),
        _ => None,
    }
}

/// Returns a mono frame. The lowest lines of the first granule have these values, each +1 or -1; the second granule is
/// silent.
pub(super) fn long_frame(signs: &[i32]) -> Vec<u8> {
    let mut bits = Vec::new();
    for quad in signs.chunks(4) {
        // Use quadruple book B, whose code words are the inverted bits: 0000 means that all four values are nonzero.
        bits.extend([false; 4]);
        bits.extend(quad.iter().map(|&sign| sign < 0));
    }
    frame(0, 0, 1, &bits)
}

/// Returns a mono frame with `bits`, padded with ones, as the Huffman codes of the first granule; the second granule is
/// silent.
fn frame(table: u8, big_values: u32, count1_table: u32, bits: &[bool]) -> Vec<u8> {
    let n_bits = bits.len().max(MAIN_BITS);
    let mut out = BitWriter::default();
    out.put(0xFFFB_E0C0, 32);
    // Side info: start of the main data, private bits, scale factor selection.
    out.put(0, 9 + 5 + 4);

    for granule in 0..2 {
        let has_codes = granule == 0;
        out.put(if has_codes { n_bits as u32 } else { 0 }, 12);
        out.put(if has_codes { big_values } else { 0 }, 9);

        // Side info: a gain of 210, which is a factor of one; no scale factors, no window switching.
        out.put(210, 8);
        out.put(0, 4 + 1);

        // Put all big values into the first region.
        out.put(u32::from(table), 5);
        out.put(0, 10);
        out.put(15, 4);
        out.put(0, 3);

        // Side info: preflag, scale of the scale factors.
        out.put(0, 2);
        out.put(count1_table, 1);
    }

    for at in 0..n_bits {
        out.put(u32::from(bits.get(at).copied().unwrap_or(true)), 1);
    }
    out.bytes.resize(FRAME_BYTES, 0);
    out.bytes
}

/// Determines the values of the first spectral lines of crafted frames from decoded samples.
pub(super) struct Probe {
    decoder: MpaDecoder,
    /// Decoded samples of a frame in which only one line is nonzero, for each of the first four lines.
    responses: Vec<Vec<f32>>,
}

impl Probe {
    pub(super) fn new() -> Self {
        let mut probe = Self {
            decoder: decoder(),
            responses: Vec::new(),
        };
        // The code words of quadruple table B are known: the inverted bits of four values, followed by the signs.
        for line in 0..4 {
            let mut bits = [true; 5];
            bits[line] = false;
            bits[4] = false;
            let samples = probe.samples(&frame(0, 0, 1, &bits));
            probe.responses.push(samples);
        }
        probe
    }

    fn samples(&mut self, frame_bytes: &[u8]) -> Vec<f32> {
        self.decoder.reset();
        let mut samples = decode(&mut self.decoder, frame_bytes).unwrap().remove(0);
        let silence = frame(0, 0, 1, &[]);
        samples.extend(decode(&mut self.decoder, &silence).unwrap().remove(0));
        samples
    }

    /// Returns the values of a frame's first four spectral lines, computed from the samples by least squares.
    fn lines(&mut self, frame_bytes: &[u8]) -> [i32; 4] {
        let samples = self.samples(frame_bytes);

        let mut rows = vec![vec![0.0; 5]; 4];
        for (row, response) in rows.iter_mut().zip(&self.responses) {
            for (value, other) in row.iter_mut().zip(&self.responses) {
                *value = dot(response, other);
            }
            row[4] = dot(response, &samples);
        }

        let values = solve(rows);
        // Invert the requantisation, which raises values to the power 4/3.
        std::array::from_fn(|line| {
            let value = values[line].unwrap();
            value.abs().powf(0.75).copysign(value).round() as i32
        })
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
    products.sum()
}

/// Solves a linear system. Each row ends with its right-hand side. Unknowns that are not determined are `None`.
pub(super) fn solve(mut rows: Vec<Vec<f64>>) -> Vec<Option<f64>> {
    let n = rows.len();
    // The matrix consists of inner products, so a zero on the diagonal implies a row of zeros. A small remainder there
    // is rounding noise.
    let smallest = 1e-6 * (0..n).map(|at| rows[at][at]).fold(0.0, f64::max);

    for pivot in 0..n {
        let own = rows[pivot].clone();
        if own[pivot] <= smallest {
            continue;
        }
        for (at, row) in rows.iter_mut().enumerate() {
            if at != pivot {
                let factor = row[pivot] / own[pivot];
                for (value, own) in row.iter_mut().zip(&own) {
                    *value -= factor * own;
                }
            }
        }
    }

    let values = rows.iter().enumerate();
    values
        .map(|(at, row)| (row[at] > smallest).then(|| row[n] / row[at]))
        .collect()
}

/// A Huffman code word and the values that it encodes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Code {
    pub(super) values: Vec<i32>,
    pub(super) word: Vec<bool>,
}

impl Probe {
    /// Returns the magnitudes that `bits` decode to: two up to 15 for a table of pairs, or four for a table of
    /// quadruples.
    fn magnitudes(&mut self, table: Table, bits: &[bool]) -> Vec<i32> {
        match table {
            Table::Pairs(table) => {
                let lines = self.lines(&frame(table, 1, 1, bits));
                lines[..2].iter().map(|value| value.abs().min(15)).collect()
            }
            Table::Quads(table) => {
                let lines = self.lines(&frame(0, 0, table, bits));
                lines.iter().map(|value| value.abs()).collect()
            }
        }
    }

    /// Finds all codes of a Huffman table. Flipping a bit within a code word changes the values; flipping a bit after
    /// it does not.
    pub(super) fn codes(&mut self, table: Table) -> Vec<Code> {
        let mut codes = Vec::new();
        let mut prefixes = vec![Vec::new()];
        while let Some(prefix) = prefixes.pop() {
            let mut bits = prefix.clone();
            bits.resize(CODE_BITS_MAX + 1, true);
            let values = self.magnitudes(table, &bits);

            let n_bits = (0..bits.len())
                .take_while(|&at| {
                    let mut flipped = bits.clone();
                    flipped[at] = !flipped[at];
                    self.magnitudes(table, &flipped) != values
                })
                .count();

            for at in prefix.len()..n_bits {
                let mut sibling = bits[..at].to_vec();
                sibling.push(false);
                prefixes.push(sibling);
            }

            codes.push(Code {
                values,
                word: bits[..n_bits].to_vec(),
            });
        }
        codes.sort();
        codes
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Table {
    Pairs(u8),
    Quads(u32),
}
