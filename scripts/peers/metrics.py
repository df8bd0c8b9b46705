#!/usr/bin/env python3
"""Compare the trainer's scores with scikit-learn's on the same random predictions, to 1e-9.

usage: metrics.py --binary PATH [--seeds N]
needs: scikit-learn and numpy of requirements.txt

--binary is the built example (`cargo build -p wavemill-scores --example metrics`). Each case has rows without a
label, classes without rows, classes that are never predicted, equal probabilities, and several segments per track. Each
case is scored by segment, by track mean and by track vote. Prints the largest difference of each metric; exit code 1 if
it exceeds the bound.
"""
import argparse, collections, json, math, pathlib, subprocess, sys, tempfile, warnings
import numpy as np
from sklearn import metrics as sk

BOUND = 1e-9  # both sum in f64; orders of summation differ by about 1e-15
THRESHOLD = 0.5


def probabilities(rng, n, classes, multi, ties):
    """Return `[n, classes]` f32, rounded to eighths if equal values are required."""
    raw = rng.random((n, classes)) if multi else rng.dirichlet(np.full(classes, 0.4), n)
    return (np.round(raw * 8) / 8 if ties else raw).astype(np.float32)


def case(seed, classes, multi):
    """Return one input for the example."""
    rng = np.random.default_rng([seed, classes, multi])
    tracks = int(rng.integers(20, 400))
    track_of = np.sort(rng.integers(0, tracks, tracks * int(rng.integers(1, 6))))
    n = len(track_of)
    p = probabilities(rng, n, classes, multi, ties=seed % 2 == 0)
    never = rng.integers(0, classes)
    if classes > 2 and not multi:
        p[:, never] = 0  # the class has labels, but is never predicted
    out = {
        "classes": [f"class {i}" for i in range(classes)],
        "track_ids": track_of.tolist(),
        "artist_ids": [None if track % 7 == 0 else int(track // 3) for track in track_of],
        "probabilities": p.astype(float).tolist(),
    }
    unlabelled = rng.random(tracks) < 0.1
    if multi:
        chances = 0.05 + 0.6 * rng.random(classes) ** 3
        if classes > 2:
            chances[rng.integers(0, classes)] = 0  # no track has this label
        sets = rng.random((tracks, classes)) < chances
        out["sets"] = [None if unlabelled[t] else sets[t].tolist() for t in track_of]
    else:
        absent = rng.integers(0, classes)
        labels = rng.choice([c for c in range(classes) if classes == 2 or c != absent], tracks)
        # Half of the tracks have the label of their mean prediction, so that scores are above chance.
        for track in range(0, tracks, 2):
            rows = track_of == track
            labels[track] = p[rows].mean(0).argmax() if rows.any() else labels[track]
        out["labels"] = [-1 if unlabelled[t] else int(labels[t]) for t in track_of]
    return out


def levels(data):
    """Yield (level, labels or sets, `[n, classes]` f32) of rows, track means and track votes, without unlabelled rows."""
    p = np.array(data["probabilities"], np.float32)
    multi = "sets" in data
    known = np.array([s is not None for s in data["sets"]] if multi else [label >= 0 for label in data["labels"]])
    truth = np.array([s for s in data["sets"] if s is not None] if multi else data["labels"], int)
    truth = truth if multi else truth[known]
    p, tracks = p[known], np.array(data["track_ids"])[known]
    yield "segments", truth, p
    ids, first = np.unique(tracks, return_index=True)
    means, votes = [], []
    for track in ids:
        rows = p[tracks == track].astype(np.float64)
        mean = rows.sum(0) / len(rows)
        cast = (rows >= THRESHOLD).sum(0) if multi else np.bincount(rows.argmax(1), minlength=p.shape[1])
        means.append(mean.astype(np.float32))
        votes.append(((cast + mean) / (len(rows) + 1)).astype(np.float32))
    yield "tracks_mean", truth[first], np.array(means)
    yield "tracks_majority", truth[first], np.array(votes)


def single_figures(report, level, y, p):
    """Yield (metric, ours, scikit-learn's) of a target with one class per row."""
    classes = p.shape[1]
    guess, all_classes = p.argmax(1), np.arange(classes)
    r = report["report"]
    yield "accuracy", r["accuracy"], sk.accuracy_score(y, guess)
    yield "balanced accuracy", r["balanced_accuracy"], sk.balanced_accuracy_score(y, guess)
    for ours, average in [("macro_mean", "macro"), ("weighted_mean", "weighted")]:
        want = sk.precision_recall_fscore_support(y, guess, average=average, zero_division=0)
        for name, value in zip(("precision", "recall", "f1"), want):
            yield f"{average} {name}", r[ours][name], value
    want = sk.precision_recall_fscore_support(y, guess, labels=all_classes, average=None, zero_division=0)
    for name, values in zip(("precision", "recall", "f1", "support"), want):
        yield f"per-class {name}", [c[name] for c in r["classes"]], values
    yield "never predicted", [c["never_predicted"] for c in r["classes"]], ~np.isin(all_classes, guess)
    yield "confusion matrix", r["confusion"], sk.confusion_matrix(y, guess, labels=all_classes)
    if classes > 3:
        yield "top 3", r["top_3"], sk.top_k_accuracy_score(y, p, k=3, labels=all_classes)
    if level != "tracks_majority":
        yield "log loss", report["log_loss"], sk.log_loss(y, p.astype(np.float64), labels=all_classes)


def multi_figures(report, _level, y, p):
    """Yield (metric, ours, scikit-learn's) of a target with several labels per row."""
    guess, r = (p >= THRESHOLD).astype(int), report["report"]
    both = (y.min(0) == 0) & (y.max(0) == 1)
    for figure, score in [("roc_auc", sk.roc_auc_score), ("average_precision", sk.average_precision_score)]:
        name = figure.replace("_", " ")
        ours = [c[figure] for c in r["classes"]]
        yield f"{name}: which exist", [value is not None for value in ours], both
        yield f"per-class {name}", [v for v in ours if v is not None], score(y[:, both], p[:, both], average=None)
        yield f"macro {name}", r[f"{figure}_macro"], score(y[:, both], p[:, both], average="macro")
        yield f"micro {name}", r[f"{figure}_micro"], score(y, p, average="micro")
    yield "exact match", r["exact_match"], sk.accuracy_score(y, guess)
    for average in ("macro", "micro"):
        yield f"{average} f1 of sets", r[f"f1_{average}"], sk.f1_score(y, guess, average=average, zero_division=0)
    want = sk.precision_recall_fscore_support(y, guess, average=None, zero_division=0)
    for name, values in zip(("precision", "recall", "f1", "support"), want):
        yield f"per-class {name} of sets", [c[name] for c in r["classes"]], values


def difference(ours, theirs):
    """Return the largest absolute difference; infinite if shapes differ or a value is missing."""
    ours, theirs = np.atleast_1d(np.array(ours, float)), np.atleast_1d(np.array(theirs, float))
    error = np.abs(ours - theirs).max(initial=0) if ours.shape == theirs.shape else math.inf
    return math.inf if math.isnan(error) else float(error)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True, help="path of the built example, such as target/debug/examples/metrics")
    parser.add_argument("--seeds", type=int, default=6, help="random inputs for each number of classes (default: %(default)s)")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")  # about classes without rows, which are here on purpose
    worst, counts = collections.defaultdict(float), collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "in.json"
        for seed in range(args.seeds):
            for multi, classes in [(False, c) for c in (2, 3, 4, 8, 16, 40)] + [(True, c) for c in (2, 3, 16, 60)]:
                data = case(seed, classes, multi)
                path.write_text(json.dumps(data))
                result = json.loads(subprocess.run([args.binary, path], check=True, capture_output=True).stdout)
                for level, y, p in levels(data):
                    report = result[level] or result["segments"]  # each track has one row
                    for name, ours, theirs in (multi_figures if multi else single_figures)(report, level, y, p):
                        worst[name] = max(worst[name], difference(ours, theirs))
                        counts[name] += 1
    for name, error in worst.items():
        print(f"{'ok  ' if error <= BOUND else 'FAIL'} {name:34} {counts[name]:4} comparisons  {error:.1e} <= {BOUND:.0e}")
    print(f"largest difference from scikit-learn: {max(worst.values()):.1e}")
    sys.exit(0 if max(worst.values()) <= BOUND else 1)


if __name__ == "__main__":
    main()
