#!/usr/bin/env python3
"""Flips bits in every file of a small store and of a training run, and checks that the damage is found.

usage: scripts/faults/flips.py --programs FOLDER [--sample N] [--run N]

FOLDER contains the programs (`cargo build --workspace --bins`). Of a store, `wavemill verify` must name every file in
which a bit differs: the data, the manifest, receipts and tags; a round flips one bit in each of them. The lock is empty,
and records of runs only inform. A run must be evaluated with the same numbers, or not at all, with a message that names
the file.

--sample N   try N bytes of each file of the store, chosen at random, instead of one bit of every byte
--run N      try N bytes of each file of the run (default 20)"""

import argparse
import json
import random
import sys
from collections.abc import Iterable
from pathlib import Path

from commands import BOTH, DAMAGED, FIT, in_memory, make_inputs, parser_of, run

EVALUATE = "wavemill-train eval {at}/run --side validation --device cpu --threads 1 --json"
# Files without checksums, which no command takes a number from.
INFORM = ("_wavemill/lock", "_wavemill/runs/", "log.jsonl", "events.out.", ".ranks")


def flip(path: Path, at: int) -> None:
    """Flips a bit of a byte; a second call restores it."""
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << at % 8]))


class Flips:
    def __init__(self, arguments: argparse.Namespace, at: Path) -> None:
        self.programs, self.at, self.inputs = arguments.programs, at, at / "inputs"
        self.random = random.Random(arguments.seed)
        self.n_flips = self.n_wrong = 0

    def run(self, words: str) -> tuple[int, str, str]:
        done = run(words, self.at, self.inputs, self.programs)
        return done.returncode, done.stdout, done.stderr

    def wrong(self, path: Path, at: int, problem: str) -> None:
        self.n_wrong += 1
        print(f"{path.relative_to(self.at)}, byte {at}: {problem}", flush=True)

    def files(self, folder: str) -> list[Path]:
        found = (path for path in (self.at / folder).rglob("*") if path.is_file())
        return sorted(path for path in found if not any(name in str(path) for name in INFORM))

    def chosen(self, path: Path, sample: int | None) -> Iterable[int]:
        size = path.stat().st_size
        return range(size) if sample is None else self.random.sample(range(size), min(size, sample))

    def store(self, sample: int | None) -> None:
        """Flips bits of a store. A damaged manifest hides all other damage, so it is damaged alone."""
        files = self.files("store")
        manifests = [path for path in files if path.parent.name == "versions"]
        places = {path: list(self.chosen(path, sample)) for path in files}
        for turn in range(max(map(len, places.values()))):
            flipped = {path: at[turn] for path, at in places.items() if turn < len(at)}
            self.round({path: at for path, at in flipped.items() if path not in manifests})
            for path in manifests:
                if path in flipped:
                    self.round({path: flipped[path]})

    def round(self, flipped: dict[Path, int]) -> None:
        for path, at in flipped.items():
            flip(path, at)
        status, out, err = self.run("wavemill verify -q --json --store {at}/store")
        for path, at in flipped.items():
            self.n_flips += 1
            if status != DAMAGED or str(path.relative_to(self.at / "store")) not in out + err:
                self.wrong(path, at, f"status {status}, and the file is not named: {err}")
            flip(path, at)

    def trained(self, sample: int) -> None:
        """Flips bits of a run, and evaluates it."""
        status, expected, err = self.run(EVALUATE)
        if status != 0:
            sys.exit(f"{EVALUATE}: status {status}: {err}")
        for path in self.files("run"):
            for at in self.chosen(path, sample):
                flip(path, at)
                status, out, err = self.run(EVALUATE)
                flip(path, at)
                self.n_flips += 1
                if status == 0 and json.loads(out) != json.loads(expected):
                    self.wrong(path, at, "other numbers")
                elif status != 0 and (path.name not in err or "panicked" in err):
                    self.wrong(path, at, f"status {status}, and the file is not named: {err}")


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--sample", type=int, help="bytes of each file of the store (default: all)")
    parser.add_argument("--run", type=int, default=20, help="bytes of each file of the run (default 20)")
    arguments = parser.parse_args()

    with in_memory("flips") as folder:
        flips = Flips(arguments, Path(folder).resolve())
        make_inputs(arguments.programs, flips.inputs)
        for words in (BOTH, "wavemill tag -q --store {at}/store 1 paper", FIT):
            status, _, err = flips.run(words)
            if status != 0:
                sys.exit(f"{words}: status {status}: {err}")
        flips.store(arguments.sample)
        of_store = flips.n_flips
        flips.trained(arguments.run)
    print(f"{of_store} flips in the store, {flips.n_flips - of_store} in the run, {flips.n_wrong} wrong")
    sys.exit(1 if flips.n_wrong else 0)


if __name__ == "__main__":
    main()
