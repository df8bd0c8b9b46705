//! Lists the store's versions. `wavemill diff` shows what changed between two of them.

use wavemill_pages::{Cell, Part, Section, Table, bytes};
use wavemill_store::VersionLine;

use super::{ReportError, Subject};

pub(super) fn section(subject: Subject<'_>) -> Result<Section, ReportError> {
    let mut section = Section::new("Versions");
    let head = [
        "version",
        "committed",
        "clips",
        "rows",
        "size",
        "new",
        "tags",
        "changed",
    ];
    let mut table = Table::new("", &head);
    let lines = subject.store.history(subject.tags)?;
    for line in &lines {
        table.rows.push(row_of(line));
    }
    if lines.len() > 1 {
        section.parts.push(Part::Text(shared(&lines)));
    }
    section.parts.push(Part::Table(table));
    Ok(section)
}

/// Describes how much storage the versions share.
fn shared(lines: &[VersionLine]) -> String {
    let held = lines.iter().filter_map(|line| line.held.as_ref());
    let (mut all_bytes, mut stored_bytes) = (0, 0);
    for held in held.filter(|held| held.data) {
        all_bytes += held.bytes;
        stored_bytes += held.new_bytes;
    }
    format!(
        "The versions have {} in total. They take {}, because files that did not change are stored once.",
        bytes(all_bytes),
        bytes(stored_bytes)
    )
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
        held.map(|held| Cell::Measure(bytes(held.bytes))).into(),
        held.map(|held| Cell::Measure(bytes(held.new_bytes))).into(),
        Some(line.tags.join(", "))
            .filter(|tags| !tags.is_empty())
            .into(),
        changed.into(),
    ]
}
