#!/usr/bin/env python3
"""Runs many processes on one store at the same time, kills some of them, and checks what is left.

usage: scripts/faults/crowd.py --programs FOLDER [--seconds S] [--processes N] [--seed N]

FOLDER contains the programs (`cargo build --workspace --bins`). For S seconds (default 60), N processes (default 8) run
commands that are drawn again and again: `extract` of three plans, `gc`, `tag`, `sql`, `export`, `verify` and `info`; one
in ten is killed. Every process that is not killed has to end with success, or with a message that asks to try again:
another process is writing (7), another version was committed meanwhile (4), or the version that it read was removed (2).
Only a version before the last two, which has no tag, may be removed. `sql` prints the rows of one of the plans. In the end,
the versions' numbers are consecutive, no version that an `extract` reported is missing, every version that has its data is
intact, the last two and those with tags have their data, and an `extract` succeeds.

Prints the number of ends of each command, and ends with status 1 if a rule is broken."""

import argparse
import collections
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from commands import BOTH, EXPORT, EXTRACT, FEWER, in_memory, make_inputs, parser_of, run

# Number of versions that `gc` keeps, and the tags of others.
KEPT = 2
TAGS = {1: "first", 2: "second"}
QUERY = "SELECT clip_key, tensor_mean(log_mel) AS mean FROM features_log_mel ORDER BY clip_key"
SQL = f"wavemill sql --store {{at}}/store --format csv \"{QUERY}\""
COMMANDS = {
    "extract": [f"{words} --json" for words in (EXTRACT, FEWER, BOTH)],
    "gc": [f"wavemill gc -q --store {{at}}/store --keep {KEPT}"],
    "tag": [f"wavemill tag -q --store {{at}}/store {version} {tag}" for version, tag in TAGS.items()],
    "sql": [SQL],
    "export": [f"{EXPORT} npy"],
    "verify": ["wavemill verify -q --store {at}/store"],
    "info": ["wavemill info --store {at}/store --versions"],
}
# Status for a version that is not there.
ABSENT = 2
# Statuses that ask to try again, with what the message says.
AGAIN = {
    7: "another wavemill is",
    4: "another run committed|was committed|made differently",
    ABSENT: "was removed|no version|no such|no store",
}


class Crowd:
    def __init__(self, arguments: argparse.Namespace, at: Path) -> None:
        self.arguments, self.at, self.inputs = arguments, at, at / "inputs"
        self.ends: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        self.wrong: list[str] = []
        self.last_reported = 0
        # Versions that have a tag for sure.
        self.tagged: set[int] = set()
        self.answers: set[str] = set()

    def prepare(self) -> None:
        """Finds out what `sql` may print: the rows of each plan in a store of its own."""
        for number, extract in enumerate(COMMANDS["extract"]):
            at = self.at / f"alone-{number}"
            at.mkdir()
            for words in (extract, SQL):
                done = run(words, at, self.inputs, self.arguments.programs)
                done.check_returncode()
            self.answers.add(done.stdout)

    def member(self, number: int, until: float) -> None:
        """Runs one command after the other."""
        try:
            self.commands(number, until)
        except Exception as error:
            # The end of a thread is no end of the program.
            self.wrong.append(f"process {number}: {error!r}")

    def commands(self, number: int, until: float) -> None:
        chosen = random.Random(f"{self.arguments.seed} {number}")
        while time.monotonic() < until:
            name = chosen.choice(list(COMMANDS))
            out = self.at / f"out-{number}"
            shutil.rmtree(out, ignore_errors=True)
            words = chosen.choice(COMMANDS[name]).replace("{at}/out", str(out))
            limit = chosen.uniform(0.02, 0.5) if chosen.random() < 0.1 else None
            reported, tagged = self.last_reported, set(self.tagged)
            status, said, out_text = self.run(words, limit)
            if name == "extract" and status == 0:
                self.last_reported = max(self.last_reported, json.loads(out_text)["version"])
            if name == "tag" and status == 0:
                self.tagged.add(int(words.split()[-2]))
            if name == "sql" and status == 0 and out_text not in self.answers:
                self.wrong.append(f"{words}: other rows than those of a plan: {out_text}")
            self.ends[name][str(status)] += 1
            is_expected = status == 0 or (status == -signal.SIGKILL and limit is not None)
            if not is_expected and not self.may_repeat(status, said, reported, tagged):
                self.wrong.append(f"{words}: status {status}: {said}")

    def may_repeat(self, status: int, said: str, reported: int, tagged: set[int]) -> bool:
        """Reports whether a command may end like this. When it began, `reported` versions were committed for sure, and those
        in `tagged` had a tag."""
        if not re.search(AGAIN.get(status, "(?!)"), said):
            return False
        removed = re.search(r"version (\d+) was removed", said)
        if removed:
            number = int(removed[1])
            return number <= len(self.numbers()) - KEPT and number not in tagged
        return status != ABSENT or reported < max(TAGS)

    def numbers(self) -> list[int]:
        """Returns the numbers of all versions."""
        return sorted(int(path.stem) for path in (self.at / "store/_wavemill/versions").glob("[0-9]*.json"))

    def run(self, words: str, limit: float | None = None) -> tuple[int, str, str]:
        """Runs a command, which is killed after `limit` seconds, and returns its status, messages and output."""
        try:
            done = run(words, self.at, self.inputs, self.arguments.programs, timeout=limit or 120)
        except subprocess.TimeoutExpired:
            return (-signal.SIGKILL, "", "") if limit else (1, "it does not end", "")
        return done.returncode, done.stderr, done.stdout

    def check(self) -> None:
        """Checks the store when all processes have ended."""
        numbers = self.numbers()
        if numbers != list(range(1, len(numbers) + 1)) or len(numbers) < self.last_reported:
            self.wrong.append(f"versions {numbers}, where {self.last_reported} was reported")
        # A `tag` that was killed may have written the tag.
        tags = self.at / "store/_wavemill/tags"
        tagged = self.tagged | {number for number, tag in TAGS.items() if (tags / tag).exists()}
        for version in [*numbers, *(TAGS[number] for number in sorted(tagged))]:
            status, said, _ = self.run(f"wavemill verify -q --store {{at}}/store --version {version}")
            may_be_removed = version in numbers[:-KEPT] and version not in tagged
            if status != 0 and not (may_be_removed and status == ABSENT and "was removed" in said):
                self.wrong.append(f"version {version}: status {status}: {said}")
        for words in (EXTRACT, "wavemill verify -q --store {at}/store"):
            status, said, _ = self.run(words)
            if status != 0:
                self.wrong.append(f"{words}: status {status}: {said}")
        print(f"{len(numbers)} versions")


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="duration (default 60)")
    parser.add_argument("--processes", type=int, default=8, help="processes at the same time (default 8)")
    arguments = parser.parse_args()

    with in_memory("crowd") as folder:
        crowd = Crowd(arguments, Path(folder).resolve())
        make_inputs(arguments.programs, crowd.inputs)
        crowd.prepare()
        until = time.monotonic() + arguments.seconds
        members = [threading.Thread(target=crowd.member, args=(n, until)) for n in range(arguments.processes)]
        for member in members:
            member.start()
        for member in members:
            member.join()
        crowd.check()
    # In a minute, each command has its turn.
    if arguments.seconds >= 60:
        crowd.wrong += [f"{name} never succeeded" for name in COMMANDS if not crowd.ends[name]["0"]]
    for name, ends in sorted(crowd.ends.items()):
        print(f"{name:10}", ", ".join(f"status {status}: {n}" for status, n in sorted(ends.items())))
    print("\n".join(crowd.wrong + [f"{len(crowd.wrong)} wrong"]))
    sys.exit(1 if crowd.wrong else 0)


if __name__ == "__main__":
    main()
