"""The command's programs: found in the package's folder, and the trainer with the torch that is installed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import support
from wavemill import _programs

#: Version of torch that the tests' trainer needs.
NEEDED = "2.11.0"


class ProgramsTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        self.bin = self.root / "bin"
        self.bin.mkdir()
        trainer = self.bin / "wavemill-train"
        trainer.write_text("#!/bin/sh\necho $LD_LIBRARY_PATH\n")
        trainer.chmod(0o755)
        (self.bin / "torch-version").write_text(NEEDED)
        for patch in (mock.patch.object(_programs, "FOLDER", self.bin), mock.patch.dict(os.environ)):
            patch.start()
            self.addCleanup(patch.stop)
        os.environ.pop("LIBTORCH", None)

    def with_torch(self, version: str | None) -> str | None:
        """Return the problem with this version of torch as the only installed package."""
        packages = self.root / f"packages-{version}"
        packages.mkdir()
        if version:
            (packages / "torch").mkdir()
            (packages / "torch/__init__.py").write_text("raise AssertionError('imported')")
            info = packages / f"torch-{version}.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
        with mock.patch.object(sys, "path", [str(packages)]), mock.patch.dict(sys.modules):
            for name in [name for name in sys.modules if name.partition(".")[0] == "torch"]:
                del sys.modules[name]
            return _programs.prepare(["train", "models"])

    def test_the_trainer_uses_the_installed_torch(self) -> None:
        for version in (NEEDED, f"{NEEDED}+cpu"):
            os.environ["LD_LIBRARY_PATH"] = "/others"
            self.assertIsNone(self.with_torch(version))
            said = subprocess.run(["wavemill-train"], check=True, capture_output=True, text=True).stdout
            self.assertEqual(said, f"{self.root}/packages-{version}/torch/lib:/others\n")

    def test_without_the_right_torch_the_message_names_the_command_that_installs_it(self) -> None:
        remedy = f"pip install torch=={NEEDED}"
        self.assertEqual(
            self.with_torch(None), f"wavemill-train needs torch {NEEDED}, and it is not installed: {remedy}"
        )
        self.assertEqual(
            self.with_torch("2.12.0"), f"wavemill-train needs torch {NEEDED}, and 2.12.0 is installed: {remedy}"
        )

    def test_only_commands_that_start_the_trainer_need_torch(self) -> None:
        cases = {
            "train fit --store store": True,
            "train --help": True,
            "predict --run runs/1 song.mp3": True,
            "predict --help": False,
            "demo": False,
            "demo folder --train": True,
            "experiment list": False,
            "experiment run fma-large": True,
            "export --store store --out train": False,
            "": False,
        }
        for line, needs in cases.items():
            with self.subTest(line):
                self.assertEqual(_programs._needs_trainer(line.split()), needs)

    def test_libtorch_of_the_environment_wins(self) -> None:
        os.environ["LIBTORCH"] = "/opt/libtorch"
        self.assertIsNone(_programs.prepare(["demo", "--train"]))
        self.assertEqual(os.environ["LD_LIBRARY_PATH"].split(":")[0], "/opt/libtorch/lib")

    def test_the_demo_needs_only_the_programs_of_the_package(self) -> None:
        (self.bin / "demo-audio").symlink_to(support.program("demo-audio"))
        code = (
            "import sys; from pathlib import Path; from wavemill import __main__, _programs;"
            f"_programs.FOLDER = Path({str(self.bin)!r}); __main__.main()"
        )
        words = [sys.executable, "-c", code, "demo", "my demo", "--tracks", "40"]
        ran = subprocess.run(words, cwd=self.root, capture_output=True, text=True)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        again = f"{sys.executable} -m wavemill"
        self.assertIn(f"\n  {again} report --store 'my demo/store'\n  {again} demo 'my demo' --train\n", ran.stderr)


if __name__ == "__main__":
    unittest.main()
