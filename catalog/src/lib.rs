//! Converts metadata files to cleaned rows, class lists and splits.
//!
//! A broken row becomes a reject with line and column, never an error. Cleaning runs the recipe's own SQL in
//! DataFusion. This module never opens a clip: it only uses the index of the audio files.

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
mod python_list;
mod rows;
mod rows_hash;
mod spelling;
pub mod split;
pub mod statements;
mod steps;
#[cfg(test)]
mod tests;
mod types;
mod wide;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use wavemill_runtime::course::{CountingReader, Course, Phase};
use wavemill_runtime::parallel::in_parts;
use wavemill_schemas::clip::ClipRow;
use wavemill_schemas::manifest::AUDIO_STEP;
use wavemill_schemas::recipe::{
    CatalogSpec, CsvSpec, Dataset, GroupDuplicates, Recipe, SplitRule, SplitSpec, TargetSpec,
    is_plain_name,
};
use wavemill_schemas::reject::Reject;
use wavemill_schemas::sides::{NO_SIDE, SIDES};
use wavemill_schemas::text::error_line;
use wavemill_source::AudioIndex;
use wavemill_source::metadata::{CONTENT_BYTES_MAX, Files};

use self::csv_text::Header;
use self::engine::Engine;
pub use self::error::CatalogError;
pub use self::extra::{ExtraTable, extra_tables};
pub use self::files::{Fate, FileAccount, FilesOfKind, NearMatch, hint_of_file};
pub use self::laps::Laps;
use self::load::{CsvFile, ParsedMetadata, TableFormat};
pub use self::numbering::ClassLists;
pub use self::rows::side_column;
use self::rows::{Labels, SplitTables};
use self::split::KeptSides;
use self::steps::Cleaner;
pub use self::steps::parse_where;

/// Minimum number of clips for a warning that a side is empty. With fewer, nobody expects to train a model.
const SIDES_CLIPS_MIN: usize = 20;
/// Default of [`CatalogSettings::reject_fraction`]. A file of which most rows are rejected has another form.
const REJECT_FRACTION: f64 = 0.5;
/// Maximum number of values of the split column that a warning lists.
const SIDES_LISTED_MAX: usize = 5;

/// Memory and thread limits of the catalog.
#[derive(Clone, Copy, Debug)]
pub struct CatalogSettings {
    /// Memory limit for sorts, joins and groups of the cleaning steps, in bytes. Memory for the rows themselves is not
    /// included. Default 256 MiB: FMA's 106,574 rows need a tenth of it.
    pub memory_bytes: usize,
    /// Number of threads for parsing CSV files, converting their types and other parallel work. Default: the number of
    /// processors of the machine.
    pub threads: usize,
    /// Maximum fraction of a file's rows that may be rejected. Default 0.5.
    pub reject_fraction: f64,
}

impl Default for CatalogSettings {
    fn default() -> Self {
        Self {
            memory_bytes: 256 << 20,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            reject_fraction: REJECT_FRACTION,
        }
    }
}

/// Numbers of rows that one cleaning step kept and dropped.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct StepCount {
    /// Name of the cleaning step.
    pub step: String,
    /// Number of rows that the cleaning step dropped.
    pub dropped: u64,
    /// Number of rows that remain after the cleaning step.
    pub kept: u64,
}

/// The recordings of clips, by `clip_key`, as found for `split.group_duplicates`.
#[derive(Clone, Debug, Default)]
pub struct Recordings {
    /// Audio hashes (`audio_blake3`). A clip without an entry counts as a separate recording.
    pub hashes: HashMap<String, blake3::Hash>,
    /// Number of the group of a clip that has near copies.
    pub near_groups: HashMap<String, usize>,
}

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

/// Duplicate recordings found for `split.group_duplicates`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Duplicates {
    /// Number of clips whose audio was hashed.
    pub clips_hashed: u64,
    /// Number of recordings that occur under two or more clip keys.
    pub recordings: u64,
    /// Number of clips whose recording occurs under two or more clip keys.
    pub clips: u64,
    /// Number of clips with near copies; `None` if these were not looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clips_near: Option<u64>,
}

impl Duplicates {
    fn new(recordings: &Recordings, grouping: GroupDuplicates) -> Self {
        let hashes = &recordings.hashes;
        let mut clips_of: HashMap<_, u64> = HashMap::new();
        for hash in hashes.values() {
            *clips_of.entry(hash).or_default() += 1;
        }

        let repeated: Vec<u64> = clips_of.into_values().filter(|clips| *clips > 1).collect();
        Self {
            clips_hashed: hashes.len() as u64,
            recordings: repeated.len() as u64,
            clips: repeated.iter().sum(),
            clips_near: (grouping == GroupDuplicates::Near)
                .then_some(recordings.near_groups.len() as u64),
        }
    }
}

/// A clip whose split (training, validation or test) differs from its split in the previous version.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SideMove {
    /// Key of the clip.
    pub clip_key: String,
    /// Split of the clip in the previous version.
    pub from: String,
    /// Split of the clip in this version.
    pub to: String,
}

impl fmt::Display for SideMove {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} -> {}", self.clip_key, self.from, self.to)
    }
}

/// The cleaned rows, before they are assigned to training, validation and test.
pub struct CleanedRows {
    rows: RecordBatch,
    labels: Vec<Labels>,
    threads: usize,
    /// Files that are missing from the clip list of a `folders` data set.
    unlisted: Vec<String>,
    /// The finished parts of the catalog: all but `clips`, `duplicates` and some of the tables.
    catalog: Catalog,
}

/// The complete result of reading, cleaning and splitting the metadata.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// Cleaned rows, ordered by `clip_key`.
    pub clips: Vec<ClipRow>,
    /// Class names in id order, per target name.
    pub classes: ClassLists,
    /// Those of the following tables that the data set provides: `tracks` (cleaned, with the splits by every rule, in
    /// the order of `clips`), `tracks_all` (as parsed, in file order, with `dropped_by`), `albums`, `artists`,
    /// `genres`. Their text columns are `Utf8View`. For `sides` see `wavemill_schemas::tables::sides_schema`.
    pub tables: BTreeMap<String, RecordBatch>,
    /// Number of records in the main metadata file, without header lines.
    pub rows_read: u64,
    /// Counts per cleaning step, in order: `subset` if the recipe sets one, the recipe's steps, and `audio` if audio is
    /// required.
    pub steps: Vec<StepCount>,
    /// Sorted keys without an audio file: keys of rows that step `audio` dropped, and keys of a clip list (`folders`).
    pub absent: Vec<String>,
    /// Rejected rows of the main metadata file, with the reason `bad_row` or `bad_encoding`, by line. The rows read are
    /// the kept, the dropped and these rejected rows.
    pub rejects: Vec<Reject>,
    /// Rejected rows of the other metadata files, such as `genres.csv`; not included in the number of rows read.
    pub further_rejects: Vec<Reject>,
    /// Duplicate recordings; set only with `split.group_duplicates`.
    pub duplicates: Option<Duplicates>,
    /// Clips that changed splits because their group was merged with a group of another split, ordered by key.
    pub merges: Vec<SideMove>,
    /// Warnings for the user (such as: over half of the rows have no audio), one sentence each.
    pub warnings: Vec<String>,
    /// Wall-clock seconds of the phases `read` (from files to typed rows), `clean` (the steps), `labels` and `split`.
    pub wall_s: BTreeMap<&'static str, f64>,
}

impl Catalog {
    /// Returns the number of rows that were dropped because their clip has no file.
    pub fn clips_absent(&self) -> u64 {
        self.steps
            .iter()
            .find(|step| step.step == AUDIO_STEP)
            .map_or(0, |step| step.dropped)
    }
}

/// Reads the metadata, cleans it by the recipe's steps, and assigns classes to each clip.
///
/// `audio` is the index of the files below the audio root. With `require_audio`, rows without a file are dropped;
/// otherwise they are kept, and the reading stage rejects them. `course` receives the progress, and can stop the job.
///
/// # Errors
/// See [`CatalogError`]: the metadata cannot be read as a whole, a step's SQL is refused or fails, or keys repeat.
pub fn clean(
    recipe: &Recipe,
    metadata: &MetadataFiles,
    audio: &AudioIndex,
    settings: CatalogSettings,
    course: &Arc<Course>,
) -> Result<CleanedRows, CatalogError> {
    course.enter(Phase::Metadata, 0);
    let mut warnings = Vec::new();
    let mut laps = Laps::start();

    let engine = Engine::new(settings.memory_bytes, Arc::clone(course))?;
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

    // From here on rows are ordered by key, so that labels can be matched to rows by index.
    let rows = rows::keyed(&cleaner.rows)?;
    let mut labels = Vec::with_capacity(recipe.targets.len());
    for target in &recipe.targets {
        labels.push(rows::labels(&rows, target, &mut warnings)?);
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
    /// Returns the BLAKE3 hash over every column of `tracks`, in hex. A preview does not need this hash.
    ///
    /// # Errors
    /// Fails if arrow cannot format a value of an unusual type.
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
    /// Returns the keys of the cleaned rows, in order. If the key column is not text, which [`CleanedRows::split`]
    /// refuses, the iterator is empty.
    pub fn clip_keys(&self) -> impl Iterator<Item = &str> {
        let keys = self.rows["clip_key"].as_string_view_opt();
        keys.into_iter().flat_map(|keys| keys.iter().flatten())
    }

    /// Reports whether no row remains after cleaning.
    pub fn is_empty(&self) -> bool {
        self.rows.num_rows() == 0
    }

    /// Returns the row counts of each cleaning step, in order.
    pub fn steps(&self) -> &[StepCount] {
        &self.catalog.steps
    }

    /// Returns class names per target name, in the order of the ids that a first version would assign.
    pub const fn classes(&self) -> &ClassLists {
        &self.catalog.classes
    }

    /// Assigns each clip to a side of the split (such as training), and gives each class its id in `kept_classes`. The
    /// rules `artist` and `stratified` keep copies of a recording together, and keep every group of clips on the side
    /// that it has in `kept`.
    ///
    /// The rows are not consumed, so that they can be split again with other arguments. All catalogs made
    /// from the same rows share the columns of their tables.
    ///
    /// # Errors
    /// `Unusable` if the recipe's split does not fit the rows.
    pub fn split(
        &self,
        recipe: &Recipe,
        recordings: &Recordings,
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
        } = rows::with_splits(rows, first_target, recordings, kept, recipe, threads)?;

        // Name of each table, its id column, and the prefix of the names of its columns.
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
            catalog.warnings.extend(rows::artists_alike(rows)?);
        }
        catalog.clips = rows::clips(&tracks, &labels, recipe.split.rule, threads)?;
        // With the other rules, the split of each row is only known after segmentation.
        if !recipe.split.rule.is_by_segment() {
            let clips = clips_by_side(&catalog.clips);
            if recipe.split.rule == SplitRule::Column {
                catalog.warnings.extend(sides_unknown(&clips));
            }
            catalog.warnings.extend(sides_empty(&recipe.split, &clips));
        }
        let grouping = recipe.split.group_duplicates;
        catalog.duplicates =
            (grouping != GroupDuplicates::None).then(|| Duplicates::new(recordings, grouping));
        catalog.merges = merges;
        catalog.tables.insert("tracks".to_owned(), tracks);
        catalog.tables.insert("sides".to_owned(), sides);

        laps.end("split");
        catalog.wall_s.append(&mut laps.wall_s);
        Ok(catalog)
    }
}

/// Gives classes the ids that they have in `kept_classes`. Returns the labels of each target, in the recipe's order.
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

/// Counts the clips of each split, such as training.
fn clips_by_side(clips: &[ClipRow]) -> BTreeMap<&str, usize> {
    let mut sides: BTreeMap<&str, usize> = BTreeMap::new();
    for clip in clips {
        *sides.entry(clip.split.as_str()).or_default() += 1;
    }
    sides
}

/// Returns a warning if the split column has values that no trainer reads, such as `Training` or `train`.
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

/// Returns a warning if training, validation or test has no clips, although its share is not 0: no model could be
/// trained, chosen or tested.
fn sides_empty(split: &SplitSpec, sides: &BTreeMap<&str, usize>) -> Option<String> {
    let n_clips: usize = sides.values().sum();
    if split.column.is_none() && n_clips < SIDES_CLIPS_MIN {
        return None;
    }
    let mut empty = Vec::new();
    for (side, share) in SIDES.into_iter().zip(split.fractions) {
        let is_wanted = share > 0.0 || split.column.is_some();
        if is_wanted && !sides.contains_key(side) {
            empty.push(side);
        }
    }
    if empty.is_empty() || n_clips == 0 {
        return None;
    }

    let (empty, found) = (empty.join(", "), first_sides(sides));
    Some(match &split.column {
        Some(column) => format!(
            "split.column: no clip is for {empty}: the values of `{column}`, with their clips, are {found}; sides are named \
             {}",
            SIDES.join(", ")
        ),
        None => format!(
            "split.rule = \"{}\": no clip is for {empty}; sides with clips are {found}: raise its share in split.fractions, \
             or choose another split.rule",
            split.rule.name()
        ),
    })
}

/// Formats the first split names in alphabetical order, each with its number of clips.
fn first_sides(sides: &BTreeMap<&str, usize>) -> String {
    let mut told = Vec::with_capacity(SIDES_LISTED_MAX);
    for (side, n_clips) in sides.iter().take(SIDES_LISTED_MAX) {
        told.push(format!("`{side}` ({n_clips})"));
    }

    let more = if sides.len() > SIDES_LISTED_MAX {
        ", …"
    } else {
        ""
    };
    format!("{}{more}", told.join(", "))
}

/// Returns a warning if some artists are unknown, so that the rule `artist` cannot keep their clips together.
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

/// Collects class names by target, and adds a warning for rows with labels that the recipe does not list.
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
            let rows = table?.read_whole(engine.course(), settings.reject_fraction)?;
            engine.set_table(&name, &rows)?;
        } else if let Err(error) = table {
            let problem = error_line(&error);
            warnings.push(format!("{problem}; table `{name}` is left out"));
        }
    }
    Ok(())
}

/// Registers a file of the user as table `name`. Returns its content, with rejects and warnings that name the option.
fn set_own_table(
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

/// Returns the error for a data set whose metadata was not given.
fn no_metadata(dataset: &str) -> CatalogError {
    CatalogError::Unusable(format!(
        "data set `{dataset}` needs metadata: name its folder, zip or file with --metadata"
    ))
}

fn load(
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
    let course = engine.course();
    let files = Files::open(path)?;
    let tracks = main_file(&files, path, "tracks.csv")?;
    let genres = files.names().find(|name| *name == "genres.csv");
    // Progress needs the size of both files (tracks and genres) before either of them is read.
    begin_reading(course, &files, [tracks].into_iter().chain(genres))?;

    let genres = match genres {
        Some(file) => Some(CsvFile {
            file,
            input: counted(course, &files, file)?,
            header: Header::Line(CsvSpec::default()),
            required: None,
            is_described: false,
        }),
        None => None,
    };
    let tracks = CsvFile {
        file: tracks,
        input: counted(course, &files, tracks)?,
        header: Header::Levels,
        required: Some("track_id"),
        is_described: false,
    };
    load::fma(engine, tracks, genres, settings)
}

/// The expected content of a metadata folder or zip whose main file has no fixed name; part of an error message.
const TABLE_FILE: &str = "single CSV, Parquet or JSON lines file";

fn load_table(
    engine: &Engine,
    files: &Files,
    name: &str,
    form: Option<CsvSpec>,
    settings: CatalogSettings,
) -> Result<ParsedMetadata, CatalogError> {
    let course = engine.course();
    begin_reading(course, files, [name])?;

    match TableFormat::of(name) {
        TableFormat::Csv => {
            let input = counted(course, files, name)?;
            return load::csv_table(engine, name, input, form, settings);
        }
        TableFormat::Json => return load::json_table(name, counted(course, files, name)?),
        TableFormat::Parquet => {}
    }
    // The footer of a Parquet file is at its end, which in a zip can only be reached by decompressing everything before
    // it.
    match files.path(name)? {
        Some(path) => load::parquet_table(name, load::opened(&path)?),
        None => {
            let input = counted(course, files, name)?;
            let bytes = load::inflated(name, input, CONTENT_BYTES_MAX)?;
            load::parquet_table(name, bytes)
        }
    }
}

/// Starts the metadata phase with the total size of the main files, in bytes.
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

/// Opens a metadata file for reading, as [`csv_text::opened`] does. Bytes read from it are counted as progress.
fn counted(
    course: &Arc<Course>,
    files: &Files,
    name: &str,
) -> Result<CountingReader<Box<dyn Read + Send>>, CatalogError> {
    let input = csv_text::opened(files, name)?;
    Ok(CountingReader::new(input, Arc::clone(course)))
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
        "metadata {}: `{wanted}` not found; found: {found}",
        path.display()
    )))
}
