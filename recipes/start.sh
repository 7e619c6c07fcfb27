#!/usr/bin/env bash
# start.sh DATASET [--key value ...]: train with the recipe of --model for that data set, sresnet19_gs by default.
# A GPU is used when there is one; NPROC=8 starts 8 processes through torchrun.
set -euo pipefail
unset CDPATH  # with which cd prints
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-$([ -x "$here/../.venv/bin/python" ] && echo "$here/../.venv/bin/python" || command -v python3 || true)}
if [ -z "$python" ]; then echo "error: no python3 (PYTHON names one)" >&2 && exit 2; fi
export PYTHONSAFEPATH=1  # never a recipes/ of the working directory
export PYTHONPATH="$here/..${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" -m recipes.start "$@"
