//! Failures of every kind: each gives one clear error line and the documented exit code, leaves no partial files,
//! and can be recovered from.

use serde_json::Value;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use wavemill_tests::Failed;

use crate::signals::{ends_soon, start_until};
use crate::support::{
    Inputs, RECIPE, Ran, contains, copy_folder, damage, files_below, finish, has_python,
    has_trainer, inputs, kill, manifest, own_store, program, receipts, run, same, same_versions,
    scratch, sql, start, versions, wait_until, wavemill, whole, within,
};

/// Fails if the store contains a version or a temporary file.
fn nothing_half_written(store: &Path) -> Result<(), Failed> {
    same("versions", versions(store), Vec::new())?;

    let is_temporary =
        |name: &String| name.ends_with(".tmp") || name.contains("/.") || name.starts_with('.');
    same(
        "temporary files",
        files_below(store)
            .into_iter()
            .filter(is_temporary)
            .collect(),
        Vec::new(),
    )
}

/// Repeats the failed command without the fault and compares the store with the expected one.
fn works_now(store: &Path) -> Result<(), Failed> {
    run(&mut inputs().extract(store)).exits(0)?;
    same_versions(store, whole())
}

#[apply(trial)]
fn invalid_options_write_nothing() -> Result<(), Failed> {
    let store = scratch("words").join("store");
    for (words, said) in [
        (
            &["--set", "features.log_mel.n_mel=40"],
            &["features.log_mel.n_mel", "unknown key", "`n_mels`"][..],
        ),
        (
            &["--set", "features.log_mel.n_mels=many"],
            &["features.log_mel.n_mels", "many"],
        ),
        (
            &["--set", "features.log_mel.n_mels=0"],
            &["features.log_mel.n_mels"],
        ),
        (
            &["--set", "split.rule=fair"],
            &["split.rule", "fair", "artist"],
        ),
        (&["--set", "n_mels"], &["--set", "n_mels"]),
        (
            &["--set", "catalog.clean.labelled.where=\"false\""],
            &["no rows are left", "`labelled`"],
        ),
    ] {
        run(inputs().extract(&store).args(words))
            .exits(2)?
            .says(said)?;
        same(&words.join(" "), store.exists(), false)?;
    }

    for (option, said) in [
        ("--threads", "from 1 to 1024"),
        ("--limit", "whole number, 1 or more"),
    ] {
        let ran = run(inputs().extract(&store).args([option, "0"])).exits(2)?;
        contains(&ran.err, said)?;
        same(option, store.exists(), false)?;
    }

    let recipe = scratch("recipe").join("mine.toml");
    let text = fs::read_to_string(&inputs().recipe)?;
    let line = text
        .lines()
        .position(|line| line.starts_with("n_mels"))
        .ok_or("no n_mels")?
        + 1;
    fs::write(&recipe, text.replace("n_mels =", "n_mells ="))?;
    let own = inputs().with_recipe(recipe.clone());
    run(&mut own.extract(&store)).exits(2)?.says(&[
        "mine.toml",
        &format!("{line}"),
        "n_mells",
        "`n_mels`",
    ])?;

    fs::write(&recipe, text.replace("n_mels = 40", "n_mels = "))?;
    run(&mut own.extract(&store))
        .exits(2)?
        .says(&["mine.toml", &format!("{line}")])?;
    same("the store exists", store.exists(), false)
}

#[apply(trial)]
fn wrong_inputs_write_nothing() -> Result<(), Failed> {
    let folder = scratch("inputs");
    let store = folder.join("store");
    let absent = folder.join("absent");
    let all = inputs().clone();
    let absent_name = absent.to_str().unwrap();
    let metadata = all.metadata.clone().unwrap();

    // The audio folder contains clips, but none that is listed in the metadata.
    let other = folder.join("other/199");
    fs::create_dir_all(&other)?;
    let a_clip = files_below(&all.audio).into_iter().next().unwrap();
    fs::copy(all.audio.join(a_clip), other.join("199999.mp3"))?;

    for (inputs, said) in [
        (all.with_metadata(absent.clone()), &[absent_name][..]),
        (all.with_audio(absent.clone()), &[absent_name]),
        (
            Inputs {
                metadata: None,
                ..all.clone()
            },
            &["--metadata"],
        ),
        (all.with_metadata(all.audio.clone()), &["tracks.csv"]),
        (
            all.with_audio(metadata),
            &["no clip", "is it the audio folder?"],
        ),
        (
            all.with_audio(folder.join("other")),
            &["none of the", "audio root"],
        ),
    ] {
        run(&mut inputs.extract(&store)).exits(2)?.says(said)?;
        same("the store exists", store.exists(), false)?;
    }
    Ok(())
}

#[apply(trial)]
fn broken_zips_are_reported() -> Result<(), Failed> {
    let folder = scratch("zips");
    let (zip, store) = (folder.join("cut.zip"), folder.join("store"));
    fs::write(&zip, b"PK\x03\x04 and then the connection broke")?;

    for broken in [
        inputs().with_audio(zip.clone()),
        inputs().with_metadata(zip.clone()),
    ] {
        run(&mut broken.extract(&store))
            .exits(2)?
            .says(&["cut.zip", "damaged or truncated"])?;
        same("the store exists", store.exists(), false)?;
    }
    Ok(())
}

/// Simulates a failing disk with a symbolic link to itself, which the system refuses to follow.
#[apply(trial)]
fn inaccessible_paths_are_not_treated_as_missing() -> Result<(), Failed> {
    let folder = scratch("refused");
    let metadata = folder.join("metadata");
    copy_folder(inputs().metadata.as_ref().ok_or("no metadata")?, &metadata);
    fs::remove_file(metadata.join("genres.csv"))?;
    symlink("genres.csv", metadata.join("genres.csv"))?;

    let refused = inputs().with_metadata(metadata);
    let store = folder.join("store");
    run(&mut refused.extract(&store))
        .exits(2)?
        .says(&["genres.csv", "symbolic links"])?;
    same("the store exists", store.exists(), false)?;

    let store = own_store("refused-receipts");
    let plan_id = manifest(&store, 1)?.plan_id;
    let seen = store.join("_wavemill/receipts").join(plan_id).join("_seen");
    fs::remove_dir_all(&seen)?;
    symlink("_seen", &seen)?;

    run(inputs()
        .extract(&store)
        .args(["--new-version", "--limit", "30"]))
    .exits(1)?
    .says(&["_seen", "symbolic links"])
}

/// Tests a Parquet table that is truncated, overwritten in the middle, or not Parquet, and a CSV file that is
/// damaged inside its zip.
#[apply(trial)]
fn damaged_metadata_is_wrong_input() -> Result<(), Failed> {
    let folder = scratch("damaged-metadata");
    let store = folder.join("store");
    let recipe = folder.join("table.toml");
    fs::write(&recipe, RECIPE.replace("\"fma\"", "\"table\""))?;

    let tables = manifest(whole(), 1)?.files;
    let tracks = tables.iter().find(|file| file.name() == "tracks").unwrap();
    let whole_table = fs::read(whole().join(&tracks.path))?;

    let list = folder.join("list.parquet");
    let of_list = Inputs::new(list.clone(), inputs().audio.clone(), recipe);
    fs::write(&list, &whole_table)?;
    run(of_list.extract(&store).arg("--dry-run")).exits(0)?;

    let mut overwritten = whole_table.clone();
    overwritten[4..whole_table.len() / 2].fill(0xff);
    let cut = &whole_table[..whole_table.len() - 100];
    for damaged in [&overwritten[..], cut, b"clip_key\na/1.mp3\n", b""] {
        fs::write(&list, damaged)?;
        run(&mut of_list.extract(&store))
            .exits(2)?
            .says(&["metadata file list.parquet is damaged", "copy it again"])?;
        same("the store exists", store.exists(), false)?;
    }

    let zip = folder.join("list.zip");
    let content = "clip_key,track_genre_top\na/1.mp3,Rock\n";
    let script =
        "import sys, zipfile; zipfile.ZipFile(sys.argv[1], 'w').writestr('list.csv', sys.argv[2])";
    let mut python = Command::new("python3");
    run(python.args(["-c", script]).arg(&zip).arg(content)).exits(0)?;

    let mut bytes = fs::read(&zip)?;
    let at = bytes.windows(4).position(|found| found == b"Rock").unwrap();
    bytes[at] = b'L';
    fs::write(&zip, bytes)?;

    let of_zip = of_list.with_metadata(zip);
    run(&mut of_zip.extract(&store))
        .exits(2)?
        .says(&["metadata file list.csv is damaged", "CRC-32"])
}

#[apply(trial)]
fn too_many_rejects_end_the_run() -> Result<(), Failed> {
    let store = scratch("rejects").join("store");
    let counts = manifest(whole(), 1)?.counts;
    let fraction = counts.clips_rejected as f64 / counts.clips_planned as f64;
    same("more than the default allows", fraction > 0.05, true)?;

    let said = [
        "clips rejected",
        "--max-reject-fraction 0.05",
        "nothing was committed",
    ];
    // In the second run some shards are already finished. The rejects of these shards count as well.
    for _ in 0..2 {
        let ran = run(&mut inputs().strict_extract(&store)).exits(1)?;
        ran.says(&said)?;
        nothing_half_written(&store)?;

        let list = ran
            .err
            .split_once("listed in ")
            .and_then(|(_, rest)| rest.split_once(".jsonl"));
        let list = fs::read_to_string(format!("{}.jsonl", list.ok_or("no list is named")?.0))?;
        let rejected: serde_json::Value = serde_json::from_str(list.lines().last().unwrap())?;
        let n = rejected["rejects"].as_array().map_or(0, Vec::len);
        contains(&ran.err, &format!("{n} of {} clips", counts.clips_planned))?;
        same(
            "each with its reason",
            rejected["rejects"][0]["reason"].is_string(),
            true,
        )?;
    }

    let just_enough = (fraction + 1e-9).to_string();
    run(inputs()
        .strict_extract(&store)
        .args(["--max-reject-fraction", &just_enough]))
    .exits(0)?;
    same_versions(&store, whole())
}

#[apply(trial)]
fn full_disk_while_writing_a_shard() -> Result<(), Failed> {
    let store = scratch("append").join("store");
    // The run fails after some row groups of a shard have been written.
    let failing = run(inputs()
        .extract(&store)
        .env("FAILPOINTS", "shard-append=9*off->return"))
    .exits(5)?;
    failing.says(&[store.to_str().unwrap(), "storage space"])?;
    nothing_half_written(&store)?;
    works_now(&store)
}

#[apply(trial)]
fn damaged_shard_in_a_query() -> Result<(), Failed> {
    fn asked(store: &Path, message: &str) -> Ran {
        run(wavemill(["sql", "--store"]).arg(store).arg(message))
    }

    let store = own_store("query");
    let path = manifest(&store, 1)?
        .files_of("log_mel")
        .next()
        .ok_or("no shard")?
        .path
        .clone();
    let bytes = fs::read(store.join(&path))?;

    let everything = "SELECT sum(tensor_mean(log_mel)) FROM features_log_mel";

    let mut flipped = bytes.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for damaged in [Some(&bytes[..bytes.len() / 2]), Some(&flipped[..]), None] {
        fs::remove_file(store.join(&path))?;
        damaged.map_or(Ok(()), |bytes| fs::write(store.join(&path), bytes))?;
        asked(&store, everything)
            .exits(3)?
            .says(&["damaged", &path, "wavemill verify"])?;
        fs::write(store.join(&path), b"")?;
    }

    asked(&store, "SELECT count(*) FROM tracks").exits(0)?;
    fs::write(store.join(&path), bytes)?;
    asked(&store, everything).exits(0)?;
    Ok(())
}

/// A shard whose bytes differ from its receipt is computed again.
#[apply(trial)]
fn damaged_shard_of_an_unfinished_run() -> Result<(), Failed> {
    let store = scratch("unfinished").join("store");
    let mut child = start(
        inputs()
            .extract(&store)
            .env("FAILPOINTS", "run-before-commit=sleep(600000)"),
    );
    wait_until(&mut child, "all shards", || {
        receipts(&store) == receipts(whole())
    })?;
    kill(child)?;

    let whole_files = manifest(whole(), 1)?.files;
    let mut paths = whole_files
        .iter()
        .filter(|file| file.feature.is_some())
        .map(|file| store.join(&file.path));
    fs::remove_file(paths.next().unwrap())?;
    fs::write(paths.next().unwrap(), b"PAR1")?;

    let flipped = paths.next().unwrap();
    damage(&flipped)?;

    let ran = run(&mut inputs().extract(&store)).exits(0)?;
    let reused = format!("{} feature files already existed", receipts(whole()) - 3);
    contains(&ran.err, &reused)?;
    same_versions(&store, whole())
}

#[apply(trial)]
fn two_runs_on_one_store() -> Result<(), Failed> {
    let store = scratch("two").join("store");
    let mut first = start(
        inputs()
            .extract(&store)
            .env("FAILPOINTS", "run-before-commit=sleep(600000)"),
    );
    wait_until(&mut first, "its first shard", || receipts(&store) > 0)?;

    let second = run(&mut inputs().extract(&store)).exits(7)?;
    second.says(&[store.to_str().unwrap(), "another wavemill is writing"])?;

    // The lock is released when its process ends, for any reason.
    kill(first)?;
    works_now(&store)
}

#[apply(trial)]
fn a_run_waits_for_the_lock() -> Result<(), Failed> {
    let store = scratch("waits").join("store");
    let mut first = start(
        inputs()
            .extract(&store)
            .env("FAILPOINTS", "run-before-commit=sleep(600000)"),
    );
    wait_until(&mut first, "its first shard", || receipts(&store) > 0)?;

    let begun = Instant::now();
    run(inputs().extract(&store).args(["--wait", "1"]))
        .exits(7)?
        .says(&["--wait"])?;
    run(wavemill(["gc", "--keep", "1", "--wait", "1", "--store"]).arg(&store)).exits(7)?;
    within("waited", begun.elapsed(), Duration::from_secs(2)..)?;

    let wait = ["--wait", "600"];
    let stopped = start_until(inputs().extract(&store).args(wait), "waiting")?;
    ends_soon(stopped, "TERM", "interrupted while waiting")?;

    let waiting = start_until(inputs().extract(&store).args(wait), "waiting")?;
    kill(first)?;
    finish(waiting).exits(0)?;
    same_versions(&store, whole())
}

/// A clip that causes a panic becomes a reject. All other rows are unchanged, and the output shows no crash.
#[apply(trial)]
fn panic_on_one_clip() -> Result<(), Failed> {
    fn rows(store: &Path) -> Result<Vec<Value>, Failed> {
        sql(
            store,
            "SELECT clip_key, genre, audio_blake3, tensor(mfcc) AS x FROM features_mfcc ORDER BY 1",
        )
    }

    let mut wanted = rows(whole())?;
    let clip_key = wanted.remove(wanted.len() / 2)["clip_key"]
        .as_str()
        .unwrap()
        .to_owned();

    let store = scratch("panic").join("store");
    let ran = run(inputs()
        .extract(&store)
        .env("FAILPOINTS", format!("worker-panic=return({clip_key})")))
    .exits(0)?;

    same(
        "panics on stderr",
        ran.err
            .lines()
            .find(|line| line.contains("panicked") || line.contains("injected")),
        None,
    )?;

    let reject = sql(
        &store,
        "SELECT clip_key, stage, detail FROM rejects WHERE reason = 'worker_panic'",
    )?;
    same("rejects", reject.len(), 1)?;
    same(
        "clip",
        reject[0]["clip_key"].as_str(),
        Some(clip_key.as_str()),
    )?;
    contains(reject[0]["detail"].as_str().unwrap(), "injected")?;

    same("other rows", rows(&store)?, wanted)?;
    run(wavemill(["verify", "--store"]).arg(&store)).exits(0)?;
    Ok(())
}

/// Removes the read permission for all users except root.
fn unreadable(path: &Path) -> &Path {
    fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap();
    path
}

/// Makes root, too, obey the permissions of files.
fn as_other_user(command: &Command) -> Command {
    let mut other = Command::new("setpriv");
    other
        .arg("--bounding-set=-dac_override,-dac_read_search")
        .arg(command.get_program())
        .args(command.get_args());
    other.envs(
        command
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    other
}

/// Reports whether permissions of files can be denied to a command.
fn can_deny() -> bool {
    let file = scratch("denied").join("file");
    fs::write(&file, "").unwrap();
    let mut read = Command::new("cat");
    read.arg(unreadable(&file));
    let other = as_other_user(&read).output();
    other.is_ok_and(|ran| ran.status.code() == Some(1))
}

#[apply(trial)]
#[needs(can_deny)]
fn a_missing_permission_has_one_code_and_one_remedy() -> Result<(), Failed> {
    let folder = scratch("permissions");
    let store = own_store("permissions-store");
    let mut own = inputs().copied(&folder);
    own.recipe = folder.join("own.toml");
    fs::write(&own.recipe, RECIPE)?;
    let shard = &manifest(&store, 1)?
        .files_of("log_mel")
        .next()
        .ok_or("no shard")?
        .path
        .clone();
    let clip = files_below(&own.audio)
        .into_iter()
        .next()
        .ok_or("no clip")?;
    let metadata = own.metadata.clone().ok_or("no metadata")?;
    let on = |line: &str| -> Command {
        let mut command = wavemill(crate::support::argv(line));
        command.arg("--store").arg(&store);
        command
    };
    let extract = |store: &Path| own.extract(store);
    let mut grown = extract(&store);
    grown.args(["--new-version", "--limit", "30"]);
    let mut export = on("export --format npy");
    export.arg("--out").arg(folder.join("closed/out"));
    let mut table = on("sql VALUES(1)");
    table.arg("--out").arg(folder.join("closed/out.csv"));
    let mut page = on("report");
    page.arg("--out").arg(folder.join("closed/page.html"));
    let mut mean = on("sql");
    mean.arg("SELECT max(tensor_mean(log_mel)) FROM features_log_mel");
    fs::create_dir(folder.join("closed"))?;
    let mut demo = wavemill(["demo"]);
    demo.arg(folder.join("closed/demo"));
    let score = folder.join("score.csv");
    fs::write(&score, "a\n1\n")?;
    let mut scores = on("sql VALUES(1)");
    scores.arg(format!("--table=score={}", score.display()));
    let run_folder = folder.join("a-run");
    fs::create_dir(&run_folder)?;
    let mut predict = wavemill(["predict", "song.mp3", "--run"]);
    predict.arg(&run_folder);

    let versions = store.join("_wavemill/versions");
    let closed = folder.join("closed");
    for (path, command) in [
        (versions.clone(), on("info")),
        (versions.clone(), on("gc --keep 1")),
        (versions.clone(), on("sql VALUES(1)")),
        (versions.clone(), extract(&store)),
        (versions.join("00000001.json"), on("info")),
        (versions.join("00000001.json"), on("tag 1 paper")),
        (store.join(shard), on("verify")),
        (store.join(shard), mean),
        (store.join(shard), on("report")),
        (store.clone(), on("tag 1 paper")),
        (store.join("_wavemill/receipts"), grown),
        (own.clip(&clip), extract(&folder.join("new"))),
        (own.audio.clone(), extract(&folder.join("new"))),
        (metadata.join("tracks.csv"), extract(&folder.join("new"))),
        (metadata.clone(), extract(&folder.join("new"))),
        (own.recipe.clone(), extract(&folder.join("new"))),
        (closed.clone(), extract(&closed.join("store"))),
        (closed.clone(), export),
        (closed.clone(), table),
        (closed.clone(), demo),
        (closed, page),
        (score, scores),
        (run_folder, predict),
    ] {
        let mode = fs::metadata(&path)?.permissions();
        unreadable(&path);
        let ran = run(as_other_user(&command).current_dir(&folder));
        fs::set_permissions(&path, mode)?;
        let what = format!("{} {command:?}", path.display());
        same(&what, ran.code, Some(5)).map_err(|error| format!("{error:?}: {}", ran.err))?;
        ran.says(&["Permission denied", "let this user read and write it"])?;
    }
    Ok(())
}

/// An I/O error is not a property of the clip, so the run ends with an error instead of a reject.
#[apply(trial)]
#[needs(can_deny)]
fn unreadable_clip_stops_the_run() -> Result<(), Failed> {
    let folder = scratch("unreadable");
    let (own, store) = (inputs().copied(&folder), folder.join("store"));
    let clip = files_below(&own.audio)
        .into_iter()
        .next()
        .ok_or("no clip")?;
    unreadable(&own.clip(&clip));

    run(&mut as_other_user(&own.extract(&store)))
        .exits(5)?
        .says(&[&clip, "Permission denied"])?;
    nothing_half_written(&store)?;

    fs::set_permissions(own.clip(&clip), fs::Permissions::from_mode(0o644))?;
    run(&mut own.extract(&store)).exits(0)?;
    same_versions(&store, whole())
}

/// A small temporary file system, which is unmounted when dropped.
pub(crate) struct Mount(pub PathBuf);

impl Mount {
    /// Reports whether this user may mount file systems, which usually only root may.
    pub(crate) fn is_possible() -> bool {
        static IS_POSSIBLE: OnceLock<bool> = OnceLock::new();
        *IS_POSSIBLE.get_or_init(|| Self::new("size=1m").is_ok())
    }

    /// Mounts a tmpfs. Fails for users who may not mount.
    pub(crate) fn new(options: &str) -> Result<Self, Failed> {
        let folder = scratch("mount");
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(&folder))
        .exits(0)?;
        Ok(Self(folder))
    }

    /// Fills the file system with one file and returns its path.
    pub(crate) fn fill(&self) -> PathBuf {
        let filler = self.0.join("filler");
        // `dd` is expected to fail with "no space left".
        run(Command::new("dd")
            .args(["if=/dev/zero", "bs=4k"])
            .arg(format!("of={}", filler.display())));
        filler
    }

    fn remount(&self, options: &str) -> Result<(), Failed> {
        run(Command::new("mount")
            .args(["-o", &format!("remount,{options}")])
            .arg(&self.0))
        .exits(0)?;
        Ok(())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        run(Command::new("umount").arg("--lazy").arg(&self.0));
    }
}

#[apply(trial)]
#[needs(Mount::is_possible)]
fn read_only_store() -> Result<(), Failed> {
    let mount = Mount::new("size=64m")?;
    let (empty, full) = (mount.0.join("empty"), mount.0.join("full"));
    copy_folder(whole(), &full);
    mount.remount("ro")?;

    run(&mut inputs().extract(&empty))
        .exits(5)?
        .says(&[empty.to_str().unwrap(), "Read-only file system"])?;
    run(inputs()
        .extract(&full)
        .args(["--new-version", "--limit", "9"]))
    .exits(5)?
    .says(&["Read-only file system"])?;
    run(wavemill(["gc", "--keep", "1", "--store"]).arg(&full))
        .exits(5)?
        .says(&["Read-only file system"])?;

    // Commands that only read a store work on a read-only file system.
    for arguments in [
        &["verify"][..],
        &["info"],
        &["sql", "SELECT count(*) FROM features_mfcc"],
    ] {
        run(wavemill(arguments).arg("--store").arg(&full)).exits(0)?;
    }

    let again = run(&mut inputs().extract(&full)).exits(0)?;
    contains(&again.err, "nothing to do")?;

    mount.remount("rw")?;
    works_now(&empty)
}

#[apply(trial)]
#[needs(Mount::is_possible)]
fn full_disk_at_the_start() -> Result<(), Failed> {
    let mount = Mount::new("size=300k")?;
    let store = mount.0.join("store");
    let ran = run(&mut inputs().extract(&store)).exits(5)?;
    ran.says(&[store.to_str().unwrap(), "bytes are needed", "are free"])?;
    nothing_half_written(&store)?;
    mount.remount("size=64m")?;
    works_now(&store)
}

/// Another process fills the disk while shards are written.
#[apply(trial)]
#[needs(Mount::is_possible)]
fn disk_fills_up() -> Result<(), Failed> {
    let mount = Mount::new("size=64m")?;
    let store = mount.0.join("store");
    let mut child = start(
        inputs()
            .extract(&store)
            .env("FAILPOINTS", "worker-panic=sleep(100)"),
    );
    wait_until(&mut child, "two shards", || receipts(&store) >= 2)?;

    let filler = mount.fill();
    let ran = finish(child).exits(5)?;
    ran.says(&[store.to_str().unwrap(), "No space left"])?;
    nothing_half_written(&store)?;
    within("shards are kept", receipts(&store), 2..)?;

    fs::remove_file(filler)?;
    works_now(&store)
}

/// Runs a script of `scripts/faults` with the programs in a folder.
fn fault_script(name: &str, programs: &Path, arguments: &[&str]) -> Ran {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/faults");
    let mut command = Command::new("python3");
    command
        .arg(scripts.join(name))
        .arg("--programs")
        .arg(programs);
    run(command.args(arguments))
}

/// Returns the folder of the programs.
fn programs() -> PathBuf {
    let mut folder = program("wavemill");
    folder.pop();
    folder
}

/// Reports whether the scripts and all their programs can run.
fn has_tools() -> bool {
    has_python() && has_trainer()
}

/// Some file operations of each command fail once: nothing committed is lost, and the repeated command succeeds.
#[apply(trial)]
#[needs(has_tools)]
fn single_failing_operations_lose_nothing() -> Result<(), Failed> {
    fault_script("faults.py", &programs(), &["--sample", "5", "--jobs", "1"]).exits(0)?;
    Ok(())
}

/// Makes a folder of programs in which a shell script runs `wavemill`; `then` are the lines after that.
fn wrapped(name: &str, then: &str) -> Result<PathBuf, Failed> {
    let folder = scratch(name);
    symlink(program("demo-audio"), folder.join("demo-audio"))?;
    let script = format!(
        "#!/bin/sh\n\"{}\" \"$@\" {then}\n",
        program("wavemill").display()
    );
    let wrapper = folder.join("wavemill");
    fs::write(&wrapper, script)?;
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
    Ok(folder)
}

#[apply(trial)]
#[needs(has_tools)]
fn a_program_that_hides_a_failing_operation_is_found() -> Result<(), Failed> {
    let folder = wrapped("hides", "\nexit 0")?;
    let arguments = ["--command", "extract", "--kind", "rename", "--sample", "10"];
    let found = fault_script("faults.py", &folder, &arguments).exits(1)?;
    contains(&found.out, "ends with status 0, but made something else")
}

#[apply(trial)]
#[needs(has_tools)]
fn a_message_that_names_only_the_store_is_found() -> Result<(), Failed> {
    let then =
        "2>/dev/null && exit\ncode=$?\necho \"$PWD/store: Input/output error\" >&2\nexit $code";
    let folder = wrapped("names", then)?;
    let arguments = ["--command", "extract", "--kind", "readdir", "--sample", "9"];
    let found = fault_script("faults.py", &folder, &arguments).exits(1)?;
    contains(&found.out, "the message lacks the error or its place")
}

/// Some commands are killed at an operation, and repeated.
#[apply(trial)]
#[needs(has_tools)]
fn kills_at_operations_lose_nothing() -> Result<(), Failed> {
    let arguments = ["--kill", "--sample", "8", "--jobs", "1"];
    fault_script("faults.py", &programs(), &arguments).exits(0)?;
    Ok(())
}

/// Some states of the disk after power cuts: stores open and are complete or can be continued.
#[apply(trial)]
#[needs(has_tools)]
fn power_cuts_lose_nothing() -> Result<(), Failed> {
    fault_script(
        "power_cuts.py",
        &programs(),
        &["--sample", "5", "--jobs", "1"],
    )
    .exits(0)?;
    Ok(())
}

#[apply(trial)]
#[needs(has_tools)]
fn a_missing_sync_is_found() -> Result<(), Failed> {
    for (command, path) in [
        ("extract", ".parquet"),
        ("extract", "_wavemill/versions"),
        ("plan", "_wavemill/plans"),
    ] {
        let arguments = ["--command", command, "--sample", "3", "--forget", path];
        let found = fault_script("power_cuts.py", &programs(), &arguments).exits(1)?;
        contains(&found.out, &format!("{command}: "))?;
    }
    Ok(())
}
