//! Named versions: every command accepts a tag, `gc` keeps tagged versions, and reports the space that it really
//! frees.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use wavemill_tests::Failed;

use crate::support::{
    argv, contains, files_below, fit, has_trainer, kill, lacks, manifest, on, own_store, receipts,
    run, run_in, same, scratch, start, starts_with, trainer, versions, wait_until, wavemill,
};
use crate::table::Table;

/// Creates a store of three versions: with 12 tracks, with 13 tracks, and with 13 tracks and other features.
fn three_versions(name: &str) -> Result<PathBuf, Failed> {
    let mut table = Table::new(name, 12);
    run(&mut table.extract(&[])?).exits(0)?;
    table.add(12);
    run(&mut table.extract(&["--new-version"])?).exits(0)?;
    run(&mut table.extract(&["--new-version", "--set", "features.log_mel.n_mels=20"])?).exits(0)?;
    same("versions", versions(&table.store()).len(), 3)?;
    Ok(table.store())
}

fn tag_file(store: &Path, tag: &str) -> PathBuf {
    store.join("_wavemill/tags").join(tag)
}

/// Returns the versions listed by `info --versions --json`.
fn listed(store: &Path) -> Result<Vec<Value>, Failed> {
    let ran = on(store, &["info", "--versions", "--json"]).exits(0)?;
    Ok(serde_json::from_str(&ran.out)?)
}

/// Returns one field of each version listed by `info --versions`.
fn field(store: &Path, name: &str) -> Result<Vec<Value>, Failed> {
    Ok(listed(store)?
        .iter()
        .map(|line| line[name].clone())
        .collect())
}

/// Returns for each version whether its data exist.
fn with_data(store: &Path) -> Result<Vec<Option<bool>>, Failed> {
    let held = field(store, "held")?;
    Ok(held.iter().map(|held| held["data"].as_bool()).collect())
}

/// Each command gives the same output for a version's number and its tag.
#[apply(trial)]
fn tags_are_accepted_as_versions() -> Result<(), Failed> {
    let store = three_versions("named")?;
    on(&store, &["tag", "1", "paper"]).exits(0)?;
    on(&store, &["tag", "2", "v1.0-rc_2"]).exits(0)?;
    starts_with(&fs::read_to_string(tag_file(&store, "paper"))?, "1\n\"")?;
    same(
        "files",
        files_below(&store.join("_wavemill/tags")),
        vec!["paper".to_owned(), "v1.0-rc_2".to_owned()],
    )?;

    let tracks = "SELECT clip_key FROM tracks ORDER BY 1";
    let commands: [&[&str]; 6] = [
        &["info"],
        &["info", "--json"],
        &["info", "--files"],
        &["info", "--files", "--sql", "--feature", "log_mel"],
        &["verify", "--json"],
        &["sql", "--format", "csv", tracks],
    ];

    for words in commands {
        for (number, tag) in [("1", "paper"), ("2", "v1.0-rc_2")] {
            let by_number = on(&store, &[words, &["--version", number]].concat()).exits(0)?;
            let by_tag = on(&store, &[words, &["--version", tag]].concat()).exits(0)?;
            same(&words.join(" "), &by_tag.out, &by_number.out)?;
        }
        // The output differs from that for the latest version, so the command did read the tagged version.
        let first = on(&store, &[words, &["--version", "paper"]].concat()).exits(0)?;
        let latest = on(&store, words).exits(0)?;
        same(&words.join(" "), first.out == latest.out, false)?;
    }

    let mut by_number = on(&store, &["diff", "1", "3"]).exits(0)?.out;
    for words in [["paper", "3"], ["1", "3"]] {
        let by_tag = on(&store, &["diff", words[0], words[1]]).exits(0)?;
        same("diff", &by_tag.out, &by_number)?;
    }

    on(&store, &["tag", "3", "new"]).exits(0)?;
    by_number = on(&store, &["diff", "2", "3"]).exits(0)?.out;
    let by_tag = on(&store, &["diff", "v1.0-rc_2", "new"]).exits(0)?;
    same("diff", by_tag.out, by_number)?;

    // Lists the files of exactly one version, for jobs that read them directly.
    let files = on(&store, &["info", "--files", "--sql", "--version", "paper"]).exits(0)?;
    let wanted: Vec<String> = manifest(&store, 1)?
        .files
        .iter()
        .map(|file| format!("'{}'", store.join(&file.path).display()))
        .collect();
    same("files", files.out.trim_end(), &wanted.join(","))?;

    let info = on(&store, &["info", "--version", "paper"]).exits(0)?.out;
    starts_with(&info, "version 1: ")?;
    contains(&info, "\n  tags: paper\n")?;
    contains(&info, "; tagged v1.0-rc_2; changed: ")?;
    same(
        "tags",
        field(&store, "tags")?,
        vec![json!(["paper"]), json!(["v1.0-rc_2"]), json!(["new"])],
    )
}

#[apply(trial)]
fn tags_can_be_moved() -> Result<(), Failed> {
    fn said(store: &Path, arguments: &[&str]) -> Result<String, Failed> {
        Ok(on(store, arguments).exits(0)?.err)
    }

    let store = three_versions("moved")?;
    same(
        "said",
        said(&store, &["tag", "1", "paper"])?,
        "version 1 now has the tag paper\n".to_owned(),
    )?;
    same(
        "said",
        said(&store, &["tag", "1", "paper"])?,
        "version 1 already has the tag paper\n".to_owned(),
    )?;
    same(
        "said",
        said(&store, &["tag", "3", "paper"])?,
        "tag paper moved from version 1 to version 3\n".to_owned(),
    )?;
    same(
        "said",
        said(&store, &["tag", "2", "paper", "--quiet"])?,
        String::new(),
    )?;

    same(
        "tags",
        field(&store, "tags")?,
        vec![json!([]), json!(["paper"]), json!([])],
    )?;

    // A tag can be given by another tag, and a version may have several tags.
    let ran = on(&store, &["tag", "paper", "also", "--json"]).exits(0)?;
    let report: Value = serde_json::from_str(&ran.out)?;
    same(
        "report",
        report,
        json!({"tag": "also", "version": 2, "was": null, "was_damaged": false}),
    )?;

    let ran = on(&store, &["tag", "1", "also", "--json"]).exits(0)?;
    let report: Value = serde_json::from_str(&ran.out)?;
    same("was", report["was"].as_u64(), Some(2))?;
    on(&store, &["tag", "paper", "also"]).exits(0)?;
    let tags = &field(&store, "tags")?[1];
    same("tags", tags, &json!(["also", "paper"]))
}

/// The run's folder stores the number of the version, so a resumed run uses the same version after the tag has
/// moved.
#[apply(trial)]
#[needs(has_trainer)]
fn the_trainer_takes_tags() -> Result<(), Failed> {
    fn recorded(run: &Path) -> Result<Value, Failed> {
        Ok(serde_json::from_slice(&fs::read(run.join("input.json"))?)?)
    }

    let store = own_store("trained");
    let runs = scratch("tagged-runs").join("runs");
    on(&store, &["tag", "1", "paper"]).exits(0)?;

    // Creates a second version whose only difference is its manifest. No command would create such a version.
    let mut second = manifest(&store, 1)?;
    second.counts.rows_read += 1;
    fs::write(
        store.join("_wavemill/versions/00000002.json"),
        second.to_json()?,
    )?;

    let arguments = argv(
        "--set model.name=genregenie-cnn --set data.batch_size=4 --set data.frames=24 \
         --epochs 1 --version",
    );

    run(fit(&store, &runs).args(&arguments).arg("papers"))
        .exits(2)?
        .says(&["no tag papers", "the only tag is paper", "wavemill tag"])?;
    run(fit(&store, &runs).args(&arguments).arg("a b")).exits(2)?;
    fs::write(tag_file(&store, "broken"), "one")?;
    run(fit(&store, &runs).args(&arguments).arg("broken"))
        .exits(3)?
        .says(&["tags/broken: damaged tag", "wavemill tag VERSION NAME"])?;
    same("a run", runs.exists(), false)?;

    run(fit(&store, &runs).args(&arguments).arg("paper")).exits(0)?;
    let begun = run_in(&runs)?;
    same("recorded", recorded(&begun)?["version"].as_u64(), Some(1))?;

    on(&store, &["tag", "2", "paper"]).exits(0)?;
    let resume = ["fit", "--device", "cpu", "--epochs", "2", "--resume"];
    run(trainer(resume).arg(&begun).args(["--version", "paper"])).exits(0)?;
    same("recorded", recorded(&begun)?["version"].as_u64(), Some(1))?;

    on(&store, &["tag", "1", "first"]).exits(0)?;
    let eval = ["eval", "--device", "cpu", "--version", "first", "--store"];
    run(trainer(eval).arg(&store).arg(&begun)).exits(0)?;

    let other = scratch("tagged-runs").join("runs");
    run(fit(&store, &other).args(&arguments).arg("paper")).exits(0)?;
    let begun = run_in(&other)?;
    same("recorded", recorded(&begun)?["version"].as_u64(), Some(2))
}

#[apply(trial)]
fn invalid_tag_names_are_rejected() -> Result<(), Failed> {
    let store = own_store("no-names");
    let long = "x".repeat(65);
    let before = files_below(&store);

    for name in [
        "", ".", "..", "../x", "a/b", "/tmp/x", ".hidden", "-x", "a b", "é", "a\n", &long,
    ] {
        // The arguments follow `--`, because `-x` would be parsed as an option.
        let ran = run(wavemill(["tag", "--store"])
            .arg(&store)
            .args(["--", "1", name]))
        .exits(2)?;
        contains(&ran.err, "a tag has at most 64")?;

        let query = format!("--version={name}");
        let ran = on(&store, &["sql", &query, "SELECT 1"]).exits(2)?;
        contains(&ran.err, "a tag has at most 64")?;
    }

    for name in ["2", "007", "20261120"] {
        let ran = on(&store, &["tag", "1", name]).exits(2)?;
        contains(&ran.err, "a name of digits only")?;
    }
    same("files", files_below(&store), before)
}

#[apply(trial)]
fn unknown_tag_error_lists_tags() -> Result<(), Failed> {
    let store = three_versions("absent")?;
    on(&store, &["tag", "4", "paper"])
        .exits(2)?
        .says(&["no version 4", "available: 1 to 3"])?;
    same("a tag", tag_file(&store, "paper").exists(), false)?;
    on(&store, &["verify", "--version", "paper"])
        .exits(2)?
        .says(&[
            "no tag paper; there is no tag",
            "wavemill info --versions",
            "wavemill tag VERSION paper",
        ])?;

    on(&store, &["tag", "1", "Paper"]).exits(0)?;
    on(&store, &["tag", "1", "other"]).exits(0)?;
    for message in [
        &["verify", "--version", "paper"][..],
        &["info", "--version", "paper"],
        &["sql", "--version", "paper", "SELECT 1"],
        &["diff", "paper", "1"],
        &["diff", "1", "paper"],
        &["tag", "paper", "new"],
    ] {
        on(&store, message)
            .exits(2)?
            .says(&["no tag paper", "the tags are Paper, other"])?;
    }

    let nowhere = scratch("nowhere").join("store");
    on(&nowhere, &["tag", "1", "paper"])
        .exits(2)?
        .says(&["no store"])?;
    same("made", nowhere.exists(), false)
}

#[apply(trial)]
fn run_holds_the_lock() -> Result<(), Failed> {
    let mut table = Table::new("held", 12);
    let store = table.store();
    run(&mut table.extract(&[])?).exits(0)?;

    let before = receipts(&store);
    table.add(12);
    let mut extract = table.extract(&["--new-version"])?;
    extract.env("FAILPOINTS", "run-before-commit=sleep(600000)");
    let mut child = start(&mut extract);
    wait_until(&mut child, "a receipt", || receipts(&store) > before)?;

    let tagging = on(&store, &["tag", "1", "paper"]);
    let asking = on(&store, &["info", "--version", "1"]);
    kill(child)?;
    tagging
        .exits(7)?
        .says(&[store.to_str().unwrap(), "another wavemill is writing"])?;
    asking.exits(0)?;
    same("a tag", tag_file(&store, "paper").exists(), false)?;
    on(&store, &["tag", "1", "paper"]).exits(0)?;

    // A killed `tag` leaves a temporary file that is not a tag, and the next run removes it.
    let left = tag_file(&store, ".paper.tmp");
    fs::write(&left, "2")?;
    let info = on(&store, &["info", "--versions"]).exits(0)?;
    same("warnings", info.err, String::new())?;
    run(&mut table.extract(&["--new-version"])?).exits(0)?;
    same("left", left.exists(), false)
}

#[apply(trial)]
fn a_tag_stays_in_the_store() -> Result<(), Failed> {
    let store = own_store("linked");
    let elsewhere = scratch("elsewhere");
    std::os::unix::fs::symlink(&elsewhere, store.join("_wavemill/tags"))?;
    on(&store, &["tag", "1", "paper"])
        .exits(3)?
        .says(&["_wavemill/tags: a symbolic link"])?;
    same("files", files_below(&elsewhere), Vec::new())
}

#[apply(trial)]
fn damaged_tag_is_an_error_when_used() -> Result<(), Failed> {
    let store = three_versions("broken")?;
    on(&store, &["gc", "--keep", "2"]).exits(0)?;
    same(
        "data",
        with_data(&store)?,
        vec![Some(false), Some(true), Some(true)],
    )?;
    on(&store, &["tag", "1", "old"])
        .exits(2)?
        .says(&["version 1 was removed"])?;
    on(&store, &["tag", "2", "good"]).exits(0)?;

    let contents = [
        ("garbage", "two\n", "it does not contain a version number"),
        ("empty", "", "it does not contain a version number"),
        (
            "later",
            "9\n",
            "it refers to version 9, which does not exist",
        ),
        ("removed", "1\n", "it names version 1, whose data"),
    ];

    for (tag, content, problem) in contents {
        let file = tag_file(&store, tag);
        fs::write(&file, content)?;
        let path = file.to_str().unwrap();
        for message in [
            &["verify", "--version", tag][..],
            &["info", "--version", tag],
            &["sql", "--version", tag, "SELECT 1"],
            &["diff", "3", tag],
            &["tag", tag, "new"],
        ] {
            on(&store, message).exits(3)?.says(&[
                path,
                problem,
                "wavemill tag VERSION NAME",
                "remove the file",
            ])?;
        }

        // A damaged tag does not affect commands that do not use it. Only a list of tags prints a warning.
        for message in [
            &["sql", "--version", "good", "SELECT 1"][..],
            &["info", "--json"],
            &["diff", "2", "good"],
        ] {
            let ran = on(&store, message).exits(0)?;
            lacks(&ran.err, "tag")?;
        }
        // Only `verify` looks at bytes that it does not need. The file of a tag whose version is gone has the right
        // bytes.
        let is_content = problem.contains("number");
        let verified = on(&store, &["verify"]).exits(if is_content { 3 } else { 0 })?;
        same("named", verified.out.contains(tag), is_content)?;
        for message in [&["info"][..], &["info", "--versions", "--json"]] {
            let ran = on(&store, message).exits(0)?;
            starts_with(&ran.err, "warning: ")?;
            contains(&ran.err, path)?;
        }

        let before = files_below(&store);
        for message in [
            &["gc", "--keep", "1", "--dry-run"][..],
            &["gc", "--keep", "1"],
        ] {
            on(&store, message)
                .exits(3)?
                .says(&["nothing was removed", path, problem])?;
        }
        same("files", files_below(&store), before)?;

        // Replacing a damaged tag and removing its file both work.
        if tag == "garbage" {
            let ran = on(&store, &["tag", "3", tag]).exits(0)?;
            contains(&ran.err, "the damaged tag was replaced")?;
        }
        fs::remove_file(&file)?;
    }

    // `gc` removes nothing while a file has an invalid name for a tag, because the file may be meant as one.
    let file = tag_file(&store, "my tag");
    fs::write(&file, "2\n")?;
    on(&store, &["gc", "--keep", "1"]).exits(3)?.says(&[
        "nothing was removed",
        "my tag",
        "the file name is not a valid tag",
    ])?;
    fs::remove_file(&file)?;
    on(&store, &["gc", "--keep", "1"]).exits(0)?;
    on(&store, &["verify", "--version", "good"]).exits(0)?;
    Ok(())
}

#[apply(trial)]
fn gc_keeps_tagged_versions() -> Result<(), Failed> {
    let store = three_versions("kept")?;
    on(&store, &["tag", "1", "paper"]).exits(0)?;
    on(&store, &["tag", "1", "also"]).exits(0)?;
    let dry = on(&store, &["gc", "--keep", "1", "--dry-run"]).exits(0)?;
    let kept = "would keep the data of version 1: tagged also, paper";
    contains(&dry.err, kept)?;

    let collected = on(&store, &["gc", "--keep", "1"]).exits(0)?.err;
    for message in [
        "removed the data of version 2: ",
        " freed\n",
        "kept the data of version 1: tagged also, paper\n",
    ] {
        contains(&collected, message)?;
    }

    same(
        "data",
        with_data(&store)?,
        vec![Some(true), Some(false), Some(true)],
    )?;
    on(&store, &["verify", "--version", "paper"]).exits(0)?;
    on(&store, &["verify"]).exits(0)?;

    // `gc` alone does not remove a damaged version that has a tag.
    let file = store.join(&manifest(&store, 1)?.files[0].path);
    let bytes = fs::read(&file)?;
    fs::remove_file(&file)?;
    on(&store, &["verify", "--version", "1"])
        .exits(3)?
        .says(&["wavemill gc --keep 2", "remove its tags first: also, paper"])?;
    fs::write(&file, bytes)?;

    // A tag of a version that is kept anyway keeps no other version, and one of two tags is enough to keep a
    // version.
    on(&store, &["tag", "3", "also"]).exits(0)?;
    let ran = on(&store, &["gc", "--keep", "1", "--json"]).exits(0)?;
    let report: Value = serde_json::from_str(&ran.out)?;
    same("versions", &report["versions"], &json!([]))?;
    let kept = json!([{"version": 1, "tags": ["paper"]}]);
    same("kept", &report["kept"], &kept)?;

    fs::remove_file(tag_file(&store, "paper"))?;
    let ran = on(&store, &["gc", "--keep", "1", "--json"]).exits(0)?;
    let report: Value = serde_json::from_str(&ran.out)?;
    same("versions", &report["versions"], &json!([1]))?;
    same(
        "data",
        with_data(&store)?,
        vec![Some(false), Some(false), Some(true)],
    )
}

/// Returns the size of all files below some folders. Counts a file with several hard links once.
fn space(folders: &[&Path]) -> Result<u64, Failed> {
    let mut files = BTreeMap::new();
    for folder in folders {
        for name in files_below(folder) {
            let file = fs::metadata(folder.join(name))?;
            files.insert((file.dev(), file.ino()), file.len());
        }
    }
    Ok(files.values().sum())
}

#[apply(trial)]
fn gc_reports_freed_bytes() -> Result<(), Failed> {
    fn bytes(store: &Path, keep: &str, arguments: &[&str]) -> Result<u64, Failed> {
        let gc = ["gc", "--keep", keep, "--json"];
        let ran = on(store, &[&gc[..], arguments].concat()).exits(0)?;
        let report: Value = serde_json::from_str(&ran.out)?;
        Ok(report["bytes"].as_u64().ok_or("no bytes")?)
    }

    let store = three_versions("freed")?;
    let elsewhere = scratch("elsewhere");

    // The file belongs to version 1 only, but has a hard link outside the store.
    let tracks = manifest(&store, 1)?
        .files
        .into_iter()
        .find(|file| file.table.as_deref() == Some("tracks"))
        .ok_or("no tracks")?;
    fs::hard_link(store.join(&tracks.path), elsewhere.join("tracks.parquet"))?;

    for keep in ["2", "1"] {
        let before = space(&[&store, &elsewhere])?;
        let old = manifest(&store, if keep == "2" { 1 } else { 2 })?;
        let of_old: u64 = old.files.iter().map(|file| file.bytes).sum();

        let announced = bytes(&store, keep, &["--dry-run"])?;
        same("after a dry run", space(&[&store, &elsewhere])?, before)?;

        let freed = bytes(&store, keep, &[])?;
        same("freed, as announced", freed, announced)?;
        let after = space(&[&store, &elsewhere])?;
        same("bytes less on the disk", before - after, freed)?;

        if keep == "2" {
            let says = format!("{freed} of {of_old}");
            same(&says, freed > 0 && freed < of_old, true)?;
        }
    }

    let again = on(&store, &["gc", "--keep", "1", "--json"]).exits(0)?;
    let report: Value = serde_json::from_str(&again.out)?;
    same("nothing left to free", report["bytes"].as_u64(), Some(0))
}

#[apply(trial)]
fn versions_list_their_changes() -> Result<(), Failed> {
    let mut table = Table::new("changed", 12);
    let store = table.store();
    run(&mut table.extract(&[])?).exits(0)?;

    table.add(12);
    run(&mut table.extract(&["--new-version"])?).exits(0)?;

    table.row(3).genre = "Rock";
    run(&mut table.extract(&["--new-version"])?).exits(0)?;

    // The content of the clip's file changes, but not its length.
    table.row(5).voice = 77;
    run(&mut table.extract(&["--new-version"])?).exits(0)?;

    table.remove(0);
    table.remove(1);
    let keys = argv("--new-version --set split.seed=9 --set features.log_mel.n_mels=20");
    run(&mut table.extract(&keys)?).exits(0)?;

    let fifth = manifest(&store, 5)?;
    let shard = fifth.files_of("log_mel").next().ok_or("no shard")?;
    fs::remove_file(store.join(&shard.path))?;
    run(&mut table.extract(&keys)?).exits(0)?;
    run(table.extract(&keys)?.args(["--isa", "scalar"])).exits(0)?;

    let recipe = table.written()?.recipe;
    let second = "[[features]]\nname = \"chroma\"\nop = \"mel\"\nn_fft = 512\nhop_length = 256\nn_mels = 8\n";
    fs::write(&recipe, fs::read_to_string(&recipe)? + second)?;
    let isa = ["--new-version", "--isa", "scalar", "--limit", "7"];
    run(&mut table.extract(&isa)?).exits(0)?;

    let wanted = [
        Value::Null,
        json!("counts, targets"),
        json!("targets"),
        json!("files"),
        json!("recipe features.log_mel.n_mels, recipe split.seed, counts, targets"),
        json!("nothing"),
        json!("engine"),
        json!(
            "recipe features.chroma, recipe features.log_mel.n_mels, recipe split.seed, counts, limit, targets"
        ),
    ];
    same("changed", field(&store, "changed")?, wanted.to_vec())?;

    let lines = on(&store, &["info", "--versions"]).exits(0)?.out;
    same("lines", lines.lines().count(), wanted.len())?;
    contains(&lines, " clips, recipe table; changed: targets\n")?;

    // A damaged manifest hides the changes from the previous version to it and from it to the next version, but no
    // others.
    fs::write(store.join("_wavemill/versions/00000003.json"), "{")?;
    let changed = field(&store, "changed")?;
    same(
        "after the damage",
        &changed[2..5],
        &[Value::Null, Value::Null, wanted[4].clone()],
    )?;
    same(
        "problem",
        &field(&store, "problem")?[2],
        &json!("damaged manifest"),
    )
}
