# Sourced by run.sh and test.sh: goes to the checkout, sees to it that .venv there (or the folder
# that VENV names) holds the installed project, and sets `venv` to it and `python` to the
# interpreter in it. An environment that is complete and current is used as it is.

set -euo pipefail
unset CDPATH
case " $* " in
    *" --help "* | *" -h "*) # the comment at the top of the script that was called
        sed -n '2,/^[^#]/s/^# \{0,1\}//p;/^$/q' "$0"
        exit ;;
esac
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
venv=${VENV:-.venv}

stop() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

recent() { # is this a Python of at least 3.11?
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    local candidate
    if [ -n "${PYTHON:-}" ]; then
        recent "$PYTHON" || stop "PYTHON=$PYTHON is not a Python of version 3.11 or later"
        printf '%s\n' "$PYTHON"
        return
    fi
    for candidate in python3.13 python3.12 python3.11 python3 python; do
        if recent "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    stop "found no Python of version 3.11 or later; install one, or name it:" \
        "PYTHON=/path/to/python bash $0"
}

usable() { # does it work, and is it of the Python that is asked for?
    local version='import sys; print(sys.version)'
    recent "$venv/bin/python" && "$venv/bin/python" -c 'import pip' >/dev/null 2>&1 || return
    [ -z "${PYTHON:-}" ] ||
        [ "$("$PYTHON" -c "$version" 2>&1)" = "$("$venv/bin/python" -c "$version")" ]
}

install_project() {
    local extras=test stamp=$venv/installed log=$venv/install.log had="" folder=$PWD
    local wanted base driver
    if driver=$(nvidia-smi 2>/dev/null); then
        extras=test,cuda13
        case $driver in *"CUDA Version: 12"*) extras=test,cuda12 ;; esac
    fi
    wanted="$(cksum <setup.py) $extras"
    if [ -f "$stamp" ]; then
        { read -r had && IFS= read -r folder; } <"$stamp" || had=""
    fi
    if ! usable || [ "$folder" != "$PWD" ]; then # a moved environment points to where it was
        [ ! -L "$venv" ] ||
            stop "$venv is a link to an environment that is not of this checkout, or does not" \
                "work; remove the link, or name another folder: VENV=... bash $0"
        base=$(find_python)
        printf 'making a virtual environment in %s with %s\n' \
            "$venv" "$("$base" --version 2>&1)" >&2
        "$base" -m venv --clear "$venv" >&2 ||
            stop "$base cannot make a virtual environment (Debian: apt install python3-venv)"
        had=""
    fi
    if [ "$had" = "$wanted" ]; then
        return
    fi
    rm -f "$stamp" # until all is installed: an interrupted installation is done again
    printf 'installing the project [%s] into %s, once: a minute or more\n' "$extras" "$venv" >&2
    if ! "$venv/bin/python" -m pip install --disable-pip-version-check --no-input \
        -e ".[$extras]" >"$log" 2>&1; then
        tail -n 30 "$log" >&2
        stop "pip could not install the project; all it said is in $log"
    fi
    printf '%s\n%s\n' "$wanted" "$PWD" >"$stamp"
}

install_project
case $venv in /*) ;; *) venv=$PWD/$venv ;; esac
python=$venv/bin/python
