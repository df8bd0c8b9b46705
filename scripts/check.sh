#!/usr/bin/env bash
# Runs all static checks of the code, cheapest first. Each failure is one line.
#
# usage: scripts/check.sh [--quick] [--no-docs] [--no-trainer]
#   --quick        skip clippy and docs, which build everything
#   --no-docs      skip docs, which scripts/test.sh builds in parallel with the unit tests
#   --no-trainer   skip the crate that needs libtorch
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
quick=false
docs=true
packages=(--workspace)
for option in "$@"; do
    case $option in
        --quick) quick=true ;;
        --no-docs) docs=false ;;
        --no-trainer) packages+=(--exclude wavemill-trainer) ;;
        --help) usage "${BASH_SOURCE[0]}"; exit 0 ;;
        *) echo "unknown option $option; see --help" >&2; exit 2 ;;
    esac
done

# optional TOOL WHY COMMAND…: runs a step if its tool is installed, and otherwise prints that the step is skipped
# and why.
optional() {
    local tool=$1 why=$2
    shift 2
    if command -v "$tool" >/dev/null 2>&1; then
        step "$tool" "$@"
    else
        printf '== %s: skipped, %s\n' "$tool" "$why"
    fi
}

deny() {
    # Offline, the advisory database may be outdated or missing. Licences and bans do not need it.
    cargo deny --offline check licenses bans sources
}

[[ ! -d .venv/bin ]] || PATH=$PWD/.venv/bin:$PATH
step 'crate edges' scripts/check_deps.sh
step 'page of dependencies' scripts/sbom.py --check docs/dependencies.md
step 'chart of README' scripts/peers/speed_chart.py --check
step 'steps of a release, Dockerfile and workflows' scripts/release.sh check
step 'GPU check with stand-in programs' python3 scripts/gpu/selftest.py
step format cargo fmt --all -- --check -l
optional typos 'not installed: scripts/peers/setup.sh gets it' typos
optional shellcheck 'not installed: apt-get install shellcheck' shellcheck scripts/*.sh scripts/gpu/*.sh scripts/peers/*.sh examples/*.sh examples/slurm/*.sh .ci/run
optional cargo-deny 'not installed: scripts/peers/setup.sh gets it' deny
if ! $quick; then
    build_with_clippy
    step 'clippy builds everything' cargo build --locked "${packages[@]}" --all-targets
    if $docs; then step 'docs and their examples' check_docs "${packages[@]}"; fi
fi
