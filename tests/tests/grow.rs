//! A store that grows: what did not change is neither moved nor dealt anew.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use wavemill_tests::{Failed, Trial};

use crate::support::{finish, manifest, run, same, start, wavemill};
use crate::table::Table;

/// Holds a run before it takes the lock, longer than another run takes.
const HELD: &str = "run-before-lock=sleep(8000)";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::test(
            "grow::one_clip_at_a_border_rewrites_one_shard",
            one_clip_at_a_border_rewrites_one_shard,
        ),
        Trial::test(
            "grow::the_parent_is_the_version_that_is_there_when_the_lock_is_taken",
            the_parent_is_that_of_the_lock,
        ),
    ]
}

/// The inode of each feature file of a version, by its path below the plan's folder.
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

/// Files of a version that are not those of the one before it.
fn rewritten(store: &Path, version: u64) -> Result<usize, Failed> {
    let before = inodes(store, version - 1)?;
    let after = inodes(store, version)?;
    let fresh = after
        .iter()
        .filter(|(path, inode)| before.get(*path) != Some(inode));
    Ok(fresh.count())
}

/// 33 clips at 8 a shard are 8 shards, and 32 would be 4.
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
    same("said", again.err.contains("nothing to do"), true)?;

    table.add(7);
    run(&mut table.extract(&new_version)?).exits(0)?;
    same("shards", manifest(&store, 3)?.shards, counts)?;
    same("files written for a clip more", rewritten(&store, 3)?, 1)?;
    for version in ["1", "2", "3"] {
        run(wavemill(["verify", "--version", version, "--store"]).arg(&store)).exits(0)?;
    }

    // Below a quarter of what they may hold there are half as many.
    for track in 15..33 {
        table.remove(track);
    }
    run(&mut table.extract(&new_version)?).exits(0)?;
    let counts = BTreeMap::from([("training".to_owned(), 4)]);
    same("shards", manifest(&store, 4)?.shards, counts)
}

/// What follows from the parent is decided under the lock: here the number of shards, and that nothing is to do.
fn the_parent_is_that_of_the_lock() -> Result<(), Failed> {
    let by_column = ["--set", "split.rule=column", "--set", "split.column=side"];
    let table = Table::new("parent", 24);
    let store = table.store();
    run(&mut table.extract(&by_column)?).exits(0)?;

    // After the first version there would be 4 shards of 24 clips, and after one with shards of 2 clips there are 8.
    let mels = ["--set", "features.log_mel.n_mels=20", "--new-version"];
    let held = start(
        table
            .extract(&by_column)?
            .args(mels)
            .env("FAILPOINTS", HELD),
    );
    let small = ["--set", "shards.clips=2", "--new-version"];
    run(table.extract(&by_column)?.args(small)).exits(0)?;
    finish(held).exits(0)?;
    let shards = |version: u64| Ok::<_, Failed>(manifest(&store, version)?.shards["training"]);
    same(
        "shards by version",
        [shards(1)?, shards(2)?, shards(3)?],
        [4, 16, 8],
    )?;
    let second = fs::read(store.join("_wavemill/versions/00000002.json"))?;
    same(
        "parent",
        manifest(&store, 3)?.identity.parent,
        Some(blake3::hash(&second).to_hex().to_string()),
    )?;

    let other = ["--set", "features.log_mel.n_mels=24", "--new-version"];
    let held = start(
        table
            .extract(&by_column)?
            .args(other)
            .env("FAILPOINTS", HELD),
    );
    run(table.extract(&by_column)?.args(other)).exits(0)?;
    let ran = finish(held).exits(0)?;
    same(&ran.err, ran.err.contains("nothing to do: version 4"), true)
}
