//! Pages next to `result.json`: one for each store and each run, and an index that compares the claims with the scores.
//!
//! A page is created again only if its content has changed: `experiment.json` records a hash of each page's content. No
//! score depends on a page.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::json;
use wavemill_pages::{Cell, Fact, Page, Part, Section, Table, count};
use wavemill_schemas::canonical;
use wavemill_schemas::experiment::{Experiment, SplitKind};
use wavemill_store::Store;
use wavemill_terminal::files::{require_replaceable, write_text};
use wavemill_terminal::output::report;

use super::outcome::{CellOutcome, Outcome};
use super::tables::{SWEEP_NOTE, ScoreTable, format_figure};
use super::trainer;
use super::work::Work;
use crate::cli::report::page_of;

/// File name of the index page in the results folder.
const INDEX: &str = "index.html";
/// Folder of the pages of stores and runs.
const FOLDER: &str = "pages";
/// Part of the hash of each page's content: another version of the program may render the same content differently.
const PROGRAM: &str = env!("CARGO_PKG_VERSION");
/// Files that determine the content of a run's page. Prediction and map files are omitted: they follow from these.
const RUN_FILES: [&str; 3] = ["config.toml", "log.jsonl", "result.json"];

/// Hash of each page's content, by the page's file name.
pub(super) type PagesMade = BTreeMap<String, String>;

/// Content of a store's page, from which the page's hash is computed.
#[derive(Serialize)]
struct StoreIdentity<'a> {
    program: &'static str,
    manifest_hash: &'a str,
    tags: &'a [String],
}

/// Content of a run's page, from which the page's hash is computed.
#[derive(Serialize)]
struct RunIdentity {
    program: &'static str,
    /// Contents of the run's files, in the order of [`RUN_FILES`].
    files: Vec<String>,
}

/// Returns the file name of a store's page, `store-NAME.html`.
fn store_page(name: &str) -> String {
    format!("store-{name}.html")
}

/// Returns `run-NAME.html`, the file name of a run's page.
fn run_page(name: &str) -> String {
    format!("run-{name}.html")
}

/// Rejects files of other programs at the paths of pages, before work that may take days.
///
/// # Errors
/// [`wavemill_terminal::exit::UsageError`] if a page would replace a file of another program.
pub(super) fn check(out: &Path, work: &Work) -> Result<()> {
    let folder = out.join(FOLDER);
    let mut pages = vec![out.join(INDEX)];
    pages.extend(
        work.stores
            .iter()
            .map(|store| folder.join(store_page(&store.name))),
    );
    pages.extend(work.runs.iter().map(|run| folder.join(run_page(&run.name))));

    for page in &pages {
        require_replaceable("--out", page, "page", Page::is_ours)?;
    }
    Ok(())
}

/// Creates the page of the store in `folder` if the page does not exist or its content has changed. Returns whether the
/// page was created.
///
/// # Errors
/// An error of `wavemill report`, which builds the page.
pub(super) fn make_store(
    out: &Path,
    folder: &Path,
    name: &str,
    made: &mut PagesMade,
) -> Result<bool> {
    let store = Store::open(folder)?;
    let latest = store.latest()?;
    let latest = latest.with_context(|| format!("{}: contains no version", folder.display()))?;
    let made_of = canonical::id(&StoreIdentity {
        program: PROGRAM,
        manifest_hash: &latest.hash,
        tags: &store.tags()?.of_version(latest.version),
    })?;

    let page = store_page(name);
    let Some(path) = path_if_needed(out, &page, &made_of, made)? else {
        return Ok(false);
    };
    report(&format!("writing the page of {name}\n"));
    let content = page_of(&store, latest.version, &latest.manifest, None)?;
    write_text("--out", &path, &content.to_html())?;
    made.insert(page, made_of);
    Ok(true)
}

/// Creates the page of the finished run in `folder` if the page does not exist or its content has changed. Returns
/// whether the page was created.
///
/// # Errors
/// An error of `wavemill-train report`, which creates the page.
pub(super) fn make_run(
    out: &Path,
    folder: &Path,
    name: &str,
    made: &mut PagesMade,
) -> Result<bool> {
    let mut files = Vec::new();
    for file in RUN_FILES {
        let path = folder.join(file);
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        files.push(String::from_utf8_lossy(&text).into_owned());
    }
    let made_of = canonical::id(&RunIdentity {
        program: PROGRAM,
        files,
    })?;

    let page = run_page(name);
    let Some(path) = path_if_needed(out, &page, &made_of, made)? else {
        return Ok(false);
    };
    let mut command = trainer::command("report");
    command.arg(folder).arg("--out").arg(&path);
    // The trainer itself reports the page's path on stderr.
    let _ = trainer::run(command)?;
    made.insert(page, made_of);
    Ok(true)
}

/// Returns the path where a page has to be written, or `None` if the existing page is current.
fn path_if_needed(
    out: &Path,
    page: &str,
    made_of: &str,
    made: &PagesMade,
) -> Result<Option<PathBuf>> {
    let folder = out.join(FOLDER);
    let path = folder.join(page);
    let is_known = made.get(page).is_some_and(|before| before == made_of);
    if is_known
        && path
            .try_exists()
            .with_context(|| format!("cannot read {}", path.display()))?
    {
        return Ok(None);
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(Some(path))
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
    let mut sections: Vec<Section> = outcome.tables().iter().map(scores).collect();
    sections.push(claims(outcome));
    sections.push(sweep(outcome));
    sections.push(runs(outcome));
    sections.push(stores(outcome));

    Page {
        title: format!("Experiment {}", outcome.experiment),
        lead: lead(experiment),
        facts: facts(outcome),
        // Sections that the command did not request are omitted instead of shown empty.
        sections: sections
            .into_iter()
            .filter(|section| !section.parts.is_empty())
            .collect(),
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
    let run_names = outcome.results.iter().map(|cell| cell.run.as_str());
    let mut run_names: Vec<&str> = run_names.collect();
    run_names.sort_unstable();
    run_names.dedup();

    let beside = outcome.claims.iter();
    let beside = beside.filter(|claim| claim.as_in_document.is_some() || claim.recipe.is_some());
    let clips: u64 = outcome.stores.iter().map(|store| store.clips).sum();

    vec![
        Fact {
            name: "trainings".to_owned(),
            value: count(run_names.len() as u64),
            note: format!("on {} threads", outcome.threads),
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

fn scores(table: &ScoreTable) -> Section {
    let mut section = Section::new(&format!("Scores, {}", table.title()));
    let head = [
        "model",
        "metric",
        "document",
        table.as_in_document.as_str(),
        table.recipe.as_str(),
    ];
    let caption = "95 % confidence intervals in brackets";
    let mut shown = Table::new(caption, &head);
    for line in &table.lines {
        shown.rows.push(vec![
            line.train.as_str().into(),
            line.measure.as_str().into(),
            Cell::Measure(line.format_documented()),
            Cell::Measure(format_figure(line.as_in_document.as_ref())),
            Cell::Measure(format_figure(line.recipe.as_ref())),
        ]);
    }
    section.parts.push(Part::Table(shown));

    for note in &table.notes {
        section.parts.push(Part::Text(sentence(note)));
    }
    section
}

/// Formats a note below a table as a sentence of a page.
fn sentence(note: &str) -> String {
    let mut letters = note.trim().trim_end_matches('.').chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string());
    first.unwrap_or_default() + letters.as_str() + "."
}

/// Lists every claim of the document, including claims about models that were not trained.
fn claims(outcome: &Outcome) -> Section {
    let mut section = Section::new("Claims of the document");
    if outcome.claims.is_empty() {
        return section;
    }

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
    let mut table = Table::new("", &head);
    for one in &outcome.claims {
        let claim = &one.claim;
        table.rows.push(vec![
            claim.train.as_str().into(),
            claim.variant.as_str().into(),
            one.measure().into(),
            Cell::Measure(format!("{:.3}", claim.value)),
            Cell::Measure(format_figure(one.as_in_document.as_ref())),
            Cell::Measure(format_figure(one.recipe.as_ref())),
            claim.says.as_str().into(),
            claim.split.as_str().into(),
        ]);
    }
    section.parts.push(Part::Table(table));
    section
}

fn sweep(outcome: &Outcome) -> Section {
    let mut section = Section::new("Sweep");
    if outcome.sweep.is_empty() {
        return section;
    }

    let mut table = Table::new("", &["changed", "best"]);
    for trial in &outcome.sweep {
        let best = trial.best_value();
        table.rows.push(vec![
            trial.format_sets().into(),
            best.map_or(Cell::None, |best| Cell::Measure(format!("{best:.4}"))),
        ]);
    }
    section.parts.push(Part::Text(sentence(SWEEP_NOTE)));
    section.parts.push(Part::Table(table));
    section
}

fn runs(outcome: &Outcome) -> Section {
    let mut section = Section::new("Runs");
    let head = ["run", "variant", "split", "epochs", "best epoch", "store"];
    let mut table = Table::new("", &head);
    for CellOutcome {
        variant,
        split,
        run,
        store,
        result,
        ..
    } in &outcome.results
    {
        table.rows.push(vec![
            link(run, &run_page(run)),
            variant.as_str().into(),
            describe_split(*split).into(),
            Cell::Count(result.epochs),
            result.best_epoch.map(|epoch| epoch + 1).into(),
            link(store, &store_page(store)),
        ]);
    }
    if table.rows.is_empty() {
        return section;
    }

    let words =
        "The page of a run shows its learning curves, scores, confusion matrix, map and mistakes.";
    section.parts.push(Part::Text(words.to_owned()));
    section.parts.push(Part::Table(table));
    section
}

fn stores(outcome: &Outcome) -> Section {
    let mut section = Section::new("Stores");
    let head = ["store", "clips", "recipe changes", "plan"];
    let mut table = Table::new("", &head);
    for store in &outcome.stores {
        table.rows.push(vec![
            link(&store.name, &store_page(&store.name)),
            Cell::Count(store.clips),
            store.sets.join(", ").into(),
            store.plan_id.as_str().into(),
        ]);
    }
    if table.rows.is_empty() {
        return section;
    }

    let words = "The page of a store shows kept and dropped rows, classes, sides and rejects.";
    section.parts.push(Part::Text(words.to_owned()));
    section.parts.push(Part::Table(table));
    section
}

fn link(name: &str, page: &str) -> Cell {
    Cell::Link {
        text: name.to_owned(),
        path: format!("{FOLDER}/{page}"),
    }
}

const fn describe_split(split: SplitKind) -> &'static str {
    match split {
        SplitKind::AsInDocument => "as in the document",
        SplitKind::Recipe => "as in the recipe",
    }
}
