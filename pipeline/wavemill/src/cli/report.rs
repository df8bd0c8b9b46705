//! `wavemill report`: shows a version of a store as an HTML page.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use wavemill_pages::Page;
use wavemill_schemas::manifest::Manifest;
use wavemill_schemas::text::{error_line, shown};
use wavemill_source as source;
use wavemill_source::{Media, Source, SourceError};
use wavemill_sql::Limits;
use wavemill_store::Store;
use wavemill_terminal::exit::UsageError;
use wavemill_terminal::files::{require_replaceable, write_text};

use super::{VersionArgs, print_report, require_outside};
use crate::report::{self, Subject};

const EXAMPLES: &str = "\
Examples:
  wavemill report --store store
  wavemill report --store store --version paper --out paper.html
  wavemill report --store store --audio fma_large.zip    # with players

The page is a self-contained HTML file. An existing page of wavemill is replaced, but no other file. Only a few rows of \
each class are read from the features.
With --audio, the page has a player with up to 10 s of a typical track of each class. It lists the tracks that the \
archive does not contain, or contains as another recording.";

/// Memory limit of the page's queries in bytes; the queries read only small columns.
const MEMORY_BYTES: usize = 1 << 30;

/// Create a page that shows the contents of a version
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ReportCommand {
    #[command(flatten)]
    read: VersionArgs,
    /// Folder or zip of the audio from which the version was made: typical tracks get a player
    #[arg(long, value_name = "PATH")]
    audio: Option<PathBuf>,
    /// Output file [default: report-VERSION.html in the current folder]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print the page's path, size and sections as JSON on stdout
    #[arg(long)]
    json: bool,
}

/// The JSON object that `report --json` prints.
#[derive(Debug, Serialize)]
struct Written<'a> {
    /// Number of the version.
    version: u64,
    /// Path of the page.
    out: &'a Path,
    /// Size of the page in bytes.
    bytes: usize,
    /// Titles of the page's sections, in order.
    sections: Vec<&'a str>,
    /// Time to create the page, in seconds.
    seconds: f64,
}

impl ReportCommand {
    /// Creates the page of the requested version and writes it to a file.
    ///
    /// # Errors
    /// [`UsageError`] for an invalid argument; `StoreError` or `SqlError` if the version cannot be read.
    pub fn run(&self) -> Result<u8> {
        let start = Instant::now();
        let (store, version, manifest) = self.read.open()?;
        let out = match &self.out {
            Some(out) => out.clone(),
            None => format!("report-{version}.html").into(),
        };
        require_outside(&store, &out)?;
        // The output path is checked before the page is built, which may take seconds.
        require_replaceable("--out", &out, "page", Page::is_ours)?;
        let archive = self.archive(version, &manifest)?;

        let page = page_of(&store, version, &manifest, archive.as_deref())?;
        let html = page.to_html();
        write_text("--out", &out, &html)?;

        let sections = page.sections.iter();
        let written = Written {
            version,
            out: &out,
            bytes: html.len(),
            sections: sections.map(|section| section.title.as_str()).collect(),
            seconds: start.elapsed().as_secs_f64(),
        };
        print_report(&written, self.json, || {
            format!(
                "version {version}: {} ({}, {} sections, {:.1} s)\n",
                shown(&out.display().to_string()),
                wavemill_pages::bytes(html.len() as u64),
                page.sections.len(),
                written.seconds
            )
        })
    }

    /// Opens the archive of audio if `--audio` is given.
    fn archive(&self, version: u64, manifest: &Manifest) -> Result<Option<Box<dyn Source>>> {
        let Some(path) = &self.audio else {
            return Ok(None);
        };
        if manifest.recipe.catalog.dataset.is_of_pictures() {
            let message =
                format!("--audio: version {version} was made from pictures and has no audio");
            return Err(UsageError(message).into());
        }

        // Links out of the archive are not followed: they may lead to any file, and a page is meant to be shared.
        let archive = source::open(path, Media::Audio, false);
        let archive = archive.map_err(|error| {
            let message = error_line(&error);
            match error {
                SourceError::NotAPlace { .. } => UsageError(message),
                _ => UsageError(format!("--audio: {message}")),
            }
        })?;
        Ok(Some(archive))
    }
}

/// Builds the page of a version, with sounds if the archive is given.
///
/// # Errors
/// `StoreError` or `SqlError` if the version cannot be read.
pub(super) fn page_of(
    store: &Store,
    version: u64,
    manifest: &Manifest,
    archive: Option<&dyn Source>,
) -> Result<Page> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let limits = Limits {
        memory_bytes: MEMORY_BYTES,
        threads,
        allow_write: false,
    };
    let tags = store.tags()?;
    let subject = Subject {
        store,
        version,
        manifest,
        tags: &tags,
    };
    Ok(report::page(subject, limits, archive)?)
}
