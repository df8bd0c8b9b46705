#!/usr/bin/env python3
"""Compare training by `wavemill-train fit` with PyTorch on a CPU; started by scripts/bench.sh train.

usage: train.py PROGRAMS OUT.md [ROUNDS]

PROGRAMS is the folder of wavemill, wavemill-train and demo-audio. A round trains a model for a few steps with
wavemill and with PyTorch, each in its own process.
"""

import functools, json, os, shutil, statistics, sys, tempfile, time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import nn

from bench import alternate, machine, peer, program, write

# Each class is a folder with links to the same clips of SECONDS: labels do not affect the speed.
TRACKS, SECONDS, CLASSES = 96, 10, 10
BANDS, FRAMES, BATCH, THREADS = 128, 431, 16, 2
# Steps at the start of a process that are not counted; and for each model, the frames of a row and the measured steps.
FIRST = 3
MODELS = {"crnn": (FRAMES, 48), "cnn2d": (FRAMES, 12), "genregenie-cnn": (FRAMES, 12), "lstm": (FRAMES, 24), "resnet50": (128, 4)}
RECIPE = f"""name = "train"
catalog.dataset = "folders"
split = {{ rule = "stratified", fractions = [0.96, 0.02, 0.02] }}
targets = [{{ name = "genre", column = "genre" }}]
audio = {{ sample_rate_hz = 22050, duration_s = {SECONDS}.0 }}
features = [{{ name = "log_mel", op = "mel", n_mels = {BANDS}, db = {{ ref = "max" }}, normalize = "minmax", dtype = "f16" }}]
"""
HEADS = ["| model | frames | parameters | steps | wavemill, wall | PyTorch, wall | ratio "
         "| wavemill, CPU | PyTorch, CPU | ratio |", "|---|" + "---|" * 9]
PAGE = f"""# Training on a CPU: wavemill-train and PyTorch

Milliseconds per step, medians of {{rounds}} rounds in turn. A ratio below 1 means that wavemill takes less time. Both train
on {{count}} rows of {BANDS} bands and the frames in the table (f16), in batches of {BATCH}, with {THREADS} threads, Adam and
balanced class weights. `wavemill-train fit` also reads, decompresses and shuffles the rows of a store, counts correct
predictions, and is deterministic; PyTorch (default settings) has all rows in memory as one f32 tensor.

{{machine}}
Load average before: {{load:.1f}}. Command: `scripts/bench.sh train`.

{{compared}}
"""


def prepare(programs, folder):
    """Writes the store, and its training rows and labels as .npy; returns the number of training rows."""
    program([programs / "demo-audio", folder / "made", "--tracks", str(TRACKS), "--seconds", str(SECONDS)])
    for number in range(CLASSES):
        shutil.copytree(folder / "made/fma_demo", folder / f"clips/genre{number}", copy_function=os.link)
    (folder / "recipe.toml").write_text(RECIPE)
    # Some of the synthetic files are damaged on purpose.
    program([programs / "wavemill", "extract", "-q", "--recipe", folder / "recipe.toml", "--audio", folder / "clips",
             "--store", folder / "store", "--max-reject-fraction", "1", "--backend", "cpu"])
    [split] = (folder / "store/data").glob("*/features/log_mel/split=training")
    table = pq.read_table(split, columns=["log_mel", "genre"])
    rows = [np.frombuffer(row.as_buffer(), np.float16) for row in table["log_mel"]]
    np.save(folder / "rows.npy", np.stack(rows).reshape(-1, BANDS, FRAMES))
    np.save(folder / "labels.npy", table["genre"].to_numpy().astype(np.int64))
    return len(rows)


class Apply(nn.Module):
    """A function as a layer."""

    def __init__(self, function):
        super().__init__()
        self.forward = function


def conv_norm(source, to, kernel, stride=1):
    """Returns a convolution over pictures without bias, and its batch norm."""
    return nn.Conv2d(source, to, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(to)


def dense(to, dropout):
    """Returns a dense layer with ReLU and dropout. Its number of inputs is that of the first forward pass."""
    return nn.LazyLinear(to), nn.ReLU(), nn.Dropout(dropout)


def last_state(source, width, dropout):
    """Returns two LSTM layers over frames, followed by the last state."""
    lstm = nn.LSTM(source, width, 2, batch_first=True, dropout=dropout)
    return Apply(lambda x: x.transpose(1, 2)), lstm, Apply(lambda states: states[1][0][-1])


class Bottleneck(nn.Module):
    """A bottleneck of ResNet-50, with ReLU in place as in torchvision."""

    def __init__(self, source, inner, stride):
        super().__init__()
        self.layers = nn.Sequential(*conv_norm(source, inner, 1), nn.ReLU(True), *conv_norm(inner, inner, 3, stride),
                                    nn.ReLU(True), *conv_norm(inner, 4 * inner, 1))
        self.shortcut = nn.Sequential(*(conv_norm(source, 4 * inner, 1, stride) if source != 4 * inner else ()))

    def forward(self, x):
        return torch.relu_(self.layers(x).add_(self.shortcut(x)))


def layers(model):
    """Returns the layers of an architecture without its head."""
    found = [] if model in ("crnn", "lstm") else [nn.Unflatten(1, (1, BANDS))]
    if model == "crnn":
        for source, to, pool in ((BANDS, 64, 3), (64, 128, 4), (128, 128, 4)):
            found += [nn.Conv1d(source, to, 3, bias=False), nn.BatchNorm1d(to), nn.ELU(), nn.MaxPool1d(pool), nn.Dropout(0.1)]
        found += [*last_state(128, 64, 0.0), nn.Dropout(0.3), nn.BatchNorm1d(64), *dense(64, 0.3)]
    elif model == "cnn2d":
        found += [*conv_norm(1, 32, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Dropout(0.2),
                  *conv_norm(32, 64, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Dropout(0.1),
                  nn.Conv2d(64, 64, 2, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2, 2, 1), nn.Dropout(0.1),
                  nn.MaxPool2d(2), nn.MaxPool2d(2), nn.Flatten(), *dense(1024, 0.5), *dense(256, 0.4)]
    elif model == "genregenie-cnn":
        for source, to in ((1, 32), (32, 64), (64, 128)):
            conv, norm = conv_norm(source, to, 3)
            found += [conv, nn.MaxPool2d(2), norm, nn.ReLU(), nn.Dropout(0.25)]
        found += [nn.Flatten(), *dense(128, 0.5)]
    elif model == "lstm":
        found += [*last_state(BANDS, 128, 0.3), *dense(64, 0.3)]
    else:
        found += [Apply(lambda x: x.expand(-1, 3, -1, -1)), *conv_norm(3, 64, 7, 2), nn.ReLU(True), nn.MaxPool2d(3, 2, 1)]
        for source, inner, blocks in ((64, 64, 3), (256, 128, 4), (512, 256, 6), (1024, 512, 3)):
            found.append(Bottleneck(source, inner, 1 if inner == 64 else 2))
            found += [Bottleneck(4 * inner, inner, 1) for _ in range(blocks - 1)]
        found += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return found


def theirs(model, folder):
    """Trains a model with PyTorch in this process; returns milliseconds per step and the number of parameters."""
    torch.set_num_threads(THREADS)
    frames, steps = MODELS[model]
    rows = torch.from_numpy(np.load(folder / "rows.npy")[:, :, :frames].astype(np.float32))
    labels = torch.from_numpy(np.load(folder / "labels.npy"))
    net = nn.Sequential(*layers(model), nn.LazyLinear(CLASSES))
    net(rows[:2])
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, weight_decay=1e-4)
    criterion = nn.CrossEntropyLoss(len(labels) / (CLASSES * torch.bincount(labels, minlength=CLASSES)))
    for step, batch in enumerate(torch.randperm(len(rows)).split(BATCH)[:FIRST + steps]):
        if step == FIRST:
            start, cpu_start = time.perf_counter(), time.process_time()
        optimizer.zero_grad()
        criterion(net(rows[batch]), labels[batch]).backward()
        optimizer.step()
    wall_s, cpu_s = time.perf_counter() - start, time.process_time() - cpu_start
    n_parameters = sum(parameter.numel() for parameter in net.parameters())
    return {"wall_ms": wall_s * 1e3 / steps, "cpu_ms": cpu_s * 1e3 / steps, "parameters": n_parameters}


def ours(programs, folder, model):
    """Trains a model with wavemill-train, without and with the measured steps; returns the same."""
    frames, steps = MODELS[model]
    runs, cpu_ms = folder / "runs", []
    for all_steps in (FIRST, FIRST + steps):
        shutil.rmtree(runs, ignore_errors=True)
        used = program([
            programs / "wavemill-train", "fit", "-q", "--model", model, "--store", folder / "store", "--runs", runs, "--split", "stratified", "--epochs", "1", "--device", "cpu",
            "--batch-size", str(BATCH), "--threads", str(THREADS),
            "--set", f"train.steps={all_steps}", "--set", f"data.frames={frames}",
        ])
        cpu_ms.append(used["cpu_ms"])
    [of_model] = runs.iterdir()
    entries = map(json.loads, (of_model / "log.jsonl").read_text().splitlines())
    times_s = [entry["unix_s"] for entry in entries if entry["kind"] == "step"]
    if len(times_s) != FIRST + steps:
        sys.exit(f"bench: {model}: the log has {len(times_s)} steps instead of {FIRST + steps}")
    parameters = json.loads((of_model / "result.json").read_text())["parameters"]
    wall_ms = (times_s[-1] - times_s[FIRST - 1]) * 1e3
    return {"wall_ms": wall_ms / steps, "cpu_ms": (cpu_ms[1] - cpu_ms[0]) / steps, "parameters": parameters}


def medians(results):
    """Returns the medians of a contestant's rounds: wall and CPU milliseconds per step."""
    return [statistics.median(result[key] for result in results) for key in ("wall_ms", "cpu_ms")]


def compare(programs, folder, rounds, model):
    """Returns the line of a model in the table of wavemill-train and PyTorch."""
    us, them = alternate({
        f"{model}, wavemill": functools.partial(ours, programs, folder, model),
        f"{model}, PyTorch": functools.partial(peer, "train.py", "--torch", model, folder),
    }, rounds).values()
    mine, other = us[0]["parameters"], them[0]["parameters"]
    if mine != other:
        sys.exit(f"bench: {model} has {mine} parameters, but {other} with PyTorch")
    cells = (f"{one:.1f} | {two:.1f} | {one / two:.2f}" for one, two in zip(medians(us), medians(them)))
    frames, steps = MODELS[model]
    return f"| {model} | {frames} | {mine:,} | {steps} | " + " | ".join(cells) + " |"


def main():
    """Measure and write the page; with --torch, which is internal, train one model with PyTorch."""
    if sys.argv[1:2] == ["--torch"]:
        print(json.dumps(theirs(sys.argv[2], Path(sys.argv[3]))))
        return
    if len(sys.argv) < 3 or {"-h", "--help"} & set(sys.argv):
        sys.exit(__doc__)
    programs, out = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    # Without these, wavemill-train sets its own value, and PyTorch has the default of libgomp.
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        os.environ.pop(name, None)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    with tempfile.TemporaryDirectory(prefix="wavemill-bench-") as scratch:
        load, count = os.getloadavg()[0], prepare(programs, Path(scratch))
        lines = "\n".join(HEADS + [compare(programs, Path(scratch), rounds, model) for model in MODELS])
    page = PAGE.format(count=count, rounds=rounds, load=load, compared=lines, machine=machine(("torch", "numpy", "pyarrow")))
    write(out, [page.rstrip()])


if __name__ == "__main__":
    main()
