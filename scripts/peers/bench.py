#!/usr/bin/env python3
"""Run wavemill and its Python peers alternately and write a table; started by scripts/bench.sh.

usage: bench.py extract|stages WAVEMILL DATA OUT.md [ROUNDS]

Each round runs every peer once, in turn, so that a slow minute of the machine affects all of them. The result is the best
round; median and worst round are shown as well. Imports and start of a peer are not timed; wavemill's process is timed
from start to the committed store.
"""

import csv
import datetime
import json
import os
import re
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
# For a stage there are many programs to compare, and no start to amortize.
STAGE_CLIPS = 192
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")}
CHAINS = {
    "librosa": ("chain", "librosa"),
    "soundfile + soxr + torchaudio": ("chain", "soundfile"),
    "torchcodec + torchaudio": ("chain", "torchcodec"),
}
BAND_PATH = ("--set", "audio.decode.path=band")
FILE_RATE = ("--set", "audio.sample_rate_hz=44100")
PACKAGE = "wavemill in Python, 1 thread"
TWO_THREADS = "wavemill, 2 threads"
OURS = {
    "wavemill, 1 thread": (),
    "wavemill by the band path, 1 thread": BAND_PATH,
}
OUR_STAGES = {
    "decode to the mean of the channels, at 44.1 kHz: wavemill": ("decode", FILE_RATE),
    "decode and resample: wavemill": ("decode", ()),
    "decode and resample: wavemill by the band path": ("decode", BAND_PATH),
    "log-mel, min-max and packing: wavemill": ("features", ()),
    "Parquet, compressed: wavemill": ("encode", ()),
    "read the file: wavemill": ("read", ()),
}
MPG123 = "decode: mpg123"
WHOLE = "whole process: wavemill"
# Decoders in decode/examples/decode_mp3.rs.
RUST_DECODERS = ("symphonia", "nanomp3")
# Functions that do the work of each stage, including all functions that they call.
COUNTED = {
    "decode the frames of an MP3 to the mean of their channels": "MonoDecoder::decode",
    "of these, read codes and requantise them": "GranuleReader::read_codes",
    "resample": "resample::cpu::Resampler::push",
    "hash the audio (blake3)": "blake3::Hasher::update",
    "log-mel, min-max and packing": "ClipPlan::row",
    "of these, transforms of frames": "stft::cpu::StftPlan::block",
}
PEERS = ("librosa", "soundfile", "soxr", "torch", "torchaudio", "torchcodec")
STAGES = {
    "decode: librosa": ("decode", "librosa"),
    "decode: soundfile": ("decode", "soundfile"),
    "decode: torchcodec": ("decode", "torchcodec"),
    "resample: librosa (soxr_hq)": ("resample", "librosa"),
    "resample: soxr": ("resample", "soxr"),
    "resample: torchaudio": ("resample", "torchaudio"),
    "log-mel: librosa": ("mel", "librosa"),
    "log-mel: torchaudio": ("mel", "torchaudio"),
}


def machine(names=PEERS):
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


def measured(kind):
    """Returns the same and the command, as two Markdown paragraphs."""
    return f"{machine()}\n\nCommand: `scripts/bench.sh {kind}`."


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
    """Return a Markdown table: best, median and worst round of each contestant, best first (within its stage, `stage: name`)."""
    rows = {name: sorted(result[key] / scale for result in rounds) for name, rounds in results.items()}
    text = [f"| | best, {unit} | median | worst |", "|---|---|---|---|"]
    for name, values in sorted(rows.items(), key=lambda row: (row[0].rpartition(":")[0], row[1][0])):
        text.append(f"| {name} | {values[0]:.2f} | {statistics.median(values):.2f} | {values[-1]:.2f} |")
    return "\n".join(text)


def best(results, name, key):
    """Return the value of the best round."""
    return min(result[key] for result in results[name])


def archive(data, folder, clips=CLIPS):
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
        for number in range(1000, 1000 + clips):
            record, path = rows[number % len(rows)]
            target = folder / "audio" / f"{number:06d}"[:3] / f"{number:06d}.mp3"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            writer.writerow([str(number), *record[1:]])
            files.append(target)
    return folder / "metadata", folder / "audio", files, min(len(rows), clips)


def extract_command(wavemill, metadata_dir, audio, store, threads, options=()):
    """Measure `wavemill extract` into a store that does not exist yet."""
    shutil.rmtree(store, ignore_errors=True)
    return [
        wavemill, "extract", "--recipe", HERE / "bench.toml", "--metadata", metadata_dir, "--audio", audio,
        "--store", store, "--threads", str(threads), *options,
    ]


def bench_extract(wavemill, data, scratch, rounds):
    """Measure the whole chain on one core, two threads compared with one, and peak memory."""
    metadata_dir, audio, files, distinct = archive(data, scratch)
    out = scratch / "npy"
    out.mkdir()

    def ours(threads, options=()):
        return lambda: program(extract_command(wavemill, metadata_dir, audio, scratch / "store", threads, options))

    def theirs(arguments):
        def run():
            got = peer("peer_audio.py", *arguments, out, *map(str, files[:PEER_CLIPS]), env=ONE_THREAD)
            return {**got, "cpu_ms": got["cpu_ms"] * CLIPS}

        return run

    contestants = {TWO_THREADS: ours(2)}
    contestants |= {name: ours(1, options) for name, options in OURS.items()}
    contestants |= {name: theirs(arguments) for name, arguments in {PACKAGE: ("chain", "wavemill"), **CHAINS}.items()}
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
        f"The figure is CPU time per clip (user + system), with one worker. The archive has {CLIPS} clips of 30 s, copies of "
        f"{distinct} real clips of FMA; the other tools process {PEER_CLIPS} of them. The feature is log-mel with 128 bands, at "
        "22.05 kHz mono. wavemill also reads the metadata, normalises, packs to f16, compresses, writes, syncs and commits, and "
        "its figure includes the program's start. The other tools write .npy files, and their figures do not include imports. "
        "The program is a plain release build, which runs on any x86-64.",
        measured("extract"),
        table(results, "cpu_ms", "CPU ms per clip", CLIPS),
        f"- wavemill is {exact}, the fastest of the other chains.\n"
        f"- By the band path it is {by_band}.\n"
        f"- Its Python package, which writes .npy files like the other tools, is {ratios(PACKAGE)}.\n"
        f"- Two workers are {one_s / two_s:.2f}× as fast as one on {os.cpu_count()} cores (wall {two_s:.2f} s against "
        f"{one_s:.2f} s, best rounds). With one worker, reading and writing may use another core.\n"
        f"- Peak memory: {max(run['peak_mib'] for run in one + two):.0f} MiB.",
    ]


def bench_stages(wavemill, data, scratch, rounds):
    """Measure the stages of wavemill and of the Python chains."""
    metadata_dir, audio, files, _ = archive(data, scratch, STAGE_CLIPS)

    def ours(stage, options):
        command = extract_command(wavemill, metadata_dir, audio, scratch / "store", 1, [*options, "--json"])
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return {"cpu_ms": json.loads(done.stdout)["cpu_s"][stage] * 1e3 / STAGE_CLIPS}

    def whole_program(*command):
        return {"cpu_ms": program(command)["cpu_ms"] / STAGE_CLIPS}

    def theirs(arguments):
        return lambda: peer("peer_audio.py", *arguments, scratch, *map(str, files[:23]), env=ONE_THREAD)

    contestants = {name: lambda of=of: ours(*of) for name, of in OUR_STAGES.items()}
    contestants[WHOLE] = lambda: whole_program(*extract_command(wavemill, metadata_dir, audio, scratch / "store", 1))
    contestants.update({name: theirs(arguments) for name, arguments in STAGES.items()})
    contestants[MPG123] = lambda: whole_program("mpg123", "--quiet", "--test", "--encoding", "f32", *files)
    by_rust = Path(wavemill).parent / "examples" / "decode_mp3"
    for name in RUST_DECODERS:
        contestants[f"decode: {name}"] = lambda name=name: whole_program(by_rust, name, *files)
    counted = instructions(wavemill, files[0], scratch)
    results = alternate(contestants, rounds)

    def ratio(us, them):
        """Return wavemill's time as a fraction of the other tool's time."""
        return f"{best(results, us, 'cpu_ms') / best(results, them, 'cpu_ms'):.2f}"

    whole, resampled, band, mel, parquet, read = OUR_STAGES
    rest_ms = sum(best(results, name, "cpu_ms") for name in (parquet, read))
    process_ms = best(results, WHOLE, "cpu_ms")
    other_ms = process_ms - rest_ms - sum(best(results, name, "cpu_ms") for name in (resampled, mel))
    return [
        "# Stages",
        "The figure is CPU time per clip of 30 s, on one thread. wavemill's figures come from `extract --json` of a plain "
        "release build. Its decoding includes a first pass over the file and the hash of the audio. mpg123 is the command-line "
        "program, which decodes all clips in one process and writes nothing (`mpg123 --test`). The example "
        "`decode/examples/decode_mp3.rs` (also a release build) does the same with symphonia as released and with nanomp3, "
        "which keeps all samples of a file. The figures of these three include start and reading.",
        measured("stages"),
        table(results, "cpu_ms", "CPU ms per clip"),
        f"- Decoding to the mean of the channels takes {ratio(whole, MPG123)} of the time of mpg123.\n"
        f"- The band path to 22.05 kHz takes {ratio(band, MPG123)} of the time of mpg123.\n"
        f"- log-mel with min-max and packing takes {ratio(mel, 'log-mel: librosa')} of librosa's log-mel.\n"
        f"- Reading a file and encoding its row as Parquet, with its statistics, take {rest_ms:.2f} ms. The hash of the audio is "
        f"counted as decoding. Of the {process_ms:.2f} ms of the whole process, {other_ms:.2f} are in none of the stages: the "
        f"hash of the file, start, metadata, queues, writing, sync and commit, over {STAGE_CLIPS} clips.",
        "## Instructions",
        f"One clip ({files[0].stat().st_size / 1e6:.1f} MB), counted by valgrind's callgrind; a stage includes the "
        "functions that it calls. Instruction counts do not depend on other programs; without valgrind a library may select "
        "other instructions for this processor.",
        "| | millions |\n|---|---|\n" + "\n".join(f"| {stage} | {n / 1e6:.1f} |" for stage, n in counted.items()),
    ]


def instructions(wavemill, clip, scratch):
    """Return {stage: instructions} of one clip from MP3 to log-mel."""
    counts = scratch / "callgrind.out"
    program = [wavemill, "features", clip, "--recipe", HERE / "bench.toml", "--format", "npy", "--out", scratch / "clip.npy"]
    subprocess.run(
        ["valgrind", "--tool=callgrind", f"--callgrind-out-file={counts}", *program], check=True, capture_output=True
    )
    # Runs outside of the sources, because it counts files below the working directory separately.
    annotated = subprocess.run(
        ["callgrind_annotate", "--inclusive=yes", "--threshold=100", "--auto=no", counts],
        check=True, capture_output=True, text=True, cwd=scratch,
    ).stdout
    return {stage: most(annotated, function) for stage, function in COUNTED.items()}


def most(annotated, function):
    """Return a function's count: the largest of its lines, because the others are code inlined from other files."""
    line = re.compile(rf"^ *([\d,]+) .*:\S*\b{re.escape(function)} \[", re.MULTILINE)
    counts = [int(count.replace(",", "")) for count in line.findall(annotated)]
    if not counts:
        sys.exit(f"bench: callgrind reports no {function}: if it was renamed, update COUNTED in {Path(__file__).name}")
    return max(counts)


def write(out, paragraphs):
    """Write the paragraphs of a page to a file, and print them."""
    page = "\n\n".join(paragraphs)
    out.write_text(page + "\n", encoding="utf-8")
    print(page)


def main():
    """Measure one kind and write its page."""
    if len(sys.argv) < 5 or {"-h", "--help"} & set(sys.argv):
        sys.exit(__doc__)
    kind, wavemill, data, out = sys.argv[1], *map(Path, sys.argv[2:5])
    rounds = int(sys.argv[5]) if len(sys.argv) > 5 else 5
    measure = {"extract": bench_extract, "stages": bench_stages}[kind]
    with tempfile.TemporaryDirectory(prefix="wavemill-bench-") as scratch:
        write(out, measure(wavemill.resolve(), data, Path(scratch), rounds))


if __name__ == "__main__":
    main()
