#!/usr/bin/env python3
"""Count properties that make Rust code slow to read: prints one row per folder, and one for all folders.

  long      functions of 20 lines or more, and the share of them without a blank line: nothing shows where one step ends
            and the next begins
  closures  closures bound to a name (`let f = |…|`), per 1,000 lines of code: a definition to keep in mind until it is used
  tuples    several variables bound by one tuple (`let (a, b) = (…)`), and parameters that are a tuple pattern
            (`(a, b): (A, B)`), per 1,000 lines of code
  comments  share of lines that are comments but not documentation, followed by the share of documentation
  width     the 90th percentile of the width of a line of code, characters
  lines     the 50th and the 90th percentile of the length of a function

Tests (folders and files of that name, `#[cfg(test)]` modules at a file's end) and target are not counted.
The figures are for orientation: a low figure does not make code clear, and none is a limit.
"""

import argparse
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

FOLDERS = ["options", "schemas", "fft", "kernels", "pages", "pipeline", "loader", "scores", "trainer", "demo-audio"]
LONG_LINES = 20

SKIPPED = re.compile(
    r"(^|/)(target|tests?|benches|examples|fuzz)/|(^|/)(\w+_)?(tests?|testing|fixture)\.rs$"
)
TEST_MODULE = re.compile(r"^#\[cfg\((?:all\()?test\b[^\n]*\n(?:pub(?:\([a-z]+\))? )?mod \w+ \{", re.M)
# Comments, raw strings, strings, characters (but not lifetimes, which have no closing quote).
NOT_CODE = re.compile(
    r'//[^\n]*|/\*.*?\*/|r(?P<hashes>#*)".*?"(?P=hashes)|"(?:\\.|[^"\\])*"|\'(?:\\.[^\']*|[^\'\\])\'', re.S
)
FUNCTION = re.compile(r"\bfn\s+(\w+)")
CLOSURE = re.compile(r"\blet (?:mut )?\w+ = (?:move )?\|")
TUPLE = re.compile(r"\blet \([^)]*\) =\s*\(")
TUPLE_PARAMETER = re.compile(r"[(,]\s*\([a-z_, ]+\): \(")


@dataclass
class Function:
    """A function with a body, from its signature to its closing brace."""

    place: str
    lines: int
    characters: int
    has_blank_line: bool


@dataclass
class Counts:
    """Counts over some files."""

    lines: int = 0
    comments: int = 0
    docs: int = 0
    closures: int = 0
    tuples: int = 0
    widths: list = field(default_factory=list)
    functions: list = field(default_factory=list)

    def add(self, other):
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def long(self):
        return [function for function in self.functions if function.lines >= LONG_LINES]


def count(path):
    """Returns the counts of one file."""
    source = path.read_text(encoding="utf-8")
    tests = TEST_MODULE.search(source)
    if tests:
        source = source[: tests.start()]
    lines = source.split("\n")
    counts = Counts(lines=len(lines))

    for line in lines:
        text = line.strip()
        if text.startswith(("///", "//!")):
            counts.docs += 1
        elif text.startswith("//"):
            counts.comments += 1
        elif text:
            counts.widths.append(len(line))

    # Braces and bars in a string are not code.
    code = NOT_CODE.sub(blanked, source)
    counts.closures = len(CLOSURE.findall(code))
    counts.tuples = len(TUPLE.findall(code)) + len(TUPLE_PARAMETER.findall(code))
    for name, first, last in functions(code):
        body = lines[first : last + 1]
        counts.functions.append(
            Function(
                place=f"{path}:{first + 1} {name}",
                lines=len(body),
                characters=sum(map(len, body)),
                has_blank_line=any(not line.strip() for line in body),
            )
        )
    return counts


def blanked(match):
    """Replaces a match by spaces, so that the following text keeps its offset and line."""
    return re.sub(r"[^\n]", " ", match.group())


def functions(code):
    """Yields name, first and last line (from 0) of each function with a body."""
    for match in FUNCTION.finditer(code):
        start = body_start(code, match.end())
        if start is None:
            continue

        depth = 0
        for end in range(start, len(code)):
            depth += (code[end] == "{") - (code[end] == "}")
            if depth == 0:
                yield match.group(1), code.count("\n", 0, match.start()), code.count("\n", 0, end)
                break


def body_start(code, at):
    """Returns the offset of a function's opening brace; None for a declaration, which ends with a semicolon."""
    depth = 0
    while at < len(code):
        if depth == 0 and code[at] in "{;":
            return at if code[at] == "{" else None
        depth += (code[at] in "([") - (code[at] in ")]")
        at += 1
    return None


def files_of(place):
    """Returns the Rust files of a folder that are counted, or the file itself."""
    if place.is_file():
        return [place]
    return [path for path in sorted(place.rglob("*.rs")) if not SKIPPED.search(path.relative_to(place).as_posix())]


def percentile(values, share):
    """Returns the value below which this share of `values` lies; 0 if there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0


HEAD = (
    f"{'':<14}{'code':>7}{'long':>7}{'unbroken':>10}{'closures':>10}{'tuples':>8}"
    f"{'comments':>10}{'docs':>8}{'width':>7}{'lines':>8}"
)


def row(name, counts):
    """Returns one line of the table."""
    code_lines = max(len(counts.widths), 1)
    long = counts.long()
    unbroken = sum(not function.has_blank_line for function in long)
    lengths = [function.lines for function in counts.functions]
    return (
        f"{name[-14:]:<14}{code_lines:>7}{len(long):>7}{100 * unbroken / max(len(long), 1):>8.0f} %"
        f"{1000 * counts.closures / code_lines:>10.1f}{1000 * counts.tuples / code_lines:>8.1f}"
        f"{100 * counts.comments / max(counts.lines, 1):>8.1f} %{100 * counts.docs / max(counts.lines, 1):>6.1f} %"
        f"{percentile(counts.widths, 0.9):>7}{percentile(lengths, 0.5):>5}/{percentile(lengths, 0.9)}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", nargs="*", type=Path, help=f"folders or files (default: {' '.join(FOLDERS)})")
    worst = "list the N longest functions without a blank line"
    parser.add_argument("--worst", type=int, default=0, metavar="N", help=worst)
    options = parser.parse_args()
    places = options.places or [Path(__file__).parent.parent / name for name in FOLDERS]

    missing = [str(place) for place in places if not place.exists()]
    if missing:
        print(f"reading: {', '.join(missing)} not found", file=sys.stderr)
        return 2

    print(HEAD)
    total = Counts()
    for place in places:
        counts = Counts()
        for path in files_of(place):
            counts.add(count(path))
        print(row(place.name, counts))
        total.add(counts)
    if len(places) > 1:
        print(row("all", total))

    unbroken = [function for function in total.long() if not function.has_blank_line]
    unbroken.sort(key=lambda function: function.characters, reverse=True)
    for function in unbroken[: options.worst]:
        print(f"{function.lines:>5} lines: {function.place}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
