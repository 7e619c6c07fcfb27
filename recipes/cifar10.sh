#!/usr/bin/env bash
# Train on CIFAR-10: bash recipes/cifar10.sh [--data-dir DIR] [--model NAME] [--key value ...]
exec bash "$(dirname "$0")/start.sh" cifar10 "$@"
