#!/usr/bin/env python3
"""Compares the features of two stores of the demo's recipe, one computed on a CPU and one on a GPU.

usage: compare_stores.py CPU_STORE GPU_STORE        needs pyarrow and numpy

Fails if a difference exceeds its bound. The bounds for decibels are those of tests/tests/backends.rs: 1e-3 dB, plus the
effect of half an f32 step of the largest amplitude on quiet cells. log_mel is scaled to 0..1 over 80 dB and stored as f16,
which adds a step of f16. Coefficients are norm-preserving sums of decibels: their root mean square over a frame is bounded
by that of its bands.
"""

import sys
from pathlib import Path

import numpy
import pyarrow.parquet

DB_ABS, ROUNDING, DB_OF_AMPLITUDE = 1e-3, 6e-8, 8.686
RANGE_DB = 80.0
# MFCC_MAX in kernels/src/parity/mod.rs.
MFCC_MAX = 1.2e-2


def tensors(store, feature, dtype):
    """Returns clip_key -> values for every row of a feature."""
    found = {}
    for path in sorted((store / "data").rglob("*.parquet")):
        names = pyarrow.parquet.read_schema(path).names
        if feature in names and "clip_key" in names:
            rows = pyarrow.parquet.read_table(path, columns=["clip_key", feature])
            for key, tensor in zip(rows["clip_key"].to_pylist(), rows[feature].to_pylist()):
                found[key] = numpy.frombuffer(tensor, dtype).astype(numpy.float64)
    return found


def log_mel_bounds(values):
    """Returns the bounds for values that are 1 at the loudest value and 0 at 80 dB below it."""
    decibels = (values - 1.0) * RANGE_DB
    bound_db = DB_ABS + DB_OF_AMPLITUDE * ROUNDING / 10.0 ** (decibels / 20.0)
    f16_step = 2.0 ** (numpy.floor(numpy.log2(numpy.maximum(values, 6.2e-5))) - 10.0)
    # Each row is scaled by its own minimum and maximum, which have the same error.
    return 2.0 * bound_db / RANGE_DB + f16_step


def compare(stores, feature, dtype, bounds):
    """Returns a line with the largest difference; exits at the first value beyond its bound."""
    cpu, gpu = (tensors(Path(store), feature, dtype) for store in stores)
    if cpu.keys() != gpu.keys() or not cpu:
        sys.exit(f"{feature}: {len(cpu)} rows and {len(gpu)} rows, or different clips")
    worst, of_bound = 0.0, 0.0
    for key, wanted in cpu.items():
        if wanted.shape != gpu[key].shape:
            sys.exit(f"{feature} of {key}: {gpu[key].size} values instead of {wanted.size}")
        off = numpy.abs(gpu[key] - wanted)
        share = off / bounds(wanted)
        at = int(share.argmax())
        if not share[at] <= 1.0:
            sys.exit(f"{feature} of {key}, value {at}: {gpu[key][at]} on the GPU, {wanted[at]} on the CPU")
        worst, of_bound = max(worst, float(off.max())), max(of_bound, float(share[at]))
    return f"{feature}: {len(cpu)} clips, largest difference {worst:.2e}, {of_bound:.2f} of its bound"


def main():
    stores = sys.argv[1:]
    if len(stores) != 2:
        sys.exit(__doc__)
    print(compare(stores, "log_mel", "<f2", log_mel_bounds))
    print(compare(stores, "mfcc", "<f4", lambda values: numpy.full(values.shape, MFCC_MAX)))


if __name__ == "__main__":
    main()
