//! Folders of a store that are links, pipes, emptied or incomplete: nothing is removed or written because of them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use wavemill_tests::Failed;

use crate::support::{
    Ran, argv, contains, copy_folder, files_below, inputs, manifest, own_store, run, same, scratch,
    wavemill, whole,
};

/// Runs a command on a store.
fn on(store: &Path, line: &str) -> Ran {
    run(wavemill(argv(line)).arg("--store").arg(store))
}

/// Creates a store with two versions.
fn two_versions(name: &str) -> Result<PathBuf, Failed> {
    let store = own_store(name);
    run(inputs()
        .extract(&store)
        .args(argv("--new-version --limit 30")))
    .exits(0)?;
    Ok(store)
}

#[apply(trial)]
fn gc_does_not_believe_that_versions_are_gone() -> Result<(), Failed> {
    let store = two_versions("gone")?;
    let aside = scratch("gone-aside");
    let versions = store.join("_wavemill/versions");
    for (name, lost) in [
        ("all", &["00000001.json", "00000002.json"][..]),
        ("the latest", &["00000002.json"]),
        ("the first", &["00000001.json"]),
    ] {
        for file in lost {
            fs::rename(versions.join(file), aside.join(file))?;
        }
        let before = files_below(&store);
        for line in ["gc --keep 1 --dry-run", "gc --keep 1"] {
            let ran = on(&store, line).exits(3)?;
            ran.says(&[lost[lost.len() - 1], "restore it from a copy of the store"])?;
        }
        same(name, files_below(&store), before)?;
        for file in lost {
            fs::rename(aside.join(file), versions.join(file))?;
        }
    }

    on(&store, "tag 2 paper").exits(0)?;
    // Without the records of runs, a plan that follows a version shows that there was one.
    fs::remove_dir_all(store.join("_wavemill/runs"))?;
    fs::rename(&versions, aside.join("versions"))?;
    for there in [false, true] {
        if there {
            fs::create_dir(&versions)?;
        }
        let before = files_below(&store);
        on(&store, "gc --keep 1").exits(3)?.says(&["restore"])?;
        // A new first version would have the tag.
        run(inputs().extract(&store).arg("--new-version"))
            .exits(3)?
            .says(&["paper", "restore"])?;
        same("files", files_below(&store), before)?;
    }
    fs::remove_dir(&versions)?;
    fs::write(&versions, "a file")?;
    on(&store, "gc --keep 1")
        .exits(2)?
        .says(&["_wavemill/versions", "Not a directory"])?;
    fs::remove_file(&versions)?;
    fs::rename(aside.join("versions"), &versions)?;
    contains(&on(&store, "gc --keep 1").exits(0)?.err, "version 1: ")
}

#[apply(trial)]
fn nothing_of_a_store_is_reached_through_a_link() -> Result<(), Failed> {
    let folder = scratch("linked-folders");
    let other = folder.join("other");
    let plan = manifest(whole(), 1)?.plan_id;
    for name in [
        "data",
        "_wavemill/plans",
        "_wavemill/receipts",
        "_wavemill/runs",
        "_wavemill/tags",
        "_wavemill/versions",
        "_wavemill/lock",
        "_wavemill",
        &format!("data/{plan}"),
        &format!("_wavemill/receipts/{plan}"),
        &format!("data/{plan}/features/log_mel"),
    ] {
        let store = two_versions("linked-store")?;
        let _ = fs::remove_dir_all(&other);
        copy_folder(whole(), &other);
        for file in [
            "_wavemill/plans/0123456789abcdef/plan.json",
            "_wavemill/tags/paper",
            "_wavemill/lock",
        ] {
            fs::create_dir_all(other.join(file).parent().ok_or("a folder")?)?;
            fs::write(other.join(file), "1")?;
        }
        let own = store.join(name);
        match own.is_dir() {
            true => fs::remove_dir_all(&own)?,
            false => _ = fs::remove_file(&own),
        }
        symlink(other.join(name), &own)?;
        let before = files_below(&other);

        // The link below a plan's folder is found by the commands that write there, and removed as a link by `gc`.
        let is_deep = name.ends_with("log_mel");
        for line in ["gc --keep 1 --dry-run", "gc --keep 1", "tag 2 mine"] {
            if !is_deep {
                on(&store, line).exits(3)?.says(&[name, "link"])?;
            }
        }
        let mut next = inputs().extract(&store);
        next.args(argv("--new-version --limit 20"));
        if !is_deep {
            run(&mut next).exits(3)?.says(&["link"])?;
        }
        let verified = on(
            &store,
            if is_deep {
                "verify --version 1"
            } else {
                "verify"
            },
        )
        .exits(3)?;
        contains(&(verified.out + &verified.err), name)?;
        same(name, files_below(&other), before)?;
    }
    Ok(())
}

#[apply(trial)]
fn pipes_and_devices_are_not_read() -> Result<(), Failed> {
    let store = two_versions("pipes")?;
    let next = store.join("_wavemill/versions/00000003.json");
    run(Command::new("mkfifo").arg(&next)).exits(0)?;
    let lines = ["info", "sql VALUES(1)", "verify", "gc --keep 1", "diff 1 3"];
    for line in lines {
        on(&store, line)
            .exits(3)?
            .says(&["00000003.json", "damaged manifest"])?;
    }
    run(&mut inputs().extract(&store))
        .exits(3)?
        .says(&["00000003.json"])?;
    fs::remove_file(&next)?;
    symlink("/dev/zero", &next)?;
    for line in lines {
        on(&store, line).exits(3)?.says(&["00000003.json"])?;
    }
    fs::remove_file(&next)?;

    // Tags and records of runs, too.
    let tags = store.join("_wavemill/tags");
    fs::create_dir(&tags)?;
    run(Command::new("mkfifo").arg(tags.join("paper"))).exits(0)?;
    run(Command::new("mkfifo").arg(store.join("_wavemill/runs/x.jsonl"))).exits(0)?;
    on(&store, "info --version paper")
        .exits(3)?
        .says(&["damaged tag"])?;
    on(&store, "gc --keep 1").exits(3)?.says(&["damaged tag"])?;
    on(&store, "tag 2 paper").exits(0)?;
    on(&store, "gc --keep 1").exits(0)?;

    let file = store.join(&manifest(&store, 2)?.files[0].path);
    fs::remove_file(&file)?;
    run(Command::new("mkfifo").arg(&file)).exits(0)?;
    on(&store, "verify").exits(3)?;
    run(inputs().extract(&store).arg("--new-version"))
        .exits(3)?
        .says(&["is no file"])?;
    Ok(())
}
