//! Reference for tests: logarithms computed from their definitions in f64.

use wavemill_options::{DbArgs, DbRef, LogArgs};

/// Returns the logarithm of each value; `power` is the exponent of the spectrum.
pub(crate) fn log(args: &LogArgs, power: f64, values: &[Vec<f64>]) -> Vec<Vec<f64>> {
    match *args {
        LogArgs::Linear => values.to_vec(),
        LogArgs::Ln { floor } => each(values, |x| x.max(floor).ln()),
        LogArgs::Whisper => {
            let logs = each(values, |x| x.max(1e-10).log10());
            let floor = max_of(&logs) - 8.0;
            each(&logs, |x| (x.max(floor) + 4.0) / 4.0)
        }
        LogArgs::Db(db) => decibels(&db, power, values),
    }
}

fn decibels(db: &DbArgs, power: f64, values: &[Vec<f64>]) -> Vec<Vec<f64>> {
    // Decibels of a magnitude are defined as those of the squared magnitude.
    let powers = each(values, |x| if power == 1.0 { x * x } else { x });

    let reference = match db.reference {
        DbRef::Max => max_of(&powers),
        DbRef::Power(reference) => reference,
    };
    let zero = 10.0 * reference.max(db.amin).log10();
    let logs = each(&powers, |x| 10.0 * x.max(db.amin).log10() - zero);

    let floor = match db.top_db {
        Some(top_db) => max_of(&logs) - top_db,
        None => f64::NEG_INFINITY,
    };
    each(&logs, |x| x.max(floor))
}

fn each(values: &[Vec<f64>], f: impl Fn(f64) -> f64) -> Vec<Vec<f64>> {
    values
        .iter()
        .map(|row| row.iter().map(|x| f(*x)).collect())
        .collect()
}

fn max_of(values: &[Vec<f64>]) -> f64 {
    values
        .iter()
        .flatten()
        .fold(f64::NEG_INFINITY, |a, b| a.max(*b))
}
