#!/usr/bin/env bash
# All that a GPU can tell in nine minutes, as a page, a table and JSON (experiments/check_gpu.py):
#     bash launch/gpu_check.sh            bash launch/gpu_check.sh --small        # without a GPU
# For a GPU machine that reaches no network but has Python, pip and JAX for its GPU: here
#     bash launch/gpu_check.sh --prepare 3.12 [PACKAGE ...]
# puts the packages that such machines lack, those named among them, for Python 3.12 on Linux, with
# the corpus into .gpu_check (14 MB, ignored by git). Take the checkout with it along, and start the
# first command there: where .gpu_check is, that machine's `python3` serves (PYTHON names another),
# and nothing is installed into it.

set -euo pipefail
unset CDPATH
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
prepared=$root/.gpu_check
# What setup.py asks for, with what that needs, and a Python with JAX and the usual packages of
# science and tests does not have.
lacking=(ml_collections tensorflow-datasets tensorflow-metadata googleapis-common-protos
    immutabledict promise simple-parsing docstring_parser dm-tree termcolor toml
    importlib_resources array_record tensorboardX six mlxtend)
# What the check imports.
modules=(jax flax optax chex orbax.checkpoint numpy scipy networkx numba statsmodels absl
    ml_collections tensorflow_datasets.core array_record tensorboardX rich matplotlib jinja2
    tabulate pytest xdist hypothesis)

prepare() {
    local version=${1:-3.12} pinned wheels=$prepared/wheels
    shift || true
    source "$root/launch/environment.sh"
    mkdir -p "$prepared"
    rm -rf "$wheels"
    # The versions that are installed here: what was tested together.
    pinned=$("$python" - "${lacking[@]}" "$@" <<'PYTHON'
import importlib.metadata, sys
for name in sys.argv[1:]:
    print(f"{name}=={importlib.metadata.version(name)}")
PYTHON
    ) || stop "--prepare: every package must be installed in .venv"
    local options=(--no-deps --disable-pip-version-check -q) tag tags=()
    for tag in 2014 1 _2_17 _2_24 _2_27 _2_28; do # pip takes them literally
        tags+=(--platform "manylinux${tag}_x86_64")
    done
    # promise is published as source only, which is the same for every Python.
    "$python" -m pip wheel "${options[@]}" -w "$wheels" $(grep '^promise==' <<<"$pinned") ||
        stop "pip could not build promise"
    "$python" -m pip download "${options[@]}" --only-binary=:all: --implementation cp \
        --python-version "$version" "${tags[@]}" -d "$wheels" \
        $(grep -v '^promise==' <<<"$pinned") || stop "pip could not download the packages"
    "$python" -c 'import sys
from nas.data.text import load_corpus
load_corpus("kjv", 4000, data_dir=sys.argv[1])' "$prepared/data"
    printf '%s\n' "$version" >"$prepared/python"
    printf 'prepared for Python %s: %s, %s\n' \
        "$version" "$prepared" "$(du -sh "$prepared" | cut -f1)"
}

stop() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

# Sets `python` to that of this machine, with the prepared packages beside its own.
use_prepared() {
    local wanted
    python=${PYTHON:-python3}
    wanted=$(<"$prepared/python")
    [ "$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')" = "$wanted" ] ||
        stop "$python is not Python $wanted, which .gpu_check was prepared for;" \
            "PYTHON=... names one, or --prepare for another"
    site=$(mktemp -d)
    trap 'rm -rf "$site"' EXIT
    "$python" -m pip install -q --disable-pip-version-check --no-index --no-deps --no-compile \
        --target "$site" "$prepared"/wheels/*.whl || stop "pip could not install .gpu_check/wheels"
    rm -rf "$site/tests" # a package of that name would hide the project's own
    export PYTHONPATH=$root:$site${PYTHONPATH:+:$PYTHONPATH}
    "$python" - "${modules[@]}" <<'PYTHON' || exit 2
import importlib, sys
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except ImportError as error:
        sys.exit(f"error: {sys.executable} cannot import {name} ({error}): name the package that "
                 "it lacks to --prepare")
PYTHON
}

if [ "${1:-}" = --prepare ]; then
    shift
    prepare "$@"
    exit
fi
data=()
if [ -e "$prepared/python" ]; then
    use_prepared
    data=(--data_dir="$prepared/data")
else
    source "$root/launch/environment.sh"
fi
cd "$root"
"$python" -m experiments.check_gpu ${data[@]+"${data[@]}"} "$@"
