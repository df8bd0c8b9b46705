#!/usr/bin/env python3
"""Lets every file operation of each command fail once, and checks what the command says, leaves and makes when repeated.

usage: scripts/faults/faults.py --programs FOLDER [--command NAME]... [--kind KIND]... [--sample N]
                                [--kill | --strace]

FOLDER contains the programs (`cargo build --workspace --bins`). The operations are those below the folder of the trial,
over all threads: open, read, write, fsync, rename, link, mkdir, stat, readdir, unlink, lock, mmap and clone. Each fails
with several errors, such as a failing or full disk, or is cut short. After each fault
- the program ends with a documented exit code and a message that names the error and the file, or its folder, not by a
  panic or a signal;
- a program that succeeds has made the same bytes as without the fault;
- the store's committed versions are intact;
- the repeated command succeeds, and makes the same bytes.

Prints a line for each fault that breaks one of these rules, then tables by command and by operation, and ends with status 1
if there was one.

--sample N   try N faults of each command, chosen at random, instead of all
--kill       kill the program at the operation, instead of letting the operation fail
--strace     let system calls of each thread fail, by `strace --inject`: this reaches calls without the C library"""

import argparse
import collections
import errno
import itertools
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from commands import DAMAGED, Command, drive, listed, run, store_problem

ERRORS = {
    "open": ["EIO", "EMFILE", "EINTR"],
    "read": ["EIO", "EINTR", "short"],
    "write": ["EIO", "ENOSPC", "ENOSPC:always", "EINTR", "short"],
    "fsync": ["EIO", "ENOSPC"],
    "rename": ["EIO", "ENOSPC"],
    "link": ["EIO", "ENOSPC", "EPERM"],
    "mkdir": ["EIO", "ENOSPC"],
    "stat": ["EIO"],
    "readdir": ["EIO"],
    "unlink": ["EIO"],
    "lock": ["EIO", "EINTR"],
    "mmap": ["ENOMEM"],
    "clone": ["EIO", "EOPNOTSUPP", "short"],
}
# The system calls of each kind, for strace.
CALLS = {
    "open": "openat",
    "read": "read,pread64",
    "write": "write,pwrite64",
    "fsync": "fsync,fdatasync",
    "rename": "rename,renameat2",
    "link": "linkat",
    "mkdir": "mkdir",
    "stat": "statx,newfstatat",
    "readdir": "getdents64",
    "unlink": "unlink,unlinkat,rmdir",
    "lock": "flock",
    "clone": "copy_file_range,sendfile",
}
# After EINTR and short calls, programs try again.
HARMLESS = {"EINTR", "short"}
# The Parquet reader takes a file whose length it cannot find out for an empty one, and hides the error; the reader of
# safetensors prints it in another form. The standard library hides that it cannot inspect a folder that is there.
HIDDEN = re.compile(
    r"IoError\(Os|file length is 0|Parquet file too small|Invalid Parquet file. Size is smaller|NeedMoreData"
    r"|cannot create the folder: File exists"
)
# Files that only inform.
INFORM = re.compile("/_wavemill/runs|/log.jsonl|/events.out")
# Temporary names with their final names: of files of the store, of output, of files of a run, and of checkpoints.
TEMPORARY = {
    r"\.(.+)\.[0-9a-f]{16}\.tmp": r"\1",
    r"\.(.+?)(\.wavemill-export)?\.part": r"\1",
    r"(config|recipe)\.tmp": r"\1.toml",
    r"(input|result)\.tmp": r"\1.json",
    r"training\.tmp": "training.parquet",
    r"\.(?:part|old)-(\d+)": r"step-\1",
}
NO_SPACE = 5
FAILED = 1
USAGE = 2


class Trials:
    """The faults of one command, each in a folder of its own."""

    def __init__(self, command: Command, arguments: argparse.Namespace, root: Path, shim: Path) -> None:
        self.command, self.programs, self.shim, self.strace = command, arguments.programs, shim, arguments.strace
        self.root, self.inputs = root, root / "inputs"
        self.base = root / "base" / command.name.replace(" ", "-")

    def prepare(self) -> dict[str, int]:
        """Makes the state in which the command begins, and returns the number of operations by kind."""
        self.base.mkdir(parents=True)
        at = self.folder()
        for words in self.command.before:
            run(words, at, self.inputs, self.programs).check_returncode()
        shutil.copytree(at, self.base, dirs_exist_ok=True, symlinks=True)

        counts = self.root / "counts"
        counts.unlink(missing_ok=True)
        done = self.run({"SHIM_COUNTS": str(counts)})
        if done.returncode != 0:
            sys.exit(f"{self.command.words}: status {done.returncode}: {done.stderr}")
        self.expected = self.command.made(at, done.stdout)
        numbers: collections.Counter[str] = collections.Counter()
        # Programs may start others, each of which appends its counts.
        for line in counts.read_text().splitlines():
            kind, number = line.split()
            numbers[kind] += int(number)
        return numbers

    def folder(self) -> Path:
        """Returns the folder of this process, in which the path of a trial is the same for each of its commands."""
        at = self.root / f"trial-{os.getpid()}"
        shutil.rmtree(at, ignore_errors=True)
        shutil.copytree(self.base, at, symlinks=True)
        return at

    def run(self, shim: dict[str, str]) -> subprocess.CompletedProcess[str]:
        environment = {"LD_PRELOAD": str(self.shim), "SHIM_ROOT": str(self.root)} | shim
        return run(self.command.words, self.root / f"trial-{os.getpid()}", self.inputs, self.programs, env=environment)

    def with_strace(self, kind: str, at: int, error: str, hit: Path) -> subprocess.CompletedProcess[str]:
        call = CALLS[kind]
        inject = ["-e", f"inject={call}:error={error}:when={at}"]
        folder = self.root / f"trial-{os.getpid()}"
        before = ["strace", "-f", "-y", "-o", str(hit), "-e", f"trace={call}", *inject, "--"]
        return run(self.command.words, folder, self.inputs, self.programs, before=before)

    def one(self, fault: tuple[str, int, str]) -> tuple[tuple[str, int, str], str, str]:
        """Tries a fault. Returns it, how the command ended, and what is wrong."""
        kind, number, error = fault
        at = self.folder()
        hit = self.root / f"hit-{os.getpid()}"
        hit.unlink(missing_ok=True)
        name, _, always = error.partition(":")
        try:
            if self.strace:
                done = self.with_strace(kind, number, name, hit)
            else:
                code = name if name in ("short", "kill") else str(getattr(errno, name))
                words = f"{kind}:{number}:{code}" + (f":{always}" if always else "")
                done = self.run({"SHIM_FAIL": words, "SHIM_HIT": str(hit)})
        except subprocess.TimeoutExpired:
            return fault, "hangs", "the command does not end"
        hits = hit.read_text().splitlines() if hit.exists() else []
        if self.strace:
            injected = [line for line in hits if "(INJECTED)" in line]
            hits = [line for line in injected if str(self.root) in line]
            # Each thread counts its calls from its start, and the first ones are those of the dynamic loader.
            if injected and not hits:
                return fault, "not reached", ""
        if not hits:
            return fault, "not reached", self.after(at, done, kind, None, hits)
        if kind == "fsync" and name not in HARMLESS and done.returncode == 0 and not INFORM.search(hits[0]):
            return fault, "0", f"ends with status 0 without this sync: {hits[0]}"
        return fault, str(done.returncode), self.after(at, done, kind, name, hits)

    def after(self, at: Path, done: subprocess.CompletedProcess[str], kind: str, error: str | None, hits: list[str]) -> str:
        """Returns what is wrong after a fault of operations on the paths `hits`, or nothing."""
        said = done.stdout + done.stderr if self.command.made is listed else done.stderr
        has_cause = error is not None and os.strerror(getattr(errno, error, 0)) in said
        may_be_hidden = kind in ("open", "read", "stat") and done.returncode in (0, FAILED, DAMAGED)
        is_hidden = may_be_hidden and HIDDEN.search(said) is not None
        is_named = self.strace or any(named(said, hit) for hit in hits)
        if done.returncode == 0:
            # The list of versions has the number of one that could not be read, and a difference the path of a table.
            can_tell = self.command.name == "info" or (self.command.name == "diff" and is_named)
            is_told = can_tell and (has_cause or is_hidden)
            if self.command.made(at, done.stdout) != self.expected and not is_told:
                return f"ends with status 0, but made something else: {said}"
        elif error == "kill" and done.returncode in (-signal.SIGKILL, FAILED) and not re.search("panicked|Traceback", said):
            # A command fails if the killed process is one that it started.
            pass
        elif error is None or error in HARMLESS:
            return f"status {done.returncode} without a fault that matters: {said}"
        elif is_hidden and is_named and "panicked" not in said:
            pass
        elif done.returncode not in (FAILED, NO_SPACE, *self.command.more_statuses) or "panicked" in said:
            return f"status {done.returncode}: {said}"
        elif (error == "ENOSPC") != (done.returncode == NO_SPACE) and error != "EPERM":
            # A missing permission has the status of a read-only disk.
            return f"status {done.returncode} for {error}: {said}"
        elif not self.strace and not (has_cause and is_named):
            return f"the message lacks the error or its place, {hits[0]}: {said}"

        if problem := store_problem(at, self.base, self.inputs, self.programs):
            return problem
        if done.returncode == 0:
            return ""
        again = run(self.command.words, at, self.inputs, self.programs)
        # A command that is killed after its last rename has made everything, and an export is not written over.
        is_made = error == "kill" and again.returncode == USAGE and "not empty" in again.stderr
        if again.returncode != 0 and not is_made:
            return f"the repeated command ends with status {again.returncode}: {again.stderr}"
        if self.command.made(at, again.stdout) != self.expected:
            return "the repeated command made something else"
        return ""


def named(said: str, hit: str) -> bool:
    """Reports whether a message names a file, its folder, or something in it. A temporary name counts as the final one, and
    a file in a temporary folder as that folder."""
    path = Path(hit)
    names = [path]
    for folder in (path, *path.parents):
        for temporary, name in TEMPORARY.items():
            if re.fullmatch(temporary, folder.name):
                final = folder.with_name(re.sub(temporary, name, folder.name))
                names += [final, final / path.relative_to(folder)]
    places = [*names, *(name.parent for name in names)]
    # A folder is removed as a whole.
    if "cannot remove the folder" in said:
        places += path.parents

    # Names may contain spaces.
    ends = (re.escape("/".join(place.parts[-2:])) for place in places)
    if any(re.search(rf"{end}(?![\w/.=-])", said) for end in ends):
        return True
    words = (word.rstrip(".:") for word in re.findall(r"[^\s\"'`,;()\[\]]+", said))
    paths = [Path(word) for word in words if "/" in word or "." in word]
    return any(is_end(word, place) for word in paths for place in places) or any(
        is_end(folder, name) for word in paths for folder in word.parents for name in names
    )


def is_end(word: Path, path: Path) -> bool:
    """Reports whether a path in a message is another one, or its end. Hard links of a file are in other folders, so the last
    two names decide."""
    parts = word.parts[-2:]
    return bool(parts) and path.parts[-len(parts) :] == parts


def faults_of(counts: dict[str, int], arguments: argparse.Namespace) -> list[tuple[str, int, str]]:
    faults = []
    for kind in arguments.kind or ERRORS:
        errors = ["kill"] if arguments.kill else ERRORS[kind]
        if arguments.strace:
            errors = [e for e in errors if kind in CALLS and e != "short" and ":" not in e]
        numbers = range(1, counts.get(kind, 0) + 1)
        faults += [(kind, number, error) for number, error in itertools.product(numbers, errors)]
    return faults


def try_all(arguments: argparse.Namespace, root: Path, shim: Path, commands: list[Command]) -> int:
    """Tries the faults of the commands, and returns the number of broken rules."""
    chosen = random.Random(arguments.seed)
    wrong = 0
    table: dict[str, collections.Counter[str]] = {}
    reached: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for command in commands:
        trials = Trials(command, arguments, root, shim)
        faults = faults_of(trials.prepare(), arguments)
        if arguments.sample and arguments.sample < len(faults):
            faults = chosen.sample(faults, arguments.sample)
        ends = table[command.name] = collections.Counter()
        with multiprocessing.Pool(arguments.jobs) as pool:
            for (kind, number, error), end, problem in pool.imap_unordered(trials.one, faults, chunksize=4):
                ends[end] += 1
                reached[kind][error] += end != "not reached"
                if problem:
                    wrong += 1
                    print(f"{command.name}: {kind} {number} {error}: {problem}", flush=True)
        shutil.rmtree(trials.base)
        print_row(command.name, ends)
        if ends.total() == ends["not reached"] and not arguments.kind:
            wrong += 1
            print(f"{command.name}: no fault was reached", flush=True)
    total = sum((ends for ends in table.values()), collections.Counter())
    print_row("all", total)
    for kind, errors in reached.items():
        print(f"{kind:20} {errors.total():>6} faults: {', '.join(f'{n} {error}' for error, n in errors.items())}")
    print(f"{total.total() - total['not reached']} faults, {wrong} wrong")
    return wrong


def print_row(name: str, ends: collections.Counter[str]) -> None:
    words = {"0": "tolerated", "1": "status 1", "3": "status 3", "5": "status 5", str(-signal.SIGKILL): "killed", "not reached": "not reached"}
    texts = (f"{ends[status]:>5} {word}" for status, word in words.items())
    n_reached = ends.total() - ends["not reached"]
    print(f"{name:20} {n_reached:>6} faults: {', '.join(texts)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", action="append", choices=ERRORS, help="a kind of operation; may be repeated (default: all)")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--kill", action="store_true")
    how.add_argument("--strace", action="store_true")
    drive(parser, try_all)


if __name__ == "__main__":
    main()
