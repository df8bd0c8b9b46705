#!/usr/bin/env bash
# Checks the dependencies between crates: reads `cargo metadata` and fails on any edge that is not listed here. Also
# reads `cargo tree` and fails if a program that is built without its tests contains features for tests only. Within
# a crate, folders may not import each other in a circle (import_circles.py). The lock file of the fuzz targets must
# be current.
set -euo pipefail
cd "$(dirname "$0")/.."

if [[ ${1:-} == --help ]]; then
    echo "usage: scripts/check_deps.sh"
    echo "Fails if a crate has a dependency that is not allowed, if the wavemill program links LGPL code,"
    echo "or if the decoders or the store link a GPU library or a query engine."
    echo "Fails if a locked dependency requires a later Rust version than the workspace's rust-version."
    echo "Fails if a program that is built without its tests contains fail points or the emulated device."
    echo "Fails if folders of a crate import each other in a circle, or if fuzz/Cargo.lock is out of date."
    exit 0
fi

python3 scripts/import_circles.py
cargo metadata --format-version 1 --locked | python3 -c '
import json, sys

ALLOWED = {  # (from, to): kinds; None is a normal dependency
    ("wavemill-schemas", "wavemill-options"): {None},
    ("wavemill-signal", "wavemill-options"): {None},
    ("wavemill-signal", "wavemill-fft"): {None},
    ("wavemill-kernels", "wavemill-options"): {None},
    ("wavemill-kernels", "wavemill-fft"): {None},
    ("wavemill-kernels", "wavemill-signal"): {None},
    ("wavemill-decode", "wavemill-schemas"): {None},
    ("wavemill-decode", "wavemill-signal"): {None},
    ("wavemill-source", "wavemill-remote"): {None},
    ("wavemill-source", "wavemill-schemas"): {None},
    ("wavemill-runtime", "wavemill-schemas"): {None},
    ("wavemill-catalog", "wavemill-schemas"): {None},
    ("wavemill-catalog", "wavemill-runtime"): {None},
    ("wavemill-catalog", "wavemill-source"): {None},
    ("wavemill-remote", "wavemill-schemas"): {None},
    ("wavemill-versions", "wavemill-remote"): {None},
    ("wavemill-versions", "wavemill-schemas"): {None},
    ("wavemill-store", "wavemill-schemas"): {None},
    ("wavemill-store", "wavemill-runtime"): {None},
    ("wavemill-store", "wavemill-versions"): {None},
    ("wavemill-extract", "wavemill-schemas"): {None},
    ("wavemill-extract", "wavemill-kernels"): {None},
    ("wavemill-extract", "wavemill-runtime"): {None},
    ("wavemill-extract", "wavemill-source"): {None},
    ("wavemill-extract", "wavemill-decode"): {None},
    ("wavemill-extract", "wavemill-catalog"): {None},
    ("wavemill-extract", "wavemill-store"): {None},
    ("wavemill-sql", "wavemill-schemas"): {None},
    ("wavemill-sql", "wavemill-runtime"): {None},
    ("wavemill-sql", "wavemill-catalog"): {None},
    ("wavemill-sql", "wavemill-store"): {None},
    ("wavemill-terminal", "wavemill-schemas"): {None},
    ("wavemill", "wavemill-catalog"): {None},
    ("wavemill", "wavemill-decode"): {None},
    ("wavemill", "wavemill-extract"): {None},
    ("wavemill", "wavemill-kernels"): {None, "dev"},  # dev: with the backend for tests
    ("wavemill", "wavemill-pages"): {None},
    ("wavemill", "wavemill-runtime"): {None},
    ("wavemill", "wavemill-schemas"): {None},
    ("wavemill", "wavemill-scores"): {None},
    ("wavemill", "wavemill-source"): {None},
    ("wavemill", "wavemill-sql"): {None, "dev"},  # dev: with stores for tests
    ("wavemill", "wavemill-store"): {None},
    ("wavemill", "wavemill-terminal"): {None},
    ("wavemill-loader", "wavemill-schemas"): {None},
    ("wavemill-loader", "wavemill-versions"): {None},
    ("wavemill-scores", "wavemill-schemas"): {None},
    ("wavemill-evaluation", "wavemill-loader"): {None},
    ("wavemill-evaluation", "wavemill-pages"): {None},
    ("wavemill-evaluation", "wavemill-schemas"): {None},
    ("wavemill-evaluation", "wavemill-scores"): {None},
    ("wavemill-trainer", "wavemill-schemas"): {None},
    ("wavemill-trainer", "wavemill-evaluation"): {None},
    ("wavemill-trainer", "wavemill-loader"): {None},
    ("wavemill-trainer", "wavemill-pages"): {None},
    ("wavemill-trainer", "wavemill-scores"): {None},
    ("wavemill-trainer", "wavemill-terminal"): {None},
    ("wavemill-python", "wavemill"): {None},
    ("wavemill-python", "wavemill-decode"): {None},
    ("wavemill-python", "wavemill-evaluation"): {None},
    ("wavemill-python", "wavemill-extract"): {None},
    ("wavemill-python", "wavemill-kernels"): {None},
    ("wavemill-python", "wavemill-loader"): {None},
    ("wavemill-python", "wavemill-pages"): {None},
    ("wavemill-python", "wavemill-runtime"): {None},
    ("wavemill-python", "wavemill-schemas"): {None},
    ("wavemill-python", "wavemill-sql"): {None},
    ("wavemill-python", "wavemill-store"): {None},
    ("wavemill-python", "wavemill-terminal"): {None},
    ("wavemill-tests", "wavemill-schemas"): {None, "dev"},
    ("wavemill-kernels", "wavemill-kernels"): {"dev"},
    ("wavemill-kernels", "wavemill-tests"): {"dev"},
    ("wavemill-decode", "wavemill-tests"): {"dev"},
    ("wavemill", "wavemill-tests"): {"dev"},
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
        if edge["name"] in members and edge["kind"] not in ALLOWED.get((name, edge["name"]), set()):
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
cargo tree --locked --manifest-path fuzz/Cargo.toml >/dev/null
