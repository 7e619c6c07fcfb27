"""What others published, from references.json: quoted with its source, never ranked with what was measured here.

Their accuracy is, with few exceptions, that of the best epoch on the test set and of one seed. A number that a third
party got from the same method stands beside the claim.
"""

from pathlib import Path
from typing import Any

from zoo.errors import ZooError
from zoo.files import read_json
from zoo.record import NAME, PERCENT, POSITIVE, TEXT, Check, Checks

from .row import Reproduction, Row

REFERENCES = Path(__file__).with_name("references.json")


def _are_reproductions(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, dict)
        and item.keys() == {"top1", "citation"}
        and PERCENT.test(item["top1"])
        and TEXT.test(item["citation"])
        for item in value
    )


_KNOWN = Check(f"{POSITIVE.expected}, or null", lambda value: value is None or POSITIVE.test(value))
_KEYS: Checks = {
    "method": NAME,
    "network": NAME,
    "dataset": NAME,
    "timesteps": _KNOWN,
    "params": _KNOWN,
    "top1": PERCENT,
    "citation": TEXT,
    "code": Check("owner/name, or null", lambda value: value is None or TEXT.test(value)),  # on GitHub
    "seen_in": TEXT,  # the paper itself, its code, another paper's table
    "reproductions": Check("a list of {top1, citation}", _are_reproductions),
}


def published(file: Path = REFERENCES) -> list[Row]:
    """A row of the tier "published" for every claim, by data set, then the highest first.

    Raises:
        ZooError: the file is malformed, or has two claims of one method, network, number of time steps and data set.
    """
    entries = read_json(file)
    if not isinstance(entries, list):
        raise ZooError(f"{file} must hold a list of claims")
    table: dict[str, Row] = {}
    for entry in entries:
        row = _row(entry, str(file))
        if row.path in table:
            raise ZooError(f"{file} has {row.path} twice")
        table[row.path] = row
    return sorted(table.values(), key=lambda row: (row.dataset, -row.top1, row.name))


def _row(entry: Any, origin: str) -> Row:
    if not isinstance(entry, dict) or entry.keys() != _KEYS.keys():
        raise ZooError(f"{origin}: a claim holds {', '.join(_KEYS)}, not {entry!r}")
    for key, check in _KEYS.items():
        if not check.test(entry[key]):
            raise ZooError(f"{origin}: {key} is {entry[key]!r}, expected {check.expected}")
    steps = "" if entry["timesteps"] is None else f"_t{entry['timesteps']}"
    code = f"; code github.com/{entry['code']}" if entry["code"] else ""
    return Row(
        dataset=entry["dataset"],
        model=entry["network"],
        tag=entry["method"] + steps,
        tier="published",
        top1=entry["top1"],
        timesteps=entry["timesteps"],
        params=entry["params"],
        published_top1=entry["top1"],
        published_citation=f"{entry['citation']} (read in {entry['seen_in']}{code})",
        reproductions=tuple(Reproduction(**item) for item in entry["reproductions"]),
    )
