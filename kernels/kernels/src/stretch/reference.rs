//! Reference for tests: the three steps by their formulas, in f64 with plain loops. The phase is summed in f64 as well,
//! so it agrees with the fast path only for the first columns.

use std::f64::consts::PI;

const N_FFT: usize = 2048;
const HOP: usize = 512;

/// A complex number: real and imaginary part.
pub(super) type Bin = [f64; 2];

/// Returns the columns of the short-time Fourier transform: `[1 + n / 512][1025]`.
pub(super) fn columns(pcm: &[f32]) -> Vec<Vec<Bin>> {
    let mut padded = vec![0.0; N_FFT / 2];
    padded.extend(pcm.iter().map(|x| f64::from(*x)));
    padded.resize(padded.len() + N_FFT / 2, 0.0);

    let mut columns = Vec::new();
    let mut start = 0;
    while start + N_FFT <= padded.len() {
        columns.push(column(&padded[start..start + N_FFT]));
        start += HOP;
    }
    columns
}

fn column(frame: &[f64]) -> Vec<Bin> {
    let circle = circle();
    let windowed: Vec<f64> = frame.iter().zip(0..).map(|(x, i)| x * hann(i)).collect();
    let mut bins = Vec::new();
    for k in 0..=N_FFT / 2 {
        let [mut re, mut im] = [0.0; 2];
        for (i, x) in windowed.iter().enumerate() {
            let (sin, cos) = circle[k * i % N_FFT];
            re += x * cos;
            im -= x * sin;
        }
        bins.push([re, im]);
    }
    bins
}

/// Returns sine and cosine of each n-th part of a turn.
fn circle() -> Vec<(f64, f64)> {
    (0..N_FFT)
        .map(|i| (2.0 * PI * i as f64 / N_FFT as f64).sin_cos())
        .collect()
}

fn hann(i: usize) -> f64 {
    0.5 - 0.5 * (2.0 * PI * i as f64 / N_FFT as f64).cos()
}

/// Returns the columns at 0, `rate`, 2 `rate` …: magnitude and phase of each bin.
pub(super) fn vocode(columns: &[Vec<Bin>], rate: f64) -> Vec<Vec<(f64, f64)>> {
    let zeros = vec![[0.0; 2]; N_FFT / 2 + 1];
    // The signal is silent after the last column.
    let column = |number: usize| columns.get(number).unwrap_or(&zeros);

    let mut phases: Vec<f64> = columns[0].iter().map(|[re, im]| im.atan2(*re)).collect();
    let mut made = Vec::new();
    let mut step = 0;
    while (step as f64) * rate < columns.len() as f64 {
        let place = step as f64 * rate;
        let before = column(place.floor() as usize);
        let behind = column(place.floor() as usize + 1);
        let part = place - place.floor();

        let mut bins = Vec::new();
        for (k, phase) in phases.iter_mut().enumerate() {
            let [re, im] = before[k];
            let [next_re, next_im] = behind[k];
            let magnitude = (1.0 - part) * re.hypot(im) + part * next_re.hypot(next_im);
            bins.push((magnitude, *phase));

            let expected = 2.0 * PI * (HOP * k) as f64 / N_FFT as f64;
            let turned = next_im.atan2(next_re) - im.atan2(re) - expected;
            // Phases are known up to whole turns; use the smallest deviation.
            let wrapped = turned - 2.0 * PI * (turned / (2.0 * PI)).round_ties_even();
            *phase += expected + wrapped;
        }
        made.push(bins);
        step += 1;
    }
    made
}

/// Returns `n_out` samples as the sum of the columns' windowed frames, divided by the sum of the squared windows.
pub(super) fn overlap_add(columns: &[Vec<Bin>], n_out: usize) -> Vec<f64> {
    let circle = circle();
    let n = N_FFT + HOP * columns.len() + n_out;
    let mut sums = vec![0.0; n];
    let mut weights = vec![0.0; n];
    for (number, column) in columns.iter().enumerate() {
        for i in 0..N_FFT {
            let mut x = column[0][0];
            for (k, [re, im]) in column.iter().enumerate().skip(1) {
                let (sin, cos) = circle[k * i % N_FFT];
                // Bins above the middle are mirror images; the middle one has none.
                let copies = if k == N_FFT / 2 { 1.0 } else { 2.0 };
                let odd = if k == N_FFT / 2 { 0.0 } else { im * sin };
                x += copies * (re * cos - odd);
            }
            sums[number * HOP + i] += x / N_FFT as f64 * hann(i);
            weights[number * HOP + i] += hann(i) * hann(i);
        }
    }

    (N_FFT / 2..N_FFT / 2 + n_out)
        .map(|i| {
            if weights[i] > 0.0 {
                sums[i] / weights[i]
            } else {
                sums[i]
            }
        })
        .collect()
}
