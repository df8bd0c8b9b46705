//! `scripts/convert_weights.py` converts PyTorch weights to safetensors and refuses invalid files.
//!
//! Tests that need PyTorch use the Python interpreter of `WAVEMILL_PYTHON`, by default `python3`, and are ignored
//! if it has no PyTorch. `scripts/peers/setup.sh --bench` installs PyTorch.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;
use wavemill_tests::Failed;

use crate::support::{
    Ran, argv, checkpoints, contains, fit, has_python, has_trainer, lacks, run, run_in, same,
    scratch, whole,
};

fn python() -> Command {
    Command::new(std::env::var_os("WAVEMILL_PYTHON").unwrap_or_else(|| OsString::from("python3")))
}

/// Reports whether PyTorch is installed, without importing it, which takes seconds.
fn has_torch() -> bool {
    static HAS_TORCH: OnceLock<bool> = OnceLock::new();
    *HAS_TORCH.get_or_init(|| {
        let look =
            "import importlib.util, sys; sys.exit(importlib.util.find_spec('torch') is None)";
        let status = python().args(["-c", look]).status();
        status.is_ok_and(|status| status.success())
    })
}

/// Returns a command that runs the script on an input and an output file.
fn convert(from: &Path, to: &Path) -> Command {
    let mut command = python();
    command
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/convert_weights.py"))
        .arg(from)
        .arg(to);
    command
}

/// Creates weight files with `make_weights.py` in a new folder.
fn made(more: Option<&Path>) -> Result<PathBuf, Failed> {
    let folder = scratch("weights");
    let mut command = python();
    command
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/make_weights.py"))
        .arg(&folder)
        .args(more);
    run(&mut command).exits(0)?;
    Ok(folder)
}

/// Fails unless the error is a single line that contains `part`, without a Python traceback.
fn says(ran: &Ran, part: &str) -> Result<(), Failed> {
    let is_line = ran.err.starts_with("convert_weights.py: ") && ran.err.lines().count() == 1;
    same(
        &format!("{part}: {}", ran.err),
        is_line && ran.err.contains(part),
        true,
    )
}

/// A tensor of a safetensors file.
struct Tensor {
    shape: Vec<u64>,
    values: Vec<f32>,
}

/// Reads all tensors of a safetensors file. Fails unless they are f32.
fn tensors(path: &Path) -> Result<BTreeMap<String, Tensor>, Failed> {
    let bytes = fs::read(path)?;
    let n_bytes = u64::from_le_bytes(*bytes.first_chunk().ok_or("no header")?) as usize;
    let header: BTreeMap<String, Value> = serde_json::from_slice(&bytes[8..8 + n_bytes])?;

    let mut found = BTreeMap::new();
    for (name, entry) in header
        .into_iter()
        .filter(|(name, _)| name != "__metadata__")
    {
        same(&name, entry["dtype"].as_str(), Some("F32"))?;
        let shape: Vec<u64> = serde_json::from_value(entry["shape"].clone())?;
        let offsets: [u64; 2] = serde_json::from_value(entry["data_offsets"].clone())?;
        let [begin, end] = offsets.map(|at| 8 + n_bytes + at as usize);
        let values = bytes[begin..end]
            .as_chunks()
            .0
            .iter()
            .map(|value| f32::from_le_bytes(*value))
            .collect();

        found.insert(name, Tensor { shape, values });
    }
    Ok(found)
}

/// Fake modules named `torch` simulate a missing PyTorch, and versions whose check of files is unsafe.
#[apply(trial)]
#[needs(has_python)]
fn unsafe_torch_versions_are_rejected() -> Result<(), Failed> {
    let folder = scratch("no-torch");
    let (from, to) = (folder.join("a.pth"), folder.join("a.safetensors"));
    fs::write(&from, "weights")?;
    let loads = "def load(*args, **more):\n    raise SystemExit('it was read')\n";
    for (module, said) in [
        (
            "raise ImportError('none')\n".to_owned(),
            "needs PyTorch: pip install 'torch>=2.6'",
        ),
        (
            format!("__version__ = '2.5.1+cpu'\n{loads}"),
            "torch 2.5.1+cpu cannot read such files safely",
        ),
        (
            format!("__version__ = '1.13.0'\n{loads}"),
            "torch 1.13.0 cannot read such files safely",
        ),
    ] {
        fs::write(folder.join("torch.py"), module)?;
        let mut command = convert(&from, &to);
        command
            .env("PYTHONPATH", &folder)
            .env("PYTHONDONTWRITEBYTECODE", "1");

        says(&run(&mut command).exits(2)?, said)?;
        same("a file", to.exists(), false)?;
    }
    Ok(())
}

#[apply(trial)]
#[needs(has_torch)]
fn names_shapes_and_values_are_the_trainers() -> Result<(), Failed> {
    let folder = made(None)?;
    let to = folder.join("out.safetensors");
    for name in ["plain.pth", "old.pth"] {
        run(&mut convert(&folder.join(name), &to)).exits(0)?;
        let found = tensors(&to)?;

        let names: Vec<&str> = found.keys().map(String::as_str).collect();
        same(
            "names",
            names,
            vec!["block1.rep.0.pointwise.weight", "conv1.weight"],
        )?;
        same("shape", &found["conv1.weight"].shape, &vec![3, 2])?;
        same(
            "values",
            &found["conv1.weight"].values,
            &vec![0.0, 3.0, 1.0, 4.0, 2.0, 5.0],
        )?;

        let pointwise = &found["block1.rep.0.pointwise.weight"];
        same(
            "axes that were left out",
            &pointwise.shape,
            &vec![4, 2, 1, 1],
        )?;
        same("values", &pointwise.values, &vec![1.0; 8])?;
    }

    let before = fs::read(&to)?;
    let other =
        run(convert(&folder.join("plain.pth"), &to).args(["--model", "resnet50"])).exits(2)?;
    says(
        &other,
        "is not a file of resnet50: conv1.weight is [3, 2], not [64, 3, 7, 7]",
    )?;
    same("the file of before", fs::read(&to)? == before, true)
}

#[apply(trial)]
#[needs(has_torch)]
fn invalid_weights_are_rejected() -> Result<(), Failed> {
    let folder = made(None)?;
    let to = folder.join("out.safetensors");
    for (name, code, said) in [
        ("code.pth", 1, "contains more than weights, or is damaged"),
        ("cut.pth", 1, "or damaged"),
        ("text.pth", 1, "damaged"),
        ("none.pth", 1, "No such file or directory"),
        ("numbers.pth", 2, "contains no weights"),
        ("list.pth", 2, "contains no named tensors"),
    ] {
        let ran = run(&mut convert(&folder.join(name), &to)).exits(code)?;
        says(&ran, said)?;
        lacks(&ran.err, "weights_only")?;
        same("a file", to.exists(), false)?;
    }

    same(
        "what the pickle holds was run",
        folder.join("was-run").exists(),
        false,
    )
}

/// Exports the weights of a new ResNet-50 and converts them back.
#[apply(trial)]
#[needs(has_torch, has_trainer)]
fn a_converted_file_starts_a_model() -> Result<(), Failed> {
    fn train(folder: &Path, runs: &str, arguments: &[&str]) -> Result<PathBuf, Failed> {
        let runs = folder.join(runs);
        let mut command = fit(whole(), &runs);
        command.args(argv(
            "--model resnet50 --set train.steps=1 --set data.frames=32",
        ));
        run(command.args(["--set", "data.batch_size=2"]).args(arguments)).exits(0)?;
        run_in(&runs)
    }

    let folder = scratch("there-and-back");
    let first = checkpoints(&train(&folder, "first", &[])?)
        .pop()
        .ok_or("no checkpoint")?
        .join("tensors.safetensors");

    let made = made(Some(&first))?;
    let to = folder.join("resnet50.safetensors");
    let said = run(convert(&made.join("full.pth"), &to).args(["--model", "resnet50"]))
        .exits(0)?
        .out;

    contains(&said, ": 265 tensors; wavemill train fit --init ")?;

    let second = train(&folder, "second", &["--init", to.to_str().ok_or("a path")?])?;
    let result: Value = serde_json::from_slice(&fs::read(second.join("result.json"))?)?;
    same(
        "start",
        result["start"].as_str(),
        Some("from resnet50.safetensors (265 tensors)"),
    )
}
