#!/usr/bin/env python3
"""Compares decoding of each audio format with ffmpeg's: of intact, truncated and damaged files.

usage: scripts/peers/formats.py FILE

Encodes the first 20 s of FILE with ffmpeg in each format. A truncated file ends after 70 % of its bytes. A damaged file has
1,000 random bytes in its middle. Prints for each file the decoded seconds, the seconds that wavemill counts as lost, the
seconds that ffmpeg decodes, and the ratio of signal to difference in dB over the samples before the damage. The Python package
needs the module of the build (scripts/python_check.sh)."""

import argparse
import random
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import wavemill as wm

RATE_HZ = 48_000
FORMATS = {
    "AAC in MP4": ("m4a", ["-c:a", "aac", "-b:a", "128k", "-movflags", "faststart"]),
    "AAC in fragments": ("m4a", ["-c:a", "aac", "-b:a", "128k", "-movflags", "frag_keyframe+empty_moov", "-frag_duration", "1000000"]),
    "AAC, ADTS": ("aac", ["-c:a", "aac", "-b:a", "128k"]),
    "ALAC in MP4": ("m4a", ["-c:a", "alac", "-movflags", "faststart"]),
    "AIFF": ("aiff", []),
    "Opus in Ogg": ("opus", ["-c:a", "libopus", "-b:a", "96k"]),
    "Vorbis in Ogg": ("ogg", ["-c:a", "libvorbis", "-q:a", "4"]),
    "FLAC": ("flac", []),
    "WAV": ("wav", []),
    "MP3": ("mp3", ["-c:a", "libmp3lame", "-b:a", "128k"]),
}


def ffmpeg(*words: Any) -> bytes:
    command = ["ffmpeg", "-v", "fatal", "-nostdin", "-y", *map(str, words)]
    return subprocess.run(command, stdout=subprocess.PIPE, check=False).stdout


def compare(path: Path, end_s: float) -> str:
    """Returns the cells of a file, whose first `end_s` seconds are compared."""
    raw = ffmpeg("-i", path, "-f", "f32le", "-ac", 2, "-ar", RATE_HZ, "-")
    peer = np.frombuffer(raw, np.float32).reshape(-1, 2).mean(axis=1)
    facts = wm.inspect(path)
    if facts.reject is not None:
        return f"{facts.reject} | | {len(peer) / RATE_HZ:.3f} | |"

    y, _ = wm.load(path, sr=None)
    n = min(len(y), len(peer), int(end_s * RATE_HZ))
    difference = np.sum((y[:n] - peer[:n]) ** 2, dtype=float)
    ratio_db = 10 * np.log10(np.sum(peer[:n] ** 2, dtype=float) / difference) if difference else np.inf
    return f"{len(y) / RATE_HZ:.3f} | {facts.lost:.3f} | {len(peer) / RATE_HZ:.3f} | {ratio_db:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    arguments = parser.parse_args()

    print("| format | file | decoded s | lost s | ffmpeg s | dB |\n|---|---|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory(prefix="wavemill-formats-") as name:
        for title, (extension, options) in FORMATS.items():
            path = Path(name) / f"clip.{extension}"
            ffmpeg("-t", 20, "-i", arguments.file, "-ar", RATE_HZ, "-ac", 2, "-map_metadata", -1, *options, path)
            whole = path.read_bytes()
            print(f"| {title} | intact | {compare(path, 20)}")

            path.write_bytes(whole[: len(whole) * 7 // 10])
            print(f"| | truncated | {compare(path, 13)}")

            middle = len(whole) // 2
            noise = random.Random(1).randbytes(1_000)
            path.write_bytes(whole[:middle] + noise + whole[middle + len(noise) :])
            print(f"| | damaged | {compare(path, 9)}", flush=True)


if __name__ == "__main__":
    main()
