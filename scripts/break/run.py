#!/usr/bin/env python3
"""Damages thousands of audio files and checks what must hold when `wavemill extract` reads them, whatever the bytes.

usage: run.py --programs FOLDER [--files N] [--seed N] [--formats mp3,wav,flac,ogg,aiff,m4a,aac] [--keep FOLDER] [--file-cpu-s S]

For each batch of files: the exit code is 0 and the output mentions no panic; each file is a row or a reject; no reject is
`worker_panic`; every value is finite, and the lost seconds are not more than the files can contain; the process respects
--memory-limit; no file takes long. The first batch is extracted again with a different number of threads, and the shards
must be equal in every byte. On a failure, prints the batch and keeps the files that cause it.

Every file that takes more than --file-cpu-s seconds of CPU (default 5) is found: a set of files that takes more is halved
until each part takes no more, or consists of a single file, which fails.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bases import all_bases
from mutate import mutated

BATCH_FILES = 2_000
MEMORY_LIMIT_BYTES = 256 << 20
# Memory that the limit does not count: the program before it holds a clip. tests/runs/tests/memory.rs contains the same
# figure and describes how it was measured.
PROGRAM_BYTES = 112 << 20
# The limit applies to the memory that the program counts, which is correct within a twentieth.
MEMORY_SLACK = 1.05
# Limit of CPU seconds per file. Most files take a thousandth of a second; a whole batch took 2.0 to 2.7 s on one
# machine (2,000 files, debug build, start and commit included), and so is rarely split on a machine of half that
# speed.
FILE_CPU_S = 5
# Limit of CPU seconds per batch: ten times the measured time. It detects files that are slow together, but not
# individually.
RUN_CPU_S_MAX = 27
# A run that waits forever takes no CPU time, so wall time is limited as well. A run has two threads, and may share
# the machine with others.
RUN_WALL_S_MAX = 4 * RUN_CPU_S_MAX
# Base files have at most two seconds; joined and doubled ones six times as much; a stated length counts up to ten
# times.
LOST_S_MAX = 120
# Silence for frames that state a greater length than they have is added: 65,535 samples at 8 kHz are eight seconds.
DURATION_S_MAX = 1_200

# Every second batch is decoded completely, and the others only up to the recipe's duration.
DURATIONS = ["duration_s = 3.0", ""]
RECIPE = """
name = "broken"
[catalog]
dataset = "folders"
[split]
rule = "stratified"
[[targets]]
name = "genre"
column = "genre"
[audio]
DURATION
min_duration_s = 0.1
[[features]]
name = "log_mel"
op = "mel"
n_mels = 32
db = { ref = 1.0, top_db = 80.0 }
dtype = "f32"
"""

QUESTION = f"""
SELECT (SELECT count(*) FROM features_log_mel) AS written,
       (SELECT count(*) FROM rejects) AS rejected,
       (SELECT count(*) FROM rejects WHERE reason = 'worker_panic') AS panics,
       (SELECT count(*) FROM features_log_mel WHERE NOT coalesce(
            abs(tensor_min(log_mel)) < 1e30 AND abs(tensor_max(log_mel)) < 1e30 AND abs(tensor_mean(log_mel)) < 1e30
            AND duration_s BETWEEN 0.1 AND {DURATION_S_MAX} AND lost_s BETWEEN 0 AND {LOST_S_MAX}, false)) AS not_finite
"""


class Fault(Exception):
    """A check that failed, with the files that caused it if they are known."""

    def __init__(self, words, files=()):
        super().__init__(words)
        self.files = list(files)


class Run:
    """One extraction of a folder of audio, and the checks of its result."""

    def __init__(self, programs, recipe, audio, store):
        self.wavemill, self.recipe, self.audio, self.store = programs / "wavemill", recipe, audio, store

    def extract(self, threads):
        """Extracts all files and checks exit code, time and memory. Returns (maximum RSS in KiB, CPU seconds)."""
        words = [self.wavemill, "extract", "--recipe", self.recipe, "--audio", self.audio, "--store", self.store]
        words += ["--max-reject-fraction", "1", "--memory-limit", f"{MEMORY_LIMIT_BYTES >> 20}MiB", "--backend", "cpu"]
        with tempfile.TemporaryFile("w+") as said:
            process = subprocess.Popen([*map(str, words), "--threads", str(threads)], stdout=said, stderr=said)
            code, usage, in_time = wait(process, RUN_WALL_S_MAX)
            said.seek(0)
            text = said.read()

        if not in_time:
            raise Fault(f"still running after {RUN_WALL_S_MAX} s")
        if code != 0 or "panicked" in text or "overflow" in text:
            raise Fault(f"exit {code}: {text.strip()[-2_000:]}")
        cpu_s = usage.ru_utime + usage.ru_stime
        if cpu_s > RUN_CPU_S_MAX:
            raise Fault(f"{cpu_s:.1f} CPU seconds, limit {RUN_CPU_S_MAX}")
        most = MEMORY_SLACK * MEMORY_LIMIT_BYTES + PROGRAM_BYTES
        if usage.ru_maxrss * 1024 > most:
            raise Fault(f"{usage.ru_maxrss / 1024:.0f} MiB of memory, limit {most / (1 << 20):.0f}")
        return usage.ru_maxrss, cpu_s

    def ask(self, question):
        """Returns the rows of a query."""
        words = [self.wavemill, "sql", "--store", self.store, "--format", "json", question]
        answer = subprocess.run(list(map(str, words)), capture_output=True, text=True)
        if answer.returncode != 0:
            raise Fault(f"sql: exit {answer.returncode}: {answer.stderr.strip()}")
        return [json.loads(line) for line in answer.stdout.splitlines()]

    def check(self, n_files):
        """Checks that every file is a row or a reject, and that every value is finite."""
        found = self.ask(QUESTION)[0]
        if found["written"] + found["rejected"] != n_files:
            raise Fault(f"{found['written']} rows and {found['rejected']} rejects of {n_files} files")
        if found["panics"]:
            rejects = self.ask("SELECT clip_key, detail FROM rejects WHERE reason = 'worker_panic' LIMIT 5")
            raise Fault(f"{found['panics']} panics: {rejects}")
        if found["not_finite"]:
            rows = self.ask(
                "SELECT clip_key, duration_s, lost_s, tensor_min(log_mel) AS least, tensor_max(log_mel) AS most "
                f"FROM features_log_mel WHERE lost_s > {LOST_S_MAX} OR NOT tensor_max(log_mel) < 1e30 LIMIT 5"
            )
            raise Fault(f"{found['not_finite']} rows with values out of range: {rows}")
        return found

    def shards(self):
        """Returns the hash of every data file."""
        files = sorted(path for path in (self.store / "data").rglob("*.parquet"))
        return {str(path.relative_to(self.store)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def wait(process, limit_s):
    """Waits for a process. Returns its exit code, its own resource usage, and whether it ended in time."""
    start = time.monotonic()
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return process.returncode, usage, True
        if time.monotonic() - start > limit_s:
            process.send_signal(signal.SIGKILL)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            return process.returncode, usage, False
        time.sleep(0.02)


def write_batch(folder, bases, seed, batch, n_files):
    """Writes the damaged files of one batch."""
    folder.mkdir()
    for at in range(n_files):
        name, extension, file = mutated(bases, f"{seed}/{batch}/{at}")
        (folder / f"{at:05}-{name}.{extension}").write_bytes(file)


def run_of(options, recipe, files, folder):
    """Prepares an extraction of only these files."""
    shutil.rmtree(folder, ignore_errors=True)
    audio = folder / "audio"
    (audio / "g").mkdir(parents=True)
    for path in files:
        shutil.copy(path, audio / "g")
    return Run(options.programs, recipe, audio, folder / "store")


def find_slow(options, recipe, files, folder, cpu_s):
    """Raises a fault for a file that exceeds the limit by itself. `cpu_s` is the time of all `files` together."""
    if cpu_s <= options.file_cpu_s:
        return
    if len(files) == 1:
        raise Fault(f"{cpu_s:.1f} CPU seconds for {files[0].name}, at most {options.file_cpu_s:g}", files)
    middle = len(files) // 2
    for half in (files[:middle], files[middle:]):
        _, half_cpu_s = run_of(options, recipe, half, folder).extract(2)
        find_slow(options, recipe, half, folder, half_cpu_s)


def try_files(options, recipe, files, folder):
    """Extracts only these files and returns the fault, or None."""
    run = run_of(options, recipe, files, folder)
    try:
        run.extract(2)
        run.check(len(files))
    except Fault as fault:
        return fault
    return None


def blame(options, recipe, files, folder):
    """Halves the files as long as one half has a fault by itself, and returns the remaining files."""
    while len(files) > 1:
        middle = len(files) // 2
        for half in (files[:middle], files[middle:]):
            if try_files(options, recipe, half, folder):
                files = half
                break
        else:
            break
    return files


def run_batch(options, recipe, bases, batch, n_files, folder):
    """Runs one batch with all checks."""
    audio = folder / "audio"
    audio.mkdir()
    write_batch(audio / "g", bases, options.seed, batch, n_files)
    files = sorted((audio / "g").iterdir())
    run = Run(options.programs, recipe, audio, folder / "store")
    try:
        rss_kib, cpu_s = run.extract(2)
        found = run.check(n_files)
        find_slow(options, recipe, files, folder / "alone", cpu_s)
        if batch == 0:
            again = Run(options.programs, recipe, audio, folder / "again")
            again.extract(5)
            if run.shards() != again.shards():
                raise Fault("results with five and with two threads differ")
    except Fault as fault:
        files = fault.files or blame(options, recipe, files, folder / "alone")
        print(f"batch {batch} of seed {options.seed}: {fault}", file=sys.stderr)
        options.keep.mkdir(parents=True, exist_ok=True)
        for path in files[:20]:
            shutil.copy(path, options.keep)
            print(f"kept: {options.keep / path.name}", file=sys.stderr)
        if len(files) == 1 and not fault.files:
            print(f"alone: {try_files(options, recipe, files, folder / 'alone')}", file=sys.stderr)
        sys.exit(1)
    return found, rss_kib, cpu_s


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", type=Path, required=True, help="folder of wavemill and demo-audio")
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first-batch", type=int, default=0, help="continue with this batch")
    parser.add_argument("--formats", help="formats to damage (default: all)")
    parser.add_argument("--keep", type=Path, default=Path("tmp/broken"), help="folder for files that cause a fault")
    parser.add_argument("--file-cpu-s", type=float, default=FILE_CPU_S, help="limit of CPU seconds per file")
    parser.add_argument("--data", type=Path, help="folder of real inputs")
    options = parser.parse_args()
    start = time.monotonic()

    data = options.data if options.data and options.data.is_dir() else None
    bases = all_bases(options.programs / "demo-audio", data)
    kinds = {base.kind for base in bases}
    formats = set(options.formats.split(",")) if options.formats else kinds
    if options.files < 1 or not formats <= kinds:
        parser.error(f"--files: 1 or more; --formats: {', '.join(sorted(kinds))}")
    bases = [base for base in bases if base.kind in formats]
    written = rejected = rss_kib = cpu_s = 0
    with tempfile.TemporaryDirectory(prefix="wavemill-break-") as scratch:
        for batch in range(options.first_batch, -(-options.files // BATCH_FILES)):
            n_files = min(BATCH_FILES, options.files - batch * BATCH_FILES)
            folder = Path(scratch) / str(batch)
            folder.mkdir()
            recipe = folder / "recipe.toml"
            recipe.write_text(RECIPE.replace("DURATION", DURATIONS[batch % 2]))
            found, batch_rss_kib, batch_cpu_s = run_batch(options, recipe, bases, batch, n_files, folder)
            shutil.rmtree(folder)
            written, rejected = written + found["written"], rejected + found["rejected"]
            rss_kib, cpu_s = max(rss_kib, batch_rss_kib), cpu_s + batch_cpu_s
            if options.files > 10 * BATCH_FILES:
                print(f"batch {batch}: {written} rows, {rejected} rejects so far", file=sys.stderr, flush=True)
    if written + rejected == 0:
        parser.error("--first-batch: is after the last batch of --files")
    print(
        f"{written + rejected} broken files of {len(bases)} bases: {written} rows, {rejected} rejects, no fault; at most "
        f"{rss_kib // 1024} MiB, {cpu_s:.0f} CPU seconds, {time.monotonic() - start:.0f} s in total"
    )


if __name__ == "__main__":
    main()
