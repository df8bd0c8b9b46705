//! The files of a data set's metadata: which of them are read, and how.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wavemill_runtime::progress::{CountingReader, Phase, Progress};
use wavemill_schemas::recipe::{CatalogSpec, CsvSpec, Dataset, is_plain_name};
use wavemill_source::AudioIndex;
use wavemill_source::metadata::{CONTENT_BYTES_MAX, Files};

use super::csv_text::{self, Header};
use super::engine::Engine;
use super::load::{self, CsvFile, ParsedMetadata, TableFormat};
use super::{CatalogError, CatalogSettings, extra, folders};

/// The files of a data set's metadata.
#[derive(Clone, Debug, Default)]
pub struct MetadataFiles {
    /// Folder, zip or main file; optional for `folders` and `images`.
    pub main: Option<PathBuf>,
    /// Further tables for the SQL of cleaning steps: names and files.
    pub tables: Vec<(String, PathBuf)>,
}

impl From<&Path> for MetadataFiles {
    fn from(main: &Path) -> Self {
        Self {
            main: Some(main.to_owned()),
            tables: Vec::new(),
        }
    }
}

/// The expected content of a metadata folder or zip whose main file has no fixed name; part of an error message.
const TABLE_FILE: &str = "single CSV, Parquet or JSON lines file";

pub(super) fn load(
    engine: &Engine,
    spec: &CatalogSpec,
    metadata: Option<&Path>,
    audio: &AudioIndex,
    settings: CatalogSettings,
) -> Result<ParsedMetadata, CatalogError> {
    match spec.dataset {
        Dataset::Folders | Dataset::Images => {
            load_folders(engine, metadata, audio, spec.csv, settings)
        }
        Dataset::Fma => {
            let path = metadata.ok_or_else(|| no_metadata("fma"))?;
            load_fma(engine, path, settings)
        }
        Dataset::Table => {
            let path = metadata.ok_or_else(|| no_metadata("table"))?;
            let files = Files::open(path)?;
            let name = main_file(&files, path, TABLE_FILE)?;
            load_table(engine, &files, name, Some(spec.csv), settings)
        }
    }
}

/// Returns the error for a data set whose metadata was not given.
fn no_metadata(dataset: &str) -> CatalogError {
    CatalogError::Unusable(format!(
        "data set `{dataset}` needs metadata: name its folder, zip or file with --metadata"
    ))
}

/// Creates one row per audio file. A clip list, if given, adds columns to the rows.
fn load_folders(
    engine: &Engine,
    metadata: Option<&Path>,
    audio: &AudioIndex,
    form: CsvSpec,
    settings: CatalogSettings,
) -> Result<ParsedMetadata, CatalogError> {
    let clips = folders::rows(audio)?;
    let Some(path) = metadata else {
        return Ok(clips);
    };

    let files = Files::open(path)?;
    let name = main_file(&files, path, TABLE_FILE)?;
    let listed = load_table(engine, &files, name, Some(form), settings)?;
    folders::with_list(clips, name, listed, settings.threads)
}

fn load_fma(
    engine: &Engine,
    path: &Path,
    settings: CatalogSettings,
) -> Result<ParsedMetadata, CatalogError> {
    let progress = engine.progress();
    let files = Files::open(path)?;
    let tracks = main_file(&files, path, "tracks.csv")?;
    let genres = files.names().find(|name| *name == "genres.csv");
    // Progress needs the size of both files (tracks and genres) before either of them is read.
    begin_reading(progress, &files, [tracks].into_iter().chain(genres))?;

    let genres = match genres {
        Some(file) => Some(CsvFile {
            file,
            input: counted(progress, &files, file)?,
            header: Header::Line(CsvSpec::default()),
            required: None,
            is_described: false,
        }),
        None => None,
    };
    let tracks = CsvFile {
        file: tracks,
        input: counted(progress, &files, tracks)?,
        header: Header::Levels,
        required: Some("track_id"),
        is_described: false,
    };
    load::fma(engine, tracks, genres, settings)
}

fn load_table(
    engine: &Engine,
    files: &Files,
    name: &str,
    form: Option<CsvSpec>,
    settings: CatalogSettings,
) -> Result<ParsedMetadata, CatalogError> {
    let progress = engine.progress();
    begin_reading(progress, files, [name])?;

    match TableFormat::of(name) {
        TableFormat::Csv => {
            let input = counted(progress, files, name)?;
            return load::csv_table(engine, name, input, form, settings);
        }
        TableFormat::Json => return load::json_table(name, counted(progress, files, name)?),
        TableFormat::Parquet => {}
    }
    // The footer of a Parquet file is at its end, which in a zip can only be reached by decompressing everything before
    // it.
    match files.path(name)? {
        Some(path) => load::parquet_table(name, load::opened(&path)?),
        None => {
            let input = counted(progress, files, name)?;
            let bytes = load::inflated(name, input, CONTENT_BYTES_MAX)?;
            load::parquet_table(name, bytes)
        }
    }
}

/// Starts the metadata phase with the total size of the main files, in bytes.
fn begin_reading<'a>(
    progress: &Progress,
    files: &Files,
    names: impl IntoIterator<Item = &'a str>,
) -> Result<(), CatalogError> {
    let mut bytes = 0;
    for name in names {
        bytes += files.bytes(name)?;
    }
    progress.enter(Phase::Metadata, bytes);
    Ok(())
}

/// Opens a metadata file for reading, as [`csv_text::opened`] does. Bytes read from it are counted as progress.
fn counted(
    progress: &Arc<Progress>,
    files: &Files,
    name: &str,
) -> Result<CountingReader<Box<dyn Read + Send>>, CatalogError> {
    let input = csv_text::opened(files, name)?;
    Ok(CountingReader::new(input, Arc::clone(progress)))
}

/// Registers a file of the user as table `name`. Returns its content, with rejects and warnings that name the option.
pub(super) fn set_own_table(
    engine: &Engine,
    name: &str,
    path: &Path,
    settings: CatalogSettings,
) -> Result<ParsedMetadata, CatalogError> {
    if !is_plain_name(name) {
        let problem = "allowed as a name: a to z, then a to z, 0 to 9 and _";
        return Err(CatalogError::Unusable(problem.to_owned()));
    }
    if name == "input" || engine.tables().iter().any(|table| table == name) {
        let problem = "this table exists already: choose another name";
        return Err(CatalogError::Unusable(problem.to_owned()));
    }

    let files = Files::open(path)?;
    let file = main_file(&files, path, TABLE_FILE)?;
    let mut loaded = load_table(engine, &files, file, None, settings)?;
    engine.set_table(name, &load::without_line(&loaded.rows)?)?;

    let details = loaded.rejects.iter_mut().map(|reject| &mut reject.detail);
    for text in details.chain(&mut loaded.warnings) {
        *text = format!("--table {name}: {text}");
    }
    Ok(loaded)
}

/// Returns name, CRC-32 and size in bytes of every file from which the data set's tables are made.
///
/// The result identifies one state of the metadata. It is equal for a folder and a zip of that folder. It does not
/// depend on other files of the folder, nor on the name of the only file of a `table` or `folders` data set.
///
/// # Errors
/// `Source` if a file cannot be read.
pub fn fingerprints(
    dataset: Dataset,
    metadata: &MetadataFiles,
) -> Result<Vec<(String, u32, u64)>, CatalogError> {
    let mut fingerprints = match &metadata.main {
        Some(path) => fingerprints_of_main(dataset, path)?,
        None => Vec::new(),
    };
    for (name, path) in &metadata.tables {
        let files = Files::open(path)?;
        let (crc32, bytes) = files.fingerprint(main_file(&files, path, TABLE_FILE)?)?;
        fingerprints.push((format!("--table {name}"), crc32, bytes));
    }
    Ok(fingerprints)
}

fn fingerprints_of_main(
    dataset: Dataset,
    path: &Path,
) -> Result<Vec<(String, u32, u64)>, CatalogError> {
    let files = Files::open(path)?;
    let is_only_file = files.names().count() == 1;

    let mut fingerprints = Vec::new();
    for name in files
        .names()
        .filter(|name| is_read(dataset, name, is_only_file))
    {
        let (crc32, bytes) = files.fingerprint(name)?;
        // The file of a table may have any name, so the name is not part of the fingerprint.
        let known_as = match dataset {
            Dataset::Folders | Dataset::Images | Dataset::Table => "",
            Dataset::Fma => name,
        };
        fingerprints.push((known_as.to_owned(), crc32, bytes));
    }
    Ok(fingerprints)
}

/// Reports whether the data set's tables use the metadata file `name`.
fn is_read(dataset: Dataset, name: &str, is_only_file: bool) -> bool {
    match dataset {
        Dataset::Folders | Dataset::Images | Dataset::Table => is_only_file,
        Dataset::Fma => {
            is_only_file
                || matches!(name, "tracks.csv" | "genres.csv")
                || extra::table_name(name).is_some()
        }
    }
}

/// Returns the only metadata file, or else the metadata file named `wanted`.
fn main_file<'a>(
    files: &'a Files,
    path: &Path,
    wanted: &'static str,
) -> Result<&'a str, CatalogError> {
    let names: Vec<&str> = files.names().collect();
    // A path to a single file, and the only file of a folder or zip, may have any name.
    if let [only] = names[..] {
        return Ok(only);
    }
    if let Some(name) = names.iter().find(|name| **name == wanted) {
        return Ok(name);
    }

    let found = if names.is_empty() {
        "no file".to_owned()
    } else {
        names[..names.len().min(6)].join(", ")
    };
    Err(CatalogError::Unusable(format!(
        "--metadata {}: `{wanted}` not found; found: {found}; give the folder or zip with the metadata of the data set",
        path.display()
    )))
}
