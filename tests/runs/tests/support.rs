//! Helpers that start the programs and inspect the files that they leave on disk.

use std::collections::BTreeMap;
use std::fs;
use std::ops::RangeBounds;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use wavemill_schemas::manifest::Manifest;
use wavemill_tests::Failed;

/// Recipe with small shards, so that a small data set of 60 clips of 3 s has many of them. It has two features.
pub(crate) const RECIPE: &str = r#"
name = "tests"
[catalog]
dataset = "fma"
[[catalog.clean]]
step = "labelled"
where = "track_genre_top IS NOT NULL"
[[targets]]
name = "genre"
column = "track_genre_top"
[split]
rule = "official"
[audio]
sample_rate_hz = 22050
duration_s = 3.0
min_duration_s = 1.0
[[features]]
name = "log_mel"
op = "mel"
n_fft = 1024
hop_length = 512
n_mels = 40
db = { ref = "max", top_db = 80.0 }
normalize = "minmax"
dtype = "f16"
[[features]]
name = "mfcc"
op = "mfcc"
n_fft = 1024
n_mfcc = 13
dtype = "f32"
[shards]
clips = 4
row_group_rows = 4
"#;

/// Returns [`RECIPE`] for clips in folders that are their genres.
pub(crate) fn recipe_for_folders() -> String {
    let labelled =
        "[[catalog.clean]]\nstep = \"labelled\"\nwhere = \"track_genre_top IS NOT NULL\"\n";
    RECIPE
        .replace("dataset = \"fma\"", "dataset = \"folders\"")
        .replace(labelled, "")
        .replace("track_genre_top", "genre")
        .replace("\"official\"", "\"stratified\"")
}

/// Timeout for an event that a program should cause without further input.
const WAIT_S_MAX: u64 = 120;
/// Polling interval of a waiting test.
pub(crate) const LOOK: Duration = Duration::from_millis(5);

static SCRATCH: OnceLock<PathBuf> = OnceLock::new();

/// Creates the folder for all files of this test run. The folder is removed when the returned value is dropped.
pub(crate) fn make_scratch() -> TempDir {
    let scratch = tempfile::Builder::new()
        .prefix("wavemill-tests-")
        .tempdir()
        .unwrap();
    SCRATCH.set(scratch.path().to_owned()).unwrap();
    scratch
}

/// Creates a new, empty folder.
pub(crate) fn scratch(name: &str) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let folder = SCRATCH.get().unwrap().join(format!("{number:03}-{name}"));
    fs::create_dir(&folder).unwrap();
    folder
}

/// Returns the path at which a built program is expected: in `WAVEMILL_BIN_DIR`, by default in the parent of this
/// executable's folder.
fn place_of(name: &str) -> PathBuf {
    if let Some(folder) = std::env::var_os("WAVEMILL_BIN_DIR") {
        return PathBuf::from(folder).join(name);
    }

    // Cargo puts test binaries into the folder `deps`, next to the programs.
    let own = std::env::current_exe().unwrap();
    let above = own.parent().and_then(Path::parent).unwrap();
    above.join(name)
}

/// Returns the path of a built program. Panics if the program is not built.
pub(crate) fn program(name: &str) -> PathBuf {
    let path = place_of(name);
    assert!(
        path.is_file(),
        "{} is not built: run scripts/test.sh, or set WAVEMILL_BIN_DIR",
        path.display()
    );
    path
}

/// Reports whether `python3` can be started. Tests that need Python scripts are ignored without it.
pub(crate) fn has_python() -> bool {
    Command::new("python3")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok()
}

/// Splits a command line at whitespace. Text between double quotes is a single word.
pub(crate) fn argv(line: &str) -> Vec<&str> {
    let mut arguments = Vec::new();
    for (index, part) in line.split('"').enumerate() {
        let is_quoted = index % 2 == 1;
        if is_quoted {
            arguments.push(part);
        } else {
            arguments.extend(part.split_whitespace());
        }
    }
    arguments
}

/// Returns a `wavemill` command with these arguments, without the environment variables that would change its
/// behaviour.
pub(crate) fn wavemill<S: AsRef<std::ffi::OsStr>>(
    arguments: impl IntoIterator<Item = S>,
) -> Command {
    let mut command = Command::new(program("wavemill"));
    command.args(arguments).stdin(Stdio::null());
    for name in [
        "FAILPOINTS",
        "WAVEMILL_MEMORY_LIMIT",
        "WAVEMILL_THREADS",
        "WAVEMILL_BACKEND",
        "WAVEMILL_DEVICES",
        "RUST_BACKTRACE",
        "COLUMNS",
    ] {
        command.env_remove(name);
    }
    command
}

/// Reports whether `wavemill-train` is built, which needs libtorch.
pub(crate) fn has_trainer() -> bool {
    place_of("wavemill-train").is_file()
}

/// Reports whether comparisons with other programs were requested, which need their Python environment.
pub(crate) fn asks_for_peers() -> bool {
    std::env::var("WAVEMILL_PEERS").is_ok_and(|value| value == "1")
}

/// Returns a `wavemill-train` command with these arguments, which runs on one CPU thread. The environment variables
/// that would change its behaviour are removed.
pub(crate) fn trainer<S: AsRef<std::ffi::OsStr>>(
    arguments: impl IntoIterator<Item = S>,
) -> Command {
    let mut command = Command::new(program("wavemill-train"));
    command.args(arguments).stdin(Stdio::null());

    // The variables of torchrun would make the program a rank of a job that does not exist.
    for name in [
        "RANK",
        "WORLD_SIZE",
        "LOCAL_RANK",
        "LOCAL_WORLD_SIZE",
        "MASTER_ADDR",
        "MASTER_PORT",
        "TORCHELASTIC_RUN_ID",
        "WAVEMILL_PORT",
        "WAVEMILL_JOB",
        "RUST_BACKTRACE",
        "COLUMNS",
    ] {
        command.env_remove(name);
    }
    command
}

/// Returns a `wavemill train fit` command that trains on a store and writes to a folder of runs.
pub(crate) fn fit(store: &Path, runs: &Path) -> Command {
    let mut command = trainer(["fit", "--device", "cpu", "--threads", "1", "--store"]);
    command.arg(store).arg("--runs").arg(runs);
    command
}

/// Returns the only run in a folder.
pub(crate) fn run_in(runs: &Path) -> Result<PathBuf, Failed> {
    let found: Vec<PathBuf> = fs::read_dir(runs)?
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()?;
    match &found[..] {
        [run] => Ok(run.clone()),
        _ => Err(format!("not one run: {found:?}").into()),
    }
}

/// Lists the complete checkpoints of a run, oldest first.
pub(crate) fn checkpoints(run: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    // The folder does not exist before the first checkpoint.
    let entries = fs::read_dir(run.join("checkpoints")).into_iter().flatten();
    // A running program may remove an entry after it was listed.
    for entry in entries.flatten() {
        let path = entry.path();
        if step_of(&path).is_some() {
            found.push(path);
        }
    }

    found.sort();
    found
}

/// Returns the step number of a complete checkpoint. A checkpoint that is still being written has a different name.
fn step_of(checkpoint: &Path) -> Option<&str> {
    checkpoint.file_name()?.to_str()?.strip_prefix("step-")
}

/// Returns the step of the last checkpoint of the only run, or 0 before the first checkpoint.
pub(crate) fn last_step(runs: &Path) -> u64 {
    let Ok(run) = run_in(runs) else {
        return 0;
    };
    let last = checkpoints(&run).pop();
    last.and_then(|path| step_of(&path)?.parse().ok())
        .unwrap_or(0)
}

/// Exit code and output of a finished program.
#[derive(Debug)]
pub(crate) struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// Returns `self` if the exit code is `code`, and an error with the output otherwise.
    pub(crate) fn exits(self, code: i32) -> Result<Self, Failed> {
        if self.code == Some(code) {
            return Ok(self);
        }
        Err(format!(
            "exit code {:?}, not {code}\nstdout: {}\nstderr: {}",
            self.code, self.out, self.err
        )
        .into())
    }

    /// Returns the last line, which must be the only error line. Warnings, progress and notices about signals may
    /// precede it.
    pub(crate) fn error(&self) -> Result<&str, Failed> {
        let mut lines: Vec<&str> = self.err.lines().collect();
        let last = lines
            .pop()
            .filter(|line| line.starts_with("wavemill: ") || line.starts_with("wavemill train: "));

        // A second error line would be an unexpected one, such as the message of a panic.
        match last {
            Some(line) if !is_aside(line) && lines.iter().all(|line| is_aside(line)) => Ok(line),
            _ => Err(format!("not one line of error, at the end: {:?}", self.err).into()),
        }
    }

    /// Fails unless the error line contains all of these words.
    pub(crate) fn says(&self, words: &[&str]) -> Result<(), Failed> {
        let line = self.error()?;
        match words.iter().find(|word| !line.contains(*word)) {
            Some(word) => Err(format!("`{word}` is not in: {line}").into()),
            None => Ok(()),
        }
    }
}

/// Reports whether a line is not an error: a warning, a change of splits, the progress of an epoch, or a notice
/// about a signal.
fn is_aside(line: &str) -> bool {
    // Lines of trials that run in parallel have the trial's number as a prefix.
    let said = match line
        .strip_prefix("trial ")
        .and_then(|rest| rest.split_once(": "))
    {
        Some((number, said)) if number.parse::<u32>().is_ok() => said,
        _ => line,
    };

    let epoch = said
        .strip_prefix("wavemill train: epoch ")
        .and_then(|rest| rest.split_once(" of "));
    let is_progress = epoch.is_some_and(|(number, _)| number.parse::<u32>().is_ok());
    let starts = ["warning: ", "stopping after ", "splits: "];
    is_progress || starts.iter().any(|start| said.starts_with(start))
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs a command and waits for its end.
pub(crate) fn run(command: &mut Command) -> Ran {
    command.output().unwrap().into()
}

/// Runs a `wavemill` command on a store.
pub(crate) fn on(store: &Path, arguments: &[&str]) -> Ran {
    run(wavemill(arguments).arg("--store").arg(store))
}

/// Starts a command and captures its output for [`finish`].
pub(crate) fn start(command: &mut Command) -> Child {
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits until a started program ends, and returns its output.
pub(crate) fn finish(child: Child) -> Ran {
    child.wait_with_output().unwrap().into()
}

/// Waits until `done` returns true. Fails if `child` ends first or the timeout elapses.
pub(crate) fn wait_until(
    child: &mut Child,
    what: &str,
    mut done: impl FnMut() -> bool,
) -> Result<(), Failed> {
    let start = Instant::now();
    while !done() {
        if let Some(status) = child.try_wait()? {
            return Err(format!("ended ({status}) before {what}").into());
        }

        if start.elapsed() > Duration::from_secs(WAIT_S_MAX) {
            child.kill()?;
            return Err(format!("waited {WAIT_S_MAX} s in vain for {what}").into());
        }

        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// Sends SIGKILL. Fails if the program had already ended.
pub(crate) fn kill(mut child: Child) -> Result<(), Failed> {
    if let Some(status) = child.try_wait()? {
        return Err(format!("ended ({status}) before it could be killed").into());
    }
    child.kill()?;
    child.wait()?;
    Ok(())
}

/// Input files of `extract`.
#[derive(Clone, Debug)]
pub(crate) struct Inputs {
    pub metadata: Option<PathBuf>,
    pub audio: PathBuf,
    pub recipe: PathBuf,
}

impl Inputs {
    pub(crate) fn new(
        metadata: impl Into<PathBuf>,
        audio: impl Into<PathBuf>,
        recipe: impl Into<PathBuf>,
    ) -> Self {
        Self::without_metadata(audio, recipe).with_metadata(metadata)
    }

    pub(crate) fn without_metadata(audio: impl Into<PathBuf>, recipe: impl Into<PathBuf>) -> Self {
        Self {
            metadata: None,
            audio: audio.into(),
            recipe: recipe.into(),
        }
    }

    /// Returns inputs of clips in folders that are their genres. The recipe is written to `folder`.
    pub(crate) fn of_folders(audio: impl Into<PathBuf>, folder: &Path) -> Self {
        let recipe = folder.join("folders.toml");
        fs::write(&recipe, recipe_for_folders()).unwrap();
        Self::without_metadata(audio, recipe)
    }

    /// Returns these inputs with other metadata.
    pub(crate) fn with_metadata(&self, metadata: impl Into<PathBuf>) -> Self {
        let mut inputs = self.clone();
        inputs.metadata = Some(metadata.into());
        inputs
    }

    /// Returns these inputs with other audio files.
    pub(crate) fn with_audio(&self, audio: impl Into<PathBuf>) -> Self {
        let mut inputs = self.clone();
        inputs.audio = audio.into();
        inputs
    }

    /// Returns these inputs with another recipe.
    pub(crate) fn with_recipe(&self, recipe: impl Into<PathBuf>) -> Self {
        let mut inputs = self.clone();
        inputs.recipe = recipe.into();
        inputs
    }

    /// Returns an `extract` command for these inputs that allows any fraction of rejects, because some of the
    /// synthetic clips are broken on purpose.
    pub(crate) fn extract(&self, store: &Path) -> Command {
        let mut command = self.strict_extract(store);
        command.args(["--max-reject-fraction", "1"]);
        command
    }

    /// Returns a `plan` command with the options of [`Inputs::extract`].
    pub(crate) fn plan(&self, store: &Path) -> Command {
        let mut command = self.command("plan", store);
        command.args(["--max-reject-fraction", "1"]);
        command
    }

    /// Returns an `extract` command for these inputs with the default limit on rejects.
    pub(crate) fn strict_extract(&self, store: &Path) -> Command {
        self.command("extract", store)
    }

    fn command(&self, name: &str, store: &Path) -> Command {
        let mut command = wavemill([name, "--recipe"]);

        // Uses environment variables, so that the flags of a test take precedence.
        command
            .env("WAVEMILL_THREADS", "2")
            .env("WAVEMILL_BACKEND", "cpu");

        command
            .arg(&self.recipe)
            .arg("--audio")
            .arg(&self.audio)
            .arg("--store")
            .arg(store);
        if let Some(metadata) = &self.metadata {
            command.arg("--metadata").arg(metadata);
        }
        command
    }

    /// Copies the files to a folder in which a test may change them.
    pub(crate) fn copied(&self, folder: &Path) -> Self {
        let audio = folder.join("audio");
        copy_folder(&self.audio, &audio);

        let mut metadata = None;
        if let Some(from) = &self.metadata {
            let to = folder.join("metadata");
            copy_folder(from, &to);
            metadata = Some(to);
        }

        Self {
            metadata,
            audio,
            recipe: self.recipe.clone(),
        }
    }

    /// Returns the path of a clip by its key.
    pub(crate) fn clip(&self, clip_key: &str) -> PathBuf {
        self.audio.join(clip_key)
    }
}

/// Returns the synthetic data set of this test run and creates it on the first call.
pub(crate) fn inputs() -> &'static Inputs {
    static INPUTS: OnceLock<Inputs> = OnceLock::new();
    INPUTS.get_or_init(|| {
        let folder = scratch("data");
        let recipe = folder.join("tests.toml");
        fs::write(&recipe, RECIPE).unwrap();

        let mut encoder = Command::new(program("demo-audio"));
        let made = run(encoder
            .arg(folder.join("made"))
            .args(["--tracks", "60", "--seconds", "3"]));
        assert_eq!(made.code, Some(0), "demo-audio: {}", made.err);

        // With its 518 columns, this file would take a third of the time of each extraction. Only tests of
        // experiments read it.
        let metadata = folder.join("made/fma_metadata");
        let features = folder.join("made/features.csv");
        fs::rename(metadata.join("features.csv"), features).unwrap();

        Inputs {
            metadata: Some(metadata),
            audio: folder.join("made/fma_demo"),
            recipe,
        }
    })
}

/// Returns [`inputs`] with another recipe, which is written to `folder`.
pub(crate) fn with_recipe(folder: &Path, recipe: &str) -> Inputs {
    let path = folder.join("recipe.toml");
    fs::write(&path, recipe).unwrap();
    inputs().with_recipe(path)
}

/// Returns [`inputs`] with additional features in the recipe, which is written to `folder`.
pub(crate) fn with_features(folder: &Path, features: &str) -> Inputs {
    let recipe = RECIPE.replace("[shards]", &format!("{features}\n[shards]"));
    with_recipe(folder, &recipe)
}

/// Copies the metadata of [`inputs`] including `features.csv`, as `demo-audio` writes them.
pub(crate) fn metadata_with_features(folder: &Path) -> Result<PathBuf, Failed> {
    let metadata = folder.join("fma_metadata");
    copy_folder(inputs().metadata.as_ref().unwrap(), &metadata);
    let features = inputs().audio.with_file_name("features.csv");
    fs::copy(features, metadata.join("features.csv"))?;
    Ok(metadata)
}

/// Returns a store of [`inputs`] that was extracted in a single run. Tests must not change it.
pub(crate) fn whole() -> &'static Path {
    static WHOLE: OnceLock<PathBuf> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let store = scratch("whole").join("store");
        let made = run(&mut inputs().extract(&store));
        assert_eq!(made.code, Some(0), "extract: {}", made.err);
        store
    })
}

/// Copies the store of [`whole`] to a new folder, in which a test may damage it.
pub(crate) fn own_store(name: &str) -> PathBuf {
    let store = scratch(name).join("store");
    copy_folder(whole(), &store);
    store
}

/// Copies a folder with all files below it.
pub(crate) fn copy_folder(from: &Path, to: &Path) {
    for name in files_below(from) {
        let path = to.join(&name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(from.join(&name), path).unwrap();
    }
}

/// Flips a bit in the middle of a file.
pub(crate) fn damage(path: &Path) -> Result<(), Failed> {
    let mut bytes = fs::read(path)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    Ok(fs::write(path, bytes)?)
}

/// Lists the paths of all files below a folder, `/`-separated and sorted. The list is empty if the folder does not
/// exist.
pub(crate) fn files_below(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        // A running program may remove an entry after it was listed.
        for entry in fs::read_dir(next).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap();
                found.push(name.to_str().unwrap().to_owned());
            }
        }
    }

    found.sort();
    found
}

/// Counts the receipts written so far, over all plans.
pub(crate) fn receipts(store: &Path) -> usize {
    let names = files_below(&store.join("_wavemill/receipts"));

    // Excludes receipts that are still being written, the description of the plan, and the records of its inputs.
    let finished = names.iter().filter(|name| {
        let is_other =
            name.contains("/.") || name.contains("/_seen/") || name.ends_with("plan.json");
        name.ends_with(".json") && !is_other
    });
    finished.count()
}

/// Lists the files of committed versions.
pub(crate) fn versions(store: &Path) -> Vec<String> {
    let names = files_below(&store.join("_wavemill/versions"));
    names
        .into_iter()
        .filter(|name| !name.starts_with('.'))
        .collect()
}

/// Fails unless two stores contain the same versions, byte for byte, including manifests, and no other files.
pub(crate) fn same_versions(left: &Path, right: &Path) -> Result<(), Failed> {
    for part in ["data", "_wavemill/versions"] {
        let ours = left.join(part);
        let theirs = right.join(part);
        let names = files_below(&ours);
        let other_names = files_below(&theirs);

        let mut in_one = names.iter().filter(|name| !other_names.contains(name));
        let mut in_other = other_names.iter().filter(|name| !names.contains(name));
        same(
            &format!("{part}: files of one store only"),
            (in_one.next(), in_other.next()),
            (None, None),
        )?;

        for name in names {
            if fs::read(ours.join(&name))? != fs::read(theirs.join(&name))? {
                return Err(format!("{part}/{name} differs").into());
            }
        }
    }
    Ok(())
}

/// Reads the manifest of a version.
pub(crate) fn manifest(store: &Path, version: u64) -> Result<Manifest, Failed> {
    let text = fs::read_to_string(store.join(format!("_wavemill/versions/{version:08}.json")))?;
    Ok(Manifest::from_json(&text)?)
}

/// Runs a query with `wavemill sql` and returns the resulting rows.
pub(crate) fn sql(store: &Path, query: &str) -> Result<Vec<Value>, Failed> {
    let ran = run(wavemill(["sql", "--format", "json", "--store"])
        .arg(store)
        .arg(query))
    .exits(0)?;
    Ok(ran
        .out
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?)
}

/// Runs a query with `wavemill sql` and returns its only value as a number.
pub(crate) fn sql_number(store: &Path, query: &str) -> Result<u64, Failed> {
    let rows = sql(store, query)?;
    let [Value::Object(row)] = &rows[..] else {
        return Err(format!("not one row: {rows:?}").into());
    };
    let number = row.values().next().and_then(Value::as_u64);
    number.ok_or_else(|| format!("not a number: {rows:?}").into())
}

/// Runs a query with the columns `name` and `n`, and returns the counts by name.
pub(crate) fn sql_counts(store: &Path, query: &str) -> Result<BTreeMap<String, u64>, Failed> {
    let mut counts = BTreeMap::new();
    for row in sql(store, query)? {
        let name = row["name"].as_str();
        let n = row["n"].as_u64();
        let (Some(name), Some(n)) = (name, n) else {
            return Err(format!("not a name and n: {row}").into());
        };
        counts.insert(name.to_owned(), n);
    }
    Ok(counts)
}

/// Fails with a message that contains both values if they differ.
pub(crate) fn same<T: PartialEq + std::fmt::Debug>(
    what: &str,
    got: T,
    wanted: T,
) -> Result<(), Failed> {
    if got == wanted {
        Ok(())
    } else {
        Err(format!("{what}: {got:?}, not {wanted:?}").into())
    }
}

/// Fails with a message that contains the value and the range unless the value lies in the range.
pub(crate) fn within<T: PartialOrd + std::fmt::Debug>(
    what: &str,
    got: T,
    range: impl RangeBounds<T> + std::fmt::Debug,
) -> Result<(), Failed> {
    if range.contains(&got) {
        Ok(())
    } else {
        Err(format!("{what}: {got:?}, not in {range:?}").into())
    }
}

/// Fails with a message that contains both texts unless `text` contains `part`.
pub(crate) fn contains(text: &str, part: &str) -> Result<(), Failed> {
    if text.contains(part) {
        Ok(())
    } else {
        Err(format!("{part:?} is not in: {text}").into())
    }
}

/// Fails with a message that contains both texts if `text` contains `part`.
pub(crate) fn lacks(text: &str, part: &str) -> Result<(), Failed> {
    if text.contains(part) {
        Err(format!("{part:?} is in: {text}").into())
    } else {
        Ok(())
    }
}

/// Fails with a message that contains both texts unless `text` starts with `part`.
pub(crate) fn starts_with(text: &str, part: &str) -> Result<(), Failed> {
    if text.starts_with(part) {
        Ok(())
    } else {
        Err(format!("not at the start: {part:?} of: {text}").into())
    }
}
