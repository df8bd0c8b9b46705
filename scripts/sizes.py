#!/usr/bin/env python3
"""Measure every Rust file: lines of files and functions, share of doc lines. For orientation only; it never fails.

usage: scripts/sizes.py [ROOT]

The longest files and functions are listed below the table. A table or a `match` may be long; other long code may do two
things.

Function: from its signature to the closing brace at the signature's indentation, which is where rustfmt puts it.
Test modules inside a file are not counted as functions or doc lines; doc lines of `tests/` folders are not counted.
"""

import re
import subprocess
import sys
from pathlib import Path

# Number of the longest files and functions that are printed.
LONGEST = 5
FUNCTION = re.compile(r'^(\s*)(?:pub(?:\([^)]*\))? )?(?:const |async |unsafe |extern "C" )*fn (\w+)')
TEST_MODULE = re.compile(r"^#\[cfg\((?:all\()?test\b")


def functions(lines):
    """Yield (name, first line number, length) of each function with a body."""
    for start, line in enumerate(lines):
        match = FUNCTION.match(line)
        if not match:
            continue
        indent, name = match.groups()
        for end in range(start, len(lines)):
            text = lines[end]
            if end == start and text.rstrip().endswith(("}", ";")):
                break
            if text.rstrip() in (indent + "}", indent + "};"):
                break
            if text.startswith(indent + ")") and text.rstrip().endswith(";"):
                break  # a declaration without a body
        yield name, start + 1, end - start + 1


def percentile(values, share):
    """Return the value below which this share of `values` lies; 0 if there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0


def measure(root, paths):
    """Return one table row per crate, and the lengths of all files and functions with their names."""
    crates, files, named = {}, [], []
    for path in paths:
        lines = (root / path).read_text(encoding="utf-8").splitlines()
        crate = crates.setdefault(path.split("/")[0], {"files": [], "functions": [], "doc": 0, "code": 0})
        cut = next((i for i, line in enumerate(lines) if TEST_MODULE.match(line)), len(lines))
        files.append((len(lines), path))
        is_test = "/tests/" in path or path.startswith("tests/")
        for name, start, length in functions(lines if is_test else lines[:cut]):
            crate["functions"].append(length)
            named.append((length, f"{path}:{start}: fn {name}"))
        crate["files"].append(len(lines))
        if not is_test:
            text = [line.strip() for line in lines[:cut] if line.strip()]
            crate["code"] += len(text)
            crate["doc"] += sum(line.startswith(("///", "//!")) for line in text)
    return crates, files, named


def main():
    """Print the table, and the longest files and functions."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__.strip())
        return 0
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent)
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.rs"],
        cwd=root, capture_output=True, text=True, check=True,
    ).stdout.split()
    crates, all_files, all_functions = measure(root, [path for path in listed if (root / path).exists()])
    print(f"{'crate':<12}{'files':>6}  {'file p50/p90/max':>18}  {'function p50/p90/max':>21}  {'doc':>5}")
    for name, crate in sorted(crates.items()):
        files, lengths = crate["files"], crate["functions"]
        file_text = "/".join(str(n) for n in (percentile(files, 0.5), percentile(files, 0.9), max(files)))
        longest = max(lengths, default=0)
        function_text = "/".join(str(n) for n in (percentile(lengths, 0.5), percentile(lengths, 0.9), longest))
        share = f"{100 * crate['doc'] / crate['code']:.0f} %" if crate["code"] else "-"
        print(f"{name:<12}{len(files):>6}  {file_text:>18}  {function_text:>21}  {share:>5}")
    for lengths in (all_files, all_functions):
        print()
        for length, name in sorted(lengths, reverse=True)[:LONGEST]:
            print(f"{length:>6}  {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
