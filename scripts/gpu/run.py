#!/usr/bin/env python3
"""Runs all checks that need a GPU, each with a time limit, and continues after a failure.

usage: scripts/gpu_check.sh run [FOLDER] [--steps NAME,…] [--minutes N] [--packed DIR] [--list]
  FOLDER         output folder for results.json and log.txt (default: .gpu/results)
  --steps        run only these steps
  --minutes N    time limit of all steps together (default: 9); a larger one also raises each step's limit in proportion
  --packed DIR   unpacked archive (default: .gpu/gpu.tar.xz is unpacked to a temporary folder)
  --list         list the steps and their limits

A first run (limits of 165 s, plus unpacking; allow 240 s): --steps machine,open,bench,ncu,parity

Exit code 0: every step passed. 1: a step failed, or was not run.
"""

import argparse
import datetime
import json
import os
import shlex
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from place import Place
from steps import NEED_TORCH, STEPS, Failed, NotRun

ROOT = Path(__file__).resolve().parents[2]
MINUTES = 9.0
# Bytes of a step's output that the log keeps; a kernel's error can be repeated without end.
OUTPUT_BYTES = 400_000


class Check:
    """A running step: its time, output and results."""

    def __init__(self, name, limit_s, log):
        self.name, self.limit_s, self.log = name, limit_s, log
        self.start = time.monotonic()
        self.figures = {}
        self.text = []

    def left_s(self):
        return self.limit_s - (time.monotonic() - self.start)

    def say(self, line):
        self.log.write(line.rstrip("\n") + "\n")
        self.log.flush()

    def run(self, command, environment, **how):
        """Runs a command and returns its standard output. Fails if the command fails or exceeds the time left for the step."""
        command = [str(word) for word in command]
        self.say(f"$ {' '.join(command)}")
        left_s = self.left_s()
        if left_s <= 0:
            raise Failed(f"no time was left for {Path(command[0]).name} (limit {self.limit_s:.0f} s)")
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            # Uses a separate process group, so that child processes end with the step.
            process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True, **how
            )
            is_late = False
            try:
                process.wait(left_s)
            except subprocess.TimeoutExpired:
                is_late = True
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            texts = []
            for stream in (out, err):
                stream.seek(0)
                texts.append(stream.read().decode(errors="replace"))
                self.say(texts[-1][-OUTPUT_BYTES:])
        if is_late:
            raise Failed(f"{Path(command[0]).name} ran past the step's {self.limit_s:.0f} s")
        if process.returncode != 0:
            last = [line for line in "\n".join(texts).splitlines() if line.strip()][-1:]
            raise Failed(f"{Path(command[0]).name}: exit code {process.returncode}: {' '.join(last)[:300]}")
        return texts[0]


def unpack(archive, scratch):
    """Unpacks the archive and returns its folder."""
    with tarfile.open(archive) as packed:
        packed.extractall(scratch, filter="data")
    return scratch / "wavemill-gpu"


def run_step(step, place, left_s, scale, log):
    """Runs a step and returns its line of the table."""
    limit_s = min(step.limit_s * scale, left_s)
    check = Check(step.name, limit_s, log)
    check.say(f"\n==== {step.name}: {step.title}")
    result, why = "passed", ""
    try:
        if limit_s < 1:
            raise NotRun("no time was left")
        step.run(check, place)
    except NotRun as reason:
        result, why = "not run", str(reason)
    except Failed as reason:
        result, why = "failed", str(reason)
    except (OSError, ValueError, KeyError) as error:
        result, why = "failed", f"{type(error).__name__}: {error}"
    seconds = time.monotonic() - check.start
    check.say(f"==== {step.name}: {result} {why}")
    figures = ", ".join(f"{name} {value}" for name, value in check.figures.items())
    print(f"{step.name:<12} {result:<8} {seconds:6.1f} s  {why or figures}", flush=True)
    return {
        "step": step.name,
        "title": step.title,
        "result": result,
        "why": why,
        "seconds": round(seconds, 1),
        "limit_s": round(limit_s, 1),
        "figures": check.figures,
        "text": check.text,
    }


def can_read_ahead(steps):
    """Reports whether the libraries of torch may be read before `steps`: one needs them, and none measures speed by `bench`."""
    names = [step.name for step in steps]
    # Reading several GB takes CPU time and memory bandwidth, which would change the figures.
    return "bench" not in names and any(name in NEED_TORCH for name in names)


def summary(lines):
    count = {result: sum(line["result"] == result for line in lines) for result in ("passed", "failed", "not run")}
    return f"{len(lines)} steps: " + ", ".join(f"{n} {result}" for result, n in count.items())


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/gpu_check.sh run", usage=__doc__.split("\n\n")[1][7:])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / ".gpu/results")
    parser.add_argument("--steps", default="")
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--packed", type=Path)
    parser.add_argument("--list", action="store_true")
    return parser.parse_args()


def main():
    asked = arguments()
    names = [name for name in asked.steps.split(",") if name]
    if unknown := [name for name in names if name not in [step.name for step in STEPS]]:
        sys.exit(f"unknown step {', '.join(unknown)}: see --list")
    steps = [step for step in STEPS if not names or step.name in names]
    if asked.list:
        print("".join(f"{step.name:<12} {step.limit_s:>4} s  {step.title}\n" for step in steps), end="")
        return
    archive = ROOT / ".gpu/gpu.tar.xz"
    if not asked.packed and not archive.is_file():
        sys.exit(f"{archive} does not exist: run scripts/gpu_check.sh build")

    call = shlex.join(["scripts/gpu_check.sh", "run", *sys.argv[1:]])
    print(call, flush=True)
    start = time.monotonic()
    # Only this folder is copied from the machine; large files stay in the temporary folder.
    asked.folder.mkdir(parents=True, exist_ok=True)
    lines = []
    with tempfile.TemporaryDirectory(prefix="wavemill-gpu-") as scratch, open(asked.folder / "log.txt", "w") as log:
        scratch = Path(scratch)
        packed = (asked.packed or unpack(archive, scratch)).resolve()
        place = Place(packed, scratch)
        machine = place.described()
        log.write(f"{call}\n{json.dumps(machine, indent=1)}\n")
        is_read = False
        for at, step in enumerate(steps):
            if not is_read and can_read_ahead(steps[at:]):
                place.read_ahead()
                is_read = True
            left_s = asked.minutes * 60 - (time.monotonic() - start)
            lines.append(run_step(step, place, left_s, max(1.0, asked.minutes / MINUTES), log))
            # Written after each step, so that the results are kept if this program is killed.
            found = {"date": datetime.date.today().isoformat(), "call": call, "machine": machine, "steps": lines}
            (asked.folder / "results.json").write_text(json.dumps(found, indent=1) + "\n")
    print(f"{summary(lines)}\nresults: {asked.folder}")
    sys.exit(0 if all(line["result"] == "passed" for line in lines) else 1)


if __name__ == "__main__":
    main()
