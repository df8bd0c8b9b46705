//! Lists the versions of a store for users. Commit times are only stored in run records; without them everything else
//! is still listed.

use std::collections::{BTreeMap, HashSet};
use std::fs;

use arrow::array::temporal_conversions::timestamp_ms_to_datetime;
use serde::Serialize;
use serde_json::Value;
use wavemill_reader::read_plain;
use wavemill_schemas::manifest::{Manifest, remedy_of_format};

use super::diff::Diff;
use super::{Store, StoreError, Tags};

/// Folder of the records of runs.
pub(super) const RUNS_FOLDER: &str = "_wavemill/runs";

/// One version in the list of a store's versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VersionLine {
    /// Number of the version.
    pub version: u64,
    /// Time at which the version's run ended, such as `2026-11-20T18:04:02Z`. `None` if no run record states it.
    pub committed: Option<String>,
    /// Tags of the version, in order.
    pub tags: Vec<String>,
    /// Differences from the previous version, see [`Diff::summary`]. `None` if there is no previous version or one of
    /// the two manifests cannot be used.
    pub changed: Option<String>,
    /// Content of the version according to its manifest. `None` if the manifest cannot be used.
    pub held: Option<VersionContent>,
    /// Reason why the version's manifest cannot be used, if so.
    pub problem: Option<String>,
}

/// The content of a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VersionContent {
    /// Name of the recipe.
    pub recipe: String,
    /// Number of clips that have rows.
    pub clips: u64,
    /// Number of rows of one feature.
    pub rows: u64,
    /// Size of the version's files in bytes.
    pub bytes: u64,
    /// The part of `bytes` that no earlier version in the list has: other files are hard links to theirs.
    pub new_bytes: u64,
    /// False if `wavemill gc` removed the version's data.
    pub data: bool,
}

impl Store {
    /// Returns all versions in ascending order. `tags` are the tags of the store.
    pub fn history(&self, tags: &Tags) -> Result<Vec<VersionLine>, StoreError> {
        self.pull_runs()?;
        let committed: BTreeMap<_, _> = self.whole_runs().filter_map(|run| commit(&run)).collect();
        let mut lines = Vec::new();
        let mut before: Option<Manifest> = None;
        let mut known = HashSet::new();

        for version in self.versions()? {
            let mut line = VersionLine {
                version,
                committed: None,
                tags: tags.of_version(version),
                changed: None,
                held: None,
                problem: None,
            };
            match self.manifest(Some(version)) {
                Ok((_, manifest)) => {
                    let run = committed.get(&(manifest.plan_id.clone(), version));
                    line.committed = run.cloned();
                    line.changed = before
                        .as_ref()
                        .map(|before| Diff::new(before, &manifest).summary());
                    line.held = Some(self.content(&manifest, &mut known)?);
                    before = Some(manifest);
                }
                Err(error) => {
                    line.problem = Some(problem(&error));
                    before = None;
                }
            }
            lines.push(line);
        }
        Ok(lines)
    }

    /// Returns the times recorded by the run that committed a version, or `None` if its record is missing.
    pub fn run_times(&self, plan_id: &str, version: u64) -> Option<RunTimes> {
        self.pull_runs().ok()?;
        let mut runs = self.whole_runs();
        let run = runs.find(|run| run.plan_id == plan_id && run.version == version)?;
        RunTimes::from_run(&run)
    }

    /// Returns the latest version that a run has recorded as committed.
    pub(super) fn recorded_version(&self) -> Result<Option<u64>, StoreError> {
        self.pull_runs()?;
        let runs = self.whole_runs();
        Ok(runs.map(|run| run.version).max())
    }

    /// Returns the records of runs that committed a version, if they are readable and complete.
    fn whole_runs(&self) -> impl Iterator<Item = WholeRun> {
        let entries = fs::read_dir(self.root().join(RUNS_FOLDER));
        let entries = entries.into_iter().flatten().flatten();
        let records = entries.filter_map(|entry| read_plain(&entry.path()).ok());
        records.filter_map(|record| WholeRun::read(std::str::from_utf8(&record).ok()?))
    }

    /// Returns the content of a version, and adds the hashes of its files to the `known` ones.
    fn content(
        &self,
        manifest: &Manifest,
        known: &mut HashSet<String>,
    ) -> Result<VersionContent, StoreError> {
        let files = manifest.files.iter();
        let new = files.filter(|file| known.insert(file.blake3.clone()));
        let new_bytes = new.map(|file| file.bytes).sum();
        Ok(VersionContent {
            bytes: manifest.files.iter().map(|file| file.bytes).sum(),
            new_bytes,
            data: self.has_data(manifest)?,
            recipe: manifest.recipe.name.clone(),
            clips: manifest.counts.clips_written,
            rows: manifest.counts.feature_rows,
        })
    }
}

/// Describes why a manifest cannot be used.
fn problem(error: &StoreError) -> String {
    match error {
        StoreError::OtherFormat { found, .. } => {
            format!("{} (format version {found})", remedy_of_format(*found))
        }
        StoreError::Io { source, .. } => format!("the manifest cannot be read: {source}"),
        _ => "damaged manifest".to_owned(),
    }
}

/// Returns the plan and version of a run, and the time of the commit.
fn commit(run: &WholeRun) -> Option<((String, u64), String)> {
    // The start is from the system clock, the duration from a monotonic clock that is not affected by clock changes.
    let ran_ms = (run.end["seconds"].as_f64()? * 1e3) as i64;
    let end_ms = run.start["unix_ms"].as_i64()?.checked_add(ran_ms)?;
    let time = timestamp_ms_to_datetime(end_ms)?
        .format("%Y-%m-%dT%H:%M:%SZ")
        .to_string();
    Some(((run.plan_id.clone(), run.version), time))
}

/// The record of a run that committed a version.
struct WholeRun {
    start: Value,
    end: Value,
    plan_id: String,
    version: u64,
}

impl WholeRun {
    fn read(record: &str) -> Option<Self> {
        let mut lines: Vec<Value> = record
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        let end = lines.pop().filter(|line| line["outcome"] == "committed")?;
        let start = lines.into_iter().next()?;

        let plan_id = start["plan_id"].as_str()?.to_owned();
        let version = end["report"]["version"].as_u64()?;
        Some(Self {
            start,
            end,
            plan_id,
            version,
        })
    }
}

/// Durations of the run that committed a version.
#[derive(Clone, Debug, PartialEq)]
pub struct RunTimes {
    /// Version of the wavemill program.
    pub wavemill: String,
    /// Number of threads of the run.
    pub threads: u64,
    /// Total wall-clock time of the run.
    pub seconds: f64,
    /// Wall-clock time by phase.
    pub wall_s: BTreeMap<String, f64>,
    /// CPU time by stage, summed over all threads.
    pub cpu_s: BTreeMap<String, f64>,
}

impl RunTimes {
    fn from_run(run: &WholeRun) -> Option<Self> {
        let report = &run.end["report"];
        Some(Self {
            wavemill: run.start["wavemill"].as_str()?.to_owned(),
            threads: run.start["threads"].as_u64()?,
            seconds: run.end["seconds"].as_f64()?,
            wall_s: serde_json::from_value(report["wall_s"].clone()).ok()?,
            cpu_s: serde_json::from_value(report["cpu_s"].clone()).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_a_whole_run_says_when_its_version_was_committed() {
        let start = r#"{"event":"start","unix_ms":1700000000000,"host":"x","plan_id":"p","threads":2,"wavemill":"0.1.0"}"#;
        let end = r#"{"event":"end","outcome":"committed","seconds":61.5,"report":{"version":2}}"#;

        let of_record = |record: &str| commit(&WholeRun::read(record)?);
        let (key, time) = of_record(&format!("{start}\n{end}\n")).expect("a commit");
        assert_eq!(
            (key, time.as_str()),
            (("p".to_owned(), 2), "2023-11-14T22:14:21Z")
        );

        for cut in [
            start.to_owned(),
            String::new(),
            format!("{start}\n{}", &end[..20]),
            end.to_owned(),
            format!("{start}\n{}", end.replace("committed", "planned")),
        ] {
            assert_eq!(of_record(&cut), None, "{cut}");
        }
    }

    #[test]
    fn a_record_tells_how_long_its_stages_took() {
        let start = r#"{"event":"start","unix_ms":1,"plan_id":"p","threads":2,"wavemill":"0.1.0"}"#;
        let end = r#"{"event":"end","outcome":"committed","seconds":6.5,"report":{"version":2,"wall_s":{"clips":5.0},"cpu_s":{"decode":7.5}}}"#;
        let run = WholeRun::read(&format!("{start}\n{end}\n")).expect("a whole run");
        let times = RunTimes::from_run(&run).expect("its times");
        assert_eq!((times.threads, times.seconds), (2, 6.5));
        assert_eq!((times.wall_s["clips"], times.cpu_s["decode"]), (5.0, 7.5));
    }
}
