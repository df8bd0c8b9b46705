#!/usr/bin/env python3
"""Run wavemill and its Python peers alternately and write a table; started by scripts/bench.sh.

usage: bench.py extract|catalog|stages|clips WAVEMILL DATA OUT.md [ROUNDS]

Each round runs every peer once, in turn, so that a slow minute of the machine affects all of them. The result is the best
round; median and worst round are shown as well. Imports and start of a peer are not timed; wavemill's process is timed
from start to the committed store.
"""

import csv
import datetime
import json
import os
import re
import resource
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
# Sizes of archives in which the cost per clip should be equal.
ARCHIVE_CLIPS = (10, 100, 1_000, 10_000)
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")}
CHAINS = {
    "librosa": ("chain", "librosa"),
    "soundfile + soxr + torchaudio": ("chain", "soundfile"),
    "torchcodec + torchaudio": ("chain", "torchcodec"),
    "Essentia": ("chain", "essentia"),
}
BAND_PATH = ("--set", "audio.decode.path=band")
FILE_RATE = ("--set", "audio.sample_rate_hz=44100")
PACKAGE = "wavemill in Python, 1 thread"
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
PEERS = ("librosa", "soundfile", "soxr", "torch", "torchaudio", "torchcodec", "essentia", "duckdb", "polars")
STAGES = {
    "decode: librosa": ("decode", "librosa"),
    "decode: soundfile": ("decode", "soundfile"),
    "decode: torchcodec": ("decode", "torchcodec"),
    "decode and resample: Essentia": ("decode", "essentia"),
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


def program(command, n_cores=None):
    """Run a program and return CPU and wall milliseconds and peak memory (MiB) of the program and its children.

    The program may use `n_cores` of the cores of this process, or all of them if it is None.
    """
    cores = sorted(os.sched_getaffinity(0))[:n_cores]
    start = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
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


def archive(data, folder, clips=CLIPS, links=False):
    """Create an archive in FMA's layout from labelled real clips of 30 s: (metadata, audio, files, number of distinct clips).

    With `links`, copies of a clip are links: ten thousand copies would take 10 GB.
    """
    header, rows = [], []
    for source in (data / "audio" / "fma_real", data / "fma_like"):
        with open(source / "tracks.csv", encoding="utf-8", newline="") as file:
            header, *records = [list(group) for group in split_header(csv.reader(file))]
        genre = header[1].index("genre_top")
        for record in records:
            name = f"{int(record[0]):06d}"
            path = source / name[:3] / f"{name}.mp3"
            if record[genre] and path.exists() and path.stat().st_size > 400_000:
                rows.append((record, path))
    (folder / "metadata").mkdir(parents=True)
    files = []
    copies = {}
    with open(folder / "metadata" / "tracks.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows(header)
        for index in range(clips):
            record, path = rows[index % len(rows)]
            name = f"{1000 + index:06d}"
            target = folder / "audio" / name[:3] / f"{name}.mp3"
            target.parent.mkdir(parents=True, exist_ok=True)
            if links and path in copies:
                os.link(copies[path], target)
            else:
                shutil.copyfile(path, target)
                copies[path] = target
            writer.writerow([str(1000 + index), *record[1:]])
            files.append(target)
    return folder / "metadata", folder / "audio", files, min(len(rows), clips)


def split_header(reader):
    """Yield the three header lines as one list, then each record."""
    yield [next(reader), next(reader), next(reader)]
    yield from reader


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

    def ours(threads, n_cores=None, options=()):
        command = extract_command(wavemill, metadata_dir, audio, scratch / "store", threads, options)
        return program(command, n_cores)

    def theirs(arguments):
        def run():
            got = peer("peer_audio.py", *arguments, out, *map(str, files[:PEER_CLIPS]), env=ONE_THREAD)
            return {**got, "cpu_ms": got["cpu_ms"] * CLIPS}

        return run

    def twice():
        """Run two processes with one worker each on separate cores, which shows the maximum speed-up for two threads."""
        cores = sorted(os.sched_getaffinity(0))[:2]
        commands = [extract_command(wavemill, metadata_dir, audio, scratch / f"store{core}", 1) for core in cores]

        start = time.perf_counter()
        processes = [
            subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                preexec_fn=lambda core=core: os.sched_setaffinity(0, [core]),
            )
            for core, command in zip(cores, commands)
        ]
        if any([process.wait() for process in processes]):
            sys.exit("bench: one of two parallel programs failed")
        return {"wall_ms": (time.perf_counter() - start) * 1e3 / len(cores)}

    contestants = {
        "wavemill, 1 core": lambda: ours(1, 1),
        "wavemill, 2 threads": lambda: ours(2),
        "wavemill, 2 programs": twice,
    }
    contestants.update({name: lambda options=options: ours(1, options=options) for name, options in OURS.items()})
    contestants[PACKAGE] = theirs(("chain", "wavemill"))
    contestants.update({name: theirs(arguments) for name, arguments in CHAINS.items()})
    results = alternate(contestants, rounds)
    two = results.pop("wavemill, 2 threads")
    peak = max(result["peak_mib"] for result in results["wavemill, 1 thread"] + two)

    def scaling(name, double=two):
        """Describe how much faster `double` is than `name`: best rounds, and the ratios within the rounds."""
        one = results[name]
        ratios = sorted(single["wall_ms"] / both["wall_ms"] for single, both in zip(one, double))
        fastest_s, both_s = (min(run["wall_ms"] for run in runs) / 1e3 for runs in (one, double))
        return (
            f"{fastest_s / both_s:.2f}× as fast as one on {os.cpu_count()} cores (wall {both_s:.2f} s against {fastest_s:.2f} s, "
            f"best rounds; ratios within a round: median {statistics.median(ratios):.2f}, {ratios[0]:.2f} to {ratios[-1]:.2f})"
        )

    def cores(rounds):
        """Return the number of cores that a run keeps busy, in the median round."""
        return statistics.median(result["cpu_ms"] / result["wall_ms"] for result in rounds)

    scalings = [scaling(name) for name in ("wavemill, 1 thread", "wavemill, 1 core")]
    two_programs = scaling("wavemill, 1 core", results.pop("wavemill, 2 programs"))
    busy = cores(two), cores(results["wavemill, 1 core"])
    del results["wavemill, 1 core"]
    chains = {name: best(results, name, "cpu_ms") for name in CHAINS}
    fastest = min(chains, key=chains.get)

    def ratios(name):
        """Describe how much faster wavemill is than librosa and the fastest Python chain."""
        us = best(results, name, "cpu_ms")
        return f"{chains['librosa'] / us:.2f}× as fast as librosa and {chains[fastest] / us:.2f}× as fast as {fastest}"

    exact, by_band = (ratios(name) for name in OURS)
    return "\n\n".join([
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
        f"- Two workers are {scalings[0]}. With one worker, reading and writing may use another core.\n"
        f"- If all threads of the run with one worker share one core, two workers are {scalings[1]}.\n"
        f"- Two processes with one worker each, on separate cores, are {two_programs}; the time of both is halved. This is "
        f"about the maximum speed-up on this machine. Two workers keep {busy[0]:.2f} cores busy, one worker on one core "
        f"{busy[1]:.2f}.\n"
        f"- Peak memory: {peak:.0f} MiB.",
    ])


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
    return "\n\n".join([
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
    ])


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


def bench_clips(wavemill, data, scratch, rounds):
    """Measure the cost per clip in small and large archives, and how busy the workers are."""
    threads = os.cpu_count()

    def extraction(n_clips, folder, metadata_dir, audio):
        command = extract_command(wavemill, metadata_dir, audio, folder / "store", threads, ["--json"])
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        shutil.rmtree(folder / "store")

        process_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        stages_s = sum(report["cpu_s"].values())
        return {
            "process_s": process_s,
            "clip_ms": stages_s * 1e3 / n_clips,
            "wall_s": report["wall_s"]["clips"],
            "busy": report["workers_busy"],
        }

    contestants = {}
    for n_clips in ARCHIVE_CLIPS:
        folder = scratch / str(n_clips)
        metadata_dir, audio, _, _ = archive(data, folder, n_clips, links=True)
        contestants[n_clips] = lambda of=(n_clips, folder, metadata_dir, audio): extraction(*of)
    results = alternate(contestants, rounds)

    lines = []
    for n_clips, of_size in results.items():
        clip_ms = sorted(result["clip_ms"] for result in of_size)
        busy = [result["busy"] for result in of_size]
        lines.append(
            f"| {n_clips:,} | {clip_ms[0]:.2f} | {statistics.median(clip_ms):.2f} | {clip_ms[-1]:.2f} "
            f"| {best(results, n_clips, 'wall_s'):.2f} | {max(busy) * 100:.1f} % | {statistics.median(busy) * 100:.1f} % |"
        )
    small, large = ARCHIVE_CLIPS[0], ARCHIVE_CLIPS[-1]
    more_s = best(results, large, "process_s") - best(results, small, "process_s")
    used = statistics.median(result["process_s"] / (threads * result["wall_s"]) for result in results[large])

    return "\n\n".join([
        "# Archives of ten to ten thousand clips",
        "The figure is CPU time per clip of 30 s, from MP3 to a stored log-mel: the sum of the stages in `extract --json` "
        "(reading, decoding, features, encoding). It does not include the program's start, the metadata, writing, sync and the "
        "commit. All clips are links to a few real clips of FMA, so their bytes are cached in memory. "
        f"There are {threads} workers on {threads} cores. A worker is busy while it processes a clip or a row group "
        "(`workers_busy` of the report), and waits otherwise. A busy worker may still have to share its core with a "
        "reader, the writer or another program.",
        measured("clips"),
        "\n".join([
            "| clips | best, CPU ms per clip | median | worst | extraction, best wall s | workers busy, best | median |",
            "|---|---|---|---|---|---|---|",
            *lines,
        ]),
        f"Measured by the CPU time of the whole process, including writing and sync, one more clip costs "
        f"{more_s * 1e3 / (large - small):.2f} ms: the difference between {large:,} and {small} clips in the best rounds, per "
        f"clip. "
        f"With {large:,} clips the process keeps the cores busy for {used * 100:.1f} % of the extraction time (median).",
    ])


def bench_catalog(wavemill, data, scratch, rounds):
    """Measure reading, cleaning and counting of a tracks.csv of FMA's size."""
    tracks = scratch / "metadata" / "tracks.csv"
    tracks.parent.mkdir()
    source = data / "fma_metadata"
    subprocess.run([sys.executable, data / "make_full_tracks.py", source, tracks], check=True, stdout=subprocess.DEVNULL)
    shutil.copyfile(source / "genres.csv", tracks.parent / "genres.csv")
    # Only metadata is measured, but a folder without any clip would be an error.
    (scratch / "audio").mkdir()
    (scratch / "audio" / "none.mp3").touch()
    command = extract_command(wavemill, tracks.parent, scratch / "audio", scratch / "store", os.cpu_count())
    command += ["--dry-run", "--json", "--set", "catalog.require_audio=false"]

    def our_query():
        """Measure reading, typing, cleaning and counting, with the times that wavemill reports."""
        wall_s = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["wall_s"]
        return {"wall_ms": (wall_s["read"] + wall_s["clean"]) * 1e3}

    contestants = {"process: wavemill": lambda: program(command), "query alone: wavemill": our_query}
    for name in ("duckdb", "polars"):
        whole = [sys.executable, HERE / "peer_catalog.py", name, tracks]
        contestants[f"process: {name}"] = lambda whole=whole: program(whole)
        contestants[f"query alone: {name}"] = lambda name=name: peer("peer_catalog.py", name, tracks)
    results = alternate(contestants, rounds)
    timed = {name: rounds for name, rounds in results.items() if "cpu_ms" in rounds[0]}

    def ratio(kind):
        """Return wavemill's time divided by that of the faster peer, best rounds."""
        peers = min(best(results, f"{kind}: {name}", "wall_ms") for name in ("duckdb", "polars"))
        return best(results, f"{kind}: wavemill", "wall_ms") / peers

    return "\n\n".join([
        "# Catalog: tracks.csv of FMA's size",
        f"The file has 106,574 rows, {tracks.stat().st_size / 1e6:.0f} MB and 53 columns. All cores are used.",
        "- *query alone*: read all columns with their types, drop unlabelled rows, count. For wavemill these are the parts "
        "`read` and `clean` of `extract --dry-run --json`, which also parse list columns and record the line of each reject. "
        "The peers are timed in Python, without process start and imports.\n"
        "- *process*: from start to exit. wavemill's process also computes three splits and the class lists, "
        "and plans the shards.",
        measured("catalog"),
        "Wall time:", table(results, "wall_ms", "ms"), "CPU time:", table(timed, "cpu_ms", "ms"),
        f"wavemill's query takes {ratio('query alone'):.2f}× the wall time of the faster peer's query. Its process takes "
        f"{ratio('process'):.2f}× the wall time of the faster peer's process.",
    ])


def main():
    """Measure one kind and write its page."""
    if len(sys.argv) < 5 or {"-h", "--help"} & set(sys.argv):
        sys.exit(__doc__)
    kind, wavemill, data, out = sys.argv[1], Path(sys.argv[2]).resolve(), Path(sys.argv[3]), Path(sys.argv[4])
    rounds = int(sys.argv[5]) if len(sys.argv) > 5 else 5
    measure = {"extract": bench_extract, "catalog": bench_catalog, "stages": bench_stages, "clips": bench_clips}[kind]
    with tempfile.TemporaryDirectory(prefix="wavemill-bench-") as scratch:
        page = measure(wavemill, data, Path(scratch), rounds)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page + "\n", encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
