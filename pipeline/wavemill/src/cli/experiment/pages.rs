//! Pages next to `result.json`: one for each store and each run, and an index that compares the claims with the scores.
//!
//! A page is created again only if its sources are newer. No score depends on a page.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use serde_json::json;
use wavemill_pages::{Cell, Fact, Page, Part, Section, Table, count};
use wavemill_schemas::durable::if_there;
use wavemill_schemas::experiment::{Experiment, SplitKind};
use wavemill_schemas::text::counted;
use wavemill_store::Store;
use wavemill_terminal::files::{require_replaceable, write_text};
use wavemill_terminal::output::report;

use super::outcome::{Outcome, format_figure, unique};
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

/// Reports whether a page exists and none of its sources was changed later. The program that makes the page is a source,
/// too: another version of it may render the same content differently.
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
    let others = [
        claims(outcome),
        sweep(outcome),
        runs(outcome),
        stores(outcome),
    ];

    Page {
        title: format!("Experiment {}", outcome.experiment),
        lead: lead(experiment),
        facts: facts(outcome),
        sections: scores.chain(others.into_iter().flatten()).collect(),
        about: json!({
            "page": "experiment",
            "experiment": outcome.experiment,
            "claims": outcome.claims,
        }),
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
    let head = [
        "model",
        "metric",
        "document",
        table.as_in_document.as_str(),
        table.recipe.as_str(),
    ];
    let mut shown = Table::new("95 % confidence intervals in brackets", &head);
    for line in table.lines {
        let figures = [line.document, line.as_in_document, line.recipe].map(Cell::Measure);
        let mut row: Vec<Cell> = vec![line.train.into(), line.measure.into()];
        row.extend(figures);
        shown.rows.push(row);
    }

    let mut section = Section::new(&format!("Scores, {}", table.title));
    section.parts.push(Part::Table(shown));
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

/// Returns a section with a note above a table. A section without rows, which the command did not request, is omitted.
fn section(title: &str, note: &str, head: &[&str], rows: Vec<Vec<Cell>>) -> Option<Section> {
    if rows.is_empty() {
        return None;
    }
    let mut section = Section::new(title);
    if !note.is_empty() {
        section.add_text(note);
    }
    let mut table = Table::new("", head);
    table.rows = rows;
    section.parts.push(Part::Table(table));
    Some(section)
}

/// Lists every claim of the document, including claims about models that were not trained.
fn claims(outcome: &Outcome) -> Option<Section> {
    let head = [
        "model",
        "variant",
        "metric",
        "document",
        "ours: document's split",
        "ours: recipe's split",
        "quotation",
        "document's split",
    ];
    let claims = outcome.claims.iter();
    let rows = claims.map(|one| {
        vec![
            one.claim.train.as_str().into(),
            one.claim.variant.as_str().into(),
            one.measure().into(),
            Cell::Measure(format!("{:.3}", one.claim.value)),
            Cell::Measure(format_figure(one.as_in_document)),
            Cell::Measure(format_figure(one.recipe)),
            one.claim.says.as_str().into(),
            one.claim.split.as_str().into(),
        ]
    });
    section("Claims of the document", "", &head, rows.collect())
}

fn sweep(outcome: &Outcome) -> Option<Section> {
    let trials = outcome.sweep.iter();
    let rows = trials.map(|trial| {
        vec![
            trial.format_sets().into(),
            Cell::Measure(trial.format_best()),
        ]
    });
    section(
        "Sweep",
        &sentence(SWEEP_NOTE),
        &["changed", "best"],
        rows.collect(),
    )
}

fn runs(outcome: &Outcome) -> Option<Section> {
    let note =
        "The page of a run shows its learning curves, scores, confusion matrix, map and mistakes.";
    let head = ["run", "variant", "split", "epochs", "best epoch", "store"];
    let cells = outcome.results.iter();
    let rows = cells.map(|cell| {
        vec![
            link(&cell.run, run_page(&cell.run)),
            cell.variant.as_str().into(),
            describe_split(cell.split).into(),
            Cell::Count(cell.result.epochs),
            cell.result.best_epoch.map(|epoch| epoch + 1).into(),
            link(&cell.store, store_page(&cell.store)),
        ]
    });
    section("Runs", note, &head, rows.collect())
}

fn stores(outcome: &Outcome) -> Option<Section> {
    let note = "The page of a store shows kept and dropped rows, classes, splits and rejects.";
    let head = ["store", "clips", "recipe changes", "plan"];
    let stores = outcome.stores.iter();
    let rows = stores.map(|store| {
        vec![
            link(&store.name, store_page(&store.name)),
            Cell::Count(store.clips),
            store.sets.join(", ").into(),
            store.plan_id.as_str().into(),
        ]
    });
    section("Stores", note, &head, rows.collect())
}

fn link(name: &str, path: String) -> Cell {
    Cell::Link {
        text: name.to_owned(),
        path,
    }
}

const fn describe_split(split: SplitKind) -> &'static str {
    match split {
        SplitKind::AsInDocument => "as in the document",
        SplitKind::Recipe => "as in the recipe",
    }
}
