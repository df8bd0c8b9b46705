//! Metadata files → cleaned rows, class lists and splits.
//!
//! A broken row is a reject with line and column, never an error. Cleaning is the recipe's own SQL, run by DataFusion.
//! Nothing here opens a clip: of the audio it knows the index alone.

mod csv_blocks;
mod csv_record;
mod csv_text;
mod engine;
mod error;
mod extra;
mod files;
mod fma;
mod folders;
mod laps;
mod load;
mod numbering;
mod parallel;
mod python_list;
mod rows;
mod rows_hash;
pub mod split;
mod steps;
#[cfg(test)]
mod tests;
mod types;
mod wide;

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use wavemill_schemas::recipe::{CatalogSpec, Dataset, Recipe, SplitRule, TargetSpec};
use wavemill_schemas::reject::Reject;

use self::engine::Engine;
pub use self::error::CatalogError;
pub use self::extra::{ExtraTable, extra_tables};
pub(crate) use self::files::hint_of_file;
pub use self::files::{Fate, FileAccount, FilesOfKind, NearMatch};
pub use self::laps::Laps;
use self::load::{NamedInput, ParsedMetadata};
pub use self::numbering::ClassLists;
use self::parallel::in_parts;
use self::rows::{Labels, SplitTables};
pub(crate) use self::rows::{artist_ids, side_column};
use self::split::{KeptSides, NO_SIDE, SIDES};
pub use self::steps::AUDIO_STEP;
use self::steps::Cleaner;
pub(crate) use self::steps::where_query;
use crate::course::{CountingReader, Course, Phase};
use crate::settings::Settings;
use crate::source::AudioIndex;
use crate::source::metadata::Files;

/// So many of the sides that a column gives are named in a warning.
const SIDES_TOLD: usize = 5;

/// Limits of the catalog.
#[derive(Clone, Copy, Debug)]
pub struct CatalogSettings {
    /// Most memory for sorts, joins and groups of the cleaning steps, in bytes; the rows themselves come on top.
    /// Default 256 MiB: FMA's 106,574 rows need a tenth of it.
    pub memory_bytes: usize,
    /// Threads that parse and type CSV files, and divide what else can be. Default: the processors of the machine.
    pub threads: usize,
}

impl From<&Settings> for CatalogSettings {
    /// The threads are those that decode later.
    fn from(settings: &Settings) -> Self {
        Self {
            memory_bytes: settings.catalog_bytes(),
            threads: settings.threads,
        }
    }
}

impl Default for CatalogSettings {
    fn default() -> Self {
        Self {
            memory_bytes: 256 << 20,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// One clip of the cleaned rows: what the plan and the feature rows need of it.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipRow {
    /// Primary key: path below the audio root.
    pub clip_key: String,
    /// The data set's id, or a hash of the key.
    pub track_id: i64,
    /// Class id per target, in the recipe's order; `None`: unlabelled.
    pub targets: Vec<Option<i32>>,
    /// All genre ids.
    pub genres_all: Vec<i32>,
    /// Artist, `None` where unknown.
    pub artist_id: Option<i64>,
    /// Album, `None` where unknown.
    pub album_id: Option<i64>,
    /// The side by the recipe's rule: `training`, `validation`, `test`, `none`, or the column's value. Under rule
    /// `segment` it is `none`: there a side belongs to a segment, and the plan gives it.
    pub split: String,
}

/// A cleaning step's count.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct StepCount {
    /// The step's name.
    pub step: String,
    /// Rows that it dropped.
    pub dropped: u64,
    /// Rows that are left.
    pub kept: u64,
}

/// `audio_blake3` of clips, by `clip_key`; a clip that is not here is a recording of its own.
pub type AudioHashes = HashMap<String, blake3::Hash>;

/// What `split.group_duplicates` found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Duplicates {
    /// Clips whose audio was hashed.
    pub clips_hashed: u64,
    /// Recordings that are there under two keys or more.
    pub recordings: u64,
    /// Clips of those.
    pub clips: u64,
}

impl Duplicates {
    fn of(hashes: &AudioHashes) -> Self {
        let mut clips_of: HashMap<_, u64> = HashMap::new();
        for hash in hashes.values() {
            *clips_of.entry(hash).or_default() += 1;
        }

        let repeated: Vec<u64> = clips_of.into_values().filter(|clips| *clips > 1).collect();
        Self {
            clips_hashed: hashes.len() as u64,
            recordings: repeated.len() as u64,
            clips: repeated.iter().sum(),
        }
    }
}

/// A clip that is on another side than in the version before.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct SideMove {
    /// The clip.
    pub clip_key: String,
    /// The side that it had.
    pub from: String,
    /// The side that it has.
    pub to: String,
}

/// The cleaned rows, before they have sides.
pub struct CleanedRows {
    rows: RecordBatch,
    labels: Vec<Labels>,
    threads: usize,
    /// Files that a list beside `folders` does not name.
    unlisted: Vec<String>,
    /// All but `clips`, `duplicates` and some of the tables.
    catalog: Catalog,
}

/// Everything the metadata gives.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// Cleaned rows, ordered by `clip_key`.
    pub clips: Vec<ClipRow>,
    /// Class names in id order, per target name.
    pub classes: ClassLists,
    /// `tracks` (cleaned, with every split rule; same order as `clips`), `tracks_all` (as parsed, in the file's order,
    /// with `dropped_by`), `albums`, `artists`, `genres`: what the data set has of them. Their text is `Utf8View`.
    /// `sides`: see `wavemill_schemas::tables::sides_schema`.
    pub tables: BTreeMap<String, RecordBatch>,
    /// Records in the main metadata file, header lines not counted.
    pub rows_read: u64,
    /// One per cleaning step, in order: `subset` where the recipe has one, the recipe's, `audio` where it is required.
    pub steps: Vec<StepCount>,
    /// Keys for which there is no file, of rows that step `audio` dropped and of a list beside `folders`; in order.
    pub absent: Vec<String>,
    /// `bad_row` and `bad_encoding` of the main metadata file, by line: rows read = kept + dropped + these.
    pub rejects: Vec<Reject>,
    /// The same of `genres.csv`: outside that sum.
    pub further_rejects: Vec<Reject>,
    /// With `split.group_duplicates`: what it found.
    pub duplicates: Option<Duplicates>,
    /// Clips that left their side because their group became one with a group of another side, by key.
    pub merges: Vec<SideMove>,
    /// What a person should know (over half of the rows have no audio, …), one sentence each.
    pub warnings: Vec<String>,
    /// Wall seconds of the parts: `read` (files → typed rows), `clean` (the steps), `labels`, `split`.
    pub wall_s: BTreeMap<&'static str, f64>,
}

impl Catalog {
    /// Rows that were dropped because their clip has no file.
    pub fn clips_absent(&self) -> u64 {
        self.steps
            .iter()
            .find(|step| step.step == AUDIO_STEP)
            .map_or(0, |step| step.dropped)
    }
}

/// Reads the metadata, cleans it by the recipe's steps, and gives each clip its classes.
///
/// `metadata`: a folder, a zip, or the main file itself; `folders` can do without. `audio`: what there is below the
/// audio root. With `require_audio`, rows without a file are dropped; without it they stay, and reading rejects them.
/// `course` is told where this is, and can end it.
///
/// # Errors
/// When the metadata cannot be read as a whole, a step's SQL is refused or fails, or keys repeat: see [`CatalogError`].
pub fn clean(
    recipe: &Recipe,
    metadata: Option<&Path>,
    audio: &AudioIndex,
    settings: CatalogSettings,
    course: &Arc<Course>,
) -> Result<CleanedRows, CatalogError> {
    course.enter(Phase::Metadata, 0);
    let mut warnings = Vec::new();
    let mut laps = Laps::start();

    let engine = Engine::new(settings.memory_bytes, Arc::clone(course))?;
    let loaded = load(
        &engine,
        recipe.catalog.dataset,
        metadata,
        audio,
        settings.threads,
    )?;
    warnings.extend(loaded.warnings);
    for (name, table) in &loaded.tables {
        engine.set_table(name, table)?;
    }
    // A step of an FMA recipe may read the data set's further files.
    let fma_metadata = metadata.filter(|_| recipe.catalog.dataset == Dataset::Fma);
    if let Some(path) = fma_metadata {
        set_extra_tables(&engine, &recipe.catalog, path, &mut warnings)?;
    }
    laps.end("read");
    load::stop_here(course)?;

    let mut cleaner = Cleaner::new(&engine, fma_metadata, settings.threads, loaded.rows);
    cleaner.run(&recipe.catalog)?;
    let mut absent = loaded.absent;
    if recipe.catalog.require_audio {
        absent.extend(require_audio(&mut cleaner, audio, &mut warnings)?);
    }
    absent.sort_unstable();
    laps.end("clean");
    load::stop_here(course)?;

    // From here on rows are in the order of their keys, so a label belongs to its row by its place.
    let rows = rows::keyed(&cleaner.rows)?;
    let mut labels = Vec::with_capacity(recipe.targets.len());
    for target in &recipe.targets {
        labels.push(rows::labels(&rows, target)?);
    }
    let mut tables = loaded.tables;
    tables.insert("tracks_all".to_owned(), cleaner.tracks_all()?);
    let classes = classes(&recipe.targets, &labels, &mut warnings);
    laps.end("labels");

    let catalog = Catalog {
        classes,
        tables,
        rows_read: loaded.rows_read,
        steps: cleaner.steps,
        absent,
        rejects: loaded.rejects,
        further_rejects: loaded.further_rejects,
        warnings,
        wall_s: laps.wall_s,
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

impl Catalog {
    /// blake3 over every column of `tracks`, hex. Made on demand: a preview does without.
    ///
    /// # Errors
    /// When arrow cannot show a value of an unusual type.
    pub fn rows_hash(&self) -> Result<String, CatalogError> {
        Ok(self
            .tables
            .get("tracks")
            .map(rows_hash::rows_hash)
            .transpose()?
            .unwrap_or_default())
    }
}

impl CleanedRows {
    /// Keys of the cleaned rows, in order; none where they are no text, which [`CleanedRows::split`] refuses.
    pub fn clip_keys(&self) -> impl Iterator<Item = &str> {
        let keys = self.rows["clip_key"].as_string_view_opt();
        keys.into_iter().flat_map(|keys| keys.iter().flatten())
    }

    /// Whether no row is left.
    pub fn is_empty(&self) -> bool {
        self.rows.num_rows() == 0
    }

    /// One per cleaning step, in order.
    pub fn steps(&self) -> &[StepCount] {
        &self.catalog.steps
    }

    /// Class names in the order of the ids that a first version gives them, per target name.
    pub const fn classes(&self) -> &ClassLists {
        &self.catalog.classes
    }

    /// Gives each clip its side, and each class the id that it has in `kept_classes`. The rules `artist` and `stratified` keep clips of equal hash together, and every group
    /// of clips on the side that it has in `kept`.
    ///
    /// The rows stay, to be split again where sides turn out to follow from something else. The catalog shares the
    /// columns of its tables with them, and with every other one made of them.
    ///
    /// # Errors
    /// `Column` and `SplitValue` when the recipe's split does not fit the rows.
    pub fn split(
        &self,
        recipe: &Recipe,
        hashes: &AudioHashes,
        kept: Option<&KeptSides>,
        kept_classes: &ClassLists,
    ) -> Result<Catalog, CatalogError> {
        let Self {
            rows,
            labels,
            threads,
            catalog,
            ..
        } = self;
        let threads = *threads;
        let mut catalog = catalog.clone();
        let mut laps = Laps::start();

        let labels = number_classes(&mut catalog, recipe, labels, kept_classes);
        let first_target = labels.first().map_or(&[][..], |target| &target.ids);
        let SplitTables {
            tracks,
            sides,
            merges,
        } = rows::with_splits(rows, first_target, hashes, kept, recipe, threads)?;

        // Table, id column, and what the names of its columns begin with.
        let distinct = [
            ("albums", "album_id", "album_"),
            ("artists", "artist_id", "artist_"),
        ];
        let tables = in_parts(threads, distinct.len(), |index| {
            rows::distinct(&tracks, distinct[index].1, distinct[index].2)
        })?;
        for ((table, ..), rows) in distinct.iter().zip(tables) {
            if let Some(rows) = rows {
                catalog.tables.insert((*table).to_owned(), rows);
            }
        }

        if recipe.split.rule == SplitRule::Artist {
            catalog.warnings.extend(artists_unknown(rows)?);
        }
        catalog.clips = rows::clips(&tracks, &labels, recipe.split.rule, threads)?;
        if recipe.split.rule == SplitRule::Column {
            let column = recipe.split.column.as_deref().unwrap_or_default();
            let sides = clips_by_side(&catalog.clips);
            catalog.warnings.extend(sides_unknown(&sides));
            catalog.warnings.extend(sides_empty(column, &sides));
        }
        catalog.duplicates = recipe
            .split
            .group_duplicates
            .then(|| Duplicates::of(hashes));
        catalog.merges = merges;
        catalog.tables.insert("tracks".to_owned(), tracks);
        catalog.tables.insert("sides".to_owned(), sides);

        laps.end("split");
        catalog.wall_s.append(&mut laps.wall_s);
        Ok(catalog)
    }
}

/// Gives classes the ids that they have in `kept_classes`. Returns the labels by target, in the recipe's order.
fn number_classes(
    catalog: &mut Catalog,
    recipe: &Recipe,
    labels: &[Labels],
    kept_classes: &ClassLists,
) -> Vec<Labels> {
    let mut numbered = Vec::with_capacity(labels.len());
    for (target, labels) in recipe.targets.iter().zip(labels) {
        let Some(before) = kept_classes.get(&target.name) else {
            numbered.push(labels.clone());
            continue;
        };
        let warning = numbering::empty_classes(&target.name, labels, before);
        catalog.warnings.extend(warning);
        let kept = numbering::keep_ids(labels, before);
        let classes = kept.classes.clone();
        catalog.classes.insert(target.name.clone(), classes);
        numbered.push(kept);
    }
    numbered
}

/// Clips of every side that there is.
fn clips_by_side(clips: &[ClipRow]) -> BTreeMap<&str, usize> {
    let mut sides: BTreeMap<&str, usize> = BTreeMap::new();
    for clip in clips {
        *sides.entry(clip.split.as_str()).or_default() += 1;
    }
    sides
}

/// A warning where a column gives sides that no trainer asks for: `Training`, `train`.
fn sides_unknown(sides: &BTreeMap<&str, usize>) -> Option<String> {
    let mut unknown = sides.clone();
    unknown.retain(|side, _| *side != NO_SIDE && !SIDES.contains(side));
    if unknown.is_empty() {
        return None;
    }

    Some(format!(
        "split.column: sides that no training reads, with their clips: {}; it reads {}",
        first_sides(&unknown),
        SIDES.join(", ")
    ))
}

/// A warning where no value of the column names a side: nothing can be trained, chosen or tested there.
fn sides_empty(column: &str, sides: &BTreeMap<&str, usize>) -> Option<String> {
    let mut empty = SIDES.to_vec();
    empty.retain(|side| !sides.contains_key(side));
    if empty.is_empty() || sides.is_empty() {
        return None;
    }

    Some(format!(
        "split.column: no clip is for {}: the values of `{column}`, with their clips, are {}; sides are named {}",
        empty.join(", "),
        first_sides(sides),
        SIDES.join(", ")
    ))
}

/// The first sides by name, each with its clips.
fn first_sides(sides: &BTreeMap<&str, usize>) -> String {
    let mut told = Vec::with_capacity(SIDES_TOLD);
    for (side, n_clips) in sides.iter().take(SIDES_TOLD) {
        told.push(format!("`{side}` ({n_clips})"));
    }

    let more = if sides.len() > SIDES_TOLD {
        ", …"
    } else {
        ""
    };
    format!("{}{more}", told.join(", "))
}

/// A warning where the rule `artist` cannot keep all clips of an artist together.
fn artists_unknown(rows: &RecordBatch) -> Result<Option<String>, CatalogError> {
    let of = rows.num_rows();
    let unknown = rows::artist_ids(rows)?.map_or(of, |ids| ids.null_count());
    let what = match unknown {
        0 if of > 0 => return Ok(None),
        unknown if unknown == of => {
            "no column artist_id, artist_name or artist tells who made a clip: each".to_owned()
        }
        unknown => {
            format!("of {unknown} of {of} clips it is not known who made them: each of these")
        }
    };
    Ok(Some(format!(
        "split.rule = \"artist\": {what} stands for itself"
    )))
}

/// Class names by target, and a warning where rows have labels that the recipe does not list.
fn classes(targets: &[TargetSpec], labels: &[Labels], warnings: &mut Vec<String>) -> ClassLists {
    let mut classes = ClassLists::new();
    for (target, labels) in targets.iter().zip(labels) {
        if labels.unlisted > 0 {
            warnings.push(format!(
                "target `{}`: {} rows have a label outside its classes and count as unlabelled",
                target.name, labels.unlisted
            ));
        }
        classes.insert(target.name.clone(), labels.classes.clone());
    }
    classes
}

/// Reads the further tables that a cleaning step names; the others stay on disk. Their broken rows are counted where
/// the whole table is copied. One that cannot be opened is an error where a step names it, and else a warning.
fn set_extra_tables(
    engine: &Engine,
    spec: &CatalogSpec,
    metadata: &Path,
    warnings: &mut Vec<String>,
) -> Result<(), CatalogError> {
    for (name, table) in extra::open_all(metadata)? {
        if is_named(spec, &name) {
            engine.set_table(&name, &table?.read_whole(engine.course())?)?;
        } else if let Err(error) = table {
            let problem = with_causes(&error);
            warnings.push(format!("{problem}; table `{name}` is left out"));
        }
    }
    Ok(())
}

/// Whether a cleaning step has `table` among its words: as a table or, at worst, as something else of that name.
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

fn with_causes(error: &CatalogError) -> String {
    let first: &dyn std::error::Error = error;
    let causes = std::iter::successors(Some(first), |error| error.source());
    let texts: Vec<String> = causes.map(ToString::to_string).collect();
    texts.join(": ")
}

/// Step `audio`, and a warning where most rows have no file: the wrong folder, more often than not. Returns the keys of
/// the rows that it dropped.
fn require_audio(
    cleaner: &mut Cleaner<'_>,
    audio: &AudioIndex,
    warnings: &mut Vec<String>,
) -> Result<Vec<String>, CatalogError> {
    let keys =
        steps::clip_keys(&cleaner.rows).map_err(|problem| CatalogError::ClipKey { problem })?;
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

fn load(
    engine: &Engine,
    dataset: Dataset,
    metadata: Option<&Path>,
    audio: &AudioIndex,
    threads: usize,
) -> Result<ParsedMetadata, CatalogError> {
    match dataset {
        Dataset::Folders | Dataset::Images => load_folders(engine, metadata, audio, threads),
        Dataset::Fma => {
            let path = metadata.ok_or(CatalogError::NoMetadata { dataset: "fma" })?;
            load_fma(engine, path, threads)
        }
        Dataset::Table => {
            let path = metadata.ok_or(CatalogError::NoMetadata { dataset: "table" })?;
            let files = Files::open(path)?;
            let name = main_file(&files, path, TABLE_FILE)?;
            load_table(engine, &files, name, threads)
        }
    }
}

/// Rows are the audio's files; a table, where there is one, adds columns.
fn load_folders(
    engine: &Engine,
    metadata: Option<&Path>,
    audio: &AudioIndex,
    threads: usize,
) -> Result<ParsedMetadata, CatalogError> {
    let clips = folders::rows(audio)?;
    let Some(path) = metadata else {
        return Ok(clips);
    };

    let files = Files::open(path)?;
    let name = main_file(&files, path, TABLE_FILE)?;
    let listed = load_table(engine, &files, name, threads)?;
    folders::with_list(clips, name, listed, threads)
}

fn load_fma(engine: &Engine, path: &Path, threads: usize) -> Result<ParsedMetadata, CatalogError> {
    let course = engine.course();
    let files = Files::open(path)?;
    let tracks = main_file(&files, path, "tracks.csv")?;
    let genres = files.names().find(|name| *name == "genres.csv");
    // Before either is read: progress needs the bytes of both.
    begin_reading(course, &files, [tracks].into_iter().chain(genres))?;

    let genres = match genres {
        Some(name) => Some(NamedInput {
            name,
            input: counted(course, &files, name)?,
        }),
        None => None,
    };
    let tracks = NamedInput {
        name: tracks,
        input: counted(course, &files, tracks)?,
    };
    load::fma(engine, tracks, genres, threads)
}

/// What a place without a main file's name must hold.
const TABLE_FILE: &str = "single CSV or Parquet file";

fn load_table(
    engine: &Engine,
    files: &Files,
    name: &str,
    threads: usize,
) -> Result<ParsedMetadata, CatalogError> {
    let course = engine.course();
    begin_reading(course, files, [name])?;

    if !name.ends_with(".parquet") {
        return load::csv_table(engine, name, counted(course, files, name)?, threads);
    }
    // In a zip, the directory at the end of a Parquet file is reached by unpacking all before it.
    match files.path(name) {
        Some(path) => load::parquet_table(name, load::opened(path)?),
        None => {
            let bytes = load::inflated(name, counted(course, files, name)?)?;
            load::parquet_table(name, bytes)
        }
    }
}

/// The main files are about to be read: so many bytes are to be counted.
fn begin_reading<'a>(
    course: &Course,
    files: &Files,
    names: impl IntoIterator<Item = &'a str>,
) -> Result<(), CatalogError> {
    let mut bytes = 0;
    for name in names {
        bytes += files.bytes(name)?;
    }
    course.enter(Phase::Metadata, bytes);
    Ok(())
}

/// A metadata file whose bytes are counted as they are read.
fn counted(
    course: &Arc<Course>,
    files: &Files,
    name: &str,
) -> Result<CountingReader<Box<dyn Read + Send>>, CatalogError> {
    Ok(CountingReader::new(files.read(name)?, Arc::clone(course)))
}

/// What tells one state of the metadata from another: name, CRC-32 and size in bytes of every file that the data set's
/// tables are made of. Equal for a folder and its zip; other files beside them do not matter, nor does the name of the
/// only file of a `table` or of `folders`.
///
/// # Errors
/// `Source` when a file cannot be read.
pub fn fingerprints(
    dataset: Dataset,
    metadata: Option<&Path>,
) -> Result<Vec<(String, u32, u64)>, CatalogError> {
    let Some(path) = metadata else {
        return Ok(Vec::new());
    };
    let files = Files::open(path)?;
    let is_only_file = files.names().count() == 1;

    let mut fingerprints = Vec::new();
    for name in files
        .names()
        .filter(|name| is_read(dataset, name, is_only_file))
    {
        let (crc32, bytes) = files.fingerprint(name)?;
        // A table's file may have any name: what it is called tells nothing.
        let known_as = match dataset {
            Dataset::Folders | Dataset::Images | Dataset::Table => "",
            Dataset::Fma => name,
        };
        fingerprints.push((known_as.to_owned(), crc32, bytes));
    }
    Ok(fingerprints)
}

/// Whether a data set's tables are made of the metadata file `name`, among others.
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

/// The only file there is, or the one named `wanted`.
fn main_file<'a>(
    files: &'a Files,
    path: &Path,
    wanted: &'static str,
) -> Result<&'a str, CatalogError> {
    let names: Vec<&str> = files.names().collect();
    // A file that is given by itself, or is alone in its place, may have any name.
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
    Err(CatalogError::NoFile {
        path: path.to_owned(),
        wanted,
        found,
    })
}
