//! Reads the inputs of a run: the index of the audio, the cleaned rows, and the copies of recordings. Nothing is
//! written.

use std::path::Path;
use std::sync::Arc;

use wavemill_catalog as catalog;
use wavemill_catalog::{CatalogError, CleanedRows, FileAccount};
use wavemill_runtime::progress::Progress;
use wavemill_schemas::recipe::{Dataset, Recipe};
use wavemill_source as source;
use wavemill_source::{ListedClip, Media, Source};

use super::copies::Copies;
use crate::error::ExtractError;
use crate::incremental::parent::{self, GivenSplits};
use crate::job::Job;
use crate::settings::Settings;

/// The inputs of a run.
pub(crate) struct Input {
    /// Folder or zip from which the clips' files are read.
    pub source: Box<dyn Source>,
    /// Cleaned rows without splits, because splits also depend on the latest version in the store.
    pub cleaned: CleanedRows,
    /// Account of the files below the audio root: which ones are used, and why the others are not.
    pub files: FileAccount,
    /// Copies of recordings, if `split.group_duplicates` is set.
    pub copies: Copies,
    /// Splits read from `--sides`, to keep instead of those of the previous version.
    pub given_splits: Option<GivenSplits>,
}

impl Input {
    /// Lists the audio and cleans the metadata. The store is not read.
    ///
    /// # Errors
    /// An error of the kind `Usage` for a store inside the audio folder, one of the kind `Interrupted`, and the errors
    /// of listing and cleaning.
    pub(crate) fn open(
        job: &Job,
        settings: &Settings,
        progress: &Arc<Progress>,
    ) -> Result<Self, ExtractError> {
        require_store_outside(job)?;
        let given_splits = job.sides.as_deref().map(parent::read_sides).transpose()?;
        // The audio is listed first, because cleaning may drop rows whose clip has no file.
        let source = open_source(&job.audio, &job.recipe, settings.allow_outside)?;
        let mut cleaned = clean(job, settings, &*source, progress)?;
        let files = cleaned.account_for(&*source, job.recipe.catalog.dataset);
        cleaned.warn_of(&files);

        Ok(Self {
            source,
            cleaned,
            files,
            copies: Copies::default(),
            given_splits,
        })
    }

    /// # Errors
    /// An error that names the step which dropped the last row.
    pub(crate) fn require_rows(&self) -> Result<(), ExtractError> {
        if !self.cleaned.is_empty() {
            return Ok(());
        }

        let emptied = self.cleaned.steps().iter().find(|step| step.kept == 0);
        let step = match emptied {
            Some(step) => format!("cleaning step `{}`", step.step),
            None => "reading the metadata".to_owned(),
        };
        Err(ExtractError::usage(format!(
            "no rows are left after {step}: see the rows after each step with --dry-run"
        )))
    }

    /// Returns the size of a clip's file in bytes; `None` if there is no file.
    pub(crate) fn audio_bytes(&self, clip_key: &str) -> Option<u64> {
        self.source.index().get(clip_key).map(|id| id.bytes)
    }
}

/// Rejects a store in the folder of the audio, where the next run would find the store's files.
fn require_store_outside(job: &Job) -> Result<(), ExtractError> {
    let (audio, store) = (job.audio.as_path(), job.store.as_path());
    if !audio.is_dir() || !wavemill_store::encloses(audio, store) {
        return Ok(());
    }
    Err(ExtractError::usage(format!(
        "--store {}: is inside the audio folder, where the next run would count its files as audio: choose a folder \
         outside {}",
        store.display(),
        audio.display()
    )))
}

/// Lists the clips of a recipe's data set in the folder or zip `audio`.
pub(crate) fn open_source(
    audio: &Path,
    recipe: &Recipe,
    allow_outside: bool,
) -> Result<Box<dyn Source>, ExtractError> {
    let mut source = source::open(audio, media_of(recipe), allow_outside)?;
    source.set_bytes_max(recipe.file_bytes_max());
    Ok(source)
}

/// Opens some of the clips that [`open_source`] listed. `root` is the path of the audio root in `audio`.
pub(crate) fn reopen_source(
    audio: &Path,
    recipe: &Recipe,
    root: &str,
    clips: Vec<ListedClip>,
) -> Result<Box<dyn Source>, ExtractError> {
    let mut source = source::reopen(audio, media_of(recipe), root, clips)?;
    source.set_bytes_max(recipe.file_bytes_max());
    Ok(source)
}

fn media_of(recipe: &Recipe) -> Media {
    match recipe.catalog.dataset {
        Dataset::Images => Media::Pictures,
        Dataset::Fma | Dataset::Folders | Dataset::Table => Media::Audio,
    }
}

fn clean(
    job: &Job,
    settings: &Settings,
    source: &dyn Source,
    progress: &Arc<Progress>,
) -> Result<CleanedRows, ExtractError> {
    let cleaned = catalog::clean(
        &job.recipe,
        &job.metadata,
        source.index(),
        settings.into(),
        progress,
    );

    // The catalog's error does not contain the phase in which the job was stopped, so `progress` supplies it.
    cleaned.map_err(|error| match error {
        CatalogError::Stopped => ExtractError::stopped_while(progress.phase()),
        CatalogError::NoAudio { rows, example, .. } => {
            let hint = catalog::hint_of_file(&example, source);
            CatalogError::NoAudio {
                rows,
                example,
                hint,
            }
            .into()
        }
        error => error.into(),
    })
}
