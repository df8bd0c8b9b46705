"""Rows of a store for training: batches in a reproducible order, and random access."""

from __future__ import annotations

import logging
import operator
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, SupportsIndex, TypeAlias

import numpy as np
import numpy.typing as npt

from . import _wavemill
from ._arguments import whole
from .errors import UsageError

log = logging.getLogger("wavemill")

#: Arrays of a batch or values of a row, by name.
Arrays: TypeAlias = "dict[str, npt.NDArray[Any]]"

#: Rank and number of ranks of a process that trains alone.
_ALONE = (0, 1)


@dataclass(frozen=True)
class Selection:
    """Which rows are opened: the fields of the native module's ``Selection``."""

    feature: str
    split: str
    target: str | None
    split_rule: str | None
    shuffle_window: int
    skip_damaged: bool
    verify: bool


class Split:
    """A split of a feature, which is opened again in each process that uses it.

    Reader threads and locks do not survive a fork, and neither do open files survive pickling.
    """

    def __init__(self, store: str, version: int, selection: Selection) -> None:
        self.store = store
        self.version = version
        self.selection = selection
        self._opened: _wavemill.OpenSplit | None = None
        self._process = 0

    @property
    def native(self) -> _wavemill.OpenSplit:
        if self._opened is None or self._process != os.getpid():
            self._opened = _wavemill.OpenSplit(self.store, self.version, asdict(self.selection))
            self._process = os.getpid()
        return self._opened

    def __reduce__(self) -> tuple[type[Split], tuple[str, int, Selection]]:
        return Split, (self.store, self.version, self.selection)


class _Rows:
    """Properties that batches and single rows of a split have in common."""

    _split: Split

    @property
    def store(self) -> str:
        """Folder of the store."""
        return self._split.store

    @property
    def version(self) -> int:
        """Version of the store."""
        return self._split.version

    @property
    def feature(self) -> str:
        """Name of the feature, which is also the key of its arrays."""
        return self._split.selection.feature

    @property
    def split(self) -> str:
        """``"training"``, ``"validation"`` or ``"test"``."""
        return self._split.selection.split

    @property
    def target(self) -> str | None:
        """Name of the target, or ``None`` without labels."""
        return self._split.selection.target

    @property
    def classes(self) -> list[str]:
        """Names of the target's classes, in the order of their ids; empty without a target."""
        return self._split.native.classes() or []

    @property
    def class_counts(self) -> list[int]:
        """Number of rows of the split in each class; empty without a target."""
        return self._split.native.class_counts() or []

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Shape of a stored row; ``None`` for the axis on which rows differ in length."""
        return tuple(self._split.native.shape())

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the feature's values, as stored."""
        return np.dtype(self._split.native.dtype())


class Dataset(_Rows):
    """Batches of a split in a reproducible order; made by `wavemill.Store.dataset`, which has the documentation.

    Iterating reads one epoch. The order is a function of seed and epoch: call `set_epoch` before each epoch, or every
    epoch has the same order.
    """

    def __init__(self, split: Split, plan: Mapping[str, Any], rank: int | None, world_size: int | None) -> None:
        self._split = split
        self._ranks = _given_ranks(rank, world_size)
        self._plan = plan
        self._epoch = 0
        # Number of batches of the epoch that were yielded before the next one.
        self._n_yielded = 0
        # Whether the next iterator starts behind these batches.
        self._resumes = False
        # Number of iterators and positions so far: only the latest iterator counts its batches here.
        self._n_positions = 0

    @property
    def epoch(self) -> int:
        """The epoch that iterating reads, from 0."""
        return self._epoch

    @property
    def batch_size(self) -> int:
        """Number of rows of a global batch, over all ranks."""
        return int(self._plan["batch_size"])

    @property
    def rank(self) -> int:
        """Index of this process among those that train together."""
        return (self._known_ranks() or _ALONE)[0]

    @property
    def world_size(self) -> int:
        """Number of processes that train together."""
        return (self._known_ranks() or _ALONE)[1]

    @property
    def n_rows(self) -> int:
        """Number of rows of the split, over all ranks."""
        return len(self._split.native)

    def __len__(self) -> int:
        """Return the number of batches in an epoch, which is the same on every rank."""
        return self._split.native.n_batches(self.batch_size, self._plan["drop_last"])

    def __iter__(self) -> Batches:
        return self._batches(0, 1)

    def set_epoch(self, epoch: int) -> None:
        """Select the epoch that iterating reads, from 0.

        After `load_state_dict`, the epoch of the state continues where it stopped, and any other epoch starts at its
        first batch.

        Examples
        --------
        >>> for epoch in range(10):
        ...     dataset.set_epoch(epoch)
        ...     for batch in dataset:
        ...         train(batch)
        """
        epoch = whole("epoch", epoch, 0)
        if epoch != self._epoch:
            self._move(epoch, 0)

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the epoch, from which `load_state_dict` continues.

        The state is a dict of numbers and texts. ``batch`` is the number of global batches that the latest iterator
        yielded; batches that were read ahead do not count. The state neither depends on the rank nor on the number of
        ranks.

        Examples
        --------
        >>> torch.save({"model": model.state_dict(), "data": dataset.state_dict()}, "checkpoint.pt")
        """
        return {"epoch": self._epoch, "batch": self._n_yielded, **self._identity()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state: the next iterator starts at the batch after the last one that was yielded.

        The number of ranks may be another one. Everything else that determines the order must be equal.

        Raises
        ------
        UsageError
            The state is of another store, or of a dataset with another order.

        Examples
        --------
        >>> dataset.load_state_dict(torch.load("checkpoint.pt")["data"])
        """
        for key, here in self._identity().items():
            if key not in state:
                raise UsageError(f"state: it has no {key}, so it is not a state of a wavemill dataset")
            if state[key] != here:
                raise UsageError(f"state: its {key} is {state[key]!r}, that of this dataset {here!r}")

        epoch = whole("state['epoch']", state.get("epoch"), 0)
        n_yielded = whole("state['batch']", state.get("batch"), 0)
        self._move(epoch, n_yielded)
        self._resumes = True

    def __getstate__(self) -> dict[str, Any]:
        # A worker does not know the ranks of its loader. But a process that trains may be given the dataset by one
        # without ranks, and knows its own ones later.
        return {**self.__dict__, "_ranks": self._known_ranks()}

    def __repr__(self) -> str:
        rows = f"{self.n_rows} rows in {len(self)} batches of {self.batch_size}"
        return f"<wavemill.Dataset {self.feature}, {self.split}: {rows}, rank {self.rank} of {self.world_size}>"

    def _known_ranks(self) -> tuple[int, int] | None:
        """Return rank and number of ranks; ``None`` if this process does not know of other ranks."""
        return self._ranks or _ranks_of_environment()

    def _batches(self, worker: int, n_workers: int) -> Batches:
        """Start the batches of one of several workers, which take turns."""
        first = self._n_yielded if self._resumes else 0
        plan = {
            **self._plan,
            "epoch": self._epoch,
            "rank": self.rank,
            "world_size": self.world_size,
            "first_batch": first + worker,
            "stride": n_workers,
        }
        native = self._split.native.start(plan)
        self._move(self._epoch, first)
        return Batches(self, native, n_workers)

    def _move(self, epoch: int, n_yielded: int) -> None:
        """Set the position. Iterators that are still in use no longer change it."""
        self._epoch = epoch
        self._n_yielded = n_yielded
        self._n_positions += 1
        self._resumes = False

    def _identity(self) -> dict[str, Any]:
        """Return everything that determines the order of the rows of an epoch."""
        selection = self._split.selection
        return {
            "manifest": self._split.native.manifest_hash(),
            "feature": selection.feature,
            "split": selection.split,
            "split_rule": selection.split_rule,
            "shuffle_window": selection.shuffle_window,
            **{key: self._plan[key] for key in ("shuffle", "seed", "batch_size", "drop_last", "buckets")},
            # Less than all rows of the split if damaged files are left out; which ones decides on the order.
            "rows": self.n_rows,
            "lost": self._split.native.lost_paths(),
        }


class Batches(Iterator[Arrays]):
    """The batches of an epoch, which threads read ahead. `close` ends the threads, as dropping the iterator does."""

    def __init__(self, dataset: Dataset, native: _wavemill.Batches, stride: int) -> None:
        self._dataset = dataset
        self._native = native
        self._stride = stride
        self._position = dataset._n_positions

    def __next__(self) -> Arrays:
        read = self._native.next_batch()
        if read is None:
            raise StopIteration
        if self._dataset._n_positions == self._position:
            self._dataset._n_yielded += self._stride
        arrays, damaged = read
        for problem in damaged:
            log.warning("a row is left out: %s", problem)
        return arrays

    def close(self) -> None:
        """Stop reading."""
        self._native.close()


class MapDataset(_Rows):
    """Rows of a split by index; made by `wavemill.Store.map`, which has the documentation."""

    def __init__(self, split: Split, *, crop_frames: int | None, seed: int) -> None:
        self._split = split
        self._crop_frames = crop_frames
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Select the epoch for which crops are drawn, from 0."""
        self._epoch = whole("epoch", epoch, 0)

    def __len__(self) -> int:
        return len(self._split.native)

    def __iter__(self) -> Iterator[Arrays]:
        for index in range(len(self)):
            yield self[index]

    def __getitem__(self, index: SupportsIndex | slice | Sequence[SupportsIndex] | npt.NDArray[Any]) -> Arrays:
        """Return a row as a dict of its arrays and numbers or, for a slice or several indices, a batch of rows."""
        if isinstance(index, slice):
            return self._batch(range(*index.indices(len(self))))
        if isinstance(index, Sequence) or (isinstance(index, np.ndarray) and index.ndim > 0):
            return self._batch(index)
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[SupportsIndex]) -> list[Arrays]:
        """Return a dict for each row, in this order. Tensors are views of one array."""
        batch = self._batch(indices)
        rows: list[Arrays] = []
        for place in range(len(indices)):
            row = {name: values[place] for name, values in batch.items()}
            if "frames" in row:
                row[self.feature] = self._without_padding(row)
            rows.append(row)
        return rows

    def _batch(self, indices: Iterable[SupportsIndex]) -> Arrays:
        n_rows = len(self)
        places = []
        for index in indices:
            place = operator.index(index)
            if not -n_rows <= place < n_rows:
                raise IndexError(f"index {place}: the {self.split} split of {self.feature} has {n_rows} rows")
            places.append(place % n_rows)
        arrays, _ = self._split.native.read(places, self._crop_frames, self._seed, self._epoch)
        return arrays

    def _without_padding(self, row: Arrays) -> npt.NDArray[Any]:
        tensor = row[self.feature]
        if self._crop_frames is not None:
            return tensor
        axis = self.shape.index(None)
        return tensor[(slice(None),) * axis + (slice(int(row["frames"])),)]

    def __repr__(self) -> str:
        return f"<wavemill.MapDataset {self.feature}, {self.split}: {len(self)} rows>"


def opened_split(store: str, version: int, selection: Selection, crop_frames: int | None, buckets: int) -> Split:
    """Open a split, which finds errors in its arguments."""
    split = Split(store, version, selection)
    split.native.check(crop_frames, buckets)
    for warning in split.native.warnings():
        log.info("%s", warning)
    return split


def _given_ranks(rank: int | None, world_size: int | None) -> tuple[int, int] | None:
    """Return rank and number of ranks if the arguments have them."""
    if rank is None and world_size is None:
        return None
    if rank is None or world_size is None:
        raise UsageError("rank, world_size: give both or none of them")
    world_size = whole("world_size", world_size, 1)
    return whole("rank", rank, 0, world_size - 1), world_size


def _ranks_of_environment() -> tuple[int, int] | None:
    """Return rank and number of ranks of torch.distributed or, if it is not initialised, of torchrun's variables.

    ``None`` without either.
    """
    torch = sys.modules.get("torch")
    # While torch is imported, it has no attribute `distributed` yet.
    distributed = getattr(torch, "distributed", None)
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()

    rank, world_size = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    if rank is None or world_size is None:
        return None
    if not (rank.isdecimal() and world_size.isdecimal() and int(rank) < int(world_size)):
        raise UsageError(f"RANK={rank}, WORLD_SIZE={world_size}: the variables are not a rank and a number of ranks")
    return int(rank), int(world_size)
