"""Measure a checkpoint: `python -m recipes.validate CHECKPOINT|MODEL --dataset cifar10 --data-dir DATA_ROOT`."""

import argparse
import json
from typing import Any

import zoo
from zoo.data import load_dataset, normalisation
from zoo.data.folder import check_class_names
from zoo.data.images import data_form
from zoo.errors import ZooError, run_command
from zoo.files import write_json
from zoo.metrics import evaluate
from zoo.result import accuracy_result, check
from zoo.scaling.spec import unregistered_rule

from .commands import parse_validate
from .compare import said
from .processes import keep_memory, pick_device


def validate(
    name: str,
    dataset: str,
    data_dir: str | None = None,
    *,
    limit: int | None = None,
    batch_size: int = 256,
    device: str = "auto",
) -> dict[str, Any]:
    """Measures top-1, top-5 and spikes of a checkpoint on a test set, in float32, as a result for the leaderboard.

    Args:
        name: see `zoo.load`.
        limit: only the first so many test images; None for all.
    """
    model = zoo.load(name).to(pick_device(device))
    cfg: dict[str, Any] = model.pretrained_cfg
    data = load_dataset(dataset, data_dir, prepare=data_form(cfg, model.model_args, model.training_args))
    if model.num_classes != len(data.classes):
        raise ZooError(f"{name} has {model.num_classes} classes, {dataset} has {len(data.classes)}")
    check_class_names(name, cfg.get("label_names") or data.classes, dataset, data.classes)
    images, labels = (part[:limit] for part in (data.test_images, data.test_labels))
    scores = evaluate(model, images, labels, *normalisation(model), batch_size=batch_size)
    trained: dict[str, Any] = model.training_args or {}
    facts = {key: trained.get(key) for key in ("comparison", "epochs", "seed", "test_reads")}
    tag = cfg.get("tag") or ""
    result = accuracy_result(model, scores, data, tag=tag, split="test", weights_sha256=model.weights_sha256, **facts)
    rule = trained.get("scaling", "model")
    if rule != "model" and unregistered_rule(rule):  # which the network is loaded without
        result["scaling"] = {"name": rule} if isinstance(rule, str) else rule
    if len(images) < len(data.test_images):
        result["partial"] = True  # which the leaderboard does not take
    return check(result, name)  # what a checkpoint says of its training may be anything


def run(a: argparse.Namespace) -> None:
    """Measures what a command line says."""
    keep_memory()
    result = validate(a.model, a.dataset, a.data_dir, limit=a.limit, batch_size=a.batch_size, device=a.device)
    if a.json:
        write_json(a.json, result)
        print(f"{said(result)}, {result['images']} images -> {a.json}")
    else:
        print(json.dumps(result, indent=2))


def main(argv: list[str] | None = None) -> None:
    """Runs the command line."""
    run(parse_validate(argv))


if __name__ == "__main__":
    run_command(main)
