#!/bin/bash
# Many scans on several nodes: sbatch several-nodes.sh PLAN OUT [FLAGS OF ptychopinn batch]
# Needs python -m pip install '.[dask]'. Slurm starts a Dask worker for each task; a scan runs on each at a time.
#SBATCH --job-name=scans
#SBATCH --ntasks=8
#SBATCH --cpus-per-task=1
#SBATCH --time=08:00:00
#SBATCH --open-mode=append
# With GPUs: --gpus-per-task=1.
#SBATCH --requeue

port=$((20000 + SLURM_JOB_ID % 20000))
address="tcp://$(hostname):$port"
dask scheduler --host "$(hostname)" --port "$port" --no-dashboard &
srun dask worker "$address" --nthreads 1 --no-nanny --no-dashboard &
ptychopinn batch "$1" -o "$2" --resume --scheduler "$address" "${@:3}"
code=$?
kill $(jobs -p) 2>/dev/null
wait
exit "$code"
