//! Lists the store's versions. `wavemill diff` shows what changed between two of them.

use wavemill_pages::{Cell, Part, Section, Table};
use wavemill_store::VersionLine;

use super::{ReportError, Subject};

pub(super) fn section(subject: Subject<'_>) -> Result<Section, ReportError> {
    let mut section = Section::new("Versions");
    let head = ["version", "committed", "clips", "rows", "tags", "changed"];
    let mut table = Table::new("", &head);
    for line in subject.store.history(subject.tags)? {
        table.rows.push(row_of(&line));
    }
    section.parts.push(Part::Table(table));
    Ok(section)
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
