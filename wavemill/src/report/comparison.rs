//! What differs between two versions, as a page of its own: counts, tracks, classes, rejects, recipe and files. It
//! answers what `wavemill diff` answers, with more examples.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use wavemill_extract::incremental::changes::{DataChanges, EXAMPLES, Listed, State};
use wavemill_pages::{Cell, Fact, Page, Part, Section, Table, bytes, count};
use wavemill_schemas::manifest::Manifest;
use wavemill_store::{Change, Diff};

use super::{Subject, cleaning, fact};

/// The page of two versions of one store.
pub(crate) fn page(from: Subject<'_>, to: Subject<'_>) -> Page {
    let diff = Diff::new(from.manifest, to.manifest);
    let data = data_changes(from, to);
    let sections = vec![
        counts(from, to),
        tracks(data.as_ref()),
        classes(data.as_ref()),
        rejects(from, to),
        recipe(&diff),
        files(&diff),
    ];

    Page {
        title: format!(
            "{}, versions {} and {}",
            to.manifest.recipe.name, from.version, to.version
        ),
        lead: lead(from, to),
        facts: facts(from.manifest, to.manifest, data.as_ref()),
        // Where nothing differs, nothing is shown.
        sections: sections
            .into_iter()
            .filter(|section| !section.parts.is_empty())
            .collect(),
        about: about(from, to, &diff, data),
    }
}

/// What differs between the tracks; `None` where the data of one of the versions cannot be read.
fn data_changes(from: Subject<'_>, to: Subject<'_>) -> Option<DataChanges> {
    let before = State::of_version(from.store, from.manifest).ok()?;
    let now = State::of_version(to.store, to.manifest).ok()?;
    Some(DataChanges::between(&before, &now))
}

/// The answer of `wavemill diff --json`, for programs.
fn about(from: Subject<'_>, to: Subject<'_>, diff: &Diff, data: Option<DataChanges>) -> Value {
    let data = data.map(|mut data| {
        data.shorten(EXAMPLES);
        data
    });
    json!({
        "page": "comparison",
        "versions": [from.version, to.version],
        "plan_ids": [from.manifest.plan_id, to.manifest.plan_id],
        "diff": diff,
        "data": data,
    })
}

fn lead(from: Subject<'_>, to: Subject<'_>) -> String {
    let mut words = "What differs between two versions of a feature store of wavemill.".to_owned();
    for side in [from, to] {
        let tags = side.tags.of(side.version);
        if !tags.is_empty() {
            words += &format!(" Version {} is tagged {}.", side.version, tags.join(", "));
        }
    }
    words
}

fn facts(from: &Manifest, to: &Manifest, data: Option<&DataChanges>) -> Vec<Fact> {
    let mut facts = vec![
        fact(
            "clips with features",
            count(to.counts.clips_written),
            change_words(from.counts.clips_written, to.counts.clips_written),
        ),
        fact(
            "rows of each feature",
            count(to.counts.feature_rows),
            change_words(from.counts.feature_rows, to.counts.feature_rows),
        ),
        fact(
            "rejects",
            count(rejects_of(to)),
            change_words(rejects_of(from), rejects_of(to)),
        ),
    ];

    if let Some(data) = data {
        let counted = [
            ("tracks added", data.added.count),
            ("tracks removed", data.removed.count),
            ("labels changed", data.relabelled.count),
            ("tracks on another side", data.moved.count),
        ];
        for (name, n) in counted {
            facts.push(fact(name, count(n as u64), String::new()));
        }
    }
    facts
}

/// `+12, was 300`, or `as before`.
fn change_words(before: u64, now: u64) -> String {
    if before == now {
        return "as before".to_owned();
    }
    format!("{}, was {}", difference(before, now), count(before))
}

/// `+12`, `−3`, `0`.
fn difference(before: u64, now: u64) -> String {
    let size = count(now.abs_diff(before));
    match now.cmp(&before) {
        std::cmp::Ordering::Greater => format!("+{size}"),
        std::cmp::Ordering::Less => format!("−{size}"),
        std::cmp::Ordering::Equal => size,
    }
}

fn rejects_of(manifest: &Manifest) -> u64 {
    manifest.counts.rejects.values().sum()
}

fn counts(from: Subject<'_>, to: Subject<'_>) -> Section {
    let mut section = Section::new("Counts");
    let mut table = counted_table("", "what", from, to);
    let before = &from.manifest.counts;
    let now = &to.manifest.counts;
    for (name, before, now) in [
        ("rows of the metadata", before.rows_read, now.rows_read),
        ("rows kept by cleaning", before.rows_kept, now.rows_kept),
        ("clips planned", before.clips_planned, now.clips_planned),
        (
            "clips with features",
            before.clips_written,
            now.clips_written,
        ),
        (
            "rows of each feature",
            before.feature_rows,
            now.feature_rows,
        ),
    ] {
        table.rows.push(counted_row(name, before, now));
    }

    let [bytes_before, bytes_now] = [from, to].map(stored_bytes);
    table.rows.push(vec![
        "size".into(),
        Cell::Measure(bytes(bytes_before)),
        Cell::Measure(bytes(bytes_now)),
        Cell::None,
    ]);
    section.parts.push(Part::Table(table));

    let charts = [from, to].map(|side| {
        let title = format!("Rows after each step, version {}", side.version);
        cleaning::chart(side.manifest, &title)
    });
    section.parts.push(Part::Charts(charts.to_vec()));
    section
}

fn stored_bytes(side: Subject<'_>) -> u64 {
    side.manifest.files.iter().map(|file| file.bytes).sum()
}

/// A table of counts in both versions.
fn counted_table(caption: &str, named: &str, from: Subject<'_>, to: Subject<'_>) -> Table {
    let before = format!("version {}", from.version);
    let now = format!("version {}", to.version);
    Table::new(
        caption,
        &[named, before.as_str(), now.as_str(), "difference"],
    )
}

fn counted_row(name: &str, before: u64, now: u64) -> Vec<Cell> {
    vec![
        name.into(),
        Cell::Count(before),
        Cell::Count(now),
        Cell::Measure(difference(before, now)),
    ]
}

fn tracks(data: Option<&DataChanges>) -> Section {
    let mut section = Section::new("Tracks");
    let Some(data) = data else {
        let words = "Tracks are not compared: the data of one of the versions is lost, damaged or removed by \
                     `wavemill gc`.";
        section.parts.push(Part::Warning(words.to_owned()));
        return section;
    };

    let words = data.words();
    if words.is_empty() {
        let none = "The tracks are the same, with the same labels, sides, files and features.";
        section.parts.push(Part::Text(none.to_owned()));
    }
    for sentence in words {
        section.parts.push(Part::Text(sentence));
    }

    list_keys(&mut section, "Tracks added", &data.added);
    list_keys(&mut section, "Tracks removed", &data.removed);
    list_keys(&mut section, "Files replaced", &data.replaced);
    list_keys(&mut section, "Files with other tags", &data.retagged);
    list(
        &mut section,
        "Tracks renamed",
        &["before", "now"],
        &data.renamed,
        |renamed| vec![renamed.from.as_str().into(), renamed.to.as_str().into()],
    );
    list(
        &mut section,
        "Labels changed",
        &["clip", "target", "before", "now"],
        &data.relabelled,
        |label| {
            vec![
                label.clip_key.as_str().into(),
                label.target.as_str().into(),
                label.from.clone().into(),
                label.to.clone().into(),
            ]
        },
    );
    list(
        &mut section,
        "Tracks on another side",
        &["clip", "before", "now"],
        &data.moved,
        |moved| {
            vec![
                moved.clip_key.as_str().into(),
                moved.from.as_str().into(),
                moved.to.as_str().into(),
            ]
        },
    );
    section
}

fn list_keys(section: &mut Section, what: &str, keys: &Listed<String>) {
    list(section, what, &["clip"], keys, |key| {
        vec![key.as_str().into()]
    });
}

/// The rows of one kind of change, behind a line to click on.
fn list<T>(
    section: &mut Section,
    what: &str,
    head: &[&str],
    listed: &Listed<T>,
    row: impl Fn(&T) -> Vec<Cell>,
) {
    if listed.count == 0 {
        return;
    }
    let mut table = Table::new("", head);
    table.rows = listed.rows.iter().map(row).collect();
    let summary = format!("{what} ({})", count(listed.count as u64));
    section.parts.push(Part::Details(summary, table));
}

fn classes(data: Option<&DataChanges>) -> Section {
    let mut section = Section::new("Classes");
    for (target, classes) in data.into_iter().flat_map(|data| &data.classes) {
        let caption = format!("Clips of each class of {target}, where their number differs");
        let mut table = Table::new(&caption, &["class", "before", "now", "difference"]);
        for (class, clips) in classes {
            table
                .rows
                .push(counted_row(class, clips.before, clips.after));
        }
        section.parts.push(Part::Table(table));
    }
    section
}

fn rejects(from: Subject<'_>, to: Subject<'_>) -> Section {
    let mut section = Section::new("Rejects");
    let before = &from.manifest.counts.rejects;
    let now = &to.manifest.counts.rejects;
    let reasons: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let mut table = counted_table("", "reason", from, to);
    for reason in reasons {
        let [was, is] = [before, now].map(|rejects| rejects.get(reason).copied().unwrap_or(0));
        if was > 0 || is > 0 {
            table.rows.push(counted_row(reason, was, is));
        }
    }
    if !table.rows.is_empty() {
        section.parts.push(Part::Table(table));
    }
    section
}

fn recipe(diff: &Diff) -> Section {
    let mut section = Section::new("Recipe and engine");
    if !diff.recipe.is_empty() {
        let table = changes_table("Keys of the recipe that differ", &diff.recipe);
        section.parts.push(Part::Table(table));
    }
    if !diff.manifest.is_empty() {
        let table = changes_table("", &diff.manifest);
        let summary = "What else differs in the manifests".to_owned();
        section.parts.push(Part::Details(summary, table));
    }
    section
}

/// Keys with their values before and now.
pub(super) fn changes_table(caption: &str, changes: &[Change]) -> Table {
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

fn files(diff: &Diff) -> Section {
    let mut section = Section::new("Files");
    section.parts.push(Part::Text(files_words(diff)));

    for (what, paths) in [
        ("Files changed", &diff.files_changed),
        ("Files new", &diff.files_added),
        ("Files gone", &diff.files_removed),
    ] {
        if paths.is_empty() {
            continue;
        }

        let mut table = Table::new("", &["file"]);
        table.rows = paths
            .iter()
            .map(|path| vec![path.as_str().into()])
            .collect();
        let summary = format!("{what} ({})", count(paths.len() as u64));
        section.parts.push(Part::Details(summary, table));
    }
    section
}

/// `12 files are equal, 1 changed, 2 are new and 0 are gone.`
pub(super) fn files_words(diff: &Diff) -> String {
    format!(
        "{} files are equal, {} changed, {} are new and {} are gone.",
        diff.files_equal,
        diff.files_changed.len(),
        diff.files_added.len(),
        diff.files_removed.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_have_a_sign() {
        assert_eq!(difference(3, 12_345), "+12,342");
        assert_eq!(difference(3, 0), "−3");
        assert_eq!(difference(7, 7), "0");
        assert_eq!(change_words(7, 7), "as before");
        assert_eq!(change_words(7, 9), "+2, was 7");
    }
}
