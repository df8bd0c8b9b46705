#!/usr/bin/env python3
"""Draw README's chart of CPU time per MP3 from the table in docs/benchmarks/extract.md.

usage: scripts/peers/speed_chart.py [--check]

Writes docs/images/speed.svg and speed-dark.svg. --check writes nothing, and fails if the committed pictures are not
those that the table gives. `scripts/bench.sh extract` starts this script after it has written the table.
"""

import re
import sys
from html import escape
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"
# A row of the table: name, best, median and worst CPU milliseconds per clip.
ROW = re.compile(r"^\| (.+?) \| ([\d.]+) \| [\d.]+ \| [\d.]+ \|$", re.M)

# Lengths are in pixels, at a width that phones show without making the text much smaller.
WIDTH, ROW_HEIGHT, BAR_HEIGHT, TOP = 480, 34, 20, 54
BARS_LEFT, LONGEST_BAR = 236, 186
# The colours of wavemill's reports (pipeline/pages/src/style.css): text, muted text, wavemill, peers.
THEMES = {
    "speed.svg": ("#1d2126", "#5d6570", "#2f6fb0", "#a9b0b8"),
    "speed-dark.svg": ("#e6e9ec", "#a0a8b2", "#6aa9e8", "#5d6670"),
}


def measurements():
    """Returns name and best CPU milliseconds of each row of the table, fastest first."""
    rows = ROW.findall((DOCS / "benchmarks" / "extract.md").read_text(encoding="utf-8"))
    if not rows:
        sys.exit("docs/benchmarks/extract.md: no row of a table with best, median and worst")
    return sorted(((name.removesuffix(", 1 thread"), float(best)) for name, best in rows), key=lambda row: row[1])


def chart(rows, text, muted, ours, peers):
    """Returns the chart as SVG: a bar for each row, with its name to the left and its value to the right."""
    slowest = rows[-1][1]
    height = TOP + ROW_HEIGHT * len(rows)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'role="img" font-family="system-ui,-apple-system,\'Segoe UI\',Roboto,\'Noto Sans\',sans-serif" font-size="14">',
        "<title>CPU time to convert an MP3 of 30 s to a log-mel spectrogram</title>",
        f'<text x="0" y="17" fill="{text}" font-size="16" font-weight="600">CPU time per MP3 of 30 s, to a log-mel</text>',
        f'<text x="0" y="38" fill="{muted}">ms on one core; shorter is better</text>',
    ]
    for number, (name, ms) in enumerate(rows):
        top = TOP + ROW_HEIGHT * number + (ROW_HEIGHT - BAR_HEIGHT) // 2
        baseline = top + BAR_HEIGHT - 5
        length = round(LONGEST_BAR * ms / slowest, 1)
        is_ours = name.startswith("wavemill")
        weight = ' font-weight="600"' if is_ours else ""
        lines += [
            f'<text x="{BARS_LEFT - 10}" y="{baseline}" fill="{text}" text-anchor="end"{weight}>{escape(name)}</text>',
            f'<rect x="{BARS_LEFT}" y="{top}" width="{length}" height="{BAR_HEIGHT}" rx="3" fill="{ours if is_ours else peers}"/>',
            f'<text x="{BARS_LEFT + length + 8:g}" y="{baseline}" fill="{text}"{weight}>{ms:.0f}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])


def main():
    """Write or check both pictures."""
    if sys.argv[1:] not in ([], ["--check"]):
        sys.exit(__doc__)
    rows = measurements()
    for name, theme in THEMES.items():
        file, drawing = DOCS / "images" / name, chart(rows, *theme)
        if not sys.argv[1:]:
            file.write_text(drawing, encoding="utf-8")
        elif not file.exists() or file.read_text(encoding="utf-8") != drawing:
            sys.exit(f"docs/images/{name} does not show docs/benchmarks/extract.md: run scripts/peers/speed_chart.py")


if __name__ == "__main__":
    main()
