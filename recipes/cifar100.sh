#!/usr/bin/env bash
# Train on CIFAR-100: bash recipes/cifar100.sh [--data-dir DIR] [--model NAME] [--key value ...]
exec bash "$(dirname "$0")/start.sh" cifar100 "$@"
