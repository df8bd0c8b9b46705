"""The programs beside the command ``wavemill``, which a wheel contains: where they are, and what the trainer needs."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

#: Folder of the wheel's programs.
FOLDER = Path(__file__).parent / "bin"


def words() -> list[str]:
    """Return the words that start this command again: its script, or Python and its module."""
    script = sys.argv[0]
    if os.path.isabs(script) and os.access(script, os.X_OK):
        return [script]
    return [sys.executable, "-m", "wavemill"]


def prepare(arguments: Sequence[str]) -> str | None:
    """Let the command find the wheel's programs, and the trainer find libtorch in the installed torch.

    Returns
    -------
    str or None
        Why the command cannot start the trainer, and what to do, if it would have to start the wheel's.
    """
    os.environ["PATH"] = os.pathsep.join([str(FOLDER), os.environ.get("PATH", os.defpath)])
    if shutil.which("wavemill-train") != str(FOLDER / "wavemill-train"):
        return None

    needed = (FOLDER / "torch-version").read_text().strip()
    libraries, problem = _libtorch(needed)
    if libraries is not None:
        others = os.environ.get("LD_LIBRARY_PATH")
        os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, [str(libraries), others]))
    elif _needs_trainer(arguments):
        return f"wavemill-train needs torch {needed}, and {problem}: pip install torch=={needed}"
    return None


def _needs_trainer(arguments: Sequence[str]) -> bool:
    """Report whether the command with these arguments starts the trainer. Only ``train`` passes ``--help`` on to it."""
    if arguments[:1] == ["train"]:
        return True
    if not {"-h", "--help"}.isdisjoint(arguments):
        return False
    is_of_model = arguments[:1] in (["predict"], ["serve"]) or arguments[:2] == ["experiment", "run"]
    return is_of_model or (arguments[:1] == ["demo"] and "--train" in arguments)


def _libtorch(needed: str) -> tuple[Path, None] | tuple[None, str]:
    """Return the folder of libtorch's libraries, or why there are none: those of LIBTORCH, or of the package torch."""
    if "LIBTORCH" in os.environ:
        return Path(os.environ["LIBTORCH"]) / "lib", None

    # The package is not imported, which would take seconds.
    found = importlib.util.find_spec("torch")
    if found is None or not found.submodule_search_locations:
        return None, "it is not installed"
    version = importlib.metadata.version("torch")
    # A local version such as 2.11.0+cpu is another build of the same sources.
    if version.partition("+")[0] != needed:
        return None, f"{version} is installed"
    return Path(next(iter(found.submodule_search_locations))) / "lib", None
