//! Errors about option values, with messages for the user who set them.

use std::ops::RangeInclusive;

/// An invalid value of an option.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct Fault {
    /// Name of the option, such as `n_mels` or `db.top_db`. For a whole recipe, the full key: `features.1.n_mels`.
    pub key: String,
    /// Message for the user: what is wrong, and the allowed values.
    pub problem: String,
}

impl Fault {
    /// Creates a fault of `key` with a message.
    pub fn new(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            problem: problem.into(),
        }
    }
}

/// A list of faults in option values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// Appends a fault to the list.
    pub fn push(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    /// Appends a fault of `key` if `ok` is false.
    pub fn unless(&mut self, ok: bool, key: &str, problem: impl Into<String>) {
        if !ok {
            self.0.push(Fault::new(key, problem));
        }
    }

    /// Appends a fault of `key` if `value` is given and outside of `range`.
    pub fn within(&mut self, value: Option<f64>, range: RangeInclusive<f64>, key: &str) {
        if let Some(value) = value {
            // NaN is outside of every range, so it is a fault too.
            let from = range.start();
            let to = range.end();
            let problem = format!("{} is out of range; allowed: {from} to {to}", shown(value));
            self.unless(range.contains(&value), key, problem);
        }
    }

    /// Checks a count like [`Faults::within`]. Realistic counts are far below 2^53, above which f64 cannot represent
    /// all integers.
    pub fn count_within(&mut self, count: usize, range: RangeInclusive<usize>, key: &str) {
        let range = *range.start() as f64..=*range.end() as f64;
        self.within(Some(count as f64), range, key);
    }

    /// Appends a fault of `key` if `value` is given and not a finite number above 0.
    pub fn positive(&mut self, value: Option<f64>, key: &str) {
        if let Some(value) = value {
            let ok = value.is_finite() && value > 0.0;
            self.unless(
                ok,
                key,
                format!("{} is invalid; allowed: a number above 0", shown(value)),
            );
        }
    }

    /// Reports whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the first fault as an error.
    ///
    /// # Errors
    /// If the list is not empty.
    pub fn into_result(self) -> Result<(), Fault> {
        match self.0.into_iter().next() {
            Some(fault) => Err(fault),
            None => Ok(()),
        }
    }

    /// Returns all faults in the order in which they were appended.
    pub fn into_vec(self) -> Vec<Fault> {
        self.0
    }
}

/// Formats a number for display: very large and very small ones with an exponent.
pub(crate) fn shown(value: f64) -> String {
    let is_plain = value == 0.0 || !value.is_finite() || (1e-4..1e10).contains(&value.abs());
    if is_plain {
        value.to_string()
    } else {
        format!("{value:e}")
    }
}
