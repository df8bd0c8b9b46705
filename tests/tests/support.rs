//! How a test starts the programs and looks at what they leave on disk.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use wavemill_schemas::manifest::Manifest;
use wavemill_tests::{Failed, Trial};

/// Small shards, so that a small data set has many: 2 features, 60 clips of 3 s.
pub const RECIPE: &str = r#"
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
pub fn make_scratch() -> TempDir {
    let scratch = tempfile::Builder::new().prefix("wavemill-tests-").tempdir().unwrap();
    SCRATCH.set(scratch.path().to_owned()).unwrap();
    scratch
}

/// A new, empty folder.
pub fn scratch(name: &str) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let folder = SCRATCH.get().unwrap().join(format!("{number:03}-{name}"));
    fs::create_dir(&folder).unwrap();
    folder
}

/// Where a built program would be: in `WAVEMILL_BIN_DIR`, else in the folder above this executable's.
fn place_of(name: &str) -> PathBuf {
    let above = || std::env::current_exe().unwrap().parent().and_then(Path::parent).unwrap().to_owned();
    std::env::var_os("WAVEMILL_BIN_DIR").map_or_else(above, PathBuf::from).join(name)
}

/// A built program.
pub fn program(name: &str) -> PathBuf {
    let path = place_of(name);
    assert!(path.is_file(), "{} is not built: run scripts/test.sh, or set WAVEMILL_BIN_DIR", path.display());
    path
}

/// `wavemill` with these words, free of what the environment would change.
pub fn wavemill<S: AsRef<std::ffi::OsStr>>(words: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(program("wavemill"));
    command.args(words).stdin(Stdio::null());
    for name in ["FAILPOINTS", "WAVEMILL_MEMORY_LIMIT", "WAVEMILL_THREADS", "RUST_BACKTRACE", "COLUMNS"] {
        command.env_remove(name);
    }
    command.env_remove("WAVEMILL_BACKEND").env_remove("WAVEMILL_DEVICES");
    command
}

/// A test of `wavemill-train`; without that program, which needs libtorch, it shows as ignored.
pub fn of_trainer(name: &str, body: impl FnOnce() -> Result<(), Failed> + Send + 'static) -> Trial {
    Trial::test(name, body).with_ignored_flag(!place_of("wavemill-train").is_file())
}

/// `wavemill-train` with these words, on one thread of a CPU and free of what the environment would change.
pub fn trainer<S: AsRef<std::ffi::OsStr>>(words: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(program("wavemill-train"));
    command.args(words).stdin(Stdio::null());
    for name in ["RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "RUST_BACKTRACE", "COLUMNS"] {
        command.env_remove(name);
    }
    command.env_remove("WAVEMILL_PORT").env_remove("WAVEMILL_JOB").env_remove("TORCHELASTIC_RUN_ID");
    command
}

/// `wavemill-train fit` on a store, into a folder of runs.
pub fn fit(store: &Path, runs: &Path) -> Command {
    let mut command = trainer(["fit", "--device", "cpu", "--threads", "1", "--store"]);
    command.arg(store).arg("--runs").arg(runs);
    command
}

/// The only run in a folder.
pub fn run_in(runs: &Path) -> Result<PathBuf, Failed> {
    let found: Vec<PathBuf> = fs::read_dir(runs)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    match &found[..] {
        [run] => Ok(run.clone()),
        _ => Err(format!("not one run: {found:?}").into()),
    }
}

/// Whole checkpoints of a run, oldest first.
pub fn checkpoints(run: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(run.join("checkpoints")).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_whole = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("step-"));
    let mut found: Vec<PathBuf> = entries.filter(is_whole).collect();
    found.sort();
    found
}

/// The step of the last checkpoint of the only run, 0 before the first.
pub fn last_step(runs: &Path) -> u64 {
    let last = run_in(runs).ok().and_then(|run| checkpoints(&run).pop());
    let name = last.and_then(|path| path.file_name()?.to_str()?.strip_prefix("step-")?.parse().ok());
    name.unwrap_or(0)
}

/// What a finished program said.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// This, if the exit code is the one wanted.
    pub fn exits(self, code: i32) -> Result<Self, Failed> {
        if self.code == Some(code) {
            return Ok(self);
        }
        Err(format!("exit code {:?}, not {code}\nstdout: {}\nstderr: {}", self.code, self.out, self.err).into())
    }

    /// The one error line that it ends with; what comes before are warnings, progress, and that a signal was heard.
    pub fn error(&self) -> Result<&str, Failed> {
        let asides = ["warning: ", "stopping after ", "wavemill-train: epoch "];
        let is_aside = |line: &&str| {
            // Trials that run at once have their number before what they say.
            let said =
                line.split_once(": ").filter(|(who, _)| who.starts_with("trial ")).map_or(*line, |(_, said)| said);
            asides.iter().any(|aside| said.starts_with(aside))
        };
        let mut lines = self.err.lines().filter(|line| !is_aside(line));
        match (lines.next(), lines.next()) {
            (Some(line), None) if line.starts_with("wavemill: ") || line.starts_with("wavemill-train: ") => Ok(line),
            _ => Err(format!("not one line of error: {:?}", self.err).into()),
        }
    }

    /// Fails unless the error line holds every one of these.
    pub fn says(&self, words: &[&str]) -> Result<(), Failed> {
        let line = self.error()?;
        match words.iter().find(|word| !line.contains(*word)) {
            Some(word) => Err(format!("`{word}` is not in: {line}").into()),
            None => Ok(()),
        }
    }
}

/// Runs to the end.
pub fn run(command: &mut Command) -> Ran {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// Starts, with its output kept for [`finish`].
pub fn start(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits for a started program.
pub fn finish(child: Child) -> Ran {
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// Waits until `done`, and fails when `child` ends before, or nothing happens for too long.
pub fn wait_until(child: &mut Child, what: &str, mut done: impl FnMut() -> bool) -> Result<(), Failed> {
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
pub fn kill(mut child: Child) -> Result<(), Failed> {
    if let Some(status) = child.try_wait()? {
        return Err(format!("ended ({status}) before it could be killed").into());
    }
    child.kill()?;
    child.wait()?;
    Ok(())
}

/// What `extract` is given.
#[derive(Clone, Debug)]
pub struct Inputs {
    pub metadata: Option<PathBuf>,
    pub audio: PathBuf,
    pub recipe: PathBuf,
}

impl Inputs {
    /// `extract` of these inputs; some of the synthetic clips are broken on purpose, so rejects are allowed.
    pub fn extract(&self, store: &Path) -> Command {
        let mut command = self.strict_extract(store);
        command.args(["--max-reject-fraction", "1"]);
        command
    }

    /// `extract` of these inputs with the default for rejects.
    pub fn strict_extract(&self, store: &Path) -> Command {
        let mut command = wavemill(["extract", "--recipe"]);
        // A flag of the test's own goes before.
        command.env("WAVEMILL_THREADS", "2").env("WAVEMILL_BACKEND", "cpu");
        command.arg(&self.recipe).arg("--audio").arg(&self.audio).arg("--store").arg(store);
        if let Some(metadata) = &self.metadata {
            command.arg("--metadata").arg(metadata);
        }
        command
    }

    /// The same files, copied where a test may change them.
    pub fn copied(&self, folder: &Path) -> Self {
        let [metadata, audio] = ["metadata", "audio"].map(|name| folder.join(name));
        self.metadata.iter().for_each(|from| copy_folder(from, &metadata));
        copy_folder(&self.audio, &audio);
        Self { metadata: self.metadata.as_ref().map(|_| metadata), audio, recipe: self.recipe.clone() }
    }

    /// A clip that has rows, by its key.
    pub fn clip(&self, clip_key: &str) -> PathBuf {
        self.audio.join(clip_key)
    }
}

/// The data set of this run.
pub fn inputs() -> &'static Inputs {
    static INPUTS: OnceLock<Inputs> = OnceLock::new();
    INPUTS.get_or_init(|| {
        let folder = scratch("data");
        let recipe = folder.join("tests.toml");
        fs::write(&recipe, RECIPE).unwrap();
        let mut encoder = Command::new(program("demo-audio"));
        let made = run(encoder.arg(folder.join("made")).args(["--tracks", "60", "--seconds", "3"]));
        assert_eq!(made.code, Some(0), "demo-audio: {}", made.err);
        Inputs { metadata: Some(folder.join("made/fma_metadata")), audio: folder.join("made/fma_demo"), recipe }
    })
}

/// A store of [`inputs`], made in one go. Only to be read.
pub fn whole() -> &'static Path {
    static WHOLE: OnceLock<PathBuf> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let store = scratch("whole").join("store");
        let made = run(&mut inputs().extract(&store));
        assert_eq!(made.code, Some(0), "extract: {}", made.err);
        store
    })
}

/// A store of [`inputs`] that a test may damage.
pub fn own_store(name: &str) -> PathBuf {
    let store = scratch(name).join("store");
    copy_folder(whole(), &store);
    store
}

/// Copies files and their folders.
pub fn copy_folder(from: &Path, to: &Path) {
    for name in files_below(from) {
        let path = to.join(&name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(from.join(&name), path).unwrap();
    }
}

/// Paths of all files below a folder, `/`-separated and sorted; none where it does not exist.
pub fn files_below(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        // A running program may remove what was listed.
        for entry in fs::read_dir(next).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// Receipts of shards so far, of all plans.
pub fn receipts(store: &Path) -> usize {
    let names = files_below(&store.join("_wavemill/receipts"));
    names.iter().filter(|name| name.ends_with(".json") && !name.contains("/.") && !name.ends_with("plan.json")).count()
}

/// Committed versions.
pub fn versions(store: &Path) -> Vec<String> {
    let names = files_below(&store.join("_wavemill/versions"));
    names.into_iter().filter(|name| !name.starts_with('.')).collect()
}

/// Fails unless two stores hold the same versions, byte for byte, manifests included, and nothing else.
pub fn same_versions(left: &Path, right: &Path) -> Result<(), Failed> {
    for part in ["data", "_wavemill/versions"] {
        let [ours, theirs] = [left, right].map(|store| store.join(part));
        let (names, other_names) = (files_below(&ours), files_below(&theirs));
        let mut in_one = names.iter().filter(|name| !other_names.contains(name));
        let mut in_other = other_names.iter().filter(|name| !names.contains(name));
        same(&format!("{part}: files of one store only"), (in_one.next(), in_other.next()), (None, None))?;
        for name in names {
            if fs::read(ours.join(&name))? != fs::read(theirs.join(&name))? {
                return Err(format!("{part}/{name} differs").into());
            }
        }
    }
    Ok(())
}

/// A version's manifest.
pub fn manifest(store: &Path, version: u64) -> Result<Manifest, Failed> {
    let text = fs::read_to_string(store.join(format!("_wavemill/versions/{version:08}.json")))?;
    Ok(Manifest::from_json(&text)?)
}

/// The rows that `wavemill sql` answers.
pub fn sql(store: &Path, query: &str) -> Result<Vec<Value>, Failed> {
    let ran = run(wavemill(["sql", "--format", "json", "--store"]).arg(store).arg(query)).exits(0)?;
    Ok(ran.out.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

/// The one number that `wavemill sql` answers.
pub fn sql_number(store: &Path, query: &str) -> Result<u64, Failed> {
    let rows = sql(store, query)?;
    let [Value::Object(row)] = &rows[..] else { return Err(format!("not one row: {rows:?}").into()) };
    let number = row.values().next().and_then(Value::as_u64);
    number.ok_or_else(|| format!("not a number: {rows:?}").into())
}

/// Rows counted by a text column.
pub fn sql_counts(store: &Path, query: &str) -> Result<BTreeMap<String, u64>, Failed> {
    let pair = |row: &Value| Some((row.get("name")?.as_str()?.to_owned(), row.get("n")?.as_u64()?));
    let rows = sql(store, query)?;
    rows.iter().map(|row| pair(row).ok_or_else(|| format!("not a name and n: {row}").into())).collect()
}

/// Fails with both values where they differ.
pub fn same<T: PartialEq + std::fmt::Debug>(what: &str, got: T, wanted: T) -> Result<(), Failed> {
    if got == wanted { Ok(()) } else { Err(format!("{what}: {got:?}, not {wanted:?}").into()) }
}
