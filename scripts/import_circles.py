#!/usr/bin/env python3
"""Finds circular imports between the folders of a crate. Called by scripts/check_deps.sh.

A node is a folder below src/, or a file at the top of src/. An edge is a path (`crate::…`, `super::…`, `self::…`) outside
tests. Edges connect siblings of the same parent folder: `decode/flac/frames.rs` -> `decode::mp3` is an edge from
`decode/flac` to `decode/mp3`, and `decode/mod.rs` -> `source` is an edge from `decode` to `source`. Paths between a folder
and its own contents are not edges. Files of one folder may use each other freely. Uses a few regular expressions instead
of a parser.

usage: scripts/import_circles.py
"""

import re
import sys
from glob import glob
from pathlib import Path

# Folders with a manifest.
CRATES = ["schemas/*", "kernels/*", "pipeline/*", "trainer/*", "tests/*", "python"]

# Crates of one trade: the files at the top of src/ are one room and may use each other freely, like the files of a folder.
ONE_ROOM = {"options", "source", "decode", "catalog", "versions", "store", "sql"}

PATH = re.compile(r"(?<![\w$:])(crate|super|self)::(?=[\w{*])")
TEST_MODULE = re.compile(r"#\[cfg\((?:test|(?:all|any)\(test\b[^]]*)\)\]\s*(?:pub(?:\([^)]*\))?\s+)?mod\s+(\w+)\s*(;|\{)")


def without_comments(text):
    """Removes comments and the contents of strings; keeps the lines."""
    pattern = r'//[^\n]*|/\*.*?\*/|r(#*)".*?"\1|"(?:\\.|[^"\\])*"'
    return re.sub(pattern, lambda found: "\n" * found[0].count("\n"), text, flags=re.S)


def without_test_modules(text):
    """Removes `#[cfg(test)] mod name { … }`; returns the rest and the names of test modules in their own files."""
    files = set()
    while found := TEST_MODULE.search(text):
        end = found.end()
        if found[2] == ";":
            files.add(found[1])
        else:
            depth = 1
            while depth and end < len(text):
                depth += {"{": 1, "}": -1}.get(text[end], 0)
                end += 1
        text = text[: found.start()] + text[end:]
    return text, files


def expanded(text, at):
    """Returns the paths of the use tree that begins at `at`, as lists of names."""
    if text[at] != "{":
        name = re.compile(r"\w+|\*").match(text, at)
        if not name:
            return []
        if text.startswith("::", name.end()) and re.match(r"[\w{*]", text[name.end() + 2 : name.end() + 3]):
            return [[name[0], *rest] for rest in expanded(text, name.end() + 2)]
        return [[name[0]]]
    paths, depth, start = [], 0, at + 1
    for i in range(at, len(text)):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if (text[i] == "," and depth == 1) or depth == 0:
            item = text[start:i].strip()
            if item:
                paths += expanded(item, 0)
            start = i + 1
        if depth == 0:
            break
    return paths


def modules(src):
    """Returns module path -> text outside tests, for every file that is not a test."""
    texts, tests = {}, set()
    for file in sorted(src.rglob("*.rs")):
        names = list(file.relative_to(src).with_suffix("").parts)
        if names[-1] == "mod" or names in (["lib"], ["main"]):
            names.pop()
        text, test_files = without_test_modules(without_comments(file.read_text()))
        tests |= {(*names, name) for name in test_files}
        texts[(file, tuple(names))] = text
    is_test = lambda names: any(names[:n] in tests for n in range(1, len(names) + 1))
    return {key: text for key, text in texts.items() if not is_test(key[1])}


def root_names(texts):
    """Returns the names that the crate's root re-exports: name -> path."""
    names = {}
    for (file, module), text in texts.items():
        if module:
            continue
        for found in re.finditer(r"\bpub(?:\([^)]*\))?\s+use\s+(?:crate::|self::)?", text):
            for path in expanded(text, found.end()):
                names[path[-1]] = path
    return names


def edges(src, is_one_room):
    """Returns (parent, from, to) -> files that contain the edge."""
    texts = modules(src)
    folders = {tuple(folder.relative_to(src).parts) for folder in src.rglob("*") if folder.is_dir()}
    known = {module for _, module in texts} | folders
    root = root_names(texts)
    found = {}
    for (file, module), text in texts.items():
        for match in PATH.finditer(text):
            for path in expanded(text, match.end()):
                base = {"crate": (), "self": module, "super": module[:-1]}[match[1]]
                while path and path[0] == "super":
                    base, path = base[:-1], path[1:]
                if not base and path and (path[0],) not in known and path[0] in root:
                    path = root[path[0]]
                target = (*base, *path)
                while target and target not in known:
                    target = target[:-1]
                same = 0
                while same < min(len(module), len(target)) and module[same] == target[same]:
                    same += 1
                if same == len(module) or same == len(target):
                    continue
                one, other = module[: same + 1], target[: same + 1]
                if (same == 0 and not is_one_room) or (one in folders and other in folders):
                    files = found.setdefault((module[:same], one[-1], other[-1]), set())
                    files.add(str(file.relative_to(src)))
    return found


def circles(found):
    """Returns groups of nodes that reach each other, with their parent."""
    reach = {}
    for parent, one, other in found:
        reach.setdefault((parent, one), set()).add((parent, other))
    for node in list(reach):
        waiting, seen = list(reach[node]), set()
        while waiting:
            next_node = waiting.pop()
            if next_node not in seen:
                seen.add(next_node)
                waiting += reach.get(next_node, ())
        reach[node] = seen
    groups = {frozenset(other for other in seen if node in reach.get(other, ())) for node, seen in reach.items() if node in seen}
    return sorted(groups, key=sorted)


def main():
    faults = []
    for crate in sorted(Path(manifest).parent for group in CRATES for manifest in glob(f"{group}/Cargo.toml")):
        found = edges(crate / "src", crate.name in ONE_ROOM)
        for group in circles(found):
            parent = next(iter(group))[0]
            names = sorted("/".join((*path, name)) for path, name in group)
            faults.append("%s: folders import each other in a circle: %s" % (crate, ", ".join(names)))
            for (where, one, other), files in sorted(found.items()):
                if where == parent and (parent, one) in group and (parent, other) in group:
                    faults.append("    %s -> %s in %s" % (one, other, ", ".join(sorted(files))))
    for fault in faults:
        print("check_deps:", fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
