//! How long the parts of a job take, by the wall clock. For people and benches: nothing stored is made of it.

use std::collections::BTreeMap;
use std::time::Instant;

/// A stopwatch for parts that follow one another.
#[derive(Debug)]
pub struct Laps {
    start: Instant,
    /// Seconds by part.
    pub wall_s: BTreeMap<&'static str, f64>,
}

impl Laps {
    /// The first part starts now.
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
            wall_s: BTreeMap::new(),
        }
    }

    /// `part` ends here, and the next one starts.
    pub fn end(&mut self, part: &'static str) {
        let now = Instant::now();
        *self.wall_s.entry(part).or_default() += (now - self.start).as_secs_f64();
        self.start = now;
    }
}
