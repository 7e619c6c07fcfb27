# Sourced by quickstart.sh and tests/run.sh, from the root of the checkout: make .venv once and install into it.
# SNNZOO_PYTHON names the interpreter to start from; python3 by default.

case ${SNNZOO_DATA:-/} in /*) ;; *) export SNNZOO_DATA=$OLDPWD/$SNNZOO_DATA ;; esac  # as named where the command began
# Modules are compiled when they are first imported, and kept: pip would compile all that there are, about as long as
# the rest of the installation takes.
unset PYTHONDONTWRITEBYTECODE

make_environment() {  # make_environment REQUIREMENT: sets $python
    local base=${SNNZOO_PYTHON:-} candidate
    for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
        if [ -z "$base" ] && "$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            base=$candidate
        fi
    done
    if [ -z "$base" ]; then
        echo "error: needs Python 3.11 or newer with venv, Debian's python3-venv (SNNZOO_PYTHON names one)" >&2
        return 2
    fi
    python=$PWD/.venv/bin/python
    if ! "$python" -m pip --version > /dev/null 2>&1; then  # none, or one whose making was interrupted
        rm -rf .venv
        echo "== making .venv with $("$base" --version)"
        "$base" -m venv .venv
    fi
    # Installed once for each state of pyproject.toml; a second start takes no time and no network.
    # What has more extras serves for fewer: . and .[dev] and .[dev,peers].
    local stamp=.venv/installed state have
    state=$(cksum pyproject.toml) have=$(cat "$stamp" 2>/dev/null || true)
    if [ "${have#"${1%]}"}" = "$have" ] || [ "${have#*" "}" != "$state" ]; then
        echo "== installing snn-zoo and what it needs (PyTorch is large: minutes on a slow line)"
        "$python" -m pip install --disable-pip-version-check --progress-bar off --no-compile -q -e "$1"
        echo "$1 $state" > "$stamp"
    fi
}
