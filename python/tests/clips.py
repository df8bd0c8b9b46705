"""A small archive of generated clips, and stores of it: no other data are needed."""

from __future__ import annotations

import atexit
import functools
import shutil
import subprocess
import sys
import tempfile
import wave
from pathlib import Path

import numpy as np

RATE_HZ = 8000
GENRES = ["blues", "jazz", "pop", "rock"]
CLIPS_PER_GENRE = 20

RECIPE = """
name = "clips"
[catalog]
dataset = "folders"
[[targets]]
name = "genre"
column = "genre"
[split]
rule = "stratified"
fractions = [0.7, 0.1, 0.2]
seed = 1
[audio]
sample_rate_hz = 8000
min_duration_s = 0.1
{duration}
[[features]]
name = "log_mel"
op = "mel"
n_fft = 512
hop_length = 256
n_mels = 16
dtype = "f16"
db = {{ ref = 1.0 }}
[[features]]
name = "mfcc"
op = "mfcc"
n_fft = 512
hop_length = 256
n_mels = 16
n_mfcc = 5
dtype = "f32"
dim_order = "frame,coefficient"
{more}
[shards]
clips = 12
row_group_rows = 4
{shards}
"""

PICTURE = """
[[features]]
name = "picture"
op = "picture"
source = "log_mel"
colour_map = "magma"
dtype = "u8"
"""


@functools.cache
def folder() -> Path:
    """Return a folder that is deleted when the process ends."""
    made = Path(tempfile.mkdtemp(prefix="wavemill-clips-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


@functools.cache
def archive() -> Path:
    """Return a folder with one folder of clips per genre. Clips last 0.5 to 2 seconds."""
    audio = folder() / "audio"
    draw = np.random.default_rng(1)
    for number, genre in enumerate(GENRES):
        (audio / genre).mkdir(parents=True)
        for clip in range(CLIPS_PER_GENRE):
            time = np.arange(int(RATE_HZ * draw.uniform(0.5, 2.0))) / RATE_HZ
            tone = 0.3 * np.sin(2 * np.pi * 300.0 * (number + 1) * time) + 0.05 * draw.standard_normal(time.size)
            with wave.open(str(audio / genre / f"{genre}.{clip:05}.wav"), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(RATE_HZ)
                file.writeframes((tone * 32767).astype("<i2").tobytes())
    return audio


@functools.cache
def store(*, same_length: bool = True, compression: str = "zstd") -> Path:
    """Return a store of the archive, whose rows have one length or that of their clips."""
    made = folder() / f"store-{same_length}-{compression}"
    recipe = folder() / "recipe.toml"
    recipe.write_text(
        RECIPE.format(
            duration="duration_s = 1.0" if same_length else "",
            more=PICTURE if same_length else "",
            shards=f'compression = "{compression}"',
        )
    )
    command = [sys.executable, "-m", "wavemill", "extract", "--quiet"]
    command += ["--recipe", str(recipe), "--audio", str(archive()), "--store", str(made)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        raise AssertionError(f"{command}: {ran.stdout}{ran.stderr}")
    return made
