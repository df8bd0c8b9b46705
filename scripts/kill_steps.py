#!/usr/bin/env python3
"""Kills plan, work and commit at random moments, repeats them, and compares the store with that of one undisturbed run.

usage: scripts/kill_steps.py --programs FOLDER [--kills N] [--tracks N] [--parts P] [--seed N]
       [--bucket FOLDER]

FOLDER contains wavemill and demo-audio (`cargo build --workspace --bins`). Workers of random parts run two at a time. Prints
the number of kills by step, and ends with status 1 at the first difference.

With --bucket, stores are in the S3 bucket whose objects are the files of FOLDER, on a server that the environment names
(docs/object-stores.md), such as that of `cargo install s3s-fs@0.14.1 --features binary`. Workers have own local copies."""

import argparse
import collections
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RECIPE = """
name = "kills"
[catalog]
dataset = "fma"
[[targets]]
name = "genre"
column = "track_genre_top"
[split]
rule = "artist"
[audio]
sample_rate_hz = 16000
duration_s = 2.0
min_duration_s = 0.5
[[features]]
name = "log_mel"
op = "mel"
n_fft = 512
hop_length = 256
n_mels = 32
[[features]]
name = "mfcc"
op = "mfcc"
n_fft = 512
hop_length = 256
n_mels = 32
n_mfcc = 13
[shards]
clips = 8
"""


def content(store: Path) -> dict[str, str]:
    """Returns the hashes of the data and of the manifests by path."""
    files = [path for part in ("data", "_wavemill/versions") for path in (store / part).rglob("*") if path.is_file()]
    return {str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}


class Steps:
    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self.folder = folder
        self.random = random.Random(arguments.seed)
        self.program = f"{arguments.programs}/wavemill"
        self.inputs = ["--recipe", f"{folder}/kills.toml", "--metadata", f"{folder}/made/fma_metadata",
                       "--audio", f"{folder}/made/fma_demo", "--max-reject-fraction", "1"]
        self.kills: collections.Counter[str] = collections.Counter()
        self.usual_s = {"plan": 0.3, "work": 0.3, "commit": 0.3}

    def environment(self, machine: str) -> dict[str, str]:
        """Returns the environment of a process on a machine, which is a folder of local copies."""
        return os.environ | {"WAVEMILL_CACHE": f"{self.folder}/cache-{machine}"}

    def command(self, step: str, store: Path | str, *words: str) -> list[str]:
        threads = [] if step == "commit" else ["--threads", "1"]
        return [self.program, step, "-q", "--store", str(store), *threads, *words]

    def until_done(self, step: str, command: list[str]) -> str:
        """Repeats a command until it ends by itself, and returns its output."""
        while True:
            started = time.monotonic()
            child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=self.environment("one"))
            try:
                # Some run to their end, others are killed at any moment, also in their last one.
                limit = self.usual_s[step] * self.random.uniform(0, 1.3)
                out, _ = child.communicate(timeout=limit)
            except subprocess.TimeoutExpired:
                child.send_signal(signal.SIGKILL)
                child.communicate()
                # It may have ended just before the signal.
                self.kills[step] += child.returncode == -signal.SIGKILL
                continue
            if child.returncode not in (0, 7):
                sys.exit(f"{' '.join(command)}: status {child.returncode}")
            if child.returncode == 0:
                self.usual_s[step] = 0.8 * self.usual_s[step] + 0.2 * (time.monotonic() - started)
                return out.strip()

    def build(self, store: Path | str, parts: int) -> None:
        plan = self.until_done("plan", self.command("plan", store, *self.inputs))
        order = list(range(1, parts + 1)) + self.random.choices(range(1, parts + 1), k=parts // 2)
        self.random.shuffle(order)
        for part in order:
            # Another worker with the same part, which is killed in the end.
            command = self.command("work", store, "--plan", plan, "--part", f"{part}/{parts}")
            beside = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=self.environment("two"))
            self.until_done("work", command)
            beside.kill()
            self.kills["work"] += beside.wait() == -signal.SIGKILL
        self.until_done("commit", self.command("commit", store, "--plan", plan))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", required=True, help="folder of the programs")
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--tracks", type=int, default=60)
    parser.add_argument("--parts", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--bucket", type=Path, help="folder with the objects of a bucket")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="wavemill-kills-") as name:
        folder = Path(name)
        subprocess.run([f"{arguments.programs}/demo-audio", f"{folder}/made", "--tracks", str(arguments.tracks),
                        "--seconds", "3"], check=True, stdout=subprocess.DEVNULL)
        (folder / "kills.toml").write_text(RECIPE)
        steps = Steps(arguments, folder)
        one = folder / "one"
        subprocess.run(steps.command("extract", one, *steps.inputs), check=True)
        expected = content(one)

        stores = 0
        while sum(steps.kills.values()) < arguments.kills:
            store = (arguments.bucket or folder) / "kills"
            place = f"s3://{arguments.bucket.name}/kills" if arguments.bucket else store
            steps.build(place, arguments.parts)
            found = content(store)
            if found != expected:
                sys.exit(f"store {stores} differs: {sorted(set(found.items()) ^ set(expected.items()))}")
            shutil.rmtree(store)
            stores += 1
        print(json.dumps({"stores": stores, "kills": dict(steps.kills), "differences": 0}))


if __name__ == "__main__":
    main()
