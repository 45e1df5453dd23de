#!/usr/bin/env bash
# One search on several hosts under Slurm, one process a host with all its accelerators:
#     sbatch --nodes=2 launch/slurm.sh --config=ptb_paper --workdir=/path/on/the/first/host
# Submit the same line again after a lost node or the end of the allotted time: the run continues.
# Slurm's SIGTERM, two minutes before that end, makes the run save and stop by itself.
#SBATCH --job-name=nas-controllers
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120

cd -- "${SLURM_SUBMIT_DIR:?start this with sbatch, from the checkout}"
source launch/environment.sh
exec srun --kill-on-bad-exit=1 "$python" -m launch.search --coordinator=auto "$@"
