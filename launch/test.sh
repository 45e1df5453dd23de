#!/usr/bin/env bash
# Every check from a bare checkout, stopping at the first that fails: style, import contracts,
# tests. Further arguments go to pytest:
#     bash launch/test.sh -k spaces        bash launch/test.sh -m slow
#     bash launch/test.sh tests/spaces     bash launch/test.sh --lf
#     PYTHON=python3.13 VENV=.venv-3.13 bash launch/test.sh

source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

check() {
    local name=$1
    shift
    printf '== %s\n' "$name"
    "$@" || {
        printf 'FAILED: %s\n' "$name" >&2
        exit 1
    }
}

check "ruff check" "$python" -m ruff check .
check "ruff format" "$python" -m ruff format --check .
check "import contracts" "$venv/bin/lint-imports" --no-logo
# Two processes, a file of tests in one of them: a small model does not occupy two cores.
check "pytest" "$python" -m pytest --numprocesses=2 --dist=loadfile "$@"
