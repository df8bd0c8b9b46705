//! What is wrong with a value, in words for whoever gave it.

use std::ops::RangeInclusive;

/// Something wrong with the value of a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct Fault {
    /// Name of the option, such as `n_mels` or `db.top_db`. A recipe's faults say where it stands: `features.1.n_mels`.
    pub key: String,
    /// What is wrong, and what is allowed.
    pub problem: String,
}

impl Fault {
    /// A fault of `key`, in words.
    pub fn new(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            problem: problem.into(),
        }
    }
}

/// Faults found so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// Takes a fault.
    pub fn push(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    /// A fault of `key` unless `ok`.
    pub fn unless(&mut self, ok: bool, key: &str, problem: impl Into<String>) {
        if !ok {
            self.0.push(Fault::new(key, problem));
        }
    }

    /// `value`, when given, must lie in `range`.
    pub fn within(&mut self, value: Option<f64>, range: RangeInclusive<f64>, key: &str) {
        if let Some(value) = value {
            // NaN lies in no range, and so is told too.
            let from = range.start();
            let to = range.end();
            let problem = format!("{} is out of range; allowed: {from} to {to}", shown(value));
            self.unless(range.contains(&value), key, problem);
        }
    }

    /// As [`Faults::within`], of a count. Counts in reach are far below 2^53, where f64 begins to skip.
    pub fn count_within(&mut self, count: usize, range: RangeInclusive<usize>, key: &str) {
        let range = *range.start() as f64..=*range.end() as f64;
        self.within(Some(count as f64), range, key);
    }

    /// `value`, when given, must be finite and above 0.
    pub fn positive(&mut self, value: Option<f64>, key: &str) {
        if let Some(value) = value {
            let ok = value.is_finite() && value > 0.0;
            self.unless(
                ok,
                key,
                format!("{} is impossible; allowed: a number above 0", shown(value)),
            );
        }
    }

    /// Nothing is wrong so far.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Errors: the first fault.
    pub fn into_result(self) -> Result<(), Fault> {
        match self.0.into_iter().next() {
            Some(fault) => Err(fault),
            None => Ok(()),
        }
    }

    /// All of them, in the order in which they were found.
    pub fn into_vec(self) -> Vec<Fault> {
        self.0
    }
}

/// A number as people write it: very large and very small ones with an exponent.
fn shown(value: f64) -> String {
    let is_plain = value == 0.0 || !value.is_finite() || (1e-4..1e10).contains(&value.abs());
    if is_plain {
        value.to_string()
    } else {
        format!("{value:e}")
    }
}
