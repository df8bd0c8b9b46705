//! A growing store: unchanged clips move neither between splits nor between shards.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use wavemill_schemas::manifest::Manifest;

use serde_json::Value;
use wavemill_tests::Failed;

use crate::support::{
    Inputs, Ran, contains, finish, manifest, run, same, sql, sql_number, start, starts_with,
    versions, wavemill,
};
use crate::table::{Table, key};

/// Fail point that delays a run before it takes the lock, for longer than another run takes.
const HELD: &str = "run-before-lock=sleep(15000)";

/// Returns the inode of each feature file of a version, by its path below the plan's folder.
fn inodes(store: &Path, version: u64) -> Result<BTreeMap<String, u64>, Failed> {
    let mut inodes = BTreeMap::new();
    for file in manifest(store, version)?.files {
        if file.feature.is_some() {
            let below = file.path.splitn(3, '/').last().unwrap_or_default();
            let inode = fs::metadata(store.join(&file.path))?.ino();
            inodes.insert(below.to_owned(), inode);
        }
    }
    Ok(inodes)
}

/// Counts the files of a version that were not linked from the previous version.
fn rewritten(store: &Path, version: u64) -> Result<usize, Failed> {
    let before = inodes(store, version - 1)?;
    let after = inodes(store, version)?;
    let fresh = after
        .iter()
        .filter(|(path, inode)| before.get(*path) != Some(inode));
    Ok(fresh.count())
}

/// 33 clips at 8 per shard are 8 shards, whereas 32 would be 4.
#[apply(trial)]
fn one_clip_at_a_border_rewrites_one_shard() -> Result<(), Failed> {
    let by_column = ["--set", "split.rule=column", "--set", "split.column=side"];
    let mut table = Table::new("border", 33);
    let store = table.store();
    run(&mut table.extract(&by_column)?).exits(0)?;
    let counts = BTreeMap::from([("training".to_owned(), 8)]);
    same("shards", manifest(&store, 1)?.shards, counts.clone())?;

    let new_version = [&by_column[..], &["--new-version"]].concat();
    table.remove(7);
    run(&mut table.extract(&new_version)?).exits(0)?;
    same("shards", manifest(&store, 2)?.shards, counts.clone())?;
    same("files written for a clip less", rewritten(&store, 2)?, 1)?;
    let again = run(&mut table.extract(&by_column)?).exits(0)?;
    contains(&again.err, "nothing to do")?;

    table.add(7);
    run(&mut table.extract(&new_version)?).exits(0)?;
    same("shards", manifest(&store, 3)?.shards, counts)?;
    same("files written for a clip more", rewritten(&store, 3)?, 1)?;
    for version in ["1", "2", "3"] {
        run(wavemill(["verify", "--version", version, "--store"]).arg(&store)).exits(0)?;
    }

    // The number of shards is halved when they are less than a quarter full.
    for track in 15..33 {
        table.remove(track);
    }
    run(&mut table.extract(&new_version)?).exits(0)?;
    let counts = BTreeMap::from([("training".to_owned(), 4)]);
    same("shards", manifest(&store, 4)?.shards, counts)
}

/// Decisions that depend on the parent version are made under the lock: here the number of shards, and whether
/// there is anything to do.
#[apply(trial)]
fn parent_is_read_under_the_lock() -> Result<(), Failed> {
    fn shards(store: &Path, version: u64) -> Result<u64, Failed> {
        Ok(manifest(store, version)?.shards["training"])
    }

    let by_column = ["--set", "split.rule=column", "--set", "split.column=side"];
    let table = Table::new("parent", 24);
    let store = table.store();
    run(&mut table.extract(&by_column)?).exits(0)?;

    // With the first version as parent, the 24 clips would go into 4 shards. With the version of 2 clips per shard
    // as parent, they go into 8.
    let mels = ["--set", "features.log_mel.n_mels=20", "--new-version"];
    let small = ["--set", "shards.clips=2", "--new-version"];

    let mut slow = table.extract(&by_column)?;
    let mut fast = table.extract(&by_column)?;
    let held = start(slow.args(mels).env("FAILPOINTS", HELD));
    let overtaking = run(fast.args(small));
    let held = finish(held);
    overtaking.exits(0)?;
    held.exits(0)?;

    same(
        "shards by version",
        [shards(&store, 1)?, shards(&store, 2)?, shards(&store, 3)?],
        [4, 16, 8],
    )?;

    let second = fs::read(store.join("_wavemill/versions/00000002.json"))?;
    same(
        "parent",
        manifest(&store, 3)?.identity.parent,
        Some(blake3::hash(&second).to_hex().to_string()),
    )?;

    let other = ["--set", "features.log_mel.n_mels=24", "--new-version"];

    let mut slow = table.extract(&by_column)?;
    let mut fast = table.extract(&by_column)?;
    let held = start(slow.args(other).env("FAILPOINTS", HELD));
    let overtaking = run(fast.args(other));
    let held = finish(held);
    overtaking.exits(0)?;
    let ran = held.exits(0)?;
    contains(&ran.err, "nothing to do: version 4")
}

/// Splits of each track of a version by two rules, `artist` and `stratified`.
type Sides = BTreeMap<String, [String; 2]>;

fn sides(store: &Path, version: u64) -> Result<Sides, Failed> {
    fn text(row: &Value, name: &str) -> String {
        row[name].as_str().unwrap_or_default().to_owned()
    }

    let query = "SELECT clip_key, split_artist, split_stratified FROM tracks";
    let version = version.to_string();
    let words = ["sql", "--format", "json", "--version", &version, "--store"];
    let ran = run(wavemill(words).arg(store).arg(query)).exits(0)?;

    let mut sides = Sides::new();
    for line in ran.out.lines() {
        let row: Value = serde_json::from_str(line)?;
        let both = [text(&row, "split_artist"), text(&row, "split_stratified")];
        sides.insert(text(&row, "clip_key"), both);
    }
    Ok(sides)
}

/// Fails unless every track that is in both `before` and `after` has the same splits in both.
fn unmoved(before: &Sides, after: &Sides) -> Result<(), Failed> {
    for (key, was) in before {
        if let Some(is) = after.get(key) {
            same(key, is, was)?;
        }
    }
    Ok(())
}

/// Commits the next version of a table's store and returns the run's report on splits.
fn next_version(table: &Table, words: &[&str]) -> Result<Value, Failed> {
    let mut extract = table.extract(&["--new-version", "--json"])?;
    let ran = run(extract.args(words)).exits(0)?;
    let report: Value = serde_json::from_str(&ran.out)?;
    Ok(report["sides"].clone())
}

fn nothing_to_do(table: &Table, words: &[&str]) -> Result<(), Failed> {
    let ran = run(&mut table.extract(words)?).exits(0)?;
    contains(&ran.err, "nothing to do")
}

/// Returns a track that is in the split `side` by artist, in version 1.
fn some_track(store: &Path, side: &str) -> Result<u32, Failed> {
    let sides = sides(store, 1)?;
    let track = (0..).map_while(|track| Some((track, sides.get(&key(track))?)));
    let mut track = track.filter(|(_, [by_artist, _])| by_artist == side);
    Ok(track.next().ok_or("no such track")?.0)
}

#[apply(trial)]
fn new_clip_moves_no_other_clip() -> Result<(), Failed> {
    let mut table = Table::new("grown", 60);
    let store = table.store();
    run(&mut table.extract(&[])?).exits(0)?;

    for track in 60..66 {
        table.add(track);
    }
    // Adds a track of an existing artist.
    table.add(66).artist = Some(4);

    let told = next_version(&table, &[])?;
    same("new", told["new"].as_u64(), Some(7))?;
    same("gone", told["gone"].as_u64(), Some(0))?;
    same("moved", told["moved"].as_array().map(Vec::len), Some(0))?;
    let after = sides(&store, 2)?;
    unmoved(&sides(&store, 1)?, &after)?;
    same(
        "a new track of an artist",
        &after[&key(66)][0],
        &after[&key(12)][0],
    )?;

    // Extracting the same rows into a new store gives different splits.
    let first = table.first("first", &[])?;
    same("as drawn anew", after == sides(&first, 1)?, false)?;
    nothing_to_do(&table, &[])
}

#[apply(trial)]
fn returning_track_keeps_its_split() -> Result<(), Failed> {
    let mut table = Table::new("back", 60);
    let store = table.store();
    run(&mut table.extract(&[])?).exits(0)?;
    let track = some_track(&store, "test")?;

    table.remove(track);
    let told = next_version(&table, &[])?;
    same("gone", told["gone"].as_u64(), Some(1))?;
    let group = format!("\"group\" = 'track:{}'", key(track));
    let remembered = format!("SELECT count(*) FROM sides WHERE {group}");
    same(
        "rules that remember it",
        sql_number(&store, &remembered)?,
        2,
    )?;

    // The track comes back without its artist: it keeps its split, because splits are stored per track.
    table.add(track).artist = None;
    let told = next_version(&table, &[])?;
    same("new", told["new"].as_u64(), Some(1))?;
    same("sides", sides(&store, 3)?, sides(&store, 1)?)
}

/// A track comes back when a copy of it vanishes, which looks as if the copy had been renamed.
#[apply(trial)]
fn returning_track_is_not_a_renamed_copy() -> Result<(), Failed> {
    let mut table = Table::new("copy", 60);
    let store = table.store();
    run(&mut table.extract(&[])?).exits(0)?;
    let trained = some_track(&store, "training")?;
    let tested = some_track(&store, "test")?;
    let voice = table.row(trained).voice;

    table.row(tested).voice = voice;
    next_version(&table, &[])?;

    table.remove(tested);
    next_version(&table, &[])?;

    table.remove(trained);
    table.add(tested).voice = voice;
    next_version(&table, &[])?;

    let [before, after] = [sides(&store, 1)?, sides(&store, 4)?];
    same("sides", &after[&key(tested)], &before[&key(tested)])
}

/// The artist of a training track is corrected to an artist of the test split: all tracks of that artist leave the
/// test split.
#[apply(trial)]
fn a_corrected_artist_takes_its_group_to_training() -> Result<(), Failed> {
    let mut table = Table::new("corrected", 60);
    let store = table.store();
    run(&mut table.extract(&[])?).exits(0)?;

    let trained = some_track(&store, "training")?;
    let tested = some_track(&store, "test")?;
    table.row(trained).artist = Some(tested / 3);

    let preview = run(&mut table.extract(&["--new-version", "--dry-run"])?).exits(0)?;
    let words = "splits: 0 new tracks, 0 removed, 3 in another split (3 test -> training)";
    contains(&preview.out, words)?;

    let ran = run(&mut table.extract(&["--new-version", "--json"])?).exits(0)?;
    let first_line = ran.err.lines().next().unwrap_or_default();
    let warned = "warning: tracks that change splits between training and test: 3";
    starts_with(first_line, warned)?;
    contains(&ran.err, words)?;

    let report: Value = serde_json::from_str(&ran.out)?;
    let told = &report["sides"];
    let moved = serde_json::json!([{"from": "test", "to": "training", "tracks": 3}]);
    same("moved", &told["moved"], &moved)?;

    let merged = told["merged"].as_array().ok_or("no list")?;
    let mut merged = merged.iter().map(|one| one["clip_key"].as_str());
    same(
        "first of the list",
        merged.next().flatten(),
        Some(key(tested / 3 * 3).as_str()),
    )?;
    same("others", merged.count(), 2)?;

    let warnings = report["warnings"][0].as_str().unwrap_or_default();
    starts_with(warnings, &warned[9..])?;
    nothing_to_do(&table, &[])
}

#[apply(trial)]
fn resplit_reassigns_splits_with_a_warning() -> Result<(), Failed> {
    let mut table = Table::new("resplit", 60);
    let store = table.store();
    run(&mut table.extract(&[])?).exits(0)?;

    for track in 60..80 {
        table.add(track);
    }
    next_version(&table, &[])?;
    run(&mut table.extract(&["--resplit"])?)
        .exits(4)?
        .says(&["--resplit", "--new-version"])?;

    let ran = run(&mut table.extract(&["--new-version", "--resplit"])?).exits(0)?;
    let line = ran.err.lines().next().unwrap_or_default();
    starts_with(line, "warning: tracks that change splits")?;

    let first = table.first("first", &[])?;
    same("sides", sides(&store, 3)?, sides(&first, 1)?)?;
    nothing_to_do(&table, &["--resplit"])?;
    nothing_to_do(&table, &[])
}

#[apply(trial)]
fn another_seed_reassigns_splits() -> Result<(), Failed> {
    fn table_of(store: &Path, version: u64) -> Result<Option<String>, Failed> {
        let files = manifest(store, version)?.files;
        let sides = files.into_iter().find(|file| file.name() == "sides");
        Ok(sides.map(|file| file.blake3))
    }

    let mut table = Table::new("seed", 60);
    let store = table.store();
    run(&mut table.extract(&[])?).exits(0)?;

    table.add(60);
    let seed = ["--set", "split.seed=7"];
    next_version(&table, &seed)?;
    let first = table.first("first", &seed)?;
    same("sides", sides(&store, 2)?, sides(&first, 1)?)?;

    same(
        "what is remembered",
        table_of(&store, 2)?,
        table_of(&first, 1)?,
    )
}

#[apply(trial)]
fn rows_over_the_limit_are_assigned_splits() -> Result<(), Failed> {
    let table = Table::new("beyond", 60);
    let store = table.store();
    run(&mut table.extract(&["--limit", "20"])?).exits(0)?;
    same("tracks", sides(&store, 1)?.len(), 20)?;
    let told = next_version(&table, &[])?;
    same("new", told["new"].as_u64(), Some(40))?;
    let first = table.first("first", &[])?;
    same("sides", sides(&store, 2)?, sides(&first, 1)?)
}

/// Tests a new column, and a column that is no longer numeric.
#[apply(trial)]
fn columns_that_differ_are_named() -> Result<(), Failed> {
    fn diff(store: &Path) -> Command {
        let mut diff = wavemill(["diff", "--store"]);
        diff.arg(store).args(["1", "2"]);
        diff
    }

    let table = Table::new("columns", 12);
    run(&mut table.extract(&[])?).exits(0)?;

    let inputs = table.written()?;
    let csv = inputs
        .metadata
        .as_ref()
        .ok_or("no metadata")?
        .join("table.csv");

    let mut lines = String::new();
    for (number, line) in fs::read_to_string(&csv)?.lines().enumerate() {
        lines += &match number {
            0 => format!("{line},mood\n"),
            _ => format!("{line},calm\n"),
        };
    }
    fs::write(&csv, lines)?;

    let store = table.store();
    run(inputs.extract(&store).arg("--new-version")).exits(0)?;

    let told = run(&mut diff(&store)).exits(0)?;
    let line = "column tracks.mood added (";
    contains(&told.out, line)?;

    let told: Value = serde_json::from_str(&run(diff(&store).arg("--json")).exits(0)?.out)?;
    let columns = told["columns"].as_array().ok_or("no columns")?;
    same(
        "tables",
        columns.iter().all(|change| change["column"] == "mood"),
        true,
    )?;
    same("nothing is missing", &told["not_compared"], &Value::Null)
}

#[apply(trial)]
fn damaged_sides_are_not_silently_reassigned() -> Result<(), Failed> {
    let mut table = Table::new("damaged-sides", 24);
    let store = table.store();
    run(&mut table.extract(&[])?).exits(0)?;

    let files = manifest(&store, 1)?.files;
    let file = files.iter().find(|file| file.name() == "sides");
    let path = store.join(&file.ok_or("no table of sides")?.path);
    let mut bytes = fs::read(&path)?;
    bytes[40] ^= 1;
    fs::write(&path, bytes)?;

    table.add(24);
    run(&mut table.extract(&["--new-version"])?)
        .exits(3)?
        .says(&["sides.parquet", "--resplit"])?;
    run(&mut table.extract(&["--new-version", "--resplit"])?).exits(0)?;
    run(wavemill(["verify", "--store"]).arg(&store)).exits(0)?;
    Ok(())
}

/// 27 of 40 audio files are missing, as if their disk were not mounted.
#[apply(trial)]
fn vanished_folder_is_rejected() -> Result<(), Failed> {
    fn next(inputs: &Inputs, store: &Path, words: &[&str]) -> Ran {
        run(inputs.extract(store).arg("--new-version").args(words))
    }

    let table = Table::new("vanished", 40);
    let store = table.store();
    let inputs = table.written()?;
    run(&mut inputs.extract(&store)).exits(0)?;
    for track in 13..40 {
        fs::remove_file(inputs.clip(&key(track)))?;
    }

    next(&inputs, &store, &[]).exits(4)?.says(&[
        "27 of the 40 clips",
        "(a/013.wav, a/014.wav, a/015.wav, …)",
        "--max-shrink 0.1 ",
        "--max-shrink 0.68",
    ])?;
    // `--limit` does not hide missing files.
    next(&inputs, &store, &["--limit", "5", "--max-shrink", "0.67"]).exits(4)?;
    same("versions", versions(&store).len(), 1)?;

    let preview: Value = serde_json::from_str(
        &next(&inputs, &store, &["--dry-run", "--json"])
            .exits(4)?
            .out,
    )?;
    same("count", preview["vanished"]["count"].as_u64(), Some(27))?;
    same("of", preview["vanished"]["of"].as_u64(), Some(40))?;
    let outcome = preview["outcome"].as_str().unwrap_or_default();
    starts_with(outcome, "refused: 27 of the 40")?;

    next(&inputs, &store, &["--max-shrink", "0.68"]).exits(0)?;
    same("clips", manifest(&store, 2)?.counts.clips_written, 13)?;
    // Compared with the new version, no file is missing.
    run(&mut inputs.extract(&store)).exits(0)?;
    Ok(())
}

/// Adds a class that sorts before all others and removes another. The remaining classes keep their ids until
/// `--renumber`.
#[apply(trial)]
fn classes_keep_their_ids() -> Result<(), Failed> {
    fn classes(store: &Path, version: u64) -> Result<String, Failed> {
        Ok(manifest(store, version)?.targets[0].classes.join(" "))
    }

    let mut table = Table::new("classes", 24);
    let store = table.store();
    run(&mut table.extract(&[])?).exits(0)?;
    same("classes", classes(&store, 1)?.as_str(), "Folk Jazz Rock")?;

    table.row(4).genre = "Blues";
    let words = ["--new-version", "--dry-run"];
    let preview = run(&mut table.extract(&words)?).exits(0)?;
    let line = "changed: 1 class id added: genre Blues: 3\n";
    contains(&preview.out, line)?;

    run(&mut table.extract(&words[..1])?).exits(0)?;
    same(
        "classes",
        classes(&store, 2)?.as_str(),
        "Folk Jazz Rock Blues",
    )?;
    let query = "SELECT count(*) FROM features_log_mel WHERE genre = 3 AND clip_key = 'a/004.wav'";
    same("rows of the new class", sql_number(&store, query)?, 1)?;

    let again = run(&mut table.extract(&[])?).exits(0)?;
    contains(&again.err, "nothing to do")?;
    let diff = run(wavemill(["diff", "--store"]).arg(&store).args(["1", "2"])).exits(0)?;
    let line = "1 class id added: genre Blues: 3\n";
    contains(&diff.out, line)?;

    // The id of the removed class is not reused.
    for row in table.rows.values_mut() {
        if row.genre == "Jazz" {
            row.genre = "Rock";
        }
    }
    let told = run(&mut table.extract(&["--new-version"])?).exits(0)?;
    let words = "no row has the class Jazz any more";
    contains(&told.err, words)?;
    same(
        "classes",
        classes(&store, 3)?.as_str(),
        "Folk Jazz Rock Blues",
    )?;
    run(&mut table.extract(&[])?).exits(0)?;

    let refused = run(&mut table.extract(&["--renumber"])?).exits(4)?;
    refused.says(&["--renumber gave other class ids", "genre Blues: 3 -> 0"])?;
    run(&mut table.extract(&["--renumber", "--new-version"])?).exits(0)?;
    same("classes", classes(&store, 4)?.as_str(), "Blues Folk Rock")?;

    let versions = run(wavemill(["info", "--versions", "--store"]).arg(&store)).exits(0)?;
    let last = versions.out.lines().last().unwrap_or_default();
    same(last, last.ends_with("; changed: targets"), true)?;
    let again = run(&mut table.extract(&[])?).exits(0)?;
    contains(&again.err, "nothing to do")?;

    for version in ["1", "2", "3", "4"] {
        run(wavemill(["verify", "--version", version, "--store"]).arg(&store)).exits(0)?;
    }
    Ok(())
}

/// Splits of an old store are copied to a new store, from CSV or from the old store's Parquet file.
#[apply(trial)]
fn sides_can_be_copied_to_a_new_store() -> Result<(), Failed> {
    fn fresh(
        table: &Table,
        store: &Path,
        name: &str,
        sides: &[&Path],
    ) -> Result<(Vec<Value>, Manifest), Failed> {
        let fresh = store.with_file_name(name);
        let mut extract = table.written()?.extract(&fresh);
        for file in sides {
            extract.arg("--sides").arg(file);
        }
        run(&mut extract).exits(0)?;
        Ok((sql(&fresh, SIDES)?, manifest(&fresh, 1)?))
    }

    const SIDES: &str = "SELECT rule, \"group\", side FROM sides ORDER BY 1, 2";
    let mut table = Table::new("sides", 24);
    let store = table.store();
    run(&mut table.extract(&[])?).exits(0)?;

    for track in 24..60 {
        table.add(track);
    }
    run(&mut table.extract(&["--new-version"])?).exits(0)?;
    let wanted = sql(&store, SIDES)?;

    let csv = store.with_file_name("sides.csv");
    run(wavemill(["sql", "--format", "csv", "--store"])
        .arg(&store)
        .arg("--out")
        .arg(&csv)
        .arg("SELECT * FROM sides ORDER BY side"))
    .exits(0)?;
    let files = manifest(&store, 2)?.files;
    let parquet = files.iter().find(|file| file.name() == "sides");
    let parquet = store.join(&parquet.ok_or("no table")?.path);

    let (drawn, without) = fresh(&table, &store, "without", &[])?;
    same("drawn anew, sides differ", drawn == wanted, false)?;
    let (sides, by_csv) = fresh(&table, &store, "by-csv", &[&csv])?;
    same("sides", sides, wanted.clone())?;
    let (sides, by_parquet) = fresh(&table, &store, "by-parquet", &[&parquet])?;
    same("sides", sides, wanted)?;

    same("plan", &by_csv.plan_id, &by_parquet.plan_id)?;
    same("named", by_csv.identity.sides.is_some(), true)?;
    same("plan without", without.identity.sides, None)?;

    // After the first run with `--sides`, the new store itself keeps the splits.
    let again = table.written()?.extract(&store.with_file_name("by-csv"));
    let again = run(&mut { again }).exits(0)?;
    contains(&again.err, "nothing to do")?;

    fs::write(&csv, "group,side\ntrack:a/000.wav,test\n")?;
    let mut other = table.written()?.extract(&store.with_file_name("by-csv"));
    run(other.arg("--sides").arg(&csv))
        .exits(4)?
        .says(&["--sides gives other splits"])
}

#[apply(trial)]
fn invalid_sides_are_rejected_with_their_line() -> Result<(), Failed> {
    let table = Table::new("wrong-sides", 6);
    let store = table.store();
    let file = store.with_file_name("sides.csv");
    for (text, words) in [
        (
            "group,side\ntrack:a,training\ntrack:b,tset\n",
            "line 3: `tset` is not a split: change it to training, ",
        ),
        (
            "group,side\ntrack:a,test\ntrack:a,test\n",
            "line 3: group `track:a` of the rule `artist` already occurs in line 2: ",
        ),
        (
            "group,side\na.wav,test\n",
            "line 2: `a.wav` is not a group: groups begin with track:, ",
        ),
        (
            "rule,group,side\nofficial,track:a,test\n",
            "line 2: `official` is not a rule that keeps splits: ",
        ),
        (
            "clip_key,side\na,test\n",
            "no column `group`: give the columns group and side",
        ),
        ("group,side\n", "no rows in it"),
        ("group,side\ntrack:a\n", "not a CSV file"),
        ("PAR1", "not a Parquet file of splits"),
        (
            "group,side,side\ntrack:a,test,training\n",
            "several columns `side`",
        ),
        (
            "group,side\ntrack:elsewhere,test\nartist:123456789,test\n",
            "it names no track, artist or recording of this data",
        ),
    ] {
        fs::write(&file, text)?;
        let mut extract = table.extract(&["--sides"])?;
        let refused = run(extract.arg(&file)).exits(2)?;
        refused.says(&[file.to_str().unwrap_or_default(), words])?;
    }

    let mut extract = table.extract(&["--sides"])?;
    run(extract.arg("nosuch.csv"))
        .exits(2)?
        .says(&["cannot read"])?;
    same("a store", store.exists(), false)
}
