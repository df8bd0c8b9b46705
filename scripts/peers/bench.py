#!/usr/bin/env python3
"""Run wavemill and its Python peers alternately, from MP3s to a store, and write a table; started by scripts/bench.sh extract.

usage: bench.py WAVEMILL DATA OUT.md [ROUNDS]

Each round runs every peer once, in turn, so that a slow minute of the machine affects all of them. The result is the best
round; median and worst round are shown as well. Imports and start of a peer are not timed; wavemill's process is timed
from start to the committed store.
"""

import csv
import datetime
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).resolve().parent
# wavemill's process is timed as a whole, so it needs enough clips for its start and commit to be negligible. The
# timings of the peers exclude their start, so they need fewer.
CLIPS = 768
PEER_CLIPS = 64
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")}
# Chains of Python by their names in peer_audio.py.
CHAINS = {"librosa": "librosa", "soundfile + soxr + torchaudio": "soundfile", "torchcodec + torchaudio": "torchcodec"}
PACKAGE = "wavemill in Python, 1 thread"
TWO_THREADS = "wavemill, 2 threads"
OURS = {
    "wavemill, 1 thread": (),
    "wavemill by the band path, 1 thread": ("--set", "audio.decode.path=band"),
}


def machine(names):
    """Returns a line with processor, date and versions."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown CPU")
    versions = []
    for name in names:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE).stdout
    today = datetime.date.today().isoformat()
    return f"{model}, {os.cpu_count()} cores; {today}; wavemill {commit.strip()}; {', '.join(versions)}."


def program(command):
    """Run a program and return CPU and wall milliseconds and peak memory (MiB) of the program and its children."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    error = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"bench: {' '.join(map(str, command))} failed: {error.decode(errors='replace')[-500:]}")
    wall_ms = (time.perf_counter() - start) * 1e3
    return {"cpu_ms": (usage.ru_utime + usage.ru_stime) * 1e3, "wall_ms": wall_ms, "peak_mib": usage.ru_maxrss / 1024}


def peer(script, *arguments, env=None):
    """Run one of the peer scripts, which measure their own time."""
    command = [sys.executable, HERE / script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(env or {})})
    if done.returncode:
        sys.exit(f"bench: {script} {arguments[:2]} failed: {done.stderr[-500:]}")
    return json.loads(done.stdout)


def alternate(contestants, rounds):
    """Return {name: [result of each round]}. Each round runs every contestant once; the order alternates."""
    results = {name: [] for name in contestants}
    for number in range(rounds):
        for name in list(contestants)[:: 1 if number % 2 == 0 else -1]:
            results[name].append(contestants[name]())
            print(f"round {number + 1}/{rounds} {name}: {results[name][-1]}", file=sys.stderr)
    return results


def table(results, key, unit, scale=1.0):
    """Return a Markdown table: best, median and worst round of each contestant, best first."""
    rows = {name: sorted(result[key] / scale for result in rounds) for name, rounds in results.items()}
    text = [f"| | best, {unit} | median | worst |", "|---|---|---|---|"]
    for name, values in sorted(rows.items(), key=lambda row: row[1][0]):
        text.append(f"| {name} | {values[0]:.2f} | {statistics.median(values):.2f} | {values[-1]:.2f} |")
    return "\n".join(text)


def best(results, name, key):
    """Return the value of the best round."""
    return min(result[key] for result in results[name])


def archive(data, folder):
    """Create an archive in FMA's layout from labelled real clips of 30 s: (metadata, audio, files, number of distinct clips)."""
    header, rows = [], []
    for source in (data / "audio" / "fma_real", data / "fma_like"):
        with open(source / "tracks.csv", encoding="utf-8", newline="") as file:
            lines = list(csv.reader(file))
        header, genre = lines[:3], lines[1].index("genre_top")
        for record in lines[3:]:
            name = f"{int(record[0]):06d}"
            path = source / name[:3] / f"{name}.mp3"
            if record[genre] and path.exists() and path.stat().st_size > 400_000:
                rows.append((record, path))
    (folder / "metadata").mkdir(parents=True)
    files = []
    with open(folder / "metadata" / "tracks.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows(header)
        for number in range(1000, 1000 + CLIPS):
            record, path = rows[number % len(rows)]
            target = folder / "audio" / f"{number:06d}"[:3] / f"{number:06d}.mp3"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            writer.writerow([str(number), *record[1:]])
            files.append(target)
    return folder / "metadata", folder / "audio", files, min(len(rows), CLIPS)


def bench_extract(wavemill, data, scratch, rounds):
    """Measure the whole chain on one core, two threads compared with one, and peak memory."""
    metadata_dir, audio, files, distinct = archive(data, scratch)
    out = scratch / "npy"
    out.mkdir()

    def ours(threads, options=()):
        shutil.rmtree(scratch / "store", ignore_errors=True)
        return program([
            wavemill, "extract", "--recipe", HERE / "bench.toml", "--metadata", metadata_dir, "--audio", audio,
            "--store", scratch / "store", "--threads", str(threads), *options,
        ])

    def theirs(name):
        got = peer("peer_audio.py", name, out, *map(str, files[:PEER_CLIPS]), env=ONE_THREAD)
        return {**got, "cpu_ms": got["cpu_ms"] * CLIPS}

    contestants = {TWO_THREADS: lambda: ours(2)}
    contestants |= {name: lambda options=options: ours(1, options) for name, options in OURS.items()}
    contestants |= {name: lambda of=of: theirs(of) for name, of in {PACKAGE: "wavemill", **CHAINS}.items()}
    results = alternate(contestants, rounds)
    two, one = results.pop(TWO_THREADS), results[next(iter(OURS))]
    one_s, two_s = (min(run["wall_ms"] for run in runs) / 1e3 for runs in (one, two))
    chains = {name: best(results, name, "cpu_ms") for name in CHAINS}
    fastest = min(chains, key=chains.get)

    def ratios(name):
        """Describe how much faster wavemill is than librosa and the fastest Python chain."""
        us = best(results, name, "cpu_ms")
        return f"{chains['librosa'] / us:.2f}× as fast as librosa and {chains[fastest] / us:.2f}× as fast as {fastest}"

    exact, by_band = (ratios(name) for name in OURS)
    return [
        "# Extract: from MP3 to a stored log-mel",
        f"CPU time per clip of {CLIPS} clips of 30 s (copies of {distinct} of FMA), with one worker, to a log-mel with 128 bands at\n"
        f"22.05 kHz. wavemill includes its start, packing to f16, compression and the commit; the others write {PEER_CLIPS} clips\n"
        "as .npy, without imports.",
        machine(("librosa", "soundfile", "soxr", "torch", "torchaudio", "torchcodec")),
        "Command: `scripts/bench.sh extract`.",
        table(results, "cpu_ms", "CPU ms per clip", CLIPS),
        f"- wavemill is {exact}.\n"
        f"- By the band path it is {by_band}.\n"
        f"- Its Python package, which writes .npy, is {ratios(PACKAGE)}.\n"
        f"- Two workers are {one_s / two_s:.2f}× as fast as one on {os.cpu_count()} cores (wall {two_s:.2f} s against "
        f"{one_s:.2f} s).\n"
        f"- Peak memory: {max(run['peak_mib'] for run in one + two):.0f} MiB.",
    ]


def write(out, paragraphs):
    """Write the paragraphs of a page to a file, and print them."""
    page = "\n\n".join(paragraphs)
    out.write_text(page + "\n", encoding="utf-8")
    print(page)


def main():
    """Measure and write the page."""
    if len(sys.argv) < 4 or {"-h", "--help"} & set(sys.argv):
        sys.exit(__doc__)
    wavemill, data, out = map(Path, sys.argv[1:4])
    rounds = int(sys.argv[4]) if len(sys.argv) > 4 else 5
    with tempfile.TemporaryDirectory(prefix="wavemill-bench-") as scratch:
        write(out, bench_extract(wavemill.resolve(), data, Path(scratch), rounds))


if __name__ == "__main__":
    main()
