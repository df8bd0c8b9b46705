//! `wavemill train report`: writes a page about training runs.

use std::collections::HashSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use wavemill_evaluation::report::{self, RunRecord, RunStore, SweepRecord};
use wavemill_pages::{Chart, Page, Part};
use wavemill_schemas::run::RunDir;
use wavemill_schemas::text::{counted, shown};
use wavemill_terminal::exit::UsageError;
use wavemill_terminal::files::{cannot_write, require_replaceable, write_text};
use wavemill_terminal::output::{self, stdout};

use super::input;
use crate::ffi;

const EXAMPLES: &str = "\
Examples:
  wavemill train report runs/cnn2d-1f2e3d4c-1
  wavemill train report runs/cnn2d-1f2e3d4c-1 runs/crnn-5a6b7c8d-1 \\
      --out models.html
  wavemill train report runs/crnn-5a6b7c8d-1 --plots plots
  wavemill train report runs                # the trials of a sweep

The page is a self-contained HTML file with the contents of the folders of the runs. Calibration, differences, intervals \
per class and misclassified tracks need the predictions of each row, and the map needs the positions of rows. This \
command writes both:
  wavemill train eval RUN --predictions RUN/predictions.parquet \\
      --map RUN/map.parquet

For a folder of runs, such as that of `sweep`, the page shows the settings of the trials and their scores on validation, \
the best trial first.

An existing page of wavemill is replaced, but no other file. The same applies to the charts of --plots.";

/// Maximum number of characters of a chart's title that are used in its file name.
const TITLE_CHARS_MAX: usize = 60;

/// Write a page about training runs: curves, scores, mistakes, maps
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ReportCommand {
    /// Folders written by `fit`; the others are compared with the first. Or one folder that contains such folders
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// The page [default: report-RUN.html in the current folder, or report.html for several runs]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Also write each chart as an SVG file to this folder
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
    /// Print the page's path and contents as JSON on stdout
    #[arg(long)]
    json: bool,
}

/// Output of `report --json`.
#[derive(Debug, Serialize)]
struct Written<'a> {
    /// Names of the runs in the order of the page; for a sweep, from best to worst.
    runs: Vec<&'a str>,
    /// Path of the HTML page.
    out: &'a Path,
    /// Size of the HTML page in bytes.
    bytes: usize,
    /// Titles of the page's sections, in order.
    sections: Vec<&'a str>,
    /// Paths of the SVG files of charts.
    plots: Vec<&'a Path>,
    /// Duration of the command in seconds.
    seconds: f64,
}

/// The runs that a page is about.
enum Subject {
    Runs(Vec<RunRecord>),
    /// All runs in one folder, such as the trials of a sweep.
    Sweep(SweepRecord),
}

impl Subject {
    fn page(&self) -> Page {
        match self {
            Self::Runs(runs) => report::page(runs),
            Self::Sweep(sweep) => report::sweep_page(sweep),
        }
    }

    fn run_names(&self) -> Vec<&str> {
        match self {
            Self::Runs(runs) => runs.iter().map(|run| run.name.as_str()).collect(),
            Self::Sweep(sweep) => sweep.names(),
        }
    }
}

/// Path and contents of a chart's SVG file, before the file is written.
struct PlotFile {
    path: PathBuf,
    svg: String,
}

impl ReportCommand {
    /// Writes the HTML page, and the SVG files of its charts if requested.
    ///
    /// # Errors
    /// [`UsageError`] if an output path cannot be used, and the errors of reading the runs.
    pub(crate) fn run(&self) -> Result<u8> {
        ffi::keep_signals_away();
        let start = Instant::now();
        let subject = self.read()?;
        let out = self.out_of(&subject);
        // Check the page's path before building the page, which may take seconds.
        require_replaceable("--out", &out, "page", Page::is_ours)?;

        let page = subject.page();
        let html = page.to_html();
        let plots = match &self.plots {
            Some(folder) => plots_of(&page, folder),
            None => Vec::new(),
        };
        // Check the paths of all charts before writing any file.
        for plot in &plots {
            require_replaceable("--plots", &plot.path, "chart", Chart::is_ours)?;
        }

        if let Some(folder) = &self.plots {
            let made = fs::create_dir_all(folder);
            made.map_err(|error| cannot_write("--plots", folder, error))?;
        }

        write_text("--out", &out, &html)?;
        for plot in &plots {
            write_text("--plots", &plot.path, &plot.svg)?;
        }

        let sections = page.sections.iter();
        self.print_summary(&Written {
            runs: subject.run_names(),
            out: &out,
            bytes: html.len(),
            sections: sections.map(|section| section.title.as_str()).collect(),
            plots: plots.iter().map(|plot| plot.path.as_path()).collect(),
            seconds: start.elapsed().as_secs_f64(),
        })?;
        Ok(0)
    }

    fn read(&self) -> Result<Subject> {
        // A path that is not the folder of a run may be a folder of runs.
        if let [path] = &self.runs[..]
            && RunDir::open(path).is_err()
            && let Some(sweep) = SweepRecord::read(path)?
        {
            return Ok(Subject::Sweep(sweep));
        }
        Ok(Subject::Runs(self.read_runs()?))
    }

    /// Reads the runs and gives each one a unique name.
    fn read_runs(&self) -> Result<Vec<RunRecord>> {
        let mut seen = HashSet::new();
        let mut runs = Vec::new();
        for path in &self.runs {
            let folder = RunDir::open(path)?;
            if !seen.insert(path.canonicalize().unwrap_or_else(|_| path.clone())) {
                let message = format!("{}: this run is given twice", path.display());
                return Err(UsageError(message).into());
            }
            let store =
                input::recorded_store(&folder).map(|(root, version)| RunStore { root, version });
            runs.push(RunRecord::read(path, store)?);
        }
        make_names_unique(&mut runs);
        Ok(runs)
    }

    fn out_of(&self, subject: &Subject) -> PathBuf {
        if let Some(out) = &self.out {
            return out.clone();
        }
        let name = match subject {
            Subject::Sweep(sweep) => &sweep.name,
            Subject::Runs(runs) => match &runs[..] {
                [run] => &run.name,
                _ => return "report.html".into(),
            },
        };
        format!("report-{name}.html").into()
    }

    fn print_summary(&self, written: &Written<'_>) -> Result<()> {
        if self.json {
            writeln!(stdout(), "{}", serde_json::to_string(written)?)?;
            return Ok(());
        }

        let runs = match &written.runs[..] {
            [run] => format!("run {run}"),
            runs => counted(runs.len(), "run"),
        };
        let plots = match written.plots.len() {
            0 => String::new(),
            n => format!("; {} as SVG", counted(n, "chart")),
        };
        let line = format!(
            "{runs}: {} ({}, {}, {:.1} s){plots}",
            written.out.display(),
            wavemill_pages::bytes(written.bytes as u64),
            counted(written.sections.len(), "section"),
            written.seconds
        );
        output::report(&format!("{}\n", shown(&line)));
        Ok(())
    }
}

/// Names runs by their paths if several runs have the same name.
fn make_names_unique(runs: &mut [RunRecord]) {
    let names: Vec<String> = runs.iter().map(|run| run.name.clone()).collect();
    for run in runs {
        if names.iter().filter(|name| **name == run.name).count() > 1 {
            run.name = run.path.display().to_string();
        }
    }
}

/// Returns the SVG files of a page's charts, numbered in page order. Charts without an SVG form are skipped.
fn plots_of(page: &Page, folder: &Path) -> Vec<PlotFile> {
    let mut plots: Vec<PlotFile> = Vec::new();
    let parts = page.sections.iter().flat_map(|section| &section.parts);
    for part in parts {
        let Part::Charts(charts) = part else { continue };
        for chart in charts {
            if let Some(svg) = chart.to_svg() {
                let number = plots.len() + 1;
                let name = format!("{number:02}-{}.svg", file_name(&chart.title));
                plots.push(PlotFile {
                    path: folder.join(name),
                    svg,
                });
            }
        }
    }
    plots
}

/// Converts a chart's title to lower-case letters, digits and hyphens.
fn file_name(title: &str) -> String {
    let mut name = String::new();
    for c in title.chars().take(TITLE_CHARS_MAX) {
        if c.is_ascii_alphanumeric() {
            name.push(c.to_ascii_lowercase());
        } else if !name.is_empty() && !name.ends_with('-') {
            name.push('-');
        }
    }
    name.trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_become_file_names() {
        assert_eq!(file_name("Loss, training"), "loss-training");
        assert_eq!(file_name("../../etc/passwd"), "etc-passwd");
        assert_eq!(file_name("音楽"), "");
        assert_eq!(file_name(&"x".repeat(1000)).len(), TITLE_CHARS_MAX);
    }
}
