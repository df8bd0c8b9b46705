//! How a test starts the programs and looks at what they leave on disk.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use wavemill_schemas::manifest::Manifest;
use wavemill_tests::{Failed, Trial};

/// Small shards, so that a small data set has many: 2 features, 60 clips of 3 s.
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

/// Ends a wait for something that a program should do by itself.
const WAIT_S_MAX: u64 = 120;
/// How often a waiting test looks.
const LOOK: Duration = Duration::from_millis(5);

static SCRATCH: OnceLock<PathBuf> = OnceLock::new();

/// Makes the folder for everything that this run writes; dropped, it is removed.
pub(crate) fn make_scratch() -> TempDir {
    let scratch = tempfile::Builder::new()
        .prefix("wavemill-tests-")
        .tempdir()
        .unwrap();
    SCRATCH.set(scratch.path().to_owned()).unwrap();
    scratch
}

/// A new, empty folder.
pub(crate) fn scratch(name: &str) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let folder = SCRATCH.get().unwrap().join(format!("{number:03}-{name}"));
    fs::create_dir(&folder).unwrap();
    folder
}

/// Where a built program would be: in `WAVEMILL_BIN_DIR`, else in the folder above this executable's.
fn place_of(name: &str) -> PathBuf {
    if let Some(folder) = std::env::var_os("WAVEMILL_BIN_DIR") {
        return PathBuf::from(folder).join(name);
    }

    // Cargo puts test binaries into `deps`, beside which the programs lie.
    let own = std::env::current_exe().unwrap();
    let above = own.parent().and_then(Path::parent).unwrap();
    above.join(name)
}

/// A built program.
pub(crate) fn program(name: &str) -> PathBuf {
    let path = place_of(name);
    assert!(
        path.is_file(),
        "{} is not built: run scripts/test.sh, or set WAVEMILL_BIN_DIR",
        path.display()
    );
    path
}

/// Whether there is a Python for trials of scripts; without it they show as ignored.
pub(crate) fn has_python() -> bool {
    Command::new("python3")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok()
}

/// `wavemill` with these words, free of what the environment would change.
pub(crate) fn wavemill<S: AsRef<std::ffi::OsStr>>(words: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(program("wavemill"));
    command.args(words).stdin(Stdio::null());
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

/// Whether `wavemill-train` is built, which needs libtorch.
pub(crate) fn has_trainer() -> bool {
    place_of("wavemill-train").is_file()
}

/// A test of `wavemill-train`; without that program, which needs libtorch, it shows as ignored.
pub(crate) fn of_trainer(
    name: &str,
    body: impl FnOnce() -> Result<(), Failed> + Send + 'static,
) -> Trial {
    Trial::test(name, body).with_ignored_flag(!has_trainer())
}

/// `wavemill-train` with these words, on one thread of a CPU and free of what the environment would change.
pub(crate) fn trainer<S: AsRef<std::ffi::OsStr>>(words: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(program("wavemill-train"));
    command.args(words).stdin(Stdio::null());
    // Those of torchrun would make it a rank of a job that is not there.
    for name in [
        "RANK",
        "WORLD_SIZE",
        "LOCAL_RANK",
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

/// `wavemill-train fit` on a store, into a folder of runs.
pub(crate) fn fit(store: &Path, runs: &Path) -> Command {
    let mut command = trainer(["fit", "--device", "cpu", "--threads", "1", "--store"]);
    command.arg(store).arg("--runs").arg(runs);
    command
}

/// The only run in a folder.
pub(crate) fn run_in(runs: &Path) -> Result<PathBuf, Failed> {
    let found: Vec<PathBuf> = fs::read_dir(runs)?
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()?;
    match &found[..] {
        [run] => Ok(run.clone()),
        _ => Err(format!("not one run: {found:?}").into()),
    }
}

/// Whole checkpoints of a run, oldest first.
pub(crate) fn checkpoints(run: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    // Before the first there may be no folder.
    let entries = fs::read_dir(run.join("checkpoints")).into_iter().flatten();
    // A running program may remove what was listed.
    for entry in entries.flatten() {
        let path = entry.path();
        if step_of(&path).is_some() {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The number of a whole checkpoint; one that is being written has another name.
fn step_of(checkpoint: &Path) -> Option<&str> {
    checkpoint.file_name()?.to_str()?.strip_prefix("step-")
}

/// The step of the last checkpoint of the only run, 0 before the first.
pub(crate) fn last_step(runs: &Path) -> u64 {
    let Ok(run) = run_in(runs) else {
        return 0;
    };
    let last = checkpoints(&run).pop();
    last.and_then(|path| step_of(&path)?.parse().ok())
        .unwrap_or(0)
}

/// What a finished program said.
#[derive(Debug)]
pub(crate) struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// This, if the exit code is the one wanted.
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

    /// The one error line that it ends with; what comes before are warnings, progress, and that a signal was heard.
    pub(crate) fn error(&self) -> Result<&str, Failed> {
        let mut lines: Vec<&str> = self.err.lines().collect();
        let last = lines
            .pop()
            .filter(|line| line.starts_with("wavemill: ") || line.starts_with("wavemill-train: "));

        // A second line of error would be one that nobody planned, such as a panic's.
        match last {
            Some(line) if !is_aside(line) && lines.iter().all(|line| is_aside(line)) => Ok(line),
            _ => Err(format!("not one line of error, at the end: {:?}", self.err).into()),
        }
    }

    /// Fails unless the error line holds every one of these.
    pub(crate) fn says(&self, words: &[&str]) -> Result<(), Failed> {
        let line = self.error()?;
        match words.iter().find(|word| !line.contains(*word)) {
            Some(word) => Err(format!("`{word}` is not in: {line}").into()),
            None => Ok(()),
        }
    }
}

/// Whether a line is no error: a warning, how sides change, the progress of an epoch, or that a signal was heard.
fn is_aside(line: &str) -> bool {
    // Trials that run at once have their number before what they say.
    let said = match line
        .strip_prefix("trial ")
        .and_then(|rest| rest.split_once(": "))
    {
        Some((number, said)) if number.parse::<u32>().is_ok() => said,
        _ => line,
    };

    let epoch = said
        .strip_prefix("wavemill-train: epoch ")
        .and_then(|rest| rest.split_once(" of "));
    let is_progress = epoch.is_some_and(|(number, _)| number.parse::<u32>().is_ok());
    let starts = ["warning: ", "stopping after ", "sides: "];
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

/// Runs to the end.
pub(crate) fn run(command: &mut Command) -> Ran {
    command.output().unwrap().into()
}

/// Starts, with its output kept for [`finish`].
pub(crate) fn start(command: &mut Command) -> Child {
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits for a started program.
pub(crate) fn finish(child: Child) -> Ran {
    child.wait_with_output().unwrap().into()
}

/// Waits until `done`, and fails when `child` ends before, or nothing happens for too long.
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

/// SIGKILL; fails when the program had ended by itself.
pub(crate) fn kill(mut child: Child) -> Result<(), Failed> {
    if let Some(status) = child.try_wait()? {
        return Err(format!("ended ({status}) before it could be killed").into());
    }
    child.kill()?;
    child.wait()?;
    Ok(())
}

/// What `extract` is given.
#[derive(Clone, Debug)]
pub(crate) struct Inputs {
    pub metadata: Option<PathBuf>,
    pub audio: PathBuf,
    pub recipe: PathBuf,
}

impl Inputs {
    /// `extract` of these inputs; some of the synthetic clips are broken on purpose, so rejects are allowed.
    pub(crate) fn extract(&self, store: &Path) -> Command {
        let mut command = self.strict_extract(store);
        command.args(["--max-reject-fraction", "1"]);
        command
    }

    /// `extract` of these inputs with the default for rejects.
    pub(crate) fn strict_extract(&self, store: &Path) -> Command {
        let mut command = wavemill(["extract", "--recipe"]);

        // By the environment, so that a test's own flags win.
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

    /// The same files, copied where a test may change them.
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

    /// A clip that has rows, by its key.
    pub(crate) fn clip(&self, clip_key: &str) -> PathBuf {
        self.audio.join(clip_key)
    }
}

/// The data set of this run.
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

        // Its 518 columns would take a third of the time of each extraction: only tests of experiments read them.
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

/// The metadata of [`inputs`] as `demo-audio` writes it: with `features.csv`.
pub(crate) fn metadata_with_features(folder: &Path) -> Result<PathBuf, Failed> {
    let metadata = folder.join("fma_metadata");
    copy_folder(inputs().metadata.as_ref().unwrap(), &metadata);
    let features = inputs().audio.with_file_name("features.csv");
    fs::copy(features, metadata.join("features.csv"))?;
    Ok(metadata)
}

/// A store of [`inputs`], made in one go. Only to be read.
pub(crate) fn whole() -> &'static Path {
    static WHOLE: OnceLock<PathBuf> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let store = scratch("whole").join("store");
        let made = run(&mut inputs().extract(&store));
        assert_eq!(made.code, Some(0), "extract: {}", made.err);
        store
    })
}

/// A store of [`inputs`] that a test may damage.
pub(crate) fn own_store(name: &str) -> PathBuf {
    let store = scratch(name).join("store");
    copy_folder(whole(), &store);
    store
}

/// Copies files and their folders.
pub(crate) fn copy_folder(from: &Path, to: &Path) {
    for name in files_below(from) {
        let path = to.join(&name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(from.join(&name), path).unwrap();
    }
}

/// Paths of all files below a folder, `/`-separated and sorted; none where it does not exist.
pub(crate) fn files_below(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        // A running program may remove what was listed.
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

/// Receipts of files so far, of all plans.
pub(crate) fn receipts(store: &Path) -> usize {
    let names = files_below(&store.join("_wavemill/receipts"));

    // Not those that are being written, nor what the plan was made of, nor what was seen of its inputs.
    let finished = names.iter().filter(|name| {
        let is_other =
            name.contains("/.") || name.contains("/_seen/") || name.ends_with("plan.json");
        name.ends_with(".json") && !is_other
    });
    finished.count()
}

/// Committed versions.
pub(crate) fn versions(store: &Path) -> Vec<String> {
    let names = files_below(&store.join("_wavemill/versions"));
    names
        .into_iter()
        .filter(|name| !name.starts_with('.'))
        .collect()
}

/// Fails unless two stores hold the same versions, byte for byte, manifests included, and nothing else.
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

/// A version's manifest.
pub(crate) fn manifest(store: &Path, version: u64) -> Result<Manifest, Failed> {
    let text = fs::read_to_string(store.join(format!("_wavemill/versions/{version:08}.json")))?;
    Ok(Manifest::from_json(&text)?)
}

/// The rows that `wavemill sql` answers.
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

/// The one number that `wavemill sql` answers.
pub(crate) fn sql_number(store: &Path, query: &str) -> Result<u64, Failed> {
    let rows = sql(store, query)?;
    let [Value::Object(row)] = &rows[..] else {
        return Err(format!("not one row: {rows:?}").into());
    };
    let number = row.values().next().and_then(Value::as_u64);
    number.ok_or_else(|| format!("not a number: {rows:?}").into())
}

/// Rows counted by a text column, of a query that answers `name` and `n`.
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

/// Fails with both values where they differ.
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
