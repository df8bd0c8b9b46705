//! Derived features, which are computed from other features: their shapes, their values compared with the stored
//! source, and all programs that read them.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use wavemill_tests::Failed;

use crate::support::{
    argv, contains, fit, has_trainer, lacks, manifest, run, run_in, same, scratch, sql, sql_number,
    trainer, wavemill, with_features, within,
};

/// Tolerance of a statistic, relative to its absolute value or 1: both the source and the result are stored as f32.
const STATISTIC_REL_MAX: f64 = 1e-5;

const STATISTICS: &str = r#"
[[features]]
name = "mfcc_statistics"
op = "statistics"
source = "mfcc"
"#;

/// Tolerance of a grey pixel: the stored source is f16 in [0, 1], and a pixel has 256 levels.
const GREY_MAX: f64 = 1.0 / 255.0 + 5e-4;

const PICTURES: &str = r#"
[[features]]
name = "grey"
op = "picture"
source = "log_mel"
colour_map = "grey"
[[features]]
name = "coloured"
op = "picture"
source = "log_mel"
colour_map = "viridis"
height = 32
width = 48
dtype = "f32"
"#;

/// Creates a store with additional features.
fn store_with(folder: &Path, features: &str) -> Result<PathBuf, Failed> {
    let store = folder.join("store");
    run(&mut with_features(folder, features).extract(&store)).exits(0)?;
    Ok(store)
}

fn numbers(value: &Value) -> Vec<f64> {
    let list = value.as_array().into_iter().flatten();
    list.filter_map(Value::as_f64).collect()
}

fn near(what: &str, found: f64, wanted: f64) -> Result<(), Failed> {
    let most = STATISTIC_REL_MAX * wanted.abs().max(1.0);
    within(
        &format!("{what}: {found}, wanted {wanted}"),
        (found - wanted).abs(),
        ..=most,
    )
}

/// Computes the statistics from their definitions, in the order of the tensor's rows.
fn statistics(frames: &[f64]) -> [f64; 7] {
    let n = frames.len() as f64;
    let mean = frames.iter().sum::<f64>() / n;
    let [second, third, fourth] =
        [2, 3, 4].map(|power| frames.iter().map(|x| (x - mean).powi(power)).sum::<f64>() / n);

    let mut ordered = frames.to_vec();
    ordered.sort_by(f64::total_cmp);
    let half = ordered.len() / 2;
    let median = if ordered.len() % 2 == 1 {
        ordered[half]
    } else {
        (ordered[half - 1] + ordered[half]) / 2.0
    };

    let is_constant = ordered[0] == ordered[ordered.len() - 1];
    let (skew, kurtosis) = if is_constant {
        (0.0, 0.0)
    } else {
        (third / second.powf(1.5), fourth / second.powi(2) - 3.0)
    };

    [
        kurtosis,
        ordered[ordered.len() - 1],
        mean,
        median,
        ordered[0],
        skew,
        second.sqrt(),
    ]
}

/// Returns the number in the column `x` of a query's first result row.
fn number(store: &Path, query: &str) -> Result<f64, Failed> {
    Ok(sql(store, query)?[0]["x"].as_f64().ok_or("no number")?)
}

/// A source that is not stored is only computed, and its statistics are the same.
#[apply(trial)]
fn a_source_need_not_be_stored() -> Result<(), Failed> {
    let folder = scratch("not-stored");
    let stored = store_with(&folder, STATISTICS)?;
    let own = folder.join("own");
    let inputs = with_features(&folder, STATISTICS);
    run(inputs
        .extract(&own)
        .args(["--set", "features.mfcc.stored=false"]))
    .exits(0)?;

    let names: Vec<String> = manifest(&own, 1)?
        .features
        .into_iter()
        .map(|feature| feature.name)
        .collect();
    same(
        "features",
        names.join(" "),
        "log_mel mfcc_statistics".to_owned(),
    )?;
    let rows = "SELECT clip_key, segment, tensor(mfcc_statistics) AS x FROM features_mfcc_statistics ORDER BY 1, 2";
    same("statistics", sql(&own, rows)?, sql(&stored, rows)?)?;

    // One feature of one clip is the feature of that name.
    let first = sql(
        &own,
        "SELECT clip_key FROM features_mfcc_statistics LIMIT 1",
    )?;
    let clip = first[0]["clip_key"].as_str().ok_or("no clip")?;
    let mut one = wavemill(argv(
        "features --format json --set features.mfcc.stored=false",
    ));
    one.args(["--feature", "mfcc_statistics", "--recipe"])
        .arg(&inputs.recipe)
        .arg(inputs.clip(clip));
    contains(
        &run(&mut one).exits(0)?.out,
        "\"feature\":\"mfcc_statistics\"",
    )?;

    // Another version may store the source as well.
    run(inputs.extract(&own).arg("--new-version")).exits(0)?;
    same("statistics", sql(&own, rows)?, sql(&stored, rows)?)?;

    let nothing = [
        "features.mfcc.stored=false",
        "features.mfcc_statistics=none",
    ];
    let sets = nothing.iter().flat_map(|set| ["--set", set]);
    let refused = run(inputs.extract(&folder.join("none")).args(sets)).exits(2)?;
    contains(&refused.err, "no stored feature has source = \"mfcc\"")
}

/// All statistics of a version become one file, laid out as FMA's.
#[apply(trial)]
fn statistics_are_exported_as_fmas_table() -> Result<(), Failed> {
    let folder = scratch("fma-table");
    let more = "[[features]]\nname = \"of_mel\"\nop = \"statistics\"\nsource = \"log_mel\"\n";
    let store = store_with(&folder, &format!("{more}{STATISTICS}"))?;
    let export = |out: &str| {
        run(
            wavemill(argv("export --format fma-features --json --store"))
                .arg(&store)
                .arg("--out")
                .arg(folder.join(out)),
        )
    };
    let report: Value = serde_json::from_str(&export("out").exits(0)?.out)?;
    same(
        "features",
        &report["feature"],
        &"of_mel, mfcc_statistics".into(),
    )?;

    let text = fs::read_to_string(folder.join("out/features.csv"))?;
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
    let n_bands = (lines[0].len() - 1) / 7;
    for (heading, first) in [
        (0, ["feature", "log_mel"]),
        (1, ["statistics", "kurtosis"]),
        (2, ["number", "01"]),
        (3, ["track_id", ""]),
    ] {
        same("heading", &lines[heading][..2], &first[..])?;
    }
    same("last", lines[0].last().copied(), Some("mfcc"))?;

    let rows = sql(
        &store,
        "SELECT track_id, tensor_at(mfcc_statistics, 6, 12) AS x FROM features_mfcc_statistics WHERE split <> 'none'",
    )?;
    same("rows", lines.len() - 4, rows.len())?;
    for row in &rows {
        let track_id = row["track_id"].to_string();
        let line = lines[4..].iter().find(|line| line[0] == track_id);
        let line = line.ok_or_else(|| format!("no line of track {track_id}"))?;
        same("columns", line.len(), 7 * n_bands + 1)?;
        near(
            "deviation",
            line[7 * n_bands].parse()?,
            row["x"].as_f64().ok_or("x")?,
        )?;
    }

    let refused = export_of_plain(&folder)?;
    contains(&refused, "wavemill recipe show fma-features")
}

/// Returns the refusal of a version without statistics.
fn export_of_plain(folder: &Path) -> Result<String, Failed> {
    let refused = run(wavemill(argv("export --format fma-features --store"))
        .arg(crate::support::whole())
        .arg("--out")
        .arg(folder.join("none")))
    .exits(2)?;
    Ok(refused.err)
}

#[apply(trial)]
fn statistics_are_those_of_the_stored_source() -> Result<(), Failed> {
    let folder = scratch("statistics");
    let store = store_with(&folder, STATISTICS)?;

    let manifest = manifest(&store, 1)?;
    let entry = manifest
        .features
        .iter()
        .find(|feature| feature.name == "mfcc_statistics")
        .ok_or("not in the manifest")?;
    same("type", entry.tensor_type(), "f32[7,13]".to_owned())?;
    same(
        "axes",
        entry.dim_names.join(" "),
        "statistic coefficient".to_owned(),
    )?;

    let columns = entry.columns.as_ref().ok_or("no columns")?;
    same("columns", columns.len(), 7 * 13)?;
    same("first column", columns[0].as_str(), "mfcc_kurtosis_01")?;
    same(
        "a statistic of each",
        manifest.stats["mfcc_statistics"].mean.len(),
        7 * 13,
    )?;

    // Compares each row of the statistics with statistics computed from its source row.
    let query = "SELECT tensor(s.mfcc_statistics) AS found, tensor(m.mfcc) AS source \
                 FROM features_mfcc_statistics s JOIN features_mfcc m USING (clip_key, segment)";
    let rows = sql(&store, query)?;
    same("rows", rows.len() as u64, manifest.counts.feature_rows)?;
    for row in &rows {
        let found = numbers(&row["found"]);
        let source = numbers(&row["source"]);
        let n_frames = source.len() / 13;
        for (band, frames) in source.chunks_exact(n_frames).enumerate() {
            for (row, wanted) in statistics(frames).into_iter().enumerate() {
                let what = &columns[row * 13 + band];
                near(what, found[row * 13 + band], wanted)?;
            }
        }
    }

    // A second run with a different number of threads produces the same bytes.
    let again = folder.join("again");
    let mut command = with_features(&folder, STATISTICS).extract(&again);
    run(command.env("WAVEMILL_THREADS", "1")).exits(0)?;
    same(
        "manifest",
        fs::read(store.join("_wavemill/versions/00000001.json"))?,
        fs::read(again.join("_wavemill/versions/00000001.json"))?,
    )?;

    // Compares the tensor functions of `wavemill sql`.
    let mean =
        "SELECT tensor_at(tensor_avg(mfcc_statistics), 2, 0) AS x FROM features_mfcc_statistics";
    let means = "SELECT avg(tensor_at(mfcc_statistics, 2, 0)) AS x FROM features_mfcc_statistics";
    near("tensor_avg", number(&store, mean)?, number(&store, means)?)?;

    let shape = "SELECT tensor_shape(mfcc_statistics)[2] FROM features_mfcc_statistics LIMIT 1";
    same("tensor_shape", sql_number(&store, shape)?, 13)?;
    let kurtoses = "SELECT tensor_shape(tensor_slice(mfcc_statistics, 'statistic', 0, 1))[1] \
                    FROM features_mfcc_statistics LIMIT 1";
    same("tensor_slice", sql_number(&store, kurtoses)?, 1)?;

    let info = run(wavemill(["info", "--store"]).arg(&store)).exits(0)?.out;
    contains(&info, "rows of f32[7,13] (statistic,coefficient)")?;
    run(wavemill(["verify", "--store"]).arg(&store)).exits(0)?;
    Ok(())
}

/// A derived feature whose source is not extracted is computed from temporary source values, with bit-identical
/// results.
#[apply(trial)]
fn a_derived_feature_alone_is_the_same() -> Result<(), Failed> {
    let folder = scratch("derived-alone");
    let with = with_features(&folder, STATISTICS);
    let store = folder.join("store");
    run(&mut with.extract(&store)).exits(0)?;

    let query = "SELECT clip_key, tensor(mfcc_statistics) AS x FROM features_mfcc_statistics \
                 ORDER BY clip_key, segment LIMIT 1";
    let row = sql(&store, query)?.remove(0);
    let clip = with.clip(row["clip_key"].as_str().ok_or("no key")?);

    let mut command = wavemill(["features", "--feature", "mfcc_statistics", "--recipe"]);
    let said = run(command.arg(&with.recipe).arg(&clip)).exits(0)?;
    let line: Value = serde_json::from_str(said.out.lines().next().ok_or("no line")?)?;
    same("shape", line["shape"].to_string(), "[7,13]".to_owned())?;
    same(
        "rows of values",
        line["values"].as_array().map(Vec::len),
        Some(7),
    )?;

    let values: Vec<f64> = line["values"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(numbers)
        .collect();
    // Compares numbers instead of text, because one of the two outputs prints f32 with the fewest digits.
    let stored = numbers(&row["x"]);
    same("numbers", values.len(), stored.len())?;
    for (found, wanted) in values.iter().zip(&stored) {
        near("value", *found, *wanted)?;
    }

    let npy = folder.join("out.npy");
    let mut command = wavemill(argv(
        "features --feature mfcc_statistics --format npy --recipe",
    ));
    run(command.arg(&with.recipe).arg(&clip).arg("--out").arg(&npy)).exits(0)?;

    let header = String::from_utf8_lossy(&fs::read(&npy)?[..128]).into_owned();
    contains(&header, "'shape': (1, 7, 13)")
}

/// Adding a feature to a store keeps the rows of the other features, and adding a clip keeps the rows of old clips.
#[apply(trial)]
fn rows_of_a_derived_feature_are_taken_over() -> Result<(), Failed> {
    fn value(row: &Value) -> Result<f64, &'static str> {
        row["x"].as_f64().ok_or("no sum")
    }

    let folder = scratch("derived-takeover");
    let own = with_features(&folder, STATISTICS).copied(&folder.join("inputs"));
    let store = folder.join("store");
    run(&mut own.extract(&store)).exits(0)?;

    let query = "SELECT clip_key FROM features_mfcc ORDER BY clip_key LIMIT 1";
    let key = sql(&store, query)?[0]["clip_key"]
        .as_str()
        .ok_or("no key")?
        .to_owned();
    fs::remove_file(own.clip(&key))?;
    run(own.extract(&store).arg("--new-version")).exits(0)?;

    let fresh = folder.join("fresh");
    run(&mut own.extract(&fresh)).exits(0)?;

    let sum = "SELECT count(*) AS n, sum(tensor_mean(mfcc_statistics)) AS x FROM features_mfcc_statistics";
    let taken = sql(&store, sum)?.remove(0);
    let computed = sql(&fresh, sum)?.remove(0);
    same("rows", taken["n"].clone(), computed["n"].clone())?;
    near("sum", value(&taken)?, value(&computed)?)
}

#[apply(trial)]
fn errors_state_key_and_line() -> Result<(), Failed> {
    let folder = scratch("derived-faults");
    for (features, message) in [
        (
            "[[features]]\nname = \"a\"\nop = \"statistics\"\n",
            ["features.a.source: is missing", "log_mel, mfcc"],
        ),
        (
            "[[features]]\nname = \"a\"\nop = \"statistics\"\nsource = \"mfc\"\n",
            [
                "features.a.source: the recipe has no feature `mfc`",
                "did you mean `mfcc`?",
            ],
        ),
        (
            "[[features]]\nname = \"a\"\nop = \"statistics\"\nsource = \"a\"\n",
            [
                "features.a.source: `a` is the feature itself",
                "allowed: log_mel, mfcc",
            ],
        ),
        (
            "[[features]]\nname = \"a\"\nop = \"statistics\"\nsource = \"mfcc\"\n\
             [[features]]\nname = \"b\"\nop = \"statistics\"\nsource = \"a\"\n",
            [
                "features.b.source: `a` is itself derived from another feature",
                "allowed: log_mel, mfcc",
            ],
        ),
        (
            "[[features]]\nname = \"a\"\nop = \"statistics\"\nsource = \"mfcc\"\nn_mels = 40\n",
            [
                "features.a.n_mels: op = \"statistics\" does not use it",
                ".toml:",
            ],
        ),
        (
            "[[features]]\nname = \"a\"\nop = \"statistics\"\nsource = \"mfcc\"\ndtype = \"f16\"\n",
            ["features.a.dtype: allowed for statistics: f32", ".toml:"],
        ),
        (
            "[[features]]\nname = \"a\"\nop = \"mel\"\nsource = \"mfcc\"\n",
            ["features.a.source: op = \"mel\" does not use it", ".toml:"],
        ),
    ] {
        let recipe = with_features(&folder, features).recipe;
        let ran = run(wavemill(["recipe", "check"]).arg(&recipe)).exits(2)?;
        ran.says(&message)?;
        // The message contains the line number. The features of this recipe begin at line 33.
        ran.says(&["recipe.toml:3"])?;
    }

    // Removing a source by a flag is an error in the feature that is derived from it.
    let recipe = with_features(&folder, STATISTICS).recipe;
    let mut command = wavemill(["recipe", "check", "--set", "features.mfcc=none"]);
    run(command.arg(&recipe)).exits(2)?.says(&[
        "--set features.mfcc=none: features.mfcc_statistics.source: the recipe has no feature",
    ])?;

    let mut command = with_features(&folder, STATISTICS).extract(&folder.join("store"));
    run(command
        .env_remove("WAVEMILL_BACKEND")
        .args(["--backend", "cuda"]))
    .exits(2)?
    .says(&[
        "features.mfcc_statistics has op = \"statistics\", which is computed only on the CPU",
        "--backend cpu",
    ])
}

/// Trains on standardized statistics computed by wavemill instead of the columns published by FMA.
#[apply(trial)]
#[needs(has_trainer)]
fn an_mlp_is_trained_on_statistics() -> Result<(), Failed> {
    let folder = scratch("mlp-on-statistics");
    let store = store_with(&folder, STATISTICS)?;
    let runs = folder.join("runs");
    let mut command = fit(&store, &runs);
    command.args(argv(
        "--set model.name=mlp-4 --set data.feature=mfcc_statistics \
         --set data.batch_size=8 --set train.epochs=2",
    ));
    run(&mut command).exits(0)?;

    let run_folder = run_in(&runs)?;
    let result: Value = serde_json::from_str(&fs::read_to_string(run_folder.join("result.json"))?)?;
    same(
        "feature",
        result["feature"].as_str(),
        Some("mfcc_statistics"),
    )?;
    // The model has 91 input columns, four hidden layers of 512, 256, 128 and 64 units with batch norm, and one
    // output per class.
    let warnings = result["warnings"].to_string();
    lacks(&warnings, "fma_features")?;

    // Predicts clips that are not in the store.
    let query = "SELECT clip_key FROM features_mfcc LIMIT 1";
    let key = sql(&store, query)?[0]["clip_key"]
        .as_str()
        .ok_or("no key")?
        .to_owned();

    let stream = folder.join("stream.arrow");
    let with = with_features(&folder, STATISTICS);
    let mut command = wavemill(argv(
        "features --feature mfcc_statistics --format arrow --recipe",
    ));
    run(command
        .arg(&with.recipe)
        .arg(with.clip(&key))
        .arg("--out")
        .arg(&stream))
    .exits(0)?;

    let said = run(
        trainer(["predict", "--device", "cpu", "--threads", "1", "--run"])
            .arg(&run_folder)
            .arg(&stream),
    )
    .exits(0)?;
    within(&said.out, said.out.lines().count(), 1..)?;

    // A network for spectrograms reports that its input is no spectrogram.
    let mut command = fit(&store, &folder.join("lstm"));
    run(command.args(argv(
        "--set model.name=lstm --set data.feature=mfcc_statistics",
    )))
    .exits(2)?
    .says(&[
        "lstm needs a spectrogram",
        "set data.feature to another feature",
    ])
}

/// A grey pixel is the value of one band and frame. The lowest band is at the bottom.
#[apply(trial)]
fn pictures_show_the_stored_source() -> Result<(), Failed> {
    let folder = scratch("pictures");
    let store = store_with(&folder, &[STATISTICS, PICTURES].concat())?;

    let manifest = manifest(&store, 1)?;
    let types: Vec<String> = manifest
        .features
        .iter()
        .map(|feature| feature.tensor_type())
        .collect();
    let wanted = [
        "f16[40,130]",
        "f32[13,130]",
        "f32[7,13]",
        "u8[3,40,130]",
        "f32[3,32,48]",
    ];
    same("types", types.join(" "), wanted.join(" "))?;
    same(
        "a mean of each channel",
        manifest.stats["grey"].mean.len(),
        3,
    )?;

    let query = "SELECT tensor(g.grey) AS grey, tensor(m.log_mel) AS log_mel \
                 FROM features_grey g JOIN features_log_mel m USING (clip_key, segment)";
    let rows = sql(&store, query)?;
    same("rows", rows.len() as u64, manifest.counts.feature_rows)?;
    for row in &rows {
        let grey = numbers(&row["grey"]);
        let log_mel = numbers(&row["log_mel"]);
        for (channel, pixels) in grey.chunks_exact(40 * 130).enumerate() {
            for (y, pixels) in pixels.chunks_exact(130).enumerate() {
                let band = &log_mel[(39 - y) * 130..][..130];
                let off = pixels.iter().zip(band).map(|(a, b)| (a - b).abs());
                let off = off.fold(0.0, f64::max);
                let what = format!("channel {channel}, row {y}: off by {off}");
                within(&what, off, ..=GREY_MAX)?;
            }
        }
    }

    // viridis contains neither black nor white, and its blue is at least 0.09525 (entry 247).
    let range = "SELECT min(tensor_min(coloured)) AS low, max(tensor_max(coloured)) AS high, \
                 min(tensor_min(tensor_slice(coloured, 'channel', 2))) AS blue FROM features_coloured";
    let range = sql(&store, range)?.remove(0);
    for (key, from, to) in [
        ("low", 0.004, f64::INFINITY),
        ("high", f64::NEG_INFINITY, 0.9933),
        ("blue", 0.0952, f64::INFINITY),
    ] {
        let value = range[key].as_f64().ok_or("no number")?;
        within(key, value, from..=to)?;
    }

    // A mean over rows that are stored as bytes is the mean of the numbers that the bytes encode.
    let mean = "SELECT tensor_at(tensor_avg(grey), 1, 39, 5) AS x FROM features_grey";
    let means = "SELECT avg(tensor_at(grey, 1, 39, 5)) AS x FROM features_grey";
    near("tensor_avg", number(&store, mean)?, number(&store, means)?)?;
    within("at most 1", number(&store, means)?, ..=1.0)?;

    let npy = folder.join("out.npy");
    let with = with_features(&folder, &[STATISTICS, PICTURES].concat());
    let query = "SELECT clip_key FROM features_grey LIMIT 1";
    let key = sql(&store, query)?[0]["clip_key"]
        .as_str()
        .ok_or("no key")?
        .to_owned();

    let mut command = wavemill(argv("features --feature grey --format npy --recipe"));
    run(command
        .arg(&with.recipe)
        .arg(with.clip(&key))
        .arg("--out")
        .arg(&npy))
    .exits(0)?;

    let bytes = fs::read(&npy)?;
    let header = String::from_utf8_lossy(&bytes[..128]).into_owned();
    same(
        &header,
        header.contains("'|u1'") && header.contains("(1, 3, 40, 130)"),
        true,
    )?;

    let mut command = wavemill(["features", "--feature", "grey", "--recipe"]);
    let said = run(command.arg(&with.recipe).arg(with.clip(&key))).exits(0)?;
    let line: Value = serde_json::from_str(said.out.lines().next().ok_or("no line")?)?;
    let lengths = [&line["values"], &line["values"][0], &line["values"][0][0]];
    let lengths = lengths.map(|list| list.as_array().map_or(0, Vec::len));
    same("lists in lists", lengths, [3, 40, 130])?;

    let stored = f64::from(bytes[128 + 40 * 130 + 7]) / 255.0;
    near("de-quantised", numbers(&line["values"][1][0])[7], stored)
}

/// A picture has several channels, and only networks for pictures accept it.
#[apply(trial)]
#[needs(has_trainer)]
fn a_network_is_trained_on_pictures() -> Result<(), Failed> {
    let folder = scratch("trained-on-pictures");
    let store = store_with(&folder, PICTURES)?;
    let runs = folder.join("runs");
    let mut command = fit(&store, &runs);
    command.args(argv(
        "--set model.name=genregenie-cnn --set data.feature=coloured \
         --set data.batch_size=8 --set data.normalize=true --set train.epochs=1",
    ));
    run(&mut command).exits(0)?;

    let result = fs::read_to_string(run_in(&runs)?.join("result.json"))?;
    let result: Value = serde_json::from_str(&result)?;
    same("feature", result["feature"].as_str(), Some("coloured"))?;

    let mut command = fit(&store, &folder.join("cnn2d"));
    run(command.args(argv("--set model.name=cnn2d --set data.feature=coloured")))
        .exits(2)?
        .says(&["cnn2d needs a spectrogram", "is a picture"])
}
