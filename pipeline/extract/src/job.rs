//! The inputs of a run.

use std::path::PathBuf;

use wavemill_catalog::MetadataFiles;
use wavemill_schemas::recipe::Recipe;

/// The inputs of a run.
#[derive(Clone, Debug)]
pub struct Job {
    /// The recipe, with every `--set` applied.
    pub recipe: Recipe,
    /// The files of the metadata.
    pub metadata: MetadataFiles,
    /// Folder or zip with the audio.
    pub audio: PathBuf,
    /// The store, which is created if it does not exist.
    pub store: PathBuf,
    /// A file of splits (`--sides`). Its splits are kept as if the previous version had assigned them.
    pub sides: Option<PathBuf>,
}
