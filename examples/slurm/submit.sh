#!/usr/bin/env bash
# Extracts a store with a Slurm job array: plans here, writes 16 parts as array tasks, and commits after the last one.
# Prints the commands that repeat parts.
#
# usage: examples/slurm/submit.sh STORE OPTION…      the options are those of `wavemill plan`
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
store=$1
shift
parts=16

plan=$(wavemill plan --store "$store" "$@")
export="--export=ALL,STORE=$store,PLAN=$plan,PARTS=$parts"
commit="wavemill commit --store '$store' --plan $plan"
array=$(sbatch --parsable "--array=1-$parts" "$export" "$here/array.sh")
sbatch --dependency=afterok:"$array" --kill-on-invalid-dep=yes --wrap "$commit"

cat >&2 <<END
If tasks of job $array fail, repeat them, such as 7 and 12, and then commit:
  sbatch --array=7,12 '$export' '$here/array.sh'
  $commit
END
