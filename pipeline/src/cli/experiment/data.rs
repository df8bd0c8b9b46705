//! Where an experiment's archives are, and whether they are the published ones.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Instant, UNIX_EPOCH};

use anyhow::{Context, Result};
use indicatif::DecimalBytes;
use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};
use wavemill_schemas::experiment::{DataSpec, PublishedArchive};
use wavemill_schemas::recipe::Dataset;

use crate::cli::exit::UsageError;
use crate::cli::output::{self, OutputArgs, Progress, report};

/// How much of an archive is held while its sha1 is taken.
const BLOCK_BYTES: usize = 1 << 20;

/// What the command line says of the data.
#[derive(Clone, Debug, Default)]
pub(super) struct AskedData {
    /// The folder that holds both.
    pub folder: Option<PathBuf>,
    /// Instead of what lies in it.
    pub metadata: Option<PathBuf>,
    /// Instead of what lies in it.
    pub audio: Option<PathBuf>,
}

/// Metadata and audio, as `extract` takes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FoundData {
    /// None for a data set without.
    pub metadata: Option<PathBuf>,
    /// Folder or zip.
    pub audio: PathBuf,
}

/// A file whose sha1 was found to be the published one. While the stamp is the same, it is not read again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CheckedArchive {
    bytes: u64,
    mtime_ns: u128,
    sha1: String,
}

/// By path.
pub(super) type CheckedArchives = BTreeMap<String, CheckedArchive>;

impl AskedData {
    /// The archives that `spec` names, or those that were given instead.
    ///
    /// # Errors
    /// [`UsageError`]: one is not there, and what can be typed.
    pub(super) fn find(&self, spec: &DataSpec, dataset: Dataset) -> Result<FoundData, UsageError> {
        let audio = match &self.audio {
            Some(audio) => audio.clone(),
            None => self.audio_below(spec, dataset)?,
        };

        // Folders may have a list of their own beside them, which only the user knows.
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
            // One folder a genre: the folder may be that of the genres itself.
            (Some(folder), Err(_)) if dataset.is_of_folders() && folder.is_dir() => {
                Ok(folder.clone())
            }
            (_, found) => found,
        }
    }

    /// Returns the path of the first of `names` that is in the folder.
    fn below(&self, what: &str, names: &[String]) -> Result<PathBuf, UsageError> {
        // An experiment over folders needs no metadata, but its recipe can be changed to a data set that does.
        if names.is_empty() {
            return Err(UsageError(format!(
                "where is the {what}? The experiment names none: --{what} PATH does"
            )));
        }
        let Some(folder) = &self.folder else {
            return Err(UsageError(format!(
                "where is the {what}? --data DIR names the folder that holds {}, --{what} PATH the {what} itself",
                names.join(" or ")
            )));
        };

        for path in names.iter().map(|name| folder.join(name)) {
            match path.try_exists() {
                Ok(true) => return Ok(path),
                Ok(false) => {}
                Err(error) => {
                    let path = path.display();
                    return Err(UsageError(format!("{path}: cannot look at it: {error}")));
                }
            }
        }

        Err(UsageError(format!(
            "--data {}: holds none of {}: --{what} PATH names the {what} itself",
            folder.display(),
            names.join(", ")
        )))
    }
}

impl FoundData {
    fn paths(&self) -> impl Iterator<Item = &Path> {
        self.metadata
            .iter()
            .chain([&self.audio])
            .map(PathBuf::as_path)
    }

    /// Compares the archives that carry a published name with what was published. What is in `known` unchanged is not
    /// read again; what was read is added to it.
    ///
    /// # Errors
    /// [`UsageError`] where the content is another one; a file that cannot be read.
    pub(super) fn check_published(
        &self,
        published: &[PublishedArchive],
        known: &mut CheckedArchives,
    ) -> Result<()> {
        for path in self.paths() {
            let name = path.file_name().unwrap_or_default();
            let Some(published) = published.iter().find(|one| name == one.name.as_str()) else {
                continue;
            };
            // A folder of that name was unpacked by somebody: there is no sum to compare it with.
            if !path.is_file() {
                continue;
            }

            let checked = checked(path, known)?;
            if checked.sha1 != published.sha1 {
                return Err(UsageError(format!(
                    "{}: its sha1 is {}, and {} was published with {}: fetch it again, or run on it as it is with \
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

/// A file's stamp and sha1; read only where the stamp is not the one that is known.
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

/// The sha1 of a file, told as it goes.
fn sha1_of(mut file: File, bytes: u64) -> Result<String> {
    let every = output::interval()?;
    let is_told = OutputArgs::get().shown() != Progress::None;
    let start = Instant::now();
    let mut next = every;

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

        let elapsed = start.elapsed();
        if is_told && elapsed >= next {
            next = elapsed + every;
            eprintln!(
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
            // Of the three letters abc, from FIPS 180.
            published: vec![PublishedArchive {
                name: "m.zip".to_owned(),
                sha1: "a9993e364706816aba3e25717850c26c9cd0d89d".to_owned(),
            }],
        }
    }

    #[test]
    fn the_first_name_that_is_there_is_taken_and_flags_win() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("a")).expect("room");
        std::fs::write(at("m.zip"), "abc").expect("room");
        std::fs::create_dir(at("m")).expect("room");

        let mut asked = AskedData {
            folder: Some(folder.path().to_owned()),
            ..AskedData::default()
        };
        let found = asked.find(&spec(), Dataset::Fma).expect("both");
        assert_eq!((found.metadata, found.audio), (Some(at("m.zip")), at("a")));
        asked.audio = Some(at("mine"));
        let unnamed = DataSpec {
            metadata: Vec::new(),
            ..spec()
        };
        let error = asked.find(&unnamed, Dataset::Fma).expect_err("no name");
        assert!(
            error.to_string().contains("names none: --metadata PATH"),
            "{error}"
        );
        let found = asked.find(&spec(), Dataset::Folders).expect("no metadata");
        assert_eq!((found.metadata, found.audio), (None, at("mine")));

        let none = AskedData::default()
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
        std::fs::write(&path, "abc").expect("room");
        data.check_published(&spec().published, &mut known)
            .expect("as published");
        assert_eq!(known.len(), 1);
        data.check_published(&spec().published, &mut known)
            .expect("known");

        std::fs::write(&path, "abcd").expect("room");
        let error = data
            .check_published(&spec().published, &mut known)
            .expect_err("another");
        let words = error.to_string();
        assert!(
            words.contains("was published with a9993e") && words.contains("--any-data"),
            "{words}"
        );
    }
}
