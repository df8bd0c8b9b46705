#!/usr/bin/env python3
"""Answers questions with DuckDB over the views that `wavemill info --views duckdb` prints.

usage: scripts/peers/read_views.py VIEWS QUESTION…

VIEWS is a file with the statements. Prints a JSON array with the rows of each answer."""

import json
import sys
from pathlib import Path

import duckdb

views, *questions = sys.argv[1:]
connection = duckdb.connect()
connection.execute(Path(views).read_text())
answers = [connection.execute(question).fetchall() for question in questions]
print(json.dumps(answers, default=str))
