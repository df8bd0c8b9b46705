//! Features that a model computes (`op = "onnx"`), with models that `scripts/peers/embeddings.py` makes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use wavemill_tests::Failed;

use crate::peers::script;
use crate::support::{
    Inputs, argv, asks_for_peers, contains, kill, manifest, receipts, run, run_in, same,
    same_versions, scratch, sql, sql_number, start, trainer, wait_until, wavemill, with_features,
};

/// TOML of the inputs of all models, in f32, and of models of both kinds with every pooling.
const MODELS: &str = r#"
[[features]]
name = "wave"
op = "pcm"
[[features]]
name = "bands"
op = "mel"
n_mels = 64
dtype = "f32"
db = { ref = 1.0 }
[[features]]
name = "mean"
op = "onnx"
model = "FOLDER/small.onnx"
output = "last"
window_s = 0.7
standardize = true
[[features]]
name = "layers"
op = "onnx"
model = "FOLDER/small.onnx"
output = "hidden"
pooling = "mean_std"
[[features]]
name = "middle"
op = "onnx"
model = "FOLDER/small.onnx"
output = "hidden"
layer = 1
window_s = 0.1
pooling = "none"
[[features]]
name = "of_bands"
op = "onnx"
source = "bands"
model = "FOLDER/bands.onnx"
window_s = 1.0
pooling = "window"
[[features]]
name = "one_at_a_time"
op = "onnx"
source = "bands"
model = "FOLDER/one_at_a_time.onnx"
window_s = 1.0
"#;

/// Makes the models in a new folder, and a recipe with `features`, in which `FOLDER` is replaced by the models' folder.
fn with_models(name: &str, features: &str) -> Result<(PathBuf, Inputs), Failed> {
    let folder = scratch(name);
    let models = folder.join("models");
    let mut make = Command::new(std::env::var("WAVEMILL_PYTHON")?);
    make.arg(script("embeddings.py")).arg("small").arg(&models);
    run(&mut make).exits(0)?;

    let features = features.replace("FOLDER", &models.to_string_lossy());
    let inputs = with_features(&folder, &features);
    Ok((folder, inputs))
}

/// Lets the program find ONNX Runtime in the environment of `WAVEMILL_PYTHON`.
fn with_runtime(command: &mut Command) -> &mut Command {
    let python = PathBuf::from(std::env::var("WAVEMILL_PYTHON").unwrap_or_default());
    let environment = python.ancestors().nth(2).map(Path::to_owned);
    command.env("VIRTUAL_ENV", environment.unwrap_or_default())
}

/// Every stored embedding equals onnxruntime's own within 1e-4. Another number of threads gives the same bytes, and so does a
/// run that is killed.
#[apply(trial)]
#[needs(asks_for_peers)]
fn embeddings_are_those_of_onnxruntime() -> Result<(), Failed> {
    let (folder, inputs) = with_models("embeddings", MODELS)?;
    let store = folder.join("store");
    run(with_runtime(&mut inputs.extract(&store))).exits(0)?;
    let mut check = Command::new(std::env::var("WAVEMILL_PYTHON")?);
    check.arg(script("embeddings.py")).arg("check").arg(&store);
    let checked = run(check.arg(&inputs.recipe)).exits(0)?;
    for name in ["mean", "layers", "middle", "of_bands", "one_at_a_time"] {
        contains(&checked.out, &format!("{name}: "))?;
    }

    let entries = manifest(&store, 1)?.features;
    let shape = |name: &str| {
        let entry = entries.iter().find(|entry| entry.name == name);
        entry.map(|entry| (entry.dim_names.join(","), entry.shape.clone()))
    };
    let layers = ("layer,value".to_owned(), vec![Some(3), Some(64)]);
    same("layers", shape("layers"), Some(layers))?;
    let middle = ("frame,value".to_owned(), vec![None, Some(32)]);
    same("middle", shape("middle"), Some(middle))?;

    let alone = folder.join("alone");
    run(with_runtime(
        inputs.extract(&alone).args(["--threads", "1"]),
    ))
    .exits(0)?;
    same_versions(&store, &alone)?;

    let killed = folder.join("killed");
    let mut child = start(with_runtime(&mut inputs.extract(&killed)));
    wait_until(&mut child, "a shard is complete", || receipts(&killed) > 0)?;
    kill(child)?;
    run(with_runtime(&mut inputs.extract(&killed))).exits(0)?;
    same_versions(&store, &killed)?;

    // The nearest track to each is itself.
    let nearest = "SELECT a.clip_key AS a, b.clip_key AS b FROM features_mean a JOIN features_mean b ON a.track_id = b.track_id \
                   WHERE cosine_similarity(a.mean, b.mean) < 0.999";
    same("unlike itself", sql(&store, nearest)?.len(), 0)
}

/// Adding a model to a store links all other files, and a model of other bytes is another feature.
#[apply(trial)]
#[needs(asks_for_peers)]
fn a_model_is_identified_by_its_bytes() -> Result<(), Failed> {
    const ONE: &str = "[[features]]\nname = \"mean\"\nop = \"onnx\"\nmodel = \"FOLDER/small.onnx\"\noutput = \"last\"\n";
    let (folder, inputs) = with_models("models", ONE)?;
    let plain = inputs.with_recipe(crate::support::inputs().recipe.clone());
    let store = folder.join("store");
    run(&mut plain.extract(&store)).exits(0)?;
    let mut grow = inputs.extract(&store);
    let told = run(with_runtime(grow.args(["--new-version", "--json"]))).exits(0)?;
    let told: serde_json::Value = serde_json::from_str(&told.out)?;
    same("linked", told["files_equal"].as_u64() > Some(0), true)?;

    let [before, id] = [1, 2].map(|version| manifest(&store, version));
    let (before, after) = (before?, id?);
    for entry in &before.features {
        let same_entry = after.features.iter().find(|other| other.name == entry.name);
        same(&entry.name, same_entry, Some(entry))?;
    }
    contains(
        &after.engine.models.clone().unwrap_or_default(),
        "onnxruntime 1.",
    )?;

    // Bytes behind the model's message change its hash; protocol buffers allow an unknown field.
    let model = folder.join("models/small.onnx");
    let mut bytes = fs::read(&model)?;
    bytes.extend([0xa2, 0x06, 0x01, b'x']);
    fs::write(&model, bytes)?;
    let mut again = inputs.extract(&store);
    run(with_runtime(again.arg("--new-version"))).exits(0)?;
    let changed = manifest(&store, 3)?;
    let id = |features: &[wavemill_schemas::manifest::FeatureEntry]| {
        let mean = features.iter().find(|entry| entry.name == "mean");
        mean.map(|entry| entry.feature_id.clone())
    };
    same(
        "another id",
        id(&after.features) != id(&changed.features),
        true,
    )
}

/// Faulty models end a run before it starts, or reject the clip, with the names of feature and option.
#[apply(trial)]
#[needs(asks_for_peers)]
fn faulty_models_are_refused() -> Result<(), Failed> {
    const ONE: &str = "[[features]]\nname = \"m\"\nop = \"onnx\"\nmodel = \"FOLDER/small.onnx\"\n";
    let (folder, inputs) = with_models("faulty", ONE)?;
    let models = folder.join("models");
    let cases: &[(&str, &[&str], &[&str])] = &[
        (
            "small",
            &[],
            &["features.m", "output: is missing", "last, hidden"],
        ),
        (
            "small",
            &["output=\"lost\""],
            &["no output `lost`", "last, hidden"],
        ),
        (
            "small",
            &["output=\"last\"", "layer=1"],
            &["layer: the output has no layers"],
        ),
        (
            "small",
            &["output=\"hidden\"", "layer=3"],
            &["layer: allowed: 0 to 2"],
        ),
        (
            "small",
            &["output=\"hidden\"", "pooling=\"none\""],
            &["layer: is missing"],
        ),
        (
            "small",
            &["output=\"last\"", "window_s=0.001"],
            &["features.m.model"],
        ),
        ("bands", &[], &["its input has the shape", "allowed: ["]),
        ("two_inputs", &[], &["has the inputs a, b"]),
        ("five_axes", &[], &["its input has the shape"]),
        (
            "unknown_operator",
            &[],
            &["features.m.model", "NoSuchOperator"],
        ),
        (
            "cut",
            &[],
            &["features.m.model", "ONNX Runtime cannot load the model"],
        ),
        (
            "text",
            &[],
            &["features.m.model", "ONNX Runtime cannot load the model"],
        ),
        ("absent", &[], &["absent.onnx", "No such file"]),
        (
            "external",
            &["output=\"last\""],
            &["features.m: model: has weights in another file"],
        ),
    ];
    for (model, sets, message) in cases {
        let mut command = inputs.extract(&folder.join("store"));
        let path = models.join(format!("{model}.onnx"));
        command.args(["--set", &format!("features.m.model={path:?}")]);
        for set in *sets {
            command.args(["--set", &format!("features.m.{set}")]);
        }
        run(with_runtime(&mut command)).exits(2)?.says(message)?;
    }

    let mut without = inputs.extract(&folder.join("store"));
    without.env("ORT_DYLIB_PATH", folder.join("none.so"));
    without.args(["--set", "features.m.output=\"last\""]);
    run(&mut without)
        .exits(2)?
        .says(&["features.m.model", "pip install onnxruntime"])?;

    // The mean of some clips is negative, so its logarithm is NaN.
    let mut rejects = inputs.extract(&folder.join("nan"));
    let path = models.join("logarithm.onnx");
    rejects.args(["--set", &format!("features.m.model={path:?}")]);
    run(with_runtime(&mut rejects)).exits(0)?;
    let query = "SELECT count(*) AS n FROM rejects WHERE reason = 'not_finite' AND detail LIKE '%features.m:%'";
    same("rejects", sql_number(&folder.join("nan"), query)? > 0, true)
}

/// A single clip gets the embedding that is stored, and a converged linear probe is scikit-learn's logistic regression.
#[apply(trial)]
#[needs(asks_for_peers)]
fn a_probe_learns_from_embeddings() -> Result<(), Failed> {
    const ONE: &str = "[[features]]\nname = \"mean\"\nop = \"onnx\"\nmodel = \"FOLDER/small.onnx\"\noutput = \"last\"\n";
    let (folder, inputs) = with_models("probe", ONE)?;
    let store = folder.join("store");
    run(with_runtime(&mut inputs.extract(&store))).exits(0)?;

    let clip = sql(
        &store,
        "SELECT clip_key FROM features_mean ORDER BY clip_key LIMIT 1",
    )?;
    let clip = clip[0]["clip_key"].as_str().ok_or("no text")?.to_owned();
    let mut command = wavemill(argv("features --feature mean --format npy --recipe"));
    command.arg(&inputs.recipe).arg(inputs.clip(&clip));
    let alone = folder.join("alone.npy");
    run(with_runtime(command.arg("--out").arg(&alone))).exits(0)?;
    same(
        "bytes of 32 values",
        fs::read(&alone)?.len() >= 32 * 4,
        true,
    )?;

    if !crate::support::has_trainer() {
        return Ok(());
    }
    for model in ["mlp-probe", "mlp-4"] {
        let runs = folder.join(model);
        let mut fit = crate::support::fit(&store, &runs);
        fit.args(["--feature", "mean", "--model", model, "--epochs", "3"]);
        run(&mut fit).exits(0)?;
    }

    // Full batches at a constant rate, for a loss that has one minimum.
    let runs = folder.join("linear-probe");
    let mut fit = crate::support::fit(&store, &runs);
    fit.args([
        "--feature",
        "mean",
        "--model",
        "linear-probe",
        "--epochs",
        "400",
        "--batch-size",
        "100",
    ]);
    for set in [
        "optimizer.name=\"sgd\"",
        "optimizer.lr=0.3",
        "optimizer.momentum=0.9",
        "optimizer.weight_decay=0.1",
        "loss.class_weights=\"none\"",
        "schedule.step.gamma=1.0",
        "schedule.plateau.patience=1000",
        "train.early_stop=0",
    ] {
        fit.args(["--set", set]);
    }
    run(&mut fit).exits(0)?;

    let predictions = folder.join("test.parquet");
    let mut eval = trainer(argv("eval --checkpoint last --side test"));
    eval.arg(run_in(&runs)?)
        .arg("--predictions")
        .arg(&predictions);
    run(&mut eval).exits(0)?;
    let mut compare = Command::new(std::env::var("WAVEMILL_PYTHON")?);
    compare
        .arg(script("embeddings.py"))
        .arg("probe")
        .arg(&store);
    run(compare.arg(&predictions).arg("0.1")).exits(0)?;
    Ok(())
}
