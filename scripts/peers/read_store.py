#!/usr/bin/env python3
"""Read a store with pyarrow, DuckDB, Polars and pandas, with one line of code each.

usage: read_store.py STORE
Every reader must return the same rows, shapes and values from a shard of each feature, from the rejects, and from all
shards of the version by a glob. Prints the sum over each feature's values as JSON; on a difference, prints one line and
exits with 1.
"""

import glob
import json
import os
import sys

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq

DTYPES = {"f16": "<f2", "f32": "<f4", "u8": "u1", "s16": "<i2"}

# As shown in docs/data.md: functions from a path to a table.
READERS = {
    "pyarrow": lambda path: pq.read_table(path, page_checksum_verification=True).to_pylist(),
    "duckdb": lambda path: duckdb.sql(f"SELECT * FROM read_parquet('{path}')").to_arrow_table().to_pylist(),
    "polars": lambda path: pl.read_parquet(path).to_dicts(),
    "pandas": lambda path: pd.read_parquet(path).to_dict("records"),
}


def same(what, got, wanted):
    if got != wanted:
        sys.exit(f"{what}: {got!r}, not {wanted!r}")


def plain(value):
    """Converts a value from its reader's types: pandas uses NaN for null and arrays for lists."""
    if isinstance(value, (list, np.ndarray)):
        return [plain(item) for item in value]
    return None if value is None or value != value else value


def rows_of(name, path):
    return [{key: plain(value) for key, value in row.items()} for row in READERS[name](path)]


def read_shard(path, feature):
    """Returns the rows of one shard as read by pyarrow, after comparing them with every other reader."""
    tensor = json.loads(pq.read_schema(path).field(feature["name"]).metadata[b"wavemill.tensor"])
    same(f"{path}: shape in the field's metadata", tensor["shape"], feature["shape"])
    rows = rows_of("pyarrow", path)
    for name in READERS:
        got = rows_of(name, path)
        same(f"{name}: rows of {path}", len(got), len(rows))
        for mine, theirs in zip(got, rows):
            # A reader that supports Hive folders adds the split.
            mine.pop("split", None), theirs.pop("split", None)
            same(f"{name}: columns", sorted(mine), sorted(theirs))
            for key in theirs:
                if key != feature["name"]:
                    same(f"{name}: {key} of {theirs['clip_key']}", mine[key], theirs[key])
            x = values(mine[feature["name"]], tensor)
            same(f"{name}: shape", list(x.shape), feature["shape"])
            same(f"{name}: values differ", int((x != values(theirs[feature["name"]], tensor)).sum()), 0)
    return rows


def values(data, tensor):
    return np.frombuffer(data, DTYPES[tensor["dtype"]]).reshape(tensor["shape"])


def read_glob(store, plan_id, feature, files):
    """Returns the sum over all values of a version, read by one glob over its plan's folder."""
    pattern = f"{store}/data/{plan_id}/features/{feature['name']}/*/*.parquet"
    same("a glob", sorted(glob.glob(pattern)), sorted(os.path.join(store, file["path"]) for file in files))
    wanted = sum(file["rows"] for file in files)
    column = feature["name"]
    tables = {
        "duckdb": duckdb.sql(f"SELECT clip_key, {column} FROM read_parquet('{pattern}')").fetchall(),
        "polars": pl.read_parquet(pattern).select("clip_key", column).rows(),
        "pyarrow": [
            (row["clip_key"], row[column])
            for row in pq.read_table(f"{store}/data/{plan_id}/features/{column}").to_pylist()
        ],
    }
    first = sorted(tables["pyarrow"])
    for name, rows in tables.items():
        same(f"{name}: rows by glob", len(rows), wanted)
        same(f"{name}: rows by glob differ from pyarrow's", sorted(rows) == first, True)
    tensor = {"dtype": feature["dtype"], "shape": feature["shape"]}
    return sum(float(values(data, tensor).astype(np.float64).sum()) for _, data in first)


def read_rejects(store, manifest):
    path = next(os.path.join(store, file["path"]) for file in manifest["files"] if file.get("table") == "rejects")
    wanted = rows_of("pyarrow", path)
    same("rejects", len(wanted), sum(manifest["counts"]["rejects"].values()))
    for name in READERS:
        same(f"{name}: rejects", rows_of(name, path), wanted)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__.splitlines()[2])
    store = sys.argv[1]
    names = sorted(os.listdir(f"{store}/_wavemill/versions"))
    with open(f"{store}/_wavemill/versions/{names[-1]}", encoding="utf-8") as file:
        manifest = json.load(file)
    read_rejects(store, manifest)
    sums = {}
    for feature in manifest["features"]:
        files = [file for file in manifest["files"] if file.get("feature") == feature["name"]]
        read_shard(os.path.join(store, files[0]["path"]), feature)
        sums[feature["name"]] = read_glob(store, manifest["plan_id"], feature, files)
    print(json.dumps(sums))


if __name__ == "__main__":
    main()
