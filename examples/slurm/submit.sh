#!/usr/bin/env bash
# Extracts a store with a Slurm job array: plans here, writes 16 parts as array tasks, and commits after the last one.
#
# usage: examples/slurm/submit.sh STORE OPTION…      the options are those of `wavemill plan`
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
store=$1
shift

plan=$(wavemill plan --store "$store" "$@")
array=$(sbatch --parsable --export=ALL,STORE="$store",PLAN="$plan" "$here/array.sh")
sbatch --dependency=afterok:"$array" --kill-on-invalid-dep=yes --wrap "wavemill commit --store '$store' --plan $plan"
