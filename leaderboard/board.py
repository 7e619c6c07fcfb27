"""The board as files: the store of results, and what is rendered from it."""

import json
import re
import sys
from collections.abc import Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.errors import ZooError
from zoo.files import TEXT_LIMIT, atomic_write, check_writable, read_bytes, read_text, sha256_of
from zoo.result import read

from .comparison import comparisons_page
from .row import Row
from .rows import rows
from .store import Result, Results, file_name, folder_of, load_results, parts
from .tables import TRIAL, checkpoints_text, csv_text, insert_table, summary

PICTURE, LATENCIES = "accuracy_spikes.svg", "latency_spikes.svg"


@dataclass(frozen=True)
class Board:
    """Where a board's results are, and where what is rendered from them goes."""

    results: Path
    out: Path
    readme: Path | None
    """Markdown that holds the table between its markers, None for none."""
    checkpoints: Path | None = None
    """What `snn-zoo list` says of the zoo's own checkpoints, see `zoo.names.measured`; None for none."""

    def load(self) -> dict[str, Result]:
        """Reads every result of the store; see `load_results`."""
        return load_results(self.results)

    def rendered(self, table: Sequence[Row]) -> dict[Path, str]:
        """Returns the files that rows render to, but for the picture, and their texts; "" for no such file.

        The same rows give the same bytes.
        """
        outputs = {self.out / "leaderboard.csv": csv_text(table), self.out / "comparisons.md": comparisons_page(table)}
        if self.readme:
            outputs[self.readme] = insert_table(read_text(self.readme), summary(_compared(table)))
        if self.checkpoints:
            outputs[self.checkpoints] = checkpoints_text(table)
        return outputs

    def stale(self, results: Results) -> list[str]:
        """Returns the files that are not as results render to; of the picture, its data counts."""
        table = rows(results)
        outputs = self.rendered(table)
        stale = [str(path) for path, text in outputs.items() if (read_text(path) if path.exists() else "") != text]
        for name in (PICTURE, LATENCIES):
            picture = self.out / name
            drawn = re.search(r'data-sha256="(\w+)"', read_text(picture)) if picture.exists() else None
            stale += [str(picture)] * ((drawn and drawn[1]) != _plotted(table, name))
        return stale

    def write(self, results: Results) -> None:
        """Renders results, then writes every file."""
        table = rows(results)
        outputs = self.rendered(table)
        for name in (PICTURE, LATENCIES):
            if (svg := _draw(table, name)) is not None:
                outputs[self.out / name] = svg
        for path, text in outputs.items():
            if text:
                atomic_write(path, text)
            else:
                path.unlink(missing_ok=True)
        print(f"{_count(table, 'row')} from {_count(results, 'result file')}: {self.out}/leaderboard.csv")

    def add(self, files: Sequence[Path]) -> None:
        """Checks result files, each against the store and the others, then copies them into it, and renders.

        Raises:
            ZooError: one is refused, with the reason; nothing was written then.
        """
        results, new = self.load(), {}
        for file in files:
            result, raw = read(file), read_bytes(file, TEXT_LIMIT)
            if any(result == other for other in results.values()):
                continue
            _check_whole(result, str(file))
            place = f"{folder_of(result)}/{file_name(result, raw)}"
            results[place], new[place] = result, raw
        for path in (*self.rendered(rows(results)), *(self.results / place for place in new)):
            check_writable(path)
        for place, raw in new.items():
            if not (self.results / place).exists():
                atomic_write(self.results / place, raw)
                print(f"added {self.results / place}")
        self.write(results)


def _check_whole(result: Result, origin: str) -> None:
    """Raises ZooError, with the reason, for a result that is of a part of a test set, or does not say what it is of."""
    if result.get("partial"):
        raise ZooError(f"{origin}: {result['images']} images are a part of the test set: measure without --limit")
    for place, part in {origin: result, **parts(origin, result)}.items():
        for key in ("commit", *(["data_sha256"] if part["kind"] == "accuracy" else [])):
            if not part[key]:
                raise ZooError(f"{place}: without evidence: {key} is {part[key]!r}; measure in a checkout of the zoo")


def _compared(table: Sequence[Row]) -> list[Row]:
    return [row for row in table if row.dataset != TRIAL]


def _plotted(table: Sequence[Row], name: str) -> str | None:
    """Returns the digest of what a picture shows, None for nothing to draw."""
    data: list[Any]
    if name == LATENCIES:
        shown = [row for row in _compared(table) if (event := row.graph("int16")) and event.p50_ms]
        graphs = [[(g.precision, g.layout, g.p50_ms, g.cpu) for g in row.graphs] for row in shown]
        costs = [(row.path, row.spikes_per_image, row.effective_acs) for row in shown]
        data = list(zip(costs, graphs, strict=True))
    else:
        shown = [row for row in _compared(table) if row.spikes_per_image]
        told = "path", "tier", "timesteps", "epochs", "spikes_per_image", "top1", "top1_std"
        data = [[row.scaling is not None, *(getattr(row, field) for field in told)] for row in shown]
    return sha256_of(json.dumps(data).encode()) if data else None


def _draw(table: Sequence[Row], name: str) -> str | None:
    """Returns a picture's text, "" for nothing to draw, and None, with a warning, where it cannot be drawn."""
    if not (digest := _plotted(table, name)):
        return ""
    try:
        from .charts import latency_picture, picture  # its libraries are an extra, and take a second
    except ModuleNotFoundError as error:
        print(f"warning: {name} is not drawn: it needs {error.name}, pip install -e '.[site]'", file=sys.stderr)
        return None
    drawn = (latency_picture if name == LATENCIES else picture)(_compared(table))
    return drawn.replace("<svg ", f'<svg data-sha256="{digest}" ', 1)


def _count(things: Sized, name: str) -> str:
    return f"{len(things)} {name}{'s' if len(things) != 1 else ''}"
