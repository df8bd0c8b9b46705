//! Which versions there are, for people. When one was made stands in run records alone, so a store without them tells
//! everything else.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use arrow::array::temporal_conversions::timestamp_ms_to_datetime;
use serde::Serialize;
use serde_json::Value;

use super::{Store, StoreError};

/// One version in a list of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct VersionLine {
    /// Its number.
    pub version: u64,
    /// When its run ended, such as `2026-11-20T18:04:02Z`; `None` where no run record says.
    pub committed: Option<String>,
    /// What its manifest says; `None` where that cannot be used.
    pub held: Option<VersionContent>,
    /// Why it cannot be used, where that is so.
    pub problem: Option<String>,
}

/// What a version holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct VersionContent {
    /// The recipe's name.
    pub recipe: String,
    /// Clips that have rows.
    pub clips: u64,
    /// Rows of one feature.
    pub rows: u64,
    /// False: `wavemill gc` removed its data.
    pub data: bool,
}

impl Store {
    /// All versions, ascending.
    ///
    /// # Errors
    /// As [`Store::versions`].
    pub(crate) fn history(&self) -> Result<Vec<VersionLine>, StoreError> {
        let committed = commits(&self.root.join("_wavemill/runs"));
        let versions = self.versions()?.into_iter();
        Ok(versions
            .map(|version| self.line(version, &committed))
            .collect())
    }

    fn line(&self, version: u64, committed: &BTreeMap<(String, u64), String>) -> VersionLine {
        let manifest = match self.manifest(Some(version)) {
            Ok((_, manifest)) => manifest,
            Err(error) => {
                let problem = match error {
                    StoreError::Newer { found, .. } => {
                        format!("needs a newer wavemill (format version {found})")
                    }
                    _ => "damaged manifest".to_owned(),
                };
                return VersionLine {
                    version,
                    committed: None,
                    held: None,
                    problem: Some(problem),
                };
            }
        };

        let run = committed.get(&(manifest.plan_id.clone(), version));
        let held = VersionContent {
            data: self.data(&manifest.plan_id).exists(),
            recipe: manifest.recipe.name,
            clips: manifest.counts.clips_written,
            rows: manifest.counts.feature_rows,
        };
        VersionLine {
            version,
            committed: run.cloned(),
            held: Some(held),
            problem: None,
        }
    }
}

/// When each (plan, version) was committed, as far as readable records of whole runs say.
fn commits(runs: &Path) -> BTreeMap<(String, u64), String> {
    let entries = fs::read_dir(runs).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| commit(&fs::read_to_string(entry.path()).ok()?))
        .collect()
}

fn commit(record: &str) -> Option<((String, u64), String)> {
    let lines: Vec<Value> = record
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let start = lines.first()?;
    let end = lines.last().filter(|line| line["event"] == "end")?;

    // The start is told by the system's clock, and the length by a steady one, which setting the time does not disturb.
    let end_ms = start["unix_ms"].as_i64()? + (end["seconds"].as_f64()? * 1e3) as i64;
    let time = timestamp_ms_to_datetime(end_ms)?
        .format("%Y-%m-%dT%H:%M:%SZ")
        .to_string();
    let plan_id = start["plan_id"].as_str()?.to_owned();
    // A run that failed or was interrupted has an end without a report.
    let version = end["report"]["version"].as_u64()?;
    Some(((plan_id, version), time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_a_whole_run_says_when_its_version_was_committed() {
        let start = r#"{"event":"start","unix_ms":1700000000000,"host":"x","plan_id":"p","threads":2,"wavemill":"0.1.0"}"#;
        let end = r#"{"event":"end","seconds":61.5,"report":{"version":2}}"#;
        let (key, time) = commit(&format!("{start}\n{end}\n")).expect("a commit");
        assert_eq!(
            (key, time.as_str()),
            (("p".to_owned(), 2), "2023-11-14T22:14:21Z")
        );
        for cut in [
            start.to_owned(),
            String::new(),
            format!("{start}\n{}", &end[..20]),
            end.to_owned(),
        ] {
            assert_eq!(commit(&cut), None, "{cut}");
        }
    }
}
