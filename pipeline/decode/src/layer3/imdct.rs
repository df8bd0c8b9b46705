//! Transforms spectral lines to sub-band samples: the inverse modified discrete cosine transform, windowing, overlap
//! with the previous granule, and inversion of odd samples of odd sub-bands (ISO/IEC 11172-3 §2.4.3.4.10).
//!
//! The long transform is a DCT of type IV with 18 points, whose outputs are repeated with signs. It is computed as a
//! complex Fourier transform of 9 points between two multiplications by twiddle factors. Eight sub-bands are computed
//! at once, see `wide.rs`.

use std::f64::consts::PI;
use std::sync::LazyLock;

use wavemill_signal::{LANES, Lanes};

use super::side_info::Block;
use super::wide::{Complex, Wide, columns};
use super::{LINES, SUB_BAND_LINES, SUB_BANDS, SubBandSamples};

/// Number of samples of a sub-band in a granule.
const SLOTS: usize = SUB_BAND_LINES;
/// Number of groups of eight sub-bands, which are computed at once.
const GROUPS: usize = SUB_BANDS / LANES;
/// Number of spectral lines of each window of a short block.
const SHORT_LINES: usize = SUB_BAND_LINES / 3;
/// Number of sub-bands of a mixed block that have the long window.
pub(super) const MIXED_SUB_BANDS: usize = 2;

/// The window shapes of a granule.
#[derive(Clone, Copy, Debug)]
pub(super) struct Windows {
    pub(super) block: Block,
    pub(super) is_mixed: bool,
}

/// 18 values for each of eight sub-bands, which are half a window.
type Half = [Wide; SLOTS];

/// The IMDCT of one channel, with the samples that overlap with the next granule.
#[derive(Debug)]
pub(super) struct Imdct {
    lanes: Lanes,
    tables: &'static Tables,
    overlap: [Half; GROUPS],
    /// Number of groups of sub-bands whose overlap may be nonzero.
    n_overlapping: usize,
}

impl Imdct {
    pub(super) fn new(lanes: Lanes) -> Self {
        Self {
            lanes,
            tables: Tables::get(),
            overlap: [[Wide::ZERO; SLOTS]; GROUPS],
            n_overlapping: 0,
        }
    }

    /// Clears the samples that overlap from earlier granules.
    pub(super) fn reset(&mut self) {
        self.overlap = [[Wide::ZERO; SLOTS]; GROUPS];
        self.n_overlapping = 0;
    }

    /// Computes the sub-band samples of a granule from its spectral lines, which are zero from `n_lines` on.
    #[inline(always)]
    pub(super) fn run(
        &mut self,
        windows: Windows,
        n_lines: usize,
        lines: &[f32; LINES],
        out: &mut SubBandSamples,
    ) {
        let n_sounding = n_lines.div_ceil(SUB_BAND_LINES * LANES);
        for group in 0..GROUPS {
            if group < n_sounding {
                self.transform(group, windows, lines, out);
            } else if group < self.n_overlapping {
                let ended = std::mem::replace(&mut self.overlap[group], [Wide::ZERO; SLOTS]);
                store(&ended, group, out);
            } else {
                store(&[Wide::ZERO; SLOTS], group, out);
            }
        }
        self.n_overlapping = n_sounding;
    }

    #[inline(always)]
    fn transform(
        &mut self,
        group: usize,
        windows: Windows,
        lines: &[f32; LINES],
        out: &mut SubBandSamples,
    ) {
        let input = load(self.lanes, group, lines);
        let tables = self.tables;
        let overlap = &mut self.overlap[group];

        let has_long_sub_bands = windows.is_mixed && group == 0;
        if windows.block != Block::Short {
            let window = if has_long_sub_bands {
                &tables.mixed[windows.block as usize]
            } else {
                &tables.windows[windows.block as usize]
            };
            long(&input, window, tables, overlap, |slot, samples| {
                out[slot][group * LANES..][..LANES].copy_from_slice(&samples.0);
            });
            return;
        }

        let mut long_overlap = *overlap;
        let mut samples = *overlap;
        short(&input, tables, &mut samples, overlap);
        if has_long_sub_bands {
            let window = &tables.windows[Block::Long as usize];
            let of_short = &mut samples;
            long(
                &input,
                window,
                tables,
                &mut long_overlap,
                |slot, samples| {
                    of_short[slot].0[..MIXED_SUB_BANDS]
                        .copy_from_slice(&samples.0[..MIXED_SUB_BANDS]);
                },
            );
            for (overlap, long) in overlap.iter_mut().zip(&long_overlap) {
                overlap.0[..MIXED_SUB_BANDS].copy_from_slice(&long.0[..MIXED_SUB_BANDS]);
            }
        }
        store(&samples, group, out);
    }
}

/// Returns the spectral lines of a group of eight sub-bands, by line, then by sub-band.
#[inline(always)]
fn load(lanes: Lanes, group: usize, lines: &[f32; LINES]) -> Half {
    let sub_bands: &[[f32; SUB_BAND_LINES]; LANES] = lines.as_chunks().0[group * LANES..]
        .first_chunk()
        .expect("all groups are complete");
    let mut input = [Wide::ZERO; SLOTS];
    // The last eight lines overlap with those before them.
    for first in [0, LANES, SLOTS - LANES] {
        let columns = columns(lanes, sub_bands.each_ref(), first);
        for (input, column) in input[first..].iter_mut().zip(columns) {
            *input = Wide(column);
        }
    }
    input
}

#[inline(always)]
fn store(samples: &Half, group: usize, out: &mut SubBandSamples) {
    for (slot, samples) in out.iter_mut().zip(samples) {
        slot[group * LANES..][..LANES].copy_from_slice(&samples.0);
    }
}

/// Computes the long transform: passes the sum of `overlap` and the first half of its output to `put`, by slot, and stores
/// the second half in `overlap`.
#[inline(always)]
fn long(
    input: &Half,
    window: &[Wide; 2 * SLOTS],
    tables: &Tables,
    overlap: &mut Half,
    mut put: impl FnMut(usize, Wide),
) {
    // Sample `i` of the IMDCT is `y[i + 9]`, where `y[18 + n]` is `-y[17 - n]`, and `y[36 + n]` is `-y[n]`. The windows
    // contain the signs.
    let y = dct_iv_of_lanes(input, tables);
    for slot in 0..9 {
        put(slot, overlap[slot] + y[9 + slot] * window[slot]);
        put(
            9 + slot,
            overlap[9 + slot] + y[17 - slot] * window[9 + slot],
        );
        overlap[slot] = y[8 - slot] * window[18 + slot];
        overlap[9 + slot] = y[slot] * window[27 + slot];
    }
}

/// Computes the cosine transforms of eight sub-bands.
#[inline(always)]
fn dct_iv_of_lanes(input: &Half, tables: &Tables) -> Half {
    let mut y = [Wide::ZERO; SLOTS];
    for lane in 0..LANES {
        let x = std::array::from_fn(|line| input[line].0[lane]);
        for (y, value) in y.iter_mut().zip(dct_iv(&x, tables)) {
            y.0[lane] = value;
        }
    }
    y
}

/// Computes `y[n] = Σ x[k] cos(π / 18 · (n + 1/2)(k + 1/2))`.
///
/// With `t[n] = (x[2n] + i·x[17 - 2n]) · exp(-iπ(4n + 1) / 72)` and its Fourier transform `T` of 9 points, `T[k] ·
/// exp(-iπk / 18)` is `y[2k] - i·y[17 - 2k]`: the exponents of both twiddle factors and of the transform add up to
/// `-iπ(4n + 1)(4k + 1) / 72`.
#[inline(always)]
fn dct_iv(x: &[f32; SLOTS], tables: &Tables) -> [f32; SLOTS] {
    let mut t = [Complex::default(); 9];
    for n in 0..9 {
        let pair = Complex {
            re: x[2 * n],
            im: x[17 - 2 * n],
        };
        t[n] = pair.turned(tables.twist_in[n]);
    }

    // Compute the 9 points as 3 · 3 points: by residue of the input index, then by residue of the output index.
    let mut s = [[Complex::default(); 3]; 3];
    for residue in 0..3 {
        s[residue] = fourier3([t[residue], t[residue + 3], t[residue + 6]]);
    }
    s[1][1] = s[1][1].turned(tables.ninths[1]);
    s[1][2] = s[1][2].turned(tables.ninths[2]);
    s[2][1] = s[2][1].turned(tables.ninths[2]);
    s[2][2] = s[2][2].turned(tables.ninths[4]);

    let mut y = [0.0; SLOTS];
    for residue in 0..3 {
        let ends = fourier3(s.map(|row| row[residue]));
        for (third, end) in ends.into_iter().enumerate() {
            let k = residue + 3 * third;
            let turned = end.turned(tables.twist_out[k]);
            y[2 * k] = turned.re;
            y[17 - 2 * k] = -turned.im;
        }
    }
    y
}

/// Computes the Fourier transform of three points.
#[inline(always)]
fn fourier3([a, b, c]: [Complex; 3]) -> [Complex; 3] {
    const SIN_60: f32 = 0.866_025_4;
    let sum = b + c;
    let difference = b - c;
    let middle = Complex {
        re: a.re - sum.re * 0.5,
        im: a.im - sum.im * 0.5,
    };
    // The product `-i · sin 60° · (b - c)`.
    let side = Complex {
        re: difference.im * SIN_60,
        im: -difference.re * SIN_60,
    };
    [a + sum, middle + side, middle - side]
}

/// Computes the three short transforms of a block, which overlap within the granule.
#[inline(always)]
fn short(input: &Half, tables: &Tables, samples: &mut Half, overlap: &mut Half) {
    *overlap = [Wide::ZERO; SLOTS];
    for window in 0..3 {
        for i in 0..2 * SHORT_LINES {
            let mut sum = Wide::ZERO;
            for k in 0..SHORT_LINES {
                sum = sum + input[3 * k + window] * tables.short[i][k];
            }
            // The windows of a short block begin six samples apart, after six samples of silence.
            let at = SHORT_LINES * (window + 1) + i;
            let sum = sum * tables.signs[at % 2];
            if at < SLOTS {
                samples[at] = samples[at] + sum;
            } else {
                overlap[at - SLOTS] = overlap[at - SLOTS] + sum;
            }
        }
    }
}

/// Window factors and signs that are computed from formulas.
#[derive(Debug)]
struct Tables {
    /// A factor for each sample of both halves of the output, by window shape. It includes the signs of the transform's
    /// symmetry and of the inversion in odd sub-bands.
    windows: [[Wide; 2 * SLOTS]; 4],
    /// The same factors for mixed blocks, with the long window in the two lowest sub-bands.
    mixed: [[Wide; 2 * SLOTS]; 4],
    /// The matrix of the short transform, multiplied by its window.
    short: [[f32; SHORT_LINES]; 2 * SHORT_LINES],
    /// The signs of even and odd samples, each for eight sub-bands.
    signs: [Wide; 2],
    twist_in: [[f32; 2]; 9],
    twist_out: [[f32; 2]; 9],
    /// The constants `exp(-2πi·n / 9)`.
    ninths: [[f32; 2]; 5],
}

impl Tables {
    /// Returns the table of factors, which are created together with the first decoder.
    fn get() -> &'static Self {
        static TABLES: LazyLock<Tables> = LazyLock::new(Tables::new);
        &TABLES
    }

    fn new() -> Self {
        let blocks = [Block::Long, Block::Start, Block::Short, Block::End];
        let windows = blocks.map(|block| {
            std::array::from_fn(|i| {
                // Samples 9 to 35 are outputs of the cosine transform with inverted signs.
                let symmetry = if i < 9 { 1.0 } else { -1.0 };
                let factor = (symmetry * window(block, i)) as f32;
                Wide(std::array::from_fn(|lane| factor * inversion(i, lane)))
            })
        });
        let mut mixed = windows;
        for window in &mut mixed {
            for (factor, long) in window.iter_mut().zip(windows[Block::Long as usize]) {
                factor.0[..MIXED_SUB_BANDS].copy_from_slice(&long.0[..MIXED_SUB_BANDS]);
            }
        }

        let short = std::array::from_fn(|i| {
            std::array::from_fn(|k| {
                let angle = PI / 24.0 * (2 * i + 7) as f64 * (2 * k + 1) as f64;
                (libm::cos(angle) * short_window(i)) as f32
            })
        });
        Self {
            windows,
            mixed,
            short,
            signs: [0, 1].map(|slot| Wide(std::array::from_fn(|lane| inversion(slot, lane)))),
            twist_in: std::array::from_fn(|n| turn(PI * (4 * n + 1) as f64 / 72.0)),
            twist_out: std::array::from_fn(|k| turn(PI * k as f64 / 18.0)),
            ninths: std::array::from_fn(|n| turn(2.0 * PI * n as f64 / 9.0)),
        }
    }
}

/// Returns `exp(-i · angle)`.
fn turn(angle: f64) -> [f32; 2] {
    [libm::cos(angle) as f32, -libm::sin(angle) as f32]
}

/// Returns the sign of a sub-band sample: odd samples of odd sub-bands are inverted.
fn inversion(slot: usize, sub_band: usize) -> f32 {
    if slot % 2 == 1 && sub_band % 2 == 1 {
        -1.0
    } else {
        1.0
    }
}

/// Returns factor `i` of the 12 factors of a short window.
fn short_window(i: usize) -> f64 {
    libm::sin(PI / 12.0 * (i as f64 + 0.5))
}

/// Returns factor `i` of the 36 factors of a window; 0 for short windows.
fn window(block: Block, i: usize) -> f64 {
    let long = libm::sin(PI / 36.0 * (i as f64 + 0.5));
    match (block, i) {
        (Block::Short, _) => 0.0, // has windows of its own
        (Block::Start, 18..24) | (Block::End, 12..18) => 1.0,
        (Block::Start, 24..30) => short_window(i - 18),
        (Block::End, 6..12) => short_window(i - 6),
        (Block::Start, 30..) | (Block::End, 0..6) => 0.0,
        _ => long,
    }
}
