//! `wavemill train report`: the page shows the content of the runs' folders, lists missing files, and loads nothing
//! else.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::Value;
use wavemill_tests::Failed;

use crate::report::{about, browser, drawings, has_browser, loads_nothing, quiet_visit};
use crate::rows::trained;
use crate::support::{
    Ran, argv, contains, copy_folder, files_below, fit, has_trainer, lacks, run, run_in, same,
    scratch, trainer, whole, within,
};

/// Sections of a page about one run.
const SECTIONS: [&str; 9] = [
    "Run",
    "Learning curves",
    "Scores",
    "Confusion matrix",
    "Scores per class",
    "Calibration",
    "Embedding map",
    "Misclassified tracks",
    "Configuration",
];

/// Largest size of a page about two small runs.
const PAGE_BYTES_MAX: usize = 2 << 20;

/// Copies a trained run to a new folder. The copy does not contain the files that `eval` writes.
fn own_run(name: &str) -> PathBuf {
    let run = scratch(name).join("first");
    copy_folder(trained(), &run);
    run
}

/// Runs `eval` on a run's test rows and writes its files to the run's folder.
fn evaluate(folder: &Path) -> Result<(), Failed> {
    let mut command = trainer(["eval", "--device", "cpu", "--threads", "1"]);
    command
        .arg(folder)
        .arg("--predictions")
        .arg(folder.join("predictions.parquet"))
        .arg("--map")
        .arg(folder.join("map.parquet"));
    run(&mut command).exits(0)?;
    Ok(())
}

/// Returns two runs with all files. Tests must not change them.
fn two_runs() -> Result<&'static [PathBuf; 2], Failed> {
    static RUNS: OnceLock<Result<[PathBuf; 2], String>> = OnceLock::new();
    let runs = RUNS.get_or_init(|| make_two_runs().map_err(|error| format!("{error:?}")));
    runs.as_ref().map_err(|error| error.clone().into())
}

fn make_two_runs() -> Result<[PathBuf; 2], Failed> {
    let first = own_run("report-runs");

    let runs = scratch("report-other");
    let mut command = fit(whole(), &runs);
    command.args(argv(
        "--set model.name=lstm --set data.frames=16 --set data.batch_size=4 \
         --set train.epochs=1 --set seed=3",
    ));
    run(&mut command).exits(0)?;

    let second = run_in(&runs)?;
    for folder in [&first, &second] {
        evaluate(folder)?;
    }
    Ok([first, second])
}

fn report(runs: &[PathBuf], out: &Path, words: &[&str]) -> Ran {
    let mut command = trainer(["report"]);
    command.args(runs).arg("--out").arg(out).args(words);
    run(&mut command)
}

/// Writes a page, and returns the JSON summary and the page.
fn page(runs: &[PathBuf], out: &Path, words: &[&str]) -> Result<(Value, String), Failed> {
    let all = [words, &["--json"]].concat();
    let ran = report(runs, out, &all).exits(0)?;
    Ok((serde_json::from_str(&ran.out)?, fs::read_to_string(out)?))
}

fn texts(values: &Value) -> Vec<&str> {
    let values = values.as_array().into_iter().flatten();
    values.filter_map(Value::as_str).collect()
}

#[apply(trial)]
#[needs(has_trainer)]
fn describes_contents_and_missing_parts_of_a_run() -> Result<(), Failed> {
    let folder = own_run("report-run");
    let out = folder.with_file_name("page.html");
    let runs = [folder.clone()];
    let (written, html) = page(&runs, &out, &[])?;

    same("sections", texts(&written["sections"]), SECTIONS.to_vec())?;
    same("bytes", written["bytes"].as_u64(), Some(html.len() as u64))?;
    loads_nothing(&html)?;
    for file in ["predictions.parquet", "map.parquet"] {
        contains(&html, &format!("first: {file} not found."))?;
    }

    // The page contains the scores in the run's `result.json`.
    let mut result: Value = serde_json::from_str(&fs::read_to_string(folder.join("result.json"))?)?;
    result
        .as_object_mut()
        .ok_or("an object")?
        .remove("blake3")
        .ok_or("a checksum")?;
    same("result", &about(&html)?["results"][0], &result)?;

    let accuracy = result["test"][0]["segments"]["report"]["accuracy"].as_f64();
    let accuracy = accuracy.ok_or("no accuracy")?;
    contains(&html, &format!("<strong>{accuracy:.3}</strong>"))?;

    let interval = &result["test"][0]["segments"]["bootstrap"]["intervals"]["accuracy"];
    let [value, low, high] =
        ["value", "low", "high"].map(|key| interval[key].as_f64().unwrap_or(f64::NAN));
    contains(&html, &format!("{value:.3} [{low:.3}, {high:.3}]"))?;

    // With the files of `eval`, the page lists nothing as missing.
    evaluate(&folder)?;
    let (_, html) = page(&runs, &out, &[])?;
    loads_nothing(&html)?;
    for words in [
        "parquet not found",
        "Titles and artists are not available",
        "cannot be drawn",
    ] {
        lacks(&html, words)?;
    }
    contains(&html, "type=\"radio\"")?;
    contains(&html, "Computed by t-SNE with perplexity ")?;

    // The title of each point of the map states whether its prediction is correct. Artists come from the store.
    lacks(&html, "h0\"/>")?;
    let points = html.matches("h0\"><title>").count();
    within("points", points, 1..)?;

    let mut verdicts = 0;
    let mut artists = 0;
    for point in html.split("h0\"><title>").skip(1) {
        let words = point.split("</title>").next().unwrap_or_default();
        let has_verdict = words.contains(", correct: ") || words.contains(", predicted as ");
        verdicts += usize::from(has_verdict);
        artists += usize::from(words.contains(" – "));
    }
    same("points with a verdict", verdicts, points)?;
    within("points with an artist", artists, 1..)?;

    contains(&html, "reliability diagram")?;
    same(
        "a table for each chart",
        html.matches("<summary>Numbers</summary>").count(),
        drawings(&html),
    )?;

    // The same run gives the same page.
    let again = out.with_file_name("again.html");
    same("again", page(&runs, &again, &[])?.1 == html, true)
}

#[apply(trial)]
#[needs(has_trainer)]
fn two_runs_are_on_common_axes() -> Result<(), Failed> {
    let runs = two_runs()?;
    let folder = scratch("report-two");
    let out = folder.join("page.html");
    let plots = folder.join("deep/plots");
    let words = ["--plots", plots.to_str().ok_or("no text")?];
    let (written, html) = page(runs, &out, &words)?;

    within("too large", html.len(), ..=PAGE_BYTES_MAX)?;
    loads_nothing(&html)?;
    same("runs", texts(&written["runs"]).len(), 2)?;
    let has_differences = texts(&written["sections"]).contains(&"Differences");
    same("differences", has_differences, true)?;

    for words in [
        "Loss, validation",
        "Differences between the runs",
        "train.epochs",
        "seed",
    ] {
        contains(&html, words)?;
    }

    // `eval --against` reports the same confidence intervals for these two runs.
    let mut against = trainer(["eval", "--device", "cpu", "--threads", "1", "--json"]);
    let ran = run(against.arg(&runs[0]).arg("--against").arg(&runs[1])).exits(0)?;
    let paired = ran.out.lines().last().ok_or("no comparison")?;
    let paired: Value = serde_json::from_str(paired)?;

    let difference = &paired["differences"]["accuracy"]["difference"];
    let [low, high] = ["low", "high"].map(|key| difference[key].as_f64().unwrap_or(f64::NAN));
    let interval = format!("{low:+.3} to {high:+.3}").replace('-', "−");
    contains(&html, &interval)?;

    // Each chart of the page is also written to a separate SVG file.
    let files = files_below(&plots);
    same("files", files.len(), drawings(&html))?;
    same("told", texts(&written["plots"]).len(), files.len())?;
    for file in files {
        let svg = fs::read_to_string(plots.join(&file))?;
        let is_svg = svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\"");
        same(&file, is_svg && svg.ends_with("</svg>\n"), true)?;
    }

    // The files of the previous page are overwritten.
    page(runs, &out, &words)?;
    Ok(())
}

fn folder_of_two_runs(name: &str) -> Result<PathBuf, Failed> {
    let runs = scratch(name).join("runs");
    for (run, name) in two_runs()?.iter().zip(["one", "two"]) {
        copy_folder(run, &runs.join(name));
    }
    Ok(runs)
}

#[apply(trial)]
#[needs(has_trainer)]
fn a_folder_of_runs_is_a_sweep() -> Result<(), Failed> {
    fn best(about: &Value, place: usize) -> Option<f64> {
        about["trials"][place]["best"].as_f64()
    }

    let runs = folder_of_two_runs("report-sweep")?;
    let folder = runs.with_file_name("pages");
    fs::create_dir(&folder)?;

    let out = folder.join("page.html");
    let plots = folder.join("plots");
    let words = ["--plots", plots.to_str().ok_or("no text")?];
    let (written, html) = page(std::slice::from_ref(&runs), &out, &words)?;

    loads_nothing(&html)?;
    let sections = ["Trials", "Learning curves", "Configuration"];
    same("sections", texts(&written["sections"]), sections.to_vec())?;
    same("runs", texts(&written["runs"]).len(), 2)?;
    contains(&html, "Trials, best first")?;
    same("files", files_below(&plots).len(), drawings(&html))?;

    // Trials are sorted from best to worst.
    let about = about(&html)?;
    let is_loss = about["select"] == "loss";
    let is_sorted = if is_loss {
        best(&about, 0) <= best(&about, 1)
    } else {
        best(&about, 0) >= best(&about, 1)
    };
    same("sorted", best(&about, 0).is_some() && is_sorted, true)
}

#[apply(trial)]
#[needs(has_trainer)]
fn other_files_are_left_alone() -> Result<(), Failed> {
    let folder = scratch("report-mine");
    let run_folder = trained().to_owned();
    let runs = [run_folder.clone()];
    let mine = folder.join("mine.html");
    fs::write(&mine, "<!DOCTYPE html><title>mine</title>")?;

    report(&runs, &mine, &[])
        .exits(2)?
        .says(&["not a page of wavemill"])?;
    contains(&fs::read_to_string(&mine)?, "<title>mine")?;
    report(&runs, &folder, &[])
        .exits(2)?
        .says(&["is a folder, not a file"])?;
    report(&runs, &folder.join("no/such.html"), &[])
        .exits(2)?
        .says(&["--out"])?;

    let out = folder.join("page.html");
    report(std::slice::from_ref(&folder), &out, &[])
        .exits(2)?
        .says(&["not a run"])?;
    report(&[run_folder.clone(), run_folder.clone()], &out, &[])
        .exits(2)?
        .says(&["given twice"])?;
    same("a page", out.exists(), false)?;

    // The default name of the page contains the run's name. An existing page is overwritten.
    let name = run_folder.file_name().ok_or("no name")?;
    let default = format!("report-{}.html", name.to_string_lossy());
    for _ in 0..2 {
        let mut here = trainer(["report"]);
        let ran = run(here.arg(&run_folder).current_dir(&folder)).exits(0)?;
        same("lines", ran.err.lines().count(), 1)?;
        contains(&ran.err, &default)?;
        same("the page", folder.join(&default).is_file(), true)?;
    }
    same("nothing else", fs::read_dir(&folder)?.count(), 2)
}

#[apply(trial)]
#[needs(has_trainer)]
fn damage_is_named() -> Result<(), Failed> {
    let folder = own_run("report-damage");
    evaluate(&folder)?;
    let out = folder.with_file_name("page.html");
    for name in ["map.parquet", "predictions.parquet", "result.json"] {
        let path = folder.join(name);
        let bytes = fs::read(&path)?;
        fs::write(&path, &bytes[..bytes.len() / 2])?;
        report(std::slice::from_ref(&folder), &out, &[])
            .exits(3)?
            .says(&[name])?;
        same("a page", out.exists(), false)?;
        fs::write(&path, bytes)?;
    }

    report(&[folder], &out, &[]).exits(0)?;
    Ok(())
}

#[apply(trial)]
#[needs(has_browser, has_trainer)]
fn a_browser_finds_nothing_to_load() -> Result<(), Failed> {
    let browser = &browser().ok_or("no browser on PATH")?;
    let out = scratch("report-visit").join("page.html");
    page(two_runs()?, &out, &[])?;
    let visit = quiet_visit(browser, &out)?;
    same("scripts", visit.dom.matches("<script").count(), 1)?;
    let chosen = visit.dom.matches("class=\"pick\" type=\"radio\"").count();
    same("a choice for each map", chosen, 2)?;

    // The page of a sweep has other charts, which are loaded here.
    let runs = folder_of_two_runs("report-visit-sweep")?;
    page(std::slice::from_ref(&runs), &out, &[])?;
    quiet_visit(browser, &out)?;
    Ok(())
}
