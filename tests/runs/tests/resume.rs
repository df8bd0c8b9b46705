//! Runs that are stopped at any moment continue with the same command, and give the same bytes as an uninterrupted
//! run.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use wavemill_tests::{Failed, Trial};

use crate::support::{
    contains, files_below, finish, inputs, kill, manifest, own_store, receipts, run, same,
    same_versions, scratch, sql, start, versions, wait_until, whole, within,
};
use crate::trial::Trials;

/// Fail points that slow down every clip, so that a run takes seconds and can be stopped at a chosen moment.
const SLOWLY: &str = "worker-panic=sleep(100)";
/// Fail points that slow down every clip and file and block before the commit, so that there is a running process
/// to kill however late the test polls.
const ENDLESS_WORK: &str =
    "worker-panic=sleep(20);shard-before-rename=sleep(10);run-before-commit=sleep(600000)";
/// Blocks a program at a fail point until it is killed.
const ENDLESS_SLEEP: &str = "sleep(600000)";

fn without_end(store: &Path) -> Command {
    let mut command = inputs().extract(store);
    command.env("FAILPOINTS", ENDLESS_WORK);
    command
}

#[apply(trial)]
fn killed_ten_times_equals_whole() -> Result<(), Failed> {
    let store = scratch("killed").join("store");
    let shards = receipts(whole());
    for time in 0..10 {
        let mut child = start(&mut without_end(&store));
        let wanted = time * shards / 12;
        wait_until(&mut child, "its shards", || {
            store.join("data").exists() && receipts(&store) >= wanted
        })?;
        // Each run is killed at a different time after its receipts were written.
        std::thread::sleep(Duration::from_millis(7 * time as u64));
        kill(child)?;

        same(
            "versions of an unfinished run",
            versions(&store),
            Vec::new(),
        )?;
    }

    let done = receipts(&store);
    within("shards are kept", done, shards / 2..=shards)?;

    run(&mut inputs().extract(&store)).exits(0)?;
    same_versions(&store, whole())
}

#[apply(trial)]
fn sigint_ends_in_order() -> Result<(), Failed> {
    signal_ends_in_order("INT")
}

#[apply(trial)]
fn sigterm_ends_in_order() -> Result<(), Failed> {
    signal_ends_in_order("TERM")
}

fn signal_ends_in_order(signal: &str) -> Result<(), Failed> {
    let store = scratch("signal").join("store");
    let mut child = start(inputs().extract(&store).env("FAILPOINTS", SLOWLY));
    wait_until(&mut child, "two shards", || receipts(&store) >= 2)?;
    run(Command::new("kill")
        .arg(format!("-{signal}"))
        .arg(child.id().to_string()))
    .exits(0)?;

    let mut ran = finish(child).exits(130)?;
    let notice = "stopping after the clips in flight; a second signal stops at once\n";
    ran.err = ran
        .err
        .strip_prefix(notice)
        .ok_or("no word at once")?
        .to_owned();
    ran.says(&["interrupted", "run the same command again"])?;

    same(
        "versions of an unfinished run",
        versions(&store),
        Vec::new(),
    )?;
    let names = files_below(&store);
    same(
        "temporary files",
        names.iter().filter(|name| name.ends_with(".tmp")).count(),
        0,
    )?;

    let done = receipts(&store);
    let said = format!("{done} of {}", receipts(whole()));
    ran.says(&[&said])?;

    let ran = run(&mut inputs().extract(&store)).exits(0)?;
    contains(&ran.err, &format!("{done} feature files already existed"))?;
    same_versions(&store, whole())
}

/// A step of a run at which it is killed.
#[derive(Clone, Copy)]
struct Moment {
    name: &'static str,
    /// Prefix of the action in `FAILPOINTS`: number of passes before the program blocks.
    passes: &'static str,
    /// Reports whether the step was reached, judging by the files in the store.
    reached: fn(&Path) -> bool,
    /// True if the version is committed before this step.
    committed: bool,
}

const MOMENTS: [Moment; 5] = [
    Moment {
        name: "shard-append",
        passes: "7*off->",
        reached: |store| receipts(store) >= 3,
        committed: false,
    },
    // Seven metadata tables are written before the shards.
    Moment {
        name: "shard-before-rename",
        passes: "13*off->",
        reached: |store| receipts(store) >= 2,
        committed: false,
    },
    Moment {
        name: "run-before-commit",
        passes: "",
        reached: |store| receipts(store) == receipts(whole()),
        committed: false,
    },
    Moment {
        name: "commit-before-link",
        passes: "",
        reached: |store| !files_below(&store.join("_wavemill/versions")).is_empty(),
        committed: false,
    },
    Moment {
        name: "commit-after-link",
        passes: "",
        reached: |store| !versions(store).is_empty(),
        committed: true,
    },
];

inventory::submit!(Trials(|| {
    let mut trials = Vec::new();
    for moment in &MOMENTS {
        let name = format!("resume::killed_at_{}", moment.name);
        trials.push(Trial::test(name, || killed_at(moment)));
    }
    trials
}));

fn killed_at(moment: &Moment) -> Result<(), Failed> {
    let store = scratch(moment.name).join("store");
    let hold = format!("{}={}{ENDLESS_SLEEP}", moment.name, moment.passes);
    let mut child = start(inputs().extract(&store).env("FAILPOINTS", hold));
    wait_until(&mut child, moment.name, || (moment.reached)(&store))?;
    // Wait briefly, because the files change shortly before the program blocks at the fail point.
    std::thread::sleep(Duration::from_millis(100));
    kill(child)?;

    same(
        "committed",
        versions(&store).len(),
        usize::from(moment.committed),
    )?;

    let ran = run(&mut inputs().extract(&store)).exits(0)?;
    same(
        "nothing to do",
        ran.err.contains("nothing to do"),
        moment.committed,
    )?;
    if !moment.committed {
        contains(&ran.err, "feature files already existed")?;
    }

    same_versions(&store, whole())
}

/// The second version's plan contains its parent, and its unchanged shards are linked only once.
#[apply(trial)]
fn killed_second_version_equals_whole() -> Result<(), Failed> {
    fn names(store: &Path) -> usize {
        files_below(&store.join("_wavemill/versions")).len()
    }

    let arguments = ["--new-version", "--limit", "50"];
    let [store, wanted] = [own_store("second"), own_store("wanted")];
    run(inputs().extract(&wanted).args(arguments)).exits(0)?;

    let hold = "commit-before-link=sleep(600000)";
    for point in [ENDLESS_WORK, hold] {
        let mut child = start(
            inputs()
                .extract(&store)
                .args(arguments)
                .env("FAILPOINTS", point),
        );

        let (before, temporary) = (receipts(&store), point == hold);
        wait_until(&mut child, point, || {
            if temporary {
                names(&store) == 2
            } else {
                receipts(&store) > before
            }
        })?;

        kill(child)?;
        same("versions", versions(&store).len(), 1)?;
        // After the kill, a run of the committed version succeeds.
        run(&mut inputs().extract(&store)).exits(0)?;
    }

    run(inputs().extract(&store).args(arguments)).exits(0)?;
    same_versions(&store, &wanted)
}

/// A clip changes while a run is stopped. Its size and thus the plan are unchanged, but its shard is written again.
#[apply(trial)]
fn clip_changed_while_stopped() -> Result<(), Failed> {
    let folder = scratch("meanwhile");
    let (own, store) = (inputs().copied(&folder), folder.join("store"));
    let mut child = start(
        own.extract(&store)
            .env("FAILPOINTS", "run-before-commit=sleep(600000)"),
    );
    wait_until(&mut child, "all shards", || {
        receipts(&store) == receipts(whole())
    })?;
    kill(child)?;

    let rows = sql(
        whole(),
        "SELECT clip_key FROM features_mfcc WHERE lost_s = 0 AND NOT silent ORDER BY 1 LIMIT 1",
    )?;
    let path = own.clip(rows[0]["clip_key"].as_str().ok_or("no clip")?);
    let mut bytes = fs::read(&path)?;
    let middle = bytes.len() / 2;
    bytes[middle..middle + 64]
        .iter_mut()
        .for_each(|byte| *byte ^= 0x55);
    fs::write(&path, &bytes)?;

    let ran = run(&mut own.extract(&store)).exits(0)?;
    // Only the shard of the changed clip is written again, once per feature.
    let n_features = manifest(whole(), 1)?.features.len();
    let reused = format!(
        "{} feature files already existed",
        receipts(whole()) - n_features
    );
    contains(&ran.err, &reused)?;

    let wanted = folder.join("wanted");
    run(&mut own.extract(&wanted)).exits(0)?;
    same_versions(&store, &wanted)
}

#[cfg(target_arch = "x86_64")]
fn is_x86_64_v3() -> bool {
    std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
}

/// On other processors, `scalar` is the only instruction set.
#[cfg(not(target_arch = "x86_64"))]
fn is_x86_64_v3() -> bool {
    false
}

/// Unfinished work of another instruction set is neither used nor ignored silently.
#[apply(trial)]
#[needs(is_x86_64_v3)]
fn resuming_with_another_engine_is_rejected() -> Result<(), Failed> {
    let store = scratch("engine").join("store");
    let mut child = start(without_end(&store).args(["--isa", "scalar"]));
    wait_until(&mut child, "a shard", || receipts(&store) >= 2)?;
    kill(child)?;

    run(&mut inputs().extract(&store))
        .exits(4)?
        .says(&["scalar", "--isa scalar", "--restart"])?;
    same("versions", versions(&store), Vec::new())?;

    run(inputs().extract(&store).arg("--restart")).exits(0)?;
    same_versions(&store, whole())?;

    let scalar = scratch("scalar").join("store");
    run(inputs().extract(&scalar).args(["--isa", "scalar"])).exits(0)?;
    let [ours, theirs] = [manifest(&scalar, 1)?, manifest(whole(), 1)?];
    run(&mut inputs().extract(&scalar))
        .exits(4)?
        .says(&["engine", "scalar", "--new-version"])?;
    same("level", ours.engine.level.as_str(), "scalar")?;
    same("equal plans", ours.plan_id == theirs.plan_id, false)?;
    same("counts", ours.counts, theirs.counts)
}
