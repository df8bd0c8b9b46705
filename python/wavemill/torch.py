"""Datasets of wavemill as datasets of PyTorch.

>>> import torch, wavemill as wm, wavemill.torch
>>> store = wm.open("store")
>>> data = wavemill.torch.IterableDataset(store.dataset("log_mel", batch_size=64))
>>> for epoch in range(10):
...     data.set_epoch(epoch)
...     for batch in torch.utils.data.DataLoader(data, batch_size=None):
...         logits = model(batch["log_mel"].float())
...         loss = torch.nn.functional.cross_entropy(logits, batch["label"], ignore_index=-1)

Importing this module imports torch.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, SupportsIndex, TypeAlias

import numpy as np
import torch
import torch.utils.data

from . import _dataset

__all__ = ["Dataset", "IterableDataset"]

#: Stands for a pass over a loader if none has begun. Others are numbers that the loader draws, from 0.
_NO_PASS = -1
#: Tensors of a batch or a row, by name.
Tensors: TypeAlias = "dict[str, torch.Tensor]"


class IterableDataset(torch.utils.data.IterableDataset[Tensors]):
    """The batches of a `wavemill.Dataset` as dicts of tensors, for a ``DataLoader`` with ``batch_size=None``.

    Parameters
    ----------
    dataset : wavemill.Dataset
        The result of `wavemill.Store.dataset`.
    pin_memory : bool, default False
        Copies tensors to page-locked memory, so that ``tensor.to("cuda", non_blocking=True)`` does not wait. A
        ``DataLoader(…, pin_memory=True)`` does the same on a thread of its own.

    Notes
    -----
    Keys and shapes are those of `wavemill.Dataset`, without copies of its arrays. ``key`` has the type int64, because
    torch supports uint64 only in few functions: ``batch["key"].numpy().view("uint64")`` are the keys.

    The dataset reads with threads of its own and is fast without workers. With ``num_workers``, each worker opens the
    store again, the workers take turns at the batches, and the order stays the same. Workers may be forked or spawned.

    Each rank reads its part of every batch, so a ``DistributedSampler`` is neither needed nor possible. Lightning and
    accelerate must not divide the batches again: do not pass the ``DataLoader`` to ``accelerator.prepare``.

    ``state_dict`` and ``load_state_dict`` continue within an epoch, for one pass over the loader; torchdata's ``StatefulDataLoader`` calls them. A
    plain ``DataLoader`` with workers reads ahead in other processes, whose position it does not know: set the number
    of batches that were used instead, ``{**data.state_dict(), "batch": n}``.

    Examples
    --------
    >>> data = wavemill.torch.IterableDataset(store.dataset("log_mel"))
    >>> loader = torch.utils.data.DataLoader(data, batch_size=None)
    >>> next(iter(loader))["log_mel"].shape
    torch.Size([64, 128, 1292])
    """

    def __init__(self, dataset: _dataset.Dataset, *, pin_memory: bool = False) -> None:
        super().__init__()
        self.dataset = dataset
        self._pin_memory = pin_memory
        # The process that made `_position`.
        self._process = 0
        self._share()
        _DATASETS.add(self)

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[Tensors]:
        worker = torch.utils.data.get_worker_info()
        if worker is None:
            self._forget_used()
            return _TensorBatches(self.dataset._batches(0, 1), self._pin_memory)

        self._follow(worker.seed - worker.id)
        # CUDA cannot be used in a forked worker, so only the process of the loader pins memory.
        return _TensorBatches(self.dataset._batches(worker.id, worker.num_workers), False)

    def set_epoch(self, epoch: int) -> None:
        """Select the epoch that iterating reads; see `wavemill.Dataset.set_epoch`.

        Call this method instead of that of the wrapped dataset if the loader has ``persistent_workers``.
        """
        self._forget_used()
        self.dataset.set_epoch(epoch)
        self._share()

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the epoch; see `wavemill.Dataset.state_dict`."""
        return self.dataset.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state; see `wavemill.Dataset.load_state_dict`."""
        self.dataset.load_state_dict(state)
        self._share()

    def _share(self) -> None:
        """Pass the position on to workers. That of a worker is its own."""
        if torch.utils.data.get_worker_info() is not None:
            return
        if self._process != os.getpid():
            # Workers have copies of this object, but share this tensor: the epoch, the number of its batches to skip,
            # the number of this position, and the pass over a loader that has begun there.
            self._position = torch.zeros(4, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]
            self._process = os.getpid()
        data = self.dataset
        self._number = data._n_positions
        first = data._n_yielded if data._resumes else 0
        self._position.copy_(torch.tensor([data.epoch, first, self._number, _NO_PASS]))

    def _own(self) -> None:
        """Leave the position to the process that passed this object on, which may be of another rank."""
        if self._process != os.getpid():
            self._share()

    def __getstate__(self) -> dict[str, Any]:
        # The object may be passed on to a worker.
        self._own()
        return {**self.__dict__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        _DATASETS.add(self)

    def _forget_used(self) -> None:
        """Start at the first batch of the epoch if workers have begun at the position of a state."""
        self._own()
        number, begun_by = self._position[2:].tolist()
        if number == self.dataset._n_positions and begun_by != _NO_PASS:
            self.dataset._move(self.dataset.epoch, 0)

    def _follow(self, number: int) -> None:
        """Take the position of the loader's process in a worker of pass `number`. Only the first pass continues there."""
        epoch, first, position, begun_by = self._position.tolist()
        if position != self._number:
            # The worker is older than the position.
            self._number = position
            self.dataset._move(epoch, first)
            self.dataset._resumes = True
        elif begun_by != number:
            self._forget_used()
        if begun_by == _NO_PASS:
            self._position[3] = number

    def __repr__(self) -> str:
        return f"<wavemill.torch.IterableDataset of {self.dataset!r}>"


#: All datasets of this process.
_DATASETS: weakref.WeakSet[IterableDataset] = weakref.WeakSet()


def _own_positions() -> None:
    """Give each dataset a position of this process before a fork: loaders start workers without calling a dataset."""
    for data in list(_DATASETS):
        data._own()


os.register_at_fork(before=_own_positions)


class Dataset(torch.utils.data.Dataset[Tensors]):
    """The rows of a `wavemill.MapDataset` as dicts of tensors, for a ``DataLoader`` with a sampler of its own.

    Parameters
    ----------
    rows : wavemill.MapDataset
        The result of `wavemill.Store.map`. Rows that differ in length need its ``crop_frames``, or a ``collate_fn``.

    Notes
    -----
    Reading rows at random is slower than reading batches with `IterableDataset`, which reads ahead and in an order that
    follows the files. ``key`` has the type int64, as in `IterableDataset`.

    Examples
    --------
    >>> rows = wavemill.torch.Dataset(store.map("log_mel"))
    >>> loader = torch.utils.data.DataLoader(rows, batch_size=64, shuffle=True)
    """

    def __init__(self, rows: _dataset.MapDataset) -> None:
        super().__init__()
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: SupportsIndex) -> Tensors:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[SupportsIndex]) -> list[Tensors]:
        return [_tensors(row) for row in self.rows.__getitems__(indices)]

    def __repr__(self) -> str:
        return f"<wavemill.torch.Dataset of {self.rows!r}>"


class _TensorBatches(Iterator[Tensors]):
    """The batches of an epoch as tensors."""

    def __init__(self, batches: _dataset.Batches, pin_memory: bool) -> None:
        self._batches = batches
        self._pin_memory = pin_memory

    def __next__(self) -> Tensors:
        tensors = _tensors(next(self._batches))
        if self._pin_memory:
            return {name: tensor.pin_memory() for name, tensor in tensors.items()}
        return tensors

    def close(self) -> None:
        """Stop reading."""
        self._batches.close()


def _tensors(arrays: _dataset.Arrays) -> Tensors:
    """Return tensors that share the memory of the arrays."""
    tensors = {}
    for name, array in arrays.items():
        # The numbers of a row are scalars of numpy.
        array = np.asarray(array)
        if array.dtype == np.uint64:
            array = array.view(np.int64)
        tensors[name] = torch.from_numpy(array)
    return tensors
