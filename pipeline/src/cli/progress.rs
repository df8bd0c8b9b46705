//! A progress line on a terminal: clips, rate, rejects, time left.

use std::io::IsTerminal;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressStyle};

use crate::run::Watch;

/// How often the line is drawn.
const TICK: Duration = Duration::from_millis(200);

/// Draws `watch` until `done` says so. Without a terminal it draws nothing.
pub fn draw(watch: &Watch, done: impl Fn() -> bool) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{wide_bar:.green} {msg}") {
        bar.set_style(style);
    }
    let mut started = None;
    while !done() {
        std::thread::park_timeout(TICK);
        let total = watch.clips_total.load(Ordering::Relaxed);
        if total == 0 {
            bar.set_message(match watch.clips_hashed.load(Ordering::Relaxed) {
                0 => "reading metadata".to_owned(),
                clips => format!("looking for duplicates: {clips} clips hashed"),
            });
            continue;
        }
        let start = *started.get_or_insert_with(Instant::now);
        bar.set_length(total);
        let clips = watch.counters.clips.load(Ordering::Relaxed);
        bar.set_position(clips);
        bar.set_message(line(watch, clips, total, start.elapsed()));
    }
    bar.finish_and_clear();
}

fn line(watch: &Watch, clips: u64, total: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64().max(0.001);
    let rate = clips as f64 / seconds;
    let bytes = (watch.counters.bytes.load(Ordering::Relaxed) as f64 / seconds) as u64;
    let rejects = watch.counters.rejects.load(Ordering::Relaxed);
    let left =
        if clips == 0 { Duration::ZERO } else { elapsed.mul_f64((total - clips.min(total)) as f64 / clips as f64) };
    format!(
        "{clips}/{total} clips  {rate:.1}/s  {}/s  {rejects} rejects  {} left",
        HumanBytes(bytes),
        HumanDuration(left)
    )
}
