//! Slow reference in f64 for all decoding steps from requantisation on, directly from the standard's formulas.

use std::f64::consts::PI;

use super::side_info::Block;
use super::window::window;

/// Requantises a value: computes `sign(q) · |q|^(4/3) · 2^(gain / 4)`.
pub(super) fn requantise(value: i32, gain: i32) -> f64 {
    let magnitude = f64::from(value.abs()).powf(4.0 / 3.0);
    magnitude.copysign(f64::from(value)) * (f64::from(gain) / 4.0).exp2()
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
