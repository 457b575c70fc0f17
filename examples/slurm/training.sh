#!/bin/bash
# One training on several GPUs, also of several nodes: sbatch training.sh SCAN RUN [FLAGS OF ptychopinn train]
# Slurm starts a process for each GPU; the first one has the run directory, and decides.
#SBATCH --job-name=training
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=2
#SBATCH --time=02:00:00
#SBATCH --open-mode=append
# With GPUs: --gpus-per-node, as many as --ntasks-per-node.
#
# Five minutes before its time is over the training is stopped, and saves its model and a checkpoint.
#SBATCH --signal=USR1@300
#SBATCH --requeue

exec srun --kill-on-bad-exit=1 ptychopinn train "$1" -o "$2" --resume \
    --devices "$SLURM_NTASKS_PER_NODE" --num-nodes "$SLURM_NNODES" "${@:3}"
