//! Builds an HTML page about a version of a store: the rows that were kept and dropped, the contents, leaks between the
//! splits, example spectrograms, and how the version was made.
//!
//! [`page`] builds the page with one function per section. Numbers come from the manifest if it contains them, and
//! otherwise from SQL over small columns. Only a bounded number of tensors is read, and only a few clips from the
//! archive if it is given. This module writes no files and never modifies the store.

mod answers;
mod audio;
mod bins;
mod cleaning;
mod columns;
mod excerpts;
mod features;
mod files;
mod made;
mod rejects;
mod spectrograms;
mod splits;
mod tracks;
mod versions;

use serde_json::json;
use wavemill_pages::{Fact, Page, bytes, count};
use wavemill_schemas::manifest::Manifest;
use wavemill_schemas::text::counted;
use wavemill_source::Source;
use wavemill_sql::{Limits, SqlError};
use wavemill_store::{Store, Tags};

use self::answers::Answers;

/// The version that a report describes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    /// The store that contains the version.
    pub store: &'a Store,
    /// Number of the version.
    pub version: u64,
    /// Manifest of the version.
    pub manifest: &'a Manifest,
    /// Tags of the store.
    pub tags: &'a Tags,
}

/// Builds the page of a version. If `archive` is given, the page includes the audio of typical rows.
///
/// # Errors
/// [`SqlError`] if a table or shard of the version is missing or damaged.
pub(crate) fn page(
    subject: Subject<'_>,
    limits: Limits,
    archive: Option<&dyn Source>,
) -> Result<Page, SqlError> {
    let answers = Answers::open(subject, limits)?;
    let profiles = columns::profiles(&answers)?;
    let sections = vec![
        cleaning::section(subject.manifest),
        tracks::section(&answers, &profiles)?,
        columns::section(profiles),
        splits::section(&answers)?,
        rejects::section(&answers)?,
        files::section(&answers)?,
        audio::section(&answers)?,
        features::section(subject.manifest),
        spectrograms::section(&answers, archive)?,
        made::section(subject),
        versions::section(subject)?,
    ];

    let manifest = subject.manifest;
    let title = format!("{}, version {}", manifest.recipe.name, subject.version);
    Ok(Page {
        facts: facts(manifest),
        about: json!({
            "page": "report",
            "version": subject.version,
            "plan_id": manifest.plan_id,
            "recipe": manifest.recipe.name,
            "counts": manifest.counts,
            "features": manifest.features,
        }),
        ..Page::new(title, lead(subject), sections)
    })
}

fn lead(subject: Subject<'_>) -> String {
    let manifest = subject.manifest;
    // Without the folders above it: the same page is shared, and made on other machines.
    let place = subject.store.place();
    let store = place.file_name().unwrap_or(place.as_os_str()).display();
    let mut message = format!("wavemill feature store {store}, plan {}.", manifest.plan_id);
    let description = manifest.recipe.description.trim_end_matches('.');
    if !description.is_empty() {
        message = format!("{description}. {message}");
    }
    let tags = subject.tags.of_version(subject.version);
    if !tags.is_empty() {
        message += &format!(" Tagged {}.", tags.join(", "));
    }
    message
}

fn facts(manifest: &Manifest) -> Vec<Fact> {
    let counts = &manifest.counts;
    let stored_bytes: u64 = manifest.files.iter().map(|file| file.bytes).sum();
    let features = manifest.features.iter();
    let features: Vec<&str> = features.map(|feature| feature.name.as_str()).collect();

    vec![
        Fact::new(
            "clips with features",
            count(counts.clips_written),
            format!("of {} planned", count(counts.clips_planned)),
        ),
        Fact::new(
            "rejects",
            count(counts.rejects.values().sum()),
            counted(counts.rejects.len() as u64, "reason"),
        ),
        Fact::new(
            "rows per feature",
            count(counts.feature_rows),
            features.join(", "),
        ),
        Fact::new(
            "metadata rows",
            count(counts.rows_read),
            format!("{} kept", count(counts.rows_kept)),
        ),
        Fact::new(
            "size",
            bytes(stored_bytes),
            counted(manifest.files.len() as u64, "file"),
        ),
    ]
}
