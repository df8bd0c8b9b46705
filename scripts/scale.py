#!/usr/bin/env python3
"""Measures the steps of large archives: tiny clips in one zip, planned, written in parts and committed.

usage: scripts/scale.py --wavemill PROGRAM [--clips N] [--parts P] [--shard-clips N] [--add] [--one]

Prints a line per step: wall time, CPU time, peak resident memory, bytes read, and what is in the store. With --add, one
clip is added afterwards and the steps are measured again. docs/scale.md contains the results."""

import argparse
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

RECIPE = """
name = "scale"
[catalog]
dataset = "table"
[[targets]]
name = "genre"
column = "genre"
[split]
rule = "artist"
[audio]
sample_rate_hz = 8000
duration_s = 0.25
min_duration_s = 0.01
[[features]]
name = "log_mel"
op = "mel"
n_fft = 256
hop_length = 512
n_mels = 4
[shards]
clips = {clips}
"""


def wav(track: int) -> bytes:
    """Returns a WAV file of 200 samples, another one for each track."""
    samples = random.Random(track).randbytes(400)
    form = struct.pack("<4sIHHIIHH4sI", b"fmt ", 16, 1, 1, 8000, 16000, 2, 16, b"data", len(samples))
    return b"RIFF" + struct.pack("<I", 4 + len(form) + len(samples)) + b"WAVE" + form + samples


def add_tracks(folder: Path, tracks: range) -> None:
    """Adds tracks to the zip of the audio and to the table."""
    mode = "a" if tracks.start else "w"
    with zipfile.ZipFile(folder / "audio.zip", mode) as audio, open(folder / "metadata/table.csv", mode) as table:
        if not tracks.start:
            table.write("clip_key,genre,artist_id\n")
        for track in tracks:
            key = f"{track // 1000:05}/{track:09}.wav"
            audio.writestr(zipfile.ZipInfo(key), wav(track))
            table.write(f"{key},genre {track // 3 % 16},{track // 3}\n")


def measured(step: str, command: list[str]) -> str:
    """Runs a command, prints what it took, and returns its standard output."""
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(command, stdout=out)
        # The process stays until it is waited for again, so that its counters can be read.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        read = Path(f"/proc/{process.pid}/io").read_text().splitlines()[0].split()[1]
        _, status, used = os.wait4(process.pid, 0)
        out.seek(0)
        text = out.read()
    if status:
        sys.exit(f"{step}: ended with status {status}: {' '.join(command)}")
    line = {
        "step": step,
        "wall_s": round(time.monotonic() - started, 2),
        "cpu_s": round(used.ru_utime + used.ru_stime, 2),
        "peak_mib": round(used.ru_maxrss / 1024, 1),
        "read_mib": round(int(read) / 2**20, 1),
    }
    print(json.dumps(line), flush=True)
    return text


def folder_bytes(folder: Path) -> tuple[int, int]:
    """Returns the number of files below a folder and their total size."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return len(files), sum(path.stat().st_size for path in files)


def steps(arguments: argparse.Namespace, folder: Path, more: list[str]) -> None:
    """Plans, writes all parts and commits."""
    program, store = arguments.wavemill, folder / "store"
    plan = measured("plan", [program, "plan", "-q", "--recipe", f"{folder}/scale.toml", "--metadata", f"{folder}/metadata",
                             "--audio", f"{folder}/audio.zip", "--store", f"{store}", *more]).strip()
    stored = store / "_wavemill/plans" / plan
    sizes = sorted(path.stat().st_size for path in stored.glob("*.parquet"))
    needed = (stored / "plan.json").stat().st_size + sizes[-1]
    line = dict(zip(("files", "bytes"), folder_bytes(stored))) | {"blocks": len(sizes), "read_for_one_shard": needed}
    print(json.dumps({"plan": line}), flush=True)
    for part in range(1, arguments.parts + 1):
        measured(f"work {part}/{arguments.parts}", [program, "work", "-q", "--store", f"{store}", "--plan", plan,
                                                    "--part", f"{part}/{arguments.parts}"])
    measured("commit", [program, "commit", "-q", "--store", f"{store}", "--plan", plan])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wavemill", required=True, help="the program")
    parser.add_argument("--clips", type=int, default=106_574, help="number of clips (default: those of FMA-large)")
    parser.add_argument("--parts", type=int, default=16)
    parser.add_argument("--shard-clips", type=int, default=1000, help="clips of a shard")
    parser.add_argument("--add", action="store_true", help="add one clip, and measure the steps again")
    parser.add_argument("--one", action="store_true", help="also measure `extract` on another store")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="wavemill-scale-") as name:
        folder = Path(name)
        (folder / "metadata").mkdir()
        (folder / "scale.toml").write_text(RECIPE.format(clips=arguments.shard_clips))
        add_tracks(folder, range(arguments.clips))
        if arguments.one:
            measured("extract", [arguments.wavemill, "extract", "-q", "--recipe", f"{folder}/scale.toml", "--metadata",
                                 f"{folder}/metadata", "--audio", f"{folder}/audio.zip", "--store", f"{folder}/one"])
        steps(arguments, folder, [])
        for part in ("data", "_wavemill/receipts", "_wavemill/versions"):
            print(json.dumps({part: dict(zip(("files", "bytes"), folder_bytes(folder / "store" / part)))}), flush=True)
        if arguments.add:
            add_tracks(folder, range(arguments.clips, arguments.clips + 1))
            steps(arguments, folder, ["--new-version"])


if __name__ == "__main__":
    main()
