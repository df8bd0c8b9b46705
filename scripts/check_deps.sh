#!/usr/bin/env bash
# Checks the dependencies between crates: reads `cargo metadata` and fails on any edge that is not listed here. Also
# reads `cargo tree` and fails if a program that is built without its tests contains features for tests only. Within
# a crate, folders may not import each other in a circle (import_circles.py). The lock file of the fuzz targets must
# be current. No program may link LGPL code, the decoders no GPU library, and the store no query engine. No locked
# dependency may require a later Rust version than the workspace's rust-version.
#
# usage: scripts/check_deps.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
if [[ ${1:-} == --help ]]; then usage "${BASH_SOURCE[0]}"; exit 0; fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python3 scripts/import_circles.py
cargo metadata --format-version 1 --locked | python3 -c '
import json, sys

# Crates by their names without "wavemill-", each with those on which it may depend.
ALLOWED = {
    "schemas": "options",
    "signal": "options fft",
    "kernels": "options fft signal",
    "decode": "schemas signal",
    "source": "reader schemas",
    "runtime": "schemas",
    "catalog": "schemas runtime source",
    "reader": "schemas",
    "store": "schemas runtime reader",
    "extract": "schemas kernels runtime source decode catalog store",
    "sql": "schemas runtime catalog store",
    "terminal": "schemas",
    "wavemill": "catalog decode extract kernels pages runtime schemas source sql store terminal",
    "loader": "reader schemas",
    "scores": "schemas",
    "evaluation": "loader pages schemas scores",
    "trainer": "schemas evaluation loader pages scores terminal",
    "python": "wavemill decode evaluation extract kernels loader pages runtime schemas sql store terminal",
    "tests": "schemas",
}
FOR_TESTS = {  # with the backend, the stores, the layout of their files and the reports of failures for tests
    "evaluation": "reader",
    "trainer": "reader tests",
    "options": "tests",
    "kernels": "kernels tests",
    "decode": "tests",
    "wavemill": "kernels sql tests",
    "tests": "schemas",
}
SHIPPED = ["wavemill", "wavemill-trainer"]
UNLINKED = {  # Decoding needs no GPU, and a store no query engine.
    "wavemill-decode": {"cudarc", "datafusion", "ort", "parquet"},
    "wavemill-store": {"cudarc", "datafusion", "ort"},
}

meta = json.load(sys.stdin)
packages = {package["id"]: package for package in meta["packages"]}
members = {packages[member]["name"]: packages[member] for member in meta["workspace_members"]}
faults = []
for name, package in members.items():
    for edge in package["dependencies"]:
        table = {None: ALLOWED, "dev": FOR_TESTS}.get(edge["kind"], {})
        allowed = table.get(name.removeprefix("wavemill-"), "").split()
        if edge["name"] in members and edge["name"].removeprefix("wavemill-") not in allowed:
            faults.append("%s must not depend on %s (%s)" % (name, edge["name"], edge["kind"] or "normal"))

nodes = {node["id"]: node for node in meta["resolve"]["nodes"]}


def linked(name):
    waiting = [members[name]["id"]] if name in members else []
    seen = set(waiting)
    while waiting:
        for dep in nodes[waiting.pop()]["deps"]:
            is_linked = any(kind["kind"] is None for kind in dep["dep_kinds"])
            if is_linked and dep["pkg"] not in seen:
                seen.add(dep["pkg"])
                waiting.append(dep["pkg"])
    return sorted(seen)


for name, unwanted in UNLINKED.items():
    for package in linked(name):
        if packages[package]["name"] in unwanted:
            faults.append("%s must not link %s" % (name, packages[package]["name"]))

for name in SHIPPED:
    for package in linked(name):
        licence = packages[package].get("license") or ""
        if all("GPL" in choice for choice in licence.split(" OR ")):
            faults.append("%s must not link %s (%s)" % (name, packages[package]["name"], licence))

# The minimum Rust version is stated in the manifest and the README. Cargo itself compares it only with the compiler
# in use.
def version(text):
    return tuple(int(part) for part in (text + ".0.0").split(".")[:3])

needy = max((package for package in packages.values() if package.get("rust_version")),
            key=lambda package: version(package["rust_version"]))
for name, package in members.items():
    if version(package["rust_version"]) < version(needy["rust_version"]):
        faults.append("rust-version of %s is %s, and %s %s requires %s" % (
            name, package["rust_version"], needy["name"], needy["version"], needy["rust_version"]))
        break
for fault in faults:
    print("check_deps:", fault, file=sys.stderr)
sys.exit(1 if faults else 0)
'

# Tests enable these features by development dependencies. With --edges no-dev, cargo lists the features of a plain
# build and of a release, which must have neither.
for package in wavemill wavemill-trainer wavemill-python; do
    shipped=$(cargo tree --locked --package $package --edges no-dev --prefix none --format '{p} {f}')
    for test_only in 'fail .*failpoints' 'wavemill-kernels .*emulated' 'wavemill-sql .*testing'; do
        if found=$(grep -m 1 "^$test_only" <<<"$shipped"); then
            echo "check_deps: $package must not be built with $found outside of tests" >&2
            exit 1
        fi
    done
done

# The fuzz targets are a workspace of their own, which no other step builds.
cargo tree --locked --manifest-path tests/fuzz/Cargo.toml >/dev/null
