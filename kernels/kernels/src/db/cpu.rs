//! Computes the logarithms of a whole spectrogram in lanes and without a libm: libms differ between machines, and their
//! logarithm takes a quarter of the time of a log-mel.

use wavemill_options::{DbArgs, DbRef, LogArgs};
use wavemill_signal::Lanes;

use crate::normalize::extremes;

/// Parameters and instruction set level for computing one kind of logarithm.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogPlan {
    lanes: Lanes,
    args: LogArgs,
    squared: bool,
}

/// Decibels per unit of the natural logarithm of a power: 10 / ln 10.
const DB_PER_NEPER: f32 = (10.0 / std::f64::consts::LN_10) as f32;

/// Whisper's logarithm is decibels over 40, plus 1: (log10 S + 4) / 4.
pub(super) const WHISPER_DB: DbArgs = DbArgs {
    reference: DbRef::Power(1.0),
    amin: 1e-10,
    top_db: Some(80.0),
};

impl LogPlan {
    /// Creates a plan. `power` is the exponent of the spectrum: decibels of magnitudes are computed from their squares.
    pub(crate) fn new(args: LogArgs, power: f64, lanes: Lanes) -> Self {
        Self {
            lanes,
            args,
            squared: power == 1.0,
        }
    }

    /// Replaces every value by its logarithm.
    pub(crate) fn run(&self, values: &mut [f32]) {
        match self.args {
            LogArgs::Linear => {}
            LogArgs::Ln { floor } => self.lanes.run(
                #[inline(always)]
                || logarithms(values, floor as f32, 1.0, 0.0),
            ),
            LogArgs::Db(db) => self.decibels(values, &db),
            LogArgs::Whisper => {
                self.decibels(values, &WHISPER_DB);
                self.lanes.run(
                    #[inline(always)]
                    || values.iter_mut().for_each(|x| *x = *x / 40.0 + 1.0),
                );
            }
        }
    }

    fn decibels(&self, values: &mut [f32], db: &DbArgs) {
        // Decibels of a magnitude are defined as those of the squared magnitude.
        if self.squared {
            self.lanes.run(
                #[inline(always)]
                || values.iter_mut().for_each(|x| *x *= *x),
            );
        }

        let amin = db.amin as f32;
        let range = self.lanes.run(
            #[inline(always)]
            || extremes(values),
        );
        let largest = range.max;

        let mut top = largest;
        let mut reference = match db.reference {
            DbRef::Max => largest,
            DbRef::Power(power) => power as f32,
        };
        // The reference is converted by the same code as all values, so that the largest value is exactly 0 dB.
        logarithms(
            std::slice::from_mut(&mut reference),
            amin,
            DB_PER_NEPER,
            0.0,
        );
        logarithms(
            std::slice::from_mut(&mut top),
            amin,
            DB_PER_NEPER,
            reference,
        );

        let floor = db
            .top_db
            .map_or(f32::NEG_INFINITY, |top_db| top - top_db as f32);

        // Because of rounding, the logarithm of a smaller value can exceed that of the largest one, so `top` is also a
        // bound.
        self.lanes.run(
            #[inline(always)]
            || {
                logarithms(values, amin, DB_PER_NEPER, reference);
                values.iter_mut().for_each(|x| *x = x.max(floor).min(top));
            },
        );
    }
}

/// Computes `unit · ln(max(floor, x)) - reference` for each value.
#[inline(always)]
fn logarithms(values: &mut [f32], floor: f32, unit: f32, reference: f32) {
    for x in values {
        *x = unit * ln(x.max(floor)) - reference;
    }
}

/// Computes the natural logarithm of a normal positive number as exponent · ln 2 + ln m, m in [√½, √2), with the series
/// of ln m = 2 · artanh(s), s = (m - 1) / (m + 1). |s| < 0.172, so the first omitted term is below 2 · 0.172^11 / 11 =
/// 8e-10. Rounding dominates, and is below 2 units in the last place of the result (or of 1, near 0).
#[inline(always)]
fn ln(x: f32) -> f32 {
    const SQRT_HALF_BITS: u32 = 0x3f35_04f3;
    let exponent = (x.to_bits().wrapping_sub(SQRT_HALF_BITS) as i32) >> 23;
    let m = f32::from_bits(x.to_bits().wrapping_sub((exponent << 23) as u32));
    let s = (m - 1.0) / (m + 1.0);
    let s2 = s * s;
    let tail = s2 * (1.0 / 3.0 + s2 * (1.0 / 5.0 + s2 * (1.0 / 7.0 + s2 * (1.0 / 9.0))));
    exponent as f32 * std::f32::consts::LN_2 + 2.0 * (s + s * tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Allowed error in units in the last place: one each for rounding the exponent's product and the sum.
    const LN_ULPS_MAX: f64 = 2.0;

    /// Returns the error of [`ln`] in units in the last place of the result, or of 1/2 if that is larger.
    fn error_ulps(bits: u32) -> f64 {
        let x = f32::from_bits(bits);
        let want = f64::from(x).ln();
        let ulp = f64::from(f32::EPSILON) * want.abs().max(0.5);
        (f64::from(ln(x)) - want).abs() / ulp
    }

    #[test]
    fn ln_is_within_two_units_in_the_last_place() {
        // About one in a thousand of all normal positive numbers, with every exponent.
        let of_all = (0x0080_0000..0x7f80_0000u32).step_by(1013);
        // All mantissas around 1, where the exponent's term is 0 and hides no error of the series. Elsewhere the
        // exponent only adds its product.
        let around_one = 0.5f32.to_bits()..2.0f32.to_bits();

        let largest = of_all
            .chain(around_one)
            .fold(0.0f64, |largest, bits| largest.max(error_ulps(bits)));
        assert!(largest <= LN_ULPS_MAX, "{largest} ulp");
    }
}
