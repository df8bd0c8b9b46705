//! Slow reference in f64 for all decoding steps from requantisation on, directly from the standard's formulas.

use std::f64::consts::{FRAC_1_SQRT_2, PI};
use std::ops::Range;

use super::side_info::Block;
use super::window::window;

/// Requantises a value: computes `sign(q) · |q|^(4/3) · 2^(gain / 4)`.
pub(super) fn requantise(value: i32, gain: i32) -> f64 {
    let magnitude = f64::from(value.abs()).powf(4.0 / 3.0);
    magnitude.copysign(f64::from(value)) * (f64::from(gain) / 4.0).exp2()
}

/// A scale factor band in the order of the coded lines.
pub(super) struct Band {
    pub(super) lines: Range<usize>,
    /// The window of a short band; `None` for a long band.
    pub(super) window: Option<usize>,
    /// The stereo position that is coded for the band, or `None` if it is not legal.
    pub(super) position: Option<u8>,
}

/// The rules of intensity stereo, which depend on the version of the standard.
#[derive(Clone, Copy)]
pub(super) enum Intensity {
    Mpeg1,
    /// Positions in steps of this factor.
    Mpeg2(f64),
}

impl Intensity {
    /// Returns the factors by which the left channel's lines become left and right.
    fn weights(self, position: u8) -> [f64; 2] {
        let steps = i32::from(position.div_ceil(2));
        match self {
            Self::Mpeg1 if position == 6 => [1.0, 0.0],
            Self::Mpeg1 => {
                let ratio = (f64::from(position) * PI / 12.0).tan();
                [ratio / (1.0 + ratio), 1.0 / (1.0 + ratio)]
            }
            Self::Mpeg2(step) if position % 2 == 1 => [step.powi(steps), 1.0],
            Self::Mpeg2(step) => [1.0, step.powi(steps)],
        }
    }

    /// Returns the position of a highest band, for which none is coded, if that of the band below does not apply.
    fn default_position(self) -> u8 {
        match self {
            Self::Mpeg1 => 3,
            Self::Mpeg2(_) => 0,
        }
    }
}

/// Converts the coded lines of joint stereo to left and right. The bands are the right channel's.
pub(super) fn unjoin(
    bands: &[Band],
    is_mid_side: bool,
    intensity: Option<Intensity>,
    [left, right]: [&mut [f64]; 2],
) {
    // A band has intensity stereo if no line is coded in it and in the bands above it: in its own window, or in every
    // window above a long band.
    let has_none = |band: &Band| right[band.lines.clone()].iter().all(|&line| line == 0.0);
    let is_intensity: Vec<bool> = (0..bands.len())
        .map(|at| {
            let window = bands[at].window;
            let mut above = bands[at..].iter();
            above.all(|band| (window.is_some() && band.window != window) || has_none(band))
        })
        .collect();
    let n_highest = if bands[bands.len() - 1].window.is_some() {
        3
    } else {
        1
    };

    for (at, band) in bands.iter().enumerate() {
        let source = if at + n_highest < bands.len() {
            at
        } else {
            at - n_highest
        };
        let weights = intensity.filter(|_| is_intensity[at]).and_then(|rules| {
            let position = if is_intensity[source] {
                bands[source].position
            } else {
                Some(rules.default_position())
            };
            position.map(|position| rules.weights(position))
        });

        for line in band.lines.clone() {
            let [a, b] = [left[line], right[line]];
            [left[line], right[line]] = match weights {
                Some([to_left, to_right]) => [a * to_left, a * to_right],
                None if is_mid_side => [(a + b) * FRAC_1_SQRT_2, (a - b) * FRAC_1_SQRT_2],
                None => [a, b],
            };
        }
    }
}

/// Returns the lines in the order of their frequencies: those of the three windows of a short band alternate.
pub(super) fn reorder(bands: &[Band], lines: &[f64]) -> Vec<f64> {
    let mut ordered = lines.to_vec();
    for band in bands {
        if let Some(window) = band.window {
            let first = band.lines.start - window * band.lines.len();
            for (at, line) in band.lines.clone().enumerate() {
                ordered[first + 3 * at + window] = lines[line];
            }
        }
    }
    ordered
}

/// Applies the anti-aliasing butterflies at the first `n_borders` borders between sub-bands.
pub(super) fn antialias(lines: &mut [f64], n_borders: usize) {
    for border in 1..=n_borders {
        let coefficients = [
            -0.6, -0.535, -0.33, -0.185, -0.095, -0.041, -0.0142, -0.0037,
        ];
        for (i, c) in coefficients.into_iter().enumerate() {
            let own = 1.0 / f64::sqrt(1.0 + c * c);
            let other = c / f64::sqrt(1.0 + c * c);
            let below = lines[18 * border - 1 - i];
            let above = lines[18 * border + i];
            lines[18 * border - 1 - i] = below * own - above * other;
            lines[18 * border + i] = above * own + below * other;
        }
    }
}

/// Returns the 36 windowed samples of the IMDCT of 18 lines.
pub(super) fn imdct(block: Block, lines: &[f64]) -> [f64; 36] {
    if block == Block::Short {
        let mut samples = [0.0; 36];
        for window in 0..3 {
            for i in 0..12 {
                let terms = (0..6).map(|k| {
                    let angle = PI / 24.0 * (2 * i + 1 + 6) as f64 * (2 * k + 1) as f64;
                    lines[3 * k + window] * angle.cos()
                });
                let sum: f64 = terms.sum();
                samples[6 + 6 * window + i] += sum * (PI / 12.0 * (i as f64 + 0.5)).sin();
            }
        }
        return samples;
    }

    std::array::from_fn(|i| {
        let terms = (0..18).map(|k| {
            let angle = PI / 72.0 * (2 * i + 1 + 18) as f64 * (2 * k + 1) as f64;
            lines[k] * angle.cos()
        });
        terms.sum::<f64>() * long_window(block, i)
    })
}

fn long_window(block: Block, i: usize) -> f64 {
    let at = i as f64 + 0.5;
    match block {
        Block::Start if i >= 30 => 0.0,
        Block::Start if i >= 24 => (PI / 12.0 * (at - 18.0)).sin(),
        Block::Start if i >= 18 => 1.0,
        Block::End if i < 6 => 0.0,
        Block::End if i < 12 => (PI / 12.0 * (at - 6.0)).sin(),
        Block::End if i < 18 => 1.0,
        _ => (PI / 36.0 * at).sin(),
    }
}

/// IMDCT, overlap and inversion for one channel.
pub(super) struct Hybrid {
    overlap: [[f64; 18]; 32],
}

impl Hybrid {
    pub(super) fn new() -> Self {
        Self {
            overlap: [[0.0; 18]; 32],
        }
    }

    /// Returns the sub-band samples of each time slot of a granule.
    pub(super) fn run(&mut self, block: Block, is_mixed: bool, lines: &[f64]) -> Vec<[f64; 32]> {
        let mut slots = vec![[0.0; 32]; 18];
        for sub_band in 0..32 {
            let own = if is_mixed && sub_band < 2 {
                Block::Long
            } else {
                block
            };
            let samples = imdct(own, &lines[18 * sub_band..][..18]);
            for slot in 0..18 {
                let sum = samples[slot] + self.overlap[sub_band][slot];
                let is_inverted = slot % 2 == 1 && sub_band % 2 == 1;
                slots[slot][sub_band] = if is_inverted { -sum } else { sum };
                self.overlap[sub_band][slot] = samples[18 + slot];
            }
        }
        slots
    }
}

/// The synthesis filter of one channel, as in the standard's flow chart.
pub(super) struct Filter {
    v: Vec<f64>,
}

impl Filter {
    pub(super) fn new() -> Self {
        Self {
            v: vec![0.0; 1_024],
        }
    }

    /// Adds the sub-band samples of a time slot and returns the values that are multiplied by the window.
    pub(super) fn enter(&mut self, samples: &[f64; 32]) -> Vec<f64> {
        self.v.copy_within(..960, 64);
        for i in 0..64 {
            let terms = samples
                .iter()
                .enumerate()
                .map(|(k, s)| s * (PI / 64.0 * (16 + i) as f64 * (2 * k + 1) as f64).cos());
            self.v[i] = terms.sum();
        }

        let mut u = vec![0.0; 512];
        for i in 0..8 {
            for j in 0..32 {
                u[64 * i + j] = self.v[128 * i + j];
                u[64 * i + 32 + j] = self.v[128 * i + 96 + j];
            }
        }
        u
    }

    /// Returns the 32 output samples of a time slot.
    pub(super) fn run(&mut self, samples: &[f64; 32]) -> [f64; 32] {
        let u = self.enter(samples);
        std::array::from_fn(|j| (0..16).map(|i| u[j + 32 * i] * window(j + 32 * i)).sum())
    }
}
