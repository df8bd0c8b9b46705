#!/usr/bin/env python3
"""Execute the code cells of a notebook in order; the first exception ends it, with the number of its cell.

usage: run_notebook.py FILE.ipynb
"""
import json
import sys


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        cells = json.load(file)["cells"]
    names = {"__name__": "__main__"}
    for number, cell in enumerate(cells, 1):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{sys.argv[1]}, cell {number}", "exec"), names)


if __name__ == "__main__":
    main()
