//! Frames of joint stereo in every mix of block types, which hardly any encoder writes. Their samples are those of ffmpeg.

use std::collections::BTreeSet;

use wavemill_tests::Failed;

use crate::stream;

/// Number of frames, which is enough for each mix of block types.
const N_FRAMES: usize = 120;
/// Size of a frame of 320 kbit/s at 44.1 kHz in bytes.
const FRAME_BYTES: usize = 1_044;

/// A block type and whether the block is mixed, as in side info.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Block {
    kind: u32,
    is_mixed: bool,
}

const LONG: u32 = 0;
const START: u32 = 1;
const SHORT: u32 = 2;
const END: u32 = 3;

impl Block {
    /// Returns a block that may follow. In another order, ffmpeg's windows do not fit together.
    fn next(self, noise: &mut Noise) -> Self {
        let is_even = noise.below(2) == 0;
        match self.kind {
            START => Self {
                kind: SHORT,
                ..self
            },
            SHORT if is_even => self,
            SHORT => Self { kind: END, ..self },
            _ if is_even => Self {
                kind: START,
                is_mixed: noise.below(2) == 0,
            },
            _ => Self {
                kind: LONG,
                is_mixed: false,
            },
        }
    }

    /// Returns the number of scale factors of a channel.
    fn n_factors(self) -> usize {
        match (self.kind, self.is_mixed) {
            (SHORT, true) => 8 + 27,
            (SHORT, false) => 36,
            _ => 21,
        }
    }

    /// Returns a letter for the bands: long, short or mixed.
    fn bands(self) -> char {
        match (self.kind, self.is_mixed) {
            (SHORT, true) => 'm',
            (SHORT, false) => 's',
            _ => 'l',
        }
    }
}

/// Sums over the samples of left and right, each multiplied by a pseudo-random sign, by the mode in the header: middle and
/// side, intensity stereo, and both. Computed from the output of ffmpeg 5.1.9 for the same bytes.
const SUMS: [(u8, [f64; 2]); 3] = [
    (0x60, [2.204_237, 4.993_501]),
    (0x50, [-0.745_764, -1.500_684]),
    (0x70, [-18.673_460, -11.583_839]),
];
/// Maximum error of such a sum. Two decoders differ by up to 1e-6, with random signs, in each of 138,240 samples.
const SUM_ABS_MAX: f64 = 1e-3;

/// Writes numbers bit by bit, most significant bit first.
#[derive(Default)]
struct Bits(Vec<bool>);

impl Bits {
    fn put(&mut self, value: u32, n_bits: usize) {
        self.0
            .extend((0..n_bits).rev().map(|at| value >> at & 1 == 1));
    }

    fn bytes(&self) -> Vec<u8> {
        let bytes = self.0.chunks(8);
        let byte = |bits: &[bool]| {
            let at = bits.iter().enumerate();
            at.fold(0, |byte, (at, &bit)| byte | u8::from(bit) << (7 - at))
        };
        bytes.map(byte).collect()
    }
}

/// A reproducible sequence of pseudo-random numbers.
struct Noise(u64);

impl Noise {
    fn below(&mut self, n: u32) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32 % n
    }
}

/// Writes the side info and the main data of a channel of a granule.
fn write_channel(
    noise: &mut Noise,
    channel: usize,
    block: Block,
    side: &mut Bits,
    main: &mut Bits,
) {
    let start = main.0.len();
    // Scale factors of three bits. In the right channel they are also stereo positions, of which 7 is none.
    for _ in 0..block.n_factors() {
        main.put(noise.below(8), 3);
    }

    // Codes of table 1. The right channel has fewer lines, so that intensity stereo begins at different bands. Decoders
    // disagree if it begins in the highest one, for which no position is coded.
    let n_pairs = if channel == 0 { 240 } else { noise.below(156) };
    for _ in 0..n_pairs {
        let pair = noise.below(4) as usize;
        let (code, n_bits) = [(1, 1), (0b001, 3), (0b01, 2), (0b000, 3)][pair];
        main.put(code, n_bits);
        for _ in 0..[0, 1, 1, 2][pair] {
            main.put(noise.below(2), 1);
        }
    }

    side.put((main.0.len() - start) as u32, 12);
    side.put(n_pairs, 9);
    side.put(176 + noise.below(8), 8);
    side.put(13, 4);
    if block.kind == LONG {
        side.put(0, 1);
        side.put(0b00001_00001_00001, 15);
        side.put(7, 4);
        side.put(3, 3);
    } else {
        side.put(1, 1);
        side.put(block.kind, 2);
        side.put(u32::from(block.is_mixed), 1);
        side.put(0b00001_00001, 10);
        (0..3).for_each(|_| side.put(noise.below(3), 3));
    }
    // No preflag, scale factors of single weight, and the first book of quadruples.
    side.put(0, 3);
}

/// Returns a file without a bit reservoir in which the block types of both channels change independently.
fn file(mode: u8) -> Vec<u8> {
    let mut noise = Noise(u64::from(mode));
    let mut blocks = [Block {
        kind: LONG,
        is_mixed: false,
    }; 2];
    let mut mixes = BTreeSet::new();
    let mut file = Vec::new();

    for _ in 0..N_FRAMES {
        let (mut side, mut main) = (Bits::default(), Bits::default());
        side.put(0, 9 + 3 + 8);
        for _ in 0..2 {
            for (channel, block) in blocks.iter_mut().enumerate() {
                *block = block.next(&mut noise);
                write_channel(&mut noise, channel, *block, &mut side, &mut main);
            }
            mixes.insert(blocks.map(Block::bands));
        }
        let mut bytes = [&[0xFF, 0xFB, 0xE0, mode][..], &side.bytes(), &main.bytes()].concat();
        assert!(bytes.len() <= FRAME_BYTES, "{}", bytes.len());
        bytes.resize(FRAME_BYTES, 0);
        file.extend(bytes);
    }
    assert_eq!(mixes.len(), 9, "{mixes:?}");
    file
}

pub(crate) fn have_the_samples_of_ffmpeg() -> Result<(), Failed> {
    for (mode, want) in SUMS {
        let file = file(mode);
        let mut stream = crate::stream();
        let mut signs = [Noise(1), Noise(2)];
        let mut sums = [0.0, 0.0];
        for frame in stream::frames(&file) {
            for (at, plane) in stream.decode(&frame)?.iter().enumerate() {
                for sample in *plane {
                    let sign = if signs[at].below(2) == 0 { 1.0 } else { -1.0 };
                    sums[at] += sign * f64::from(*sample);
                }
            }
        }

        let error = (0..2).map(|at| (sums[at] - want[at]).abs());
        if error.fold(0.0, f64::max) > SUM_ABS_MAX {
            return Err(format!("mode {mode:#x}: {sums:?}, not {want:?}").into());
        }
    }
    Ok(())
}
