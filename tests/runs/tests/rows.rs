//! Results per row: predictions and vectors of `eval`, predictions for folders and lists, and shipped
//! configurations.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;
use wavemill_tests::Failed;

use crate::support::{
    RECIPE, Ran, argv, contains, files_below, fit, has_trainer, inputs, lacks, run, run_in, same,
    scratch, sql, starts_with, trainer, wavemill, whole,
};

/// Returns a small trained model. Tests must not change it.
pub(crate) fn trained() -> &'static Path {
    static TRAINED: OnceLock<PathBuf> = OnceLock::new();
    TRAINED.get_or_init(|| {
        let runs = scratch("rows-run");
        let mut command = fit(whole(), &runs);
        command.args(argv(
            "--set model.name=lstm --set data.frames=16 --set data.batch_size=4 \
             --set train.epochs=3",
        ));

        let ran = run(&mut command);
        assert_eq!(ran.code, Some(0), "fit: {}", ran.err);
        run_in(&runs).expect("one run")
    })
}

fn eval(arguments: &[&str]) -> Command {
    let mut command = trainer(argv("eval --device cpu --threads 1 --side training --json"));
    command.arg(trained()).args(arguments);
    command
}

/// Runs a query on a Parquet file, which is available as the table `r`.
fn ask(file: &Path, query: &str) -> Result<Vec<Value>, Failed> {
    let statements = scratch("ask").join("ask.sql");
    let table = format!(
        "CREATE EXTERNAL TABLE r STORED AS PARQUET LOCATION '{}'",
        file.display()
    );
    fs::write(&statements, format!("{table};\n{query};\n"))?;

    let mut command = wavemill(["sql", "--format", "json", "--allow-write", "--store"]);
    command.arg(whole()).stdin(fs::File::open(statements)?);
    let ran = run(&mut command).exits(0)?;

    let rows = ran
        .out
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(serde_json::from_str);
    Ok(rows.collect::<Result<_, _>>()?)
}

#[apply(trial)]
#[needs(has_trainer)]
fn printed_accuracy_matches_predictions() -> Result<(), Failed> {
    fn keys(file: &Path) -> Result<Vec<Value>, Failed> {
        ask(file, "SELECT clip_key, segment, split FROM r")
    }

    let folder = scratch("predictions");
    let [rows, vectors] = ["rows.parquet", "vectors.parquet"].map(|name| folder.join(name));
    let files = [
        "--predictions",
        rows.to_str().unwrap(),
        "--embeddings",
        vectors.to_str().unwrap(),
    ];

    let told = run(&mut eval(&files)).exits(0)?;
    same(
        "scores beside files",
        told.out == run(&mut eval(&[])).exits(0)?.out,
        true,
    )?;
    same(
        "files",
        files_below(&folder),
        vec!["rows.parquet".to_owned(), "vectors.parquet".to_owned()],
    )?;

    let scores: Value = serde_json::from_str(&told.out)?;
    let level = &scores[0]["segments"]["report"];
    let query = "SELECT count(*) AS n, sum(CASE WHEN genre_true_id = genre_predicted_id THEN 1 ELSE 0 END) AS hits FROM r";
    let counted = &ask(&rows, query)?[0];
    let [n, hits] = ["n", "hits"].map(|name| counted[name].as_u64().unwrap_or_default() as f64);
    same("rows", level["rows"].as_f64(), Some(n))?;
    same("accuracy", level["accuracy"].as_f64(), Some(hits / n))?;

    // Rows are in the order of the store's files, and vectors are in the order of the rows.
    let stored = sql(
        whole(),
        "SELECT clip_key FROM features_log_mel WHERE split = 'training'",
    )?;
    let own = keys(&rows)?;
    same("rows of the side", own.len(), stored.len())?;
    same("keys", keys(&vectors)? == own, true)?;
    let longest = ask(&vectors, "SELECT max(array_length(embedding)) AS n FROM r")?;
    same("width", longest[0]["n"].as_u64(), Some(64))
}

#[apply(trial)]
#[needs(has_trainer)]
fn map_is_complete_and_reproducible() -> Result<(), Failed> {
    fn words(file: &Path) -> [String; 2] {
        ["--map".to_owned(), file.to_string_lossy().into_owned()]
    }

    let folder = scratch("map");
    let [rows, map, again, ranks] = [
        "rows.parquet",
        "map.parquet",
        "again.parquet",
        "ranks.parquet",
    ]
    .map(|name| folder.join(name));
    let mut command = eval(&["--predictions", rows.to_str().unwrap()]);
    let told = run(command.args(words(&map))).exits(0)?;
    // The synthetic data set has too few rows for a perplexity of 30.
    contains(&told.err, "instead of 30")?;
    same(
        "scores beside a map",
        told.out == run(&mut eval(&[])).exits(0)?.out,
        true,
    )?;

    let query = "SELECT clip_key, segment, genre_true_id, genre_predicted FROM r";
    same("rows", ask(&map, query)? == ask(&rows, query)?, true)?;
    let query = "SELECT count(*) AS n FROM r WHERE isnan(x) OR isnan(y) OR x IS NULL OR y IS NULL";
    same("places", ask(&map, query)?[0]["n"].as_u64(), Some(0))?;

    run(eval(&["--perplexity", "30"]).args(words(&again))).exits(0)?;
    same("bytes", fs::read(&map)? == fs::read(&again)?, true)?;
    run(eval(&["--nproc", "2"]).args(words(&ranks))).exits(0)?;
    let query = "SELECT clip_key, segment, genre_true FROM r";
    same("ranks", ask(&ranks, query)? == ask(&map, query)?, true)?;

    run(eval(&["--predictions", map.to_str().unwrap()]).args(words(&map)))
        .exits(2)?
        .says(&["--predictions and --map are the same file"])?;

    let nowhere = folder.join("none/map.parquet");
    run(eval(&[]).args(words(&nowhere)))
        .exits(1)?
        .says(&["cannot write", "none/map.parquet"])
}

#[apply(trial)]
#[needs(has_trainer)]
fn two_ranks_write_the_same_rows_as_one() -> Result<(), Failed> {
    fn accuracy(ran: &Ran) -> Result<Value, Failed> {
        Ok(serde_json::from_str::<Value>(&ran.out)?[0]["segments"]["report"]["accuracy"].clone())
    }

    let folder = scratch("ranks-predictions");
    let [one, two] = ["one.parquet", "two.parquet"].map(|name| folder.join(name));
    let alone = run(&mut eval(&["--predictions", one.to_str().unwrap()])).exits(0)?;
    let both = run(&mut eval(&[
        "--predictions",
        two.to_str().unwrap(),
        "--nproc",
        "2",
    ]))
    .exits(0)?;

    same("one speaks", both.out.lines().count(), 1)?;
    same("accuracy", accuracy(&both)?, accuracy(&alone)?)?;

    let query = "SELECT clip_key, segment, genre_true_id, genre_predicted_id FROM r";
    same(
        "rows in order",
        ask(&two, query)? == ask(&one, query)?,
        true,
    )
}

#[apply(trial)]
#[needs(has_trainer)]
fn unwritable_file_is_reported_before_evaluation() -> Result<(), Failed> {
    let folder = scratch("no-file");
    let wanted = folder.join("none/rows.parquet");
    let ran = run(&mut eval(&["--predictions", wanted.to_str().unwrap()])).exits(1)?;
    lacks(&ran.err, ".part")?;
    ran.says(&["cannot write", "none/rows.parquet"])?;

    let one = folder.join("rows.parquet");
    let arguments = [
        "--predictions",
        one.to_str().unwrap(),
        "--embeddings",
        one.to_str().unwrap(),
    ];
    run(&mut eval(&arguments))
        .exits(2)?
        .says(&["use two different files"])?;
    same("files", files_below(&folder), Vec::new())
}

#[apply(trial)]
#[needs(has_trainer)]
fn folders_and_lists_are_predicted_like_files() -> Result<(), Failed> {
    fn predict(folder: &Path, arguments: &[&str]) -> Ran {
        let mut command = wavemill(["predict", "--run"]);
        command.arg(trained()).args(arguments).current_dir(folder);
        run(&mut command)
    }

    let folder = scratch("predict-folder");
    let keys = sql(
        whole(),
        "SELECT clip_key FROM features_log_mel ORDER BY 1 LIMIT 3",
    )?;
    let clips: Vec<PathBuf> = keys
        .iter()
        .map(|row| inputs().clip(row["clip_key"].as_str().unwrap()))
        .collect();

    let [a, b, c] = ["in/a.mp3", "in/deep/b.mp3", "c.mp3"].map(|name| folder.join(name));
    fs::create_dir_all(folder.join("in/deep"))?;
    for (from, to) in clips.iter().zip([&a, &b, &c]) {
        fs::copy(from, to)?;
    }

    let want = predict(&folder, &["in/a.mp3", "in/deep/b.mp3", "c.mp3"])
        .exits(0)?
        .out;
    same("answers", want.lines().count(), 3)?;

    fs::write(folder.join("list.txt"), "in\nc.mp3\n")?;
    same(
        "a folder and a file",
        predict(&folder, &["in", "c.mp3"]).exits(0)?.out,
        want.clone(),
    )?;
    same(
        "a list",
        predict(&folder, &["--list", "list.txt"]).exits(0)?.out,
        want.clone(),
    )?;
    same(
        "a list as an argument",
        predict(&folder, &["@list.txt"]).exits(0)?.out,
        want.clone(),
    )?;

    // Predicts with two models, which are the same run here.
    let twin = trained().to_string_lossy().into_owned();
    let both = predict(&folder, &["--run", &twin, "in", "c.mp3"])
        .exits(0)?
        .out;
    same("lines of both", both.lines().count(), 6)?;
    // Models of runs with the same name are identified by the paths of the runs.
    let name = twin.as_str();
    let named = format!("\"run\":\"{name}\"");
    same(
        "each line names its run",
        both.lines().all(|line| line.contains(&named)),
        true,
    )?;

    let table = predict(&folder, &["--run", &twin, "--table", "in", "c.mp3"])
        .exits(0)?
        .out;
    let lines: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    same("a header and three songs", lines.len(), 4)?;
    same("the header", &lines[0], &vec!["song", name, name])?;
    for line in &lines[1..] {
        same("one model says one thing", &line[1..3], &line[3..5])?;
    }

    // A file that cannot be decoded is reported, the other files are predicted, and the exit code is 1.
    fs::write(folder.join("in/b.mp3"), "no audio")?;
    let ran = predict(&folder, &["in", "c.mp3"]).exits(1)?;
    same("the others", ran.out, want)?;
    let lines: Vec<&str> = ran.err.lines().collect();
    starts_with(lines[0], "in/b.mp3: not_audio")?;
    same(
        "counted",
        lines[1..] == ["wavemill: no rows for 1 of 4 clips"],
        true,
    )?;

    fs::create_dir(folder.join("empty"))?;
    predict(&folder, &["empty"])
        .exits(2)?
        .says(&["empty: the folder contains no clips"])
}

/// Creates a store whose recipe has the name of a shipped configuration.
fn named_store(name: &str) -> Result<PathBuf, Failed> {
    let folder = scratch("named");
    let recipe = folder.join("recipe.toml");
    fs::write(&recipe, RECIPE.replace("\"tests\"", &format!("\"{name}\"")))?;
    let mut inputs = inputs().clone();
    inputs.recipe = recipe;
    let store = folder.join("store");
    run(&mut inputs.extract(&store)).exits(0)?;
    Ok(store)
}

#[apply(trial)]
#[needs(has_trainer)]
fn a_document_has_its_own_schedule() -> Result<(), Failed> {
    fn small(store: &Path, arguments: &[&str]) -> Ran {
        let mut command = fit(store, &scratch("like"));
        command
            .args(argv(
                "--set train.steps=1 --set model.name=lstm --set data.frames=8",
            ))
            .args(arguments);
        run(&mut command)
    }

    let listed = run(&mut trainer(["fit", "--like", "list"])).exits(0)?.out;
    for name in [
        "fma-large",
        "gtzan-segments",
        "fma-small",
        "fma-windows",
        "gtzan-images",
    ] {
        contains(&listed, name)?;
        run(&mut trainer(["fit", "--like", name, "--print-config"])).exits(0)?;
    }

    let shown = run(&mut trainer(argv(
        "fit --like gtzan-segments --print-config",
    )))
    .exits(0)?
    .out;
    contains(&shown, "name = \"genregenie-cnn\"             # text")?;
    lacks(&shown, "[schedule.step]")?;

    let store = named_store("gtzan-segments")?;
    let told = small(&store, &[]).exits(0)?.err;
    contains(
        &told,
        "those of fma-large: use --like gtzan-segments for those of GenreGenie",
    )?;

    let plain = ["--set", "model.channels=1", "--set", "data.feature=log_mel"];
    let told = small(
        &store,
        &[&["--like", "gtzan-segments"][..], &plain].concat(),
    )
    .exits(0)?
    .err;
    lacks(&told, "use --like")?;
    let conflict = "note: model.name = \"lstm\", where gtzan-segments has \"genregenie-cnn\"";
    same("conflicts", told.lines().any(|line| line == conflict), true)
}

#[apply(trial)]
#[needs(has_trainer)]
fn pytorch_weights_error_names_the_conversion_command() -> Result<(), Failed> {
    let folder = scratch("pickle");
    let weights = folder.join("resnet50.pth");
    fs::write(&weights, b"PK\x03\x04 and so on")?;

    let runs = folder.join("runs");
    let mut command = fit(whole(), &runs);
    command
        .args(["--model", "resnet50", "--init"])
        .arg(&weights);

    let command_said = format!("scripts/convert_weights.py {} ", weights.display());
    run(&mut command)
        .exits(2)?
        .says(&[&command_said, "resnet50.safetensors"])?;
    same("a folder of runs", runs.exists(), false)
}
