#!/usr/bin/env bash
# Builds a crate's pages, then runs its examples. Replaces rustdoc in `cargo test --doc`, so that links are checked against
# the crates that the tests use. `cargo doc` would check every dependency once more for them.
#
# usage: RUSTDOC=scripts/rustdoc.sh cargo test --doc
set -euo pipefail
if [[ ${1:-} == --help ]]; then sed -n '2,/^set/{s/^# \{0,1\}//p}' "$0"; exit 0; fi

pages=()
examples=()
is_for_crate=false
while (($#)); do
    case $1 in
        # Options for running examples are not passed to the build of pages.
        --test) is_for_crate=true; examples+=("$1") ;;
        --test-run-directory) examples+=("$1" "$2"); shift ;;
        *) pages+=("$1"); examples+=("$1") ;;
    esac
    shift
done

if $is_for_crate; then
    rustdoc "${pages[@]}" -D warnings --out-dir "${CARGO_TARGET_DIR:-target}/doc"
fi
exec rustdoc "${examples[@]}"
