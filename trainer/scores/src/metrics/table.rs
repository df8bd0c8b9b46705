//! Formats scores as text for a terminal: totals with their intervals, then one line per class, at most 100 columns.
//! Undefined totals are left out; reports explain why.
//!
//! Other values that are conventions and not measurements are shown as `-`: precision and F1 of a class that was never
//! predicted, recall of a class without rows, undefined ranking scores. Programs should read `result.json` instead of
//! the tables.

use wavemill_schemas::run::{
    Bootstrap, ClassReport, Draws, Evaluation, Interval, Level, Noun, Report, RunResult,
    SUPPORTED_TRACKS_MIN, SetReport, Unit,
};
use wavemill_schemas::text::{counted, shown};

use super::THRESHOLD;
use super::bootstrap::{Difference, Paired};

/// Width of the column with class names, in characters.
const NAME: usize = 26;
/// Width in characters of the column with the class that a class is most often mistaken for.
const TAKEN: usize = 20;

/// Label of [`Evaluation::loss`] in the table: the loss minimized in training, which depends on the configuration.
const TRAINING_LOSS: &str =
    "loss (training objective, with the configured class weights and label smoothing):";
/// Label of [`Level::log_loss`] in the table: it is comparable between configurations.
const LOG_LOSS: &str = "log loss (rows weighted equally)";

/// Pads or cuts `text`, which may be a name from the data, to `width` characters; cut text ends with `…`.
fn fit(text: &str, width: usize) -> String {
    let text = shown(text);
    // Count characters and not bytes, since names may contain non-ASCII letters.
    if text.chars().count() <= width {
        return format!("{text:<width$}");
    }
    text.chars().take(width - 1).chain(['…']).collect()
}

/// Formats a score, or `-` if the score is undefined.
fn score(value: f64, is_there: bool) -> String {
    if is_there {
        format!("{value:.3}")
    } else {
        "-".to_owned()
    }
}

/// Formats the table of a target with one class per row: totals and classes.
fn class_table(report: &ClassReport, bootstrap: Option<&Bootstrap>, noun: Noun) -> String {
    let mut out = String::new();
    let macro_mean = &report.macro_mean;
    let few = format!(
        "macro F1, {} of {SUPPORTED_TRACKS_MIN}+ {}",
        counted(report.supported_classes, "class"),
        noun.many()
    );
    let totals = [
        ("accuracy", Some(report.accuracy), "accuracy"),
        (
            "balanced accuracy",
            Some(report.balanced_accuracy),
            "balanced_accuracy",
        ),
        ("macro F1", Some(macro_mean.f1), "macro_f1"),
        (&few, report.macro_f1_supported, ""),
        ("macro precision", Some(macro_mean.precision), ""),
        ("macro recall", Some(macro_mean.recall), ""),
        ("weighted F1", Some(report.weighted_mean.f1), ""),
        ("top 3", report.top_3, ""),
    ];
    for (name, value, figure) in totals {
        total(&mut out, name, value, bootstrap, figure);
    }
    out.push('\n');

    line(&mut out, "class", &head(noun), "most confused with");
    for (place, class) in report.classes.iter().enumerate() {
        let predicted = !class.never_predicted;
        let cells = [
            class.tracks.to_string(),
            class.support.to_string(),
            score(class.precision, predicted),
            score(class.recall, class.support > 0),
            score(class.f1, predicted),
        ];
        let taken_for = report.most_confused_with(place).map(|(other, n)| {
            let percent = 100.0 * n as f64 / class.support as f64;
            format!("{} {percent:>4.0} %", fit(&other.name, TAKEN))
        });
        line(
            &mut out,
            &class.name,
            &cells,
            &taken_for.unwrap_or_default(),
        );
    }

    if report.classes.iter().any(|class| class.never_predicted) {
        out.push_str("- : never predicted (or no such row); counted as 0 in the means\n");
    }
    footer(&mut out, report.unlabelled, bootstrap, noun);
    out
}

/// Formats the table of a target with several labels per row: totals and classes.
fn set_table(report: &SetReport, bootstrap: Option<&Bootstrap>, noun: Noun) -> String {
    let mut out = String::new();
    let auc = format!("macro ROC-AUC, {}", counted(report.ranked_classes, "class"));
    let totals = [
        (auc.as_str(), report.roc_auc_macro, "roc_auc_macro"),
        ("micro ROC-AUC", report.roc_auc_micro, ""),
        (
            "macro average precision",
            report.average_precision_macro,
            "",
        ),
        (
            "micro average precision",
            report.average_precision_micro,
            "",
        ),
        ("macro F1", Some(report.f1_macro), "f1_macro"),
        ("micro F1", Some(report.f1_micro), "f1_micro"),
        ("exact match", Some(report.exact_match), "exact_match"),
    ];
    for (name, value, figure) in totals {
        total(&mut out, name, value, bootstrap, figure);
    }
    out.push('\n');

    line(&mut out, "class", &head(noun), "  roc auc  avg prec");
    for class in &report.classes {
        let predicted = !class.never_predicted;
        let cells = [
            class.tracks.to_string(),
            class.support.to_string(),
            score(class.precision, predicted),
            score(class.recall, class.support > 0),
            score(class.f1, predicted),
        ];
        let [auc, precision] = [class.roc_auc, class.average_precision]
            .map(|value| score(value.unwrap_or_default(), value.is_some()));
        line(
            &mut out,
            &class.name,
            &cells,
            &format!("{auc:>9} {precision:>9}"),
        );
    }

    legend(&mut out, report, noun);
    footer(&mut out, report.unlabelled, bootstrap, noun);
    out
}

/// Writes the numbers of rows and tracks of a target with several labels per row, and an explanation of the table's
/// columns.
fn legend(out: &mut String, report: &SetReport, noun: Noun) {
    let SetReport {
        rows,
        tracks,
        classes,
        ..
    } = report;
    let labels: u64 = classes.iter().map(|class| class.support).sum();
    let labels_a_row = labels as f64 / *rows as f64;
    let n_classes = classes.len();

    *out += &format!(
        "{rows} rows of {tracks} {}, {n_classes} classes, {labels_a_row:.2} labels per row\n",
        noun.many()
    );
    *out += &format!(
        "precision, recall, f1, exact match: predicted labels have a probability of at least {THRESHOLD:?}\n"
    );
    out.push_str(
        "roc auc, avg prec: by ranking of probabilities; macro: mean over classes, micro: pooled labels\n",
    );
    out.push_str("- : never predicted (0 in the means), or no rows both with and without it (not in the means)\n");
}

/// Formats the scores of two models next to each other, and the differences between them. `noun` is the word for a
/// clip.
pub fn paired_table(paired: &Paired, names: [&str; 2], noun: Noun) -> String {
    let mut out = format!(
        "{:<NAME$}{:>14} {:>14}   {:<26}\n",
        "",
        fit(names[0], 14).trim_end(),
        fit(names[1], 14).trim_end(),
        "difference, 95 %"
    );

    for (figure, Difference { a, b, difference }) in &paired.differences {
        let Interval { value, low, high } = *difference;
        // An interval that contains 0 does not show which model is better.
        let unsure = if low <= 0.0 && high >= 0.0 {
            "  may be chance"
        } else {
            ""
        };

        let text = figure.replace('_', " ");
        out += &format!(
            "{text:<NAME$}{a:>14.4} {b:>14.4}   {value:+.4} [{low:+.4}, {high:+.4}]{unsure}\n"
        );
    }
    out + &describe_draws(&paired.draws, noun)
}

/// Returns the headings of the columns in the tables of both kinds of targets.
fn head(noun: Noun) -> [String; 5] {
    [noun.many(), "rows", "precision", "recall", "f1"].map(str::to_owned)
}

/// Writes the table's line for one class, or its heading.
fn line(out: &mut String, name: &str, cells: &[String; 5], last: &str) {
    let [clips, rows, precision, recall, f1] = cells;
    let line = format!(
        "{} {clips:>8} {rows:>7} {precision:>10} {recall:>7} {f1:>6}  {last}",
        fit(name, NAME)
    );
    *out += line.trim_end();
    out.push('\n');
}

/// Writes one score if it is defined, with the bootstrap interval named `figure` if it exists and is wider than a point.
fn total(
    out: &mut String,
    name: &str,
    value: Option<f64>,
    bootstrap: Option<&Bootstrap>,
    figure: &str,
) {
    let Some(value) = value else { return };
    let interval = bootstrap.and_then(|bootstrap| bootstrap.intervals.get(figure));
    let interval = interval.filter(|interval| interval.low < interval.high);
    let interval = interval.map_or(String::new(), |i| {
        format!("  [{:.4}, {:.4}]", i.low, i.high)
    });
    *out += &format!("{name:<34} {value:>7.4}{interval}\n");
}

fn footer(out: &mut String, unlabelled: u64, bootstrap: Option<&Bootstrap>, noun: Noun) {
    if unlabelled > 0 {
        *out += &format!("excluded: {} without a label\n", counted(unlabelled, "row"));
    }
    let mut intervals = bootstrap.iter().flat_map(|of| of.intervals.values());
    if intervals.any(|interval| interval.low < interval.high) {
        *out += &bootstrap.map_or(String::new(), |of| describe_draws(&of.draws, noun));
    }
}

/// Describes the units (artists or tracks) that the bootstrap intervals are based on.
fn describe_draws(draws: &Draws, noun: Noun) -> String {
    let Draws {
        units,
        tracks,
        tracks_without_artist,
        resamples,
        ..
    } = draws;

    let clips = noun.many();
    let what = match draws.unit {
        Unit::Track => format!("{units} {clips}"),
        Unit::Artist if *tracks_without_artist == 0 => {
            format!("{units} artists of {tracks} {clips}")
        }
        Unit::Artist => {
            format!(
                "{} artists and {tracks_without_artist} {clips} without one",
                units - tracks_without_artist
            )
        }
    };
    format!("[95 % CI from {resamples} resamples of {what}]\n")
}

/// Formats the scores of rows or of clips.
fn level_table(level: &Level, noun: Noun) -> String {
    let bootstrap = level.bootstrap.as_ref();
    let mut out = match &level.report {
        Report::Single(report) => class_table(report, bootstrap, noun),
        Report::Multi(report) => set_table(report, bootstrap, noun),
    };
    if let Some(loss) = level.log_loss {
        out += &format!("{LOG_LOSS:<34} {loss:>7.4}\n");
    }
    out
}

/// Formats all scores of a target on a split.
pub fn evaluation_table(evaluation: &Evaluation) -> String {
    let leaks = &evaluation.leaks;
    let mut out = format!("{} on {}\n", evaluation.target, leaks.split);
    for text in wrapped(&leaks.sentence(), 100) {
        out += &(text + "\n");
    }
    out.push('\n');

    // If each track has one row, the table of rows is also that of tracks.
    let noun = leaks.noun;
    if let (Some(mean), Some(majority)) = (&evaluation.tracks_mean, &evaluation.tracks_majority) {
        let one = noun.one();
        let mean = level_table(mean, noun);
        let majority = level_table(majority, noun);
        out += &format!("per {one}, by the mean probability of its segments\n{mean}\n");
        out += &format!("per {one}, by the majority vote of its segments\n{majority}\n");
        out.push_str("per segment\n");
    }
    out += &level_table(&evaluation.segments, noun);
    if let Some(loss) = evaluation.loss {
        out += &format!("{TRAINING_LOSS} {loss:.4}\n");
    }
    out
}

/// Formats the result of a run, with its scores on the test split.
pub fn run_table(result: &RunResult) -> String {
    let best_epoch = result.best_epoch.map(|epoch| (epoch + 1).to_string());
    let mut out = format!(
        "{} ({} parameters, {}), {}, {}; weights of epoch {}\n",
        result.model,
        result.parameters,
        result.start,
        counted(result.epochs, "epoch"),
        counted(result.steps, "step"),
        best_epoch.as_deref().unwrap_or("-")
    );

    for (temperature, evaluation) in result.temperatures.iter().zip(&result.validation) {
        out += &format!("{}: temperature {temperature:.3}\n", evaluation.target);
    }
    for warning in &result.warnings {
        out += &format!("note: {}\n", shown(warning));
    }
    for evaluation in &result.test {
        out += &format!("\n{}\n", evaluation_table(evaluation));
    }
    out
}

/// Wraps text between words into lines of at most `width` columns.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last().map_or(0, |line| line.chars().count());
        // The first word of a line is never wrapped, even if it is too long: otherwise an empty line would precede it.
        match lines.last_mut() {
            Some(line) if last == 0 => line.push_str(word),
            Some(line) if last + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::multilabel::tests::sets;
    use super::super::predictions::Predictions;
    use super::super::predictions::tests::single;
    use super::super::{Label, Row, class_report, count_leaks, paired, score_rows, score_split};
    use super::*;
    use std::sync::atomic::AtomicBool;
    use wavemill_schemas::recipe::SplitRule;
    use wavemill_schemas::split::Split;

    fn widest(text: &str) -> usize {
        text.lines()
            .map(|line| line.chars().count())
            .max()
            .unwrap_or(0)
    }

    #[test]
    fn class_names_are_escaped_for_the_terminal() {
        assert_eq!(fit("a\u{1b}[2Jb", 13), "a\\u{1b}[2Jb  ");
        assert_eq!(fit("\u{202e}kcoR", 26).trim_end(), "\\u{202e}kcoR");
    }

    #[test]
    fn no_line_is_wider_than_a_hundred_columns_and_columns_are_aligned() {
        /// Returns the column after the last occurrence of a word.
        fn column(line: &str, word: &str) -> usize {
            let rest = line.split(word).last();
            line.chars().count() - rest.map_or(0, |rest| rest.chars().count())
        }

        let classes = [
            "Old-Time / Historic pieces of long ago",
            "Электронная музыка и прочие шумы разных лет",
            "Jazz",
        ]
        .map(str::to_owned);

        let mut predictions = Predictions::single("genre", &classes);
        for i in 0..24_u64 {
            let probabilities = if i % 4 == 0 {
                [0.2, 0.7, 0.1]
            } else {
                [0.7, 0.2, 0.1]
            };
            let label = Label::Class(i as usize % 3);
            let row = Row {
                index: i,
                clip_key: "c",
                segment: (i % 2) as i32,
                track_id: 1_000_000 + i as i64 / 2 * 3 + (i % 3) as i64,
                artist_id: Some(i as i64 / 6),
                label,
                probabilities: &probabilities,
            };
            predictions.push(&row).unwrap();
        }

        let leaks = count_leaks(SplitRule::Segment, Split::Validation, [], []);
        let text = evaluation_table(&score_split(&predictions, 1, leaks).unwrap());
        assert!(widest(&text) <= 100, "{}\n{text}", widest(&text));

        let head = text.lines().find(|line| line.starts_with("class")).unwrap();
        let jazz = text.lines().find(|line| line.starts_with("Jazz")).unwrap();
        assert_eq!(
            column(head, "precision"),
            column(&jazz.replacen('-', "@", 1), "@"),
            "{head}\n{jazz}"
        );

        assert!(text.contains("Old-Time / Historic piece… "), "{text}");
        assert!(
            text.contains(LOG_LOSS) && !text.contains(TRAINING_LOSS),
            "{text}"
        );

        predictions.add_loss(3.0, 2.0);
        let leaks = count_leaks(SplitRule::Segment, Split::Validation, [], []);
        let text = evaluation_table(&score_split(&predictions, 1, leaks).unwrap());
        assert!(
            text.contains(&format!("{TRAINING_LOSS} 1.5000\n")) && widest(&text) <= 100,
            "{text}"
        );
        assert!(text.contains("Электронная музыка …"), "{text}");
    }

    #[test]
    fn a_class_never_predicted_has_dashes_and_a_note() {
        let predictions = single(&[(1, None, 0, &[0.9, 0.1]), (2, None, 1, &[0.8, 0.2])]);
        let table = class_table(&class_report(&predictions).unwrap(), None, Noun::Picture);

        let line = table
            .lines()
            .find(|line| line.starts_with("class 1"))
            .unwrap();
        let cells: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(
            cells,
            [
                "class", "1", "1", "1", "-", "0.000", "-", "class", "0", "100", "%"
            ]
        );

        let totals = "accuracy                            0.5000\nbalanced accuracy                   0.5000\n";
        assert!(table.starts_with(totals), "{table}");
        assert!(
            table.ends_with("- : never predicted (or no such row); counted as 0 in the means\n")
        );
    }

    #[test]
    fn an_interval_of_one_point_is_not_shown() {
        let all_right = single(&[
            (1, Some(1), 0, &[0.9, 0.1]),
            (2, Some(2), 1, &[0.1, 0.9]),
            (3, Some(3), 0, &[0.8, 0.2]),
        ]);
        let report = class_report(&all_right).unwrap();
        let bootstrap = super::super::bootstrap(&all_right, 1, &AtomicBool::new(false)).unwrap();
        assert!(bootstrap.is_some());

        let table = class_table(&report, bootstrap.as_ref(), Noun::Track);
        let accuracy = "accuracy                            1.0000\n";
        assert!(
            table.starts_with(accuracy) && !table.contains('['),
            "{table}"
        );
    }

    #[test]
    fn sets_and_pairs_have_tables_too() {
        let a = sets(&[
            (Some(&[true, false]), &[0.9, 0.1]),
            (Some(&[false, false]), &[0.3, 0.2]),
            (None, &[0.0, 0.0]),
        ]);
        let b = sets(&[
            (Some(&[true, false]), &[0.2, 0.1]),
            (Some(&[false, false]), &[0.3, 0.2]),
        ]);

        let level = Level {
            report: score_rows(&a).unwrap(),
            log_loss: None,
            bootstrap: super::super::bootstrap(&a, 1, &AtomicBool::new(false)).unwrap(),
        };
        let table = level_table(&level, Noun::Track);

        assert!(
            table.starts_with("macro ROC-AUC, 1 class              1.0000\n")
                && !table.contains("no intervals"),
            "{table}"
        );
        assert!(
            table.contains("excluded: 1 row without a label")
                && table.contains("resamples of 2 tracks]"),
            "{table}"
        );

        let pair = paired_table(
            &paired(&a, &b, 1).unwrap().unwrap(),
            ["crnn", "a-model-with-a-very-long-name"],
            Noun::Track,
        );
        assert!(
            pair.contains("a-model-with-…") && pair.contains("exact match"),
            "{pair}"
        );

        assert!(
            table.contains("2 rows of 2 tracks, 2 classes, 0.50 labels per row"),
            "{table}"
        );
        assert!(
            table.contains("a probability of at least 0.5\n")
                && table.contains("- : never predicted"),
            "{table}"
        );
        for text in [table, pair] {
            assert!(widest(&text) <= 100, "{text}");
        }
    }
}
