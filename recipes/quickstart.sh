#!/usr/bin/env bash
# From a bare machine (Python only) to a spiking network that reads digits, in minutes and without a download but for
# the installation: classifies pictures, trains a bundled network further on scikit-learn's digits, exports it, runs the
# file without snn-zoo, times it beside its ReLU twin, and makes a page, quickstart/index.html.
# Everything lands in quickstart/ (a second start begins anew). Arguments go to the training, e.g. --epochs 2.
set -euo pipefail
unset CDPATH  # with which cd prints
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source recipes/environment.sh
make_environment "."
out=quickstart
rm -rf "$out" && mkdir "$out"

snn() { echo "\$ snn-zoo $*" >&2 && "${python%/*}/snn-zoo" "$@"; }

echo "== six pictures, classified by a bundled network"
snn predict max_resnet18_w32_gs.t4_cifar10 recipes/examples/pictures --top 1 --spikes
echo "== a small bundled network learns to read digits"
snn finetune sresnet19_w16.t2_cifar10 digits --crop 2 --hflip false --out "$out/run" "$@"
echo "== exported, each file verified against PyTorch"
for precision in fp32 int8 int16; do
    snn export "$out/run" -o "$out/$precision.onnx" --precision "$precision" --data digits --limit 100
done
echo "== ten digits, read by snn-zoo and by ONNX Runtime alone"
"$python" -m recipes.quickstart digits "$out"
snn predict "$out/run" "$out/digits" --top 1 --spikes --json > "$out/predicted.json"
echo "\$ python export/plain_onnxruntime.py $out/fp32.onnx $out/digits/*.png"
"$python" -I export/plain_onnxruntime.py "$out/fp32.onnx" "$out"/digits/*.png
echo "== times: float32, eight bits, event-driven, and the network without spikes"
snn bench-ort "$out"/{fp32,int8,int16}.onnx --against relu --network "$out/run" --data digits --json "$out/times.json"
"$python" -m recipes.quickstart page "$out"
echo "== open $PWD/$out/index.html"
