#!/usr/bin/env bash
# One search on all devices of several hosts under Slurm, one process a host:
#     sbatch --nodes=2 launch/slurm.sh --config=ptb_paper --workdir=/a/folder/that/all/hosts/see
# Options of sbatch before the script replace those below. The folder must be shared: the first host
# reads and writes the run, and after a requeue another one may be the first.
#
# Two minutes before its time is over the job lets the search save and puts itself into the queue
# again; Slurm does the same where a host is lost or the job has to give way. scancel ends it for
# good. Whenever it starts again, or the same line is submitted again, the run continues.
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

stopped=75 # exit code of launch/common.py: a signal has stopped the search, which has saved
code=$stopped
if [ -z "$over" ]; then # or the installation has used the time up
    # Unbound: a host's one process has all of its cores.
    srun --kill-on-bad-exit=1 --cpu-bind=none \
        "$python" -m launch.search --coordinator=auto "$@" &
    code=0
    wait $! || code=$?
    if [ -n "$over" ]; then # that wait was ended by the signal
        code=0
        wait $! || code=$?
    fi
fi
[ "$code" = "$stopped" ] || exit "$code"
if [ -z "$over" ]; then # it was Slurm, which then cancels or requeues the job, or a stray one
    sleep 60
fi
printf 'stopped before its end: the run continues when its turn comes again\n' >&2
scontrol requeue "$SLURM_JOB_ID"
