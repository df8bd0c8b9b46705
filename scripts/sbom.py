#!/usr/bin/env python3
"""Writes a software bill of materials of the programs, or checks the page on dependencies.

usage: scripts/sbom.py -p wavemill [-p wavemill-trainer …] > sbom.json
       scripts/sbom.py --check docs/dependencies.md

The bill is CycloneDX 1.5 in JSON. It contains the crates that `cargo build` with the same `-p` compiles for Linux on
x86_64, with their normal and build dependencies and without those of tests. A crate that is only used during the build
(build scripts, procedural macros) has scope `excluded`. The same sources give the same bytes: there is no time in it,
and the serial number is computed from the content.

--check fails if a third-party crate that a manifest names, other than for tests, has no line in the table of the page,
or if a line names any other crate.
"""

import argparse
import json
import re
import subprocess
import sys
import uuid
from pathlib import Path
from urllib.parse import quote

ROOT = Path(__file__).resolve().parent.parent
TARGET = "x86_64-unknown-linux-gnu"
# Depth in the tree, name, version, licence. `(*)` marks a crate whose dependencies were already listed.
TREE_LINE = re.compile(r"^(\d+)(\S+) v([^ |]+)[^|\n]*\|(.*?)(?: \(\*\))?$", re.M)
LOCK_ENTRY = re.compile(r'^name = "(.+)"\nversion = "(.+)"\nsource = ".+"\nchecksum = "(.+)"$', re.M)
PAGE_LINE = re.compile(r"^\| `([\w-]+)` \|", re.M)


def cargo(*arguments):
    """Returns the output of a cargo command."""
    command = ["cargo", *arguments, "--locked"]
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout


def tree(packages, edges):
    """Reads `cargo tree`. Returns the licence of each crate, its direct dependencies, and the roots.

    A crate is a pair of name and version. Unlike `cargo metadata`, the tree resolves features for these packages alone
    and without their tests.
    """
    options = [option for package in packages for option in ("-p", package)]
    text = cargo("tree", *options, "--edges", edges, "--target", TARGET, "--prefix", "depth", "--format", "{p}|{l}")
    licences, dependencies, path = {}, {}, []
    for depth, name, version, licence in TREE_LINE.findall(text):
        crate = (name, version)
        licences[crate] = licence.replace("/", " OR ")
        dependencies.setdefault(crate, set())
        path[int(depth):] = [crate]
        if len(path) > 1:
            dependencies[path[-2]].add(crate)
    roots = [(name, version) for depth, name, version, _ in TREE_LINE.findall(text) if depth == "0"]
    return licences, dependencies, sorted(roots, key=lambda root: packages.index(root[0]))


def reference(crate):
    """Returns the identifier of a crate within the bill."""
    return "@".join(crate)


def bill(packages):
    """Returns the bill of materials of these packages. The first one is its subject."""
    licences, dependencies, roots = tree(packages, "normal,build")
    linked = tree(packages, "normal,no-proc-macro")[0]
    lock = (ROOT / "Cargo.lock").read_text()
    checksums = {(name, version): sha256 for name, version, sha256 in LOCK_ENTRY.findall(lock)}

    def component(crate):
        """Describes a crate. The crates of this repository have neither a checksum nor an address in a registry."""
        name, version = crate
        part = {"type": "application" if crate in roots else "library", "bom-ref": reference(crate), "name": name,
                "version": version, "scope": "required" if crate in linked else "excluded"}
        if crate in checksums:
            part["hashes"] = [{"alg": "SHA-256", "content": checksums[crate]}]
            part["purl"] = f"pkg:cargo/{name}@{quote(version)}"
        if licences[crate]:
            part["licenses"] = [{"expression": licences[crate]}]
        return part

    content = {
        "metadata": {"component": component(roots[0])},
        "components": [component(crate) for crate in sorted(licences) if crate != roots[0]],
        "dependencies": [{"ref": reference(crate), "dependsOn": sorted(map(reference, dependencies[crate]))}
                         for crate in sorted(dependencies)],
    }
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(content, sort_keys=True))
    head = {"bomFormat": "CycloneDX", "specVersion": "1.5", "serialNumber": f"urn:uuid:{serial}", "version": 1}
    return {**head, **content}


def check(page):
    """Returns a message for each crate that the page lacks, and for each one that is no longer used."""
    packages = json.loads(cargo("metadata", "--no-deps", "--format-version", "1"))["packages"]
    ours = {package["name"] for package in packages}
    used = {edge["name"] for package in packages for edge in package["dependencies"] if edge["kind"] != "dev"} - ours
    listed = set(PAGE_LINE.findall(page.read_text()))
    missing = [f"{page}: no line for {name}" for name in sorted(used - listed)]
    return missing + [f"{page}: {name} is not a direct dependency" for name in sorted(listed - used)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("-p", "--package", action="append", help="a package of this repository; may be repeated")
    what.add_argument("--check", type=Path, metavar="PAGE", help="check this page instead")
    options = parser.parse_args()
    if not options.check:
        print(json.dumps(bill(options.package), indent=2))
        return
    faults = check(options.check)
    for fault in faults:
        print(fault, file=sys.stderr)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
