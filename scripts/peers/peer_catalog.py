#!/usr/bin/env python3
"""Run DuckDB or Polars on an FMA tracks.csv: read every column, drop unlabelled rows, count genres per split.

usage: peer_catalog.py duckdb|polars TRACKS_CSV

Prints wall and CPU milliseconds without imports, and the rows of the result as a check, as JSON.
"""

import csv
import json
import sys
import time

INTEGERS = {
    "album_comments", "album_favorites", "album_id", "album_listens", "album_tracks", "artist_comments",
    "artist_favorites", "artist_id", "track_bit_rate", "track_comments", "track_duration", "track_favorites",
    "track_interest", "track_listens", "track_number",
}


def columns(path):
    """Return the flattened names of the 53 columns."""
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        groups, names = next(reader), next(reader)
    return ["track_id"] + [f"{group}_{name}" for group, name in zip(groups[1:], names[1:])]


def duckdb_query(path, names):
    """Read all columns into a table with DuckDB, then run the query."""
    import duckdb

    def kind(name):
        if name == "track_id" or name in INTEGERS:
            return "BIGINT"
        return "TIMESTAMP" if "_date_" in name or "active_year" in name else "VARCHAR"

    db = duckdb.connect()
    types = "{" + ", ".join(f"'{name}': '{kind(name)}'" for name in names) + "}"

    def run():
        db.execute(
            f"CREATE OR REPLACE TABLE tracks AS SELECT * FROM read_csv('{path}', header = false, skip = 3, quote = '\"',"
            f" escape = '\"', delim = ',', columns = {types}, auto_detect = false, max_line_size = 10000000)"
        )
        return db.execute(
            "SELECT track_genre_top, set_split, count(*) FROM tracks WHERE track_genre_top IS NOT NULL"
            " GROUP BY ALL ORDER BY ALL"
        ).fetchall()

    return run


def polars_query(path, names):
    """Do the same with Polars."""
    import polars

    def kind(name):
        return polars.Int64 if name == "track_id" or name in INTEGERS else polars.String

    schema = {name: kind(name) for name in names}
    dates = [name for name in names if "_date_" in name or "active_year" in name]

    def run():
        table = polars.read_csv(path, has_header=False, skip_rows=3, schema=schema).with_columns(
            polars.col(dates).str.to_datetime("%Y-%m-%d %H:%M:%S", strict=False)
        )
        labelled = table.filter(polars.col("track_genre_top").is_not_null())
        counted = labelled.group_by("track_genre_top", "set_split").len()
        return counted.sort("track_genre_top", "set_split").rows()

    return run


def main():
    """Measure the query once; the file is in the page cache."""
    peer, path = sys.argv[1:]
    run = {"duckdb": duckdb_query, "polars": polars_query}[peer](path, columns(path))
    start, start_cpu = time.perf_counter(), time.process_time()
    answer = run()
    wall_ms, cpu_ms = (time.perf_counter() - start) * 1e3, (time.process_time() - start_cpu) * 1e3
    labelled = sum(row[2] for row in answer)
    print(json.dumps({"wall_ms": wall_ms, "cpu_ms": cpu_ms, "rows": len(answer), "labelled": labelled}))


if __name__ == "__main__":
    main()
