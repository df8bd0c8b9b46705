//! Timing of work on a device: after a warm-up that raises the clock rates, and by the median, which one slow round
//! does not change.

use std::time::{Duration, Instant};

/// Duration of the warm-up. An idle GPU's clock rate is a fifth of a busy one's and takes part of a second to rise.
pub const WARM_UP: Duration = Duration::from_secs(1);

/// Repeats `work` for [`WARM_UP`], at least once. Errors: those of `work`.
pub fn warm_up<E>(work: impl FnMut() -> Result<(), E>) -> Result<(), E> {
    repeat_for(WARM_UP, work)
}

fn repeat_for<E>(least: Duration, mut work: impl FnMut() -> Result<(), E>) -> Result<(), E> {
    let start = Instant::now();
    loop {
        work()?;
        if start.elapsed() >= least {
            return Ok(());
        }
    }
}

/// Returns the wall-clock seconds of `work`: the median of `rounds`, after a warm-up. Errors: those of `work`.
pub fn median_s<E>(rounds: usize, mut work: impl FnMut() -> Result<(), E>) -> Result<f64, E> {
    warm_up(&mut work)?;
    let mut seconds = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let start = Instant::now();
        work()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    Ok(median(&mut seconds))
}

/// Returns the median: the middle value, or the mean of the two middle values; 0 if there are no values.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        count if count % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slow_round_does_not_move_the_median() {
        assert_eq!(median(&mut [3.0, 1.0, 900.0]), 3.0);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 900.0]), 3.0);
        assert_eq!(median(&mut []), 0.0);
    }

    /// Simulates work that takes longer at the beginning, as on a GPU with a low clock rate.
    #[test]
    fn warm_up_rounds_do_not_count() {
        let start = Instant::now();
        let seconds = median_s(20, || {
            let is_cold = start.elapsed() < WARM_UP / 2;
            std::thread::sleep(Duration::from_millis(if is_cold { 100 } else { 1 }));
            Ok::<(), ()>(())
        })
        .unwrap();
        assert!(seconds < 0.05, "{seconds} s: of cold rounds");
    }

    #[test]
    fn failed_work_ends_the_measurement() {
        let mut left = 3;
        let result = repeat_for(WARM_UP, || {
            left -= 1;
            if left > 0 { Ok(()) } else { Err("over") }
        });
        assert_eq!(result, Err("over"));
    }
}
