#!/usr/bin/env bash
# One search on all devices of several hosts under Slurm, one process a host:
#     sbatch --nodes=2 launch/slurm.sh --config=ptb_paper --workdir=/a/folder/that/all/hosts/see
# Options of sbatch before the script replace those below. The folder must be shared: after a lost
# host another one may be the first, which reads and writes the run.
#
# Two minutes before its time is over the job lets the search save and puts itself into the queue
# again; Slurm does so where a host was lost or the job must give way, and this script where only
# the search has noticed the loss. scancel ends the job for good. Whenever it starts again, or the
# same line is submitted again, the run continues.
#SBATCH --job-name=nas-controllers
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append

cd -- "${SLURM_SUBMIT_DIR:?start this with sbatch, from the checkout}"
over=""
trap 'over=yes; scancel --signal=TERM "$SLURM_JOB_ID"' USR1 # reaches the search, not this script
source launch/environment.sh

code=0
if [ -z "$over" ]; then # or the installation has used up the time
    # Without a binding of its own: of a host that is all ours, one process has all cores.
    srun --kill-on-bad-exit=1 --cpu-bind=none \
        "$python" -m launch.search --coordinator=auto "$@" &
    wait $! || code=$?
    if [ -n "$over" ]; then # the signal has ended the first wait
        code=0
        wait $! || code=$?
    fi
fi

LOST=75 # exit code of launch/processes.py; a search that loses hosts again and again is given up
if [ -n "$over" ] && [ "$code" = 0 ]; then
    printf 'the time is over: the job goes on when its turn comes again\n' >&2
elif [ "$code" = "$LOST" ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 5 ]; then
    printf 'a process was lost: the job goes on when its turn comes again\n' >&2
else
    exit "$code"
fi
scontrol requeue "$SLURM_JOB_ID"
