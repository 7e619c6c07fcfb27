#!/usr/bin/env bash
# The whole test suite, from a bare machine: makes .venv, installs, lints, checks types, tests.
# --slow also runs the slow tests; other arguments go to pytest. SNNZOO_DATA names a folder with the real CIFAR files.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source recipes/environment.sh
make_environment ".[dev]"

marks="not slow"
if [ "${1:-}" = "--slow" ]; then marks="slow or not slow" && shift; fi
echo "== ruff" && "$python" -m ruff check . && "$python" -m ruff format --check .
echo "== mypy" && "$python" -m mypy
# Two workers of one thread each: threads of two processes that share two cores spin against each other.
echo "== pytest" && OMP_NUM_THREADS=1 "$python" -m pytest -n 2 --dist worksteal -m "$marks" "$@"
