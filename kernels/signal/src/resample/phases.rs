//! The resampler for ratios without a short period: computes a sum over the filter at each output's own time.
//!
//! Overlap-save requires blocks that begin at a sample of both rates. For 44,101 to 22,050 Hz this is every 44,101
//! samples, and planning would cost more than a clip. Here a plan is a table of the filter at some hundred phases; a
//! sample's own phase is between two of them, and the result is interpolated linearly between the two sums. Planning
//! takes about a millisecond and half a megabyte at any ratio; a sample takes about ten times as long as by FFT.

use std::sync::OnceLock;

use super::args::{Ratio, ResampleArgs};
use super::cpu::Filter;
use crate::level::Lanes;
use crate::samples::SampleBuffer;

/// Number of filter phases per input sample; fewer for a lower output rate, which stretches the filter.
///
/// The error of linear interpolation is at most (π / 768)² / 8 = 2.1e-6 of full scale, which is -114 dB.
const PHASES: f64 = 768.0;

/// Number of steps from the filter's centre to its end in the table from which all plans are computed: 380 per period
/// of the sinc. A cubic through four of them has an error of 2e-9, far below the precision of f32.
const SHAPE_STEPS: usize = 16_384;

/// Number of partial sums that are computed in parallel.
const LANES: usize = 8;

/// Number of used input samples at which they are removed from the buffer: rarely enough that it costs no time.
const DROP_SAMPLES: usize = 4_096;

/// Range of the input samples that contribute to an output sample.
#[derive(Clone, Copy, Debug)]
pub(super) struct InputRange {
    /// Number of contributing input samples before the time of the output sample.
    before: usize,
    /// Number of contributing input samples: the length of the filter, rounded up to whole lanes.
    n_taps: usize,
}

impl InputRange {
    pub(super) fn new(filter: &Filter) -> Self {
        let before = filter.half_len();
        Self {
            before,
            n_taps: (2 * before + 2).next_multiple_of(LANES),
        }
    }

    /// Returns the number of input samples that the first `n_out` outputs depend on.
    pub(super) fn input_len(&self, args: ResampleArgs, n_out: u64) -> u64 {
        let Ratio { down, up } = args.ratio();
        (n_out - 1) * down as u64 / up as u64 + (self.n_taps - self.before) as u64
    }
}

/// Tables and current input of one resampler.
pub(super) struct Phases {
    reach: InputRange,
    down: usize,
    up: usize,
    n_phases: usize,
    /// Filter taps in `n_phases + 1` rows, one per phase: the last row is the first row of the next input sample.
    table: Vec<f32>,
    lanes: Lanes,
    /// Input samples that are still needed, beginning with zeros for the time before the first sample.
    pending: Vec<f32>,
    /// Index in `pending` of the first input sample that contributes to the next output sample.
    at: usize,
    /// Fractional part of the next output sample's time, in units of 1 / `up` input samples.
    part: usize,
}

impl Phases {
    pub(super) fn new(args: ResampleArgs, lanes: Lanes) -> Self {
        let filter = Filter::new(args);
        let Ratio { down, up } = args.ratio();
        let reach = InputRange::new(&filter);
        let stretch = f64::from(args.to_hz.min(args.from_hz)) / f64::from(args.from_hz);
        // A filter that is stretched for a lower rate changes more slowly, so it needs fewer phases.
        let n_phases = (PHASES * stretch).ceil() as usize;

        let mut table = Vec::with_capacity((n_phases + 1) * reach.n_taps);
        let shape = shape();
        for phase in 0..=n_phases {
            // The distance from the first tap to the output's own time, in input samples.
            let first = phase as f64 / n_phases as f64 + reach.before as f64;
            let row = (0..reach.n_taps).map(|tap| shape.at(&filter, first - tap as f64));
            table.extend(row.map(|tap| tap as f32));
        }

        let mut phases = Self {
            reach,
            down,
            up,
            n_phases,
            table,
            lanes,
            pending: Vec::new(),
            at: 0,
            part: 0,
        };
        phases.reset();
        phases
    }

    pub(super) fn reset(&mut self) {
        self.at = 0;
        self.part = 0;
        self.pending.clear();
        self.pending.resize(self.reach.before, 0.0);
    }

    /// Takes input samples and appends the output samples that they determine to `out`.
    pub(super) fn push(&mut self, input: &[f32], out: &mut SampleBuffer) {
        self.pending.extend_from_slice(input);
        let lanes = self.lanes;
        lanes.run(
            #[inline(always)]
            || self.convert(out),
        );

        // At a large ratio of the rates, `at` can be after the end of all input so far.
        let used = self.at.min(self.pending.len());
        if used >= DROP_SAMPLES {
            self.pending.drain(..used);
            self.at -= used;
        }
    }

    /// Appends as many zeros to the input as are needed to produce all remaining output.
    pub(super) fn push_end(&mut self, out: &mut SampleBuffer) {
        let zeros = [0.0; 256];
        // After as many zeros as the filter has taps, the last input sample no longer contributes to the output.
        for _ in 0..self.reach.n_taps.div_ceil(zeros.len()) {
            self.push(&zeros, out);
        }
    }

    #[inline(always)]
    fn convert(&mut self, out: &mut SampleBuffer) {
        let n_taps = self.reach.n_taps;
        while let Some(input) = self.pending.get(self.at..self.at + n_taps) {
            // The phase is computed with integers, so that rounding errors do not accumulate along a clip.
            let place = self.part * self.n_phases;
            let weight = (place % self.up) as f32 / self.up as f32;
            let rows = &self.table[place / self.up * n_taps..][..2 * n_taps];
            let (left, right) = sums(input, rows);
            out.push(left + weight * (right - left));

            self.part += self.down;
            self.at += self.part / self.up;
            self.part %= self.up;
        }
    }
}

/// Returns the dot products of `input` with the first half of `rows` and with the second half.
#[inline(always)]
fn sums(input: &[f32], rows: &[f32]) -> (f32, f32) {
    let (left, right) = rows.split_at(input.len());
    let mut sums = [[0.0f32; LANES]; 2];

    // One pass computes both sums, because they read the same input.
    let taps = left.chunks_exact(LANES).zip(right.chunks_exact(LANES));
    for (input, (left, right)) in input.chunks_exact(LANES).zip(taps) {
        for lane in 0..LANES {
            sums[0][lane] += input[lane] * left[lane];
            sums[1][lane] += input[lane] * right[lane];
        }
    }

    (total(&sums[0]), total(&sums[1]))
}

#[inline(always)]
fn total(sums: &[f32; LANES]) -> f32 {
    ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7]))
}

/// Half of the filter, sampled in steps. Its shape is the same at every ratio, only length and height differ, because
/// its length, cutoff and pass band are all proportional to the lower rate.
struct Shape(Vec<f64>);

fn shape() -> &'static Shape {
    static SHAPE: OnceLock<Shape> = OnceLock::new();
    SHAPE.get_or_init(|| {
        // The filter's shape is the same for any ratio, so use equal rates.
        let filter = Filter::new(ResampleArgs {
            from_hz: super::MIN_HZ,
            to_hz: super::MIN_HZ,
        });

        // The cubic needs one more step at each end of the table.
        let steps = (0..SHAPE_STEPS + 3).map(|step| (step as f64 - 1.0) / SHAPE_STEPS as f64);
        Shape(
            steps
                .map(|x| filter.at(x * filter.half()) / filter.height())
                .collect(),
        )
    })
}

impl Shape {
    /// Returns the value of `filter` at `n` input samples from its centre.
    fn at(&self, filter: &Filter, n: f64) -> f64 {
        let x = (n / filter.half()).abs();
        if x > 1.0 {
            return 0.0;
        }

        let place = x * SHAPE_STEPS as f64;
        // At the end of the filter, use the last step.
        let step = (place as usize).min(SHAPE_STEPS - 1);
        let t = place - step as f64;
        let [a, b, c, d] = [
            self.0[step],
            self.0[step + 1],
            self.0[step + 2],
            self.0[step + 3],
        ];

        // Lagrange's cubic through the steps at -1, 0, 1 and 2.
        let value = -a * t * (t - 1.0) * (t - 2.0) / 6.0
            + b * (t + 1.0) * (t - 1.0) * (t - 2.0) / 2.0
            - c * (t + 1.0) * t * (t - 2.0) / 2.0
            + d * (t + 1.0) * t * (t - 1.0) / 6.0;
        value * filter.height()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Allowed error: half of an f32's last step at the filter's height, and the error of the cubic.
    const SHAPE_ERROR_MAX: f64 = 1e-8;

    #[test]
    fn every_ratio_has_the_filter_of_its_own_formula() {
        for (from_hz, to_hz) in [
            (44_101, 22_050),
            (8_009, 48_000),
            (96_000, 8_009),
            (384_000, 22_050),
            (22_051, 22_050),
        ] {
            let filter = Filter::new(ResampleArgs { from_hz, to_hz });

            for step in 0..5_000 {
                let n = f64::from(step) / 4_999.0 * filter.half() * 1.01;
                let (got, want) = (shape().at(&filter, n), filter.at(n));
                let error = (got - want).abs() / filter.height();
                assert!(
                    error <= SHAPE_ERROR_MAX,
                    "{from_hz} to {to_hz} Hz at {n}: {got} instead of {want}"
                );
            }
        }
    }
}
