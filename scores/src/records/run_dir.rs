//! The folder of a run: where everything lies, and how a file in it comes to be whole or not at all.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Component, Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use wavemill_schemas::settings;

use super::RecordError;

const RESULT: &str = "result.json";
const TRAINING_LIST: &str = "training.parquet";
const MLFLOW: &str = "mlflow.json";
/// How the names of TensorBoard's files begin.
const EVENTS: &str = "events.out.tfevents.";
/// What else a run writes before its first checkpoint; `.ranks` is what its ranks look for at the start.
const BEGINNING: [&str; 11] = [
    "config.toml",
    "config.tmp",
    "input.json",
    "recipe.toml",
    TRAINING_LIST,
    "training.tmp",
    "log.jsonl",
    MLFLOW,
    "mlflow.tmp",
    "checkpoints",
    ".ranks",
];

/// `runs/<id>/`.
///
/// | file | what |
/// |---|---|
/// | `config.toml` | everything that decides the numbers |
/// | `training.parquet` | the tracks that it trained on |
/// | `log.jsonl` | one line an event, appended |
/// | `events.out.tfevents.*` | the same figures for TensorBoard |
/// | `mlflow.json` | which run it is at an MLflow server; only where one is told of it |
/// | `checkpoints/` | to go on from, and the best |
/// | `result.json` | the scores; there once the run is complete |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDir {
    path: PathBuf,
}

/// How ids of runs of `model` begin: its name and the first 8 hex digits of the configuration's hash.
pub fn run_stem(model: &str, config_hash: &str) -> String {
    let hash: String = config_hash.chars().take(8).collect();
    format!("{model}-{hash}")
}

impl RunDir {
    /// A new folder `id` in `root`, which is made where it lacks.
    ///
    /// # Errors
    /// [`RecordError::Exists`], [`RecordError::Id`], [`RecordError::Io`].
    pub fn create(root: &Path, id: &str) -> Result<Self, RecordError> {
        // `part == id` also refuses `a/`, whose only component is `a`.
        let mut parts = Path::new(id).components();
        if !matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == id)
        {
            return Err(RecordError::Id { id: id.to_owned() });
        }

        fs::create_dir_all(root).map_err(RecordError::io(root, "make the folder"))?;
        let path = root.join(id);
        // Not `create_dir_all`: it must fail if the folder exists, so that of two processes only one gets it.
        match fs::create_dir(&path) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                return Err(RecordError::Exists { path });
            }
            made => made.map_err(RecordError::io(&path, "make the folder"))?,
        }

        let run = Self { path };
        fs::create_dir(run.checkpoints())
            .map_err(RecordError::io(&run.checkpoints(), "make the folder"))?;
        Ok(run)
    }

    /// A new folder `<stem>-<n>` in `root`, with the first n from 1 that nobody has: two processes never share one.
    ///
    /// # Errors
    /// [`RecordError::Id`], [`RecordError::Io`].
    pub fn create_next(root: &Path, stem: &str) -> Result<Self, RecordError> {
        let mut n = 1_u64;
        loop {
            match Self::create(root, &format!("{stem}-{n}")) {
                Err(RecordError::Exists { .. }) => n += 1,
                other => return other,
            }
        }
    }

    /// The folder `path` for a run that begins: made with the folders above it, or as a run that never came to a
    /// checkpoint left it.
    ///
    /// # Errors
    /// [`RecordError::Io`].
    pub fn take(path: &Path) -> Result<Self, RecordError> {
        let run = Self {
            path: path.to_owned(),
        };
        fs::create_dir_all(run.checkpoints())
            .map_err(RecordError::io(&run.checkpoints(), "make the folder"))?;
        Ok(run)
    }

    /// Whether a run may begin in the folder `path`, which has no checkpoint: it is not there, is empty, or holds what a
    /// run writes before its first checkpoint.
    ///
    /// # Errors
    /// [`RecordError::Taken`], [`RecordError::Ended`], [`RecordError::Io`].
    pub fn may_begin(path: &Path) -> Result<(), RecordError> {
        let entries = match fs::read_dir(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(RecordError::io(path, "list"))?,
        };

        // A run with a result has ended. Its scores must not be replaced by those of a run that begins anew beside
        // them.
        let result = path.join(RESULT);
        if result
            .try_exists()
            .map_err(RecordError::io(&result, "look at"))?
        {
            return Err(RecordError::Ended {
                path: path.to_owned(),
            });
        }
        for entry in entries {
            let name = entry.map_err(RecordError::io(path, "list"))?.file_name();
            let name = name.to_string_lossy();
            if !BEGINNING.contains(&&*name) && !name.starts_with(EVENTS) {
                return Err(RecordError::Taken {
                    path: path.to_owned(),
                    name: name.into_owned(),
                });
            }
        }
        Ok(())
    }

    /// The run in the folder `path`, such as `runs/cnn2d-1a2b3c4d-1`.
    ///
    /// # Errors
    /// [`RecordError::Missing`].
    pub fn open(path: &Path) -> Result<Self, RecordError> {
        let run = Self {
            path: path.to_owned(),
        };
        if run.config().is_file() {
            Ok(run)
        } else {
            Err(RecordError::Missing {
                path: path.to_owned(),
            })
        }
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its folder's name.
    pub fn id(&self) -> String {
        self.path
            .file_name()
            .map_or(String::new(), |name| name.to_string_lossy().into_owned())
    }

    /// Path of its configuration.
    pub fn config(&self) -> PathBuf {
        self.path.join("config.toml")
    }

    /// Path of its log.
    pub fn log(&self) -> PathBuf {
        self.path.join("log.jsonl")
    }

    /// Path of its checkpoints' folder.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// Path of its scores.
    pub fn result(&self) -> PathBuf {
        self.path.join(RESULT)
    }

    /// Writes the configuration, whole or not at all.
    ///
    /// # Errors
    /// [`RecordError::Io`].
    pub fn write_config(&self, text: &str) -> Result<(), RecordError> {
        self.replace(&self.config(), text.as_bytes())
    }

    /// The configuration's text.
    ///
    /// # Errors
    /// [`RecordError::Io`].
    pub fn read_config(&self) -> Result<String, RecordError> {
        settings::read(&self.config()).map_err(RecordError::io(&self.config(), "read"))
    }

    /// Path of the list of tracks that it trained on.
    pub fn training_list(&self) -> PathBuf {
        self.path.join(TRAINING_LIST)
    }

    /// Writes that list, whole or not at all.
    ///
    /// # Errors
    /// [`RecordError::Io`].
    pub fn write_training_list(&self, bytes: &[u8]) -> Result<(), RecordError> {
        self.replace(&self.training_list(), bytes)
    }

    /// Path of what it remembers of MLflow.
    pub fn mlflow(&self) -> PathBuf {
        self.path.join(MLFLOW)
    }

    /// Writes that, whole or not at all.
    ///
    /// # Errors
    /// [`RecordError::Io`].
    pub fn write_mlflow(&self, bytes: &[u8]) -> Result<(), RecordError> {
        self.replace(&self.mlflow(), bytes)
    }

    /// What was written there; `None` of a run that was at no server.
    ///
    /// # Errors
    /// [`RecordError::Io`].
    pub fn read_mlflow(&self) -> Result<Option<Vec<u8>>, RecordError> {
        let path = self.mlflow();
        match fs::read(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            read => read.map(Some).map_err(RecordError::io(&path, "read")),
        }
    }

    /// Writes the scores, whole or not at all: indented, keys sorted, so that equal results are equal bytes.
    ///
    /// # Errors
    /// [`RecordError::Io`]; [`RecordError::Json`] for a value that JSON cannot hold.
    pub fn write_result<T: Serialize>(&self, result: &T) -> Result<(), RecordError> {
        // Through `Value`, whose map is ordered.
        let value = serde_json::to_value(result).map_err(|source| self.no_json(source))?;
        let text = serde_json::to_string_pretty(&value).map_err(|source| self.no_json(source))?;
        self.replace(&self.result(), (text + "\n").as_bytes())
    }

    /// [`RecordError::Json`] of the scores.
    fn no_json(&self, source: serde_json::Error) -> RecordError {
        RecordError::Json {
            path: self.result(),
            line: None,
            source,
        }
    }

    /// The scores; `None` while the run is not complete.
    ///
    /// # Errors
    /// [`RecordError::Io`], [`RecordError::Json`].
    pub fn read_result<T: DeserializeOwned>(&self) -> Result<Option<T>, RecordError> {
        let path = self.result();

        match fs::read(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(RecordError::Io {
                path,
                action: "read",
                source,
            }),
            Ok(text) => {
                serde_json::from_slice(&text)
                    .map(Some)
                    .map_err(|source| RecordError::Json {
                        path,
                        line: None,
                        source,
                    })
            }
        }
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), RecordError> {
        replace_in(&self.path, path, bytes).map_err(RecordError::io(path, "write"))
    }
}

/// Puts `bytes` in place of the file `path` of `folder`: temporary name, fsync, rename, fsync of the folder.
fn replace_in(folder: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    // The name is always the same, so a file that a kill left behind is overwritten by the next write.
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;

    // The content is on disk before the name is, and the folder is synced last: after a power cut the name has old or
    // new content, and never part of it.
    fs::rename(&temporary, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn ids_are_unique_and_one_folder_deep() {
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
            Err(RecordError::Exists { .. })
        ));
        for id in ["", ".", "..", "a/b", "/a", "a/"] {
            assert!(
                matches!(RunDir::create(&runs, id), Err(RecordError::Id { .. })),
                "{id:?}"
            );
        }
    }

    #[test]
    fn a_run_is_one_only_with_its_configuration() {
        let root = tempfile::tempdir().unwrap();
        let run = RunDir::create(root.path(), "a").unwrap();
        assert!(matches!(
            RunDir::open(run.path()),
            Err(RecordError::Missing { .. })
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
        assert_eq!(
            fs::read_to_string(run.result()).unwrap(),
            "{\n  \"a\": 2,\n  \"b\": 0.25\n}\n"
        );
        assert_eq!(run.read_result::<Value>().unwrap().unwrap()["a"], 2);
        let names: Vec<_> = fs::read_dir(run.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names.len(), 2, "no temporary file is left: {names:?}");
        fs::write(run.result(), "{").unwrap();
        assert!(
            run.read_result::<Value>()
                .unwrap_err()
                .to_string()
                .contains("result.json: not what")
        );
    }
}
