//! The folder of a run: the paths of the run's files, and atomic writes.

use std::fs;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use serde::Serialize;
use serde::de::{DeserializeOwned, Error as _};

use super::RunFilesError;
use crate::canonical;
use crate::durable::{TemporaryPath, if_there, make_folder};
use crate::exit::PlainError;
use crate::settings;
use crate::version_name::VERSIONS_FOLDER;

const CONFIG: &str = "config.toml";
const RESULT: &str = "result.json";
const TRAINING_LIST: &str = "training.parquet";
/// Prefix of the names of TensorBoard event files.
const EVENTS: &str = "events.out.tfevents.";
/// Names of other files that a run writes before its first checkpoint. The ranks of a run look for `.ranks` at the
/// start.
const BEGINNING: [&str; 11] = [
    CONFIG,
    "config.tmp",
    "input.json",
    "input.tmp",
    "recipe.toml",
    "recipe.tmp",
    TRAINING_LIST,
    "training.tmp",
    "log.jsonl",
    "checkpoints",
    ".ranks",
];

/// The folder of a run, `runs/<id>/`.
///
/// | file | content |
/// |---|---|
/// | `config.toml` | everything that determines the numbers |
/// | `training.parquet` | the tracks that the run trained on |
/// | `log.jsonl` | one line per event, appended |
/// | `events.out.tfevents.*` | the same figures for TensorBoard |
/// | `checkpoints/` | the latest checkpoint for resuming, and the best one |
/// | `result.json` | the scores; exists once the run is complete |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDir {
    path: PathBuf,
}

/// Maximum number of runs that an error names.
const NAMED_MAX: usize = 5;

/// Describes a folder that is not the folder of a run.
fn found_in(path: &Path) -> String {
    if !path.exists() {
        return "there is no such folder".to_owned();
    }
    if path.join(VERSIONS_FOLDER).is_dir() {
        return "this is a store".to_owned();
    }

    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut runs: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    runs.retain(|run| run.join(CONFIG).is_file());
    runs.sort();
    runs.truncate(NAMED_MAX);
    let runs: Vec<String> = runs.iter().map(|run| run.display().to_string()).collect();
    match runs.is_empty() {
        true => format!("no {CONFIG}"),
        false => format!("it contains the runs {}", runs.join(", ")),
    }
}

/// Returns the prefix of the ids of runs of `model`: its name and the first 8 hex digits of the configuration's hash.
pub fn run_stem(model: &str, config_hash: &str) -> String {
    let hash: String = config_hash.chars().take(8).collect();
    format!("{model}-{hash}")
}

impl RunDir {
    /// Creates a new folder `id` in `root`, which is created if necessary.
    ///
    /// # Errors
    /// [`RunFilesError::Exists`] if the folder exists, [`RunFilesError::Other`] if the id is no folder name,
    /// [`RunFilesError::Io`].
    pub fn create(root: &Path, id: &str) -> Result<Self, RunFilesError> {
        // `part == id` also rejects an id such as `a/`, whose only component is `a`.
        let mut parts = Path::new(id).components();
        if !matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == id)
        {
            let message = format!("{id:?} is not a valid name for a run: use a single folder name");
            return Err(PlainError::usage(message).into());
        }

        make_folder(root).map_err(RunFilesError::io(root, "create the folder"))?;
        let path = root.join(id);
        // Do not use `create_dir_all`: the call must fail if the folder exists, so that two processes never use the
        // same folder.
        match fs::create_dir(&path) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                return Err(RunFilesError::Exists { path });
            }
            made => made.map_err(RunFilesError::io(&path, "create the folder"))?,
        }

        Self::take(&path)
    }

    /// Creates a new folder `<stem>-<n>` in `root`, with the first unused n from 1: two processes never share a folder.
    ///
    /// # Errors
    /// [`RunFilesError::Other`] if `stem` is no folder name, [`RunFilesError::Io`].
    pub fn create_next(root: &Path, stem: &str) -> Result<Self, RunFilesError> {
        let mut n = 1_u64;
        loop {
            match Self::create(root, &format!("{stem}-{n}")) {
                Err(RunFilesError::Exists { .. }) => n += 1,
                other => return other,
            }
        }
    }

    /// Prepares the folder `path` for a new run: creates it with its parents, or reuses it if a run ended there before
    /// its first checkpoint.
    ///
    /// # Errors
    /// [`RunFilesError::Io`] if the folder cannot be created.
    pub fn take(path: &Path) -> Result<Self, RunFilesError> {
        let run = Self {
            path: path.to_owned(),
        };
        make_folder(&run.checkpoints())
            .map_err(RunFilesError::io(&run.checkpoints(), "create the folder"))?;
        Ok(run)
    }

    /// Checks that a run may begin in the folder `path`, which has no checkpoint: it does not exist, is empty, or
    /// contains only files that a run writes before its first checkpoint.
    ///
    /// # Errors
    /// [`RunFilesError::Other`] if the folder contains other files or a result, [`RunFilesError::Io`].
    pub fn may_begin(path: &Path) -> Result<(), RunFilesError> {
        let entries = if_there(fs::read_dir(path)).map_err(RunFilesError::io(path, "list"))?;
        let Some(entries) = entries else {
            return Ok(());
        };

        // If the folder has a result, its run has ended. A new run must not replace the result.
        let result = path.join(RESULT);
        if result
            .try_exists()
            .map_err(RunFilesError::io(&result, "inspect"))?
        {
            return Err(PlainError::usage(format!(
                "{}: this run has a result but no checkpoint: it cannot be resumed; choose another folder",
                path.display()
            ))
            .into());
        }
        for entry in entries {
            let name = entry.map_err(RunFilesError::io(path, "list"))?.file_name();
            let name = name.to_string_lossy();
            if !BEGINNING.contains(&&*name) && !name.starts_with(EVENTS) {
                return Err(PlainError::usage(format!(
                    "{}: not a run, and not empty ({name:?}): choose a folder that does not exist yet to start a run \
                     in it",
                    path.display()
                ))
                .into());
            }
        }
        Ok(())
    }

    /// Opens the run in the folder `path`, such as `runs/cnn2d-1a2b3c4d-1`.
    ///
    /// # Errors
    /// [`RunFilesError::Missing`] if the folder contains no run; [`RunFilesError::Io`] if the folder cannot be read.
    pub fn open(path: &Path) -> Result<Self, RunFilesError> {
        let run = Self {
            path: path.to_owned(),
        };

        let config = run.config();
        // A failing disk is not a missing run.
        let found = match fs::metadata(&config) {
            Ok(metadata) => metadata.is_file(),
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                false
            }
            Err(error) => return Err(RunFilesError::io(&config, "inspect")(error)),
        };

        if found {
            Ok(run)
        } else {
            Err(RunFilesError::Missing {
                path: path.to_owned(),
                found: found_in(path),
            })
        }
    }

    /// Returns the path of the run's folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the name of the run's folder.
    pub fn id(&self) -> String {
        self.path
            .file_name()
            .map_or(String::new(), |name| name.to_string_lossy().into_owned())
    }

    /// Returns the path of the run's configuration.
    pub fn config(&self) -> PathBuf {
        self.path.join(CONFIG)
    }

    /// Returns the path of the run's log.
    pub fn log(&self) -> PathBuf {
        self.path.join("log.jsonl")
    }

    /// Returns the path of the folder with the run's checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// Returns the path of the run's result, which contains the scores.
    pub fn result(&self) -> PathBuf {
        self.path.join(RESULT)
    }

    /// Writes the run's configuration atomically.
    ///
    /// # Errors
    /// [`RunFilesError::Io`] if the file cannot be written.
    pub fn write_config(&self, text: &str) -> Result<(), RunFilesError> {
        self.write_text(CONFIG, text)
    }

    /// Returns the text of the run's configuration.
    ///
    /// # Errors
    /// [`RunFilesError::Io`] if the file cannot be read.
    pub fn read_config(&self) -> Result<String, RunFilesError> {
        settings::read(&self.config()).map_err(RunFilesError::io(&self.config(), "read"))
    }

    /// Writes another text file of the run atomically.
    ///
    /// # Errors
    /// [`RunFilesError::Io`] if the file cannot be written.
    pub fn write_text(&self, name: &str, text: &str) -> Result<(), RunFilesError> {
        self.replace(&self.path.join(name), text.as_bytes())
    }

    /// Returns the path of the list of tracks that the run trained on.
    pub fn training_list(&self) -> PathBuf {
        self.path.join(TRAINING_LIST)
    }

    /// Writes the list of training tracks atomically.
    ///
    /// # Errors
    /// [`RunFilesError::Io`] if the file cannot be written.
    pub fn write_training_list(&self, bytes: &[u8]) -> Result<(), RunFilesError> {
        self.replace(&self.training_list(), bytes)
    }

    /// Writes the run's result atomically, as indented JSON with sorted keys and a checksum, so that equal results are
    /// equal bytes.
    ///
    /// # Errors
    /// [`RunFilesError::Io`] if the file cannot be written; [`RunFilesError::Json`] for a value that JSON cannot
    /// represent.
    pub fn write_result<T: Serialize>(&self, result: &T) -> Result<(), RunFilesError> {
        let path = self.result();
        // Convert to `Value`, whose map sorts the keys.
        let value = serde_json::to_value(result).map_err(RunFilesError::json(&path, None))?;
        let text = canonical::checked(&value).map_err(RunFilesError::json(&path, None))?;
        self.replace(&path, text.as_bytes())
    }

    /// Reads the run's result; returns `None` while the run is not complete.
    ///
    /// # Errors
    /// [`RunFilesError::Io`] if the file cannot be read, [`RunFilesError::Json`] if its content is invalid or was
    /// changed.
    pub fn read_result<T: DeserializeOwned>(&self) -> Result<Option<T>, RunFilesError> {
        let path = self.result();

        let found = if_there(fs::read(&path)).map_err(RunFilesError::io(&path, "read"))?;
        let Some(text) = found else {
            return Ok(None);
        };
        let read = match canonical::is_unchanged(&text) {
            Some(false) => Err(serde_json::Error::custom(
                "its blake3 is not that of its content",
            )),
            _ => serde_json::from_slice(&text),
        };
        read.map(Some).map_err(RunFilesError::json(&path, None))
    }

    /// Replaces a file: after a power failure, it has either its old or its new content.
    fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), RunFilesError> {
        // The temporary name is always the same, so the next write overwrites a file left by a killed process.
        let temporary = TemporaryPath::new(path.with_extension("tmp"));
        let written = temporary.write(bytes);
        let replaced = written.and_then(|()| temporary.persist(path));
        replaced.map_err(RunFilesError::io(path, "write"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn run_ids_are_unique_folder_names() {
        let root = tempfile::tempdir().unwrap();
        let runs = root.path().join("runs");
        let stem = run_stem("cnn2d", "1a2b3c4d5e6f");

        let ids: Vec<String> = (0..3)
            .map(|_| RunDir::create_next(&runs, &stem).unwrap().id())
            .collect();
        assert_eq!(
            ids,
            ["cnn2d-1a2b3c4d-1", "cnn2d-1a2b3c4d-2", "cnn2d-1a2b3c4d-3"]
        );

        assert!(matches!(
            RunDir::create(&runs, &ids[1]),
            Err(RunFilesError::Exists { .. })
        ));

        for id in ["", ".", "..", "a/b", "/a", "a/"] {
            let error = RunDir::create(&runs, id).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("{id:?} is not a valid name for a run: use a single folder name")
            );
        }
    }

    #[test]
    fn run_folder_requires_a_configuration() {
        let root = tempfile::tempdir().unwrap();
        let run = RunDir::create(root.path(), "a").unwrap();

        assert!(matches!(
            RunDir::open(run.path()),
            Err(RunFilesError::Missing { .. })
        ));

        run.write_config("seed = 1\n").unwrap();
        let again = RunDir::open(run.path()).unwrap();
        assert_eq!(
            (
                again.read_config().unwrap().as_str(),
                again.checkpoints().is_dir()
            ),
            ("seed = 1\n", true)
        );
    }

    #[test]
    fn errors_describe_a_folder_that_is_no_run() {
        let root = tempfile::tempdir().unwrap();
        let at = root.path().display();
        for name in ["empty", "runs/b", "runs/a", "store/_wavemill/versions"] {
            fs::create_dir_all(root.path().join(name)).unwrap();
        }
        for run in ["runs/a", "runs/b"] {
            fs::write(root.path().join(run).join(CONFIG), "").unwrap();
        }

        for (name, found) in [
            ("none", "there is no such folder".to_owned()),
            ("empty", "no config.toml".to_owned()),
            ("store", "this is a store".to_owned()),
            (
                "runs",
                format!("it contains the runs {at}/runs/a, {at}/runs/b"),
            ),
        ] {
            let error = RunDir::open(&root.path().join(name)).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!(
                    "{at}/{name}: not a run ({found}); give a folder that `wavemill train fit` created"
                )
            );
        }
    }

    #[test]
    fn a_result_is_sorted_and_replaced_whole() {
        #[derive(Serialize)]
        struct Result {
            b: f64,
            a: u32,
        }

        let root = tempfile::tempdir().unwrap();
        let run = RunDir::create(root.path(), "a").unwrap();
        assert_eq!(run.read_result::<Value>().unwrap(), None);

        run.write_result(&Result { b: 0.1, a: 1 }).unwrap();
        run.write_result(&Result { b: 0.25, a: 2 }).unwrap();
        let text = fs::read_to_string(run.result()).unwrap();
        assert!(text.starts_with("{\n  \"a\": 2,\n  \"b\": 0.25,\n  \"blake3\": "));
        assert_eq!(run.read_result::<Value>().unwrap().unwrap()["a"], 2);

        let names: Vec<_> = fs::read_dir(run.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names.len(), 2, "no temporary file is left: {names:?}");

        fs::write(run.result(), text.replace("0.25", "0.75")).unwrap();
        assert!(run.read_result::<Value>().is_err());
        fs::write(run.result(), "{").unwrap();
        assert!(
            run.read_result::<Value>()
                .unwrap_err()
                .to_string()
                .contains("result.json: not a valid")
        );
    }
}
