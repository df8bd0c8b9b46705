//! Other readers of a store: they find in it what wavemill says is there.
//!
//! Asked where `WAVEMILL_PEERS=1`, by the Python of `WAVEMILL_PYTHON` (scripts/test.sh sets both); ignored elsewhere.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use wavemill_tests::{Failed, Trial, data_dir};

use crate::support::{Ran, inputs, manifest, run, same, scratch, sql, wavemill, whole};

/// Sums of thousands of f64 in two orders.
const SUM_REL_MAX: f64 = 1e-9;

pub fn trials() -> Vec<Trial> {
    let asked = std::env::var("WAVEMILL_PEERS").is_ok_and(|value| value == "1");
    let checker = data_dir().map(|data| data.join("../tools/check_store.py")).filter(|path| path.is_file());
    let has_checker = checker.is_some();
    vec![
        Trial::test("peers::readers_agree", readers_agree).with_ignored_flag(!asked),
        Trial::test("peers::stores_keep_the_contract", move || stores_keep_the_contract(checker))
            .with_ignored_flag(!asked || !has_checker),
    ]
}

fn python(script: &Path, words: &[&Path]) -> Result<Ran, Failed> {
    let python = std::env::var_os("WAVEMILL_PYTHON").ok_or("WAVEMILL_PYTHON is not set: run scripts/peers/setup.sh")?;
    Ok(run(Command::new(python).arg(script).args(words)))
}

/// pyarrow, DuckDB, Polars and pandas among themselves, and their sums with those of `wavemill sql`.
fn readers_agree() -> Result<(), Failed> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/peers/read_store.py");
    let sums: Value = serde_json::from_str(&python(&script, &[whole()])?.exits(0)?.out)?;
    for feature in manifest(whole(), 1)?.features {
        let name = &feature.name;
        let values: usize = feature.shape.iter().flatten().product();
        let query = format!("SELECT sum(tensor_mean({name})) AS x FROM features_{name}");
        let ours = sql(whole(), &query)?[0]["x"].as_f64().ok_or("no number")? * values as f64;
        let theirs = sums[name].as_f64().ok_or("no sum")?;
        same(&format!("{name}: {ours} and {theirs}"), (ours - theirs).abs() <= SUM_REL_MAX * theirs.abs(), true)?;
    }
    Ok(())
}

/// A checker that shares no code with wavemill, on stores of every kind.
fn stores_keep_the_contract(checker: Option<PathBuf>) -> Result<(), Failed> {
    let checker = checker.ok_or("no checker")?;
    let further = scratch("further").join("store");
    run(inputs().extract(&further).args(["--limit", "20"])).exits(0)?;
    let sets = ["--set", "audio.duration_s=none", "--set", "features.log_mel.dtype=u8"];
    run(inputs().extract(&further).arg("--new-version").args(sets)).exits(0)?;
    let windows = scratch("windows").join("store");
    let sets = ["--set", "audio.segment_s=1.0", "--set", "shards.compression=none", "--set", "split.rule=artist"];
    run(inputs().extract(&windows).args(["--set", "audio.duration_s=none"]).args(sets)).exits(0)?;
    let demo = scratch("demo");
    run(wavemill(["demo", "--tracks", "40"]).arg(&demo)).exits(0)?;
    for store in [whole(), &further, &windows, &demo.join("store")] {
        let ran = python(&checker, &[store])?.exits(0)?;
        same(&ran.out, ran.out.contains("0 faults"), true)?;
    }
    Ok(())
}
