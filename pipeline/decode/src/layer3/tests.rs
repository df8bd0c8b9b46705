//! Compares each decoding step with the reference and the code tables with another decoder, and decodes damaged frames.

use wavemill_signal::{Lanes, Level};

use super::antialias::antialias;
use super::black_box::{Probe, Table, decode, decoder, long_frame};
use super::header::FrameHeader;
use super::huffman::{self, CODE_BITS_MAX, CodedLines, PAIR_BOOKS, QUADS_A, QUADS_B, code_words};
use super::imdct::{Imdct, Windows};
use super::reference::{self, Filter, Hybrid};
use super::requantize::{PowerTable, pair_index};
use super::side_info::{Block, Granule, SideInfo};
use super::synthesis::Synthesis;
use super::window::window;
use super::{FRAME_SAMPLES, FrameDecoder, FrameError, LINES, MainData, MonoDecoder, SUB_BANDS};

/// Maximum error relative to a transform's largest output: some tens of f32 roundings of 6e-8 each.
pub(super) const TRANSFORM_REL_MAX: f64 = 2e-6;

/// A frame with random side info and main data.
pub(super) struct NoiseFrame {
    pub(super) header: FrameHeader,
    pub(super) side: SideInfo,
    pub(super) bytes: Vec<u8>,
    pub(super) n_missing_bits: usize,
}

impl NoiseFrame {
    pub(super) fn main(&self) -> MainData<'_> {
        MainData {
            bytes: &self.bytes,
            n_missing_bits: self.n_missing_bits,
        }
    }

    /// Decodes the frame, and returns the result with the samples of both channels.
    pub(super) fn decode(
        &self,
        decoder: &mut FrameDecoder,
    ) -> (Result<usize, FrameError>, [[f32; FRAME_SAMPLES]; 2]) {
        let mut planes = [[0.0; FRAME_SAMPLES]; 2];
        let [left, right] = &mut planes;
        let result = decoder.decode(&self.header, &self.side, self.main(), [left, right]);
        (result, planes)
    }

    /// Decodes the mean of the channels, and returns the result with the samples.
    pub(super) fn decode_mean(
        &self,
        decoder: &mut MonoDecoder,
        phase: usize,
    ) -> (Result<usize, FrameError>, [f32; FRAME_SAMPLES]) {
        let mut out = [0.0; FRAME_SAMPLES];
        let result = decoder.decode(&self.header, &self.side, self.main(), phase, &mut out);
        (result, out)
    }
}

/// A reproducible sequence of pseudo-random numbers.
pub(super) struct Noise(pub(super) u64);

impl Noise {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(super) fn byte(&mut self) -> u8 {
        (self.next() >> 8) as u8
    }

    /// Returns a random number within ±1.
    pub(super) fn value(&mut self) -> f64 {
        self.next() as f64 / f64::from(1_u32 << 30) - 1.0
    }

    /// Returns a random frame of any format, or `None` if the random header or side info is invalid. Some frames lack
    /// bits of their main data.
    pub(super) fn frame(&mut self) -> Option<NoiseFrame> {
        let head = [
            0xFF,
            0xE0 | self.byte() & 0x1A | 2,
            self.byte(),
            self.byte(),
        ];
        let header = FrameHeader::parse(head)?;
        let side = self.bytes(header.side_info_bytes());
        let side = SideInfo::parse(&header, &side).ok()?;

        let n_bytes = self.next() as usize % 2_100;
        let bytes = self.bytes(n_bytes);
        let is_whole = !self.next().is_multiple_of(4);
        Some(NoiseFrame {
            header,
            side,
            bytes,
            n_missing_bits: if is_whole {
                0
            } else {
                self.next() as usize % 4_096
            },
        })
    }

    pub(super) fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.byte()).collect()
    }

    /// Returns random samples of all sub-bands in `n` time slots.
    pub(super) fn slots(&mut self, n: usize) -> Vec<[f32; SUB_BANDS]> {
        let slots = (0..n).map(|_| std::array::from_fn(|_| self.value() as f32));
        slots.collect()
    }

    fn lines(&mut self, n: usize) -> [f32; LINES] {
        std::array::from_fn(|at| if at < n { self.value() as f32 } else { 0.0 })
    }
}

pub(super) fn lanes() -> Lanes {
    Lanes::new(Level::detect()).unwrap()
}

pub(super) fn assert_close(got: impl IntoIterator<Item = f32>, want: &[f64], what: &str) {
    let largest = want.iter().fold(1.0_f64, |most, want| most.max(want.abs()));
    for (at, (got, want)) in got.into_iter().zip(want).enumerate() {
        let error = (f64::from(got) - want).abs() / largest;
        assert!(
            error <= TRANSFORM_REL_MAX,
            "{what}: {at} is {got}, not {want}"
        );
    }
}

#[test]
fn code_books_are_complete_and_match_the_reference() {
    let mut probe = Probe::new();
    let quads = [(0, &QUADS_A), (1, &QUADS_B)];
    let pairs = PAIR_BOOKS.map(|(number, table)| (Table::Pairs(number), table));
    let quads = quads.map(|(number, table)| (Table::Quads(number), &table[..]));

    for (name, table) in pairs.into_iter().chain(quads) {
        let own: Vec<_> = code_words(table).collect();

        // Kraft's sum of the code words, in units of the longest possible word.
        let kraft: u64 = own.iter().map(|word| 1 << (32 - word.n_bits)).sum();
        assert_eq!(kraft, 1 << 32, "{name:?}");
        // Up to 13 escaped bits and a sign follow for each value.
        let n_bits = own.iter().map(|word| word.n_bits as usize).max();
        assert!(n_bits.unwrap() + 2 * (13 + 1) <= CODE_BITS_MAX, "{name:?}");

        for (at, word) in own.iter().enumerate() {
            for (other_at, other) in own.iter().enumerate() {
                let is_prefix = word.n_bits <= other.n_bits
                    && other.bits >> (other.n_bits - word.n_bits) == word.bits;
                assert!(
                    at == other_at || !is_prefix,
                    "{name:?}: {at} and {other_at}"
                );
            }
        }

        let side = match name {
            Table::Pairs(_) => table.len().isqrt(),
            Table::Quads(_) => 2,
        };
        let found = probe.codes(name);
        assert_eq!(found.len(), own.len(), "{name:?}");
        for code in found {
            let at = code
                .values
                .iter()
                .fold(0, |at, value| at * side + *value as usize);
            let bits = code
                .word
                .iter()
                .fold(0, |bits, bit| bits << 1 | u32::from(*bit));
            let n_bits = code.word.len() as u32;
            assert_eq!(
                (own[at].bits, own[at].n_bits),
                (bits, n_bits),
                "{name:?} {code:?}"
            );
        }
    }
}

/// Output `j` of a slot is a sum over 16 window factors, each multiplied by a value that is known if the sub-band
/// samples are known. With enough slots, the factors follow by least squares.
#[test]
fn window_matches_the_reference() {
    let mut noise = Noise(3);
    let mut peer = decoder();
    let mut hybrid = Hybrid::new();
    let mut filter = Filter::new();
    let mut inputs = Vec::new();
    let mut outputs = Vec::new();

    for _ in 0..20 {
        // Some of the lowest spectral lines are ±1; the second granule is silent.
        let signs: Vec<i32> = (0..72).map(|_| noise.next() as i32 % 2 * 2 - 1).collect();
        let mut lines = vec![0.0; LINES];
        for (line, sign) in lines.iter_mut().zip(&signs) {
            *line = f64::from(*sign);
        }

        outputs.extend(decode(&mut peer, &long_frame(&signs)).unwrap().remove(0));
        reference::antialias(&mut lines, 31);
        for lines in [lines, vec![0.0; LINES]] {
            for slot in hybrid.run(Block::Long, false, &lines) {
                inputs.push(filter.enter(&slot));
            }
        }
    }

    let mut n_found = 0;
    for j in 0..SUB_BANDS {
        let mut rows = vec![vec![0.0; 17]; 16];
        for (u, out) in inputs.iter().zip(outputs.chunks_exact(SUB_BANDS)) {
            for (a, row) in rows.iter_mut().enumerate() {
                for (b, sum) in row[..16].iter_mut().enumerate() {
                    *sum += u[j + 32 * a] * u[j + 32 * b];
                }
                row[16] += u[j + 32 * a] * f64::from(out[j]);
            }
        }

        for (i, factor) in super::black_box::solve(rows).into_iter().enumerate() {
            // Some factors in column 16 of every other block are undetermined: the cosines there are zero.
            if let Some(factor) = factor {
                n_found += 1;
                let units = (factor * 65_536.0).round();
                assert_eq!(units, window(j + 32 * i) * 65_536.0, "D[{}]", j + 32 * i);
            }
        }
    }

    assert_eq!(n_found, 512 - 8);
}

#[test]
fn powers_match_the_reference() {
    let table = PowerTable::get();

    for value in 0..8_207 {
        let want = reference::requantise(value, 0);
        let got = f64::from(table.power(value));
        assert!((got - want).abs() <= want * 1e-7, "{value}: {got}");
        assert_eq!(table.power(-value), -table.power(value));
    }

    for x in -15..=15 {
        for y in -15..=15 {
            let pair = table.pairs()[pair_index([x, y])].values();
            assert_eq!(pair, [x, y].map(|value| table.power(value)), "{x}, {y}");
        }
    }
}

#[test]
fn antialiasing_matches_the_reference() {
    for n_lines in [0, 1, 17, 18, 100, 575, 576] {
        let lines = Noise(n_lines as u64).lines(n_lines);
        let mut want: Vec<f64> = lines.map(f64::from).to_vec();
        reference::antialias(&mut want, 31);
        let mut got = lines;
        let end = antialias(SUB_BANDS, n_lines, &mut got);
        assert_close(got, &want, "antialias");
        assert!(want[end..].iter().all(|&line| line == 0.0));
    }
}

#[test]
fn imdct_matches_the_reference_for_all_window_sequences() {
    let mut noise = Noise(1);
    let mut imdct = Imdct::new(lanes());
    let mut hybrid = Hybrid::new();
    let blocks = [Block::Long, Block::Start, Block::Short, Block::End];

    for round in 0..200 {
        let block = blocks[noise.next() as usize % 4];
        let is_mixed = block != Block::Long && noise.next().is_multiple_of(2);
        let n_lines = [0, 7, 145, 288, 300, 576][noise.next() as usize % 6];
        let lines = noise.lines(n_lines);

        let mut slots = [[0.0; SUB_BANDS]; 18];
        let windows = Windows { block, is_mixed };
        imdct.run(windows, n_lines, &lines, &mut slots);

        let want = hybrid.run(block, is_mixed, &lines.map(f64::from));
        let what = format!("round {round}: {windows:?}, {n_lines} lines");
        assert_close(slots.into_iter().flatten(), &want.concat(), &what);
    }
}

#[test]
fn synthesis_matches_the_reference_in_pieces_of_any_length() {
    let mut noise = Noise(2);
    let mut synthesis = Synthesis::new(lanes(), SUB_BANDS);
    let mut filter = Filter::new();

    for n_slots in [18, 36, 18, 36, 36, 18] {
        let slots = noise.slots(n_slots);
        let mut got = [0.0; FRAME_SAMPLES];
        synthesis.run(&slots, &mut got);

        let want: Vec<f64> = slots
            .iter()
            .flat_map(|slot| filter.run(&slot.map(f64::from)))
            .collect();
        assert_close(got, &want, "synthesis");
    }
}

#[test]
fn intensity_weights_match_the_formula() {
    for position in 0..6 {
        let ratio = (f64::from(position) * std::f64::consts::PI / 12.0).tan();
        let got = super::stereo::mpeg1_weights(position as usize);
        let want = [ratio / (1.0 + ratio), 1.0 / (1.0 + ratio)];
        for (got, want) in got.into_iter().zip(want) {
            assert!((got - want).abs() < 1e-12, "{position}");
        }
    }

    assert_eq!(super::stereo::mpeg1_weights(6), [1.0, 0.0]);
    assert_eq!(super::stereo::mpeg2_weights(0, 0.5), [1.0, 1.0]);
    assert_eq!(super::stereo::mpeg2_weights(4, 0.5), [1.0, 0.5]);
    assert_eq!(super::stereo::mpeg2_weights(7, 0.25), [0.5, 1.0]);
}

/// Decodes frames of noise in every format, with and without missing bits. The decoder must not panic, and all samples
/// must be finite.
#[test]
fn noise_decodes_to_finite_samples_or_errors() {
    let mut noise = Noise(4);
    let mut decoder = FrameDecoder::new(Level::detect()).unwrap();
    let mut n_decoded = 0;

    for _ in 0..60_000 {
        let Some(frame) = noise.frame() else {
            continue;
        };

        if let (Ok(n), planes) = frame.decode(&mut decoder) {
            n_decoded += 1;
            let mut samples = planes.iter().flat_map(|plane| &plane[..n]);
            assert!(samples.all(|sample| sample.is_finite()));
        }

        if noise.next().is_multiple_of(50) {
            decoder.reset();
        }
    }

    assert!(n_decoded > 1_000, "{n_decoded}");
}

#[test]
fn levels_give_equal_bits() {
    let mut noise = Noise(5);
    let mut decoders = [Level::Scalar, Level::detect()].map(|l| FrameDecoder::new(l).unwrap());
    let header = FrameHeader::parse([0xFF, 0xFB, 0x90, 0x64]).unwrap();

    for _ in 0..2_000 {
        let bytes = noise.bytes(32);
        let Ok(side) = SideInfo::parse(&header, &bytes) else {
            continue;
        };

        let frame = NoiseFrame {
            header,
            side,
            bytes: noise.bytes(2_048),
            n_missing_bits: 0,
        };
        let [a, b] = decoders.each_mut().map(|decoder| {
            let (decoded, planes) = frame.decode(decoder);
            (decoded, planes.map(|plane| plane.map(f32::to_bits)))
        });
        assert!(a == b);
    }
}

/// Returns the side info of a granule with random regions, books and end. Its codes will be random as well.
fn noise_granule(noise: &mut Noise) -> Granule {
    let first_end = 2 * noise.below(100) as usize;

    Granule {
        n_bits: noise.below(4_000) as usize,
        n_big: 2 * noise.below(289) as usize,
        table_select: std::array::from_fn(|_| noise.below(32) as u8),
        region_ends: [first_end, first_end + 2 * noise.below(100) as usize],
        uses_quads_b: noise.below(2) == 1,
        ..Granule::default()
    }
}

/// Random codes of a granule's two channels, to be read.
struct CodedChannels<'a> {
    bytes: &'a [u8],
    granules: &'a [Granule; 2],
    n_wanted: [usize; 2],
}

impl<'a> CodedChannels<'a> {
    /// Returns readers of both channels, which write the spectral lines to `lines`.
    fn lines(&self, lines: &'a mut [[f32; LINES]; 2]) -> [CodedLines<'a>; 2] {
        let [left, right] = lines;
        [(0, left), (1, right)].map(|(channel, lines)| CodedLines {
            bytes: self.bytes,
            position: 800 * channel,
            end: 800 * channel + self.granules[channel].n_bits,
            granule: &self.granules[channel],
            n_wanted: self.n_wanted[channel],
            lines,
            n_lines: 0,
            n_regions: 0,
        })
    }
}

#[test]
fn reading_two_channels_at_once_equals_reading_each() {
    let mut noise = Noise(5);
    let reader = huffman::Reader::new();
    let mut n_lines = 0;

    for _ in 0..2_000 {
        let bytes = noise.bytes(600);
        let granules = [(); 2].map(|()| noise_granule(&mut noise));
        let n_wanted = [(); 2].map(|()| noise.next() as usize % (LINES + 1));

        // Start with NaN, because earlier contents of the lines must not have any effect.
        let mut alone = [[f32::NAN; LINES]; 2];
        let mut at_once = [[f32::NAN; LINES]; 2];
        let coded = CodedChannels {
            bytes: &bytes,
            granules: &granules,
            n_wanted,
        };

        let mut want = coded.lines(&mut alone);
        for channel in &mut want {
            reader.read(channel);
        }
        let mut is = coded.lines(&mut at_once);
        let [left, right] = &mut is;
        reader.read_two(left, right);

        for (is, want) in is.iter().zip(&want) {
            assert_eq!(is.lines, want.lines);
            assert_eq!(is.n_lines, want.n_lines);
            assert_eq!(is.position, want.position);
            n_lines += is.n_lines;
        }
    }
    assert!(n_lines > 100 * 2_000, "noise had few codes: {n_lines}");
}
