"""Building on a Ray cluster: equal bytes, lost nodes, killed drivers and errors; features in Ray Data."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any

import clips
import support
import wavemill as wm
from test_build import content

try:
    import ray
    import wavemill.ray as wr
    from ray.cluster_utils import Cluster
except ImportError:
    ray = None  # type: ignore[assignment]


def wait_until(reached: Callable[[], bool], running: Callable[[], bool]) -> None:
    """Wait until something is reached, at most a minute and only while something else is running."""
    until = time.monotonic() + 60
    while not reached() and running() and time.monotonic() < until:
        time.sleep(0.01)


@unittest.skipIf(ray is None, "ray is not installed")
class RayTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        # Workers import the package from this process's path.
        os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        cls.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        cls.folder = tempfile.TemporaryDirectory()
        archive = support.demo_archive()
        cls.given: dict[str, Any] = {"recipe": "demo", "metadata": archive / "fma_metadata"}
        cls.given |= {"audio": archive / "fma_demo", "max_reject_fraction": 0.2, "set": {"shards.clips": 4}}
        cls.given |= {"progress": False, "backend": "cpu"}
        cls.whole = Path(cls.folder.name) / "whole"
        wm.build(cls.whole, **cls.given)

    @classmethod
    def tearDownClass(cls) -> None:
        ray.shutdown()
        cls.cluster.shutdown()
        cls.folder.cleanup()

    def setUp(self) -> None:
        self.worker = self.cluster.add_node(num_cpus=1)
        self.store = Path(self.folder.name) / self.id().rpartition(".")[2]
        if not ray.is_initialized():
            ray.init(address=self.cluster.address, log_to_driver=False)

    def tearDown(self) -> None:
        if self.worker is not None:
            self.cluster.remove_node(self.worker)

    def receipts(self) -> int:
        return len(list((self.store / "_wavemill/receipts").rglob("*.json")))

    def test_two_nodes_build_what_one_process_builds(self) -> None:
        report = wr.build(self.store, **self.given)
        self.assertEqual((report["version"], report["nothing_to_do"]), (1, False))
        self.assertEqual(content(self.store), content(self.whole))
        hosts = {line for path in (self.store / "_wavemill/runs").iterdir() for line in path.read_text().splitlines()}
        self.assertGreater(len(hosts), 8)
        self.assertTrue(wr.build(self.store, **self.given)["nothing_to_do"])

    def test_a_lost_node_costs_only_its_tasks(self) -> None:
        built: list[Any] = []
        thread = threading.Thread(target=lambda: built.append(wr.build(self.store, **self.given)))
        thread.start()
        wait_until(lambda: self.receipts() >= 4, thread.is_alive)
        self.cluster.remove_node(self.worker, allow_graceful=False)
        self.worker = None
        thread.join(120)
        self.assertEqual(built[0]["version"], 1)
        self.assertEqual(content(self.store), content(self.whole))

    def test_a_killed_driver_continues(self) -> None:
        arguments = {name: str(value) if isinstance(value, Path) else value for name, value in self.given.items()}
        arguments["address"] = self.cluster.address
        code = f"import wavemill.ray; wavemill.ray.build({str(self.store)!r}, **{arguments!r})"
        driver = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
        wait_until(lambda: self.receipts() >= 4, lambda: driver.poll() is None)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        report = wr.build(self.store, **self.given, wait=60)
        self.assertEqual(report["version"], 1)
        self.assertEqual(content(self.store), content(self.whole))

    def test_errors_are_those_of_wavemill(self) -> None:
        with self.assertRaisesRegex(wm.UsageError, "neither a shipped recipe"):
            wr.build(self.store, **{**self.given, "recipe": "nonesuch"})
        with self.assertRaisesRegex(wm.UsageError, "absent"):
            wr.build(self.store, **{**self.given, "audio": "/absent"})
        wr.build(self.store, **{**self.given, "limit": 20})
        with self.assertRaises(wm.OtherPlanError):
            wr.build(self.store, **self.given)
        with self.assertRaisesRegex(wm.Error, "reject"):
            wr.build(self.store, **{**self.given, "max_reject_fraction": 0.0, "new_version": True}, retries=0)

    def test_features_in_a_dataset(self) -> None:
        paths = sorted(str(path) for path in clips.archive().rglob("*.wav"))
        rows = wr.map_batches(ray.data.from_items([{"path": path} for path in paths]), self.recipe(), batch_size=4)
        found = {row["clip_key"]: row for row in rows.take_all()}
        wanted = wm.extract(paths, self.recipe()).rows
        import pyarrow

        table = pyarrow.table(wanted)
        self.assertEqual(sorted(found), sorted(table["clip_key"].to_pylist()))
        for key, tensor in zip(table["clip_key"].to_pylist(), table["log_mel"].combine_chunks().to_numpy_ndarray()):
            self.assertEqual(found[key]["log_mel"].tolist(), tensor.tolist())

    def recipe(self) -> Path:
        clips.store()
        return clips.folder() / "recipe.toml"


if __name__ == "__main__":
    unittest.main()
