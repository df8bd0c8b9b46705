#!/usr/bin/env bash
# One part of a plan as a task of a Slurm job array; submit.sh sets STORE, PLAN and PARTS, and submits the array.
#SBATCH --job-name=wavemill
#SBATCH --cpus-per-task=8
#SBATCH --mem=6G
#SBATCH --requeue
set -euo pipefail

code=0
for delay in 0 30 120; do
    sleep "$delay"
    code=0
    # Not the number of tasks of this array, which may repeat some parts of the plan.
    wavemill work --store "$STORE" --plan "$PLAN" --part "$SLURM_ARRAY_TASK_ID/${PARTS:?is set by submit.sh}" \
        --threads "$SLURM_CPUS_PER_TASK" --memory-limit 4GiB || code=$?
    # Repeating does not help after these codes, nor after success.
    case $code in 0 | 2 | 3 | 4) break ;; esac
done
exit "$code"
