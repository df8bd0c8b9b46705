//! The numbers of the cosine transform and the lifter.

use std::f64::consts::PI;

use wavemill_options::MfccArgs;

/// Returns the transform and the lifter as one matrix, `[n_mfcc][n_mels]`.
pub(super) fn matrix(args: &MfccArgs, n_mels: usize) -> Vec<f64> {
    let mut matrix = Vec::with_capacity(args.n_mfcc * n_mels);
    for k in 0..args.n_mfcc {
        let lift = lift(args, k);
        for n in 0..n_mels {
            matrix.push(lift * cosine(args.dct_type, k, n, n_mels));
        }
    }
    matrix
}

/// Returns entry (k, n) of the orthonormal cosine transform of length `len`.
fn cosine(dct_type: u8, k: usize, n: usize, len: usize) -> f64 {
    let x = k as f64;
    let y = n as f64;
    let size = len as f64;

    match dct_type {
        1 => {
            let row = half_power_if(k == 0 || k == len - 1);
            let column = half_power_if(n == 0 || n == len - 1);
            (2.0 / (size - 1.0)).sqrt() * row * column * libm::cos(PI * x * y / (size - 1.0))
        }
        3 => {
            (2.0 / size).sqrt()
                * half_power_if(n == 0)
                * libm::cos(PI * (2.0 * x + 1.0) * y / (2.0 * size))
        }
        _ => {
            (2.0 / size).sqrt()
                * half_power_if(k == 0)
                * libm::cos(PI * x * (2.0 * y + 1.0) / (2.0 * size))
        }
    }
}

fn lift(args: &MfccArgs, k: usize) -> f64 {
    if args.lifter == 0.0 {
        return 1.0;
    }
    let turn = (k + usize::from(args.lifter_from)) as f64 / args.lifter;
    1.0 + args.lifter / 2.0 * libm::sin(PI * turn)
}

/// Returns the factor that makes the transform orthonormal: entries at an edge are smaller by √2.
fn half_power_if(edge: bool) -> f64 {
    if edge { 0.5f64.sqrt() } else { 1.0 }
}
