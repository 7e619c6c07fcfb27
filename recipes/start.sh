#!/usr/bin/env bash
# start.sh DATASET [--key value ...]: train with the recipe of --model for that data set, sresnet19_gs unless said.
# A GPU is used when there is one; NPROC=8 starts 8 processes through torchrun.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dataset=$1 && shift
model=sresnet19_gs
for ((i = 1; i <= $#; i++)); do
    case ${!i} in
        --model) next=$((i + 1)) && model=${!next:-} ;;
        --model=*) model=${!i#--model=} ;;
    esac
done
recipe=sresnet19_gs.t4_$dataset
for file in "$here/$model".t*_"$dataset".yaml "$here/${model}_gs".t*_"$dataset".yaml; do
    if [ -f "$file" ]; then recipe=${file##*/} recipe=${recipe%.yaml} && break; fi
done
python=${PYTHON:-$([ -x "$here/../.venv/bin/python" ] && echo "$here/../.venv/bin/python" || command -v python3)}
export PYTHONPATH="$here/..${PYTHONPATH:+:$PYTHONPATH}"
launch=("$python")
case ${NPROC:-1} in '' | *[!0-9]* | 0) echo "error: NPROC must be a number of processes, not '$NPROC'" >&2 && exit 2 ;; esac
if [ "${NPROC:-1}" -gt 1 ]; then launch=("$python" -m torch.distributed.run --standalone --nproc-per-node "$NPROC"); fi
exec "${launch[@]}" -m recipes.train "$recipe" "$@"
