//! Lists the store's versions. `wavemill diff` shows what changed between two of them.

use wavemill_pages::{Cell, Section, Table, bytes};
use wavemill_sql::SqlError;
use wavemill_store::VersionLine;

use super::Subject;

pub(super) fn section(subject: Subject<'_>) -> Result<Section, SqlError> {
    let mut section = Section::new("Versions");
    let lines = subject.store.history(subject.tags)?;
    if lines.len() > 1 {
        section.add_text(shared(&lines));
    }

    let size = |n| Cell::Measure(bytes(n));
    section.add_table(Table::of(
        "",
        &lines,
        &[
            ("version", &|of| of.version.into()),
            ("committed", &|of| of.committed.clone().into()),
            ("clips", &|of| {
                of.held.as_ref().map(|held| held.clips).into()
            }),
            ("rows", &|of| of.held.as_ref().map(|held| held.rows).into()),
            ("size", &|of| {
                of.held.as_ref().map(|held| size(held.bytes)).into()
            }),
            ("new", &|of| {
                of.held.as_ref().map(|held| size(held.new_bytes)).into()
            }),
            ("tags", &|of| match &of.tags[..] {
                [] => Cell::None,
                tags => tags.join(", ").into(),
            }),
            ("changed", &|of| {
                of.problem.as_ref().or(of.changed.as_ref()).cloned().into()
            }),
        ],
    ));
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
