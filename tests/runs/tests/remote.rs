//! Stores in an object store: readers give the same answers as for a folder, and writers write the same files, also if
//! requests fail.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use wavemill_tests::Failed;

use crate::bucket::{Bucket, Faults, PREFIX};
use crate::extract::zip;
use crate::peers::{python_package, script};
use crate::steps::{commit, work};
use crate::support::{
    Inputs, argv, asks_for_peers, checkpoints, contains, copy_folder, damage, files_below, finish,
    fit, has_trainer, inputs, kill, lacks, own_store, receipts, run, run_in, same, same_versions,
    scratch, start, wait_until, wavemill, whole,
};
use crate::table::Table;

/// Failures of a bad network.
const FAULTS: Faults = Faults {
    busy: 50,
    late: 20,
    cut: 33,
    outage: Duration::ZERO,
};

/// Limit of local copies that the tables of the shared store fit in, and few files of its features.
const TABLES_LIMIT: &str = "100KiB";

/// Starts a server whose bucket contains the shared store as `stores/whole`.
fn with_store(name: &str, faults: Faults) -> Bucket {
    let bucket = Bucket::start(name, faults);
    copy_folder(whole(), &bucket.folder().join("stores/whole"));
    bucket
}

/// Runs a command on the folder of the shared store and on its address, and compares what they print.
fn same_output(bucket: &Bucket, cache: &Path, line: &str) -> Result<(), Failed> {
    let address = bucket.address("stores/whole");
    let on = |store: &str| wavemill(argv(line).into_iter().map(|word| word.replace('@', store)));
    let folder = whole().to_string_lossy();
    let local = run(&mut on(&folder)).exits(0)?;
    let remote = run(bucket.used_by(&mut on(&address), cache)).exits(0)?;
    same(line, remote.out.replace(&address, &folder), local.out)
}

/// The commands that read a store, on a server that fails.
const READERS: [&str; 7] = [
    "info --store @",
    "info --store @ --versions --json",
    "info --store @ --files",
    "verify --store @ --json",
    "diff --store @ 1 1 --json",
    r#"sql --store @ --format csv "SELECT * FROM tracks ORDER BY clip_key""#,
    r#"sql --store @ --format csv "SELECT clip_key, split, tensor_mean(log_mel) FROM features_log_mel ORDER BY 1""#,
];

#[apply(trial)]
fn readers_of_a_bucket_print_what_readers_of_the_folder_print() -> Result<(), Failed> {
    let bucket = with_store("remote-readers", FAULTS);
    let cache = scratch("remote-cache");
    for line in READERS {
        same_output(&bucket, &cache, line)?;
    }

    // Everything is copied now, so only listings and queries need requests.
    let before = bucket.requests();
    same_output(&bucket, &cache, "verify --store @ --json")?;
    let requests = bucket.requests() - before;
    if requests > 12 {
        return Err(format!("{requests} requests for a store that is copied already").into());
    }
    Ok(())
}

#[apply(trial)]
fn exports_of_a_bucket_are_those_of_the_folder() -> Result<(), Failed> {
    let bucket = with_store("remote-export", Faults::default());
    let (cache, out) = (scratch("remote-export-cache"), scratch("remote-exports"));
    let export = |store: &str, name: &str| {
        let mut command = wavemill(argv("export --feature log_mel --format npy --store"));
        command.arg(store).arg("--out").arg(out.join(name));
        command
    };
    run(&mut export(&whole().to_string_lossy(), "local")).exits(0)?;
    let address = bucket.address("stores/whole");
    run(bucket.used_by(&mut export(&address, "remote"), &cache)).exits(0)?;
    same_files(&out.join("remote"), &out.join("local"))
}

fn same_files(left: &Path, right: &Path) -> Result<(), Failed> {
    same("names of files", files_below(left), files_below(right))?;
    for name in files_below(left) {
        if fs::read(left.join(&name))? != fs::read(right.join(&name))? {
            return Err(format!("{name} differs").into());
        }
    }
    Ok(())
}

/// Copies are not trusted for their length alone when they are made.
#[apply(trial)]
fn changed_objects_are_damage_and_not_copied() -> Result<(), Failed> {
    let bucket = with_store("remote-damage", Faults::default());
    let cache = scratch("remote-damage-cache");
    let store = bucket.folder().join("stores/whole");
    let names: Vec<String> = files_below(&store)
        .into_iter()
        .filter(|file| file.contains("/features/"))
        .take(2)
        .collect();
    for name in &names {
        let object = store.join(name);
        damage(&object)?;
    }

    let address = bucket.address("stores/whole");
    let verify = || {
        let mut command = wavemill(["verify", "--store", &address]);
        run(bucket.used_by(&mut command, &cache))
    };
    let ran = verify().exits(3)?;
    let copies = files_below(&cache);
    for name in &names {
        contains(&ran.out, name)?;
        let copied = copies.iter().any(|copy| copy.ends_with(name));
        same(&format!("a copy of {name}"), copied, false)?;
    }

    fs::remove_file(store.join(&names[0]))?;
    fs::copy(whole().join(&names[1]), store.join(&names[1]))?;
    contains(&verify().exits(3)?.out, "missing")?;

    fs::copy(whole().join(&names[0]), store.join(&names[0]))?;
    verify().exits(0)?;

    // A copy does not hide that its object is lost.
    fs::remove_file(store.join(&names[0]))?;
    contains(&verify().exits(3)?.out, "missing")
}

/// A damaged copy is no damage of the store.
#[apply(trial)]
#[needs(has_trainer)]
fn damaged_copies_are_replaced() -> Result<(), Failed> {
    let bucket = with_store("remote-mended", Faults::default());
    let cache = scratch("remote-mended-cache");
    let address = bucket.address("stores/whole");
    let verify = || {
        let mut command = wavemill(["verify", "--store", &address]);
        run(bucket.used_by(&mut command, &cache))
    };
    verify().exits(0)?;

    let mut copies = files_below(&cache).into_iter();
    let copy = copies.find(|file| file.contains("/features/log_mel/"));
    let copy = cache.join(copy.ok_or("no copy")?);
    // The size and the time of the copy stay those of the object.
    let damage = || -> Result<(), Failed> {
        let modified = fs::metadata(&copy)?.modified()?;
        flip(&copy, |bytes| bytes / 2)?;
        let file = File::options().write(true).open(&copy)?;
        Ok(file.set_modified(modified)?)
    };
    damage()?;
    verify().exits(0)?;

    damage()?;
    let mut training = fit(Path::new(&address), &scratch("mended-runs"));
    training.args(argv("--skip-damaged --epochs 1 --set data.batch_size=8"));
    let trained = run(bucket.used_by(&mut training, &cache)).exits(0)?;
    lacks(&trained.out, "damaged")?;

    damage()?;
    let mut export = wavemill(argv("export --feature log_mel --format npy --store"));
    export
        .arg(&address)
        .arg("--out")
        .arg(scratch("mended").join("out"));
    run(bucket.used_by(&mut export, &cache)).exits(0)?;
    Ok(())
}

/// Versions and tags that appear and disappear in the bucket do so for readers with copies, too.
#[apply(trial)]
fn copies_follow_the_bucket() -> Result<(), Failed> {
    let bucket = Bucket::start("remote-follow", Faults::default());
    let cache = scratch("remote-follow-cache");
    let local = own_store("remote-follow-store");
    let object = bucket.folder().join("stores/whole");
    copy_folder(&local, &object);

    let address = bucket.address("stores/whole");
    let ask = |words: &str| {
        let mut command = wavemill(argv(words));
        command.args(["--store", &address]);
        run(bucket.used_by(&mut command, &cache))
    };
    ask("info --version paper").exits(2)?;
    ask("tag 1 paper").exits(0)?;
    ask("info --version paper").exits(0)?;
    fs::remove_file(object.join("_wavemill/tags/paper"))?;
    ask("info --version paper").exits(2)?;

    // Another store at the same address.
    fs::remove_dir_all(object.join("data"))?;
    fs::remove_dir_all(object.join("_wavemill"))?;
    contains(ask("info").exits(2)?.error()?, &address)
}

#[apply(trial)]
fn a_small_limit_of_copies_is_an_error_with_its_remedy() -> Result<(), Failed> {
    let bucket = with_store("remote-limit", Faults::default());
    let cache = scratch("remote-limit-cache");
    let mut command = wavemill(["verify", "--store", &bucket.address("stores/whole")]);
    bucket
        .used_by(&mut command, &cache)
        .env("WAVEMILL_CACHE_LIMIT", "10KiB");
    run(&mut command)
        .exits(2)?
        .says(&["WAVEMILL_CACHE_LIMIT"])?;
    command.env("WAVEMILL_REQUESTS", "0");
    run(&mut command)
        .exits(2)?
        .says(&["WAVEMILL_REQUESTS=0: must be a whole number from 1 to 256"])
}

#[apply(trial)]
fn wrong_keys_and_addresses_are_errors_with_a_remedy() -> Result<(), Failed> {
    let bucket = with_store("remote-errors", Faults::default());
    let cache = scratch("remote-errors-cache");
    let info = |address: &str, change: &dyn Fn(&mut Command)| {
        let mut command = wavemill(["info", "--store", address]);
        change(bucket.used_by(&mut command, &cache));
        run(&mut command)
    };
    let address = bucket.address("stores/whole");
    let ran = info(&address, &|command| {
        command.env("AWS_SECRET_ACCESS_KEY", "other");
    })
    .exits(1)?;
    contains(ran.error()?, "AWS_SECRET_ACCESS_KEY")?;
    lacks(ran.error()?, "other")?;

    contains(
        info("s3://absent/store", &|_| {}).exits(1)?.error()?,
        "s3://absent/store",
    )?;
    contains(
        info(&bucket.address("stores/no"), &|_| {})
            .exits(2)?
            .error()?,
        "stores/no",
    )?;
    contains(
        info("ftp://host/store", &|_| {}).exits(2)?.error()?,
        "s3://",
    )
}

/// `gc` removes the objects of old versions, and of unfinished plans that nobody writes any more.
#[apply(trial)]
fn objects_of_old_versions_are_removed() -> Result<(), Failed> {
    let bucket = Bucket::start("remote-gc", Faults::default());
    let cache = scratch("remote-gc-cache");
    let local = own_store("remote-gc-store");
    let sets = argv("--set features.log_mel.n_mels=20 --new-version");
    run(inputs().extract(&local).args(sets)).exits(0)?;
    let objects = bucket.folder().join("stores/whole");
    copy_folder(&local, &objects);
    let plan = "0123456789abcdef";
    let unfinished = objects.join("data").join(plan);
    fs::create_dir(&unfinished)?;
    let object = unfinished.join("x.parquet");
    fs::write(&object, "x")?;

    let address = bucket.address("stores/whole");
    let ask = |words: &str| {
        let mut command = wavemill(argv(words));
        command.args(["--store", &address]);
        run(bucket.used_by(&mut command, &cache))
    };
    let collect = |words: &str| -> Result<Value, Failed> {
        Ok(serde_json::from_str(&ask(words).exits(0)?.out)?)
    };
    let planned = collect("gc --keep 1 --dry-run --json")?;
    same("files before", object.exists(), true)?;
    let mut collected = collect("gc --keep 1 --json")?;
    same("dry run", &planned, &collected)?;
    same("recent", &collected["recent"], &serde_json::json!([plan]))?;
    run(wavemill(argv("gc --keep 1 --store")).arg(&local)).exits(0)?;
    same("versions", &collected["versions"], &serde_json::json!([1]))?;
    ask("verify --version 1").exits(2)?;
    ask("verify").exits(0)?;

    // Two days later.
    let past = SystemTime::now() - Duration::from_secs(2 * 24 * 3600);
    File::options()
        .write(true)
        .open(&object)?
        .set_modified(past)?;
    collected = collect("gc --keep 1 --json")?;
    same("plans", &collected["plans"], &serde_json::json!([plan]))?;
    let names = |folder: &Path| -> Vec<String> {
        let names = files_below(folder).into_iter();
        names.filter(|name| name != "_wavemill/lock").collect()
    };
    same("objects", names(&objects), names(&local))
}

/// A version whose data a killed `gc` removed in part counts as removed, and the next `gc` removes the rest.
#[apply(trial)]
#[needs(has_trainer)]
fn half_removed_version_is_no_damage() -> Result<(), Failed> {
    let bucket = Bucket::start("remote-half", Faults::default());
    let (cache, runs) = (scratch("remote-half-cache"), scratch("remote-half-runs"));
    let local = own_store("remote-half-store");
    let sets = argv("--set features.log_mel.n_mels=20 --new-version");
    run(inputs().extract(&local).args(sets)).exits(0)?;
    let objects = bucket.folder().join("stores/whole");
    copy_folder(&local, &objects);

    let manifest = fs::read(local.join("_wavemill/versions/00000001.json"))?;
    let manifest: Value = serde_json::from_slice(&manifest)?;
    let plan = manifest["plan_id"].as_str().ok_or("no plan")?;
    let data = objects.join("data").join(plan);
    let removed = files_below(&data).pop().ok_or("no data")?;
    fs::remove_file(data.join(removed))?;
    let mark = objects.join(format!("data/{plan}.going"));
    fs::create_dir(&mark)?;
    fs::write(mark.join("mark"), "")?;

    let address = bucket.address("stores/whole");
    let ask = |words: &str| {
        let mut command = wavemill(argv(words));
        command.args(["--store", &address]);
        run(bucket.used_by(&mut command, &cache))
    };
    for words in ["verify --version 1", "tag 1 paper"] {
        ask(words).exits(2)?.says(&["removed by `wavemill gc`"])?;
    }
    let mut training = fit(Path::new(&address), &runs);
    training.args(["--version", "1"]);
    run(bucket.used_by(&mut training, &cache))
        .exits(2)?
        .says(&["removed by `wavemill gc`"])?;

    ask("gc --keep 2").exits(0)?;
    for folder in [&data, &mark] {
        same("objects", files_below(folder).len(), 0)?;
    }
    ask("verify").exits(0)?;
    Ok(())
}

#[apply(trial)]
#[needs(has_trainer)]
fn a_model_trained_on_a_bucket_is_that_of_the_folder() -> Result<(), Failed> {
    let bucket = with_store(
        "remote-train",
        Faults {
            cut: 7,
            ..Faults::default()
        },
    );
    let (cache, runs) = (scratch("remote-train-cache"), scratch("remote-runs"));
    let short = argv("--epochs 1 --set data.batch_size=8");
    run(fit(whole(), &runs.join("local")).args(&short)).exits(0)?;
    let weights = |name: &str| -> Result<Vec<u8>, Failed> {
        let last = checkpoints(&run_in(&runs.join(name))?).pop();
        let last = last.ok_or("no checkpoint")?;
        Ok(fs::read(last.join("tensors.safetensors"))?)
    };

    // With room for little more than the tables, rows are streamed.
    let address = bucket.address("stores/whole");
    for (name, limit) in [
        ("streamed", TABLES_LIMIT),
        ("copied", "1GiB"),
        ("mended", "1GiB"),
    ] {
        if name == "mended" {
            // Damaged copies are replaced by the bytes of the objects.
            for file in files_below(&cache) {
                let is_feature = file.contains("/features/");
                if is_feature && !file.contains("/.") {
                    flip(&cache.join(file), |bytes| bytes / 2)?;
                }
            }
        }
        let mut remote = fit(Path::new(&address), &runs.join(name));
        bucket
            .used_by(remote.args(&short).arg("--verbose"), &cache)
            .env("WAVEMILL_CACHE_LIMIT", limit);
        let ran = run(&mut remote).exits(0)?;
        contains(&ran.err, "object store: ")?;
        same(name, weights("local")? == weights(name)?, true)?;
    }
    Ok(())
}

/// The package for Python yields the batches of the folder, in their order, with local copies and without, also after a
/// resume.
#[apply(trial)]
#[needs(asks_for_peers)]
fn python_streams_the_rows_of_the_folder() -> Result<(), Failed> {
    let bucket = with_store("remote-python", FAULTS);
    let mut stream = python_package("remote-package")?;
    stream
        .arg(script("stream.py"))
        .arg(whole())
        .arg(bucket.address("stores/whole"))
        .args(["--batch-size", "8"]);
    let ran = run(bucket.used_by(&mut stream, &scratch("remote-python-cache"))).exits(0)?;
    same("ways", ran.out.lines().count(), 4)
}

/// A bit of a tensor that is flipped in the object store ends training, although its file is not copied and compared with
/// its hash.
#[apply(trial)]
#[needs(has_trainer)]
fn flipped_bits_of_streamed_rows_are_damage() -> Result<(), Failed> {
    let bucket = with_store("remote-flip", Faults::default());
    let store = bucket.folder().join("stores/whole");
    let is_feature =
        |file: &String| file.contains("/features/log_mel/") && file.contains("training");
    let name = files_below(&store).into_iter().find(is_feature);
    let object = store.join(name.ok_or("no file of the feature")?);
    let runs = scratch("remote-flip-runs");
    let train = |said: &str| {
        let address = bucket.address("stores/whole");
        let mut train = fit(Path::new(&address), &runs.join("run"));
        bucket
            .used_by(&mut train, &scratch("remote-flip-cache"))
            .env("WAVEMILL_CACHE_LIMIT", TABLES_LIMIT);
        let ran = run(&mut train).exits(3)?;
        contains(ran.error()?, "stores/whole/data/")?;
        contains(ran.error()?, said)
    };

    flip(&object, |bytes| bytes / 2)?;
    train("checksum")?;
    flip(&object, |bytes| bytes / 2)?;
    flip(&object, |bytes| bytes - 100)?;
    train("footer differs")
}

/// Flips a bit of a file in the byte that `place` gives for the number of its bytes.
fn flip(file: &Path, place: impl Fn(usize) -> usize) -> Result<(), Failed> {
    let mut bytes = fs::read(file)?;
    let place = place(bytes.len());
    bytes[place] ^= 1;
    Ok(fs::write(file, &bytes)?)
}

/// Folders of local copies, which stand for machines.
fn machines(name: &str) -> [PathBuf; 3] {
    [0; 3].map(|_| scratch(name))
}

#[apply(trial)]
fn extract_writes_the_same_store_to_a_bucket() -> Result<(), Failed> {
    let bucket = Bucket::start("remote-extract", FAULTS);
    let cache = scratch("remote-extract-cache");
    let address = bucket.address("stores/new");
    let extract = || {
        let mut command = inputs().extract(Path::new(&address));
        run(bucket.used_by(&mut command, &cache))
    };
    extract().exits(0)?;
    let object = bucket.folder().join("stores/new");
    same_versions(&object, whole())?;
    contains(&extract().exits(0)?.err, "nothing to do")?;

    // On a machine without copies, too.
    fs::remove_dir_all(&cache)?;
    contains(&extract().exits(0)?.err, "nothing to do")?;
    same_versions(&object, whole())
}

#[apply(trial)]
fn machines_without_a_shared_disk_write_the_same_store() -> Result<(), Failed> {
    let bucket = Bucket::start("remote-steps", FAULTS);
    let caches = machines("remote-machine");
    let address = bucket.address("stores/new");
    let store = Path::new(&address);
    let on = |machine: usize, mut command: Command| {
        bucket.used_by(&mut command, &caches[machine]);
        command
    };
    let id = run(&mut on(0, inputs().plan(store))).exits(0)?;
    let id = id.out.trim();
    run(&mut on(1, commit(store, id))).exits(9)?;

    // A worker that is killed while it sends, and workers of other machines with the same shards.
    let object = bucket.folder().join("stores/new");
    let mut slow = on(1, work(store, id, "1/1"));
    let mut killed = start(slow.env("FAILPOINTS", "worker-panic=sleep(50)"));
    wait_until(&mut killed, "a receipt", || receipts(&object) >= 2)?;
    kill(killed)?;
    let workers = [(1, "1/2"), (2, "1/2"), (2, "2/2")];
    let started = workers.map(|(machine, part)| start(&mut on(machine, work(store, id, part))));
    for worker in started {
        finish(worker).exits(0)?;
    }

    // A table that cannot be read is not one that another machine has sent.
    let mut copies = files_below(&caches[0]).into_iter();
    let table = copies.find(|file| file.ends_with("/tracks.parquet"));
    let table = caches[0].join(table.ok_or("no table")?);
    fs::remove_file(&table)?;
    symlink("tracks.parquet", &table)?;
    run(&mut on(0, commit(store, id)))
        .exits(1)?
        .says(&["tracks.parquet", "symbolic links"])?;
    fs::remove_file(&table)?;

    let commits = [0, 2].map(|machine| start(&mut on(machine, commit(store, id))));
    for worker in commits {
        finish(worker).exits(0)?;
    }
    same_versions(&object, whole())?;
    let left = files_below(&object.join("_wavemill/plans"));
    same("stored plans", left.len(), 0)?;
    contains(
        &run(&mut on(1, work(store, id, "1/2"))).exits(0)?.err,
        "is committed",
    )?;
    run(&mut on(1, wavemill(["verify", "--store", &address])))
        .exits(0)
        .map(|_| ())
}

/// Files of the previous version are reused, and its rows are taken over, without a disk that has them.
#[apply(trial)]
fn second_version_in_a_bucket_equals_one_on_a_disk() -> Result<(), Failed> {
    let bucket = Bucket::start("remote-grow", Faults::default());
    let caches = machines("remote-grow-machine");
    let address = bucket.address("stores/grown");
    let object = bucket.folder().join("stores/grown");
    let mut table = Table::new("remote-grow-table", 40);
    let one = table.store();
    let on = |machine: usize, mut command: Command| {
        bucket.used_by(&mut command, &caches[machine]);
        run(&mut command)
    };

    let store = Path::new(&address);
    on(0, table.written()?.extract(store)).exits(0)?;
    run(&mut table.written()?.extract(&one)).exits(0)?;
    same_versions(&object, &one)?;

    for track in 40..43 {
        table.add(track);
    }
    let grown = table.written()?;
    let mut plan = grown.plan(store);
    plan.arg("--new-version");
    let id = on(1, plan).exits(0)?;
    let id = id.out.trim();
    let mut claimed = wavemill([
        "work", "--claim", "--json", "--plan", id, "--store", &address,
    ]);
    claimed
        .env("WAVEMILL_THREADS", "1")
        .env("WAVEMILL_BACKEND", "cpu");
    let worked: Value = serde_json::from_str(&on(2, claimed).exits(0)?.out)?;
    same("clips decoded", worked["clips_decoded"].as_u64(), Some(3))?;
    on(0, commit(store, id)).exits(0)?;
    run(grown.extract(&one).arg("--new-version")).exits(0)?;
    same_versions(&object, &one)
}

/// Audio as objects, as a zip that is read by ranges, as one in several objects, and on a web server, and metadata in a
/// zip or a table by itself.
#[apply(trial)]
fn inputs_at_addresses_give_the_same_store() -> Result<(), Failed> {
    ["", PREFIX].into_iter().try_for_each(inputs_below)
}

fn inputs_below(prefix: &'static str) -> Result<(), Failed> {
    let bucket = Bucket::start_at(prefix, "remote-inputs", FAULTS);
    let cache = scratch("remote-inputs-cache");
    copy_folder(&inputs().audio, &bucket.folder().join("audio"));
    let metadata = inputs().metadata.as_ref().ok_or("no metadata")?;
    let folder = bucket.folder();
    zip(&folder, "deflated", "metadata.zip", metadata)?;
    zip(&folder, "stored", "fma_demo.zip", &inputs().audio)?;
    zip(&folder, "deflated", "all music.zip", &inputs().audio)?;
    let zipped = fs::read(folder.join("fma_demo.zip"))?;
    for (n, piece) in zipped.chunks(zipped.len().div_ceil(3)).enumerate() {
        let name = format!("fma_demo.zip.{:03}", n + 1);
        fs::write(folder.join(name), piece)?;
    }
    let web = web_server(bucket.root(), prefix)?;

    for audio in [
        bucket.address("audio"),
        bucket.address("fma_demo.zip"),
        bucket.address("fma_demo.zip.001"),
        format!("{web}/all%20music.zip"),
    ] {
        let store = scratch("remote-inputs-store").join("store");
        let at_addresses = Inputs::new(
            bucket.address("metadata.zip"),
            audio,
            inputs().recipe.clone(),
        );
        let mut extract = at_addresses.extract(&store);
        run(bucket.used_by(&mut extract, &cache)).exits(0)?;
        same_versions(&store, whole())?;
        let again = run(&mut extract).exits(0)?;
        contains(&again.err, "nothing to do")?;
    }

    // A worker reads the clips of its part, without a listing.
    let store = bucket.address("stores/new");
    let at_addresses = Inputs {
        metadata: Some(format!("{web}/metadata.zip").into()),
        audio: bucket.address("audio").into(),
        recipe: inputs().recipe.clone(),
    };
    let mut plan = at_addresses.plan(Path::new(&store));
    let id = run(bucket.used_by(&mut plan, &cache)).exits(0)?;
    let id = id.out.trim();
    for part in ["2/2", "1/2"] {
        let mut worker = work(Path::new(&store), id, part);
        run(bucket.used_by(&mut worker, &cache)).exits(0)?;
    }
    run(bucket.used_by(&mut commit(Path::new(&store), id), &cache)).exits(0)?;
    same_versions(&bucket.folder().join("stores/new"), whole())
}

#[apply(trial)]
fn a_table_at_an_address_is_read_like_a_file() -> Result<(), Failed> {
    ["", PREFIX].into_iter().try_for_each(table_below)
}

fn table_below(prefix: &'static str) -> Result<(), Failed> {
    let bucket = Bucket::start_at(prefix, "remote-table", Faults::default());
    let cache = scratch("remote-table-cache");
    let table = Table::new("remote-table-inputs", 12);
    let one = table.store();
    let local = table.written()?;
    run(&mut local.extract(&one)).exits(0)?;

    let folder = local.metadata.as_ref().ok_or("no table")?;
    let name = "table.csv";
    fs::copy(folder.join(name), bucket.folder().join(name))?;
    let address = bucket.address(name);
    let store = scratch("remote-table-store").join("store");
    let web = web_server(bucket.root(), prefix)?;
    let (server, below) = web.split_at(web.len() - web_path(prefix).len());
    for metadata in [
        format!("{web}/{name}"),
        format!("{server}/moved{below}/{name}"),
        address.clone(),
    ] {
        let at_addresses = local.with_metadata(metadata);
        let store = scratch("remote-table-store").join("store");
        run(bucket.used_by(&mut at_addresses.extract(&store), &cache)).exits(0)?;
        same_versions(&store, &one)?;
    }

    for (metadata, audio) in [
        ("s3://music/absent.csv", "audio"),
        ("ftp://host/table.csv", "audio"),
        ("s3://music/table.csv?x=1", "audio"),
        (&*address, "s3://music/absent.zip"),
        (&*address, &*address),
    ] {
        let wrong = Inputs {
            metadata: Some(metadata.into()),
            audio: match audio {
                "audio" => local.audio.clone(),
                address => address.into(),
            },
            recipe: local.recipe.clone(),
        };
        let mut extract = wrong.extract(&store);
        let ran = run(bucket.used_by(&mut extract, &cache)).exits(2)?;
        let named = if audio == "audio" { metadata } else { audio };
        contains(ran.error()?, named)?;
    }
    Ok(())
}

/// Serves the files of a folder as web servers do, and returns the address of its subfolder `prefix`. Paths below
/// `moved/` are redirected.
fn web_server(folder: PathBuf, prefix: &str) -> Result<String, Failed> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let folder = folder.clone();
            // A client may close a connection at any time.
            std::thread::spawn(move || _ = answer(stream, &folder));
        }
    });
    Ok(format!("http://{address}{}", web_path(prefix)))
}

/// Returns the path of a folder in an address.
fn web_path(folder: &str) -> String {
    match folder {
        "" => String::new(),
        folder => format!("/{}", folder.replace(' ', "%20")),
    }
}

fn answer(mut stream: TcpStream, folder: &Path) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let mut words = request.split(' ');
    let is_head = words.next() == Some("HEAD");
    let path = words.next().unwrap_or_default().trim_start_matches('/');
    if let Some(path) = path.strip_prefix("moved/") {
        let head = format!("HTTP/1.1 302 Found\r\nLocation: /{path}\r\nContent-Length: 0\r\n\r\n");
        return stream.write_all(head.as_bytes());
    }

    let mut range = None;
    for line in lines {
        let line = line?.to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some((first, last)) = line
            .strip_prefix("range: bytes=")
            .and_then(|range| range.split_once('-'))
        {
            range = first.parse().ok().zip(last.parse().ok());
        }
    }

    let Ok(content) = fs::read(folder.join(path.replace("%20", " "))) else {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    };
    let n = content.len();
    let (status, part) = match range {
        Some((first, last)) => {
            let last = std::cmp::min(last, n - 1);
            let status = format!("206 Partial Content\r\nContent-Range: bytes {first}-{last}/{n}");
            (status, &content[first..=last])
        }
        None => ("200 OK".to_owned(), &content[..]),
    };
    let bytes = part.len();
    let time = "Thu, 01 Jan 2026 00:00:00 GMT";
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {bytes}\r\nLast-Modified: {time}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    match is_head {
        true => Ok(()),
        false => stream.write_all(part),
    }
}
