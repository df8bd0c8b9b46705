#!/usr/bin/env python3
"""Compare training methods with a baseline over five seeds; started by scripts/bench.sh methods.

usage: methods.py PROGRAMS OUT.md

PROGRAMS is the folder of wavemill, wavemill-train and demo-audio. The data sets are scikit-learn's handwritten digits
as pictures, and `demo-audio --difficulty 0.7`.
"""

import json, os, statistics, subprocess, sys, tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import stats
from sklearn.datasets import load_digits

from bench import machine, program

SEEDS = 5
RECIPE = """name = "methods"
targets = [{{ name = "genre", column = "{column}" }}]
split = {{ rule = "{rule}", fractions = [0.6, 0.2, 0.2] }}
catalog = {{ dataset = "{dataset}", require_audio = true, clean = [{clean}] }}
{rest}
"""
DIGITS = {
    "recipe": RECIPE.format(column="genre", rule="stratified", dataset="images", clean="",
                            rest='features = [{ name = "picture", op = "image", height = 16, width = 16 }]'),
    "sets": ["model.name=genregenie-cnn", "data.feature=picture", "train.epochs=12"],
}
MUSIC = {
    "recipe": RECIPE.format(column="track_genre_top", rule="artist", dataset="fma",
                            clean='{ step = "labelled", where = "track_genre_top IS NOT NULL" }', rest="""
audio = { sample_rate_hz = 22050, duration_s = 5.0, min_duration_s = 1.0 }
features = [{ name = "log_mel", op = "mel", hop_length = 1024, n_mels = 64, db = { ref = "max" }, normalize = "minmax", dtype = "f16" }]
"""),
    "sets": ["model.name=cnn1d", "train.epochs=20"],
}
# Options of both contestants: the baseline does not stop early, and each run has one thread.
COMMON = ["train.early_stop=0", "train.checkpoint_steps=0"]
METHODS = {
    "no weight decay of biases": ['optimizer.groups=[{names="*.bias", weight_decay=0.0}]'],
    "first layer frozen for 2 epochs": ['optimizer.groups=[{names="conv1.*", frozen_epochs=2}]'],
    "layer decay 0.8": ["optimizer.layer_decay=0.8"],
    "warm-up of 100 steps": ["schedule.warmup_steps=100"],
    "moving average, decay 0.99": ["train.ema_decay=0.99"],
    "focal loss, γ = 2": ["loss.focal_gamma=2.0"],
    "no class weights": ["loss.class_weights=none"],
    "balanced sampler, no class weights": ["data.sampler=balanced", "loss.class_weights=none"],
    "epoch selected by macro F1": ["train.select=macro_f1"],
    "temperature scaling": ["train.temperature_scaling=true"],
}
LABELS = {"positive weights (genres_all)": ["loss.pos_weight=balanced"]}
PAGE = """# Training methods against the baseline

Each line is a method of [Training](../trainer.md#methods), with {seeds} seeds, against the baseline with the same seeds: the
defaults of `wavemill-train fit` with {common}. Scores are means over test tracks and
seeds. *Difference* is the mean difference to the baseline over seeds, with Student's 95 % interval; it says how much the
seed matters, not how much the choice of the test side does. The split is the same in all runs but those with folds.

{machine} Command: `scripts/bench.sh methods`.
{tables}"""


def write_digits(folder):
    """Writes scikit-learn's 1,797 handwritten digits as pictures of 16 × 16, in a folder per digit."""
    digits = load_digits()
    for number, (pixels, digit) in enumerate(zip(digits.images, digits.target)):
        path = folder / str(digit) / f"{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray((pixels * 15.9375).astype(np.uint8))
        picture.resize((16, 16), Image.BILINEAR).convert("RGB").save(path)


class Data:
    """A store, and the runs on it."""

    def __init__(self, programs, folder, about, words):
        self.trainer, self.folder, self.sets = programs / "wavemill-train", folder, about["sets"]
        folder.mkdir(exist_ok=True)
        (folder / "recipe.toml").write_text(about["recipe"])
        program([programs / "wavemill", "extract", "-q", "--recipe", folder / "recipe.toml", "--store", folder / "store",
                 "--max-reject-fraction", "1", "--backend", "cpu", *words])

    def fit(self, name, sets, *words):
        """Returns the JSON result of a command that trains several runs."""
        sets = [part for value in [*self.sets, *COMMON, *sets] for part in ("--set", value)]
        command = [self.trainer, "fit", "-q", "--store", self.folder / "store", "--runs", self.folder / name, "--device", "cpu",
                   "--threads", "1", "--json", *sets, *words]
        return json.loads(self.output(command))

    def output(self, command):
        """Runs a command and returns its output."""
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"methods: {' '.join(map(str, command))}: {done.stderr[-500:]}")
        return done.stdout

    def ensemble(self, runs):
        """Returns the test scores of the mean probabilities of the runs."""
        command = [self.trainer, "eval", *runs, "--ensemble", "--json", "--device", "cpu", "--threads", "1"]
        [scored] = json.loads(self.output(command))
        level = scored["tracks_mean"] or scored["segments"]
        return {"accuracy": level["report"]["accuracy"], "macro_f1": level["report"]["macro_mean"]["f1"],
                "log_loss": level["log_loss"]}


def line(name, result, baseline, metrics):
    """Returns a line of the table: means of the scores, and the difference to the baseline in each."""
    cells = []
    for metric in metrics:
        ours, theirs = ([run["scores"][0][metric] for run in each["runs"]] for each in (result, baseline))
        cells.append(f"{statistics.mean(ours):.3f}")
        if result is not baseline:
            gains = [one - two for one, two in zip(ours, theirs)]
            half = stats.t.ppf(0.975, len(gains) - 1) * statistics.stdev(gains) / len(gains) ** 0.5
            cells.append(f"{statistics.mean(gains):+.3f} ± {half:.3f}")
        else:
            cells.append("")
    return f"| {name} | " + " | ".join(cells) + " |"


def table(data, methods, metrics, target=()):
    """Returns the table of the methods on a data set; several of them run at once."""
    seeds = ("--seeds", str(SEEDS), "--jobs", str(SEEDS), *target)
    jobs = {"baseline": [], **methods}
    with ThreadPoolExecutor(max(1, len(os.sched_getaffinity(0)) // SEEDS)) as pool:
        started = {name: pool.submit(data.fit, f"{name} {metrics[0]}", sets, *seeds) for name, sets in jobs.items()}
        results = {name: job.result() for name, job in started.items()}

    heads = [cell for metric in metrics for cell in (metric.replace("_", " "), "difference")]
    lines = ["| | " + " | ".join(heads) + " |", "|---|" + "---|" * len(heads)]
    lines += [line(name, result, results["baseline"], metrics) for name, result in results.items()]
    return lines, results["baseline"]


def section(title, data):
    """Returns the section of a data set: its methods, the ensemble of the baseline's runs, and its folds."""
    metrics = ("accuracy", "macro_f1", "log_loss")
    lines, baseline = table(data, METHODS, metrics)
    scores = data.ensemble([run["run"] for run in baseline["runs"]])
    lines.append("| ensemble of the baseline's runs | " + " | ".join(f"{scores[metric]:.3f} |" for metric in metrics) + " |")
    folds = data.fit("folds", [], "--folds", "5", "--jobs", "5")
    words = [f"{metric.replace('_', ' ')} {found['mean']:.3f} (standard deviation {found['sd']:.3f}, interval "
             f"{found['interval'][0]:.3f} to {found['interval'][1]:.3f})"
             for metric in metrics for found in [dict(folds["scores"])["genre"][metric]]]
    return [f"\n## {title}\n", *lines, "\nThe baseline over five folds (`--folds 5`): " + "; ".join(words) + "."]


def main():
    """Makes the data, trains, and writes the page."""
    if len(sys.argv) != 3 or {"-h", "--help"} & set(sys.argv):
        sys.exit(__doc__)
    programs, out = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    with tempfile.TemporaryDirectory(prefix="wavemill-methods-") as scratch:
        folder = Path(scratch)
        write_digits(folder / "pictures")
        digits = Data(programs, folder / "digits", DIGITS, ["--audio", folder / "pictures"])
        program([programs / "demo-audio", folder / "made", "--tracks", "800", "--seconds", "5", "--difficulty", "0.7"])
        music = Data(programs, folder / "music", MUSIC,
                     ["--audio", folder / "made/fma_demo", "--metadata", folder / "made/fma_metadata"])
        lines = section("Handwritten digits", digits) + section("demo-audio, difficulty 0.7", music)
        several, _ = table(music, LABELS, ("average_precision_macro", "macro_f1"), ("--target", "genres_all"))
        lines += ["", *several, ""]
    page = PAGE.format(seeds=SEEDS, common=", ".join(f"`{one}`" for one in COMMON), machine=machine(("scikit-learn",)),
                       tables="\n".join(lines))
    out.write_text(page, encoding="utf-8")
    print(page, end="")


if __name__ == "__main__":
    main()
