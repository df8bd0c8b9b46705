"""Stores: what they contain, queries that other tools read, and errors."""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
import threading
import unittest
import unittest.mock
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import clips
import support
import wavemill as wm


def command(*words: str) -> str:
    """Return what the command prints."""
    ran = subprocess.run([sys.executable, "-m", "wavemill", *words], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def rows_of(table: Any) -> list[tuple[Any, ...]]:
    """Return the rows of a table of pyarrow."""
    return [tuple(row.values()) for row in table.to_pylist()]


class StoreTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.path = str(support.demo_store())
        cls.store = wm.open(cls.path)

    def test_answers_are_those_of_the_command(self) -> None:
        store = ("--store", self.path)
        self.assertEqual(self.store.info(), json.loads(command("info", *store, "--json")))
        self.assertEqual(self.store.versions(), json.loads(command("info", *store, "--versions", "--json")))
        self.assertEqual(self.store.diff(1, 1), json.loads(command("diff", *store, "1", "1", "--json")))
        self.assertEqual(self.store.version, 1)

    def test_contents(self) -> None:
        classes = self.store.classes("genre")
        self.assertEqual(len(classes), len(set(classes)))
        self.assertGreater(len(classes), 3)
        feature = self.store.info()["features"][0]["name"]
        self.assertGreater(self.store.stats(feature)["values"], 0)
        rejects = self.store.rejects.to_arrow()
        self.assertGreater(rejects.num_rows, 0)
        self.assertIn("reason", rejects.column_names)
        self.assertIn("version 1", repr(self.store))
        self.assertIn("<th>genre</th>", self.store._repr_html_())

    def test_queries_are_read_by_other_tools(self) -> None:
        query = "SELECT clip_key, log_mel FROM features_log_mel ORDER BY clip_key"
        table = self.store.sql(query).to_arrow()
        feature = self.store.info()["features"][0]
        tensors = table["log_mel"].combine_chunks().to_numpy_ndarray()
        self.assertEqual(list(tensors.shape), [table.num_rows, *feature["shape"]])

        rows = self.store.map("log_mel", split="test")
        places = {key: place for place, key in enumerate(table["clip_key"].to_pylist())}
        keys = self.store.sql("SELECT clip_key FROM features_log_mel WHERE split = 'test'").to_arrow()["clip_key"].to_pylist()
        self.assertEqual(len(keys), len(rows))
        np.testing.assert_array_equal(rows[0]["log_mel"], tensors[places[keys[0]]])

        counts = "SELECT split, count(*) AS n FROM features_log_mel GROUP BY 1 ORDER BY 1"
        wanted = self.store.sql(counts).to_arrow().to_pylist()
        self.assertEqual(sum(row["n"] for row in wanted), table.num_rows)
        self.assertEqual(self.store.sql(counts).to_polars().to_dicts(), wanted)
        self.assertEqual(self.store.sql(counts).to_pandas().to_dict("records"), wanted)

    def test_a_result_is_read_any_number_of_times_by_each_tool(self) -> None:
        datafusion, duckdb, pandas, polars, pyarrow = map(
            __import__, ("datafusion", "duckdb", "pandas", "polars", "pyarrow")
        )
        connection = duckdb.connect()
        readers: dict[str, Callable[[Any], Any]] = {
            "Polars": lambda result: polars.DataFrame(result).rows(),
            "pyarrow": lambda result: rows_of(pyarrow.table(result)),
            "pyarrow, a stream": lambda result: rows_of(pyarrow.RecordBatchReader.from_stream(result).read_all()),
            "pandas": lambda result: list(pandas.DataFrame.from_arrow(result).itertuples(index=False, name=None)),
            "datafusion": lambda result: rows_of(datafusion.SessionContext().from_arrow(result).to_arrow_table()),
            "DuckDB": lambda result: duckdb.sql("FROM result").fetchall(),
            "DuckDB, from_arrow": lambda result: duckdb.from_arrow(result).fetchall(),
            "DuckDB, a connection": lambda result: connection.execute("SELECT * FROM result").fetchall(),
            "DuckDB, registered": lambda result: connection.register("q", result).execute("FROM q").fetchall(),
            "to_arrow": lambda result: rows_of(result.to_arrow()),
            "to_pandas": lambda result: list(result.to_pandas().itertuples(index=False, name=None)),
            "to_polars": lambda result: result.to_polars().rows(),
        }

        result = self.store.sql("SELECT split, count(*) AS n FROM features_log_mel GROUP BY 1 ORDER BY 1")
        self.assertEqual(pyarrow.schema(result).names, ["split", "n"])
        wanted = rows_of(result.to_arrow())
        self.assertEqual([split for split, _ in wanted], ["test", "training", "validation"])
        for name, read in readers.items():
            with self.subTest(name):
                self.assertEqual([read(result), read(result)], [wanted, wanted])
        # A relation of DuckDB is a query, which reads the result again.
        relation = duckdb.sql("SELECT sum(a.n) FROM result a JOIN result b USING (split) WHERE a.n > 0")
        self.assertEqual([relation.fetchall(), relation.fetchall()], [[(sum(n for _, n in wanted),)]] * 2)

        tensors = self.store.sql("SELECT clip_key, log_mel FROM features_log_mel ORDER BY 1")
        first, again = pyarrow.table(tensors), pyarrow.table(tensors)
        self.assertTrue(first.equals(again))
        self.assertEqual(polars.DataFrame(tensors).height, first.num_rows)
        lists = self.store.sql("SELECT clip_key, tensor(log_mel) AS m FROM features_log_mel ORDER BY 1")
        got = duckdb.sql("SELECT m FROM lists WHERE len(m) > 0").fetchnumpy()["m"]
        values = first["log_mel"].combine_chunks().to_numpy_ndarray()
        np.testing.assert_array_equal(np.stack(got).ravel(), values.ravel())
        clips.store()
        extracted = wm.extract(clips.archive().rglob("*.0000[12].wav"), recipe=clips.folder() / "recipe.toml", feature="mfcc").rows
        self.assertEqual(duckdb.sql("SELECT clip_key FROM extracted").fetchall(), polars.DataFrame(extracted).select("clip_key").rows())

    def test_lists_of_texts_become_data_frames(self) -> None:
        pandas = __import__("pandas")
        text, data = "arrow_cast('a', 'Utf8View')", "arrow_cast(arrow_cast('a', 'Binary'), 'BinaryView')"
        result = self.store.sql(
            f"SELECT {text} AS text, [{text}] AS texts, [{data}] AS bytes, [[{text}]] AS lists, named_struct('x', [{text}]) AS pair"
        )
        for frame in result.to_pandas(), pandas.DataFrame.from_arrow(result):
            [row] = frame.to_dict("records")
            got = [row["text"], list(row["texts"]), list(row["bytes"]), list(row["lists"][0]), list(row["pair"]["x"])]
            self.assertEqual(got, ["a", ["a"], [b"a"], ["a"], ["a"]])
        self.assertIn("csv_line", self.store.sql("SELECT * FROM tracks_all").to_pandas())

    def test_a_second_reader_gets_the_error_of_its_own_query(self) -> None:
        result = self.store.sql("SELECT CAST(clip_key AS INT) AS number FROM features_log_mel")
        for _ in range(2):
            with self.assertRaisesRegex(wm.Error, "(?i)cast"):
                result.to_arrow()

    def test_tables_are_registered_in_datafusion(self) -> None:
        datafusion = __import__("datafusion")
        session = datafusion.SessionContext()
        session.register_table("tracks", self.store.table("tracks"))
        session.register_table("mel", self.store.table("features_log_mel"))

        # Filters and limits on columns of the store are applied there, others by the session; tensors are converted.
        queries = [
            "SELECT track_genre_top, count(*) AS n FROM tracks GROUP BY 1 ORDER BY 1",
            "SELECT count(*) AS n FROM features_log_mel WHERE split = 'test' AND track_id > 0",
            "SELECT track_id, log_mel FROM features_log_mel WHERE split <> 'test' ORDER BY track_id LIMIT 7",
            "SELECT t.track_title, f.log_mel FROM tracks t JOIN features_log_mel f USING (track_id) ORDER BY track_id LIMIT 5",
        ]
        for query in queries:
            with self.subTest(query):
                got = session.sql(query.replace("features_log_mel", "mel")).to_arrow_table()
                self.assertEqual(got.to_pylist(), self.store.sql(query).to_arrow().to_pylist())
        of_tensors = session.sql("SELECT count(*) AS n FROM mel WHERE split = 'test' AND array_length(log_mel) > 1")
        self.assertEqual(of_tensors.to_pylist(), session.sql("SELECT count(*) AS n FROM mel WHERE split = 'test'").to_pylist())
        self.assertEqual(session.sql("SELECT 1 FROM mel LIMIT 3").to_arrow_table().num_rows, 3)
        session.catalog().schema().register_table("of_schema", self.store.table("classes"))
        n_classes = len(self.store.sql("SELECT * FROM classes").to_arrow())
        self.assertEqual(session.table("of_schema").to_arrow_table().num_rows, n_classes)

        with self.assertRaisesRegex(wm.UsageError, "no_table"):
            self.store.table("no_table")
        with unittest.mock.patch("importlib.metadata.version", return_value="54.1.0"):
            with self.assertRaisesRegex(wm.UsageError, "datafusion 54.1.0"):
                session.register_table("other", self.store.table("tracks"))

    def test_damage_under_a_registered_table_is_an_error_of_its_query(self) -> None:
        copied = clips.folder() / "damaged"
        shutil.copytree(self.path, copied)
        session = __import__("datafusion").SessionContext()
        session.register_table("mel", wm.open(copied).table("features_log_mel"))
        for shard in copied.rglob("log_mel*/**/*.parquet"):
            shard.write_bytes(shard.read_bytes()[:-100])
        with self.assertRaisesRegex(Exception, "parquet: .* bytes long, but"):
            session.sql("SELECT log_mel FROM mel").collect()

    def test_errors_of_running_queries_are_those_of_the_package(self) -> None:
        copied = clips.folder() / "damaged-pages"
        shutil.copytree(clips.store(), copied)
        for shard in copied.rglob("log_mel*/**/*.parquet"):
            content = bytearray(shard.read_bytes())
            # The first pages; the footer at the end is intact.
            pages = slice(4, len(content) // 4)
            content[pages] = bytes(len(content[pages]))
            shard.write_bytes(content)
        damaged = wm.open(copied)
        for method in ("to_arrow", "to_pandas", "to_polars"):
            result = damaged.sql("SELECT clip_key, tensor_mean(log_mel) AS mean FROM features_log_mel")
            with self.subTest(method), self.assertRaisesRegex(wm.DamagedStoreError, r"\.parquet"):
                getattr(result, method)()

        result = self.store.sql("SELECT CAST(clip_key AS INT) AS number FROM features_log_mel")
        with self.assertRaisesRegex(wm.Error, "(?i)cast"):
            result.to_arrow()

    def test_importing_permits_more_open_files(self) -> None:
        code = """
import resource
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
import wavemill
print(resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard))
"""
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        self.assertEqual(ran.stdout, "True\n", ran.stderr)

    def test_samples_and_files_beside_features(self) -> None:
        recipe = clips.folder() / "sounds.toml"
        sounds = '[[features]]\nname = "wave"\nop = "pcm"\ndtype = "s16"\n[[features]]\nname = "file"\nop = "original"\n'
        clips.store()
        text = (clips.folder() / "recipe.toml").read_text()
        recipe.write_text(text.replace("[shards]", sounds + "[shards]"))
        root = clips.folder() / "sounds"
        wm.build(root, recipe=recipe, audio=clips.archive(), progress=False)
        store = wm.open(root)

        rows = store.map("wave", split="test")
        first = rows[0]
        query = f"SELECT clip_key FROM features_wave WHERE track_id = {first['track_id']}"
        key = store.sql(query).to_arrow()["clip_key"][0].as_py()
        samples, _ = wm.load(clips.archive() / key, sr=None)
        stored = first["wave"]
        self.assertEqual(stored.dtype, np.int16)
        n_samples = min(len(samples), len(stored))
        np.testing.assert_allclose(stored[:n_samples] / 32768, samples[:n_samples], atol=1 / 32768)
        batch = next(iter(store.dataset("wave", split="test", batch_size=2, crop_frames=100)))
        self.assertEqual(batch["wave"].shape, (2, 100))

        files = store.sql("SELECT clip_key, file FROM features_file").to_arrow().to_pylist()
        self.assertEqual(len(files), len(rows) + len(store.map("wave")) + len(store.map("wave", split="validation")))
        for row in files:
            self.assertEqual(row["file"], (clips.archive() / row["clip_key"]).read_bytes())
        with self.assertRaises(wm.UsageError):
            store.dataset("file")

    def test_errors_name_what_exists(self) -> None:
        cases = [
            ("no such store", lambda: wm.open("no such store")),
            ("7", lambda: wm.open(self.path, version=7)),
            ("mood", lambda: wm.open(self.path, version="mood")),
            ("genre", lambda: self.store.classes("mood")),
            ("log_mel", lambda: self.store.stats("mood")),
            ("9", lambda: self.store.diff(1, 9)),
            ("no_column", lambda: self.store.sql("SELECT no_column FROM tracks")),
            ("SELEC", lambda: self.store.sql("SELEC 1")),
            ("one at a time", lambda: self.store.sql("SELECT 1; SELECT 2")),
            ("", lambda: self.store.sql("DROP TABLE tracks")),
            ("memory_limit", lambda: self.store.sql("SELECT 1", memory_limit=1)),
            ("threads", lambda: self.store.sql("SELECT 1", threads=0)),
        ]
        for words, call in cases:
            with self.subTest(words=words), self.assertRaises(wm.UsageError) as caught:
                call()
            self.assertIn(words, str(caught.exception))

    def test_unfinished_queries_leave_nothing_behind(self) -> None:
        def resources() -> tuple[int, int]:
            gc.collect()
            return threading.active_count() + len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))

        for _ in range(3):
            self.store.sql("SELECT * FROM features_log_mel")
        before = resources()
        for _ in range(50):
            self.store.sql("SELECT * FROM features_log_mel")
            wm.open(self.path).classes("genre")
        after = resources()
        self.assertLessEqual(after[0], before[0] + 1, (before, after))
        self.assertLessEqual(after[1], before[1] + 1, (before, after))


if __name__ == "__main__":
    unittest.main()
