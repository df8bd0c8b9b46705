//! Learning curves: loss and scores by epoch, learning rate and loss by step, time per epoch, and time spent waiting
//! for data.

use wavemill_pages::{Cell, Chart, Line, Lines, Plot, Section, Span, Table, fraction, seconds};
use wavemill_scores::records::{Entry, PROFILE_OTHERS, PROFILE_PARTS};

use super::RunRecord;

/// Maximum number of points of a curve over steps.
const POINTS_MAX: usize = 240;

/// Log values that share one chart on the page of a single run: the title of the chart, its measure, and for each value
/// its key in the log and the name of its line.
type Group = (&'static str, &'static str, &'static [[&'static str; 2]]);

const LOSSES: &[[&str; 2]] = &[
    ["training/loss", "training"],
    ["validation/loss", "validation"],
];
const ACCURACIES: &[[&str; 2]] = &[
    ["training/accuracy", "training"],
    ["validation/accuracy", "validation"],
];
const GROUPS: [Group; 3] = [
    ("Loss", "loss", LOSSES),
    ("Accuracy", "accuracy", ACCURACIES),
    (
        "Macro F1",
        "macro F1",
        &[["validation/macro_f1", "validation"]],
    ),
];

pub(super) fn section(runs: &[RunRecord]) -> Section {
    let mut section = Section::new("Learning curves");
    let mut charts = Vec::new();
    for group in GROUPS {
        charts.extend(by_epoch(runs, group));
    }
    charts.extend(chart(
        "Learning rate",
        "",
        lines(runs, "step", "learning rate", rates),
    ));
    charts.extend(chart(
        "Training loss per step",
        "The line is the mean of neighbouring steps, and the shaded area is their range.",
        lines(runs, "step", "loss", losses),
    ));
    if charts.is_empty() {
        section.add_text("The log contains no completed epoch.");
        return section;
    }

    section.add_text(
        "Training scores are computed with dropout and augmentation, validation scores without them. The loss depends \
         on class weights and label smoothing: compare it only between runs with the same configuration.",
    );
    section.add_charts(charts);
    add_times(&mut section, runs);
    section
}

/// Returns the charts of a group by epoch: one chart for a single run; for several runs, one chart per log value.
fn by_epoch(runs: &[RunRecord], (title, measured, curves): Group) -> Vec<Chart> {
    if let [run] = runs {
        let lines = curves.iter();
        let lines = lines.map(|[key, name]| Line::new(*name, points(run, key)));
        let found = Lines::new("epoch", measured, lines.collect());
        let charts = chart(title, &best_epoch(run), found);
        return charts.into_iter().collect();
    }

    let mut charts = Vec::new();
    for [key, name] in curves {
        let title = format!("{title}, {name}");
        let found = lines(runs, "epoch", measured, |run| {
            Line::new("", points(run, key))
        });
        charts.extend(chart(&title, "", found));
    }
    charts
}

fn best_epoch(run: &RunRecord) -> String {
    let best = run.result.as_ref().and_then(|result| result.best_epoch);
    best.map_or(String::new(), |epoch| {
        format!("The weights of epoch {} were kept.", epoch + 1)
    })
}

/// Returns one line for each run whose line has points.
fn lines(
    runs: &[RunRecord],
    along: &str,
    measured: &str,
    line_of: impl Fn(&RunRecord) -> Line,
) -> Lines {
    let lines = runs.iter().map(|run| Line {
        name: run.name.clone(),
        ..line_of(run)
    });
    Lines::new(along, measured, lines.collect())
}

/// Returns a chart with the lines `lines`, or `None` if there are no lines.
fn chart(title: &str, note: &str, lines: Lines) -> Option<Chart> {
    let has_lines = !lines.lines.is_empty();
    has_lines.then(|| Chart::new(title, note, Plot::Lines(lines)))
}

/// Returns the log value `key` at the end of each epoch. Epochs on the page begin at 1.
fn points(run: &RunRecord, key: &str) -> Vec<(f64, f64)> {
    let values = run.epochs().filter_map(|entry| {
        let value = entry.values.get(key)?;
        Some(((entry.epoch + 1) as f64, *value))
    });
    values.collect()
}

/// Returns the log value `key` at each step.
fn values_by_step(run: &RunRecord, key: &str) -> Vec<(f64, f64)> {
    let steps = run.log.iter().filter(|entry| entry.kind == "step");
    steps
        .filter_map(|entry| Some((entry.step as f64, *entry.values.get(key)?)))
        .collect()
}

/// Returns the learning rate at evenly spaced steps and at the last step.
fn rates(run: &RunRecord) -> Line {
    let all = values_by_step(run, "lr");
    let every = all.len().div_ceil(POINTS_MAX).max(1);
    let mut points: Vec<(f64, f64)> = all.iter().copied().step_by(every).collect();

    // Include the last step, because it shows where the schedule ended.
    if let Some(&last) = all.last()
        && points.last() != Some(&last)
    {
        points.push(last);
    }
    Line::new("", points)
}

/// Returns the mean and range of the loss over groups of neighbouring steps.
fn losses(run: &RunRecord) -> Line {
    let all = values_by_step(run, "loss");
    // Groups contain more steps in longer runs, so that the number of points is limited.
    let together = all.len().div_ceil(POINTS_MAX).max(1);

    let mut line = Line::default();
    for steps in all.chunks(together) {
        let mut sum = 0.0;
        let mut low = f64::INFINITY;
        let mut high = f64::NEG_INFINITY;

        for &(_, loss) in steps {
            sum += loss;
            low = low.min(loss);
            high = high.max(loss);
        }

        let (step, _) = steps[steps.len() - 1];
        line.points.push((step, sum / steps.len() as f64));
        line.spread.push(Span { low, high });
    }

    // A group of a single step has no range, so no range is drawn.
    if together == 1 {
        line.spread.clear();
    }
    line
}

/// Elapsed time of an epoch, and the part of that time in which training waited for rows.
struct EpochTime {
    epoch: f64,
    time_s: f64,
    wait_s: f64,
}

/// Returns the times of all epochs whose beginning is in the log: the end of the previous epoch, or a start of the run.
fn times(run: &RunRecord) -> Vec<EpochTime> {
    let mut times = Vec::new();
    let mut since: Option<&Entry> = None;
    for entry in &run.log {
        // The pause between two processes of the run is not part of an epoch's time.
        if entry.kind == "start" {
            since = Some(entry);
        }

        if entry.kind != "epoch" {
            continue;
        }

        if let (Some(since), Some(wait_s)) = (since, entry.values.get("data_wait_s")) {
            times.push(EpochTime {
                epoch: (entry.epoch + 1) as f64,
                time_s: (entry.unix_s - since.unix_s).max(0.0),
                wait_s: *wait_s,
            });
        }
        since = Some(entry);
    }
    times
}

fn add_times(section: &mut Section, runs: &[RunRecord]) {
    let whole = lines(runs, "epoch", "time (s)", |run| {
        line_of_times(run, |of| of.time_s)
    });
    let waiting = lines(runs, "epoch", "data loading (s)", |run| {
        line_of_times(run, |of| of.wait_s)
    });
    let mut charts = Vec::new();
    charts.extend(chart(
        "Time per epoch",
        "Wall-clock time, including validation.",
        whole,
    ));
    charts.extend(chart(
        "Data loading time",
        "Time in which training waited for rows and the device was idle. Increase --readers or --prefetch-batches to \
         reduce it.",
        waiting,
    ));
    section.add_charts(charts);

    let timed = runs.iter().map(|run| (run, times(run)));
    let timed = timed.filter(|(_, times)| !times.is_empty());
    let time_s = |times: &[EpochTime]| times.iter().map(|of| of.time_s).sum::<f64>();
    let wait_s = |times: &[EpochTime]| times.iter().map(|of| of.wait_s).sum::<f64>();
    section.add_table(Table::of(
        "Total time of all epochs, including validation",
        timed,
        &[
            ("run", &|(run, _)| run.name.as_str().into()),
            ("epochs", &|(_, times)| (times.len() as u64).into()),
            ("time", &|(_, times)| Cell::Measure(seconds(time_s(times)))),
            ("data loading", &|(_, times)| {
                Cell::Measure(seconds(wait_s(times)))
            }),
            // Convert seconds to milliseconds, because `fraction` takes integers.
            ("share of time", &|(_, times)| {
                let [part, whole] = [wait_s(times), time_s(times)].map(|s| (s * 1e3) as u64);
                Cell::Measure(fraction(part, whole))
            }),
        ],
    ));
    for profile in runs.iter().filter_map(profile) {
        section.add_table(profile);
    }
}

/// Builds the table of the parts of training, if `fit --profile` measured them.
fn profile(run: &RunRecord) -> Option<Table> {
    let entry = run.log.iter().rfind(|entry| entry.kind == "profile")?;
    let n_steps = entry.values.get("steps").copied().unwrap_or_default();
    let value = |name: &str| entry.values.get(name).copied().unwrap_or_default();
    let (of_step, others) = PROFILE_PARTS.split_at(PROFILE_PARTS.len() - PROFILE_OTHERS);
    let all_s: f64 = of_step.iter().map(|name| value(name)).sum();

    let caption = format!("{}: parts of training, {n_steps} steps measured", run.name);
    let mut table = Table::new(
        &caption,
        &["part", "ms per step", "share of a step", "time"],
    );
    for name in of_step {
        let part_s = value(name);
        table.rows.push(vec![
            (*name).into(),
            Cell::Measure(format!("{:.2}", 1e3 * part_s / n_steps.max(1.0))),
            Cell::Measure(fraction((part_s * 1e6) as u64, (all_s * 1e6) as u64)),
            Cell::Measure(seconds(part_s)),
        ]);
    }
    for name in others {
        let time = Cell::Measure(seconds(value(name)));
        table
            .rows
            .push(vec![(*name).into(), Cell::None, Cell::None, time]);
    }
    Some(table)
}

fn line_of_times(run: &RunRecord, value: impl Fn(&EpochTime) -> f64) -> Line {
    let times = times(run);
    Line::new("", times.iter().map(|of| (of.epoch, value(of))).collect())
}
