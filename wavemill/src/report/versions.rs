//! Lists the store's versions, and the changes from the previous version to this one.

use wavemill_extract::incremental::changes::DataChanges;
use wavemill_extract::incremental::changes::State;
use wavemill_pages::{Cell, Part, Section, Table};
use wavemill_store::{Change, Diff, VersionLine};

use super::{ReportError, Subject};

pub(super) fn section(subject: Subject<'_>) -> Result<Section, ReportError> {
    let mut section = Section::new("Versions");
    let head = ["version", "committed", "clips", "rows", "tags", "changed"];
    let mut table = Table::new("", &head);
    for line in subject.store.history(subject.tags)? {
        table.rows.push(row_of(&line));
    }
    section.parts.push(Part::Table(table));

    let Some(before) = subject.version.checked_sub(1).filter(|before| *before > 0) else {
        return Ok(section);
    };
    let Ok((_, earlier)) = subject.store.manifest(Some(before)) else {
        let words = format!("The manifest of version {before} cannot be used for a comparison.");
        section.parts.push(Part::Text(words));
        return Ok(section);
    };

    let diff = Diff::new(&earlier, subject.manifest);
    section.parts.push(Part::Text(format!(
        "Since version {before}: {}",
        files_words(&diff)
    )));
    // If `gc` has removed the data of the earlier version, its tracks cannot be compared.
    let states = State::of_version(subject.store, &earlier)
        .and_then(|from| Ok((from, State::of_version(subject.store, subject.manifest)?)));
    if let Ok((from, to)) = states {
        for words in DataChanges::between(&from, &to).sentences() {
            section.parts.push(Part::Text(words));
        }
    }
    if !diff.recipe.is_empty() {
        let caption = format!("Recipe changes since version {before}");
        let table = changes_table(&caption, &diff.recipe);
        section.parts.push(Part::Table(table));
    }
    Ok(section)
}

/// Returns a sentence such as `12 files are equal, 1 changed, 2 are new and 0 are gone.`
fn files_words(diff: &Diff) -> String {
    format!(
        "{} files are equal, {} changed, {} are new and {} are gone.",
        diff.files_equal,
        diff.files_changed.len(),
        diff.files_added.len(),
        diff.files_removed.len()
    )
}

/// Creates a table of changed keys with their values before and now.
fn changes_table(caption: &str, changes: &[Change]) -> Table {
    let mut table = Table::new(caption, &["key", "before", "now"]);
    for change in changes {
        table.rows.push(vec![
            change.key.as_str().into(),
            change.from.as_ref().map(ToString::to_string).into(),
            change.to.as_ref().map(ToString::to_string).into(),
        ]);
    }
    table
}

fn row_of(line: &VersionLine) -> Vec<Cell> {
    let held = line.held.as_ref();
    let changed = match (&line.problem, &line.changed) {
        (Some(problem), _) => Some(problem.clone()),
        (None, changed) => changed.clone(),
    };
    vec![
        line.version.into(),
        line.committed.clone().into(),
        held.map(|held| held.clips).into(),
        held.map(|held| held.rows).into(),
        Some(line.tags.join(", "))
            .filter(|tags| !tags.is_empty())
            .into(),
        changed.into(),
    ]
}
