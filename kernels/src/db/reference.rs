//! Logarithms by their definition, f64.

use super::{DbRef, LogArgs};

/// Each value's logarithm; `power` is the exponent of the spectrum.
pub(crate) fn log(args: &LogArgs, power: f64, values: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let each = |f: &dyn Fn(f64) -> f64| -> Vec<Vec<f64>> {
        values.iter().map(|row| row.iter().map(|x| f(*x)).collect()).collect()
    };
    let max_of = |values: &[Vec<f64>]| values.iter().flatten().fold(f64::NEG_INFINITY, |a, b| a.max(*b));
    match *args {
        LogArgs::Linear => values.to_vec(),
        LogArgs::Ln { floor } => each(&|x| x.max(floor).ln()),
        LogArgs::Whisper => {
            let logs = each(&|x| x.max(1e-10).log10());
            let floor = max_of(&logs) - 8.0;
            logs.iter().map(|row| row.iter().map(|x| (x.max(floor) + 4.0) / 4.0).collect()).collect()
        }
        LogArgs::Db(db) => {
            let as_power = |x: f64| if power == 1.0 { x * x } else { x };
            let reference = match db.reference {
                DbRef::Max => as_power(max_of(values)),
                DbRef::Power(reference) => reference,
            };
            let zero = 10.0 * reference.max(db.amin).log10();
            let logs = each(&|x| 10.0 * as_power(x).max(db.amin).log10() - zero);
            let floor = db.top_db.map_or(f64::NEG_INFINITY, |top| max_of(&logs) - top);
            logs.iter().map(|row| row.iter().map(|x| x.max(floor)).collect()).collect()
        }
    }
}
