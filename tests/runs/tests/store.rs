//! Commands on a store: damage is found, old versions are removed, and versions are distinguished.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;

use serde_json::Value;
use wavemill_schemas::manifest::Manifest;
use wavemill_tests::Failed;

use crate::support::{
    Ran, contains, files_below, inputs, manifest, on, own_store, run, same, scratch, sql_number,
    versions, whole,
};

/// Number of positions in a footer that are damaged, each in a separate store.
const FOOTER_PLACES: usize = 16;

fn flip(path: &Path, at: u64) -> Result<(), Failed> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    file.write_all_at(&[byte[0] ^ 1], at)?;
    Ok(())
}

/// Returns the paths of one feature's files in a version, relative to the store.
fn paths(manifest: &Manifest, name: &str) -> Vec<String> {
    manifest
        .files_of(name)
        .map(|file| file.path.clone())
        .collect()
}

#[apply(trial)]
fn verify_names_every_damaged_file() -> Result<(), Failed> {
    on(whole(), &["verify"]).exits(0)?;
    let store = own_store("damaged");
    let manifest = manifest(&store, 1)?;
    let (mels, mfccs) = (paths(&manifest, "log_mel"), paths(&manifest, "mfcc"));
    let tables = paths(&manifest, "tracks");

    fs::remove_file(store.join(&mels[0]))?;
    flip(&store.join(&mels[1]), 2_000)?;
    fs::write(store.join(&mfccs[0]), b"PAR1")?;
    flip(&store.join(&tables[0]), 100)?;

    let found = on(&store, &["verify"]).exits(3)?;
    found.says(&["4 damaged files"])?;
    let lines: BTreeSet<&str> = found
        .out
        .lines()
        .filter_map(|line| line.split(": ").next())
        .collect();
    let damaged: BTreeSet<&str> = [&mels[0], &mels[1], &mfccs[0], &tables[0]]
        .map(String::as_str)
        .into();
    same("files named", lines, damaged)?;

    for (path, problem) in [
        (&mels[0], "missing"),
        (&mels[1], "blake3"),
        (&mfccs[0], "4 bytes"),
    ] {
        let line = found
            .out
            .lines()
            .find(|line| line.starts_with(path.as_str()))
            .unwrap_or_default();
        contains(line, problem)?;
    }

    let json = on(&store, &["verify", "--json"]).exits(3)?;
    let verified: Value = serde_json::from_str(&json.out)?;
    same(
        "damage in JSON",
        verified["damage"].as_array().map(Vec::len),
        Some(4),
    )
}

/// Flips a bit at the beginning, in the middle and in the footer of a file of each kind.
#[apply(trial)]
fn every_flipped_byte_is_found() -> Result<(), Failed> {
    let store = own_store("flipped");
    let manifest = manifest(&store, 1)?;
    for name in ["tracks_all", "rejects", "log_mel", "mfcc"] {
        let file = manifest.files_of(name).last().ok_or("no such file")?;
        let path = store.join(&file.path);
        for at in [0, file.bytes / 2, file.bytes - 1] {
            flip(&path, at)?;
            let found = on(&store, &["verify"]).exits(3)?;
            same(name, found.out.starts_with(&file.path), true)?;
            flip(&path, at)?;
        }
    }

    on(&store, &["verify"]).exits(0)?;
    Ok(())
}

#[apply(trial)]
fn damaged_manifest_is_reported() -> Result<(), Failed> {
    let store = own_store("manifest");
    let path = store.join("_wavemill/versions/00000001.json");
    let text = fs::read_to_string(&path)?;
    fs::write(&path, &text[..text.len() / 2])?;

    on(&store, &["verify"]).exits(3)?.says(&["00000001.json"])?;
    on(&store, &["info"]).exits(3)?.says(&["00000001.json"])?;
    on(&store, &["sql", "SELECT 1"])
        .exits(3)?
        .says(&["00000001.json"])?;
    run(&mut inputs().extract(&store))
        .exits(3)?
        .says(&["00000001.json"])?;
    Ok(())
}

/// `info --files`, the manifest, the files on disk and a glob over the plan's folder give the same list.
#[apply(trial)]
fn files_lists_one_plan() -> Result<(), Failed> {
    let manifest = manifest(whole(), 1)?;
    let listed = on(whole(), &["info", "--files"]).exits(0)?.out;
    let root = format!("{}/", whole().display());
    let listed: Vec<&str> = listed
        .lines()
        .map(|line| line.strip_prefix(&root).unwrap_or(line))
        .collect();

    same(
        "listed",
        &listed,
        &manifest
            .files
            .iter()
            .map(|file| file.path.as_str())
            .collect(),
    )?;

    let mut sorted = listed.clone();
    sorted.sort_unstable();
    let plan = format!("data/{}", manifest.plan_id);
    let on_disk: Vec<String> = files_below(&whole().join(&plan))
        .iter()
        .map(|name| format!("{plan}/{name}"))
        .collect();
    same(
        "on disk",
        sorted,
        on_disk.iter().map(String::as_str).collect(),
    )?;

    let mels = on(
        whole(),
        &["info", "--files", "--feature", "log_mel", "--json"],
    )
    .exits(0)?
    .out;
    let mels: Vec<String> = serde_json::from_str(&mels)?;
    let wanted: Vec<String> = paths(&manifest, "log_mel")
        .iter()
        .map(|path| format!("{root}{path}"))
        .collect();
    same("of one feature", mels, wanted)?;

    let quoted = on(whole(), &["info", "--files", "--feature", "mfcc", "--sql"])
        .exits(0)?
        .out;
    same(
        "quoted",
        quoted
            .trim()
            .split(',')
            .filter(|path| path.starts_with("'/"))
            .count(),
        paths(&manifest, "mfcc").len(),
    )?;

    on(whole(), &["info", "--files", "--feature", "mel"])
        .exits(2)?
        .says(&["--feature mel", "log_mel, mfcc"])
}

#[apply(trial)]
fn info_shows_the_manifest() -> Result<(), Failed> {
    let manifest = manifest(whole(), 1)?;
    let words = on(whole(), &["info"]).exits(0)?.out;
    for part in [
        &manifest.plan_id,
        &manifest.engine.decoder,
        "f16[40,130]",
        "target genre: 10 classes",
    ] {
        contains(&words, part)?;
    }

    let json = on(whole(), &["info", "--json"]).exits(0)?.out;
    same(
        "as stored",
        json,
        fs::read_to_string(whole().join("_wavemill/versions/00000001.json"))?,
    )?;

    let kept = sql_number(
        whole(),
        "SELECT sum(rows) FROM files WHERE table_name = 'tracks'",
    )?;
    same("rows in the table `files`", kept, manifest.counts.rows_kept)
}

/// Creates three versions: each states its parent, each can be queried, and the last one remains after the others
/// are removed.
#[apply(trial)]
fn old_versions_are_collected() -> Result<(), Failed> {
    fn rows(store: &Path, version: &str) -> Ran {
        on(
            store,
            &[
                "sql",
                "--format",
                "csv",
                "--version",
                version,
                "SELECT count(*) FROM tracks",
            ],
        )
    }

    let store = own_store("versions");
    let further =
        |words: &[&str]| run(inputs().extract(&store).arg("--new-version").args(words)).exits(0);

    further(&["--limit", "30"])?;
    further(&["--set", "features.log_mel.n_mels=48"])?;
    same("versions", versions(&store).len(), 3)?;

    for version in 2..=3 {
        let parent = fs::read(store.join(format!("_wavemill/versions/{:08}.json", version - 1)))?;
        let hash = blake3::hash(&parent).to_hex().to_string();
        same(
            "parent",
            manifest(&store, version)?.identity.parent,
            Some(hash),
        )?;
    }

    same(
        "rows of 1 and 2",
        rows(&store, "1").exits(0)?.out == rows(&store, "2").exits(0)?.out,
        false,
    )?;
    same(
        "rows of 2",
        rows(&store, "2").exits(0)?.out.lines().last(),
        Some("30"),
    )?;

    let diff = on(&store, &["diff", "1", "3"]).exits(0)?.out;
    contains(&diff, "recipe features.log_mel.n_mels 40 -> 48")?;

    let diff: Value =
        serde_json::from_str(&on(&store, &["diff", "1", "3", "--json"]).exits(0)?.out)?;
    same(
        "changed shards",
        diff["files_changed"].as_array().map(Vec::len),
        Some(paths(&manifest(&store, 1)?, "log_mel").len()),
    )?;

    on(&store, &["diff", "1", "4"])
        .exits(2)?
        .says(&["no version 4"])?;

    let tracks = store.join(&paths(&manifest(&store, 2)?, "tracks")[0]);
    flip(&tracks, 100)?;
    on(&store, &["verify", "--version", "2"])
        .exits(3)?
        .says(&["use the latest version", "wavemill gc --keep 1"])?;
    flip(&tracks, 100)?;

    let before = files_below(&store);
    on(&store, &["gc", "--keep", "1", "--dry-run"]).exits(0)?;
    same("files after a dry run", files_below(&store), before)?;

    on(&store, &["gc", "--keep", "1"]).exits(0)?;
    on(&store, &["verify"]).exits(0)?;
    same("manifests stay", versions(&store).len(), 3)?;
    let plans = fs::read_dir(store.join("data"))?.count();
    same("plans left", plans, 1)?;

    for command in [
        &["verify", "--version", "1"][..],
        &["sql", "--version", "1", "SELECT 1 FROM tracks"],
    ] {
        on(&store, command)
            .exits(2)?
            .says(&["version 1", "wavemill gc"])?;
    }

    let diff = on(&store, &["diff", "1", "3"]).exits(0)?;
    for words in [
        "tracks, labels, splits, audio files and columns are not compared",
        "version 1",
    ] {
        contains(&diff.err, words)?;
    }

    let listed: Value =
        serde_json::from_str(&on(&store, &["info", "--versions", "--json"]).exits(0)?.out)?;
    for (line, (version, data)) in
        listed
            .as_array()
            .ok_or("no list")?
            .iter()
            .zip([(1, false), (2, false), (3, true)])
    {
        same("number", line["version"].as_u64(), Some(version))?;
        same("data", line["held"]["data"].as_bool(), Some(data))?;
        same(
            "rows",
            line["held"]["rows"].as_u64(),
            Some(manifest(&store, version)?.counts.feature_rows),
        )?;
        // The first version was copied together with its run records, so its date is known.
        same(
            "date",
            line["committed"].as_str().map(str::len),
            Some("2026-11-20T18:04:02Z".len()),
        )?;
    }

    let info = on(&store, &["info"]).exits(0)?.out;
    same(
        "gone",
        info.matches("its data was removed by `wavemill gc`")
            .count(),
        2,
    )?;

    fs::remove_dir_all(store.join("_wavemill/runs"))?;
    same(
        "without records",
        on(&store, &["info", "--versions"])
            .exits(0)?
            .out
            .matches("(date unknown)")
            .count(),
        3,
    )?;

    let again = run(inputs()
        .extract(&store)
        .args(["--set", "features.log_mel.n_mels=48"]))
    .exits(0)?;
    contains(&again.err, "nothing to do")
}

/// Tests the advice of `verify`: the next version contains the same files as the damaged one did before.
#[apply(trial)]
fn damaged_version_is_recreated() -> Result<(), Failed> {
    fn hashes(manifest: &Manifest) -> Vec<String> {
        manifest
            .files
            .iter()
            .map(|file| file.blake3.clone())
            .collect::<Vec<_>>()
    }

    let store = own_store("anew");
    let was = manifest(&store, 1)?;
    let (mel, tracks) = (&paths(&was, "log_mel")[0], &paths(&was, "tracks")[0]);
    flip(&store.join(mel), 2_000)?;
    fs::remove_file(store.join(tracks))?;

    on(&store, &["verify"])
        .exits(3)?
        .says(&["2 damaged files", "--new-version"])?;

    let ran = run(inputs().extract(&store).arg("--new-version")).exits(0)?;
    let n_shards = paths(&was, "log_mel").len() + paths(&was, "mfcc").len();
    let reused = format!("{} feature files already existed", n_shards - 1);
    contains(&ran.err, &reused)?;
    on(&store, &["verify"]).exits(0)?;
    on(&store, &["verify", "--version", "1"]).exits(3)?;

    same(
        "files of both versions",
        hashes(&manifest(&store, 2)?),
        hashes(&was),
    )
}

/// Changes a digit in a record of each kind before a new version links the shards. The new version has the same
/// bytes as in an undamaged store.
#[apply(trial)]
fn mismatched_receipts_are_ignored() -> Result<(), Failed> {
    fn limited(store: &Path) -> Result<Ran, Failed> {
        let mut extract = inputs().extract(store);
        run(extract.args(["--new-version", "--limit", "30"])).exits(0)
    }

    let twin = own_store("sound-receipts");
    limited(&twin)?;
    let expected = fs::read(twin.join("_wavemill/versions/00000002.json"))?;

    let plan_id = manifest(whole(), 1)?.plan_id;
    for (name, key) in [
        ("log_mel/training-00000.json", "\"sum\":["),
        ("_seen/training-00000.json", "\"content\":\""),
        ("plan.json", "\"numerics\":"),
    ] {
        let store = own_store("damaged-receipts");
        let path = store.join("_wavemill/receipts").join(&plan_id).join(name);
        let text = fs::read_to_string(&path)?;
        let at = text.find(key).ok_or(key)? + key.len();
        let digit = text[at..].find(|c: char| c.is_ascii_digit()).ok_or(key)?;
        flip(&path, (at + digit) as u64)?;

        let found = on(&store, &["verify"]).exits(3)?;
        contains(&found.out, name)?;
        limited(&store)?;
        let committed = fs::read(store.join("_wavemill/versions/00000002.json"))?;
        same(name, committed == expected, true)?;
    }
    Ok(())
}

/// Damages positions all over the footer. Parquet readers may panic on some of them.
#[apply(trial)]
fn a_shard_with_a_damaged_footer_is_repaired() -> Result<(), Failed> {
    fn hashes(manifest: &Manifest) -> Vec<String> {
        let files = manifest.files.iter();
        files.map(|file| file.blake3.clone()).collect::<Vec<_>>()
    }

    let was = manifest(whole(), 1)?;
    let entry = was.files_of("log_mel").next().ok_or("no shard")?;
    let bytes = fs::read(whole().join(&entry.path))?;
    let (_, end) = bytes.split_at(bytes.len() - 8);
    let footer = u32::from_le_bytes([end[0], end[1], end[2], end[3]]) as usize + 8;

    for place in 0..FOOTER_PLACES {
        let store = own_store("footer");
        let at = bytes.len() - footer + place * footer / FOOTER_PLACES;
        flip(&store.join(&entry.path), at as u64)?;
        on(&store, &["verify"]).exits(3)?.says(&["--new-version"])?;
        // Without receipts no file is linked, and rows are searched in the shards.
        if place % 2 == 1 {
            fs::remove_dir_all(store.join("_wavemill/receipts"))?;
        }

        run(inputs().extract(&store).arg("--new-version")).exits(0)?;
        let made = manifest(&store, 2)?;
        same(&format!("byte {at}"), hashes(&made), hashes(&was))?;
    }
    Ok(())
}

/// Tools that deduplicate files replace them by links: here, a shard is a symbolic link to a file of the same
/// version.
#[apply(trial)]
fn version_survives_collection_of_its_parent() -> Result<(), Failed> {
    for is_relative in [false, true] {
        let store = own_store("symbolic");
        let shard = store.join(&paths(&manifest(&store, 1)?, "log_mel")[0]);
        let moved = shard.with_file_name("moved.bin");
        fs::rename(&shard, &moved)?;
        let target = match is_relative {
            true => Path::new("moved.bin"),
            false => &moved,
        };
        symlink(target, &shard)?;

        run(inputs()
            .extract(&store)
            .args(["--new-version", "--limit", "30"]))
        .exits(0)?;
        on(&store, &["gc", "--keep", "1"]).exits(0)?;
        on(&store, &["verify"]).exits(0)?;
    }

    // A file of the kept version is a link to a file of the previous version.
    let store = own_store("linked-back");
    run(inputs()
        .extract(&store)
        .args(["--new-version", "--limit", "30"]))
    .exits(0)?;

    let [old, shard] = [1, 2].map(|version| {
        let manifest = manifest(&store, version).unwrap();
        store.join(&paths(&manifest, "log_mel")[0])
    });
    let moved = old.with_file_name("moved.bin");
    fs::rename(&shard, &moved)?;
    symlink(moved, &shard)?;

    on(&store, &["gc", "--keep", "1"]).exits(0)?;
    on(&store, &["verify"]).exits(0)?;
    Ok(())
}

/// A process that is killed between creating the temporary and the final name of a manifest leaves the temporary
/// one. Even a run with nothing to do removes it.
#[apply(trial)]
fn temporary_manifest_is_removed_by_the_next_run() -> Result<(), Failed> {
    let store = own_store("temporary");
    let versions = store.join("_wavemill/versions");
    let temporary = versions.join(".0123456789abcdef.tmp");
    fs::hard_link(versions.join("00000001.json"), &temporary)?;
    let ran = run(&mut inputs().extract(&store)).exits(0)?;
    contains(&ran.err, "nothing to do")?;
    same("it is there", temporary.exists(), false)
}

#[apply(trial)]
fn unfinished_plans_are_collected() -> Result<(), Failed> {
    let store = scratch("unfinished").join("store");
    run(&mut inputs().extract(&store)).exits(0)?;

    let mut failing = inputs().extract(&store);
    failing
        .args(["--new-version", "--set", "features.log_mel.n_mels=32"])
        .env("FAILPOINTS", "shard-append=return");
    run(&mut failing).exits(5)?;
    same("plans", fs::read_dir(store.join("data"))?.count(), 2)?;

    // Only folders of plans are removed.
    let others = [
        "data/notes/a.txt",
        "data/.DS_Store",
        "_wavemill/receipts/.DS_Store",
    ];
    let others = others.map(|other| store.join(other));
    for other in &others {
        fs::create_dir_all(other.parent().ok_or("a folder")?)?;
        fs::write(other, "of the user")?;
    }

    on(&store, &["gc", "--keep", "9"]).exits(0)?;
    same("plans", fs::read_dir(store.join("data"))?.count(), 3)?;
    for other in &others {
        same(
            "a user's file",
            fs::read_to_string(other)?.as_str(),
            "of the user",
        )?;
    }
    on(&store, &["verify"]).exits(0)?;

    on(&store, &["gc", "--keep", "0"])
        .exits(2)?
        .says(&["--keep 0"])
}
