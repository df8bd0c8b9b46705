//! `wavemill sql` and other commands that print a store's content: damaged files, versions that are removed
//! meanwhile, and text with terminal control sequences.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;
use wavemill_tests::Failed;

use crate::support::{
    Inputs, Ran, contains, files_below, finish, inputs, manifest, on, own_store, run, same,
    scratch, sql, sql_number, start, wavemill, whole, within,
};

/// Number of flipped bits in each file.
const FLIPS: usize = 100;
/// Time after which the query is executing its joins.
const RUN_TIME_MIN: Duration = Duration::from_secs(2);
/// Time limit for a reaction to a signal, with a margin for a busy machine.
const SECOND: Duration = Duration::from_millis(1500);

/// Fails unless a program exited normally, without the message of a panic.
fn check_readable(ran: &Ran) -> Result<(), Failed> {
    let ended = matches!(ran.code, Some(0..=5));
    if ended && !ran.err.contains("panicked") && !ran.err.contains("RUST_BACKTRACE") {
        return Ok(());
    }
    Err(format!("exit code {:?}: {}", ran.code, ran.err).into())
}

/// A query reads tables of several versions, by number and by tag.
#[apply(trial)]
fn tables_of_other_versions_are_read() -> Result<(), Failed> {
    let store = own_store("sql-versions");
    run(wavemill(["tag", "1", "paper", "--store"]).arg(&store)).exits(0)?;
    let second = ["--set", "features.mfcc=none", "--new-version"];
    run(inputs().extract(&store).args(second)).exits(0)?;

    let n = sql_number(&store, "SELECT count(*) FROM features_log_mel")?;
    for query in [
        "SELECT count(*) FROM features_mfcc@1",
        r#"SELECT count(*) FROM "features_mfcc@paper""#,
        "SELECT count(*) FROM features_log_mel JOIN features_mfcc@1 USING (clip_key, segment)",
        "SELECT sum(rows) FROM files@paper WHERE table_name = 'features_mfcc'",
    ] {
        same(query, sql_number(&store, query)?, n)?;
    }
    let classes = "SELECT count(*) FROM classes@1 JOIN classes USING (target, class_id, class)";
    let here = sql_number(&store, "SELECT count(*) FROM classes")?;
    same(classes, sql_number(&store, classes)?, here)?;

    let query = "SELECT version, tags, has_data FROM versions ORDER BY version";
    let versions = sql(&store, query)?;
    same("versions", versions.len(), 2)?;
    same("tags", &versions[0]["tags"], &json!(["paper"]))?;
    same("data", &versions[1]["has_data"], &json!(true))?;

    let ask = |table: &str| {
        let query = format!("SELECT * FROM \"{table}\"");
        run(wavemill(["sql", &query, "--store"]).arg(&store))
    };
    ask("features_mfcc")
        .exits(2)?
        .says(&["no table 'features_mfcc'"])?;
    ask("feature_mfcc@1").exits(2)?.says(&["features_mfcc"])?;
    ask("tracks@3")
        .exits(2)?
        .says(&["no version 3; available: 1 to 2"])?;
    ask("tracks@x").exits(2)?.says(&["no tag x"])?;
    ask("tracks@").exits(2)?;

    // The damaged file of another version is named.
    let files = manifest(&store, 1)?.files;
    let damaged = files.iter().find(|file| file.name() == "mfcc");
    let damaged = store.join(&damaged.ok_or("no file of mfcc")?.path);
    let mut bytes = fs::read(&damaged)?;
    let middle = bytes.len() / 3;
    bytes[middle] ^= 1;
    fs::remove_file(&damaged)?;
    fs::write(&damaged, bytes)?;
    let name = damaged.file_name().unwrap_or_default().to_string_lossy();
    ask("features_mfcc@1").exits(3)?.says(&[&name])?;

    fs::remove_file(store.join("_wavemill/tags/paper"))?;
    run(wavemill(["gc", "--keep", "1", "--store"]).arg(&store)).exits(0)?;
    ask("tracks@1").exits(2)?.says(&["gc"])
}

/// A pattern adds all files that match it as one table.
#[apply(trial)]
fn patterns_are_tables_of_several_files() -> Result<(), Failed> {
    let folder = scratch("sql-patterns");
    for (name, text) in [
        ("a1.csv", "x,y\n1,a\n"),
        ("a2.csv", "x,y\n2,b\n"),
        ("b.csv", "z\n9\n"),
    ] {
        fs::write(folder.join(name), text)?;
    }
    fs::write(folder.join("[c].csv"), "x\n7\n")?;
    let ask = |file: &str, query: &str| {
        let table = format!("mine={}", folder.join(file).display());
        run(wavemill([
            "sql", "--format", "csv", "--table", &table, query, "--store",
        ])
        .arg(whole()))
    };
    same(
        "rows",
        ask("a*.csv", "SELECT sum(x) AS x FROM mine").exits(0)?.out,
        "x\n3\n".to_owned(),
    )?;
    same(
        "rows",
        ask("[c].csv", "SELECT x FROM mine").exits(0)?.out,
        "x\n7\n".to_owned(),
    )?;
    ask("d*.csv", "SELECT 1")
        .exits(2)?
        .says(&["--table mine=", "no file matches"])?;
    ask("*.csv", "SELECT 1")
        .exits(2)?
        .says(&["the columns of", "are not those of"])?;

    // Nothing is added to the folder, not even with --allow-write.
    let table = format!("mine={}", folder.join("a*.csv").display());
    let insert = "INSERT INTO mine SELECT * FROM mine";
    let arguments = ["sql", "--allow-write", "--table", &table, insert, "--store"];
    let ran = run(wavemill(arguments).arg(whole()));
    same("inserted", ran.code == Some(0), false)?;
    same("files", files_below(&folder).len(), 4)
}

#[apply(trial)]
fn flipped_bits_never_panic() -> Result<(), Failed> {
    let store = own_store("bits");
    let files = manifest(&store, 1)?.files;
    let mut damaged = 0;
    for (name, sql) in [
        ("tracks", "SELECT * FROM tracks"),
        ("log_mel", "SELECT * FROM features_log_mel"),
    ] {
        let entry = files
            .iter()
            .find(|file| file.name() == name)
            .ok_or("no such file")?;
        let path = store.join(&entry.path);
        let whole = fs::read(&path)?;

        // Most bytes of a footer determine how other parts of the file are read.
        for at in (whole.len().saturating_sub(4_000)..whole.len()).step_by(137) {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            fs::write(&path, flipped)?;
            for arguments in [
                &["sql", "--format", "arrow", sql][..],
                &["verify"],
                &["info"],
                &["diff", "1", "1"],
            ] {
                let mut command = wavemill(arguments);
                let ran = run(command
                    .arg("--store")
                    .arg(&store)
                    .env("RUST_BACKTRACE", "1"));
                check_readable(&ran)?;
                if ran.code == Some(3) {
                    damaged += 1;
                    same(
                        "the file is named",
                        (ran.err + &ran.out).contains(&entry.path),
                        true,
                    )?;
                }
            }
        }
        fs::write(&path, whole)?;
    }

    within("damage was found", damaged, 21..)
}

/// A query over a damaged file gives the same result as over the undamaged file, or exit code 3.
#[apply(trial)]
fn flipped_bits_do_not_change_results() -> Result<(), Failed> {
    fn ask(sql: &str, store: &Path, out: &Path) -> Ran {
        let mut command = wavemill(["sql", "--format", "arrow", "--threads", "1", sql, "--store"]);
        run(command.arg(store).arg("--out").arg(out))
    }

    let store = own_store("flips");
    let files = manifest(&store, 1)?.files;
    let mut found = 0;
    let mut changed = Vec::new();
    for (name, sql) in [
        ("tracks", "SELECT * FROM tracks"),
        ("log_mel", "SELECT * FROM features_log_mel"),
    ] {
        let entry = files.iter().find(|file| file.name() == name);
        let path = store.join(&entry.ok_or("no such file")?.path);
        let whole = fs::read(&path)?;

        let out = store.with_file_name("answer.arrow");
        ask(sql, &store, &out).exits(0)?;
        let answer = fs::read(&out)?;

        // Flips bits in all parts of the file: pages, page headers, page indexes, and the footer.
        for at in (0..whole.len()).step_by(whole.len() / FLIPS) {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            fs::write(&path, flipped)?;
            let ran = ask(sql, &store, &out);
            match ran.code {
                Some(3) => found += 1,
                Some(0) if fs::read(&out)? == answer => {}
                Some(0) => changed.push(format!("{name}, byte {at} of {}", whole.len())),
                code => return Err(format!("{name}, byte {at}: {code:?}: {}", ran.err).into()),
            }
        }
        fs::write(&path, whole)?;
    }

    same(
        "flips that changed an answer",
        changed,
        Vec::<String>::new(),
    )?;
    assert!(found > FLIPS, "{found} of {} flips were found", 2 * FLIPS);
    Ok(())
}

/// The panic occurs on a thread of DataFusion, as it does for some damaged files in Parquet readers.
#[apply(trial)]
fn panic_while_reading_is_a_readable_error() -> Result<(), Failed> {
    fn ask(store: &Path) -> Ran {
        let mut command = wavemill([
            "sql",
            "SELECT clip_key, tensor_mean(log_mel) FROM features_log_mel",
        ]);
        command
            .env("FAILPOINTS", "sql-read=panic(index out of bounds)")
            .env("RUST_BACKTRACE", "1");
        run(command.arg("--store").arg(store))
    }

    let store = own_store("panic");
    let whole = ask(&store).exits(1)?;
    check_readable(&whole)?;
    whole.says(&[
        "internal error: ",
        "index out of bounds",
        "please report it",
    ])?;

    // DataFusion determines which file is read first.
    for entry in manifest(&store, 1)?.files_of("log_mel") {
        let path = store.join(&entry.path);
        let mut bytes = fs::read(&path)?;
        bytes[100] ^= 1;
        fs::write(&path, bytes)?;
    }

    let damaged = ask(&store).exits(3)?;
    check_readable(&damaged)?;
    damaged.says(&[
        "the store is damaged",
        "features/log_mel/split=",
        "index out of bounds",
    ])
}

/// The session has opened its version and is blocked while it prints the first result, which is larger than a
/// pipe's buffer. The second query runs after the files were removed.
#[apply(trial)]
fn version_removed_by_gc_is_not_damage() -> Result<(), Failed> {
    let store = own_store("going");
    run(inputs()
        .extract(&store)
        .args(["--new-version", "--limit", "30"]))
    .exits(0)?;

    let queries = "SELECT a.clip_key FROM tracks a, tracks b, tracks c; SELECT count(track_title) FROM tracks";
    let mut command = wavemill([
        "sql",
        "--version",
        "1",
        "--format",
        "csv",
        queries,
        "--store",
    ]);

    let mut asking = start(command.arg(&store));
    let mut answer = [0; 9];
    let first = asking
        .stdout
        .as_mut()
        .map(|answers| answers.read_exact(&mut answer));

    let collected = run(wavemill(["gc", "--keep", "1", "--store"]).arg(&store));
    let still_asking = asking.try_wait();
    let asked = finish(asking);

    first.ok_or("no output")??;
    collected.exits(0)?;
    same("the first answer", &answer, b"clip_key\n")?;
    same("it was asking meanwhile", still_asking?.is_none(), true)?;
    asked
        .exits(2)?
        .says(&["version 1", "removed by `wavemill gc`"])
}

/// Tests a join that finds no row for hours, and a COPY of a join that produces rows without end.
#[apply(trial)]
fn a_signal_ends_a_long_join_within_a_second() -> Result<(), Failed> {
    let folder = scratch("signals");
    let joined = "FROM tracks a, tracks b, tracks c, tracks d, tracks e";
    let filter = "WHERE concat(a.track_title, b.track_title, c.track_title, d.track_title, e.track_title) = 'x'";
    let target = folder.join("out.csv");
    let queries = [
        format!("SELECT count(*) {joined} {filter}"),
        format!(
            "COPY (SELECT a.track_id {joined}) TO '{}'",
            target.display()
        ),
    ];

    for (query, signal) in queries.iter().zip(["-INT", "-TERM"]) {
        let mut command = wavemill(["sql", "--allow-write", query, "--store"]);
        let mut child = start(command.arg(whole()));
        let pid = child.id().to_string();
        std::thread::sleep(RUN_TIME_MIN);
        let ended_early = child.try_wait();

        let signalled = run(Command::new("kill").args([signal, &pid]));
        let since = Instant::now();
        let ran = finish(child);

        same("it was running", ended_early?.is_none(), true)?;
        signalled.exits(0)?;
        within(query, since.elapsed(), ..SECOND)?;
        same(
            query,
            ran.exits(130)?.err.as_str(),
            "wavemill: interrupted\n",
        )?;
    }

    same(
        "what the COPY left",
        crate::support::files_below(&folder),
        Vec::new(),
    )
}

/// Creates a table whose column names, values and file names contain terminal control sequences.
fn hostile(folder: &Path) -> Result<Inputs, Failed> {
    let audio = folder.join("audio");
    fs::create_dir_all(audio.join("g0"))?;
    let clip = crate::support::files_below(&inputs().audio)
        .into_iter()
        .map(|name| inputs().audio.join(name))
        .find(|path| fs::metadata(path).is_ok_and(|file| file.len() > 10_000))
        .ok_or("no clip")?;
    fs::copy(clip, audio.join("g0/000.mp3"))?;

    let table = folder.join("t.csv");
    let csv = "clip_key,genre,\"ev\u{1b}[31mil\u{1b}]0;pwn\u{7}\",\"over\u{202e}ride\",\"x\ny\"\n\
               g0/000.mp3,\"a\u{1b}[2Jb\",1,\"\u{9b}31m\",\"two\nlines\"\n\
               g0/gone\u{1b}[2J.mp3,b,2,3,4\n";
    fs::write(&table, csv)?;

    let recipe = folder.join("hostile.toml");
    fs::write(
        &recipe,
        "name = \"ev\\u001b[31mil\"\n[catalog]\ndataset = \"table\"\nrequire_audio = false\n\
         [[catalog.clean]]\nstep = \"st\\u001b[31mep\"\nwhere = \"genre <> ''\"\n\
         [split]\nrule = \"stratified\"\n\
         [[targets]]\nname = \"genre\"\ncolumn = \"genre\"\n[audio]\nduration_s = 1.0\nmin_duration_s = 0.1\n\
         [[features]]\nname = \"log_mel\"\nop = \"mel\"\n",
    )?;

    Ok(Inputs::new(table, audio, recipe))
}

/// Fails if the output contains characters that a terminal would interpret.
fn is_plain(what: &str, ran: &Ran) -> Result<(), Failed> {
    fn acts(c: char) -> bool {
        c != '\n' && c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c)
    }

    match [&ran.out, &ran.err].iter().any(|text| text.contains(acts)) {
        true => Err(format!("{what}: {:?} {:?}", ran.out, ran.err).into()),
        false => Ok(()),
    }
}

#[apply(trial)]
fn names_from_data_are_escaped_for_the_terminal() -> Result<(), Failed> {
    let folder = scratch("escapes");
    let (inputs, store) = (hostile(&folder)?, folder.join("store"));
    let recipe = inputs.recipe.to_string_lossy().into_owned();
    is_plain(
        "recipe check",
        &run(&mut wavemill(["recipe", "check", &recipe])).exits(0)?,
    )?;

    let key: PathBuf = folder.join("key.toml");
    fs::write(&key, "name = \"x\"\n\"k\\u001b[31m\" = 1\n")?;
    let refused = run(wavemill(["recipe", "check"]).arg(&key)).exits(2)?;
    is_plain("an unknown key", &refused)?;
    refused.says(&["k\\u{1b}[31m: unknown key"])?;

    let preview = run(inputs.extract(&store).arg("--dry-run")).exits(0)?;
    is_plain("dry run", &preview)?;
    contains(&(preview.out + &preview.err), "st\\u{1b}[31mep")?;

    is_plain("extract", &run(&mut inputs.extract(&store)).exits(0)?)?;

    let shown = on(&store, &["sql", "SELECT * FROM tracks"]).exits(0)?;
    is_plain("sql", &shown)?;
    for part in [
        "ev\\u{1b}[31mil\\u{1b}]0;pwn\\u{7}",
        "over\\u{202e}ride",
        "x\\ny",
        "a\\u{1b}[2Jb",
        "two\\nlines",
    ] {
        contains(&shown.out, part)?;
    }

    is_plain(
        "rejects",
        &on(&store, &["sql", "SELECT * FROM rejects"]).exits(0)?,
    )?;
    is_plain(
        "classes",
        &on(&store, &["sql", "SELECT * FROM classes"]).exits(0)?,
    )?;

    is_plain(
        "an unknown column",
        &on(&store, &["sql", "SELECT evil FROM tracks"]).exits(2)?,
    )?;
    is_plain(
        "an unknown table",
        &on(&store, &["sql", "SELECT * FROM \"tr\u{1b}[2Jcks\""]).exits(2)?,
    )?;
    is_plain("info", &on(&store, &["info"]).exits(0)?)?;
    is_plain("verify", &on(&store, &["verify"]).exits(0)?)?;

    run(inputs
        .extract(&store)
        .args(["--new-version", "--set", "name=new\u{202e}one"]))
    .exits(0)?;
    is_plain("diff", &on(&store, &["diff", "1", "2"]).exits(0)?)?;

    // Output for other programs is not escaped.
    let csv = on(
        &store,
        &[
            "sql",
            "--format",
            "csv",
            "SELECT genre FROM tracks WHERE clip_key = 'g0/000.mp3'",
        ],
    )
    .exits(0)?;
    same("CSV", csv.out.as_str(), "genre\na\u{1b}[2Jb\n")
}
