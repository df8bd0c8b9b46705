//! `wavemill experiment`: runs from an archive to a comparison of scores with claims, on the synthetic data set.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use wavemill_tests::Failed;

use crate::faults::Mount;
use crate::report::{about, browser, loads_nothing, quiet_visit};
use crate::support::{
    Ran, argv, has_trainer, inputs, kill, metadata_with_features, run, same, scratch, sql, start,
    wavemill,
};

/// Experiment with two models, a variant that needs its own store, and a claim.
const EXPERIMENT: &str = r#"
name = "small"
description = "two models on the synthetic data set"
document = "<b>a paper</b>"
recipe = "RECIPE"

[data]
metadata = ["fma_metadata"]
audio = ["fma_demo"]

[[variants]]
name = "as-in-document"
about = "tracks at random"
train = ['data.split="stratified"']

[[variants]]
name = "20-bands"
about = "fewer bands"
set = ["features.log_mel.n_mels=20"]

[[train]]
name = "crnn"
like = "fma-small"
set = ["train.epochs=2"]

[[train]]
name = "lstm"
like = "fma-small"
set = ['model.name="lstm"', "train.epochs=2"]

[sweep]
like = "fma-small"
set = ["train.epochs=1"]
[sweep.search.parameters]
"optimizer.lr" = [0.001, 0.01]

[[claims]]
metric = "accuracy"
value = 0.9
train = "crnn"
classes = 3
split = "nobody knows"
says = "an accuracy of 90 % <script>alert(1)</script>"

[[claims]]
metric = "loss"
value = 1.5
train = "crnn"
side = "validation"
split = "nobody knows"
says = "a loss of 1.5"
"#;

/// Number of times that one experiment is killed.
const KILLS: u64 = 5;

/// Writes the experiment's file to a folder.
fn file_in(folder: &Path) -> PathBuf {
    let file = folder.join("small.toml");
    let recipe = inputs().recipe.to_string_lossy();
    fs::write(&file, EXPERIMENT.replace("RECIPE", &recipe)).unwrap();
    file
}

/// Returns an `experiment run` command for the synthetic data set.
fn experiment(experiment: &Path, out: &Path) -> Command {
    let mut command = wavemill(["experiment", "run"]);
    command.arg(experiment);
    command.arg("--data").arg(inputs().audio.parent().unwrap());
    command.arg("--out").arg(out);

    // Some clips are broken on purpose.
    command.args(argv("--threads 1 --device cpu --max-reject-fraction 1"));
    command.env("WAVEMILL_BACKEND", "cpu");
    command
}

fn result(out: &Path) -> Result<(String, Value), Failed> {
    let text = fs::read_to_string(out.join("result.json"))?;
    let value = serde_json::from_str(&text)?;
    Ok((text, value))
}

/// Returns the paths and modification times of the files of rows in the folders of all runs.
fn files_of_rows(out: &Path) -> Result<Vec<(PathBuf, SystemTime)>, Failed> {
    let mut files = Vec::new();
    for run in fs::read_dir(out.join("runs"))? {
        let run = run?.path();
        for name in ["predictions.parquet", "map.parquet"] {
            let file = run.join(name);
            let written = fs::metadata(&file)?.modified()?;
            files.push((file, written));
        }
    }

    files.sort();
    Ok(files)
}

/// Returns the names and modification times of the pages that the index links to.
fn pages_of(out: &Path) -> Result<Vec<(String, SystemTime)>, Failed> {
    let mut pages = Vec::new();
    for page in fs::read_dir(out.join("pages"))? {
        let page = page?;
        let name = page.file_name().to_string_lossy().into_owned();
        // A partly written page that remained after a kill has a different extension.
        if name.ends_with(".html") {
            pages.push((name, page.metadata()?.modified()?));
        }
    }

    pages.sort();
    Ok(pages)
}

/// Fails unless the index compares claims with scores and each of its links leads to a page. If a browser is
/// installed, it also loads the index.
fn index_is_sound(out: &Path, result: &Value) -> Result<(), Failed> {
    fn names(result: &Value, key: &str, kind: &str) -> Vec<String> {
        let rows = result[key].as_array().into_iter().flatten();
        let names = rows.filter_map(|row| row[kind].as_str());
        names.map(str::to_owned).collect::<Vec<String>>()
    }

    let page = out.join("index.html");
    let html = fs::read_to_string(&page)?;
    loads_nothing(&html)?;
    if let Some(browser) = browser() {
        quiet_visit(&browser, &page)?;
    }

    for words in [
        "Scores, variant base: genre (",
        "<th scope=\"col\" class=\"number\">document</th>",
        "<td class=\"number\">0.900</td>",
        "ours: stratified",
        "As in the document: split `stratified`",
        "As in the recipe: split `official`",
        "an accuracy of 90 % &lt;script&gt;alert(1)&lt;/script&gt;",
        "&lt;b&gt;a paper&lt;/b&gt;",
    ] {
        assert!(html.contains(words), "`{words}` is not in:\n{html}");
    }

    let figure = &result["claims"][0]["recipe"];
    let [value, low, high] =
        ["value", "low", "high"].map(|key| figure[key].as_f64().unwrap_or(f64::NAN));
    let interval = format!("{value:.3} [{low:.3}, {high:.3}]");
    assert!(html.contains(&interval), "{interval}");
    same("claims", &about(&html)?["claims"], &result["claims"])?;

    let runs = names(result, "results", "run");
    let stores = names(result, "stores", "name");
    let runs = runs.iter().map(|run| format!("pages/run-{run}.html"));
    let stores = stores
        .iter()
        .map(|store| format!("pages/store-{store}.html"));

    for page in runs.chain(stores) {
        let link = format!("<a href=\"./{page}\">");
        assert!(html.contains(&link), "{link}");
        loads_nothing(&fs::read_to_string(out.join(&page))?)?;
    }
    Ok(())
}

#[apply(trial)]
#[needs(has_trainer)]
fn scores_are_compared_with_claims_without_repeated_work() -> Result<(), Failed> {
    let folder = scratch("experiment");
    let file = file_in(&folder);
    let out = folder.join("out");

    let planned = run(experiment(&file, &out).arg("--dry-run")).exits(0)?;
    assert!(planned.out.contains("4 trainings"), "{}", planned.out);
    assert!(!out.exists(), "a dry run writes nothing");

    let first = run(&mut experiment(&file, &out)).exits(0)?;
    for words in [
        "small, variant base: genre",
        "crnn                accuracy                         0.900  ",
        "loss, validation                 1.500  ",
        "ours: stratified",
        "as in the document: split `stratified`",
        "as in the recipe: split `official`",
        "(3 classes, here ",
    ] {
        assert!(
            first.out.contains(words),
            "`{words}` is not in:\n{}",
            first.out
        );
    }

    let (text, value) = result(&out)?;
    // Two models were trained under two split rules. The trainer assigns the splits, so all four use the same store.
    assert_eq!(value["results"].as_array().map(Vec::len), Some(4));
    assert_eq!(value["stores"].as_array().map(Vec::len), Some(1));

    let claim = &value["claims"][0];
    assert!(
        claim["recipe"]["low"].as_f64() <= claim["recipe"]["value"].as_f64(),
        "{claim}"
    );
    assert!(claim["as_in_document"]["value"].is_number(), "{claim}");
    assert!(
        !text.contains(&*folder.to_string_lossy()),
        "no path of this machine"
    );

    let rows = files_of_rows(&out)?;
    assert_eq!(rows.len(), 2 * 4, "predictions and a map of each run");

    index_is_sound(&out, &value)?;
    let pages = pages_of(&out)?;
    assert_eq!(pages.len(), 1 + 4, "of the store and of each run");
    let index = fs::read_to_string(out.join("index.html"))?;

    let again = run(&mut experiment(&file, &out)).exits(0)?;
    assert_eq!(files_of_rows(&out)?, rows, "not written again");
    assert_eq!(pages_of(&out)?, pages, "not made again");
    assert_eq!(fs::read_to_string(out.join("index.html"))?, index);
    assert_eq!(
        again.err.matches("already finished").count(),
        4,
        "{}",
        again.err
    );
    assert!(again.err.contains("nothing to do"), "{}", again.err);
    assert_eq!((result(&out)?.0, again.out), (text, first.out));

    // A lost HTML page is written again with the same content, and all other files stay unchanged.
    let (name, _) = &pages[0];
    let lost = out.join("pages").join(name);
    let content = fs::read(&lost)?;
    fs::remove_file(&lost)?;
    run(&mut experiment(&file, &out)).exits(0)?;
    assert_eq!(fs::read(&lost)?, content);
    assert_eq!(pages_of(&out)?[1..], pages[1..]);

    let swept = run(experiment(&file, &out).args(["--sweep", "--train", "crnn"])).exits(0)?;
    assert!(swept.out.contains("optimizer.lr=0.01"), "{}", swept.out);
    let trials = result(&out)?.1["sweep"].clone();
    assert_eq!(trials.as_array().map(Vec::len), Some(2), "{trials}");
    assert!(trials[1]["best"].is_number(), "{trials}");

    let wide = run(experiment(&file, &out).args(["--variant", "20-bands", "--train", "crnn"]));
    let value = {
        wide.exits(0)?;
        result(&out)?.1
    };
    assert_eq!(value["results"].as_array().map(Vec::len), Some(2));
    assert_eq!(fs::read_dir(out.join("stores"))?.count(), 2);
    Ok(())
}

#[apply(trial)]
#[needs(has_trainer)]
fn killed_experiment_resumes_to_the_same_result() -> Result<(), Failed> {
    fn asked(file: &Path, out: &Path) -> Command {
        let mut command = experiment(file, out);
        command.args(["--train", "crnn"]);
        command
    }

    fn index(out: &Path) -> std::io::Result<String> {
        fs::read_to_string(out.join("index.html"))
    }

    fn names(out: &Path) -> Result<Vec<String>, Failed> {
        let pages = pages_of(out)?.into_iter();
        Ok(pages.map(|(name, _)| name).collect())
    }

    let folder = scratch("experiment-kills");
    let file = file_in(&folder);
    let whole = folder.join("whole");
    run(&mut asked(&file, &whole)).exits(0)?;

    let out = folder.join("killed");
    let mut kills = 0;
    // Each kill comes later than the one before, so that some interrupt the extraction and some a training.
    for number in 1..=KILLS {
        let child = start(&mut asked(&file, &out));
        std::thread::sleep(Duration::from_millis(400 * number));
        // An experiment that ended before the kill does not count, and is not a failure.
        kills += u64::from(kill(child).is_ok());
    }
    assert!(kills > 0, "nothing was killed");

    run(&mut asked(&file, &out)).exits(0)?;
    assert_eq!(result(&out)?.0, result(&whole)?.0);

    // The pages of stores and runs contain durations; the index page does not.
    assert_eq!(index(&out)?, index(&whole)?);
    assert_eq!(names(&out)?, names(&whole)?);
    Ok(())
}

#[apply(trial)]
#[needs(has_trainer)]
fn shipped_experiments_run_on_the_synthetic_archive() -> Result<(), Failed> {
    let folder = scratch("experiment-shipped");
    let metadata = metadata_with_features(&folder)?;

    // Compared with the real parameters, only the length of clips, the number of epochs and steps, and the batch
    // size of the largest model are reduced.
    let runs: [(&str, &str); 5] = [
        (
            "fma-large",
            "--train cnn1d-gru --variant base --variant mfcc",
        ),
        (
            "fma-small",
            "--train lstm --train mlp-1-clips --train mlp-1 --train fusion \
             --set catalog.subset=none",
        ),
        (
            "fma-windows",
            "--train crnn-lstm64 --set catalog.subset=none --set audio.segment_s=1.5 \
             --set audio.segment_min_s=1.4 --set catalog.clean.rare_sub_genres=none",
        ),
        // GTZAN is published as folders. Here the experiment runs on an archive in FMA's form.
        (
            "gtzan-segments",
            "--variant base --variant stretched --set catalog.dataset=fma \
             --set targets.genre.column=track_genre_top",
        ),
        (
            "gtzan-images",
            "--train resnet50 --train-set data.batch_size=2 --set catalog.dataset=fma \
             --set targets.genre.column=track_genre_top",
        ),
    ];

    for (name, words) in runs {
        let out = folder.join(name);
        let mut command = experiment(Path::new(name), &out);
        command.arg("--audio").arg(&inputs().audio);
        command.arg("--metadata").arg(&metadata);
        command.args([
            "--any-data",
            "--epochs",
            "1",
            // Two steps are enough to check that the programs work together.
            "--train-set",
            "train.steps=2",
            "--set",
            "audio.duration_s=3.0",
        ]);
        let ran = run(command.args(argv(words))).exits(0)?;

        // Two of the shipped experiments use the data set's official split, which has no leak.
        let is_official = ["fma-small", "fma-windows"].contains(&name);
        let words = if is_official {
            "both columns show the same run"
        } else {
            "as in the recipe: split `"
        };

        assert!(ran.out.contains(words), "{name}: {}", ran.out);
        assert!(ran.out.contains("(--any-data)"), "{name}: {}", ran.out);
    }
    Ok(())
}

#[apply(trial)]
#[needs(has_trainer)]
fn missing_prerequisites_are_reported_first() -> Result<(), Failed> {
    fn asked(out: &Path, metadata: &Path, words: &[&str]) -> Ran {
        let mut command = experiment(Path::new("fma-small"), out);
        command.arg("--metadata").arg(metadata);
        command.arg("--audio").arg(&inputs().audio);
        command.args(["--quiet", "--any-data"]);
        command.args(["--set", "catalog.subset=none"]);
        command.args(["--set", "audio.duration_s=3.0"]);
        run(command.args(words))
    }

    fn is_untouched(out: &Path) {
        for name in ["stores", "runs"] {
            assert!(!out.join(name).exists(), "{name}");
        }
    }

    let folder = scratch("experiment-needs");
    let metadata = folder.join("fma_metadata");
    fs::create_dir(&metadata)?;
    for name in ["tracks.csv", "genres.csv"] {
        let ours = inputs().metadata.as_ref().unwrap().join(name);
        fs::copy(ours, metadata.join(name))?;
    }

    let out = folder.join("out");
    // Models that read FMA's published columns are refused, and models that read equivalent features of the clips
    // are not.
    let no_table = [
        "train mlp-4, mlp-1, fusion: the model reads the table fma_features",
        "has no readable features.csv: add the file next to tracks.csv",
        "or train only the others: --train crnn --train crnn-simple --train lstm --train cnn1d --train mlp-4-clips \
         --train mlp-1-clips",
    ];

    asked(&out, &metadata, &[]).exits(2)?.says(&no_table)?;
    is_untouched(&out);
    asked(&out, &metadata, &["--dry-run"])
        .exits(2)?
        .says(&no_table)?;
    is_untouched(&out);
    asked(
        &out,
        &metadata,
        &["--dry-run", "--train", "mlp-4-clips", "--train", "lstm"],
    )
    .exits(0)?;

    let header = "feature,tonnetz\nstatistics,mean\nnumber,01\ntrack_id,\n2,1.5\n";
    fs::write(metadata.join("features.csv"), header)?;
    asked(&out, &metadata, &["--train", "mlp-1"])
        .exits(2)?
        .says(&["train mlp-1: the model reads the columns mfcc of fma_features"])?;
    asked(&out, &metadata, &["--train", "lstm", "--limit", "2"])
        .exits(2)?
        .says(&[
            "train lstm: none of the 2 clips planned",
            "under the rule official",
        ])?;
    asked(
        &out,
        &metadata,
        &["--train", "lstm", "--train-set", "model.name=\"lstn\""],
    )
    .exits(2)?
    .says(&["model.name = lstn: no such model"])?;

    // Wrong splits and classes are reported before any work, also under a split rule other than the recipe's.
    let [rock, stratified, unknown] = [
        "targets.genre.classes=[\"Rock\"]",
        "data.split=\"stratified\"",
        "data.split=\"fair\"",
    ];
    asked(&out, &metadata, &["--train", "lstm", "--set", rock])
        .exits(2)?
        .says(&["in the split training have 1 instead of at least 2 classes of the target genre under the rule official"])?;
    asked(
        &out,
        &metadata,
        &["--train", "lstm", "--limit", "2", "--train-set", stratified],
    )
    .exits(2)?
    .says(&["none of the 2 clips planned", "under the rule stratified"])?;
    asked(
        &out,
        &metadata,
        &["--train", "lstm", "--train-set", unknown],
    )
    .exits(2)?
    .says(&[
        "data.split = fair: not a rule of the store",
        "which will have artist, official, stratified",
    ])?;
    asked(
        &out,
        &metadata,
        &["--dry-run", "--train", "lstm", "--train-set", stratified],
    )
    .exits(0)?;
    is_untouched(&out);
    Ok(())
}

/// The file system has enough room for each store, but not for all of them.
#[apply(trial)]
#[needs(has_trainer, Mount::is_possible)]
fn stores_larger_than_the_free_space_are_rejected() -> Result<(), Failed> {
    let mount = Mount::new("size=300k")?;
    let out = mount.0.join("out");
    let mut command = experiment(&file_in(&scratch("experiment-space")), &out);
    run(command.arg("--quiet")).exits(5)?.says(&[
        "--out: not enough space for all stores",
        "bytes are needed and",
    ])?;
    assert!(!out.join("stores").exists(), "nothing is extracted");
    Ok(())
}

/// Runs the shipped experiments on a few real clips. Checks that the programs work together, but not the scores.
#[apply(trial)]
#[needs(has_trainer)]
fn real_clips_at_real_parameters(data: &Path) -> Result<(), Failed> {
    let folder = scratch("experiment-real");
    let metadata = folder.join("fma_metadata");
    fs::create_dir(&metadata)?;
    fs::copy(
        data.join("fma_like/tracks.csv"),
        metadata.join("tracks.csv"),
    )?;
    fs::copy(
        data.join("fma_metadata/genres.csv"),
        metadata.join("genres.csv"),
    )?;

    let genres = by_genre(&data.join("fma_like"), &folder)?;

    // Splits and subsets are adapted to thirteen clips. All parameters of the features are unchanged. A single
    // split rule is enough here; the test on the synthetic archive covers two.
    let sides = "split.fractions=[0.5, 0.25, 0.25]";
    let runs: [(&str, &str, &[&str], &str); 5] = [
        (
            "fma-large",
            "cnn1d-gru",
            &["--set", sides, "--variant", "as-in-document"],
            "[128, 1292]",
        ),
        ("fma-small", "mlp-4-clips", &[], "[640, 128]"),
        (
            "fma-windows",
            "crnn-lstm64",
            &[
                "--set",
                "catalog.subset=none",
                "--set",
                "catalog.clean.rare_sub_genres=none",
                "--train-set",
                "data.targets=[\"genre\"]",
            ],
            "[646, 128]",
        ),
        (
            "gtzan-images",
            "resnet50",
            &["--set", sides, "--variant", "as-in-document"],
            "[128, 1292]",
        ),
        (
            "gtzan-segments",
            "genregenie-cnn",
            &["--set", sides, "--variant", "as-in-document"],
            "[128, 130]",
        ),
    ];

    for (name, train, words, shape) in runs {
        let out = folder.join(name);
        let mut command = wavemill(["experiment", "run", name, "--any-data", "--epochs", "1"]);
        command
            .args(["--threads", "2", "--device", "cpu", "--train", train])
            .args(["--train-set", "train.steps=1"])
            .args(words);
        command
            .arg("--out")
            .arg(&out)
            .env("WAVEMILL_BACKEND", "cpu");

        if name.starts_with("gtzan") {
            command.arg("--data").arg(&genres);
        } else {
            command
                .arg("--data")
                .arg(&folder)
                .arg("--audio")
                .arg(data.join("fma_like"));
        }

        run(&mut command).exits(0)?;

        let store = out
            .join("stores")
            .join(result(&out)?.1["stores"][0]["name"].as_str().unwrap());
        let query = "SELECT DISTINCT tensor_shape(log_mel) AS shape FROM features_log_mel";
        let shapes = sql(&store, query)?;
        same(name, shapes.len(), 1)?;
        let wanted: Value = serde_json::from_str(shape)?;
        same(name, &shapes[0]["shape"], &wanted)?;
    }
    Ok(())
}

/// Copies the clips below `audio` to two folders, which serve as genres.
fn by_genre(audio: &Path, folder: &Path) -> Result<PathBuf, Failed> {
    let genres = folder.join("genres");
    for (number, clip) in clips_below(audio)?.iter().enumerate() {
        let genre = genres.join(["even", "odd"][number % 2]);
        fs::create_dir_all(&genre)?;
        fs::copy(clip, genre.join(clip.file_name().unwrap()))?;
    }
    Ok(genres)
}

/// Lists the MP3s in the subfolders of `audio`, sorted.
fn clips_below(audio: &Path) -> Result<Vec<PathBuf>, Failed> {
    let mut clips = Vec::new();
    for entry in fs::read_dir(audio)? {
        let path = entry?.path();
        if path.is_dir() {
            for file in fs::read_dir(path)? {
                clips.push(file?.path());
            }
        }
    }

    clips.sort();
    Ok(clips)
}

#[apply(trial)]
fn errors_are_one_line_with_a_remedy() -> Result<(), Failed> {
    fn asked(out: &Path, words: &[&str]) -> Result<Ran, Failed> {
        let mut command = wavemill(["experiment", "run"]);
        command.args(words).arg("--out").arg(out);
        run(&mut command).exits(2)
    }

    let folder = scratch("experiment-wrong");
    let out = folder.join("out");
    asked(&out, &["fma-lrge"])?.says(&["did you mean `fma-large`?"])?;
    asked(&out, &["fma-large"])?.says(&["--data DIR", "fma_large.zip"])?;

    let empty = folder.join("empty");
    fs::create_dir(&empty)?;
    let empty = empty.to_string_lossy().into_owned();

    asked(&out, &["fma-large", "--data", &empty])?
        .says(&["contains none of fma_large.zip", "--audio PATH"])?;
    asked(&out, &["fma-large", "--data", &empty, "--variant", "mel"])?
        .says(&["--variant mel", "mfcc"])?;
    asked(
        &out,
        &["fma-large", "--data", &empty, "--set", "split.sed=1"],
    )?
    .says(&["did you mean `seed`?"])?;
    asked(
        &out,
        &[
            "fma-large",
            "--data",
            &empty,
            "--train-set",
            "train.epoch=1",
        ],
    )?
    .says(&["unknown key `epoch` (did you mean `epochs`?)"])?;

    let file = folder.join("mine.toml");
    fs::write(
        &file,
        EXPERIMENT.replace("about = \"fewer bands\"", "abot = \"\""),
    )?;
    let file = file.to_string_lossy().into_owned();

    let misspelt = run(&mut wavemill(["experiment", "check", &file])).exits(2)?;
    misspelt
        .says(&["mine.toml:18: variants.20-bands.abot: unknown key (did you mean `about`?)"])?;

    // A page that wavemill did not write is not overwritten, and the error is reported before any extraction.
    if has_trainer() {
        let mine = folder.join("mine");
        fs::create_dir(&mine)?;
        fs::write(
            mine.join("index.html"),
            "<!DOCTYPE html><title>mine</title>",
        )?;
        let told = run(&mut experiment(&file_in(&folder), &mine)).exits(2)?;
        told.says(&["index.html", "not a page of wavemill"])?;
        assert!(!mine.join("stores").exists(), "nothing was extracted");
    }

    // Uses a zip with the name of the published one, but with different content.
    let data = folder.join("data");
    fs::create_dir(&data)?;
    fs::write(data.join("fma_metadata.zip"), "PK")?;
    fs::create_dir(data.join("fma_large"))?;
    let data = data.to_string_lossy().into_owned();
    if has_trainer() {
        let other = asked(&out, &["fma-large", "--data", &data, "--quiet"])?;
        other.says(&["its sha1 is", "was published with f0df49ff", "--any-data"])?;
    }
    Ok(())
}
