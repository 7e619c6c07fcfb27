"""What others published of the zoo's networks (zoo/models/references.json): quoted, never ranked with our rows.

Their accuracy is, with few exceptions, that of the best epoch on the test set and of one seed. What a third party got
from the same method (reproductions.json) stands beside the claim.
"""

import re
from pathlib import Path
from typing import Any

from zoo.files import read_json
from zoo.names import all_references

from .row import Reproduction, Row

REPRODUCTIONS = Path(__file__).with_name("reproductions.json")
"""A list of model and method of a claim, cifar10, cifar100 (top-1, %) and citation."""
_DATASETS = ("cifar10", "cifar100")


def published() -> list[Row]:
    """Returns a row of the tier "published" for every claim, by data set, then the highest first.

    Its name is the zoo's for that network, the method, its time steps, and `_aug` where it is known to use AutoAugment,
    Cutout, CutMix or Mixup.
    """
    again = read_json(REPRODUCTIONS)
    table = [_row(claim, name, again) for claim in all_references() for name in _DATASETS if claim[name] is not None]
    return sorted(table, key=lambda row: (row.dataset, -row.top1, row.name))


def _row(claim: dict[str, Any], dataset: str, again: list[dict[str, Any]]) -> Row:
    words = [re.sub("[^A-Za-z0-9]+", "-", claim["method"]).strip("-")]
    words += [] if claim["T"] is None else [f"t{claim['T']}"]
    words += ["aug"] if dataset in claim["strong_augmentation"] else []
    same = [item for item in again if (item["model"], item["method"]) == (claim["model"], claim["method"])]
    return Row(
        dataset=dataset,
        model=claim["model"],
        tag="_".join(words),
        tier="published",
        top1=claim[dataset],
        timesteps=claim["T"],
        published_top1=claim[dataset],
        published_citation=f"{claim['method']}, {claim['network']}: {claim['citation']} (read in {claim['read_in']})",
        reproductions=tuple(Reproduction(item[dataset], item["citation"]) for item in same),
    )
