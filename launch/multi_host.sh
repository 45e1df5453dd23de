#!/usr/bin/env bash
# The quick study on two processes of this machine, two CPU devices each, as it would run on two
# hosts. On real hosts start one process on each, with the address of the first (port of your
# choice) as the coordinator:
#     python -m experiments.table_correlations --coordinator=HOST0:12321 --num_processes=2 \
#         --process_id=0    # on HOST0; 1 on the other
# Further arguments go to both:
#     bash launch/multi_host.sh --config.search.epochs=2

source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

free='import socket; s = socket.socket(); s.bind(("localhost", 0)); print(s.getsockname()[1])'
port=$("$python" -c "$free")
export XLA_FLAGS="--xla_force_host_platform_device_count=2 ${XLA_FLAGS:-}"
# Threads for XLA: at least four a device, or its collectives wait for each other for ever.
export NPROC=8

processes=()
for id in 0 1; do
    "$python" -m experiments.table_correlations --config=kjv_quick --platform=cpu \
        --workdir=runs/multi_host --coordinator="localhost:$port" --num_processes=2 \
        --process_id="$id" "$@" &
    processes+=($!)
done
trap 'kill "${processes[@]}" 2>/dev/null || true' INT TERM

code=0
for process in "${processes[@]}"; do
    wait "$process" || code=$?
done
exit "$code"
