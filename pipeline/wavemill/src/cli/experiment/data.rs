//! Finds an experiment's archives, and checks whether they are the published ones.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Instant, UNIX_EPOCH};

use anyhow::{Context, Result};
use clap::Args;
use indicatif::DecimalBytes;
use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};
use wavemill_schemas::experiment::{DataSpec, PublishedArchive};
use wavemill_schemas::recipe::Dataset;
use wavemill_terminal::display::Ticker;
use wavemill_terminal::exit::UsageError;
use wavemill_terminal::output::{self, OutputArgs, ProgressFormat, report};

/// Size of the blocks in which an archive is read to compute its sha1.
const BLOCK_BYTES: usize = 1 << 20;

/// Paths of metadata and audio given on the command line.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct DataPaths {
    /// Folder that contains the archives
    #[arg(long = "data", value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// Folder, zip or file of the metadata, instead of one in --data
    #[arg(long, value_name = "PATH")]
    pub metadata: Option<PathBuf>,
    /// Folder or zip of the audio, instead of one in --data
    #[arg(long, value_name = "PATH")]
    pub audio: Option<PathBuf>,
}

/// Paths of metadata and audio, in the form that `extract` expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FoundData {
    /// Path of the metadata; `None` for a data set without metadata.
    pub metadata: Option<PathBuf>,
    /// Path of the folder or zip that contains the audio.
    pub audio: PathBuf,
}

/// Size, modification time and sha1 of an archive whose sha1 matched the published one. The archive is not read again
/// while its size and modification time are the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CheckedArchive {
    bytes: u64,
    mtime_ns: u128,
    sha1: String,
}

/// Checked archives, by the path of the archive.
pub(super) type CheckedArchives = BTreeMap<String, CheckedArchive>;

impl DataPaths {
    /// Returns the paths of metadata and audio: those of the command line, otherwise those that `spec` names.
    ///
    /// # Errors
    /// [`UsageError`] if an archive does not exist; the message names the flag that provides it.
    pub(super) fn find(&self, spec: &DataSpec, dataset: Dataset) -> Result<FoundData, UsageError> {
        let audio = match &self.audio {
            Some(audio) => audio.clone(),
            None => self.audio_below(spec, dataset)?,
        };

        // A data set of folders needs no metadata: only the user knows the path of a list of tracks, if there is one.
        let needs_metadata = matches!(dataset, Dataset::Fma | Dataset::Table);
        let metadata = match &self.metadata {
            Some(metadata) => Some(metadata.clone()),
            None if needs_metadata => Some(self.below("metadata", &spec.metadata)?),
            None => None,
        };
        Ok(FoundData { metadata, audio })
    }

    fn audio_below(&self, spec: &DataSpec, dataset: Dataset) -> Result<PathBuf, UsageError> {
        let found = self.below("audio", &spec.audio);
        match (&self.folder, found) {
            // In a data set with one folder per genre, the given folder may itself contain the genre folders.
            (Some(folder), Err(_)) if dataset.is_of_folders() && folder.is_dir() => {
                Ok(folder.clone())
            }
            (_, found) => found,
        }
    }

    /// Returns the path of the first of `names` that exists in the folder.
    fn below(&self, what: &str, names: &[String]) -> Result<PathBuf, UsageError> {
        // An experiment over folders names no metadata, but its recipe can be changed to a data set that needs some.
        if names.is_empty() {
            return Err(UsageError(format!(
                "no {what}: the experiment names none: give --{what} PATH"
            )));
        }
        let Some(folder) = &self.folder else {
            return Err(UsageError(format!(
                "no {what}: give the folder that contains {} with --data DIR, or the {what} itself with --{what} PATH",
                names.join(" or ")
            )));
        };

        for path in names.iter().map(|name| folder.join(name)) {
            match path.try_exists() {
                Ok(true) => return Ok(path),
                Ok(false) => {}
                Err(error) => {
                    let path = path.display();
                    return Err(UsageError(format!("{path}: cannot access it: {error}")));
                }
            }
        }

        Err(UsageError(format!(
            "--data {}: contains none of {}: give the {what} itself with --{what} PATH",
            folder.display(),
            names.join(", ")
        )))
    }
}

impl FoundData {
    /// Compares the sha1 of each archive that has a published name with the published sha1. Archives that are unchanged
    /// since they were added to `known` are not read again; newly read ones are added to it.
    ///
    /// # Errors
    /// [`UsageError`] if the content of an archive differs from the published one; an I/O error if it cannot be read.
    pub(super) fn check_published(
        &self,
        published: &[PublishedArchive],
        known: &mut CheckedArchives,
    ) -> Result<()> {
        for path in self.metadata.iter().chain([&self.audio]) {
            let name = path.file_name().unwrap_or_default();
            let Some(published) = published.iter().find(|one| name == one.name.as_str()) else {
                continue;
            };
            // A folder with the name of an archive was unpacked by the user: there is no checksum to compare it with.
            if !path.is_file() {
                continue;
            }

            let checked = checked(path, known)?;
            if checked.sha1 != published.sha1 {
                return Err(UsageError(format!(
                    "{}: its sha1 is {}, but {} was published with {}: download it again, or skip this check with \
                     --any-data",
                    path.display(),
                    checked.sha1,
                    published.name,
                    published.sha1
                ))
                .into());
            }
            known.insert(path.to_string_lossy().into_owned(), checked);
        }
        Ok(())
    }
}

/// Returns an archive's size, time and sha1. Reads the archive only if its size or time differs from the known one.
fn checked(path: &Path, known: &CheckedArchives) -> Result<CheckedArchive> {
    let cannot_read = || format!("cannot read {}", path.display());
    let file = File::open(path).with_context(cannot_read)?;
    let found = file.metadata().with_context(cannot_read)?;
    let bytes = found.len();
    let since_epoch = found
        .modified()
        .ok()
        .and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let mtime_ns = since_epoch.map_or(0, |since| since.as_nanos());

    if let Some(known) = known.get(&*path.to_string_lossy())
        && known.bytes == bytes
        && known.mtime_ns == mtime_ns
    {
        return Ok(known.clone());
    }

    report(&format!(
        "checking {} ({})\n",
        path.display(),
        DecimalBytes(bytes)
    ));
    let sha1 = sha1_of(file, bytes).with_context(cannot_read)?;
    Ok(CheckedArchive {
        bytes,
        mtime_ns,
        sha1,
    })
}

/// Computes the sha1 of a file and reports progress.
fn sha1_of(mut file: File, bytes: u64) -> Result<String> {
    let mut ticker = Ticker::new(output::interval()?);
    let is_told = OutputArgs::get().shown() != ProgressFormat::None;
    let start = Instant::now();

    let mut hasher = Sha1::new();
    let mut block = vec![0; BLOCK_BYTES];
    let mut done = 0;
    loop {
        let read = file.read(&mut block)?;
        if read == 0 {
            break;
        }
        hasher.update(&block[..read]);
        done += read as u64;

        if is_told && ticker.is_due(start.elapsed()) {
            wavemill_terminal::say!(
                "wavemill: checking: {} of {}",
                DecimalBytes(done),
                DecimalBytes(bytes)
            );
        }
    }

    let digest = hasher.finalize();
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> DataSpec {
        DataSpec {
            metadata: vec!["m.zip".to_owned(), "m".to_owned()],
            audio: vec!["a.zip".to_owned(), "a".to_owned()],
            // The sha1 of the three letters abc, from FIPS 180.
            published: vec![PublishedArchive {
                name: "m.zip".to_owned(),
                sha1: "a9993e364706816aba3e25717850c26c9cd0d89d".to_owned(),
            }],
        }
    }

    #[test]
    fn the_first_name_that_is_there_is_taken_and_flags_win() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        std::fs::create_dir(root.join("a")).expect("disk space");
        std::fs::write(root.join("m.zip"), "abc").expect("disk space");
        std::fs::create_dir(root.join("m")).expect("disk space");

        let mut asked = DataPaths {
            folder: Some(folder.path().to_owned()),
            ..DataPaths::default()
        };

        let found = asked.find(&spec(), Dataset::Fma).expect("both");
        assert_eq!(
            (found.metadata, found.audio),
            (Some(root.join("m.zip")), root.join("a"))
        );

        asked.audio = Some(root.join("mine"));
        let unnamed = DataSpec {
            metadata: Vec::new(),
            ..spec()
        };
        let error = asked.find(&unnamed, Dataset::Fma).expect_err("no name");
        assert!(
            error
                .to_string()
                .contains("names none: give --metadata PATH"),
            "{error}"
        );

        let found = asked.find(&spec(), Dataset::Folders).expect("no metadata");
        assert_eq!((found.metadata, found.audio), (None, root.join("mine")));

        let none = DataPaths::default()
            .find(&spec(), Dataset::Fma)
            .expect_err("nowhere");
        assert!(none.to_string().contains("--data DIR"), "{none}");
    }

    #[test]
    fn an_archive_is_read_once_and_another_content_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("m.zip");
        let data = FoundData {
            metadata: Some(path.clone()),
            audio: folder.path().to_owned(),
        };
        let mut known = CheckedArchives::new();

        std::fs::write(&path, "abc").expect("disk space");
        data.check_published(&spec().published, &mut known)
            .expect("as published");
        assert_eq!(known.len(), 1);

        data.check_published(&spec().published, &mut known)
            .expect("known");

        std::fs::write(&path, "abcd").expect("disk space");
        let error = data
            .check_published(&spec().published, &mut known)
            .expect_err("another");
        let message = error.to_string();
        assert!(
            message.contains("was published with a9993e") && message.contains("--any-data"),
            "{message}"
        );
    }
}
