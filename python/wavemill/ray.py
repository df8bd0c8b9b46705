"""Building stores on a Ray cluster, and features in a Ray Data pipeline. Needs ``ray`` (``pip install 'ray[data]'``).

Ray places and repeats the tasks, and adds and removes nodes. All nodes must see the store and the audio.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Mapping
from typing import Any

import ray
import ray.data

from . import _build
from ._arguments import checked
from ._store import absolute
from .errors import Error, UsageError, from_exit_code

log = logging.getLogger("wavemill")

#: Options of `wavemill.build` that each worker needs, because they concern its machine.
_MACHINE_OPTIONS = ("isa", "backend", "devices", "memory_limit")


#: Exit codes of errors that may not recur: a failing disk or a folder that is not mounted on a node, no space, a store
#: that another process writes.
_TRANSIENT = (1, 5, 7)
#: Seconds that tasks wait for the store's lock.
_WAIT_S = 60


class _TransientError(Exception):
    """An error after which the same task may succeed, on this node or another one: exit code and message."""


@checked
def build(
    store: str | os.PathLike[str],
    *,
    recipe: str | os.PathLike[str],
    audio: str | os.PathLike[str],
    metadata: str | os.PathLike[str] | None = None,
    set: Mapping[str, Any] | None = None,
    parts: int | None = None,
    cpus: int = 1,
    retries: int = 3,
    address: str | None = None,
    progress: bool = True,
    **options: Any,
) -> dict[str, Any]:
    """Build a version of a store on a Ray cluster: plan, write the parts as Ray tasks, commit.

    The store is the same as that of `wavemill.build`, byte for byte. If workers, nodes or this process are lost, the
    same call continues where it stopped.

    Parameters
    ----------
    store, recipe, audio, metadata, set
        As for `wavemill.build`. Relative paths are those of this process's folder.
    parts : int
        Number of tasks; by default four per CPU of the cluster divided by ``cpus``, and at most one per shard.
    cpus : int
        CPUs and threads of each task.
    retries : int
        How often Ray repeats a task after a failure that may not recur, such as a full disk or a lost node.
    address : str
        Address of the cluster for ``ray.init``, unless Ray is initialized already; by default Ray starts on this machine.
    progress : bool
        Whether to print a line for each part that is finished.
    **options
        Other options of `wavemill.build`, such as ``new_version=True`` and ``isa="scalar"``.

    Returns
    -------
    dict
        The report, as that of `wavemill.build`.

    Raises
    ------
    UsageError, OtherPlanError, NoSpaceError, StoreInUseError, DamagedStoreError, Error
        No version was committed; the message says why. Finished parts are kept.

    Examples
    --------
    >>> import wavemill.ray
    >>> report = wavemill.ray.build("/shared/store", recipe="fma-large", metadata="/shared/fma_metadata.zip",
    ...                             audio="/shared/fma_large", address="auto")
    """
    if not ray.is_initialized():
        ray.init(address=address, log_to_driver=False)
    # Tasks run in other folders.
    paths = {"audio": absolute(audio)}
    if metadata is not None:
        paths["metadata"] = absolute(metadata)
    if "sides" in options:
        paths["sides"] = absolute(options["sides"])
    recipe = os.path.abspath(recipe) if os.path.exists(recipe) else recipe
    store = absolute(store)
    machine = {name: options[name] for name in _MACHINE_OPTIONS if name in options}

    # The cluster's machines see the store and the audio; this one may not.
    # Tasks of a lost driver may hold the store's lock for a while.
    planning = {"wait": _WAIT_S, **options, **paths, "recipe": recipe, "set": set, "progress": False}
    plan = _result(_task(cpus, retries, _build.plan).remote(store, **planning))
    _log_warnings(plan)
    if plan["nothing_to_do"]:
        report: dict[str, Any] = _result(_task(cpus, retries, _build.build).remote(store, **planning))
        return report

    if parts is None:
        parts = 4 * int(ray.cluster_resources().get("CPU", 1)) // cpus
    parts = max(1, min(parts, plan["shards"]))
    work = _task(cpus, retries, _build.work)
    given = {"threads": cpus, "progress": False, "wait": _WAIT_S, **machine}
    _wait([work.remote(store, plan["plan_id"], f"{number}/{parts}", **given) for number in range(1, parts + 1)], progress)
    report = _result(_task(cpus, retries, _build.commit).remote(store, plan["plan_id"], wait=_WAIT_S))
    _log_warnings(report)
    return report


def _log_warnings(report: Mapping[str, Any]) -> None:
    """Log the warnings of a task, whose own log is on another machine."""
    for warning in report["warnings"]:
        log.warning("%s", warning)


def _task(cpus: int, retries: int, function: Any) -> Any:
    """Return a Ray task that calls a function of the package."""

    def call(*args: Any, **options: Any) -> Any:
        try:
            return function(*args, **options)
        except Error as error:
            if error.exit_code in _TRANSIENT:
                raise _TransientError(error.exit_code, f"{socket.gethostname()}: {error}") from error
            raise

    return ray.remote(num_cpus=cpus, max_retries=retries, retry_exceptions=[_TransientError])(call)


def _wait(tasks: list[Any], progress: bool) -> None:
    """Wait for all tasks, and raise the error of the first one that failed when the others have ended."""
    failed: Exception | None = None
    left, total = tasks, len(tasks)
    while left:
        done, left = ray.wait(left)
        for task in done:
            try:
                report = _result(task)
            except Error as error:
                failed = failed or error
                continue
            _log_warnings(report)
            if progress:
                print(f"wavemill: {total - len(left)} of {total} parts written", file=sys.stderr)
    if failed:
        raise failed


def _result(task: Any) -> Any:
    """Return the result of a task, or raise the error of wavemill that ended it."""
    try:
        return ray.get(task)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, Error):
            raise cause from error
        if isinstance(cause, _TransientError):
            raise from_exit_code(*cause.args) from error
        raise
    except ray.exceptions.RayError as error:
        raise Error(f"Ray lost a task: {error}; the same call continues") from error


@checked
def map_batches(
    dataset: ray.data.Dataset,
    recipe: str | os.PathLike[str] = "fma-large",
    *,
    feature: str | None = None,
    set: Mapping[str, Any] | None = None,
    column: str = "path",
    cpus: int = 1,
    **options: Any,
) -> ray.data.Dataset:
    """Compute a recipe's feature of the files of a Ray dataset, without a store.

    Parameters
    ----------
    dataset : ray.data.Dataset
        Rows with paths of audio files, which all nodes must be able to open.
    recipe, feature, set
        As for `wavemill.extract`.
    column : str
        Name of the column of paths.
    cpus : int
        CPUs and threads of each worker.
    **options
        Other arguments of ``ray.data.Dataset.map_batches``, such as ``concurrency=4`` or ``batch_size=64``.

    Returns
    -------
    ray.data.Dataset
        The rows of `wavemill.extract`: ``clip_key`` (the path), ``segment``, the feature, … A file that cannot be
        decoded has no row, and is logged as a warning on its worker.

    Examples
    --------
    >>> paths = ray.data.from_items([{"path": "a.mp3"}, {"path": "b.mp3"}])
    >>> rows = wavemill.ray.map_batches(paths, "fma-large", feature="log_mel", concurrency=2)
    """
    compute = _Features(column, {"recipe": recipe, "feature": feature, "set": set, "threads": cpus})
    return dataset.map_batches(compute, num_cpus=cpus, **options)


class _Features:
    """Computes the rows of a batch of paths."""

    def __init__(self, column: str, options: Mapping[str, Any]) -> None:
        self._column = column
        self._options = options

    def __call__(self, batch: Mapping[str, Any]) -> Any:
        import pyarrow

        if self._column not in batch:
            raise UsageError(f"no column {self._column!r} in the batch, which has {', '.join(batch)}")
        extracted = _build.extract(list(batch[self._column]), **self._options)
        for reject in pyarrow.table(extracted.rejects).to_pylist():
            log.warning("%s: %s", reject["clip_key"], reject["problem"])
        return pyarrow.table(extracted.rows)
