"""A version of a feature store."""

from __future__ import annotations

import contextlib
import functools
import html
import importlib.metadata
import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from . import _dataset, _evaluate, _wavemill
from ._arguments import argument, checked, whole
from ._dataset import Selection, opened_split
from .errors import UsageError

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

#: Default memory limit of a query, in bytes.
_QUERY_BYTES = 1 << 30


class Result:
    """The rows of a query, computed while they are taken; made by `Store.sql`.

    Anything that reads Arrow streams takes it, as often as needed, without copying tensors: ``polars.DataFrame(result)``,
    ``pyarrow.table(result)``, ``pandas.DataFrame.from_arrow(result)``, ``datafusion``'s ``from_arrow(result)``, and in
    DuckDB ``duckdb.sql("FROM result")``, where 16-bit tensors must be lists. Each of them runs the query again.

    Errors while the rows are computed are those of `Store.sql` in the methods of this class. Another reader raises its
    own exception, with the same message.
    """

    def __init__(self, start: Callable[[], tuple[Any, Any, _wavemill.QueryFailure]]) -> None:
        self._start = start
        # A wrong query is an error of `Store.sql`, not of a reader.
        self._stream, self._schema, self._failure = start()

    def __arrow_c_schema__(self) -> object:
        return self._schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        if self._stream is None:
            self._stream, _, self._failure = self._start()
        stream, self._stream = self._stream, None
        return stream.__arrow_c_stream__(requested_schema)

    def to_arrow(self) -> pyarrow.Table:
        """Return the rows as a table of pyarrow, which has to be installed."""
        import pyarrow

        with self._raising_its_own():
            return pyarrow.table(self)

    def to_pandas(self) -> pandas.DataFrame:
        """Return the rows as a DataFrame of pandas; pandas and pyarrow have to be installed."""
        return self.to_arrow().to_pandas()

    def to_polars(self) -> polars.DataFrame:
        """Return the rows as a DataFrame of Polars, which has to be installed."""
        import polars

        with self._raising_its_own():
            return polars.DataFrame(self)

    @contextlib.contextmanager
    def _raising_its_own(self) -> Iterator[None]:
        """Raise the error of the query instead of that of its reader, which has only the message."""
        try:
            yield
        except BaseException:
            # The panics of some versions of Polars are no `Exception`.
            self._failure.check()
            raise


class Table:
    """A table for the sessions of the package ``datafusion``; made by `Store.table`."""

    def __init__(self, native: _wavemill.OpenTable) -> None:
        self._native = native

    def __datafusion_table_provider__(self, session: Any) -> object:
        # The memory that is shared has another layout in other versions.
        found = importlib.metadata.version("datafusion")
        if found.split(".")[0] != _wavemill.DATAFUSION_VERSION.split(".")[0]:
            raise UsageError(f"datafusion {found}: tables need the version {_wavemill.DATAFUSION_VERSION}; use Store.sql")
        # A schema gives the codec itself instead of a session.
        method = getattr(session, "__datafusion_logical_extension_codec__", None)
        return self._native.provider(session if method is None else method())


def absolute(place: str | os.PathLike[str]) -> str:
    """Return the absolute path of a store, or its address unchanged."""
    text = os.fspath(place)
    return text if "://" in text else os.path.abspath(text)


@checked
def open_store(path: str | os.PathLike[str], version: int | str = "latest") -> Store:
    """Open a version of a store.

    Parameters
    ----------
    path : path
        Folder of the store, or its address such as ``"s3://bucket/store"``.
    version : int or str
        Number or tag of a committed version, or ``"latest"``.

    Raises
    ------
    UsageError
        There is no such store or version, or a later wavemill wrote it.

    Examples
    --------
    >>> store = wm.open("store")
    """
    # A relative path would be another one after a change of the working directory.
    root = absolute(path)
    return Store(root, _wavemill.resolve_version(root, str(version)))


def object_store_traffic() -> dict[str, float]:
    """Return what this process has read from object stores so far.

    Returns
    -------
    dict
        ``bytes``, the number of received bytes, and ``waited_s``, the seconds in which at least one request was not
        answered yet. Requests of copies that are made in the background are not waited for.
    """
    received, waited_s = _wavemill.traffic()
    return {"bytes": received, "waited_s": waited_s}


def _check_limits(memory_limit: int, threads: int | None) -> None:
    whole("memory_limit", memory_limit, 128 << 20)
    if threads is not None:
        whole("threads", threads, 1)


@checked
class Store:
    """A committed version of a store, which never changes; made by `wavemill.open`."""

    def __init__(self, path: str, version: int) -> None:
        self._path = path
        self._version = version

    @property
    def path(self) -> str:
        """Folder of the store."""
        return self._path

    @property
    def version(self) -> int:
        """Number of the version."""
        return self._version

    def info(self) -> dict[str, Any]:
        """Return the manifest of the version, as ``wavemill info --json`` prints it.

        Examples
        --------
        >>> [feature["name"] for feature in store.info()["features"]]
        ['log_mel']
        """
        return dict(self._manifest)

    def classes(self, target: str) -> list[str]:
        """Return the names of a target's classes, in the order of their ids.

        Examples
        --------
        >>> store.classes("genre")
        ['Electronic', 'Folk', 'Hip-Hop']
        """
        if target == "genres_all":
            # All genres of the tracks, which are not numbered in the manifest.
            first = self._manifest["features"][0]["name"]
            return self.map(first, target=target, verify=False).classes
        return list(self._named("target", self._manifest["targets"], target)["classes"])

    def stats(self, feature: str) -> dict[str, Any]:
        """Return statistics of a feature's training rows: mean and deviation of each band, and the number of values.

        Examples
        --------
        >>> store.stats("log_mel")["mean"][:2]
        [0.41, 0.43]
        """
        self._named("feature", self._manifest["features"], feature)
        return dict(self._manifest["stats"][feature])

    @property
    def rejects(self) -> Result:
        """The inputs that have no rows, with reason, detail and byte offset."""
        return self.sql("SELECT * FROM rejects")

    def versions(self) -> list[dict[str, Any]]:
        """Return the versions of the store, as ``wavemill info --versions --json`` prints them."""
        listed: list[dict[str, Any]] = json.loads(_wavemill.versions(self._path))
        return listed

    def diff(self, first: int | str, second: int | str | None = None, *, rows: bool = False) -> dict[str, Any]:
        """Return the differences between two versions, as ``wavemill diff --json`` prints them.

        Parameters
        ----------
        first, second : int or str
            Numbers or tags; ``second`` is this version by default.
        rows : bool
            Whether all tracks that differ are listed, not only the first of each kind.
        """
        other = self._version if second is None else second
        compared: dict[str, Any] = json.loads(_wavemill.diff(self._path, str(first), str(other), rows))
        return compared

    def sql(self, query: str, *, memory_limit: int = _QUERY_BYTES, threads: int | None = None) -> Result:
        """Run a query on the version's tables and features; see docs/sql.md for tables and functions.

        Parameters
        ----------
        query : str
            One statement, which may only read.
        memory_limit : int
            Memory limit in bytes; data beyond it are spilled to the temporary folder.
        threads : int
            Number of threads; by default one per processor.

        Raises
        ------
        UsageError
            The query is wrong; the message shows where.
        DamagedStoreError
            A file that the query reads is missing or has other bytes.

        Examples
        --------
        >>> store.sql("SELECT track_genre_top, count(*) AS n FROM tracks GROUP BY 1").to_pandas()
        """
        _check_limits(memory_limit, threads)
        return Result(lambda: _wavemill.query(self._path, self._version, query, memory_limit, threads))

    def table(self, name: str, *, memory_limit: int = _QUERY_BYTES, threads: int | None = None) -> Table:
        """Return a table that a session of the package ``datafusion`` can register. Only the columns and rows that
        its query needs are read, while they are taken.

        Parameters
        ----------
        name : str
            Name of the table, such as ``"tracks"``, ``"features_log_mel"`` or ``"raw.genres"``.
        memory_limit, threads : int
            Limits of each scan, as in `sql`.

        Raises
        ------
        UsageError
            There is no such table; or, when it is registered, the package has another major version.
        DamagedStoreError
            The table's file is missing or has other bytes.

        Examples
        --------
        >>> session = datafusion.SessionContext()
        >>> session.register_table("tracks", store.table("tracks"))
        >>> session.sql("SELECT count(*) FROM tracks")
        """
        _check_limits(memory_limit, threads)
        return Table(_wavemill.OpenTable(self._path, self._version, name, memory_limit, threads))

    @functools.cached_property
    def _manifest(self) -> dict[str, Any]:
        manifest: dict[str, Any] = json.loads(_wavemill.manifest(self._path, self._version))
        return manifest

    def _named(self, kind: str, entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
        for entry in entries:
            if entry["name"] == name:
                return entry
        there = ", ".join(entry["name"] for entry in entries)
        raise UsageError(f"{kind}: the store has no {name}; it has {there}")

    def __repr__(self) -> str:
        return f"<wavemill.Store {self._path!r}, version {self._version}>"

    def _repr_html_(self) -> str:
        rows = [("store", self._path), ("version", str(self._version)), ("recipe", self._manifest["recipe"]["name"])]
        for feature in self._manifest["features"]:
            shape = " × ".join("…" if size is None else str(size) for size in feature["shape"])
            rows.append((feature["name"], f"{feature['dtype']} [{shape}]"))
        for target in self._manifest["targets"]:
            rows.append((target["name"], f"{len(target['classes'])} classes"))
        cells = "".join(f"<tr><th>{html.escape(name)}</th><td>{html.escape(text)}</td></tr>" for name, text in rows)
        return f"<table>{cells}</table>"

    def dataset(
        self,
        feature: str,
        *,
        split: str = "training",
        target: str | None = "genre",
        batch_size: int = 64,
        seed: int = 0,
        shuffle: bool | None = None,
        drop_last: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
        crop_frames: int | None = None,
        buckets: int | None = None,
        split_rule: str | None = None,
        shuffle_window: int = 16,
        skip_damaged: bool = False,
        verify: bool = True,
        readers: int = 2,
        prefetch_batches: int = 4,
    ) -> _dataset.Dataset:
        """Read a split of a feature in batches, in exactly the order of ``wavemill train``.

        Iterating over the result yields a dict of numpy arrays per batch of n rows. Threads without the GIL read them
        ahead, and the arrays are not copies.

        ============ =========================== ============================================================
        key          type and shape              content
        ============ =========================== ============================================================
        the feature  as stored, ``(n, …)``       the rows, such as float16 of shape ``(64, 128, 1292)``
        ``label``    int64, ``(n,)``             class ids, -1 without a label; names are in ``data.classes``
        ``labels``   float32, ``(n, classes)``   1 for each class of the row; for ``"genres_all"``, instead of ``label``
        ``frames``   int64, ``(n,)``             frames before the padding, if stored rows differ in length
        ``key``      uint64, ``(n,)``            identifies a row in every version of the store
        ``track_id`` int64, ``(n,)``             track of the row
        ``segment``  int64, ``(n,)``             part of the clip, from 0
        ============ =========================== ============================================================

        Parameters
        ----------
        feature : str
            Name of a feature of the store.
        split : str
            ``"training"``, ``"validation"`` or ``"test"``.
        target : str or None
            Name of a target of the store, or ``"genres_all"`` for several labels per row; ``None`` reads no labels.
        batch_size : int
            Rows of a global batch, over all ranks. Each rank gets its part of them.
        seed : int
            Determines the order, together with the epoch.
        shuffle : bool
            Whether rows are shuffled; by default only those of the training split.
        drop_last : bool
            Whether the last batch is left out if it is smaller. Otherwise a rank may get none of its rows.
        rank, world_size : int
            Index of this process and number of processes that train together; by default those of torch.distributed or
            of torchrun's variables, otherwise 0 and 1.
        crop_frames : int
            Number of frames of a random crop of each row, drawn from seed, epoch and row. Shorter rows are padded with
            zeros. By default rows are whole; those that differ in length are padded to the longest row of the global
            batch.
        buckets : int
            Number of buckets of similar length, from which batches are formed; for rows that differ in length.
        split_rule : str
            Another split rule of the store than the recipe's.
        shuffle_window : int
            Number of row groups whose rows are shuffled together.
        skip_damaged : bool
            Whether damaged rows are left out, with a warning, instead of ending the epoch.
        verify : bool
            Whether each file is compared with its hash before its first row is read.
        readers, prefetch_batches : int
            Number of reader threads, and of batches that they read ahead.

        Raises
        ------
        UsageError
            The store has no such feature, target, split or rule; the message names those that it has.
        DamagedStoreError
            A file of the feature is missing or has other bytes.

        Examples
        --------
        >>> data = store.dataset("log_mel", batch_size=64)
        >>> for batch in data:
        ...     batch["log_mel"].shape, batch["label"]
        """
        selection = Selection(
            feature=feature,
            split=split,
            target=target,
            split_rule=split_rule,
            shuffle_window=whole("shuffle_window", shuffle_window, 1),
            skip_damaged=skip_damaged,
            verify=verify,
        )
        crop_frames = None if crop_frames is None else whole("crop_frames", crop_frames, 1)
        n_buckets = 1 if buckets is None else whole("buckets", buckets, 1)
        plan = {
            "batch_size": whole("batch_size", batch_size, 1),
            "seed": whole("seed", seed, 0),
            "shuffle": split == "training" if shuffle is None else shuffle,
            "drop_last": drop_last,
            "crop_frames": crop_frames,
            "buckets": n_buckets,
            "readers": whole("readers", readers, 1, 64),
            "prefetch_batches": whole("prefetch_batches", prefetch_batches, 1, 1024),
        }
        opened = opened_split(self._path, self._version, selection, crop_frames, n_buckets)
        return _dataset.Dataset(opened, plan, rank, world_size)

    def map(
        self,
        feature: str,
        *,
        split: str = "training",
        target: str | None = "genre",
        crop_frames: int | None = None,
        seed: int = 0,
        split_rule: str | None = None,
        verify: bool = True,
    ) -> _dataset.MapDataset:
        """Read single rows of a split by index, in the order of the files.

        The result has ``len``, ``[index]`` and ``__getitems__``. A row is a dict with the keys of `dataset`: an array
        of the feature, and numbers. ``rows[[3, 1]]`` and ``rows[:8]`` are batches. Arguments and errors are those of
        `dataset`.

        Examples
        --------
        >>> rows = store.map("log_mel", split="test")
        >>> rows[0]["log_mel"].shape
        (128, 1292)
        """
        selection = Selection(
            feature=feature,
            split=split,
            target=target,
            split_rule=split_rule,
            shuffle_window=1,
            skip_damaged=False,
            verify=verify,
        )
        crop_frames = None if crop_frames is None else whole("crop_frames", crop_frames, 1)
        opened = opened_split(self._path, self._version, selection, crop_frames, 1)
        return _dataset.MapDataset(opened, crop_frames=crop_frames, seed=whole("seed", seed, 0))

    def evaluate(
        self,
        predictions: Any,
        target: str = "genre",
        split: str = "test",
        *,
        feature: str | None = None,
        seed: int = 0,
        logits: bool = False,
        classes: Sequence[str] | None = None,
        trained_on: int | str | None = None,
        split_rule: str | None = None,
        name: str = "predictions",
    ) -> _evaluate.Evaluation:
        """Compute the scores of predictions for a split, as ``wavemill train eval`` does.

        Parameters
        ----------
        predictions : array, table or path
            Probabilities of shape (rows, classes) for the rows of the split in the order of ``dataset(…,
            shuffle=False)``; or a table (any Arrow data, a DataFrame, a dict of columns) or Parquet file whose columns
            identify the rows.
        target, split : str
            Target and split that were predicted.
        feature : str
            Feature whose rows were predicted; by default the store's first.
        seed : int
            Seed of the resamples for the intervals.
        logits : bool
            Whether the values are logits instead of probabilities.
        classes : list of str
            Names of the columns' classes, if they differ in order from the store's.
        trained_on : int or str
            Version on which the model was trained, to find leaks; by default this version.
        split_rule : str
            Another split rule of the store than the recipe's.
        name : str
            Name of the predictions on a page.

        Raises
        ------
        UsageError
            The predictions do not fit the rows; the message names the row and the remedy.

        Examples
        --------
        >>> print(store.evaluate(probabilities, target="genre", split="test"))
        """
        settings = {
            "name": name,
            "target": target,
            "split": split,
            "split_rule": split_rule,
            "feature": feature,
            "classes": None if classes is None else [argument("classes", one, "str") for one in classes],
            "trained_on": None if trained_on is None else str(trained_on),
            "logits": logits,
            "seed": whole("seed", seed, 0),
        }
        return _evaluate.evaluated(self._path, self._version, predictions, settings)
