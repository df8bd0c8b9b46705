//! The log of a run: one JSON object per line, appended.
//!
//! A line is written in one call, so a killed run loses at most the line being written. A run resumed from a checkpoint
//! repeats the steps after it: the lines of these steps are cut off, and a line `resumed` contains their number, so no
//! step occurs twice. Earlier versions of wavemill kept the lines of repeated steps; [`read_log`] drops them.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use wavemill_schemas::exit::PlainError;

use wavemill_schemas::run::RunFilesError;

/// Kind of the log line written when a run is resumed.
const RESUMED: &str = "resumed";
/// Kind of the log line of an optimiser step.
pub(super) const STEP: &str = "step";
/// Kind of the log line of an epoch's figures.
pub(super) const EPOCH: &str = "epoch";
/// Kinds of log lines written at the end of an epoch.
const EPOCH_EVENTS: [&str; 2] = [EPOCH, "warning"];

/// Parts of training whose times a log line of the kind `profile` contains in seconds: first those of the measured
/// steps, whose number is the value `steps`, then [`PROFILE_OTHERS`].
pub const PROFILE_PARTS: [&str; 8] = [
    "waiting for data",
    "copying",
    "forward",
    "backward",
    "sums over ranks",
    "optimizer",
    "validation",
    "checkpoint",
];
/// Number of the last parts that do not belong to a step.
pub const PROFILE_OTHERS: usize = 2;

/// A line of a run's log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The kind of the event: `start`, `warning`, `step`, `epoch`, `profile`, …
    pub kind: String,
    /// Number of optimiser steps completed so far.
    pub step: u64,
    /// Index of the epoch, starting at 0.
    pub epoch: u64,
    /// Figures (such as losses and scores) by name. Non-finite values are written as text: `"NaN"`, `"inf"`, `"-inf"`.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        serialize_with = "put_values",
        deserialize_with = "get_values"
    )]
    pub values: BTreeMap<String, f64>,
    /// Texts by name, such as the device.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub notes: BTreeMap<String, String>,
    /// The time of writing the line, in seconds since 1970.
    pub unix_s: f64,
}

impl Entry {
    /// Creates an entry without figures and texts, with the current time.
    fn now(kind: &str, epoch: u64, step: u64) -> Self {
        Self {
            kind: kind.to_owned(),
            step,
            epoch,
            values: BTreeMap::new(),
            notes: BTreeMap::new(),
            unix_s: now(),
        }
    }

    /// Reports whether the log line remains valid for a run resumed after `step`, in `epoch`.
    fn holds(&self, epoch: u64, step: u64) -> bool {
        // A checkpoint of an epoch's last step may be written before the end of that epoch is logged.
        let comes_anew = EPOCH_EVENTS.contains(&self.kind.as_str()) && self.epoch >= epoch;
        self.step < step || self.step == step && !comes_anew
    }
}

/// The JSON form of a figure, since JSON has no infinite numbers and no NaN.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Number {
    Finite(f64),
    Text(String),
}

fn put_values<S: Serializer>(values: &BTreeMap<String, f64>, to: S) -> Result<S::Ok, S::Error> {
    let numbers = values.iter().map(|(name, &value)| {
        if value.is_finite() {
            (name, Number::Finite(value))
        } else {
            (name, Number::Text(value.to_string()))
        }
    });
    to.collect_map(numbers)
}

fn get_values<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, f64>, D::Error> {
    let mut values = BTreeMap::new();
    for (name, number) in BTreeMap::<String, Number>::deserialize(from)? {
        let value = match number {
            Number::Finite(value) => value,
            Number::Text(text) => text.parse().map_err(|_| {
                serde::de::Error::custom(format!("{name}: {text:?} is not a number"))
            })?,
        };
        values.insert(name, value);
    }
    Ok(values)
}

/// A run's log, opened for appending. The file is locked while this value exists, so only one process can write to it.
#[derive(Debug)]
pub struct Log {
    file: File,
    path: PathBuf,
}

impl Log {
    /// Opens the log at `path`, creating it if necessary. An incomplete last line, which a killed run leaves, is cut
    /// off.
    ///
    /// # Errors
    /// [`RunFilesError::Other`] if another process writes the log, [`RunFilesError::Io`].
    pub fn open(path: &Path) -> Result<Self, RunFilesError> {
        let options = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path);
        let mut file = options.map_err(RunFilesError::io(path, "open"))?;

        // Continue without a lock if the file system does not support locks.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            let path = path.display();
            let message = format!("{path}: another process is writing this run");
            return Err(PlainError::failed(message).into());
        }

        // Read the log after locking it: an incomplete line may belong to a process that is still writing.
        let text = fs::read(path).map_err(RunFilesError::io(path, "read"))?;
        let whole = whole_lines(&text).len() as u64;
        file.set_len(whole)
            .and_then(|()| file.seek(SeekFrom::Start(whole)))
            .map_err(RunFilesError::io(path, "cut"))?;
        Ok(Self {
            file,
            path: path.to_owned(),
        })
    }

    /// Appends a log line with the current time, in one write, and returns it.
    ///
    /// # Errors
    /// [`RunFilesError::Io`] if the log cannot be written.
    pub fn append(
        &mut self,
        kind: &str,
        epoch: u64,
        step: u64,
        values: &[(&str, f64)],
    ) -> Result<Entry, RunFilesError> {
        let values = values.iter().map(|&(name, value)| (name.to_owned(), value));
        let entry = Entry {
            values: values.collect(),
            ..Entry::now(kind, epoch, step)
        };
        self.put(&entry)?;
        Ok(entry)
    }

    /// Appends a log line like [`Log::append`], with texts instead of figures.
    ///
    /// # Errors
    /// [`RunFilesError::Io`] if the log cannot be written.
    pub fn note(
        &mut self,
        kind: &str,
        epoch: u64,
        step: u64,
        notes: &[(&str, String)],
    ) -> Result<(), RunFilesError> {
        let notes = notes.iter();
        let notes = notes.map(|(name, text)| ((*name).to_owned(), text.clone()));
        self.put(&Entry {
            notes: notes.collect(),
            ..Entry::now(kind, epoch, step)
        })
    }

    /// Reports whether the log is empty.
    ///
    /// # Errors
    /// [`RunFilesError::Io`] if the log's size cannot be read.
    pub fn is_empty(&self) -> Result<bool, RunFilesError> {
        let length = self
            .file
            .metadata()
            .map_err(RunFilesError::io(&self.path, "read"))?
            .len();
        Ok(length == 0)
    }

    /// Makes the log durable.
    ///
    /// # Errors
    /// [`RunFilesError::Io`] if the log cannot be synced.
    pub fn sync(&self) -> Result<(), RunFilesError> {
        self.file
            .sync_all()
            .map_err(RunFilesError::io(&self.path, "sync"))
    }

    /// Appends a line that the run is resumed after `step`, in `epoch`. The lines of steps that will be repeated are
    /// cut off, and the new line contains their number. Returns the valid lines before it.
    ///
    /// # Errors
    /// [`RunFilesError::Io`] if the log cannot be read or written.
    pub fn resumed(&mut self, epoch: u64, step: u64) -> Result<Vec<Entry>, RunFilesError> {
        let (undone_steps, entries) = self.undo(epoch, step)?;
        let undone = [("undone_steps", undone_steps as f64)];
        self.append(RESUMED, epoch, step, &undone)?;
        Ok(valid(entries))
    }

    /// Truncates the log after its last line that is valid for a run resumed after `step`, and returns the number of
    /// steps whose lines were cut off, and the lines that are valid.
    fn undo(&mut self, epoch: u64, step: u64) -> Result<(u64, Vec<Entry>), RunFilesError> {
        let text = fs::read(&self.path).map_err(RunFilesError::io(&self.path, "read"))?;

        // Lines before the last valid line are kept, even if they are invalid: logs of earlier versions have such
        // lines, and `read_log` drops them.
        let mut whole = 0;
        let mut kept = 0;
        let mut undone_steps = 0;
        let mut entries = Vec::new();
        for line in text.split_inclusive(|&byte| byte == b'\n') {
            whole += line.len();
            match serde_json::from_slice::<Entry>(line) {
                Ok(entry) if !entry.holds(epoch, step) => {
                    undone_steps += u64::from(entry.kind == STEP)
                }
                // A damaged line is kept, so that readers of the log report it.
                parsed => {
                    entries.extend(parsed);
                    kept = whole;
                    undone_steps = 0;
                }
            }
        }

        let kept = kept as u64;
        self.file
            .set_len(kept)
            .and_then(|()| self.file.seek(SeekFrom::Start(kept)))
            .map_err(RunFilesError::io(&self.path, "cut"))?;
        Ok((undone_steps, entries))
    }

    fn put(&mut self, entry: &Entry) -> Result<(), RunFilesError> {
        let line = serde_json::to_string(entry).map_err(RunFilesError::json(&self.path, None))?;
        // Write the line and its line break in one call, so that a killed run leaves at most one incomplete line.
        self.file
            .write_all((line + "\n").as_bytes())
            .map_err(RunFilesError::io(&self.path, "write"))
    }
}

/// Returns the current time in seconds since 1970.
pub(super) fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

/// Returns `text` up to its last line break.
fn whole_lines(text: &[u8]) -> &[u8] {
    &text[..text
        .iter()
        .rposition(|&byte| byte == b'\n')
        .map_or(0, |at| at + 1)]
}

/// Reads the valid lines of the log at `path`, in the order of writing: without lines of steps that a resumed run
/// repeated, and with only the last line of each kind (and text) at a step. An incomplete line at the end is skipped:
/// the run may still be writing it.
///
/// # Errors
/// [`RunFilesError::Io`] if the log cannot be read; [`RunFilesError::Json`] with the number of an invalid line.
pub fn read_log(path: &Path) -> Result<Vec<Entry>, RunFilesError> {
    let text = fs::read(path).map_err(RunFilesError::io(path, "read"))?;
    let mut entries = Vec::new();
    for (i, line) in whole_lines(&text).split(|&byte| byte == b'\n').enumerate() {
        if line.is_empty() {
            continue;
        }
        let entry = serde_json::from_slice(line);
        entries.push(entry.map_err(RunFilesError::json(path, Some(i + 1)))?);
    }
    Ok(valid(entries))
}

/// Returns the lines of a log without those of steps that a resumed run repeated, and with only the last line of each
/// kind (and text) at a step.
fn valid(lines: Vec<Entry>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::with_capacity(lines.len());
    for entry in lines {
        // Lines of repeated steps exist only in logs of earlier versions; `undo` now cuts them off.
        if entry.kind == RESUMED {
            entries.retain(|earlier| earlier.holds(entry.epoch, entry.step));
        }
        entries.push(entry);
    }

    // Iterate from the end, so that the last of equal lines is kept.
    let mut seen = HashSet::new();
    entries.reverse();
    entries.retain(|entry| seen.insert((entry.kind.clone(), entry.step, entry.notes.clone())));
    entries.reverse();
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(path: &Path) -> Vec<(String, u64, f64)> {
        let entries = read_log(path).unwrap();
        entries
            .into_iter()
            .map(|e| {
                (
                    e.kind,
                    e.step,
                    e.values.get("loss").copied().unwrap_or(-1.0),
                )
            })
            .collect()
    }

    fn entry(kind: &str, step: u64, loss: f64) -> (String, u64, f64) {
        (kind.to_owned(), step, loss)
    }

    #[test]
    fn resumed_run_rewrites_undone_steps() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");

        let mut log = Log::open(&path).unwrap();
        log.note("start", 0, 0, &[("device", "cpu".to_owned())])
            .unwrap();
        for step in 1..=4 {
            log.append("step", 0, step, &[("loss", step as f64)])
                .unwrap();
        }
        drop(log);

        // The run was killed while writing its fifth line.
        OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(br#"{"kind":"step","st"#)
            .unwrap();
        assert_eq!(steps(&path).len(), 5, "a reader passes over half a line");

        let mut log = Log::open(&path).unwrap();
        log.resumed(0, 2).unwrap();
        log.append("step", 0, 3, &[("loss", 30.0)]).unwrap();
        log.append("step", 0, 3, &[("loss", 31.0)]).unwrap();

        let want = [
            entry("start", 0, -1.0),
            entry("step", 1, 1.0),
            entry("step", 2, 2.0),
            entry("resumed", 2, -1.0),
            entry("step", 3, 31.0),
        ];
        assert_eq!(steps(&path), want, "step 4 was never taken again");
    }

    /// Returns (kind, step) of every line of the log, including lines that `read_log` would drop.
    fn lines(path: &Path) -> Vec<(String, u64)> {
        let text = fs::read_to_string(path).unwrap();
        let entries = text
            .lines()
            .map(|line| serde_json::from_str::<Entry>(line).unwrap());
        entries.map(|entry| (entry.kind, entry.step)).collect()
    }

    #[test]
    fn log_continued_after_a_kill_has_no_duplicate_steps() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        let mut log = Log::open(&path).unwrap();
        log.note("start", 0, 0, &[]).unwrap();
        for step in 1..=4 {
            log.append("step", 0, step, &[]).unwrap();
        }
        log.append("epoch", 0, 4, &[]).unwrap();
        for step in 5..=7 {
            log.append("step", 1, step, &[]).unwrap();
        }
        drop(log);

        let mut log = Log::open(&path).unwrap();
        log.resumed(1, 5).unwrap();
        for step in 6..=8 {
            log.append("step", 1, step, &[]).unwrap();
        }
        log.append("epoch", 1, 8, &[]).unwrap();
        drop(log);

        // The last checkpoint was written at the epoch's last step, but before the epoch's end, so the end is logged
        // again.
        let mut log = Log::open(&path).unwrap();
        log.resumed(1, 8).unwrap();
        log.append("epoch", 1, 8, &[]).unwrap();

        let all = lines(&path);
        let steps: Vec<u64> = all
            .iter()
            .filter(|(kind, _)| kind == "step")
            .map(|(_, step)| *step)
            .collect();
        assert_eq!(steps, [1, 2, 3, 4, 5, 6, 7, 8]);
        let epochs: Vec<u64> = all
            .iter()
            .filter(|(kind, _)| kind == "epoch")
            .map(|(_, step)| *step)
            .collect();
        assert_eq!(epochs, [4, 8]);
        let undone: Vec<f64> = read_log(&path)
            .unwrap()
            .iter()
            .filter_map(|entry| entry.values.get("undone_steps").copied())
            .collect();
        assert_eq!(undone, [2.0, 0.0], "steps 6 and 7; none");
    }

    #[test]
    fn a_log_of_an_earlier_version_is_read_as_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");

        let mut log = Log::open(&path).unwrap();
        for step in 1..=3 {
            log.append("step", 0, step, &[("loss", 1.0)]).unwrap();
        }
        log.append("resumed", 0, 1, &[]).unwrap();
        for step in 2..=4 {
            log.append("step", 0, step, &[("loss", 2.0)]).unwrap();
        }

        let want = [
            entry("step", 1, 1.0),
            entry("resumed", 1, -1.0),
            entry("step", 2, 2.0),
            entry("step", 3, 2.0),
            entry("step", 4, 2.0),
        ];
        assert_eq!(steps(&path), want);
    }

    #[test]
    fn two_warnings_at_one_step_are_both_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        let mut log = Log::open(&path).unwrap();

        ["a", "b", "a"].into_iter().for_each(|text| {
            log.note("warning", 0, 0, &[("text", text.to_owned())])
                .unwrap()
        });

        let texts: Vec<String> = read_log(&path)
            .unwrap()
            .iter()
            .map(|entry| entry.notes["text"].clone())
            .collect();
        assert_eq!(texts, ["b", "a"]);
    }

    #[test]
    fn values_round_trip_exactly_including_nan() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        let values = [
            ("a", f64::NAN),
            ("b", f64::NEG_INFINITY),
            ("c", 0.1 + 0.2),
            ("d", f64::INFINITY),
        ];

        Log::open(&path)
            .unwrap()
            .append("step", 1, 2, &values)
            .unwrap();

        let back = read_log(&path).unwrap().remove(0);
        assert!(back.values["a"].is_nan() && back.unix_s > 1e9 && back.epoch == 1);
        assert_eq!(
            (back.values["b"], back.values["c"], back.values["d"]),
            (f64::NEG_INFINITY, 0.1 + 0.2, f64::INFINITY)
        );

        let line: serde_json::Value =
            serde_json::from_str(fs::read_to_string(&path).unwrap().trim()).unwrap();
        assert_eq!(line["values"]["a"], "NaN");
    }

    #[test]
    fn log_is_locked_by_one_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        let first = Log::open(&path).unwrap();
        assert_eq!(
            Log::open(&path).unwrap_err().to_string(),
            format!("{}: another process is writing this run", path.display())
        );
        drop(first);
        Log::open(&path).unwrap();
    }

    #[test]
    fn a_damaged_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");

        Log::open(&path).unwrap().append("step", 0, 1, &[]).unwrap();
        OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(b"broken\n")
            .unwrap();

        assert!(
            read_log(&path)
                .unwrap_err()
                .to_string()
                .contains("log.jsonl, line 2")
        );
    }
}
