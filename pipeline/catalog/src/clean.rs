//! From metadata files to cleaned rows with labels.

use std::path::Path;
use std::sync::Arc;

use arrow::array::Array;
use wavemill_runtime::progress::{Phase, Progress};
use wavemill_schemas::recipe::{CatalogSpec, Dataset, Recipe, TargetSpec};
use wavemill_schemas::text::{counted, error_line};
use wavemill_source::AudioIndex;

use super::engine::Engine;
use super::load::stop_here;
use super::metadata::{load, set_own_table};
use super::rows::{self, Labels};
use super::steps::{self, Cleaner};
use super::{
    Catalog, CatalogError, CatalogSettings, ClassLists, CleanedRows, MetadataFiles, Timings, extra,
};

/// Number of folders above which they are artists or numbers rather than genres, if they have few clips.
const CLASSES_MANY: usize = 50;
/// Number of clips below which, on average, a folder has few. GTZAN has 100.
const CLIPS_FEW: usize = 10;

/// Reads the metadata, cleans it by the recipe's steps, and assigns classes to each clip.
///
/// `audio` is the index of the files below the audio root. With `require_audio`, rows without a file are dropped;
/// otherwise they are kept, and the reading stage rejects them. `progress` counts what is done, and can stop the job.
///
/// # Errors
/// See [`CatalogError`]: the metadata cannot be read as a whole, a step's SQL is refused or fails, or keys repeat.
pub fn clean(
    recipe: &Recipe,
    metadata: &MetadataFiles,
    audio: &AudioIndex,
    settings: CatalogSettings,
    progress: &Arc<Progress>,
) -> Result<CleanedRows, CatalogError> {
    progress.enter(Phase::Metadata, 0);
    let mut warnings = Vec::new();
    let mut timings = Timings::start();

    let engine = Engine::new(settings.memory_bytes, Arc::clone(progress))?;
    let main = metadata.main.as_deref();
    let dataset = recipe.catalog.dataset;
    let mut loaded = load(&engine, &recipe.catalog, main, audio, settings)?;
    warnings.append(&mut loaded.warnings);
    for (name, table) in &loaded.tables {
        engine.set_table(name, table)?;
    }
    // A cleaning step of an FMA recipe may query the data set's further files.
    let fma_metadata = main.filter(|_| dataset == Dataset::Fma);
    if let Some(path) = fma_metadata {
        set_extra_tables(&engine, &recipe.catalog, path, settings, &mut warnings)?;
    }
    for (name, path) in &metadata.tables {
        let table = set_own_table(&engine, name, path, settings);
        let table = table.map_err(|error| match error {
            CatalogError::Stopped => error,
            error => CatalogError::Unusable(format!("--table {name}: {}", error_line(&error))),
        })?;
        loaded.further_rejects.extend(table.rejects);
        warnings.extend(table.warnings);
        if !is_named(&recipe.catalog, name) {
            warnings.push(format!("--table {name}: no cleaning step reads this table"));
        }
    }
    timings.end("read");
    stop_here(progress)?;

    let mut cleaner = Cleaner::new(&engine, fma_metadata, settings.threads, loaded.rows);
    cleaner.run(&recipe.catalog)?;
    let mut absent = loaded.absent;
    if recipe.catalog.require_audio {
        absent.extend(require_audio(&mut cleaner, audio, &mut warnings)?);
    }
    absent.sort_unstable();
    timings.end("clean");
    stop_here(progress)?;

    // From here on rows are ordered by key, so that labels can be matched to rows by index.
    let rows = rows::keyed(&cleaner.rows)?;
    let mut labels = Vec::with_capacity(recipe.targets.len());
    for target in &recipe.targets {
        labels.push(rows::labels(&rows, target, &mut warnings)?);
    }
    let mut tables = loaded.tables;
    tables.insert("tracks_all".to_owned(), cleaner.tracks_all()?);
    let classes = classes(&recipe.targets, &labels, &mut warnings);
    if dataset.is_of_folders() {
        warnings.extend(no_genres(&classes, rows.num_rows()));
    }
    timings.end("labels");

    let catalog = Catalog {
        classes,
        tables,
        rows_read: loaded.rows_read,
        steps: cleaner.steps,
        absent,
        rejects: loaded.rejects,
        further_rejects: loaded.further_rejects,
        warnings,
        wall_s: timings.wall_s,
        ..Catalog::default()
    };
    Ok(CleanedRows {
        rows,
        labels,
        threads: settings.threads,
        unlisted: loaded.unlisted,
        catalog,
    })
}

/// Registers only those additional metadata tables that a cleaning step names. Broken rows of these tables are counted
/// later, when the whole table is copied. A table that cannot be opened is an error if a step names it, otherwise a
/// warning.
fn set_extra_tables(
    engine: &Engine,
    spec: &CatalogSpec,
    metadata: &Path,
    settings: CatalogSettings,
    warnings: &mut Vec<String>,
) -> Result<(), CatalogError> {
    for (name, table) in extra::open_all(metadata)? {
        if is_named(spec, &name) {
            let rows = table?.read_whole(engine.progress(), settings.reject_fraction)?;
            engine.set_table(&name, &rows)?;
        } else if let Err(error) = table {
            let problem = error_line(&error);
            warnings.push(format!("{problem}; table `{name}` is left out"));
        }
    }
    Ok(())
}

/// Reports whether the SQL of a cleaning step contains the word `table`, be it as a table or as some other name.
fn is_named(spec: &CatalogSpec, table: &str) -> bool {
    let steps = spec.clean.iter();
    let mut sql = steps
        .flat_map(|step| [&step.predicate, &step.sql])
        .flatten();
    sql.any(|sql| {
        let mut words = sql.split(|c: char| !c.is_alphanumeric() && c != '_');
        words.any(|word| word.eq_ignore_ascii_case(table))
    })
}

/// Runs step `audio`, and adds a warning if most rows have no file, which usually means that the folder is wrong.
/// Returns the keys of the rows that the step dropped.
fn require_audio(
    cleaner: &mut Cleaner<'_>,
    audio: &AudioIndex,
    warnings: &mut Vec<String>,
) -> Result<Vec<String>, CatalogError> {
    let keys = steps::clip_keys(&cleaner.rows).map_err(CatalogError::clip_key)?;
    let dropped = cleaner.keep_with_audio(&keys, audio)?;
    if dropped * 2 > keys.len() {
        warnings.push(format!(
            "{dropped} of {} rows have no file below the audio root",
            keys.len()
        ));
    }
    let absent = keys
        .iter()
        .flatten()
        .filter(|key| !audio.contains_key(*key));
    Ok(absent.map(str::to_owned).collect())
}

/// Returns a warning if the folders that name the classes of `n_clips` clips look like anything but genres: FMA's
/// folders are numbers, and in many collections each artist has a folder.
fn no_genres(classes: &ClassLists, n_clips: usize) -> Option<String> {
    let is_number = |name: &String| name.bytes().all(|byte| byte.is_ascii_digit());
    let mut targets = classes.iter();
    let (target, names) = targets.find(|(_, names)| {
        let is_of_few = names.len() > CLASSES_MANY && n_clips < names.len() * CLIPS_FEW;
        is_of_few || (names.len() > 1 && names.iter().all(is_number))
    })?;
    let each = n_clips as f64 / names.len() as f64;
    Some(format!(
        "target `{target}`: {} classes of {each:.1} clips on average, such as {}: these folders look like numbers or \
         artists, not genres; use one folder per genre, or a recipe with --metadata, such as fma-small for FMA",
        names.len(),
        names[0]
    ))
}

/// Collects class names by target, and adds a warning for rows with labels that the recipe does not list.
fn classes(targets: &[TargetSpec], labels: &[Labels], warnings: &mut Vec<String>) -> ClassLists {
    let mut classes = ClassLists::new();
    for (target, labels) in targets.iter().zip(labels) {
        if labels.unlisted > 0 {
            warnings.push(format!(
                "target `{}`: {} with a label outside its classes, counted as unlabelled",
                target.name,
                counted(labels.unlisted, "row")
            ));
        }
        if labels.classes.is_empty() && !labels.ids.is_empty() {
            warnings.push(format!(
                "target `{}`: no clip has a class (column {}), which training needs; in folders of clips, they are the \
                 names of folders, as in music/Rock/song.mp3",
                target.name, target.column
            ));
        }
        classes.insert(target.name.clone(), labels.classes.clone());
    }
    classes
}
