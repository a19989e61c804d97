#!/bin/bash
# A batch on a SLURM cluster:  sbatch slurm_batch.sh OUT ROOT... [more options of leakloc batch]
#
# One job runs a Dask scheduler, the workers and the batch; each worker analyzes one study at a
# time. Submit the same command again to resume: finished studies are kept.
# Input, OUT and the environment with leakloc[batch] must have the same paths on every node.
# Dask does not authenticate connections: use certificates on a shared cluster
# (https://distributed.dask.org/en/stable/tls.html).
#
#SBATCH --job-name=leakloc
#SBATCH --ntasks=8
#SBATCH --cpus-per-task=2
#SBATCH --mem-per-cpu=2G
#SBATCH --time=08:00:00
#SBATCH --signal=B:TERM@120

set -euo pipefail

if [ $# -lt 2 ]; then
    echo "usage: sbatch slurm_batch.sh OUT ROOT... [options of leakloc batch]" >&2
    exit 2
fi
output=$1
shift

scratch=${TMPDIR:-/tmp}
mkdir -p "$output"
# On the shared file system, so that workers on other nodes find the scheduler.
scheduler=$(mktemp -u "$(realpath "$output")/.scheduler-${SLURM_JOB_ID:-0}-XXXXXX.json")

# shellcheck disable=SC2317 # the trap calls it
end() {
    # Interrupted studies remain in the job database for the next job. The scheduler ends last,
    # because a worker that cannot disconnect from it may wait indefinitely.
    local n
    for ((n = ${#helpers[@]} - 1; n >= 0; n--)); do
        stop "${helpers[n]}"
    done
    rm -f "$scheduler"
}

# shellcheck disable=SC2317 # the trap calls it
stop() {
    kill "$1" 2>/dev/null || return 0
    for _ in {1..20}; do
        sleep 0.5
        kill -0 "$1" 2>/dev/null || return 0
    done
    kill -KILL "$1" 2>/dev/null || true
}
helpers=()
trap end EXIT

dask scheduler --port 0 --no-dashboard --scheduler-file "$scheduler" &
helpers+=($!)
# Without nannies: analyses run in separate processes, so that a crash does not end the worker.
srun dask worker --scheduler-file "$scheduler" --nthreads 1 --no-nanny --no-dashboard \
    --local-directory "$scratch" &
helpers+=($!)

for _ in {1..120}; do
    [ -s "$scheduler" ] && break
    sleep 0.5
done

# In the background, so that the signal of SLURM before the end of the job is handled at once.
leakloc batch "$@" -o "$output" --scheduler "$scheduler" &
batch=$!
trap 'kill -TERM "$batch" 2>/dev/null || true' TERM
code=0
wait "$batch" || code=$?
if kill -0 "$batch" 2>/dev/null; then # the signal ended the wait, not the batch
    code=0
    wait "$batch" || code=$?
fi
exit "$code"
