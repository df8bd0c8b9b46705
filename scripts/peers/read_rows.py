#!/usr/bin/env python3
"""Read the rows of `wavemill-train eval --predictions FILE --embeddings FILE` with pyarrow, DuckDB, Polars and pandas.

usage: read_rows.py PREDICTIONS EMBEDDINGS
Every reader must return the same rows and lists, and the same accuracy. Prints the accuracy and the length of a vector as
JSON; on a difference, prints one line and exits with 1.
"""
import json
import sys

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq


def same(what, got, wanted):
    if got != wanted:
        sys.exit(f"{what}: {got!r}, not {wanted!r}")


def shares(path):
    """Computes the accuracy over rows with a label with each reader."""
    table = pq.read_table(path).to_pylist()
    known = [row for row in table if row["genre_true_id"] is not None]
    frame = pd.read_parquet(path).dropna(subset=["genre_true_id"])
    query = f"SELECT avg((genre_true_id = genre_predicted_id)::INT) FROM '{path}' WHERE genre_true_id IS NOT NULL"
    right = pl.col("genre_true_id") == pl.col("genre_predicted_id")
    return {
        "pyarrow": sum(row["genre_true_id"] == row["genre_predicted_id"] for row in known) / len(known),
        "pandas": float((frame.genre_true_id == frame.genre_predicted_id).mean()),
        "duckdb": duckdb.sql(query).fetchall()[0][0],
        "polars": pl.read_parquet(path).filter(pl.col("genre_true_id").is_not_null()).select(right.mean()).item(),
    }


def lists(path, column):
    """Reads the lists of a column with each reader."""
    return {
        "pyarrow": [row[column] for row in pq.read_table(path).to_pylist()],
        "pandas": [list(map(float, values)) for values in pd.read_parquet(path)[column]],
        "duckdb": [list(row[0]) for row in duckdb.sql(f"SELECT {column} FROM '{path}'").fetchall()],
        "polars": [row[column] for row in pl.read_parquet(path).to_dicts()],
    }


def main(predictions, embeddings):
    for path, column in [(predictions, "genre_probabilities"), (predictions, "genre_logits"), (embeddings, "embedding")]:
        found = lists(path, column)
        for name, values in found.items():
            same(f"{name}: {column}", np.asarray(values, "f4").tobytes(), np.asarray(found["pyarrow"], "f4").tobytes())
    found = shares(predictions)
    for name, share in found.items():
        same(f"{name}: accuracy", round(share, 12), round(found["pyarrow"], 12))

    schema = pq.read_schema(predictions)
    about = json.loads(pq.read_metadata(predictions).metadata[b"wavemill"])
    classes = json.loads(schema.field("genre_probabilities").metadata[b"classes"])
    same("classes in both metadata", classes, about["targets"][0]["classes"])
    width = len(lists(embeddings, "embedding")["pyarrow"][0])
    print(json.dumps({"share": found["pyarrow"], "width": width, "classes": len(classes)}))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
