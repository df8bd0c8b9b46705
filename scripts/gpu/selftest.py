#!/usr/bin/env python3
"""Tests scripts/gpu_check.sh with stand-ins for the programs that it starts; needs no GPU and no build.

usage: scripts/gpu/selftest.py
"""

import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from run import can_read_ahead  # noqa: E402
from steps import FIRST, NEED_TORCH, STEPS, bench_figures  # noqa: E402

INFO = {"usable": True, "problem": None, "devices": [{"name": "Stand-in"}], "libraries": []}
TESTS_PASS = "echo 'test result: ok. 3 passed; 0 failed; 0 ignored'"
NO_TEST = "echo 'test result: ok. 0 passed; 0 failed; 3 ignored'"


class Machine:
    """A folder with stand-ins for the packed programs and for NVIDIA's tools."""

    def __init__(self, folder, gpu=True, **programs):
        self.folder = Path(folder)
        for name in ("bin", "path", "data/librosa_ref/fma000002"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "BUILD").write_text("wavemill: 0123abc\nrustc: 1.90.0\n")
        if gpu:
            self.write("path/nvidia-smi", 'if [ "$1" = -L ]; then echo "GPU 0: Stand-in"; else echo "Stand-in, 580, 1 MiB"; fi')
        programs = {"wavemill": f"echo '{json.dumps(INFO)}'", "kernels-lib": TESTS_PASS} | programs
        for name, text in programs.items():
            self.write(f"bin/{name}", text)

    def write(self, name, text):
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def run(self, *words):
        """Returns (finished process, step -> its line, folder of results)."""
        results = self.folder / "results"
        command = [sys.executable, HERE / "run.py", results, "--packed", self.folder, *words]
        environment = {**os.environ, "PATH": f"{self.folder / 'path'}:/usr/bin:/bin"}
        for name in ("VIRTUAL_ENV", "LD_LIBRARY_PATH"):
            environment.pop(name, None)
        ran = subprocess.run(command, env=environment, capture_output=True, text=True)
        found = json.loads((results / "results.json").read_text())
        return ran, {line["step"]: line for line in found["steps"]}, results


class Run(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def test_a_failure_stops_nothing_and_is_told(self):
        machine = Machine(self.folder, wavemill="echo no such call >&2; exit 3")
        ran, steps, results = machine.run("--steps", "machine,open,parity")
        self.assertEqual(ran.returncode, 1)
        self.assertEqual([step["result"] for step in steps.values()], ["failed", "passed", "passed"])
        self.assertEqual(steps["machine"]["why"], "wavemill: exit code 3: no such call")
        self.assertIn("no such call", (results / "log.txt").read_text())

    def test_all_that_was_asked_for_passed(self):
        ran, steps, _ = Machine(self.folder).run("--steps", "machine,open")
        self.assertEqual((ran.returncode, steps["open"]["figures"]), (0, {"tests": 3}), ran.stdout + ran.stderr)
        self.assertTrue(ran.stdout.startswith("scripts/gpu_check.sh run "), ran.stdout)
        self.assertIn(" --steps machine,open\n", ran.stdout)

    def test_a_program_that_runs_no_test_has_not_passed(self):
        ran, steps, _ = Machine(self.folder, **{"kernels-lib": NO_TEST}).run("--steps", "open")
        self.assertEqual((ran.returncode, steps["open"]["result"]), (1, "failed"))

    def test_a_program_without_end_is_ended_with_what_it_started(self):
        machine = Machine(self.folder, **{"kernels-lib": f"sleep 60 & echo $! >{self.folder}/child; wait"})
        # 6 s in total; the limit of the step itself is longer. A step with less than one second left does not begin.
        ran, steps, _ = machine.run("--steps", "open,machine", "--minutes", "0.1")
        self.assertEqual((ran.returncode, steps["open"]["result"]), (1, "failed"))
        self.assertIn("ran past the step's", steps["open"]["why"])
        child = int((Path(self.folder) / "child").read_text())
        state = Path(f"/proc/{child}/stat")
        self.assertTrue(not state.exists() or state.read_text().split()[2] == "Z")

    def test_a_missing_program_is_a_failure(self):
        ran, steps, _ = Machine(self.folder).run("--steps", "bench,machine")
        self.assertEqual((steps["bench"]["result"], steps["machine"]["result"]), ("failed", "passed"))
        self.assertIn("bench-cuda", steps["bench"]["why"])

    def test_every_case_of_the_bench_has_its_own_figures(self):
        out = (
            "cuda:0 (Stand-in): sm_90\n\n44,100 Hz stereo s16, batches of 64 clips\n  decimate 1 x 0.1 ms\n"
            "samples on the device: 70 clips/s\nwith copies to page-locked memory, 2 lanes: 60 clips/s, 0.3 GB/s\n"
            "\n22,050 Hz mono s16, batches of 64 clips\nsamples on the device: 90 clips/s\n"
        )
        self.assertEqual(
            bench_figures(out),
            {
                "44,100 Hz stereo s16: resident": "70 clips/s",
                "44,100 Hz stereo s16: to page-locked memory": "60 clips/s",
                "22,050 Hz mono s16: resident": "90 clips/s",
            },
        )

    def test_limits_of_all_steps_fit_into_nine_minutes_and_those_of_a_first_run_into_165_s(self):
        limits = {step.name: step.limit_s for step in STEPS}
        self.assertLessEqual(sum(limits.values()), 9 * 60)
        self.assertLessEqual(sum(limits[name] for name in FIRST), 165)
        help_text = subprocess.run([HERE.parent / "gpu_check.sh", "--help"], capture_output=True, text=True).stdout
        self.assertIn(f"  scripts/gpu_check.sh run FOLDER --steps {','.join(FIRST)}\n", help_text)
        self.assertEqual(FIRST, [name for name in limits if name in FIRST], "the order in which they run")

    def test_torch_is_read_ahead_only_for_steps_that_need_it_and_after_the_bench(self):
        steps = {step.name: step for step in STEPS}

        def may(*names):
            return can_read_ahead([steps[name] for name in names])

        self.assertFalse(may(*FIRST))
        self.assertFalse(may("bench", "train"))
        self.assertTrue(may("train"))
        self.assertTrue(may("machine", "nccl"))
        self.assertFalse(may("ncu", "parity"))

        order = list(steps)
        for name in NEED_TORCH:
            self.assertLess(order.index("bench"), order.index(name))


class Report(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def report(self, steps, gpu=("Stand-in",)):
        machine = {"gpu": list(gpu), "cpu": "CPU", "cores": 4, "system": "Linux", "torch": None, "build": {"wavemill": "0123abc"}}
        found = {"date": "2001-02-03", "call": "run", "machine": machine, "steps": steps}
        (self.folder / "results.json").write_text(json.dumps(found))
        command = [sys.executable, HERE / "report.py", self.folder, "--out", self.folder / "gpu.md"]
        return subprocess.run(command, capture_output=True, text=True)

    def step(self, **other):
        line = {"step": "bench", "title": "clips a second", "result": "passed", "why": "", "seconds": 1.5}
        return line | {"limit_s": 45, "figures": {"44 kHz": "7 clips/s"}, "text": ["line | one"]} | other

    def test_a_page_has_machine_date_versions_and_every_step(self):
        steps = [self.step(), self.step(step="ncu", result="not run", why="ncu is not installed", figures={}, text=[])]
        self.assertEqual(self.report(steps).returncode, 0)
        page = (self.folder / "gpu.md").read_text()
        for words in ("Stand-in. CPU, 4 cores", "2001-02-03; torch absent; built from wavemill 0123abc", "line | one"):
            self.assertIn(words, page)
        self.assertIn("| bench | passed | 1.5 | 44 kHz 7 clips/s |", page)
        self.assertIn("| ncu | not run | 1.5 | ncu is not installed |", page)
        self.assertIn("2 steps: 1 passed, 0 failed, 1 not run.", page)

    def test_no_page_is_made_of_nothing(self):
        for found in ([[self.step(result="not run")]], [[self.step()], ()]):
            self.assertNotEqual(self.report(*found).returncode, 0)
            self.assertFalse((self.folder / "gpu.md").exists())


if __name__ == "__main__":
    unittest.main()
