"""Which checkpoints are on a Hub: weights/published.json, one entry per release, pinned to a commit and a sha256."""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ..errors import ZooError
from ..files import read_json

RECIPE = "families.t4_cifar10"
"""What trains any network."""
PUBLISHED = Path(__file__).resolve().parent.parent / "weights" / "published.json"


class Published(NamedTuple):
    """Where one checkpoint is: the repository, its commit, and the sha256 of the weights file there."""

    repo: str
    revision: str
    sha256: str

    @property
    def hub_id(self) -> str:
        """REPO@REVISION, as timm and `zoo.create_model("hf-hub:...")` take it."""
        return f"{self.repo}@{self.revision}"


@cache
def published() -> dict[str, Published]:
    """From `architecture.tag` to where it is published.

    Raises:
        ZooError: the file is malformed.
    """
    entries = read_json(PUBLISHED)
    if not isinstance(entries, dict):
        raise ZooError(f"{PUBLISHED} must hold one object, from architecture.tag to repo, revision and sha256")
    found = {}
    for name, entry in entries.items():
        try:
            found[name] = Published(**entry)
            pinned = re.fullmatch("[0-9a-f]{40} [0-9a-f]{64}", f"{found[name].revision} {found[name].sha256}")
        except TypeError:
            pinned = None
        if not pinned or "." not in name:
            raise ZooError(f"{PUBLISHED}: {name!r} must give repo, revision (a full commit) and sha256, not {entry!r}")
    return found


def no_weights(architecture: str, available: Sequence[str]) -> str:
    """What to tell somebody who asks for weights that nobody has published, and what there is instead."""
    return (
        f"{architecture} has no published weights: `python -m recipes.train {RECIPE} --model {architecture}` trains "
        f"some. Pretrained models: {', '.join(available) or 'none yet'}"
    )
