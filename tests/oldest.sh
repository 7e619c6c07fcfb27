#!/usr/bin/env bash
# The tests with the oldest versions that pyproject.toml allows, in an environment of its own: do its bounds hold?
# Takes PyTorch's build with CUDA, some 6 GB; arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
case ${SNNZOO_DATA:-/} in /*) ;; *) export SNNZOO_DATA=$OLDPWD/$SNNZOO_DATA ;; esac  # as named where the command began

python=$PWD/.venv-oldest/bin/python
"${SNNZOO_PYTHON:-python3.11}" -m venv .venv-oldest
"$python" -m pip install -q uv
"$python" -m uv pip install -q --python "$python" --resolution lowest-direct -e ".[dev,tensorboard]"
OMP_NUM_THREADS=1 "$python" -m pytest -n 2 --dist worksteal -m "not slow" "$@"
