#!/usr/bin/env bash
# The whole test suite, from a bare machine: makes .venv, installs, lints, checks types, tests.
# --slow also runs the slow tests and those against other libraries (the extra `peers`); other arguments go to pytest.
# SNNZOO_DATA names a folder with the real CIFAR files.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source recipes/environment.sh

marks="not slow" extras=".[dev]"
if [ "${1:-}" = "--slow" ]; then marks="slow or not slow" extras=".[dev,peers]" && shift; fi
make_environment "$extras"
echo "== ruff" && "$python" -m ruff check . && "$python" -m ruff format --check .
echo "== mypy" && "$python" -m mypy -n 2
# Two workers of one thread each: threads of two processes that share two cores spin against each other.
echo "== pytest" && OMP_NUM_THREADS=1 "$python" -m pytest -n 2 --dist worksteal -m "$marks" "$@"
if [ $# -gt 0 ]; then exit; fi
# What computes must do so on every x86-64: once more as on a processor that has neither AVX2 nor AVX-512.
echo "== pytest of kernels, neurons and graphs that come back, with SSE4.1 alone"
ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 OMP_NUM_THREADS=1 "$python" -m pytest -n 2 --dist worksteal \
    -m "not slow" -k "not compile and not built" tests/zoo/kernels/test_kernels.py tests/zoo/neurons \
    tests/export/test_nir.py::test_a_graph_comes_back_and_spikes_alike
