#!/usr/bin/env python3
"""Writes docs/benchmarks/gpu.md from the results of a run on a GPU.

usage: scripts/gpu_check.sh report FOLDER… [--out FILE]
  FOLDER       results folder of `run`, which contains results.json; of several, each step is taken from the last one
  --out FILE   output file (default: docs/benchmarks/gpu.md)

Fails if the run had no GPU.
"""

import argparse
import json
import sys
from pathlib import Path

from run import summary

ROOT = Path(__file__).resolve().parents[2]
# Steps of which the page has only the figures; the results folder has their output.
FIGURES_ONLY = {"machine", "ncu", "train"}


def cell(text):
    """Formats text as a table cell on one line."""
    return str(text).replace("|", "\\|").replace("\n", " ")


def machine_lines(found):
    """Yields the lines with date, machine and versions."""
    machine = found["machine"]
    build = machine["build"]
    yield f"{'; '.join(machine['gpu'])}. {machine['cpu']}, {machine['cores']} cores. {machine['system']}."
    yield ""
    versions = ", ".join(f"{name} {value}" for name, value in build.items())
    yield f"{found['date']}; torch {machine['torch'] or 'absent'}; built from {versions or 'an unknown revision'}."


def step_table(steps):
    """Yields the lines of the table of steps."""
    yield "| step | result | seconds | details |"
    yield "|---|---|---:|---|"
    for step in steps:
        figures = ", ".join(f"{name} {value}" for name, value in step["figures"].items())
        found = "; ".join(part for part in (step["why"], figures) if part) or step["title"]
        yield f"| {step['step']} | {step['result']} | {step['seconds']:.1f} | {cell(found)} |"


def page(found):
    """Returns the text of the page."""
    steps = found["steps"]
    lines = ["# GPU check", ""]
    lines += [f"Written by `scripts/gpu_check.sh report` from the results of `{found['call']}`.", ""]
    lines += [*machine_lines(found), ""]
    lines += [f"{summary(steps)}.", ""]
    lines += [*step_table(steps), ""]
    for step in steps:
        if step["text"] and step["step"] not in FIGURES_ONLY:
            lines += [f"## {step['title'][0].upper()}{step['title'][1:]}", "", "```", *step["text"], "```", ""]
    return "\n".join(lines)


def read(folder):
    """Returns the results of a run."""
    results = folder / "results.json"
    if not results.is_file():
        sys.exit(f"{results} does not exist: run scripts/gpu_check.sh run {folder}")
    found = json.loads(results.read_text())
    if not found["machine"]["gpu"] or all(step["result"] == "not run" for step in found["steps"]):
        sys.exit(f"{folder}: no step was run on a GPU, so no page is written")
    return found


def merged(runs):
    """Returns the results of the first run, with steps replaced by those of later runs."""
    found = runs[0]
    for later in runs[1:]:
        if later["machine"]["gpu"] != found["machine"]["gpu"]:
            sys.exit(f"different GPUs: {later['machine']['gpu']} and {found['machine']['gpu']}")
        again = {step["step"]: step for step in later["steps"]}
        found["steps"] = [again.get(step["step"], step) for step in found["steps"]]
        found["call"] += f"; {later['call']}"
    return found


def main():
    parser = argparse.ArgumentParser(prog="scripts/gpu_check.sh report", usage=__doc__.split("\n\n")[1][7:])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "docs/benchmarks/gpu.md")
    asked = parser.parse_args()
    runs = [read(folder) for folder in asked.folders]
    asked.out.write_text(page(merged(runs)))
    print(asked.out)


if __name__ == "__main__":
    main()
