"""Building stores."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TextIO

from . import _wavemill
from ._arguments import argument, checked, plain
from .errors import UsageError

log = logging.getLogger("wavemill")


@checked
def build(
    store: str | os.PathLike[str],
    *,
    recipe: str | os.PathLike[str],
    audio: str | os.PathLike[str],
    metadata: str | os.PathLike[str] | None = None,
    set: Mapping[str, Any] | None = None,
    progress: bool = True,
    threads: int | None = None,
    memory_limit: int | str | None = None,
    limit: int | None = None,
    new_version: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Build a version of a store from metadata and audio, as ``wavemill extract`` does.

    A run that was stopped, killed or failed continues where it stopped if it is started again with the same arguments.
    Ctrl-C stops it within half a second, except for the clips in flight.

    Parameters
    ----------
    store : path
        Folder of the store, or its address such as ``"s3://bucket/store"``; created if it does not exist.
    recipe : str or path
        Name of a shipped recipe, or a TOML file.
    audio, metadata : path
        Folder or zip of the audio; folder, zip or file of the metadata, if the recipe needs any.
    set : dict
        Values of the recipe to change, such as ``{"features.log_mel.n_mels": 96}``.
    progress : bool
        Whether to show progress: with tqdm if it is installed, otherwise as a line on a terminal.
    threads : int
        Number of decoding threads; by default one per processor.
    memory_limit : int or str
        Memory limit of the process, in bytes or such as ``"2GiB"`` (default 4 GiB).
    limit : int
        Number of clips to keep, chosen by hash.
    new_version : bool
        Whether to commit another version if the latest one was made differently.
    **options
        Other options of ``wavemill extract --help``, with underscores: ``max_reject_fraction=0.1``, ``resplit=True``.

    Returns
    -------
    dict
        The report, as ``wavemill extract --json`` prints it: ``version``, ``counts``, ``rejects``, …

    Raises
    ------
    UsageError, OtherPlanError, NoSpaceError, StoreInUseError, DamagedStoreError, Error
        No version was committed; the message says why, and what to do.

    Examples
    --------
    >>> report = wm.build("store", recipe="fma-large", metadata="fma_metadata.zip", audio="fma_large.zip")
    >>> report["version"]
    1
    """
    named = {"store": store, "recipe": recipe, "audio": audio, "metadata": metadata, "threads": threads}
    named |= {"memory_limit": memory_limit, "limit": limit, "new_version": new_version}
    return _run("extract", named | options, set=set, progress=progress)


@checked
def plan(
    store: str | os.PathLike[str],
    *,
    recipe: str | os.PathLike[str],
    audio: str | os.PathLike[str],
    metadata: str | os.PathLike[str] | None = None,
    set: Mapping[str, Any] | None = None,
    progress: bool = True,
    **options: Any,
) -> dict[str, Any]:
    """Plan a version of a store, so that several processes or machines can build it.

    The arguments are those of `build`. Any scheduler can run `work` for each part, in any order and repeatedly.

    Returns
    -------
    dict
        ``plan_id``, ``shards`` (the largest useful number of parts), ``clips``, ``nothing_to_do``, …

    Raises
    ------
    UsageError, OtherPlanError, NoSpaceError, StoreInUseError, DamagedStoreError, Error
        Nothing was planned; the message says why, and what to do.

    Examples
    --------
    >>> plan = wm.plan("store", recipe="fma-large", metadata="fma_metadata.zip", audio="fma_large")["plan_id"]
    >>> for number in range(1, 17):
    ...     wm.work("store", plan, f"{number}/16")
    >>> report = wm.commit("store", plan)
    """
    named = {"store": store, "recipe": recipe, "audio": audio, "metadata": metadata}
    return _run("plan", named | options, set=set, progress=progress)


@checked
def work(
    store: str | os.PathLike[str],
    plan: str,
    part: str | None = None,
    *,
    progress: bool = True,
    **options: Any,
) -> dict[str, Any]:
    """Write shards of a plan that are not finished: one part, or what other workers leave.

    Parameters
    ----------
    store : path
        Folder of the store, or its address.
    plan : str
        Id of the plan, from `plan`.
    part : str
        ``"I/N"`` for part I of N, from ``"1/N"`` to ``"N/N"``. Without it, the worker claims shards until all are
        finished.
    progress : bool
        Whether to show progress, as `build` does.
    **options
        Options of ``wavemill work --help``, with underscores: ``threads=4``, ``memory_limit="2GiB"``, ``audio=path``.

    Raises
    ------
    UsageError, OtherPlanError, DamagedStoreError
        Trying again does not help.
    NoSpaceError, StoreInUseError, Error
        Try again; finished shards are kept.
    """
    named = {"store": store, "plan": plan, "part": part, "claim": part is None}
    return _run("work", named | options, progress=progress)


@checked
def commit(store: str | os.PathLike[str], plan: str, **options: Any) -> dict[str, Any]:
    """Commit a plan whose shards are all written.

    Returns
    -------
    dict
        The report, as that of `build`.

    Raises
    ------
    OtherPlanError
        Another version was committed after the plan was made.
    Error
        Shards are missing (``exit_code`` is 9); the message names them. Or another failure.
    """
    return _run("commit", {"store": store, "plan": plan} | options, progress=False)


def _run(
    command: str, options: Mapping[str, Any], *, set: Mapping[str, Any] | None = None, progress: bool
) -> dict[str, Any]:
    """Run a command with options, show its progress and its warnings, and return its report."""
    words = []
    for name, given in options.items():
        value = plain(given)
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(flag)
        elif value is not None and value is not False:
            words.append(f"{flag}={os.fspath(value) if isinstance(value, os.PathLike) else value}")
    words += [f"--set={change}" for change in _sets(set)]

    with _Progress() if progress else contextlib.nullcontext(_show_nothing) as shown:
        report: dict[str, Any] = json.loads(_wavemill.build(command, words, shown))
    for warning in report["warnings"]:
        log.warning("%s", warning)
    return report


@dataclass(frozen=True)
class Extracted:
    """The result of `wavemill.extract`: two tables of Arrow, for ``pyarrow.table(…)`` or ``polars.DataFrame(…)``."""

    #: The rows in the order of the files, with the columns that a feature's table has in SQL: ``clip_key`` (the path),
    #: ``segment``, the feature, …
    rows: Any
    #: The files without rows: ``clip_key`` and ``problem``.
    rejects: Any


@checked
def extract(
    paths: Iterable[str | os.PathLike[str]],
    recipe: str | os.PathLike[str] = "fma-large",
    *,
    feature: str | None = None,
    set: Mapping[str, Any] | None = None,
    threads: int | None = None,
) -> Extracted:
    """Compute a recipe's feature of files, in memory and without a store.

    Parameters
    ----------
    paths : iterable of paths
        Audio files.
    recipe : str or path
        Name of a shipped recipe, or a TOML file.
    feature : str
        Name of a feature of the recipe; by default its first one.
    set : dict
        Values of the recipe to change, as for `build`.
    threads : int
        Number of threads; by default one per processor.

    Raises
    ------
    UsageError
        There is no such recipe or feature. Files that cannot be read or decoded are rejects.

    Examples
    --------
    >>> rows = polars.DataFrame(wm.extract(["a.mp3", "b.mp3"], recipe="fma-large").rows)
    """
    if threads is not None and threads < 1:
        raise UsageError(f"threads = {threads}: must be 1 or more")
    if isinstance(paths, (str, bytes, os.PathLike)):
        raise UsageError(f"paths: must be several paths, such as [{paths!r}]")
    words = [argument("paths", path, "str | os.PathLike[str]") for path in paths]
    rows, rejects = _wavemill.extract(words, os.fspath(recipe), _sets(set), feature, threads or os.cpu_count() or 1)
    return Extracted(rows, rejects)


def _sets(values: Mapping[str, Any] | None) -> list[str]:
    """Return changes of a recipe as the command takes them."""
    return [f"{key}={_toml(value)}" for key, value in (values or {}).items()]


def _toml(value: Any) -> str:
    """Return a value of a recipe as TOML; texts are given as they are, as on the command line."""
    value = plain(value)
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_element(plain(element))}" for key, element in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_element, value)) + "]"
    if value is None or isinstance(value, (int, float)):
        return json.dumps(value)
    raise UsageError(f"set: {value!r} is not a number, a text, a list or a dict")


def _element(value: Any) -> str:
    """Return a value within another one as TOML; JSON's texts are texts of TOML."""
    return json.dumps(value) if isinstance(value, str) else _toml(value)


def _show_nothing(line: str, done: int, total: int | None) -> None:
    pass


class _Progress:
    """Shows the progress of a run with tqdm, or as a line on a terminal."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._bar: Any = None
        self._width = 0

    def __enter__(self) -> Callable[[str, int, int | None], object]:
        try:
            from tqdm.auto import tqdm
        except ImportError:
            return self._line if self._stream.isatty() else _show_nothing
        self._bar = tqdm(bar_format="{desc}|{bar}|", file=self._stream, leave=False)
        return self._update_bar

    def _update_bar(self, line: str, done: int, total: int | None) -> None:
        self._bar.total = total
        self._bar.n = min(done, total or done)
        self._bar.set_description_str(line)

    def _line(self, line: str, done: int, total: int | None) -> None:
        self._stream.write(f"\r{line:<{self._width}}")
        self._stream.flush()
        self._width = len(line)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._width:
            self._stream.write(f"\r{'':<{self._width}}\r")
            self._stream.flush()
