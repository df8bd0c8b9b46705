//! Output of the commands: help, error lines and exit codes are compared with reviewed texts, and output formats
//! with the store.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use wavemill_tests::Failed;

use crate::support::{
    Inputs, Ran, argv, contains, files_below, has_trainer, inputs, manifest, own_store, program,
    run, same, scratch, sql, trainer, wavemill, whole, within,
};

/// Compares a text with its reviewed snapshot. With `WAVEMILL_BLESS=1`, rewrites the snapshot instead.
fn snapshot(name: &str, text: &str) -> Result<(), Failed> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/snapshots")
        .join(format!("{name}.txt"));

    if std::env::var_os("WAVEMILL_BLESS").is_some_and(|value| value == "1") {
        return Ok(fs::write(path, text)?);
    }

    let wanted = fs::read_to_string(&path).unwrap_or_default();
    if text == wanted {
        return Ok(());
    }

    let line = text
        .lines()
        .zip(wanted.lines())
        .take_while(|(is, was)| is == was)
        .count();
    let [is, was] = [text, &wanted].map(|text| text.lines().nth(line).unwrap_or("(end)"));
    let hint = "WAVEMILL_BLESS=1 rewrites it; then review the diff";
    Err(format!(
        "{}:{}: is  {is}\nbut was {was}\n{hint}",
        path.display(),
        line + 1
    )
    .into())
}

/// Returns the subcommands listed in a help text, which may be in several groups. Names of arguments are in brackets or
/// in upper case.
fn subcommands(help: &str) -> Vec<String> {
    let lines = help.lines().take_while(|line| !line.starts_with("Options"));
    let names = lines.filter_map(|line| line.strip_prefix("  "));
    names
        .filter(|line| line.starts_with(|letter: char| letter.is_ascii_lowercase()))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

/// Columns of a line of examples: a narrow terminal wraps longer lines, which can then not be copied.
const EXAMPLE_COLUMNS: usize = 80;
/// Columns of other lines.
const LINE_COLUMNS: usize = 100;

/// Checks what all help pages have in common: examples that can be copied, one line for the options of all commands,
/// and one line per option where it fits.
fn check_page(page: &str) -> Result<(), Failed> {
    let mut is_example = false;
    for line in page.lines() {
        is_example |= line.starts_with("Example");
        let most = match is_example && line.starts_with("  ") {
            true => EXAMPLE_COLUMNS,
            false => LINE_COLUMNS,
        };
        within(
            &format!("columns of `{line}`"),
            line.chars().count(),
            0..=most,
        )?;
    }
    same("examples", is_example, true)?;
    contains(page, "  -h, --help")?;

    let is_first = page.contains("Usage: wavemill [OPTIONS] <COMMAND>");
    let line = "\nOptions and exit codes of all commands: see `wavemill --help`\n";
    same("line about options", page.contains(line), !is_first)?;
    same(
        "options of all commands",
        page.contains("--quiet"),
        is_first,
    )?;
    // clap puts the text of an option below its name if one of them has two texts.
    same(
        "texts below options",
        page.contains("Possible values:"),
        false,
    )
}

/// Function that returns a command of one of the programs with the given arguments.
type Start = fn(&[PathBuf]) -> Command;

#[apply(trial)]
fn help_is_as_reviewed() -> Result<(), Failed> {
    help_equals_snapshots("help", |words| wavemill(words), 13)
}

#[apply(trial)]
#[needs(has_trainer)]
fn trainers_help_is_as_reviewed() -> Result<(), Failed> {
    help_equals_snapshots("train-help", |words| trainer(words), 4)
}

/// Compares the help of a program and of all its subcommands with snapshots whose file names begin with `name`.
fn help_equals_snapshots(name: &str, program: Start, least: usize) -> Result<(), Failed> {
    let mut left: Vec<Vec<String>> = vec![Vec::new()];
    let mut seen = 0;
    while let Some(words) = left.pop() {
        let paths: Vec<PathBuf> = words.iter().map(PathBuf::from).collect();
        let ran = run(program(&paths).arg("--help")).exits(0)?;
        same("stderr of --help", ran.err, String::new())?;

        snapshot(
            &format!(
                "{name}{}",
                words
                    .iter()
                    .map(|word| format!("-{word}"))
                    .collect::<String>()
            ),
            &ran.out,
        )?;
        check_page(&ran.out)?;

        // `wavemill train` passes all its arguments on, including `--help`. The help of `wavemill-train` is
        // reviewed separately.
        let own = subcommands(&ran.out)
            .into_iter()
            .filter(|name| name != "train");
        left.extend(own.map(|name| [&words[..], &[name]].concat()));
        seen += 1;
    }

    within("commands", seen, least..)
}

#[apply(trial)]
#[needs(has_trainer)]
fn trainers_help_is_found_by_every_way() -> Result<(), Failed> {
    for (words, wanted) in [
        ("help train fit", "train-help-fit"),
        ("train help fit", "train-help-fit"),
        ("train fit --help", "train-help-fit"),
        ("help train", "train-help"),
        ("train --help", "train-help"),
    ] {
        snapshot(wanted, &run(&mut wavemill(argv(words))).exits(0)?.out)?;
    }

    let all = run(&mut wavemill(argv("train fit --help-all")))
        .exits(0)?
        .out;
    contains(&all, "\n      --no-verify ")
}

/// Puts a built program into a folder, as an installation does.
fn install(name: &str, folder: &Path) -> Result<PathBuf, Failed> {
    let installed = folder.join(name);
    fs::copy(program(name), &installed)?;
    Ok(installed)
}

#[apply(trial)]
fn missing_trainer_is_an_error_with_a_remedy() -> Result<(), Failed> {
    let folder = scratch("no-trainer");
    let wavemill = install("wavemill", &folder)?;
    let ran = run(Command::new(&wavemill)
        .args(["train", "models"])
        .env("PATH", "/nowhere"));
    let wanted = format!(
        "wavemill: cannot start wavemill-train: it is neither in {} nor on PATH; build it in a checkout of wavemill with \
         `scripts/libtorch.sh && scripts/build.sh -p wavemill-trainer`, and copy it there\n",
        folder.display()
    );
    same("stderr", ran.exits(2)?.err, wanted)
}

#[apply(trial)]
#[needs(has_trainer)]
fn trainer_without_its_libraries_is_an_error_with_a_remedy() -> Result<(), Failed> {
    let folder = scratch("no-libtorch");
    let wavemill = install("wavemill", &folder)?;
    let trainer = install("wavemill-train", &folder)?;
    // The program names its libraries. One that exists nowhere is like one that is not installed.
    let mut bytes = fs::read(&trainer)?;
    let names = bytes
        .windows(9)
        .enumerate()
        .filter(|(_, name)| *name == b"libc10.so");
    let places: Vec<usize> = names.map(|(place, _)| place).collect();
    for place in places {
        bytes[place..place + 9].copy_from_slice(b"libc99.so");
    }
    fs::write(&trainer, bytes)?;

    let ran = run(Command::new(&wavemill).args(["train", "models"]));
    let wanted = "wavemill: cannot start wavemill-train: its library libc99.so is not found; put libtorch 2.11 in a folder \
                  `libtorch` beside wavemill-train, or add the folder `torch/lib` of an installed torch 2.11 to \
                  LD_LIBRARY_PATH\n";
    same("stderr", ran.exits(2)?.err, wanted.to_owned())
}

#[apply(trial)]
#[needs(has_trainer)]
fn moved_trainer_finds_the_libtorch_beside_it() -> Result<(), Failed> {
    let folder = scratch("moved-trainer");
    let trainer = install("wavemill-train", &folder)?;
    // The loader lists the places of libraries with this variable.
    let listing = |trainer: &Path| run(Command::new(trainer).env("LD_TRACE_LOADED_OBJECTS", "1"));
    let before = listing(&trainer).exits(0)?.out;
    let line = before.lines().find(|line| line.contains("libc10.so =>"));
    let place = line
        .and_then(|line| line.split_whitespace().nth(2))
        .ok_or("no libc10")?;

    let beside = folder.join("libtorch/lib");
    fs::create_dir_all(&beside)?;
    std::os::unix::fs::symlink(place, beside.join("libc10.so"))?;
    let wanted = format!("libc10.so => {}/libc10.so", beside.display());
    contains(&listing(&trainer).exits(0)?.out, &wanted)
}

/// Command lines whose exit code and stderr are compared with a snapshot. `STORE`, `DATA` and `AUDIO` are
/// placeholders for paths.
const WRONG: &[&str] = &[
    "frobnicate",
    "extract",
    "extract --recipe nosuch --audio AUDIO --store STORE",
    "extract --recipe demo --audio AUDIO --store STORE",
    "extract --recipe demo --metadata nosuch --audio AUDIO --store STORE",
    "extract --recipe demo --metadata DATA --audio nosuch --store STORE",
    "extract --recipe demo --metadata DATA --audio DATA --store STORE",
    "extract --recipe demo --set audio.durations=3 --audio AUDIO --store STORE",
    "extract --recipe demo --memory-limit 1MiB --audio AUDIO --store STORE",
    "extract --recipe demo --memory-limit 4 --audio AUDIO --store STORE",
    "extract --recipe demo --threads two --audio AUDIO --store STORE",
    "extract --recipe demo --max-reject-fraction 2 --audio AUDIO --store STORE",
    "extract --recipe TESTS --metadata DATA --audio AUDIO --store STORE --limit 5",
    "extract --recipe demo --metadata DATA --audio AUDIO --store STORE",
    "extract --recipe TESTS --metadata TESTS --audio AUDIO --store STORE",
    "extract --recipe TESTS --metadata DATA --audio AUDIO --store TESTS",
    "extract --recipe demo --metadata DATA --audio AUDIO --store ftp://host/store",
    "extract --recipe demo --metadata ftp://host/tracks.csv --audio AUDIO --store nosuch",
    "extract --recipe demo --audio ftp://host/music --store nosuch",
    "gc --store file:///srv/store --keep 1",
    r#"sql --store STORE --table mine=s3://bucket/x.csv "SELECT 1""#,
    r#"sql --store nosuch "SELECT 1""#,
    r#"sql --store TESTS "SELECT 1""#,
    r#"sql --store STORE --out nosuch/x.csv "SELECT 1""#,
    r#"sql --store STORE --out STORE "SELECT 1""#,
    r#"sql --store STORE --allow-write "COPY tracks TO 'store://wavemill/data/x.csv'""#,
    r#"sql --store STORE "SET datafusion.runtime.memory_limit = '64G'""#,
    r#"sql --store STORE "SELEKT 1""#,
    r#"sql --store STORE "SELECT nosuch FROM tracks""#,
    r#"sql --store STORE "SELECT 1 FROM nosuch""#,
    r#"sql --store STORE "DROP TABLE tracks""#,
    r#"sql --store STORE "COPY tracks TO 'x.csv'""#,
    r#"sql --store STORE "CREATE TABLE x AS SELECT 1""#,
    r#"sql --store STORE "INSERT INTO tracks SELECT * FROM tracks""#,
    r#"sql STORE "DELETE FROM tracks""#,
    r#"sql --store STORE "SELECT 1 FROM features_log_mel WHERE genre = 'Rock'""#,
    r#"sql --store STORE "SELECT log_mel[0] FROM features_log_mel""#,
    r#"sql --store STORE "SELECT mfcc FROM features_log_mel""#,
    r#"sql --store STORE "SELECT 1 FROM tracks WHERE""#,
    r#"sql --store STORE "SELECT 1 FROM 'x.csv'""#,
    r#"sql --store STORE --table x=nosuch.csv "SELECT 1""#,
    r#"sql --store STORE --format csv "SELECT log_mel FROM features_log_mel""#,
    r#"sql --store STORE --version 7 "SELECT 1""#,
    "info --store nosuch",
    "info --store STORE --version 7",
    "info STORE --version 7",
    "verify STORE --version 7",
    "info --store STORE --version paper",
    "info --store STORE --files --feature nosuch",
    "verify --store nosuch",
    "tag --store STORE 7 paper",
    "tag --store STORE 1 2026",
    "tag --store STORE 1 ../paper",
    "tag --store STORE 1 latest",
    "tag --store nosuch 1 paper",
    "gc --store STORE --keep 0",
    "diff --store STORE 1 2",
    "diff STORE latest 2",
    "diff --store STORE 1 paper",
    "export --store nosuch --format npy --out nosuch/x",
    "export --store STORE --format npy --out nosuch",
    "export --store STORE --feature nosuch --format npy --out nosuch",
    "export --store STORE --feature mfcc --split tset --format npy --out nosuch",
    "export --store STORE --feature mfcc --target mood --format png --out nosuch",
    "export --store STORE --feature mfcc --target genre --format npy --out nosuch",
    "export --store STORE --feature mfcc --format npy --out DATA",
    "export --store STORE --feature mfcc --format npy --out TESTS",
    "export --store STORE --feature mfcc --format npy --out STORE",
    "export --store STORE --feature mfcc --format npy --out nosuch/x",
    "export --store STORE --format mat --out nosuch",
    "export --store STORE --feature mfcc --format wav --out nosuch",
    "export --store STORE --feature log_mel --format wav --out nosuch",
    "recipe show nosuch",
    "recipe check demo --set split.rule=fair",
    "recipe check demo --set split=artist",
    "recipe check demo --set features.mfc=none",
    "recipe check demo --set features.mfcc.n_mfc=13",
    "recipe check demo --set features.mfcc.colour=13",
    "features nosuch.mp3 --recipe demo --feature mfcc",
    "features nosuch.mp3 none.mp3 --recipe demo --feature mfcc",
    "features TESTS --recipe demo --feature mfcc",
    "features - --recipe demo --feature mfcc",
    "features nosuch.mp3 --recipe demo",
    "features nosuch.mp3 --recipe demo --feature nosuch",
    "features nosuch.mp3 --recipe demo --feature mfcc --out nosuch/x",
    "predict --run nosuch nosuch.mp3",
    "predict --run STORE nosuch.mp3",
    "completions nosuch",
];

/// Wrong command lines for `wavemill-train`, checked like [`WRONG`].
const INVALID_TRAINER_ARGS: &[&str] = &[
    "frobnicate",
    "fit",
    "fit --store nosuch",
    "fit --store ftp://host/store",
    "eval s3://bucket/run",
    "fit --store STORE --version 7",
    "fit --store STORE --version paper",
    "fit --store STORE --model vgg",
    "fit --store STORE --model resnet",
    "fit --store STORE --model mlp-4",
    "fit --store STORE --set data.frames=8",
    "fit --store STORE --set model.channels=3",
    "fit --store STORE --freeze",
    "fit --store STORE --feature nosuch",
    "fit --store STORE --target mood",
    "fit --store STORE --split random",
    "fit --store STORE --config nosuch.toml",
    "fit --store STORE --set optimizer.rate=1",
    "fit --store STORE --set lr=0.1",
    "fit --store STORE --set learning_rate=0.1",
    "fit --store STORE --set optimizer.lr=fast",
    "fit --store STORE --set optimizer.lr=0",
    "fit --store STORE --set train.select=speed",
    "fit --store STORE --set lr",
    "fit --store STORE --like gtzan",
    "fit --store STORE --like fma-smal",
    "fit --store STORE --like gtzan-segments",
    "fit --store STORE --epochs 0",
    "fit --store STORE --epochs ten",
    "fit --store STORE --nproc 0",
    "fit --store STORE --device tpu",
    "fit --resume nosuch",
    "fit --resume STORE",
    "fit --resume nosuch --seed 1",
    "fit --resume nosuch --like fma-small",
    "fit STORE --version 7",
    "export nosuch --format torchscript --out STORE",
    "eval nosuch",
    "eval STORE",
    "sweep nosuch.toml --store STORE",
];

#[apply(trial)]
fn errors_are_as_reviewed() -> Result<(), Failed> {
    errors_equal_snapshot("errors", |words| wavemill(words), WRONG)
}

#[apply(trial)]
#[needs(has_trainer)]
fn trainers_errors_are_as_reviewed() -> Result<(), Failed> {
    errors_equal_snapshot("train-errors", |words| trainer(words), INVALID_TRAINER_ARGS)
}

/// Compares the error messages for wrong arguments with the snapshot `name`.
fn errors_equal_snapshot(name: &str, program: Start, wrong: &[&str]) -> Result<(), Failed> {
    let folder = scratch("wrong-words");
    let store = own_store("errors");
    let Inputs {
        metadata,
        audio,
        recipe,
    } = inputs();

    let places: [(&str, &Path); 4] = [
        ("STORE", &store),
        ("DATA", metadata.as_ref().unwrap()),
        ("AUDIO", audio),
        ("TESTS", recipe),
    ];

    let mut text = String::new();
    for line in wrong {
        let words = argv(line);
        let mut words_there: Vec<PathBuf> = Vec::new();
        for word in &words {
            let place = places.iter().find(|(name, _)| name == word);
            words_there.push(place.map_or(Path::new(word), |(_, path)| path).to_owned());
        }
        let ran = run(program(&words_there).current_dir(&folder));

        // Removes the notes that are printed only on machines with a GPU.
        let err = ran
            .err
            .lines()
            .filter(|line| !line.starts_with("note: "))
            .map(|line| format!("{line}\n"))
            .collect();
        let said = places.iter().fold(err, |text: String, (name, path)| {
            text.replace(path.to_str().unwrap(), name)
        });

        let code = ran.code.ok_or("killed")?;
        same("stdout of an error", ran.out, String::new())?;

        let program = if name == "errors" {
            "wavemill"
        } else {
            "wavemill train"
        };
        text += &format!("$ {program} {}\n{said}exit {code}\n\n", words.join(" "));
    }

    same("files that they leave", files_below(&folder), Vec::new())?;
    snapshot(name, &text)
}

/// Compares the list and the descriptions of the shipped recipes with a snapshot.
#[apply(trial)]
fn recipes_are_as_reviewed() -> Result<(), Failed> {
    let mut text = run(&mut wavemill(["recipe", "list"])).exits(0)?.out;
    let names: Vec<String> = text
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect();
    within("recipes", names.len(), 5..)?;

    for name in names {
        let ran = run(&mut wavemill(["recipe", "check", &name])).exits(0)?;
        text += &format!("\n$ wavemill recipe check {name}\n{}{}", ran.out, ran.err);

        let shown = scratch("recipe").join("shown.toml");
        fs::write(
            &shown,
            run(&mut wavemill(["recipe", "show", &name])).exits(0)?.out,
        )?;
        run(wavemill(["recipe", "check"]).arg(shown)).exits(0)?;
    }

    snapshot("recipes", &text)
}

/// A command whose output is piped to `head -1` ends without an error message, whichever program writes the output.
#[apply(trial)]
fn closed_stdout_ends_quietly() -> Result<(), Failed> {
    let store = own_store("pipes");
    let on_store: [&str; 9] = [
        "info",
        "info --json",
        "info --files",
        "diff 1 1",
        r#"sql "SELECT * FROM tracks_all""#,
        r#"sql --format csv "SELECT * FROM tracks_all a CROSS JOIN tracks_all b""#,
        r#"sql --format json "SELECT * FROM tracks_all a CROSS JOIN tracks_all b""#,
        r#"sql --format arrow "SELECT * FROM features_log_mel""#,
        "gc --keep 1 --json",
    ];

    let mut commands: Vec<Command> = Vec::new();
    for words in on_store {
        commands.push(wavemill(argv(words)));
        commands.last_mut().unwrap().arg("--store").arg(&store);
    }

    let alone: [&[&str]; 5] = [
        &["--help"],
        &["recipe", "list"],
        &["recipe", "show", "demo"],
        &["completions", "bash"],
        &["extract", "--help"],
    ];

    commands.extend(alone.map(wavemill));

    for word in ["--json", "--dry-run"] {
        commands.push(inputs().extract(&store));
        commands.last_mut().unwrap().arg(word);
    }

    for mut command in commands {
        let (reader, writer) = std::io::pipe()?;
        drop(reader);
        let output = command.stdout(writer).stderr(Stdio::piped()).output()?;

        // The demo's metadata has a quote that is not closed.
        let messages = String::from_utf8(output.stderr)?;
        let errors: String = messages
            .lines()
            .filter(|line| !line.starts_with("warning: "))
            .collect();
        let quiet = (output.status.code(), errors);
        same(&format!("{command:?}"), quiet, (Some(0), String::new()))?;
    }
    Ok(())
}

/// A reader of stderr may end before the command, as in `2>&1 | head`: the command completes its output, with the exit
/// code of its result.
#[apply(trial)]
fn closed_pipes_change_no_result() -> Result<(), Failed> {
    let store = own_store("closed");
    let closed = || -> Result<_, Failed> {
        let (reader, writer) = std::io::pipe()?;
        drop(reader);
        Ok(writer)
    };

    let out = store.with_file_name("arrays");
    let mut export = wavemill(argv(
        "export --format npy --feature log_mel --progress plain",
    ));
    export.arg("--store").arg(&store).arg("--out").arg(&out);
    export.env("WAVEMILL_PROGRESS_S", "0.001");
    let ended = export.stderr(closed()?).status()?;
    same("export", ended.code(), Some(0))?;
    same("is there", out.join("training.npy").is_file(), true)?;

    let mut wrong = wavemill(argv("info --store nowhere"));
    same(
        "no store",
        wrong.stderr(closed()?).status()?.code(),
        Some(2),
    )?;

    let file = manifest(&store, 1)?.files.swap_remove(0);
    let path = store.join(&file.path);
    fs::write(&path, "damaged")?;
    for words in ["verify", "verify --json"] {
        let mut verify = wavemill(argv(words));
        verify.arg("--store").arg(&store).stdout(closed()?);
        let ended = verify.stderr(Stdio::null()).status()?;
        same(words, ended.code(), Some(3))?;
    }
    Ok(())
}

/// A command that cannot write to stdout says so, and ends with the exit code of a full disk.
#[apply(trial)]
fn full_stdout_is_named() -> Result<(), Failed> {
    let mut commands = vec![
        wavemill(["recipe", "show", "demo"]),
        wavemill(["completions", "bash"]),
    ];
    if has_trainer() {
        commands.push(trainer(["models", "--json"]));
        commands.push(trainer(["fit", "--like", "list"]));
    }

    for mut command in commands {
        let full = fs::File::create("/dev/full")?;
        let output = command.stdout(full).stderr(Stdio::piped()).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        same(&format!("{command:?}"), output.status.code(), Some(5))?;
        contains(&said, ": cannot write to stdout: No space left on device")?;
    }
    Ok(())
}

#[apply(trial)]
fn completions_for_every_shell() -> Result<(), Failed> {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = run(&mut wavemill(["completions", shell])).exits(0)?;
        for word in ["extract", "max-reject-fraction"] {
            same(&format!("{word} in {shell}"), ran.out.contains(word), true)?;
        }

        if shell == "bash" {
            let script = scratch("completions").join("wavemill.bash");
            fs::write(&script, ran.out)?;
            run(Command::new("bash").arg("-n").arg(script)).exits(0)?;
        }
    }
    Ok(())
}

/// Runs the demo in the folder `my demo` of `folder`, which is the current folder.
fn demo(folder: &Path, options: &[&str]) -> Result<Ran, Failed> {
    program("demo-audio");
    let mut command = wavemill(["demo", "my demo"]);
    run(command.args(options).current_dir(folder)).exits(0)
}

/// Returns the last lines of a demo, which are commands.
fn next_commands(ran: &Ran) -> Vec<&str> {
    let (_, next) = ran.err.rsplit_once("\nNext, ").unwrap_or_default();
    next.lines().skip(1).map(str::trim_start).collect()
}

/// Runs the demo twice. The first run creates a store and prints query results and rejects; the second run has nothing
/// to do.
#[apply(trial)]
fn demo_prints_query_results() -> Result<(), Failed> {
    let folder = scratch("demo");

    let foreign = scratch("demo-foreign");
    fs::create_dir_all(foreign.join("data/mine"))?;
    let refused = run(wavemill(["demo", "-q"]).arg(&foreign)).exits(1)?;
    let wanted = format!(
        "demo-audio: {} is not empty: choose another folder, or give --force to demo-audio\n",
        foreign.join("data").display()
    );
    same("a folder with other files", refused.err, wanted)?;

    let absent = run(&mut wavemill(["demo", "-q", "/proc/demo"])).exits(1)?;
    same(
        "a folder that cannot be created",
        absent.err,
        "wavemill: cannot create /proc/demo/data: No such file or directory (os error 2)\n"
            .to_owned(),
    )?;

    let first = demo(&folder, &["--tracks", "40"])?;
    for answer in [
        "genre",
        "minutes",
        "audio",
        "not_audio",
        "bad_row",
        "bad_encoding",
    ] {
        contains(&first.out, answer)?;
    }

    contains(&first.err, "synthetic")?;
    contains(&first.err, "clips planned")?;

    let store = folder.join("my demo/store");
    within("clips", manifest(&store, 1)?.counts.clips_written, 41..)?;
    let counts = manifest(&store, 1)?.counts;
    let [labelled, audio] = [0, 1].map(|step| counts.rows_dropped[step].rows);
    contains(
        &first.err,
        &format!(
            "\n  {} dropped: {labelled} without a genre, {audio} without audio\n",
            labelled + audio
        ),
    )?;
    run(wavemill(["verify", "--store"]).arg(&store)).exits(0)?;

    let second = demo(&folder, &["--tracks", "40"])?;
    contains(&second.err, "nothing to do")?;
    same("the same answers", second.out, first.out)
}

/// The demo ends with commands that work in the folder in which it was started.
#[apply(trial)]
fn demo_prints_commands_to_continue_with() -> Result<(), Failed> {
    let folder = scratch("demo-next");
    let ran = demo(&folder, &["--tracks", "40"])?;
    let wavemill = program("wavemill").display().to_string();
    let query = "SELECT class, split, count(*) FROM features_log_mel JOIN classes ON class_id = genre \
                 WHERE target = 'genre' GROUP BY 1, 2 ORDER BY 1, 2";
    let report = format!("{wavemill} report --store 'my demo/store'");
    let sql = format!("{wavemill} sql --store 'my demo/store' \"{query}\"");
    let wanted = [
        report.clone(),
        format!("{wavemill} demo 'my demo' --train"),
        sql.clone(),
        format!("{wavemill} extract --recipe folders --audio MUSIC --store mystore"),
    ];
    same(
        "commands",
        next_commands(&ran),
        wanted.iter().map(String::as_str).collect(),
    )?;

    run(shell(&report).current_dir(&folder)).exits(0)?;
    same("page", folder.join("report-1.html").exists(), true)?;
    let counts = run(shell(&sql).current_dir(&folder)).exits(0)?;
    contains(&counts.out, "Hip-Hop")
}

/// With `--train`, the demo predicts a clip of the test split and states its genre. Repeated, it keeps the model.
#[apply(trial)]
#[needs(has_trainer)]
fn demo_trains_and_predicts_a_test_clip() -> Result<(), Failed> {
    let folder = scratch("demo-train");
    // Fewer tracks may leave the test split empty.
    let options = ["--tracks", "120", "--train"];
    let ran = demo(&folder, &options)?;
    let store = folder.join("my demo/store");
    let test = sql(
        &store,
        "SELECT clip_key, track_genre_top AS genre FROM features_log_mel JOIN tracks USING (clip_key) \
         WHERE split = 'test' ORDER BY clip_key LIMIT 1",
    )?;
    let text = |name: &str| test[0][name].as_str().unwrap_or_default().to_owned();
    contains(&ran.out, &format!("\ntrue genre: {}\n", text("genre")))?;

    let wavemill = program("wavemill").display().to_string();
    let clip = format!("my demo/data/fma_demo/{}", text("clip_key"));
    let predict = format!("{wavemill} predict --run 'my demo/run' --table '{clip}'");
    contains(&ran.err, &format!("\n   {predict}\n"))?;
    contains(
        &ran.out,
        &run(shell(&predict).current_dir(&folder)).exits(0)?.out,
    )?;

    let train_report = format!("{wavemill} train report 'my demo/run'");
    let serve = format!("{wavemill} serve --run 'my demo/run'");
    same(
        "commands",
        &next_commands(&ran)[1..3],
        &[train_report.as_str(), serve.as_str()],
    )?;
    run(shell(&train_report).current_dir(&folder)).exits(0)?;

    let again = demo(&folder, &options)?;
    contains(
        &again.err,
        "the run is already complete: nothing to do, and its result is unchanged\n",
    )
}

/// Returns the command that runs a line of a shell.
fn shell(line: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", line]);
    command
}

/// Writes 3.5 s of a chord with increasing volume as a 16-bit stereo WAV file.
fn write_wav(path: &Path) -> Result<(), Failed> {
    fn tone(t: f64, hz: f64) -> f64 {
        (2.0 * std::f64::consts::PI * hz * t).sin()
    }

    const RATE_HZ: u32 = 44_100;
    let mut data = Vec::new();
    for n in 0..RATE_HZ * 7 / 2 {
        let t = f64::from(n) / f64::from(RATE_HZ);
        for value in [tone(t, 440.0), tone(t, 554.4) * t / 4.0] {
            data.extend(((value * 12_000.0) as i16).to_le_bytes());
        }
    }

    let bytes = u32::try_from(data.len())?;
    let mut file = Vec::new();
    file.extend(b"RIFF");
    file.extend((36 + bytes).to_le_bytes());
    file.extend(b"WAVEfmt \x10\0\0\0\x01\0\x02\0");
    file.extend(RATE_HZ.to_le_bytes());
    file.extend((RATE_HZ * 4).to_le_bytes());
    file.extend(b"\x04\0\x10\0data");
    file.extend(bytes.to_le_bytes());
    file.extend(data);
    Ok(fs::write(path, file)?)
}

/// Creates a data set of two clips, a WAV and an MP3, with one folder per genre, and a store of it.
fn folders_store() -> Result<(Inputs, PathBuf), Failed> {
    let folder = scratch("features");
    let audio = folder.join("audio");
    fs::create_dir_all(audio.join("tones"))?;
    fs::create_dir_all(audio.join("music"))?;
    write_wav(&audio.join("tones/chord.wav"))?;

    let keys = sql(
        whole(),
        "SELECT clip_key FROM features_mfcc WHERE NOT silent ORDER BY 1 LIMIT 1",
    )?;
    fs::copy(
        inputs().clip(keys[0]["clip_key"].as_str().unwrap()),
        audio.join("music/clip.mp3"),
    )?;

    let inputs = Inputs::of_folders(audio, &folder);
    let store = folder.join("store");
    run(&mut inputs.extract(&store)).exits(0)?;
    Ok((inputs, store))
}

/// Returns the bytes that a command writes to stdout.
fn bytes_of(command: &mut Command) -> Result<Vec<u8>, Failed> {
    let output = command.output()?;
    same("exit code", output.status.code(), Some(0))?;
    Ok(output.stdout)
}

/// Returns the values of an npy file, which follow a header with a stated length.
fn npy_values(npy: &[u8]) -> Result<&[u8], Failed> {
    same("magic", &npy[..8], b"\x93NUMPY\x01\0")?;
    let header = 10 + usize::from(u16::from_le_bytes([npy[8], npy[9]]));
    same("alignment", header % 64, 0)?;
    Ok(&npy[header..])
}

/// Converts JSON numbers to f32.
fn numbers<'a>(values: impl IntoIterator<Item = &'a Value>) -> Vec<f32> {
    values
        .into_iter()
        .filter_map(Value::as_f64)
        .map(|value| value as f32)
        .collect()
}

fn holds(stream: &[u8], tensor: &[u8]) -> bool {
    stream.windows(tensor.len()).any(|window| window == tensor)
}

/// Returns a command that computes a feature of a clip.
fn features(recipe: &Path, clip: &Path, feature: &str, format: &str) -> Command {
    let words = format!("features --feature {feature} --format {format} --recipe");
    let mut command = wavemill(argv(&words));
    command.arg(recipe).arg(clip);
    command
}

#[apply(trial)]
fn features_are_those_of_the_store() -> Result<(), Failed> {
    let (inputs, store) = folders_store()?;
    for clip_key in ["tones/chord.wav", "music/clip.mp3"] {
        for (feature, shape, value_bytes) in [("log_mel", [40, 130], 2), ("mfcc", [13, 130], 4)] {
            let clip = inputs.clip(clip_key);
            let npy = bytes_of(&mut features(&inputs.recipe, &clip, feature, "npy"))?;
            let tensor = npy_values(&npy)?;
            let header = format!("'shape': (1, {}, {})", shape[0], shape[1]);
            same(&header, holds(&npy, header.as_bytes()), true)?;
            same("bytes", tensor.len(), shape[0] * shape[1] * value_bytes)?;

            let query =
                format!("SELECT {feature} FROM features_{feature} WHERE clip_key = '{clip_key}'");
            let mut stored = wavemill(["sql", "--format", "arrow", "--store"]);
            same(
                "in the store",
                holds(&bytes_of(stored.arg(&store).arg(query))?, tensor),
                true,
            )?;
            same(
                "in the stream",
                holds(
                    &bytes_of(&mut features(&inputs.recipe, &clip, feature, "arrow"))?,
                    tensor,
                ),
                true,
            )?;

            let json: Value = serde_json::from_slice(&bytes_of(&mut features(
                &inputs.recipe,
                &clip,
                feature,
                "json",
            ))?)?;
            let columns = "silent, audio_blake3, segment, duration_s, lost_s, offset_s";
            let query = format!(
                "SELECT {columns}, tensor({feature}) AS values FROM features_{feature} WHERE clip_key = '{clip_key}'"
            );
            let row = &sql(&store, &query)?[0];
            for column in columns.split(", ") {
                same(column, numbers([&json[column]]), numbers([&row[column]]))?;
                same(
                    column,
                    json[column].is_number() || json[column] == row[column],
                    true,
                )?;
            }

            same("shape", &json["shape"], &serde_json::json!(shape))?;
            let rows = json["values"].as_array().ok_or("no values")?;
            let values = numbers(rows.iter().filter_map(Value::as_array).flatten());
            let wanted = numbers(row["values"].as_array().ok_or("no list")?);
            same("values", values.len(), shape[0] * shape[1])?;
            same(
                "first value that differs",
                values.iter().zip(&wanted).position(|(is, was)| is != was),
                None,
            )?;

            if value_bytes == 4 {
                let bytes: Vec<u8> = wanted
                    .iter()
                    .flat_map(|value| value.to_le_bytes())
                    .collect();
                same("values as bytes", bytes == tensor, true)?;
            }
        }
    }
    Ok(())
}

#[apply(trial)]
fn features_of_a_bad_clip() -> Result<(), Failed> {
    let bad = sql(
        whole(),
        "SELECT clip_key, reason FROM rejects WHERE reason = 'not_audio' ORDER BY 1 LIMIT 1",
    )?;
    let clip = inputs().clip(bad[0]["clip_key"].as_str().unwrap());
    let good = inputs().clip(files_below(&inputs().audio).first().ok_or("no clip")?);

    let words = argv("features --feature mfcc --format json --recipe");
    let ran = run(wavemill(words).arg(&inputs().recipe).arg(&clip).arg(&good)).exits(1)?;
    contains(&ran.err, &format!("{}: not_audio", clip.display()))?;
    same("the good clip's row", ran.out.lines().count(), 1)?;

    let file = scratch("features-npy").join("rows.npy");
    let words = argv("features --feature mfcc --format npy --recipe");
    let mut command = wavemill(words);
    command
        .arg(&inputs().recipe)
        .args([&clip, &good, &good])
        .arg("--out")
        .arg(&file);

    run(&mut command).exits(1)?;
    same(
        "rows of the good clips",
        holds(&fs::read(file)?, b"'shape': (2, 13, 130)"),
        true,
    )
}

#[apply(trial)]
fn sql_formats_and_refusals() -> Result<(), Failed> {
    fn ask(words: &[&str]) -> Ran {
        run(wavemill(["sql", "--store"]).arg(whole()).args(words))
    }

    let query = "SELECT clip_key, silent FROM features_mfcc ORDER BY clip_key LIMIT 2";
    let csv = ask(&["--format", "csv", query]).exits(0)?.out;
    same("lines", csv.lines().count(), 3)?;
    same("header", csv.lines().next(), Some("clip_key,silent"))?;

    let table = ask(&["SELECT clip_key, log_mel FROM features_log_mel LIMIT 1"])
        .exits(0)?
        .out;
    contains(&table, "f16[40,130]")?;

    let file = scratch("sql").join("out.parquet");
    ask(&[
        "--format",
        "parquet",
        "--out",
        file.to_str().unwrap(),
        "SELECT * FROM features_mfcc",
    ])
    .exits(0)?;
    let bytes = fs::read(&file)?;
    same(
        "Parquet's ends",
        bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"),
        true,
    )?;

    let copy = format!(
        "COPY (SELECT 1) TO '{}'",
        file.with_extension("csv").display()
    );
    ask(&[&copy]).exits(2)?;
    same(
        "a refused COPY writes",
        file.with_extension("csv").exists(),
        false,
    )
}
