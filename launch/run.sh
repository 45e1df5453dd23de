#!/usr/bin/env bash
# The quick study from a bare checkout: installs what is missing, then prints the table and the path
# of the report. Further arguments go to the study:
#     bash launch/run.sh --config=kjv --config.seed=1        PYTHON=python3.12 bash launch/run.sh
# Once it is installed, .venv/bin/python -m experiments.table_correlations --help lists them all.

source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"
exec "$python" -m experiments.table_correlations --config=kjv_quick --arms=pg,memory --seeds=0 "$@"
