#!/usr/bin/env bash
# Latency at T = 4 of sresnet19_w32_gs.t4_cifar10 and of sresnet19, which is untrained: float32 and int8 files beside
# the floor, the ReLU twin, PyTorch and SpikingJelly; batch 1, 8 and 32, one thread and two. Each network and batch size
# is one run of bench_ort, export/reports/latency/NAME.bBATCH.json. On a quiet machine: it takes an hour or more.
# Needs SNNZOO_DATA (int8 takes its scales from training images of CIFAR-10) and spikingjelly.
#   bash export/studies/measure_latency.sh [NAME ...]
# RUNS="100 30 10" timed runs at the three batch sizes; OUT is the folder; PYTHON the interpreter.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${PYTHON:-python} out=${OUT:-export/reports/latency}
read -r -a runs <<< "${RUNS:-100 30 10}"
[ $# -gt 0 ] || set -- sresnet19_w32_gs.t4_cifar10 sresnet19

files=$(mktemp -d)
trap 'rm -rf "$files"' EXIT
for name in "$@"; do
    for precision in fp32 int8; do
        calibration=()
        if [ "$precision" = int8 ]; then calibration=(--calibration cifar10); fi
        "$python" -m export "$name" -o "$files/$name.$precision.onnx" --timesteps 4 \
            --precision "$precision" "${calibration[@]}"
    done
    batches=(1 8 32)
    for i in 0 1 2; do
        profile=()
        if [ "${batches[i]}" = 1 ]; then profile=(--profile); fi  # where the time goes, by kind of operator
        "$python" -m export.bench_ort "$files/$name.fp32.onnx" "$files/$name.int8.onnx" \
            --against floor relu eager spikingjelly --network "$name" --batch "${batches[i]}" --threads 1 2 \
            --runs "${runs[i]}" "${profile[@]}" --json "$out/$name.b${batches[i]}.json"
    done
done
