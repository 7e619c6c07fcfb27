#!/usr/bin/env bash
# From a bare machine (Python only) to a small leaderboard: trains sresnet19_w16 and its twin with gradient scaling,
# shows accuracy and spikes side by side, exports, verifies and times both in ONNX Runtime, and writes a page.
# On the embedded digits, or on 5,000 images of CIFAR-10 when SNNZOO_DATA names a folder with its files.
# Everything lands in quickstart/ (a second start begins anew). Arguments go to the training, e.g. --epochs 2.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source recipes/environment.sh
make_environment ".[site]"

data=(--dataset digits --hflip false --crop 2)
if [ -n "${SNNZOO_DATA:-}" ]; then data=(--dataset cifar10 --train-images 5000 --epochs 2); fi
out=quickstart
rm -rf "$out" && mkdir "$out"

results=()
for model in sresnet19_w16 sresnet19_w16_gs; do
    echo "== train $model"
    "$python" -m recipes.train quickstart --model "$model" "${data[@]}" --out "$out/$model" \
        --tag quickstart --comparison quickstart --test-reads 2 "$@"
    echo "== export $model, verified against PyTorch"
    "$python" -m export "$out/$model" -o "$out/$model.onnx" --data "${data[1]}" --limit 300 \
        --json "$out/$model-export.json"
    echo "== $model in ONNX Runtime"
    "$python" -m export.bench_ort "$out/$model.onnx" --data "${data[1]}" --limit 500 --json "$out/$model-onnx.json"
    results+=("$out/$model/result.json" "$out/$model-onnx.json")
done
echo "== side by side"
"$python" -m recipes.compare "$out/sresnet19_w16/result.json" "$out/sresnet19_w16_gs/result.json"
"$python" -m leaderboard add "${results[@]}" --results "$out/results" --out "$out" --readme none
"$python" -m leaderboard site --results "$out/results" --out "$out"
