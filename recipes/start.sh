#!/usr/bin/env bash
# start.sh DATASET [--key value ...]: train with the recipe of --model for that data set, sresnet19_gs unless said.
# A GPU is used when there is one; NPROC=8 starts 8 processes through torchrun.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dataset=$1 && shift
model=$(printf '%s\n' "$@" | sed 's/^--model=/--model\n/' | grep -A1 -x -e --model | tail -n 1 || true)
model=${model:-sresnet19_gs}
recipe=sresnet19_gs.t4_$dataset
for file in "$here/$model".t*_"$dataset".yaml "$here/${model}_gs".t*_"$dataset".yaml; do
    if [ -f "$file" ]; then recipe=$(basename "$file" .yaml) && break; fi
done
python=${PYTHON:-$([ -x "$here/../.venv/bin/python" ] && echo "$here/../.venv/bin/python" || command -v python3)}
export PYTHONPATH="$here/..${PYTHONPATH:+:$PYTHONPATH}"
launch=("$python")
if [ "${NPROC:-1}" -gt 1 ]; then launch=("$python" -m torch.distributed.run --standalone --nproc-per-node "$NPROC"); fi
exec "${launch[@]}" -m recipes.train "$recipe" --model "$model" "$@"
