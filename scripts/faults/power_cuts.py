#!/usr/bin/env python3
"""Replays what a disk may contain after a power cut at every moment of each command, and continues from there.

usage: scripts/faults/power_cuts.py --programs FOLDER [--command NAME]... [--sample N] [--forget TEXT]

FOLDER contains the programs (`cargo build --workspace --bins`). All changes of files are recorded (shim.c). A cut after
each of them gives three states of the disk: only what was synced; everything; and a random choice of the data and the
folders' entries that were not synced, in which the last write may be torn. The entry of a file in its folder counts as
synced only after a sync of the folder. In each state
- the store's committed versions are intact, and the version is there if the command had ended;
- an export, a catalogue, a plan and a file with the result of a query are whole or absent;
- the repeated command succeeds, and makes the same bytes as without the cut; an export is not written over.

Commands that change a store are also killed before a sync, repeated, and cut off after their success.

--sample N   try N states of each command instead of all: five at its end, and others chosen at random
--forget TEXT  leave out the syncs of paths that contain TEXT, to see that the states show it"""

import argparse
import dataclasses
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from commands import Command, drive, run, store_problem


@dataclasses.dataclass
class Record:
    """One change: `create`, `empty`, `write`, `length`, `sync`, `rename`, `link`, `mkdir`, `unlink` or `rmdir`."""

    op: str
    path: str
    other: str
    at: int
    data: bytes


def records(file: Path) -> Iterator[Record]:
    with file.open("rb") as stream:
        while line := stream.readline():
            op, _, path, other, at, n = line.decode().rstrip("\n").split("\t")
            yield Record(op, path, other, int(at), stream.read(int(n)))


class File:
    """The bytes of a file that were synced, and the later changes."""

    def __init__(self, synced: bytes = b"") -> None:
        self.synced, self.later = synced, []

    def sync(self) -> None:
        self.synced, self.later = self.content(self.later), []

    def content(self, changes: list[tuple[int, bytes | None]]) -> bytes:
        """Returns the synced bytes with some of the changes, which are bytes at a position, or a length."""
        content = bytearray(self.synced)
        for at, data in changes:
            if data is None:
                content[at:] = bytes(max(0, at - len(content)))
            else:
                content[len(content) :] = bytes(max(0, at - len(content)))
                content[at : at + len(data)] = data
        return bytes(content)

    def some(self, chosen: random.Random) -> bytes:
        """Returns the content with a random choice of the later changes, the last of which may be torn."""
        changes = [change for change in self.later if chosen.random() < 0.5]
        if changes and changes[-1][1]:
            at, data = changes[-1]
            changes[-1] = (at, data[: chosen.randrange(len(data) + 1)])
        return self.content(changes)


class Folder:
    """The entries of a folder that were synced, and the later changes: a name with its file or folder, or with nothing."""

    def __init__(self) -> None:
        self.synced: dict[str, File | Folder] = {}
        self.later: list[list[tuple[Folder, str, File | Folder | None]]] = []


class Disk:
    """A disk, as the programs see it and as it was synced. A rename is one change of both folders."""

    def __init__(self, base: Path, root: Path) -> None:
        """Makes a disk that contains the files of `base` at `root`."""
        self.root = str(root)
        self.top = Folder()
        self.seen: dict[str, File | Folder] = {self.root: self.top}
        for path in sorted(base.rglob("*")):
            made = Folder() if path.is_dir() else File(path.read_bytes())
            seen = str(root / path.relative_to(base))
            self.seen[seen] = made
            self.parent(seen).synced[path.name] = made

    def parent(self, path: str) -> Folder:
        return self.seen[os.path.dirname(path)]

    def change(self, *entries: tuple[str, File | Folder | None]) -> None:
        """Changes entries of folders, all of them or none."""
        changes = [(self.parent(path), os.path.basename(path), made) for path, made in entries]
        for folder in {id(folder): folder for folder, _, _ in changes}.values():
            folder.later.append(changes)
        for path, made in entries:
            below = [key for key in self.seen if key == path or key.startswith(path + "/")]
            for key in below:
                del self.seen[key]
            if made is not None:
                self.seen[path] = made

    def apply(self, record: Record) -> None:
        path, op = record.path, record.op
        there = self.seen.get(path)
        if op in ("create", "empty"):
            if there is None:
                self.change((path, File()))
            elif op == "empty" and isinstance(there, File):
                there.later.append((0, None))
        elif op in ("write", "length"):
            # A file without a name is lost in any case.
            if isinstance(there, File):
                there.later.append((record.at, record.data if op == "write" else None))
        elif op == "sync":
            self.sync(there)
        elif op == "mkdir":
            self.change((path, Folder()))
        elif op in ("unlink", "rmdir"):
            self.change((path, None))
        elif op == "link":
            self.change((record.other, there))
        elif op == "rename":
            moved = {key: made for key, made in self.seen.items() if key.startswith(path + "/")}
            self.change((path, None), (record.other, there))
            self.seen |= {record.other + key[len(path) :]: made for key, made in moved.items()}

    def sync(self, there: "File | Folder | None") -> None:
        if isinstance(there, File):
            there.sync()
        elif there is not None:
            for changes in list(there.later):
                put_all(changes)

    def state(self, chosen: random.Random | None, is_all: bool) -> dict[str, bytes | None]:
        """Returns the content of each file, and None for each folder, by path: what was synced, all, or a random choice."""
        folders = {id(made): made for made in self.seen.values() if isinstance(made, Folder)}
        done: set[int] = set()
        later = []
        for folder in folders.values():
            for changes in folder.later:
                if id(changes) not in done:
                    done.add(id(changes))
                    later.append(changes)
        taken = [changes for changes in later if is_all or (chosen and chosen.random() < 0.5)]
        entries: dict[int, dict[str, File | Folder]] = {}
        for changes in taken:
            for folder, name, made in changes:
                put(entries.setdefault(id(folder), dict(folder.synced)), name, made)
        return dict(self.content(self.top, self.root, entries, chosen, is_all))

    def content(self, folder: Folder, path: str, entries: dict, chosen: random.Random | None, is_all: bool) -> Iterator:
        for name, made in entries.get(id(folder), folder.synced).items():
            below = f"{path}/{name}"
            if isinstance(made, Folder):
                yield below, None
                yield from self.content(made, below, entries, chosen, is_all)
            elif is_all:
                yield below, made.content(made.later)
            else:
                yield below, made.some(chosen) if chosen else made.synced


def put(entries: dict[str, File | Folder], name: str, made: File | Folder | None) -> None:
    if made is None:
        entries.pop(name, None)
    else:
        entries[name] = made


def put_all(changes: list[tuple[Folder, str, File | Folder | None]]) -> None:
    """Makes changes of entries durable."""
    for folder, name, made in changes:
        put(folder.synced, name, made)
        if changes in folder.later:
            folder.later.remove(changes)


@dataclasses.dataclass(frozen=True)
class State:
    """A cut after a number of changes. `kind` is `synced`, `all`, or the seed of a random choice."""

    # Number of the sync before which another process of the command was killed, from 1; 0 if there was none.
    killed_at: int
    # Number of changes, or None for all of them: the command had ended with success.
    cut: int | None
    kind: str


class Cuts:
    """The power cuts of one command."""

    def __init__(self, command: Command, arguments: argparse.Namespace, root: Path, shim: Path) -> None:
        self.command, self.programs, self.shim, self.root = command, arguments.programs, shim, root
        self.inputs = root / "inputs"
        self.base, self.at = root / "base", root / "trial"
        self.forget, self.seed = arguments.forget, arguments.seed

    def prepare(self) -> list[State]:
        """Records the command, alone and after kills, and returns all states."""
        shutil.rmtree(self.base, ignore_errors=True)
        self.base.mkdir()
        self.reset({}, self.at)
        for words in self.command.before:
            run(words, self.at, self.inputs, self.programs).check_returncode()
        shutil.copytree(self.at, self.base, dirs_exist_ok=True)

        done = self.recorded(self.at, "alone", 0)
        if done.returncode != 0:
            sys.exit(f"{self.command.words}: status {done.returncode}: {done.stderr}")
        self.out = done.stdout
        self.expected = self.command.made(self.at, self.out)
        changes = list(self.kept("alone"))
        states = [State(0, cut, kind) for cut in range(len(changes)) for kind in ("synced", "all", str(cut))]
        n_syncs = sum(change.op == "sync" for change in changes) if self.command.changes_store else 0
        states += [State(at, None, kind) for at in range(1, n_syncs + 1) for kind in ("synced", str(at))]
        # The end comes first, because it shows every sync that is missing, also after a kill at one of the last syncs.
        last = range(max(1, n_syncs - 2), n_syncs + 1) if n_syncs else ()
        return [State(0, None, "all"), State(0, None, "synced"), *(State(at, None, "synced") for at in last)] + states

    def recorded(self, at: Path, name: str, killed_at: int) -> subprocess.CompletedProcess[str]:
        """Records the command in the folder `at`, after another one that was killed at a sync."""
        shutil.rmtree(at, ignore_errors=True)
        shutil.copytree(self.base, at)
        (self.root / name).unlink(missing_ok=True)
        shim = {"LD_PRELOAD": str(self.shim), "SHIM_ROOT": str(at), "SHIM_RECORD": str(self.root / name)}
        if killed_at:
            run(self.command.words, at, self.inputs, self.programs, env=shim | {"SHIM_FAIL": f"fsync:{killed_at}:kill"})
        return run(self.command.words, at, self.inputs, self.programs, env=shim)

    def kept(self, name: str) -> Iterator[Record]:
        """Returns the records, without the syncs that are to be forgotten."""
        for record in records(self.root / name):
            if record.op != "sync" or not self.forget or self.forget not in record.path:
                yield record

    def reset(self, state: dict[str, bytes | None], below: Path) -> None:
        """Gives the folder of the trial the files of a state, whose paths are below another folder."""
        shutil.rmtree(self.at, ignore_errors=True)
        self.at.mkdir()
        for path, content in state.items():
            target = self.at / Path(path).relative_to(below)
            target.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                target.mkdir(exist_ok=True)
            else:
                target.write_bytes(content)

    def one(self, state: State) -> tuple[State, str]:
        """Tries a state. Returns what is wrong, or nothing."""
        # Each process has a folder of its own, and the recording names the folder in which it was made.
        recording, root = "alone", self.root / "trial"
        self.at = self.root / f"trial-{os.getpid()}"
        if state.killed_at:
            recording, root = f"killed-{os.getpid()}", self.at
            done = self.recorded(root, recording, state.killed_at)
            if done.returncode != 0:
                return state, f"the command after a kill ends with status {done.returncode}: {done.stderr}"

        disk = Disk(self.base, root)
        for number, record in enumerate(self.kept(recording)):
            if number == state.cut:
                break
            disk.apply(record)
        chosen = None if state.kind in ("synced", "all") else random.Random(f"{self.seed} {state}")
        self.reset(disk.state(chosen, state.kind == "all"), root)
        return state, self.after(state)

    def after(self, state: State) -> str:
        if problem := store_problem(self.at, self.base, self.inputs, self.programs):
            return problem
        is_whole = self.command.made(self.at, self.out) == self.expected
        if state.cut is None and not is_whole:
            return "the command had succeeded, but its result is lost"
        if self.command.last and any(self.at.glob(self.command.last)):
            if not is_whole:
                return f"{self.command.last} is there, but not everything that the command makes"
            # An export is not written over.
            if self.command.last == "out":
                return ""

        again = run(self.command.words, self.at, self.inputs, self.programs)
        if again.returncode != 0:
            return f"the repeated command ends with status {again.returncode}: {again.stderr}"
        if self.command.made(self.at, again.stdout) != self.expected:
            return "the repeated command made something else"
        return ""


def try_all(arguments: argparse.Namespace, root: Path, shim: Path, commands: list[Command]) -> int:
    """Tries the states of the commands, and returns the number of broken rules."""
    chosen = random.Random(arguments.seed)
    total = wrong = 0
    for command in commands:
        cuts = Cuts(command, arguments, root, shim)
        states = cuts.prepare()
        n = len(states)
        if arguments.sample and arguments.sample < n:
            states = states[:5] + chosen.sample(states[5:], max(0, arguments.sample - 5))
        of_command = 0
        with multiprocessing.Pool(arguments.jobs) as pool:
            for state, problem in pool.imap_unordered(cuts.one, states, chunksize=4):
                if problem:
                    of_command += 1
                    print(f"{command.name}: {state}: {problem}", flush=True)
        total += len(states)
        wrong += of_command
        print(f"{command.name:20} {len(states):>5} of {n:>5} states, {of_command} wrong", flush=True)
    print(f"{total} states, {wrong} wrong")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--forget", help="text in the paths whose syncs are left out")
    drive(parser, try_all, lambda command: command.changes_disk)


if __name__ == "__main__":
    main()
