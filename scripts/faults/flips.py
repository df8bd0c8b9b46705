#!/usr/bin/env python3
"""Flips bits in every file of a small store and of a training run, and checks that the damage is found.

usage: scripts/faults/flips.py --programs FOLDER [--sample N] [--run N]

FOLDER contains the programs (`cargo build --workspace --bins`). Of a store, `wavemill verify` must name every file in
which a bit differs: the data, the manifest, receipts and tags; a round flips one bit in each of them. The lock is empty,
and records of runs only inform. A run must be evaluated with the same numbers, with its best and its last checkpoint, or
not at all, with a message that names the file; so must its result be shown. Every flip in the last checkpoint must be
found. Prints how many flips in each file of the run were found; the others are without effect, such as those in files that
are not read.

--sample N   try N bytes of each file of the store, chosen at random, instead of one bit of every byte
--run N      try N bytes of each file of the run (default 20)"""

import argparse
import random
import sys
from collections.abc import Iterable
from pathlib import Path

from commands import BOTH, DAMAGED, FIT, in_memory, make_inputs, parser_of, run

EVALUATE = "wavemill-train eval {at}/run --side validation --device cpu --threads 1 --json --checkpoint"
EVALUATIONS = [f"{EVALUATE} best", f"{EVALUATE} last"]
# Writes a page to standard output. It also shows the configuration, which has no checksum.
REPORT = "wavemill-train report -q {at}/run --out /dev/stdout"
RESULT = "result.json"
# The record of the store's place. If it is damaged, `eval` asks for the store, with the status of other failures.
PLACE = "input.json"
FAILED = 1
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

    def succeed(self, words: str) -> str:
        status, out, err = self.run(words)
        if status != 0:
            sys.exit(f"{words}: status {status}: {err}")
        return out

    def trained(self, sample: int) -> None:
        """Flips bits of a run, and evaluates it."""
        expected = {words: self.succeed(words) for words in (*EVALUATIONS, REPORT)}
        last = max((self.at / "run/checkpoints").glob("step-*"))
        for path in self.files("run"):
            readers = [*EVALUATIONS, REPORT] if path.name == RESULT else EVALUATIONS
            n_flips = n_found = 0
            for at in self.chosen(path, sample):
                flip(path, at)
                is_found = sum(self.finds(words, expected[words], path, at) for words in readers) > 0
                flip(path, at)
                n_flips += 1
                n_found += is_found
                if path.parent == last and not is_found:
                    self.wrong(path, at, "not found")
            self.n_flips += n_flips
            print(f"{path.relative_to(self.at)}: {n_found} found, {n_flips - n_found} without effect", flush=True)

    def finds(self, words: str, expected: str, path: Path, at: int) -> bool:
        """Reports whether a command finds a flip in a file of the run."""
        status, out, err = self.run(words)
        if status == 0:
            if out != expected:
                self.wrong(path, at, f"{words}: other output")
            return False
        name = str(path.relative_to(self.at / "run"))
        if status != (FAILED if name == PLACE else DAMAGED) or name not in err or "panicked" in err:
            self.wrong(path, at, f"{words}: status {status}, or the file is not named: {err}")
        return True


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--sample", type=int, help="bytes of each file of the store (default: all)")
    parser.add_argument("--run", type=int, default=20, help="bytes of each file of the run (default 20)")
    arguments = parser.parse_args()

    with in_memory("flips") as folder:
        flips = Flips(arguments, Path(folder).resolve())
        make_inputs(arguments.programs, flips.inputs)
        for words in (BOTH, "wavemill tag -q --store {at}/store 1 paper", FIT):
            flips.succeed(words)
        flips.store(arguments.sample)
        of_store = flips.n_flips
        flips.trained(arguments.run)
    print(f"{of_store} flips in the store, {flips.n_flips - of_store} in the run, {flips.n_wrong} wrong")
    sys.exit(1 if flips.n_wrong else 0)


if __name__ == "__main__":
    main()
