#!/usr/bin/env python3
"""Compare the trainer's loader with common Python readers of the same rows; started by scripts/bench.sh loader.

usage: loader.py BENCH OUT.md [ROUNDS]

BENCH is the trainer's bench program `loader`: it writes two stores (uncompressed, zstd) of 2,048 rows of (128, 1292) f16.
The rows are then also written as .npy and HDF5. An epoch reads every row once, shuffled, in batches of 64
in host memory, from cached files. Each contestant first runs one untimed epoch; each round runs one epoch of each.
"""

import functools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import wavemill
import wavemill.torch

from bench import alternate, best, machine, table, write

BATCH = 64
SHAPE = (128, 1292)
# Number of row groups that are shuffled together, as in wavemill's default.
WINDOW = 16


def prepare(folder):
    """Writes the rows of a store as rows.npy, rows.h5 (one chunk per row) and gzip.h5; returns the number of rows."""
    files = sorted((folder / "none" / "data").rglob("features/**/*.parquet"))
    count = sum(pq.ParquetFile(file).metadata.num_rows for file in files)
    rows = np.lib.format.open_memmap(folder / "rows.npy", "w+", np.float16, (count, *SHAPE))
    with h5py.File(folder / "rows.h5", "w") as plain, h5py.File(folder / "gzip.h5", "w") as gzip:
        layout = {"shape": rows.shape, "dtype": rows.dtype, "chunks": (1, *SHAPE)}
        stored = [plain.create_dataset("rows", **layout)]
        stored.append(gzip.create_dataset("rows", **layout, compression="gzip", compression_opts=1, shuffle=True))
        start = 0
        for file in files:
            for batch in pq.ParquetFile(file).iter_batches(BATCH, columns=["log_mel"]):
                part = values(batch.column(0))
                rows[start:start + len(part)] = part
                for data in stored:
                    data[start:start + len(part)] = part
                start += len(part)
    rows.flush()
    return count


def values(column):
    """Returns an Arrow column of fixed-size binary as an array of rows, without a copy."""
    raw = np.frombuffer(column.buffers()[1], np.float16)
    width = SHAPE[0] * SHAPE[1]
    return raw[column.offset * width:(column.offset + len(column)) * width].reshape(-1, *SHAPE)


def shuffled(count, epoch):
    """Returns the index arrays of the epoch's batches."""
    order = np.random.default_rng(epoch).permutation(count)
    return [order[start:start + BATCH] for start in range(0, count, BATCH)]


def from_npy(folder, count, epoch):
    """Reads a memory-mapped array with the indices of a batch, which copies once."""
    rows = np.load(folder / "rows.npy", mmap_mode="r")
    for wanted in shuffled(count, epoch):
        yield rows[wanted]


def from_h5(name, folder, count, epoch):
    """Reads HDF5, each row directly into its place in the batch, which is faster here than reading a list of rows at once."""
    with h5py.File(folder / name, "r") as file:
        rows = file["rows"]
        for wanted in shuffled(count, epoch):
            batch = np.empty((len(wanted), *SHAPE), np.float16)
            for place, row in enumerate(wanted):
                rows.read_direct(batch, np.s_[row], np.s_[place])
            yield batch


def from_parquet(store, folder, count, epoch):
    """Reads windows of row groups with pyarrow and shuffles within them, because pyarrow cannot read single rows."""
    random = np.random.default_rng(epoch)
    files = [pq.ParquetFile(file) for file in sorted((folder / store / "data").rglob("features/**/*.parquet"))]
    groups = [(file, group) for file in files for group in range(file.num_row_groups)]
    random.shuffle(groups)
    for start in range(0, len(groups), WINDOW):
        window = groups[start:start + WINDOW]
        parts = [file.read_row_group(group, ["log_mel"], use_threads=False) for file, group in window]
        parts = [values(chunk) for part in parts for chunk in part.column(0).chunks]
        places = [(part, row) for part, rows in enumerate(parts) for row in range(len(rows))]
        random.shuffle(places)
        for first in range(0, len(places), BATCH):
            yield np.stack([parts[part][row] for part, row in places[first:first + BATCH]])


@functools.cache
def compressed_rows(folder):
    """Returns some rows, each compressed separately like the pages of the zstd store."""
    codec = pa.Codec("zstd", compression_level=1)
    return [codec.compress(row.tobytes(), asbytes=True) for row in np.load(folder / "rows.npy", mmap_mode="r")[:256]]


def from_codec(folder, count, _epoch):
    """Only decompresses, which is the lower bound for every reader of such pages."""
    codec, rows, row_bytes = pa.Codec("zstd"), compressed_rows(folder), SHAPE[0] * SHAPE[1] * 2
    for start in range(0, count, BATCH):
        yield [codec.decompress(rows[row % len(rows)], row_bytes) for row in range(start, min(start + BATCH, count))]


class Rows(torch.utils.data.Dataset):
    """Rows of a memory-mapped array, which each worker opens separately."""

    def __init__(self, path, count):
        self.path, self.count, self.rows = path, count, None

    def __len__(self):
        return self.count

    def __getitem__(self, row):
        if self.rows is None:
            self.rows = np.load(self.path, mmap_mode="r")
        return torch.from_numpy(np.array(self.rows[row]))


def from_torch(workers, folder, count, epoch):
    """Reads the same array with PyTorch's DataLoader."""
    torch.manual_seed(epoch)
    yield from torch.utils.data.DataLoader(
        Rows(folder / "rows.npy", count), BATCH, shuffle=True, num_workers=workers
    )


@functools.cache
def stored_batches(folder, store, readers):
    """Returns the rows of a store as batches of wavemill's Python package."""
    return wavemill.open(folder / store).dataset("log_mel", batch_size=BATCH, target=None, readers=readers)


def from_package(store, readers, folder, _count, epoch):
    """Reads a store with wavemill's Python package."""
    data = stored_batches(folder, store, readers)
    data.set_epoch(epoch)
    for batch in data:
        yield batch["log_mel"]


def from_package_in_torch(folder, _count, epoch):
    """Reads a store through wavemill.torch and PyTorch's DataLoader."""
    data = wavemill.torch.IterableDataset(stored_batches(folder, "none", 1))
    data.set_epoch(epoch)
    for batch in torch.utils.data.DataLoader(data, batch_size=None):
        yield batch["log_mel"]


def cpu_s():
    """Returns the CPU time of this process and of the workers that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def theirs(batches, folder, count):
    """Returns a contestant that measures one epoch of `batches(folder, count, epoch)`."""
    epochs = iter(range(1, 1_000_000))

    def run():
        if (epoch := next(epochs)) == 1:
            for _ in batches(folder, count, 0):
                pass
        start, cpu_start, rows = time.perf_counter(), cpu_s(), 0
        for batch in batches(folder, count, epoch):
            rows += len(batch)
        if rows != count:
            sys.exit(f"loader: {rows} of {count} rows")
        return {"cpu_ms": (cpu_s() - cpu_start) * 1e3 / rows, "wall_ms": (time.perf_counter() - start) * 1e3 / rows}

    return run


def ours(bench, folder, store, readers):
    """Returns a contestant that runs the bench program, which measures its own epoch."""
    command = [bench, "--folder", folder, "--store", store, "--readers", str(readers), "--epochs", "1", "--json"]

    def run():
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return {key: json.loads(done.stdout)[key] for key in ("cpu_ms", "wall_ms")}

    return run


def contestants(bench, folder, count):
    """Returns the contestants by their names in the tables."""
    peers = {
        "uncompressed: numpy, memory-mapped .npy": from_npy,
        "uncompressed: h5py, a chunk a row": functools.partial(from_h5, "rows.h5"),
        "uncompressed: pyarrow, the same files": functools.partial(from_parquet, "none"),
        "uncompressed: torch DataLoader on .npy, no worker": functools.partial(from_torch, 0),
        "uncompressed: wavemill in Python": functools.partial(from_package, "none", 1),
        "uncompressed: wavemill.torch in a DataLoader": from_package_in_torch,
        "uncompressed, 2: torch DataLoader on .npy, 2 workers": functools.partial(from_torch, 2),
        "compressed: wavemill in Python, zstd 1": functools.partial(from_package, "zstd", 1),
        "compressed: h5py, gzip 1 with shuffle": functools.partial(from_h5, "gzip.h5"),
        "compressed: pyarrow, the same files": functools.partial(from_parquet, "zstd"),
        "compressed: zstd 1 without reading or shuffling": from_codec,
    }
    found = {
        "uncompressed: wavemill": ours(bench, folder, "none", 1),
        "uncompressed, 2: wavemill, 2 readers": ours(bench, folder, "none", 2),
        "compressed: wavemill, zstd 1": ours(bench, folder, "zstd", 1),
        "compressed, 2: wavemill, zstd 1, 2 readers": ours(bench, folder, "zstd", 2),
    }
    found.update({name: theirs(batches, folder, count) for name, batches in peers.items()})
    return found


def ratios(results):
    """Returns a summary of wavemill's results in the tables, one line each."""
    lines = []
    for kind in ("uncompressed", "compressed"):
        us, *peers = [(name, best(results, name, "cpu_ms")) for name in results if name.startswith(f"{kind}: ")]
        peers.sort(key=lambda peer: peer[1])
        told = ", ".join(f"{cost / us[1]:.2f}× {name.split(': ')[1]}" for name, cost in peers)
        lines.append(f"- {kind}: wavemill's CPU time is {us[1]:.3f} ms per row. The other tools take a multiple of that: {told}.")
    for one, two in (
        ("uncompressed: wavemill", "uncompressed, 2: wavemill, 2 readers"),
        ("compressed: wavemill, zstd 1", "compressed, 2: wavemill, zstd 1, 2 readers"),
    ):
        speed = best(results, one, "wall_ms") / best(results, two, "wall_ms")
        lines.append(f"- {one.split(':')[0]}: two readers are {speed:.2f}× as fast as one.")
    return "\n".join(lines)


def main():
    """Measure and write the page."""
    if len(sys.argv) < 3 or {"-h", "--help"} & set(sys.argv):
        sys.exit(__doc__)
    bench, out = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="wavemill-bench-") as scratch:
        folder = Path(scratch)
        written = subprocess.run([bench, "--folder", folder, "--write"], capture_output=True, text=True, check=True)
        count = prepare(folder)
        results = alternate(contestants(bench, folder, count), rounds)
    write(out, [
        "# Loader: from a warm file to a shuffled batch",
        f"Each tool reads {count} rows of (128, 1292) f16, 331 kB each, into host memory in their stored form, in batches of "
        f"{BATCH}. Every row is read once per epoch, in a different order in each epoch. pyarrow cannot read single rows, "
        "so it reads windows of 16 row groups and shuffles within them, like wavemill's order; the other tools shuffle all "
        "rows. Each tool uses one thread unless the table states otherwise. DataLoader's workers are processes, and the figure "
        "includes their start. A store is opened, and its files are compared with their hashes, before the measured epochs.",
        f"{machine(('numpy', 'h5py', 'pyarrow', 'torch'))} Load average before: {load:.1f}.",
        "Command: `scripts/bench.sh loader`. The bench writes these stores:",
        f"```\n{written.stderr.strip()}\n```",
        "CPU time of all threads and processes together:", table(results, "cpu_ms", "µs per row", 1e-3),
        "Wall time:", table(results, "wall_ms", "µs per row", 1e-3),
        ratios(results),
    ])


if __name__ == "__main__":
    main()
