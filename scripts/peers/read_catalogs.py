#!/usr/bin/env python3
"""Answers questions about a store from its catalogues: Iceberg with DuckDB, pyiceberg and Polars, DuckLake with DuckDB.

usage: read_catalogs.py ICEBERG_FOLDER DUCKLAKE_FOLDER < QUESTIONS

QUESTIONS has one query per line. Prints a JSON object: per reader a list with the rows of each query. Needs the packages
of requirements-catalogs.txt."""

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path

import duckdb
import polars
from pyiceberg.table import StaticTable


def extension(name: str) -> str:
    """Returns the path of an extension of DuckDB, which is not downloaded."""
    folders = find_spec(f"duckdb_extension_{name}").submodule_search_locations
    return str(next(Path(folders[0]).rglob("*.duckdb_extension")))


def connection(*extensions: str) -> duckdb.DuckDBPyConnection:
    found = duckdb.connect()
    for name in extensions:
        found.execute(f"LOAD '{extension(name)}'")
    return found


def main() -> None:
    if "--help" in sys.argv or len(sys.argv) != 3:
        print(__doc__.strip())
        sys.exit(0 if "--help" in sys.argv else 2)
    iceberg, ducklake = Path(sys.argv[1]), Path(sys.argv[2])
    questions = [line for line in sys.stdin.read().splitlines() if line]
    tables = {folder.name: str(folder / "metadata/v1.metadata.json") for folder in iceberg.iterdir()}

    with_iceberg = connection("avro", "iceberg")
    for name in tables:
        with_iceberg.execute(f"CREATE VIEW {name} AS FROM iceberg_scan('{iceberg}/{name}')")

    with_ducklake = connection("ducklake")
    script = (ducklake / "ducklake.sql").read_text().replace("INSTALL ducklake;\nLOAD ducklake;\n", "")
    with_ducklake.execute(script)
    with_ducklake.execute("USE wavemill")

    # pyiceberg reads tables, but has no queries.
    with_pyiceberg = duckdb.connect()
    used = {name: path for name, path in tables.items() if any(name in question for question in questions)}
    for name, path in used.items():
        with_pyiceberg.register(name, StaticTable.from_metadata(path).scan().to_arrow())

    os.environ["POLARS_ICEBERG_PLANNER"] = "pyiceberg"
    frames = {name: polars.scan_iceberg(path) for name, path in used.items()}
    with_polars = polars.SQLContext(frames, eager=True)

    answers = {
        "iceberg with DuckDB": [with_iceberg.sql(question).fetchall() for question in questions],
        "iceberg with pyiceberg": [with_pyiceberg.sql(question).fetchall() for question in questions],
        "iceberg with Polars": [with_polars.execute(question).rows() for question in questions],
        "ducklake with DuckDB": [with_ducklake.sql(question).fetchall() for question in questions],
    }
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
