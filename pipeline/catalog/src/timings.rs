//! Measures the wall-clock time of the parts of a job. The times are for users and benchmarks, and never influence
//! stored results.

use std::collections::BTreeMap;
use std::time::Instant;

/// A stopwatch for consecutive parts of a job.
#[derive(Debug)]
pub struct Timings {
    start: Instant,
    /// Wall-clock seconds of each finished part of the job.
    pub wall_s: BTreeMap<&'static str, f64>,
}

impl Timings {
    /// Starts the stopwatch and the first part.
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
            wall_s: BTreeMap::new(),
        }
    }

    /// Ends the current part, which is recorded under the name `part`, and starts the next part.
    pub fn end(&mut self, part: &'static str) {
        let now = Instant::now();
        *self.wall_s.entry(part).or_default() += (now - self.start).as_secs_f64();
        self.start = now;
    }
}
