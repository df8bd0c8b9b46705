//! Pages next to `result.json`: one for each store and each run, and an index that compares the claims with the scores.
//!
//! A page is created again only if its sources are newer. No score depends on a page.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use serde_json::json;
use wavemill_pages::{Cell, Fact, Page, Section, Table, count};
use wavemill_schemas::durable::if_there;
use wavemill_schemas::experiment::Experiment;
use wavemill_schemas::text::counted;
use wavemill_store::Store;
use wavemill_terminal::files::{require_replaceable, write_text};
use wavemill_terminal::output::report;

use super::outcome::{Outcome, describe_split, format_figure, unique};
use super::tables::{SWEEP_NOTE, ScoreTable};
use super::trainer;
use super::work::Work;
use crate::cli::program::{beside, executable};
use crate::cli::report::page_of;
use crate::cli::train::TRAINER;

/// File name of the index page in the results folder.
const INDEX: &str = "index.html";
/// Folder of the pages of stores and runs.
const FOLDER: &str = "pages";
/// Files that determine the content of a run's page. Prediction and map files are omitted: they follow from these.
const RUN_FILES: [&str; 3] = ["config.toml", "log.jsonl", "result.json"];

/// Returns the path of a store's page in the results folder.
fn store_page(name: &str) -> String {
    format!("{FOLDER}/store-{name}.html")
}

/// Returns the path of a run's page in the results folder.
fn run_page(name: &str) -> String {
    format!("{FOLDER}/run-{name}.html")
}

/// Rejects files of other programs at the paths of pages, before work that may take days.
///
/// # Errors
/// [`wavemill_terminal::exit::UsageError`] if a page would replace a file of another program.
pub(super) fn check(out: &Path, work: &Work) -> Result<()> {
    let stores = work.stores.iter().map(|store| store_page(&store.name));
    let runs = work.runs.iter().map(|run| run_page(&run.name));
    for page in stores.chain(runs).chain([INDEX.to_owned()]) {
        require_replaceable("--out", &out.join(page), "page", Page::is_ours)?;
    }
    Ok(())
}

/// Creates the pages of all stores and finished runs that have no current page.
///
/// # Errors
/// An error of `wavemill report` or `wavemill train report`, which build the pages.
pub(super) fn make(out: &Path, work: &Work) -> Result<()> {
    let folder = out.join(FOLDER);
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;

    for name in work.stores.iter().map(|store| &store.name) {
        let folder = out.join("stores").join(name);
        let store = Store::open(&folder)?;
        let latest = store.latest()?;
        let latest =
            latest.with_context(|| format!("{}: contains no version", folder.display()))?;

        let page = out.join(store_page(name));
        let manifest = store.manifest_path(latest.version);
        if !is_current(&page, &[executable(), manifest, store.tags_folder()])? {
            report(&format!("writing the page of {name}\n"));
            let content = page_of(&store, latest.version, &latest.manifest, None)?;
            write_text("--out", &page, &content.to_html())?;
        }
    }

    for name in work.runs.iter().map(|run| &run.name) {
        let folder = out.join("runs").join(name);
        let page = out.join(run_page(name));
        let mut sources = vec![beside(TRAINER)];
        sources.extend(RUN_FILES.map(|file| folder.join(file)));
        if !is_current(&page, &sources)? {
            let mut command = trainer::command("report");
            command.arg(&folder).arg("--out").arg(&page);
            // The trainer itself reports the page's path on stderr.
            let _ = trainer::run(command)?;
        }
    }
    Ok(())
}

/// Reports whether a page exists and none of its sources was changed later. The program that makes the page is a
/// source, too: another version of it may render the same content differently.
fn is_current(page: &Path, sources: &[PathBuf]) -> Result<bool> {
    let Some(made) = modified(page)? else {
        return Ok(false);
    };
    // The program itself may be found on PATH or be Python, so its version counts beside its file.
    let content = fs::read(page).with_context(|| format!("cannot read {}", page.display()))?;
    if !Page::is_of_this_version(&content) {
        return Ok(false);
    }
    for source in sources {
        if modified(source)?.is_some_and(|changed| changed >= made) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Returns the modification time of a file; `None` if it does not exist.
fn modified(path: &Path) -> Result<Option<SystemTime>> {
    let found = fs::metadata(path).and_then(|found| found.modified());
    if_there(found).with_context(|| format!("cannot read {}", path.display()))
}

/// Writes the index page every time, because this takes no noticeable time, and returns its path.
///
/// # Errors
/// The index page cannot be written.
pub(super) fn write_index(
    out: &Path,
    experiment: &Experiment,
    outcome: &Outcome,
) -> Result<PathBuf> {
    let path = out.join(INDEX);
    write_text("--out", &path, &index(experiment, outcome).to_html())?;
    Ok(path)
}

/// Builds the index page: all scores with the document's claims, and links to the other pages.
fn index(experiment: &Experiment, outcome: &Outcome) -> Page {
    let scores = outcome.tables().into_iter().map(scores);
    let others = [claims, sweep, runs, stores].map(|build| build(outcome));
    let sections = scores.chain(others).collect();
    let title = format!("Experiment {}", outcome.experiment);

    Page {
        facts: facts(outcome),
        about: json!({
            "page": "experiment",
            "experiment": outcome.experiment,
            "claims": outcome.claims,
        }),
        ..Page::new(title, lead(experiment), sections)
    }
}

fn lead(experiment: &Experiment) -> String {
    let description = experiment.description.trim_end_matches('.');
    match &experiment.document {
        Some(document) => format!("{description}. Document: {document}"),
        None => format!("{description}."),
    }
}

fn facts(outcome: &Outcome) -> Vec<Fact> {
    let runs = unique(outcome.results.iter().map(|cell| &cell.run));
    let beside = outcome.claims.iter();
    let beside = beside.filter(|claim| claim.as_in_document.is_some() || claim.recipe.is_some());
    let clips: u64 = outcome.stores.iter().map(|store| store.clips).sum();

    vec![
        Fact {
            name: "trainings".to_owned(),
            value: count(runs.len() as u64),
            note: format!("on {}", counted(outcome.threads, "thread")),
        },
        Fact {
            name: "stores".to_owned(),
            value: count(outcome.stores.len() as u64),
            note: format!("{} clips", count(clips)),
        },
        Fact {
            name: "claims of the document".to_owned(),
            value: count(outcome.claims.len() as u64),
            note: format!("{} compared with our scores", count(beside.count() as u64)),
        },
    ]
}

fn scores(table: ScoreTable) -> Section {
    let mut section = Section::new(&format!("Scores, {}", table.title));
    section.add_table(Table::of(
        "95 % confidence intervals in brackets",
        &table.lines,
        &[
            ("model", &|line| line.train.as_str().into()),
            ("metric", &|line| line.measure.as_str().into()),
            ("document", &|line| Cell::Measure(line.document.clone())),
            (&table.as_in_document, &|line| {
                Cell::Measure(line.as_in_document.clone())
            }),
            (&table.recipe, &|line| Cell::Measure(line.recipe.clone())),
        ],
    ));
    for note in &table.notes {
        section.add_text(sentence(note));
    }
    section
}

/// Formats a note below a table as a sentence of a page.
fn sentence(note: &str) -> String {
    let mut letters = note.trim().trim_end_matches('.').chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string());
    first.unwrap_or_default() + letters.as_str() + "."
}

/// Returns a section with a note above a table. It is empty if the table is, which the command did not request.
fn section(title: &str, note: impl Into<String>, table: Table) -> Section {
    let mut section = Section::new(title);
    if !table.rows.is_empty() {
        section.add_text(note);
        section.add_table(table);
    }
    section
}

/// Lists every claim of the document, including claims about models that were not trained.
fn claims(outcome: &Outcome) -> Section {
    let mut section = Section::new("Claims of the document");
    section.add_table(Table::of(
        "",
        &outcome.claims,
        &[
            ("model", &|of| of.claim.train.as_str().into()),
            ("variant", &|of| of.claim.variant.as_str().into()),
            ("metric", &|of| of.measure().into()),
            ("document", &|of| {
                Cell::Measure(format!("{:.3}", of.claim.value))
            }),
            ("ours: document's split", &|of| {
                Cell::Measure(format_figure(of.as_in_document))
            }),
            ("ours: recipe's split", &|of| {
                Cell::Measure(format_figure(of.recipe))
            }),
            ("quotation", &|of| of.claim.says.as_str().into()),
            ("document's split", &|of| of.claim.split.as_str().into()),
        ],
    ));
    section
}

fn sweep(outcome: &Outcome) -> Section {
    let table = Table::of(
        "",
        &outcome.sweep,
        &[
            ("changed", &|trial| trial.format_sets().into()),
            ("best", &|trial| Cell::Measure(trial.format_best())),
        ],
    );
    section("Sweep", sentence(SWEEP_NOTE), table)
}

fn runs(outcome: &Outcome) -> Section {
    let note =
        "The page of a run shows its learning curves, scores, confusion matrix, map and mistakes.";
    let table = Table::of(
        "",
        &outcome.results,
        &[
            ("run", &|cell| link(&cell.run, run_page(&cell.run))),
            ("variant", &|cell| cell.variant.as_str().into()),
            ("split", &|cell| describe_split(cell.split).into()),
            ("epochs", &|cell| cell.result.epochs.into()),
            ("best epoch", &|cell| {
                cell.result.best_epoch.map(|epoch| epoch + 1).into()
            }),
            ("store", &|cell| link(&cell.store, store_page(&cell.store))),
        ],
    );
    section("Runs", note, table)
}

fn stores(outcome: &Outcome) -> Section {
    let note = "The page of a store shows kept and dropped rows, classes, splits and rejects.";
    let table = Table::of(
        "",
        &outcome.stores,
        &[
            ("store", &|of| link(&of.name, store_page(&of.name))),
            ("clips", &|of| of.clips.into()),
            ("recipe changes", &|of| of.sets.join(", ").into()),
            ("plan", &|of| of.plan_id.as_str().into()),
        ],
    );
    section("Stores", note, table)
}

fn link(name: &str, path: String) -> Cell {
    Cell::Link {
        text: name.to_owned(),
        path,
    }
}
