//! Smooths quantized energies of pitch classes over frames: chroma energy normalized statistics (CENS).
//!
//! Source: `librosa.feature.chroma_cens`, version 0.11, after Müller and Ewert (2011).

use std::f64::consts::PI;

use wavemill_options::{FeatureArgs, Op};
use wavemill_signal::Lanes;

use super::norm::{Norm, normalize_frames};
use super::tonnetz::TonnetzPlan;

/// Tables and buffers of one feature.
pub(crate) struct CensPlan {
    lanes: Lanes,
    window: Vec<f32>,
    /// Tonal centroids of the result, if these are the feature.
    centroids: Option<TonnetzPlan>,
    /// Buffer for the smoothed energies.
    smoothed: Vec<f32>,
    norms: Vec<f32>,
}

impl CensPlan {
    /// Plans a feature; `None` if it is not computed from CENS.
    pub(crate) fn new(feature: &FeatureArgs, lanes: Lanes) -> Option<Self> {
        let args = feature.chroma_cq()?;
        let is_tonnetz = feature.op == Op::Tonnetz;
        Some(Self {
            lanes,
            window: window(args.win_len_smooth?)
                .iter()
                .map(|x| *x as f32)
                .collect(),
            centroids: is_tonnetz.then(|| TonnetzPlan::new(args.n_chroma)),
            smoothed: Vec::new(),
            norms: Vec::new(),
        })
    }

    /// Frees the memory whose size depends on the clip.
    pub(crate) fn forget_scratch(&mut self) {
        self.smoothed = Vec::new();
        self.norms = Vec::new();
    }

    /// Smooths energies, `[n_chroma, n_frames]`, and computes the feature's values from them.
    pub(crate) fn run(&mut self, energies: &[f32], n_frames: usize, out: &mut [f32]) {
        let Self {
            window,
            centroids,
            smoothed,
            norms,
            ..
        } = self;

        smoothed.clear();
        smoothed.resize(energies.len(), 0.0);
        norms.resize(n_frames, 0.0);

        self.lanes.run(
            #[inline(always)]
            || {
                let rows = energies.chunks_exact(n_frames);
                for (row, smoothed) in rows.zip(smoothed.chunks_exact_mut(n_frames)) {
                    smooth(row, window, smoothed);
                }

                normalize_frames(smoothed, norms, Norm::Euclidean);
                match centroids {
                    Some(plan) => plan.run(smoothed, norms, out),
                    None => out.copy_from_slice(smoothed),
                }
            },
        );
    }
}

/// Returns the weights of frames, a symmetric Hann window without its zeros at the ends, with a sum of 1.
pub(super) fn window(n_frames: usize) -> Vec<f64> {
    let step = 2.0 * PI / (n_frames + 1) as f64;
    let hann = |i: usize| 0.5 - 0.5 * libm::cos(step * i as f64);
    let sum: f64 = (1..=n_frames).map(hann).sum();
    (1..=n_frames).map(|i| hann(i) / sum).collect()
}

/// Adds up frames with the weights of a window, whose middle, or the first after it, is the frame itself. Frames beyond
/// the ends are zeros.
#[inline(always)]
fn smooth(row: &[f32], window: &[f32], out: &mut [f32]) {
    let n = row.len();
    // An even window begins one frame later, as that of scipy's convolution.
    let before = (window.len() - 1) / 2;
    for (i, weight) in window.iter().enumerate() {
        let skipped = before.saturating_sub(i).min(n);
        let ahead = i.saturating_sub(before).min(n);
        for (sum, x) in out[skipped..].iter_mut().zip(&row[ahead..]) {
            *sum += weight * x;
        }
    }
}
