#!/usr/bin/env python3
"""Builds one archive in every way that several machines can, and compares the stores.

usage: scripts/peers/machines.py --programs FOLDER [--tracks N] [--bucket FOLDER] [--drivers N]

The ways: `extract`; `plan`, 8 parts in random order with three of them twice, `commit`; Ray with two nodes; Ray with a node
that is lost and a driver that is killed. Prints a line of JSON for each, and ends with status 1 if any store differs from the
first one. The Python package needs the module of the build (scripts/python_check.sh), and the environment ray 2.60.

With --drivers N, further stores are built with Ray by drivers that are killed at random moments, until N were killed.

With --bucket, stores are in the S3 bucket whose objects are the files of FOLDER, on a server that the environment names."""

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Callable

import ray
import wavemill.ray as wr
from ray.cluster_utils import Cluster

sys.path.insert(0, str(Path(__file__).parents[1]))
from kill_steps import content

PARTS = 8


class Ways:
    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self.program = f"{arguments.programs}/wavemill"
        self.stores = arguments.bucket or folder
        self.bucket = arguments.bucket
        made = folder / "made"
        subprocess.run([f"{arguments.programs}/demo-audio", made, "--tracks", str(arguments.tracks)], check=True,
                       stdout=subprocess.DEVNULL)
        self.inputs = {"recipe": "fma-large", "metadata": made / "fma_metadata", "audio": made / "fma_demo",
                       "max_reject_fraction": 1}
        self.sets = {"shards.clips": 100}

    def place(self, name: str) -> str:
        return f"s3://{self.bucket.name}/{name}" if self.bucket else f"{self.stores / name}"

    def run(self, step: str, name: str, *words: str) -> str:
        command = [self.program, step, "-q", "--store", self.place(name), *words]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()

    def given(self) -> list[str]:
        options = [[f"--{name.replace('_', '-')}", str(value)] for name, value in self.inputs.items()]
        sets = [["--set", f"{key}={value}"] for key, value in self.sets.items()]
        return sum(options + sets, [])

    def extract(self, name: str) -> None:
        self.run("extract", name, *self.given())

    def steps(self, name: str) -> None:
        plan = self.run("plan", name, *self.given())
        parts = list(range(1, PARTS + 1)) + random.sample(range(1, PARTS + 1), 3)
        random.shuffle(parts)
        for part in parts:
            self.run("work", name, "--plan", plan, "--part", f"{part}/{PARTS}")
        self.run("commit", name, "--plan", plan)

    def on_ray(self, name: str, **options: Any) -> dict[str, Any]:
        return wr.build(self.place(name), **self.inputs, set=self.sets, progress=False, **options)

    def driver(self, name: str, cluster: Cluster) -> subprocess.Popen[bytes]:
        call = f"import wavemill.ray as wr; wr.build({self.place(name)!r}, **{ {k: str(v) for k, v in self.inputs.items()}!r}, "
        call += f"set={self.sets!r}, address={cluster.address!r}, wait=120)"
        return subprocess.Popen([sys.executable, "-c", call.replace("'1'", "1")], stderr=subprocess.DEVNULL)

    def killed_drivers(self, name: str, cluster: Cluster) -> int:
        """Builds a store by drivers that are killed after up to 30 seconds, and returns their number."""
        for n_killed in range(100):
            driver = self.driver(name, cluster)
            try:
                driver.wait(random.uniform(0, 30))
            except subprocess.TimeoutExpired:
                driver.kill()
                driver.wait()
            else:
                return n_killed
        raise RuntimeError(f"{name}: not built by 100 drivers")

    def lossy_ray(self, name: str, cluster: Cluster) -> None:
        driver = self.driver(name, cluster)
        self.wait_for_receipts(name, lambda: driver.poll() is None)
        driver.send_signal(signal.SIGKILL)
        driver.wait()

        lost = cluster.add_node(num_cpus=1)
        before = self.receipts(name)
        thread = threading.Thread(target=self.on_ray, args=(name,), kwargs={"wait": 120})
        thread.start()
        self.wait_for_receipts(name, thread.is_alive, before + 3)
        cluster.remove_node(lost, allow_graceful=False)
        thread.join()

    def receipts(self, name: str) -> int:
        return len(list((self.stores / name / "_wavemill/receipts").rglob("*.json")))

    def wait_for_receipts(self, name: str, runs: Callable[[], bool], wanted: int = 6) -> None:
        while runs() and self.receipts(name) < wanted:
            time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", required=True, help="folder of the programs")
    parser.add_argument("--tracks", type=int, default=2000)
    parser.add_argument("--drivers", type=int, default=0, help="number of further drivers to kill")
    parser.add_argument("--bucket", type=Path, help="folder with the objects of a bucket")
    arguments = parser.parse_args()
    random.seed(1)

    # Workers import the package from this process's path.
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    with tempfile.TemporaryDirectory(prefix="wavemill-machines-") as name:
        ways = Ways(arguments, Path(name))
        expected: dict[str, str] = {}
        for way, build in {
            "extract": ways.extract, "steps": ways.steps, "ray": ways.on_ray,
            "ray, node lost, driver killed": lambda store: ways.lossy_ray(store, cluster),
        }.items():
            store = way.replace(", ", "-").replace(" ", "-")
            started, used = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
            build(store)
            seconds, now = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
            found = content(ways.stores / store)
            expected = expected or found
            line = {"way": way, "wall_s": round(seconds, 1), "files": len(found), "equal": found == expected}
            if way in ("extract", "steps"):
                cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
                line["cpu_s"] = round(cpu, 1)
            print(json.dumps(line), flush=True)
            if found != expected:
                sys.exit(f"{way}: {sorted(set(found.items()) ^ set(expected.items()))[:4]}")
        n_killed, n_stores = 0, 0
        while n_killed < arguments.drivers:
            store = f"killed-drivers-{n_stores}"
            n_killed += ways.killed_drivers(store, cluster)
            n_stores += 1
            if content(ways.stores / store) != expected:
                sys.exit(f"{store} differs")
            print(json.dumps({"drivers_killed": n_killed, "stores": n_stores, "equal": True}), flush=True)
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main()
