"""Building stores: the same bytes as by the command, continuing, interrupts and errors."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

import clips
import support
import wavemill as wm
from wavemill import _build


def content(store: Path) -> dict[str, bytes]:
    """Return the files of a store's versions and data."""
    files = [path for folder in ("data", "_wavemill/versions") for path in sorted((store / folder).rglob("*"))]
    return {str(path.relative_to(store)): path.read_bytes() for path in files if path.is_file()}


class BuildTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.store = Path(folder.name) / "store"
        clips.store()
        self.recipe = clips.folder() / "recipe.toml"

    def build(self, **arguments: object) -> dict[str, object]:
        given = {"recipe": self.recipe, "audio": clips.archive(), "progress": False, **arguments}
        return wm.build(self.store, **given)

    def test_builds_what_the_command_builds(self) -> None:
        report = self.build(threads=2)
        self.assertEqual((report["version"], report["nothing_to_do"]), (1, False))
        other = self.store.with_name("other")
        words = ["extract", "--recipe", self.recipe, "--audio", clips.archive(), "--store", other]
        subprocess.run([sys.executable, "-m", "wavemill", *map(str, words)], check=True, capture_output=True)
        self.assertEqual(content(self.store), content(other))

        self.assertTrue(self.build()["nothing_to_do"])
        with self.assertRaises(wm.OtherPlanError):
            self.build(set={"features.log_mel.n_mels": 8})
        self.assertEqual(self.build(set={"features.log_mel.n_mels": 8}, new_version=True)["version"], 2)
        self.assertEqual(wm.open(self.store).info()["features"][0]["shape"][0], 8)

    def test_an_interrupted_build_continues(self) -> None:
        whole = self.store.with_name("whole")
        archive = support.demo_archive()
        given = {"recipe": "demo", "metadata": archive / "fma_metadata", "audio": archive / "fma_demo"}
        given |= {"max_reject_fraction": 0.2, "threads": 1, "progress": False}
        wm.build(whole, **given)

        # A shell's background jobs ignore SIGINT, and so would their children.
        code = f"""
import signal
import wavemill as wm
signal.signal(signal.SIGINT, signal.default_int_handler)
from pathlib import PosixPath
try:
    wm.build({str(self.store)!r}, **{given!r})
except KeyboardInterrupt:
    print("interrupted")
"""
        running = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        until = time.monotonic() + 60
        while not list(self.store.rglob("*.parquet")) and time.monotonic() < until and running.poll() is None:
            time.sleep(0.01)
        running.send_signal(signal.SIGINT)
        start = time.monotonic()
        output, _ = running.communicate(timeout=60)
        self.assertLess(time.monotonic() - start, 5.0)
        self.assertEqual(output, "interrupted\n")

        wm.build(self.store, **given)
        self.assertEqual(content(self.store), content(whole))

    def test_errors_name_argument_and_remedy(self) -> None:
        cases = [
            ("no-such-recipe", {"recipe": "no-such-recipe"}),
            ("no such folder", {"audio": "no such folder"}),
            ("threads", {"threads": 0}),
            ("memory-limit", {"memory_limit": 1}),
            ("--mood", {"mood": 1}),
            ("n_mel", {"set": {"features.log_mel.n_mel": 8}}),
            ("s3://", {"audio": "s3://bucket/audio"}),
        ]
        for words, arguments in cases:
            with self.subTest(**arguments), self.assertRaises((wm.Error, OSError)) as caught:
                self.build(**arguments)
            self.assertIn(words, str(caught.exception))
            self.assertFalse((self.store / "data").exists())

    def test_extract_computes_the_rows_of_a_store(self) -> None:
        self.build()
        store = wm.open(self.store)
        files = sorted(str(path) for path in clips.archive().rglob("*.wav"))
        missing = str(self.store.with_name("missing.wav"))
        found = wm.extract([*files, missing], recipe=self.recipe, feature="log_mel", threads=2)

        pyarrow = __import__("pyarrow")
        rows, rejects = pyarrow.table(found.rows), pyarrow.table(found.rejects)
        self.assertEqual(rows["clip_key"].to_pylist(), files)
        self.assertEqual(rejects["clip_key"].to_pylist(), [missing])
        stored = store.sql("SELECT clip_key, log_mel FROM features_log_mel").to_arrow().to_pylist()
        by_key = {row["clip_key"]: row["log_mel"] for row in stored}
        for row in rows.to_pylist():
            key = str(Path(row["clip_key"]).relative_to(clips.archive()))
            self.assertEqual(row["log_mel"], by_key[key], key)

        by_default = pyarrow.table(wm.extract(files[:2], recipe=self.recipe).rows)
        self.assertEqual(by_default["log_mel"].to_pylist(), rows["log_mel"].to_pylist()[:2])
        for wrong in ({"feature": "mood"}, {"recipe": "mood"}, {"threads": 0}, {"paths": files[0]}):
            with self.subTest(**wrong), self.assertRaises(wm.UsageError):
                wm.extract(**{"paths": files, "recipe": self.recipe, **wrong})

    def test_an_exception_in_progress_stops_the_build(self) -> None:
        class Broken(RuntimeError):
            pass

        def fail(line: str, done: int, total: int | None) -> None:
            raise Broken(line)

        progress = mock.MagicMock()
        progress.return_value.__enter__.return_value = fail
        # Long enough for progress to be shown.
        archive = support.demo_archive()
        with mock.patch.object(_build, "_Progress", progress), self.assertRaises(Broken):
            self.build(recipe="demo", metadata=archive / "fma_metadata", audio=archive / "fma_demo", progress=True)

    def test_progress_without_tqdm_is_a_line_of_a_terminal(self) -> None:
        stream = io.StringIO()
        stream.isatty = lambda: True  # type: ignore[method-assign]
        with mock.patch.dict(sys.modules, {"tqdm.auto": None}), _build._Progress(stream) as show:
            show("extracting: 1 of 20 clips", 1, 20)
            show("committing", 0, None)
        self.assertEqual(stream.getvalue().split("\r")[1], "extracting: 1 of 20 clips")
        self.assertEqual(stream.getvalue().split("\r")[2].rstrip(), "committing")

    def test_values_of_a_recipe(self) -> None:
        self.assertEqual(_build._toml({"ref": "max", "top_db": 80.0}), '{ref = "max", top_db = 80.0}')
        self.assertEqual([_build._toml(value) for value in (True, 96, "minmax", [0.8, 0.2])], ["true", "96", "minmax", "[0.8, 0.2]"])


if __name__ == "__main__":
    unittest.main()
