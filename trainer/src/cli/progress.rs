//! A line on a terminal: epoch, training loss, rows a second, and the share of time that the device waited for data.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

use crate::config::Config;
use crate::run::Watch;

/// How often the line is drawn.
const TICK: Duration = Duration::from_millis(200);

/// Draws `watch` until `done`. Without a terminal it draws nothing.
pub fn draw(watch: &Watch, config: &Config, done: &AtomicBool) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{wide_bar:.green} {msg}") {
        bar.set_style(style);
    }
    let start = Instant::now();
    while !done.load(Ordering::Relaxed) {
        std::thread::sleep(TICK);
        let total = watch.batches_total.load(Ordering::Relaxed);
        bar.set_length(total);
        bar.set_position(watch.batches.load(Ordering::Relaxed));
        bar.set_message(line(watch, config.train.epochs, total, start.elapsed()));
    }
    bar.finish_and_clear();
}

fn line(watch: &Watch, epochs: u64, total: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64().max(0.001);
    let epoch = watch.epoch.load(Ordering::Relaxed);
    let rows = watch.rows.load(Ordering::Relaxed) as f64 / seconds;
    let loss = f64::from_bits(watch.loss.load(Ordering::Relaxed));
    let waited = watch.wait_ns.load(Ordering::Relaxed) as f64 / 1e9 / seconds * 100.0;
    let done = watch.steps.load(Ordering::Relaxed);
    let planned = (epochs * total).saturating_sub(watch.first_step.load(Ordering::Relaxed));
    let left =
        if done == 0 { Duration::ZERO } else { elapsed.mul_f64(planned.saturating_sub(done) as f64 / done as f64) };
    format!(
        "epoch {}/{epochs}  training loss {loss:.4}  {rows:.0} rows/s  data wait {waited:.0} %  at most {} left",
        epoch + 1,
        HumanDuration(left)
    )
}
