#!/bin/bash
# Many scans on one node: sbatch one-node.sh PLAN OUT [FLAGS OF ptychopinn batch]
#SBATCH --job-name=scans
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=2
#SBATCH --time=08:00:00
#SBATCH --open-mode=append
# With GPUs: --gpus=4. Each scan has one GPU, and one runs on each at a time. Without: --workers K, with K cores or more.
#
# Two minutes before its time is over the batch is stopped, and queued again: --resume keeps the scans that are done.
# When its node fails, Slurm queues it again.
#SBATCH --requeue
#SBATCH --signal=B:USR1@120

ptychopinn batch "$1" -o "$2" --resume "${@:3}" &
batch=$!
trap 'stopped=1; kill -USR1 "$batch"' USR1
trap 'kill -TERM "$batch"' TERM
wait "$batch"
code=$?
while kill -0 "$batch" 2>/dev/null; do # a signal ended the wait
    wait "$batch"
    code=$?
done
if [ -n "${stopped:-}" ] && [ "$code" -gt 128 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
