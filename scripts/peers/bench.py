#!/usr/bin/env python3
"""Run wavemill and its Python peers alternately and write a table; started by scripts/bench.sh.

usage: bench.py extract|catalog|stages|clips WAVEMILL DATA OUT.md [ROUNDS]

Each round starts every peer once, in turn, so that a slow minute of the machine meets all of them. The best round
counts, the spread is shown. A peer's imports and start are not timed; wavemill's process is timed whole, from start to
committed store.
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
# wavemill's process is timed whole: enough clips that its start and commit weigh little. The peers' start is not in their
# figures, so fewer do.
CLIPS = 768
PEER_CLIPS = 64
# Of a stage there are many contestants, and no start to make small.
STAGE_CLIPS = 192
# Sizes of an archive whose clips should all cost the same.
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
# Decoders of kernels/examples/decode_mp3.rs.
RUST_DECODERS = ("symphonia", "nanomp3")
# Which functions do a stage's work, with all that they call.
COUNTED = {
    "decode the frames of an MP3 to the mean of their channels": "MonoDecoder::decode",
    "of it, read codes and requantise them": "mp3::huffman::Reader::read_two",
    "resample": "resample::cpu::Resampler::push",
    "hash the audio (blake3)": "blake3::Hasher::update",
    "log-mel, min-max and packing": "ClipPlan::row",
    "of it, transforms of frames": "stft::cpu::StftPlan::block",
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
    """Where and with what it was measured: a line of processor, day and versions."""
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
    """The same, and by which command: two Markdown paragraphs."""
    return f"{machine()}\n\nCommand: `scripts/bench.sh {kind}`."


def program(command, n_cores=None):
    """Run a program to its end: CPU and wall milliseconds and peak memory (MiB) of it and its children.

    It may use `n_cores` of the cores that this process may use; all of them where it is None.
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
    """Run one of the peer scripts, which time themselves."""
    command = [sys.executable, HERE / script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(env or {})})
    if done.returncode:
        sys.exit(f"bench: {script} {arguments[:2]} failed: {done.stderr[-500:]}")
    return json.loads(done.stdout)


def alternate(contestants, rounds):
    """{name: [result of each round]}, every contestant once a round, every other round in the opposite order."""
    results = {name: [] for name in contestants}
    for number in range(rounds):
        for name in list(contestants)[:: 1 if number % 2 == 0 else -1]:
            results[name].append(contestants[name]())
            print(f"round {number + 1}/{rounds} {name}: {results[name][-1]}", file=sys.stderr)
    return results


def table(results, key, unit, scale=1.0):
    """Markdown: best, median and worst round of each contestant, the best first (within its stage, `stage: name`)."""
    rows = {name: sorted(result[key] / scale for result in rounds) for name, rounds in results.items()}
    text = [f"| | best, {unit} | median | worst |", "|---|---|---|---|"]
    for name, values in sorted(rows.items(), key=lambda row: (row[0].rpartition(":")[0], row[1][0])):
        text.append(f"| {name} | {values[0]:.2f} | {statistics.median(values):.2f} | {values[-1]:.2f} |")
    return "\n".join(text)


def best(results, name, key):
    """The best round's value."""
    return min(result[key] for result in results[name])


def archive(data, folder, clips=CLIPS, links=False):
    """An FMA-shaped archive of labelled clips of 30 s, copies of real ones: (its metadata, its audio, its files, how many
    differ).

    With `links`, further copies of a clip are other names of the first one: ten thousand copies would take 10 GB.
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
    """The three header lines as one list, then each record."""
    yield [next(reader), next(reader), next(reader)]
    yield from reader


def extract_command(wavemill, metadata_dir, audio, store, threads, options=()):
    """The whole of `wavemill extract`, into a store that does not exist yet."""
    shutil.rmtree(store, ignore_errors=True)
    return [
        wavemill, "extract", "--recipe", HERE / "bench.toml", "--metadata", metadata_dir, "--audio", audio,
        "--store", store, "--threads", str(threads), *options,
    ]


def bench_extract(wavemill, data, scratch, rounds):
    """End to end, one core; then two threads against one, and peak memory."""
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
        """Two programs with a worker each, side by side on two cores: what the machine has for two threads at most."""
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
            sys.exit("bench: one of two programs side by side failed")
        return {"wall_ms": (time.perf_counter() - start) * 1e3 / len(cores)}

    contestants = {
        "wavemill, 1 core": lambda: ours(1, 1),
        "wavemill, 2 threads": lambda: ours(2),
        "wavemill, 2 programs": twice,
    }
    contestants.update({name: lambda options=options: ours(1, options=options) for name, options in OURS.items()})
    contestants.update({name: theirs(arguments) for name, arguments in CHAINS.items()})
    results = alternate(contestants, rounds)
    two = results.pop("wavemill, 2 threads")
    peak = max(result["peak_mib"] for result in results["wavemill, 1 thread"] + two)

    def scaling(name, double=two):
        """How much faster `double` is than `name`: best rounds, then the rounds' own ratios."""
        one = results[name]
        ratios = sorted(single["wall_ms"] / both["wall_ms"] for single, both in zip(one, double))
        fastest_s, both_s = (min(run["wall_ms"] for run in runs) / 1e3 for runs in (one, double))
        return (
            f"{fastest_s / both_s:.2f}× as fast as one on {os.cpu_count()} cores (wall {both_s:.2f} s against {fastest_s:.2f} s, "
            f"best rounds; ratios within a round: median {statistics.median(ratios):.2f}, {ratios[0]:.2f} to {ratios[-1]:.2f})"
        )

    def cores(rounds):
        """How many cores a run keeps busy, in the middle round."""
        return statistics.median(result["cpu_ms"] / result["wall_ms"] for result in rounds)

    scalings = [scaling(name) for name in ("wavemill, 1 thread", "wavemill, 1 core")]
    two_programs = scaling("wavemill, 1 core", results.pop("wavemill, 2 programs"))
    busy = cores(two), cores(results["wavemill, 1 core"])
    del results["wavemill, 1 core"]
    chains = {name: best(results, name, "cpu_ms") for name in CHAINS}
    fastest = min(chains, key=chains.get)

    def ratios(name):
        """How much faster we are than librosa and the best Python chain."""
        us = best(results, name, "cpu_ms")
        return f"{chains['librosa'] / us:.2f}× as fast as librosa and {chains[fastest] / us:.2f}× as fast as {fastest}"

    exact, by_band = (ratios(name) for name in OURS)
    return "\n\n".join([
        "# Extract: from MP3 to a stored log-mel",
        f"The figure is CPU time per clip (user + system), with one worker. There are {CLIPS} clips of 30 s, which are copies of "
        f"{distinct} real clips of FMA; the other tools get {PEER_CLIPS} of them. The feature is log-mel with 128 bands, at "
        "22.05 kHz mono. wavemill also reads the metadata, normalises, packs to f16, compresses, writes, syncs and commits, and "
        "its start is part of the figure. The others write .npy files, and their imports are not part of the figure. "
        "The program is a plain release build, which runs on any x86-64.",
        measured("extract"),
        table(results, "cpu_ms", "CPU ms per clip", CLIPS),
        f"- wavemill is {exact}, the best chain of other tools.\n"
        f"- By the band path it is {by_band}.\n"
        f"- Two workers are {scalings[0]}. With one worker, reading and writing may use another core.\n"
        f"- If everything of the one worker's run shares one core, two workers are {scalings[1]}.\n"
        f"- Two programs of one worker each, on a core each, are {two_programs}; the time of both is halved: "
        f"about so much is to be had from this machine. Two workers keep {busy[0]:.2f} cores busy, one on one core {busy[1]:.2f}.\n"
        f"- Peak memory: {peak:.0f} MiB.",
    ])


def bench_stages(wavemill, data, scratch, rounds):
    """What the parts cost, ours and those of the Python chains."""
    metadata_dir, audio, files, _ = archive(data, scratch, STAGE_CLIPS)

    def ours(stage, options):
        command = extract_command(wavemill, metadata_dir, audio, scratch / "store", 1, [*options, "--json"])
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return {"cpu_ms": json.loads(done.stdout)["cpu_s"][stage] * 1e3 / STAGE_CLIPS}

    def decoding_program(*command):
        decoded = program([*command, *files])
        return {"cpu_ms": decoded["cpu_ms"] / STAGE_CLIPS}

    def theirs(arguments):
        return lambda: peer("peer_audio.py", *arguments, scratch, *map(str, files[:23]), env=ONE_THREAD)

    contestants = {name: lambda of=of: ours(*of) for name, of in OUR_STAGES.items()}
    contestants.update({name: theirs(arguments) for name, arguments in STAGES.items()})
    contestants[MPG123] = lambda: decoding_program("mpg123", "--quiet", "--test", "--encoding", "f32")
    by_rust = Path(wavemill).parent / "examples" / "decode_mp3"
    for name in RUST_DECODERS:
        contestants[f"decode: {name}"] = lambda name=name: decoding_program(by_rust, name)
    counted = instructions(wavemill, files[0], scratch)
    results = alternate(contestants, rounds)

    def ratio(us, them):
        """Our time as a part of theirs."""
        return f"{best(results, us, 'cpu_ms') / best(results, them, 'cpu_ms'):.2f}"

    whole, _, band, mel, parquet, read = OUR_STAGES
    rest_ms = sum(best(results, name, "cpu_ms") for name in (parquet, read))
    return "\n\n".join([
        "# Stages",
        "The figure is CPU time per clip of 30 s, on one thread. wavemill's figures come from `extract --json` of a plain "
        "release build. Its decoding includes a first walk over the file and the hash of the audio. mpg123 is the program, which "
        "decodes all clips in one process and writes nothing (`mpg123 --test`). symphonia as released and nanomp3 do the same in a "
        "program of ours (`kernels/examples/decode_mp3.rs`), a release build too; nanomp3 "
        "keeps all samples of a file. Start and reading are part of these three.",
        measured("stages"),
        table(results, "cpu_ms", "CPU ms per clip"),
        f"- Decoding to the mean of the channels takes {ratio(whole, MPG123)} of the time of mpg123.\n"
        f"- The band path to 22.05 kHz takes {ratio(band, MPG123)} of it.\n"
        f"- log-mel with min-max and packing takes {ratio(mel, 'log-mel: librosa')} of librosa's log-mel.\n"
        f"- Reading a file and making Parquet of its row take {rest_ms:.2f} ms. The hash of the audio is counted as decoding; "
        "writing and sync have no line here.",
        "## Instructions",
        f"One clip ({files[0].stat().st_size / 1e6:.1f} MB), counted by valgrind's callgrind; a stage has all that it calls. "
        "Instructions do not depend on what else a machine does; without valgrind a library may choose others for this processor.",
        "| | millions |\n|---|---|\n" + "\n".join(f"| {stage} | {n / 1e6:.1f} |" for stage, n in counted.items()),
    ])


def instructions(wavemill, clip, scratch):
    """{stage: instructions} of one clip to its log-mel."""
    counts = scratch / "callgrind.out"
    program = [wavemill, "features", clip, "--recipe", HERE / "bench.toml", "--format", "npy", "--out", scratch / "clip.npy"]
    subprocess.run(
        ["valgrind", "--tool=callgrind", f"--callgrind-out-file={counts}", *program], check=True, capture_output=True
    )
    # Elsewhere than in the sources: it counts files below the working directory apart.
    annotated = subprocess.run(
        ["callgrind_annotate", "--inclusive=yes", "--threshold=100", "--auto=no", counts],
        check=True, capture_output=True, text=True, cwd=scratch,
    ).stdout
    return {stage: most(annotated, function) for stage, function in COUNTED.items()}


def most(annotated, function):
    """A function's count. Of its lines the largest is that of the whole; the others are of code from other files in it."""
    line = re.compile(rf"^ *([\d,]+) .*:\S*\b{re.escape(function)} \[", re.MULTILINE)
    counts = [int(count.replace(",", "")) for count in line.findall(annotated)]
    if not counts:
        sys.exit(f"bench: callgrind saw no {function}: has it another name now? COUNTED in {Path(__file__).name} has it")
    return max(counts)


def bench_clips(wavemill, data, scratch, rounds):
    """Whether a clip costs the same in a small archive and in a large one, and whether workers have to wait."""
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
        "The figure is CPU time per clip of 30 s, from MP3 to a stored log-mel: the sum of what `extract --json` tells of its "
        "stages (reading, decoding, features, encoding). The program's start, the metadata, writing, sync and the commit are not "
        "part of it. The clips are names of some real ones of FMA, so that their bytes are in memory. "
        f"There are {threads} workers on {threads} cores. They are busy while they work on a clip or a row group "
        "(`workers_busy` of the report); the rest of the time they wait. A busy worker may still have to share its core with a "
        "reader, the writer or another program.",
        measured("clips"),
        "\n".join([
            "| clips | best, CPU ms per clip | median | worst | extraction, best wall s | workers busy, best | median |",
            "|---|---|---|---|---|---|---|",
            *lines,
        ]),
        f"By the CPU time of the whole process, writing and sync included, a clip more costs "
        f"{more_s * 1e3 / (large - small):.2f} ms: that is what {large:,} clips take more than {small}, best rounds. "
        f"With {large:,} clips the process keeps the cores busy for {used * 100:.1f} % of the time of extraction (median).",
    ])


def bench_catalog(wavemill, data, scratch, rounds):
    """tracks.csv of FMA's size: read everything, clean, count."""
    tracks = scratch / "metadata" / "tracks.csv"
    tracks.parent.mkdir()
    source = data / "fma_metadata"
    subprocess.run([sys.executable, data / "make_full_tracks.py", source, tracks], check=True, stdout=subprocess.DEVNULL)
    shutil.copyfile(source / "genres.csv", tracks.parent / "genres.csv")
    # Metadata alone is asked; a folder without any clip would be taken for a mistake.
    (scratch / "audio").mkdir()
    (scratch / "audio" / "none.mp3").touch()
    command = extract_command(wavemill, tracks.parent, scratch / "audio", scratch / "store", os.cpu_count())
    command += ["--dry-run", "--json", "--set", "catalog.require_audio=false"]

    def our_query():
        """Reading, typing, cleaning and counting, as wavemill times them itself."""
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
        """Ours over the faster peer's, best rounds."""
        peers = min(best(results, f"{kind}: {name}", "wall_ms") for name in ("duckdb", "polars"))
        return best(results, f"{kind}: wavemill", "wall_ms") / peers

    return "\n\n".join([
        "# Catalog: tracks.csv of FMA's size",
        f"The file has 106,574 rows, {tracks.stat().st_size / 1e6:.0f} MB and 53 columns. All cores are used.",
        "- *query alone*: read all columns with their types, drop unlabelled rows, count. For wavemill these are the parts `read` "
        "and `clean` of `extract --dry-run --json`, which also parse list columns and name rejects by line. The peers are timed "
        "in Python, without start and imports.\n"
        "- *process*: from start to exit. wavemill's process also makes three splits and the class lists, and plans the shards.",
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
