//! Pages beside `result.json`: one about each store and each run, and an index that puts the claims beside the scores.
//!
//! A page is a function of what it is about, so it is made once: `experiment.json` says what each one was made of. No
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

use super::outcome::{CellOutcome, Outcome};
use super::tables::{SWEEP_WORDS, ScoreTable, figure_words};
use super::trainer;
use super::work::Work;
use crate::cli::output::report;
use crate::cli::report::{page_of, require_replaceable, write_page};
use crate::store::Store;

/// In the folder of results.
const INDEX: &str = "index.html";
/// Holds the other pages.
const FOLDER: &str = "pages";
/// Another program may show the same things otherwise.
const PROGRAM: &str = env!("CARGO_PKG_VERSION");
/// What a run's page is made of, beside the files of rows, which follow from these.
const RUN_FILES: [&str; 3] = ["config.toml", "log.jsonl", "result.json"];

/// What each page was made of, by its name.
pub(super) type PagesMade = BTreeMap<String, String>;

/// What a store's page shows.
#[derive(Serialize)]
struct StoreIdentity<'a> {
    program: &'static str,
    manifest_hash: &'a str,
    tags: &'a [String],
}

/// What a run's page shows.
#[derive(Serialize)]
struct RunIdentity {
    program: &'static str,
    /// In the order of [`RUN_FILES`].
    files: Vec<String>,
}

/// `store-NAME.html`.
fn store_page(name: &str) -> String {
    format!("store-{name}.html")
}

/// `run-NAME.html`.
fn run_page(name: &str) -> String {
    format!("run-{name}.html")
}

/// Refuses pages in the place of files that are none of ours: before the work, which may take days.
///
/// # Errors
/// [`crate::cli::exit::UsageError`].
pub(super) fn check(out: &Path, work: &Work) -> Result<()> {
    require_replaceable(&out.join(INDEX))?;
    for store in &work.stores {
        require_replaceable(&out.join(FOLDER).join(store_page(&store.name)))?;
    }
    for run in &work.runs {
        require_replaceable(&out.join(FOLDER).join(run_page(&run.name)))?;
    }
    Ok(())
}

/// Makes the page of the store in `folder`, where it is not there or shows another state. Says whether it did.
///
/// # Errors
/// As `wavemill report`.
pub(super) fn make_store(
    out: &Path,
    folder: &Path,
    name: &str,
    made: &mut PagesMade,
) -> Result<bool> {
    let store = Store::open(folder)?;
    let latest = store.latest()?;
    let latest = latest.with_context(|| format!("{}: no version in it", folder.display()))?;
    let made_of = canonical::id(&StoreIdentity {
        program: PROGRAM,
        manifest_hash: &latest.hash,
        tags: &store.tags()?.of(latest.version),
    })?;

    let page = store_page(name);
    let Some(path) = path_if_needed(out, &page, &made_of, made)? else {
        return Ok(false);
    };
    report(&format!("page of {name}\n"));
    let content = page_of(&store, latest.version, &latest.manifest, None)?;
    write_page(&path, &content.to_html())?;
    made.insert(page, made_of);
    Ok(true)
}

/// Makes the page of the finished run in `folder`, where it is not there or shows another state. Says whether it did.
///
/// # Errors
/// As `wavemill-train report`.
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
    // Where it is, which the trainer says itself.
    let _ = trainer::run(command)?;
    made.insert(page, made_of);
    Ok(true)
}

/// Where a page is to be written; `None` where it is there as it would be made.
fn path_if_needed(
    out: &Path,
    page: &str,
    made_of: &str,
    made: &PagesMade,
) -> Result<Option<PathBuf>> {
    let folder = out.join(FOLDER);
    let path = folder.join(page);
    let is_known = made.get(page).is_some_and(|before| before == made_of);
    if is_known && path.try_exists()? {
        return Ok(None);
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(Some(path))
}

/// Writes the index, which needs no time to make, and says where it is.
///
/// # Errors
/// It cannot be written.
pub(super) fn write_index(
    out: &Path,
    experiment: &Experiment,
    outcome: &Outcome,
) -> Result<PathBuf> {
    let path = out.join(INDEX);
    write_page(&path, &index(experiment, outcome).to_html())?;
    Ok(path)
}

/// All scores beside what the document claims, and links to the other pages.
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
        // What the command did not ask for is not shown empty.
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
        Some(document) => format!("{description}. The document: {document}"),
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
            note: format!("{} beside figures of ours", count(beside.count() as u64)),
        },
    ]
}

fn scores(table: &ScoreTable) -> Section {
    let mut section = Section::new(&format!("Scores, {}", table.title()));
    let head = [
        "model",
        "figure",
        "document",
        table.as_in_document.as_str(),
        table.recipe.as_str(),
    ];
    let caption = "In brackets: 95 % intervals";
    let mut shown = Table::new(caption, &head);
    for line in &table.lines {
        shown.rows.push(vec![
            line.train.as_str().into(),
            line.measure.as_str().into(),
            Cell::Measure(line.document_words()),
            Cell::Measure(figure_words(line.as_in_document.as_ref())),
            Cell::Measure(figure_words(line.recipe.as_ref())),
        ]);
    }
    section.parts.push(Part::Table(shown));

    for note in &table.notes {
        section.parts.push(Part::Text(sentence(note)));
    }
    section
}

/// A line below a table as a sentence of a page.
fn sentence(note: &str) -> String {
    let mut letters = note.trim().trim_end_matches('.').chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string());
    first.unwrap_or_default() + letters.as_str() + "."
}

/// Every claim, also of what was not trained.
fn claims(outcome: &Outcome) -> Section {
    let mut section = Section::new("What the document claims");
    if outcome.claims.is_empty() {
        return section;
    }

    let head = [
        "model",
        "variant",
        "figure",
        "document",
        "ours: its split",
        "ours: recipe's split",
        "in the document's words",
        "its split",
    ];
    let mut table = Table::new("", &head);
    for one in &outcome.claims {
        let claim = &one.claim;
        table.rows.push(vec![
            claim.train.as_str().into(),
            claim.variant.as_str().into(),
            one.measure().into(),
            Cell::Measure(format!("{:.3}", claim.value)),
            Cell::Measure(figure_words(one.as_in_document.as_ref())),
            Cell::Measure(figure_words(one.recipe.as_ref())),
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
            trial.set_words().into(),
            best.map_or(Cell::None, |best| Cell::Measure(format!("{best:.4}"))),
        ]);
    }
    section.parts.push(Part::Text(sentence(SWEEP_WORDS)));
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
            split_words(*split).into(),
            Cell::Count(result.epochs),
            result.best_epoch.map(|epoch| epoch + 1).into(),
            link(store, &store_page(store)),
        ]);
    }
    if table.rows.is_empty() {
        return section;
    }

    let words = "A page of a run has its curves, scores, confusion matrix, map and mistakes.";
    section.parts.push(Part::Text(words.to_owned()));
    section.parts.push(Part::Table(table));
    section
}

fn stores(outcome: &Outcome) -> Section {
    let mut section = Section::new("Stores");
    let head = ["store", "clips", "changed in the recipe", "plan"];
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

    let words = "A page of a store has what was kept and dropped, classes and sides, and rejects.";
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

const fn split_words(split: SplitKind) -> &'static str {
    match split {
        SplitKind::AsInDocument => "as in the document",
        SplitKind::Recipe => "as in the recipe",
    }
}
