#!/usr/bin/env bash
# Extracts a store with GNU parallel: two parts at once here, or on several machines with `--sshlogin` in PARALLEL.
#
# usage: examples/parallel.sh STORE OPTION…      the options are those of `wavemill plan`
set -euo pipefail
store=$1
shift

plan=$(wavemill plan --store "$store" "$@")
parallel --quote --jobs 2 --retries 3 wavemill work --store "$store" --plan "$plan" --threads 4 --part '{}/16' ::: {1..16}
wavemill commit --store "$store" --plan "$plan"
