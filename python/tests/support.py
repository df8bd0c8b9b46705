"""What the tests share: the real data beside the checkout, and a store of the demo's recipe."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

import wavemill as wm


def data(name: str) -> Path:
    """Return the path of real data, or skip the test if there are none."""
    root = os.environ.get("WAVEMILL_DATA") or Path(__file__).parents[2] / ".." / "shared" / "data"
    path = Path(root) / name
    if not path.exists():
        if os.environ.get("WAVEMILL_REQUIRE_DATA") == "1":
            raise AssertionError(f"{path} is missing, and WAVEMILL_REQUIRE_DATA=1")
        raise unittest.SkipTest(f"no real data at {path}; WAVEMILL_DATA selects another folder")
    return path.resolve()


def program(name: str) -> Path:
    """Return a program of the last debug build, or skip the test if it is not built."""
    root = Path(__file__).resolve().parents[2]
    path = Path(os.environ.get("CARGO_TARGET_DIR", root / "target")) / "debug" / name
    if not path.exists():
        raise unittest.SkipTest(f"{name} is not built: cargo build --workspace --bins")
    return path


@functools.cache
def demo_archive() -> Path:
    """Return a folder with the demo's synthetic archive, which is deleted when the process ends."""
    made = Path(tempfile.mkdtemp(prefix="wavemill-demo-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    words = [program("demo-audio"), made / "archive", "--tracks", "120"]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return made / "archive"


@functools.cache
def demo_store() -> Path:
    """Return a store of the demo's archive and recipe."""
    archive = demo_archive()
    wm.build(
        archive.parent / "store",
        recipe="demo",
        metadata=archive / "fma_metadata",
        audio=archive / "fma_demo",
        max_reject_fraction=0.2,
        progress=False,
    )
    return archive.parent / "store"
