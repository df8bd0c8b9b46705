"""Runs the blocks of Python on the pages for users: README.md and docs/*.md.

`ignore: REASON` after the word `python` excludes a block. All blocks of a page run in order in one process, in a folder
with the demo's archive as `data` and its store as `store`. The commands of the pages are run by
`tests/runs/tests/pages.rs`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import support

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```python(?P<info>[^\n]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[str]:
    """Return the blocks that are run, each after as many empty lines as put it on its line of the page."""
    text = page.read_text(encoding="utf-8")
    found = []
    for block in BLOCK.finditer(text):
        info = block["info"].strip()
        if not info:
            found.append("\n" * text.count("\n", 0, block.start("code")) + block["code"])
        elif not re.match(r"ignore: \S", info):
            raise AssertionError(f"{page.name}: `{info}` is not `ignore: REASON`")
    return found


class PagesTest(unittest.TestCase):
    def test_blocks_run(self) -> None:
        run = 0
        for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
            code = blocks(page)
            run += len(code)
            if code:
                with self.subTest(page.name), tempfile.TemporaryDirectory() as folder:
                    self.run_blocks(page, code, Path(folder))
        self.assertGreater(run, 0)

    def run_blocks(self, page: Path, code: list[str], folder: Path) -> None:
        """Run the blocks of a page in one process, in a copy of the demo's archive and store."""
        archive = support.demo_archive()
        shutil.copytree(archive, folder / "data")
        shutil.copytree(support.demo_store(), folder / "store")
        songs = sorted((archive / "fma_demo").rglob("*.mp3"), key=lambda song: -song.stat().st_size)
        shutil.copy(songs[0], folder / "song.mp3")

        program = f"for code in {code!r}: exec(compile(code, {page.name!r}, 'exec'), globals())"
        ran = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False)
        self.assertEqual(ran.returncode, 0, ran.stderr)


if __name__ == "__main__":
    unittest.main()
