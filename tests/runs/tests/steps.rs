//! `plan`, `work` and `commit`: whoever writes the parts, in any order and however often, the store is that of `extract`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use wavemill_tests::Failed;

use crate::support::{
    RECIPE, Ran, contains, files_below, finish, has_python, inputs, kill, manifest, own_store,
    program, receipts, run, same, same_versions, scratch, sql, start, versions, wait_until,
    wavemill, whole, with_recipe,
};
use crate::table::{MFCC, Table, key};

/// Options for a command that may have to wait for another one.
const WAIT: [&str; 2] = ["--wait", "60"];

/// Runs a `plan` command and returns the plan's id.
pub(crate) fn planned(plan: &mut Command) -> Result<String, Failed> {
    Ok(run(plan).exits(0)?.out.trim().to_owned())
}

/// Returns the command for one part of a plan.
pub(crate) fn work(store: &Path, plan: &str, part: &str) -> Command {
    let mut command = wavemill(["work", "--plan", plan, "--part", part, "--store"]);
    command
        .arg(store)
        .env("WAVEMILL_THREADS", "1")
        .env("WAVEMILL_BACKEND", "cpu");
    command
}

pub(crate) fn commit(store: &Path, plan: &str) -> Command {
    let mut command = wavemill(["commit", "--plan", plan, "--store"]);
    command.arg(store);
    command
}

/// Plans, writes `parts` parts one after the other, and commits.
fn in_steps(plan: &mut Command, store: &Path, parts: usize) -> Result<Ran, Failed> {
    let id = planned(plan)?;
    for part in 1..=parts {
        run(&mut work(store, &id, &format!("{part}/{parts}"))).exits(0)?;
    }
    run(commit(store, &id).arg("--json")).exits(0)
}

#[apply(trial)]
fn parts_in_any_order_and_at_once_equal_one_run() -> Result<(), Failed> {
    let store = scratch("parts").join("store");
    let id = planned(&mut inputs().plan(&store))?;
    for parts in [
        ["5/8", "1/8"],
        ["8/8", "8/8"],
        ["2/8", "7/8"],
        ["3/8", "3/8"],
    ] {
        let children = parts.map(|part| start(&mut work(&store, &id, part)));
        for child in children {
            finish(child).exits(0)?;
        }
    }

    // The parts of other numbers of parts are other shards, but the same files.
    run(&mut commit(&store, &id))
        .exits(9)?
        .says(&["are missing", "--part"])?;
    run(&mut work(&store, &id, "2/2")).exits(0)?;
    run(&mut work(&store, &id, "1/1")).exits(0)?;

    let commits = [0; 3].map(|_| start(commit(&store, &id).args(WAIT)));
    for child in commits {
        finish(child).exits(0)?;
    }
    same_versions(&store, whole())?;
    same(
        "stored plans",
        files_below(&store.join("_wavemill/plans")).len(),
        0,
    )?;

    // Late commands have nothing to do, and planning again gives the committed plan.
    let late = run(&mut work(&store, &id, "5/8")).exits(0)?;
    contains(&late.err, "the plan is committed")?;
    let late = run(&mut commit(&store, &id)).exits(0)?;
    contains(&late.err, "nothing to do")?;
    same("plan", planned(&mut inputs().plan(&store))?, id)
}

#[apply(trial)]
fn killed_steps_are_repeated() -> Result<(), Failed> {
    let store = scratch("killed-steps").join("store");
    let mut child = start(
        inputs()
            .plan(&store)
            .env("FAILPOINTS", "shard-before-rename=3*off->sleep(600000)"),
    );
    wait_until(&mut child, "three tables", || {
        files_below(&store.join("data")).len() >= 4
    })?;
    kill(child)?;
    run(&mut work(&store, "0123456789abcdef", "1/2")).exits(2)?;

    let id = planned(&mut inputs().plan(&store))?;
    let hold = "worker-panic=sleep(20);shard-before-rename=2*off->sleep(600000)";
    let mut child = start(work(&store, &id, "1/2").env("FAILPOINTS", hold));
    wait_until(&mut child, "a shard", || receipts(&store) >= 2)?;

    // Planning, commits and removing data wait for workers, and workers do not wait for each other.
    run(&mut inputs().plan(&store)).exits(7)?;
    run(wavemill(["gc", "--keep", "1", "--store"]).arg(&store)).exits(7)?;
    run(&mut commit(&store, &id)).exits(7)?;
    run(&mut work(&store, &id, "2/2")).exits(0)?;
    kill(child)?;

    // `gc` keeps a plan that can still be committed.
    run(wavemill(["gc", "--keep", "1", "--store"]).arg(&store)).exits(0)?;
    run(&mut work(&store, &id, "1/2")).exits(0)?;
    let hold = "commit-before-link=sleep(600000)";
    let mut child = start(commit(&store, &id).env("FAILPOINTS", hold));
    wait_until(&mut child, "the manifest", || {
        !files_below(&store.join("_wavemill/versions")).is_empty()
    })?;
    kill(child)?;

    run(&mut commit(&store, &id)).exits(0)?;
    same_versions(&store, whole())
}

/// A worker that is late and has another result than the worker that finished its shards replaces nothing.
#[apply(trial)]
fn late_worker_replaces_nothing() -> Result<(), Failed> {
    let store = scratch("late").join("store");
    let id = planned(&mut inputs().plan(&store))?;
    let clips = sql(whole(), "SELECT clip_key FROM features_mfcc LIMIT 1")?;
    let clip = clips[0]["clip_key"].as_str().ok_or("no clip")?;
    let late = format!("worker-panic=return({clip});shard-append=1*sleep(15000)");
    let late = start(work(&store, &id, "1/1").env("FAILPOINTS", late));
    let worked = run(&mut work(&store, &id, "1/1"));
    let late = finish(late);
    for ran in [worked, late, run(&mut commit(&store, &id))] {
        ran.exits(0)?;
    }
    run(wavemill(["verify", "--store"]).arg(&store)).exits(0)?;
    same_versions(&store, whole())
}

/// Rows of the previous version are taken over, and renamed files are found.
#[apply(trial)]
fn second_version_in_steps_equals_one_run() -> Result<(), Failed> {
    let mut table = Table::new("steps-grow", 40);
    let store = table.store();
    let one = store.with_file_name("one");
    in_steps(&mut table.written()?.plan(&store), &store, 3)?;
    run(&mut table.written()?.extract(&one)).exits(0)?;
    same_versions(&store, &one)?;

    for track in 40..45 {
        table.add(track);
    }
    let renamed = table.rows.remove("a/003.wav").ok_or("no track 3")?;
    table.rows.insert("a/099.wav".to_owned(), renamed);
    table.set_recipe(MFCC, &[]);
    let inputs = table.written()?;
    let id = planned(inputs.plan(&store).arg("--new-version"))?;
    let worked = run(work(&store, &id, "1/1").arg("--json")).exits(0)?;
    let worked: Value = serde_json::from_str(&worked.out)?;
    same(
        "rows are taken over",
        worked["rows_taken_over"].as_u64() > Some(5),
        true,
    )?;
    run(&mut commit(&store, &id)).exits(0)?;
    run(inputs.extract(&one).arg("--new-version")).exits(0)?;
    same_versions(&store, &one)?;

    // Files that are only renamed are not decoded again.
    for track in 10..20 {
        let renamed = table.rows.remove(&key(track)).ok_or("no such track")?;
        table.rows.insert(key(track + 100), renamed);
    }
    let id = planned(table.written()?.plan(&store).arg("--new-version"))?;
    let worked = run(work(&store, &id, "1/1").arg("--json")).exits(0)?;
    let worked: Value = serde_json::from_str(&worked.out)?;
    same("clips decoded", worked["clips_decoded"].as_u64(), Some(0))?;
    run(&mut commit(&store, &id)).exits(0)?;
    run(table.written()?.extract(&one).arg("--new-version")).exits(0)?;
    same_versions(&store, &one)
}

/// Workers that come and go take the shards that are left, also those of a worker that was killed.
#[apply(trial)]
fn workers_claim_what_is_left() -> Result<(), Failed> {
    let store = scratch("claims").join("store");
    let id = planned(&mut inputs().plan(&store))?;
    let claim = || {
        let mut command = wavemill(["work", "--claim", "--plan", id.as_str(), "--store"]);
        command.arg(&store).env("WAVEMILL_BACKEND", "cpu");
        command
    };
    let hold = "shard-before-rename=2*off->sleep(600000)";
    let mut child = start(claim().env("FAILPOINTS", hold));
    wait_until(&mut child, "a shard", || receipts(&store) >= 2)?;
    run(&mut work(&store, &id, "1/3")).exits(0)?;
    let others = [start(&mut claim()), start(&mut claim())];
    for other in others {
        finish(other).exits(0)?;
    }
    kill(child)?;

    // Receipts that the commit refuses are written again, although their shards were finished.
    let seen = store.join(format!("_wavemill/receipts/{id}/_seen/test-00000.json"));
    fs::write(seen, "{")?;
    run(&mut commit(&store, &id)).exits(9)?;
    run(&mut claim()).exits(0)?;
    run(&mut commit(&store, &id)).exits(0)?;
    same_versions(&store, whole())
}

/// The commit compares each receipt with the plan and with the record of the shard's inputs.
#[apply(trial)]
fn damaged_records_are_written_again() -> Result<(), Failed> {
    let store = scratch("records").join("store");
    let id = planned(&mut inputs().plan(&store))?;
    run(&mut work(&store, &id, "1/1")).exits(0)?;
    let records = store.join(format!("_wavemill/receipts/{id}"));
    fs::write(records.join("_seen/training-00000.json"), "{")?;
    fs::write(records.join("mfcc/training-00001.json"), "{")?;

    let ran = run(&mut commit(&store, &id)).exits(9)?;
    contains(ran.error()?, "2 of")?;
    run(&mut work(&store, &id, "1/1")).exits(0)?;
    run(&mut commit(&store, &id)).exits(0)?;
    same_versions(&store, whole())
}

/// A clip that changes between two workers is noticed, and planning again writes its shards again.
#[apply(trial)]
fn clip_changed_between_workers() -> Result<(), Failed> {
    let table = Table::new("steps-changed", 12);
    table.set_recipe(MFCC, &[]);
    let store = table.store();
    let inputs = table.written()?;
    let id = planned(&mut inputs.plan(&store))?;
    run(&mut work(&store, &id, "1/1")).exits(0)?;

    let mut bytes = fs::read(inputs.clip(&key(1)))?;
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(inputs.clip(&key(1)), bytes)?;
    // As if the first worker had been killed before it wrote the receipts of the second feature.
    fs::remove_dir_all(store.join(format!("_wavemill/receipts/{id}/mfcc")))?;
    let ran = run(&mut work(&store, &id, "1/1")).exits(4)?;
    contains(ran.error()?, "plan again")?;

    in_steps(&mut inputs.plan(&store), &store, 1)?;
    let one = store.with_file_name("one");
    run(&mut inputs.extract(&one)).exits(0)?;
    same_versions(&store, &one)
}

#[apply(trial)]
fn segments_in_steps_equal_one_run() -> Result<(), Failed> {
    let folder = scratch("steps-segments");
    let text = RECIPE
        .replace("duration_s = 3.0\n", "duration_s = 1.2\nsegment_s = 0.4\n")
        .replace("\"official\"", "\"segment\"");
    let inputs = with_recipe(&folder, &text);
    let [store, one] = ["store", "one"].map(|name| folder.join(name));
    in_steps(&mut inputs.plan(&store), &store, 3)?;
    run(&mut inputs.extract(&one)).exits(0)?;
    same_versions(&store, &one)
}

#[apply(trial)]
fn wrong_steps_are_refused() -> Result<(), Failed> {
    let store = own_store("wrong-steps");
    let arguments = ["--new-version", "--limit", "30"];
    let id = planned(inputs().plan(&store).args(arguments))?;
    let refused = |command: &mut Command, code, text: &str| {
        run(command)
            .exits(code)?
            .error()
            .and_then(|error| contains(error, text))
    };

    let isa = ["--isa", "scalar"];
    refused(work(&store, &id, "1/2").args(isa), 4, "another engine")?;
    run(&mut work(&store, &id, "3/2")).exits(2)?;
    refused(&mut work(&store, "0000", "1/2"), 2, "no plan 0000")?;
    refused(&mut work(&store, &format!("{id}/"), "1/2"), 2, "no plan")?;
    refused(&mut commit(&store, "../receipts"), 2, "no plan")?;
    refused(&mut work(&scratch("nowhere"), &id, "1/2"), 2, "no plan")?;
    let audio = scratch("no-audio").join("absent");
    let mut elsewhere = work(&store, &id, "1/2");
    refused(elsewhere.arg("--audio").arg(audio), 1, "mounted")?;

    let block = store.join(format!("_wavemill/plans/{id}/00000.parquet"));
    let bytes = fs::read(&block)?;
    fs::write(&block, &bytes[1..])?;
    refused(&mut work(&store, &id, "1/2"), 3, "repeat `wavemill plan`")?;
    let again = planned(inputs().plan(&store).args(arguments))?;
    same("plan", &again, &id)?;
    same("block", fs::read(&block)?, bytes)?;

    // Once another version is committed, the plan is of no use, and `gc` removes it.
    run(inputs()
        .extract(&store)
        .args(["--new-version", "--limit", "20"]))
    .exits(0)?;
    refused(&mut work(&store, &id, "1/2"), 4, "plan again")?;
    refused(&mut commit(&store, &id), 4, "plan again")?;
    run(wavemill(["gc", "--keep", "9", "--store"]).arg(&store)).exits(0)?;
    refused(&mut work(&store, &id, "1/2"), 2, "no plan")?;
    same("versions", versions(&store).len(), 2)
}

/// Only planning has the option that permits more rejects. Another plan with it keeps the shards, and nothing is
/// decoded.
#[apply(trial)]
fn too_many_rejects_are_permitted_by_planning_again() -> Result<(), Failed> {
    let store = scratch("steps-rejects").join("store");
    let plan = |fraction: &str| {
        let mut command = inputs().plan(&store);
        planned(command.args(["--max-reject-fraction", fraction]))
    };
    let n_rejected = manifest(whole(), 1)?.counts.clips_rejected;
    let n_planned = manifest(whole(), 1)?.counts.clips_planned;
    let id = plan("1")?;
    run(&mut work(&store, &id, "1/1")).exits(0)?;

    let too_small = (n_rejected - 1) as f64 / n_planned as f64 + 1e-9;
    same("plan", plan(&too_small.to_string())?, id.clone())?;
    let remedy = [
        "repeat `extract` or `plan` with a larger one",
        "finished shards are kept",
    ];
    run(&mut commit(&store, &id)).exits(1)?.says(&remedy)?;
    run(&mut work(&store, &id, "1/1")).exits(1)?.says(&remedy)?;

    same("plan", plan("1")?, id.clone())?;
    let ran = run(work(&store, &id, "1/1").arg("--json")).exits(0)?;
    let ran: Value = serde_json::from_str(&ran.out)?;
    same("clips decoded", ran["clips_decoded"].as_u64(), Some(0))?;
    run(&mut commit(&store, &id)).exits(0)?;
    same_versions(&store, whole())
}

/// The examples for schedulers, started by stand-ins (`schedulers.py`).
#[apply(trial)]
#[needs(has_python)]
fn examples_of_schedulers_equal_one_run() -> Result<(), Failed> {
    for scheduler in ["slurm", "kubernetes", "airflow", "parallel"] {
        let store = scratch(scheduler).join("store");
        let mut command = Command::new("python3");
        command
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/schedulers.py"))
            .args([scheduler.as_ref(), program("wavemill").as_os_str()])
            .arg(&store)
            .env("WAVEMILL_BACKEND", "cpu");
        // The options follow the command's name and are those of `extract`.
        let plan = inputs().plan(&store);
        command.args(
            plan.get_args()
                .skip(1)
                .filter(|word| *word != "--store" && *word != store.as_os_str()),
        );

        run(&mut command).exits(0)?;
        same_versions(&store, whole())?;
    }
    Ok(())
}

/// Workers do not list the audio again: the plan contains the reasons why listed files cannot be read.
#[apply(trial)]
fn unreadable_files_are_rejected_alike() -> Result<(), Failed> {
    let table = Table::new("steps-faults", 12);
    let store = table.store();
    let one = store.with_file_name("one");
    let inputs = table.written()?;
    let outside = store.with_file_name("outside.wav");
    fs::rename(inputs.clip(&key(1)), &outside)?;
    symlink(&outside, inputs.clip(&key(1)))?;
    fs::remove_file(inputs.clip(&key(2)))?;
    symlink("nowhere", inputs.clip(&key(2)))?;
    fs::remove_file(inputs.clip(&key(3)))?;
    fs::create_dir(inputs.clip(&key(3)))?;

    in_steps(&mut inputs.plan(&store), &store, 2)?;
    run(&mut inputs.extract(&one)).exits(0)?;
    same_versions(&store, &one)?;
    same("rejects", manifest(&store, 1)?.counts.clips_rejected, 3)?;

    // A file that was listed and is not there may be on a folder that is not mounted: it is no reject.
    let arguments = ["--new-version", "--limit", "9", "--recompute"];
    let second = planned(inputs.plan(&store).args(arguments))?;
    let away = store.with_file_name("away.wav");
    fs::rename(inputs.clip(&key(4)), &away)?;
    let ran = run(&mut work(&store, &second, "1/1")).exits(1)?;
    contains(ran.error()?, "mounted")?;
    fs::write(inputs.clip(&key(4)), "another size")?;
    let ran = run(&mut work(&store, &second, "1/1")).exits(4)?;
    contains(ran.error()?, "when it was listed")?;
    fs::rename(&away, inputs.clip(&key(4)))?;
    run(&mut work(&store, &second, "1/1")).exits(0)?;
    run(&mut commit(&store, &second)).exits(0)?;
    Ok(())
}
