"""CHANGES.md: a dated line for each row of the board whose numbers changed, appended by `render` and `add`.

The log is the board's memory. Replayed, it gives the numbers that the board had when it was last rendered, so a number
that differs now, whether a file or a rule changed, gets a line; and `check` calls a log without that line stale.
"""

import re
from collections.abc import Sequence
from datetime import date

from .row import Row

HEAD = """\
# What changed on the board

Written by `python -m leaderboard render` and `add`, oldest first; a dash is no number. Lines are never edited.

| Date | Row | Numbers |
| --- | --- | --- |
"""
NONE = "—"
_FIELDS = (
    "tier", "runs", "images", "top1", "top1_std", "spikes_per_image", "effective_acs", "effective_macs", "dense",
    "energy_uj", "params", "epochs", "train_seconds", "test_reads",
)  # fmt: skip
_LINE = re.compile(r"\| \d{4}-\d\d-\d\d \| (\S+) \| (.*) \|")
_CHANGE = re.compile(r"([^;|]+?) (\S+) → (\S+)(?:; |$)")
State = dict[tuple[str, str], str]


def replay(log: str) -> State:
    """From row and number to its last value in a log, without those that are gone."""
    state: State = {}
    for path, changes in _LINE.findall(log):
        state |= {(path, name): now for name, _, now in _CHANGE.findall(changes)}
    return {key: value for key, value in state.items() if value != NONE}


def extended(log: str, rows: Sequence[Row], today: date) -> str:
    """A log, with a line for every row that is not as it says."""
    before, now = replay(log), _state(rows)
    changed = [key for key in now | before if now.get(key) != before.get(key)]
    lines = [log or HEAD]
    for path in dict.fromkeys(path for path, _ in changed):
        names = [name for other, name in changed if other == path]
        texts = [f"{name} {before.get((path, name), NONE)} → {now.get((path, name), NONE)}" for name in names]
        lines.append(f"| {today.isoformat()} | {path} | {'; '.join(texts)} |\n")
    return "".join(lines)


def _state(rows: Sequence[Row]) -> State:
    state: State = {}
    for row in rows:
        values = {name: getattr(row, name) for name in _FIELDS}
        for graph in row.graphs:
            form = f"{graph.precision} {graph.layout}"
            values |= {f"{form} top1": graph.top1, f"{form} spikes_per_image": graph.spikes_per_image}
            values |= {f"{form} bytes": graph.bytes, f"{form} p50_ms": graph.p50_ms}
        # Seven digits: beyond what is measured, and without the last bits of a mean.
        texts = {name: f"{v:.7g}" if isinstance(v, float) else str(v) for name, v in values.items() if v is not None}
        state |= {(row.path, name): text for name, text in texts.items()}
    return state
