//! `wavemill report`: a version of a store as a page for people.

use std::fs::{self, File};
use std::io::{self, Read, Write, stdout};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use wavemill_pages::Page;
use wavemill_schemas::manifest::Manifest;
use wavemill_schemas::text::shown;
use wavemill_schemas::version_name::VersionName;

use super::exit::{self, UsageError};
use super::{cannot_write, output, write_whole};
use crate::report::{self, Subject};
use crate::source::{self, Media, Source};
use crate::sql::Limits;
use crate::store::Store;

const EXAMPLES: &str = "\
Examples:
  wavemill report --store store
  wavemill report --store store --version paper --out paper.html
  wavemill report --store store --audio fma_large.zip    # with players
  wavemill report --store store --json

The page is one HTML file that loads nothing. An earlier page of wavemill under its name is replaced, and any other \
file is left alone. Of features only a few rows of each class are read.
With --audio a typical track of each class can be heard: up to 10 s of it lie in the page itself. The page says which \
of them the archive does not have, or has as another recording.

Exit codes: 0 ok, 1 failed, 2 wrong usage, or no such store or version, 3 store damaged, 5 no space or read-only, \
130 interrupted (no page was written).";

/// Bytes that the questions may take; they read small columns.
const MEMORY_BYTES: usize = 1 << 30;

/// Make a page that shows what a version holds
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ReportCommand {
    /// The store's folder
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// Which version, by number or tag [default: the latest]
    #[arg(long, value_name = "VERSION")]
    version: Option<VersionName>,
    /// Folder or zip of the audio that the version was made of: typical tracks get a player
    #[arg(long, value_name = "PATH")]
    audio: Option<PathBuf>,
    /// The page [default: report-VERSION.html in the current folder]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Where it is, as JSON on stdout
    #[arg(long)]
    json: bool,
}

/// The answer of `report --json`.
#[derive(Debug, Serialize)]
struct Written<'a> {
    /// The version's number.
    version: u64,
    /// The page.
    out: &'a Path,
    /// Its size.
    bytes: usize,
    /// Its sections, in order.
    sections: Vec<&'a str>,
    /// How long it took.
    seconds: f64,
}

impl ReportCommand {
    /// Writes the page.
    ///
    /// # Errors
    /// [`UsageError`], `StoreError`, `ReportError`.
    pub fn run(&self) -> Result<()> {
        let start = Instant::now();
        let store = Store::open(&self.store)?;
        let (version, manifest) = store.readable(store.resolve(self.version.as_ref())?)?;
        let out = match &self.out {
            Some(out) => out.clone(),
            None => format!("report-{version}.html").into(),
        };
        // A store is only written by runs.
        if store.encloses(&out) {
            let words = format!("--out {}: not into the store itself", out.display());
            return Err(UsageError(words).into());
        }
        // Before the work, which may take seconds.
        require_replaceable(&out)?;
        let archive = self.archive(version, &manifest)?;

        let page = page_of(&store, version, &manifest, archive.as_deref())?;
        let html = page.to_html();
        write_page(&out, &html)?;

        let sections = page.sections.iter();
        let written = Written {
            version,
            out: &out,
            bytes: html.len(),
            sections: sections.map(|section| section.title.as_str()).collect(),
            seconds: start.elapsed().as_secs_f64(),
        };
        self.tell(&written)
    }

    /// What the version was made of, where that is given.
    fn archive(&self, version: u64, manifest: &Manifest) -> Result<Option<Box<dyn Source>>> {
        let Some(path) = &self.audio else {
            return Ok(None);
        };
        if manifest.recipe.catalog.dataset.is_of_pictures() {
            let words =
                format!("--audio: version {version} was made of pictures, and has no sound");
            return Err(UsageError(words).into());
        }

        // A link that leads out of the archive may lead to anything, and a page is there to be handed on.
        let archive = source::open(path, Media::Audio, false).map_err(|error| {
            let words = exit::words(&anyhow::Error::from(error));
            UsageError(format!("--audio: {words}"))
        })?;
        Ok(Some(archive))
    }

    fn tell(&self, written: &Written<'_>) -> Result<()> {
        if self.json {
            writeln!(stdout(), "{}", serde_json::to_string(written)?)?;
            return Ok(());
        }
        output::report(&format!(
            "version {}: {} ({}, {} sections, {:.1} s)\n",
            written.version,
            shown(&written.out.display().to_string()),
            wavemill_pages::bytes(written.bytes as u64),
            written.sections.len(),
            written.seconds
        ));
        Ok(())
    }
}

/// The page of a version, with sounds where the archive is given.
///
/// # Errors
/// `StoreError`, `ReportError`.
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

/// Writes a page, whole or not at all.
///
/// # Errors
/// As [`write_whole`].
pub(super) fn write_page(out: &Path, html: &str) -> Result<()> {
    write_whole(out, |mut file| {
        file.write_all(html.as_bytes())?;
        Ok(file.flush()?)
    })
}

/// Refuses to put a page in the place of a file that is none of ours.
///
/// # Errors
/// [`UsageError`].
pub(super) fn require_replaceable(out: &Path) -> Result<()> {
    match fs::metadata(out) {
        // `write_whole` says what is wrong with a path that cannot be a file.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(cannot_write(out, error)),
        // A pipe or a device takes what comes, and of a folder `write_whole` speaks. A pipe that is opened to be read would
        // be waited for.
        Ok(found) if !found.is_file() => return Ok(()),
        Ok(_) => {}
    }

    let file = File::open(out).map_err(|error| cannot_write(out, error))?;
    let mut head = Vec::new();
    file.take(HEAD_BYTES).read_to_end(&mut head)?;
    if head.is_empty() || Page::is_ours(&head) {
        return Ok(());
    }
    Err(UsageError(format!(
        "--out {}: a file that is no page of wavemill: name another one, or remove it",
        out.display()
    ))
    .into())
}

/// Enough of a file to tell whose it is.
const HEAD_BYTES: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_of_ours_are_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("page.html"), Page::default().to_html()).unwrap();
        std::fs::write(at("empty.html"), "").unwrap();
        std::fs::write(at("mine.html"), "<!DOCTYPE html><title>mine</title>").unwrap();
        for name in ["page.html", "empty.html", "new.html"] {
            assert!(require_replaceable(&at(name)).is_ok(), "{name}");
        }
        let refused = require_replaceable(&at("mine.html")).unwrap_err();
        assert!(refused.to_string().contains("no page of wavemill"));
    }
}
