"""Results side by side: `python -m recipes.compare RUN ...`."""

import argparse
from typing import Any

from zoo.errors import ZooError, quoted, run_command, text_table
from zoo.files import read_json
from zoo.result import Arm, Training, check

from .commands import parse_compare


def table(results: list[dict[str, Any]]) -> str:
    """Returns a line for each result: name, seed, top-1 in percent, spikes per image, training time, with differences.

    Raises:
        ZooError: they are not of the same images.
    """
    first = results[0]
    for result in results[1:]:
        for key in ("dataset", "data_sha256", "split", "images"):
            if result[key] != first[key]:
                raise ZooError(f"results of {key} {quoted(first[key])} and {quoted(result[key])} have no difference")
    rows = []
    for result in results:
        top1, spikes = f"{result['top1']:.2f}", f"{result['spikes_per_image']:,.0f}"
        if result is not first:
            top1 += f" ({result['top1'] - first['top1']:+.2f})"
            if first["spikes_per_image"]:  # of nothing there is no percentage
                spikes += f" ({100 * (result['spikes_per_image'] / first['spikes_per_image'] - 1):+.1f} %)"
        name = f"{result['model']}.{result['tag']}"
        if "arm" in result:
            name += f" {result['arm']}"
        rows.append([name, result["seed"], top1, spikes, f"{result['train_seconds']:.0f}"])
    return text_table(["model", "seed", "top-1 %", "spikes/image", "train s"], rows, range(1, 5))


def said(result: dict[str, Any]) -> str:
    """Says accuracy and spikes of one result, for people."""
    spikes = f"{result['spikes_per_image']:,.0f} spikes per image"
    top5 = f"top-5 {result['top5']:.2f} %, " if result["top5"] < 100 else ""  # of five classes it is always 100
    return f"top-1 {result['top1']:.2f} %, {top5}{spikes}"


def run(a: argparse.Namespace) -> None:
    """Compares what a command line says."""
    results = []
    for path in a.results:
        result = read_json(path)
        is_arm = isinstance(result, dict) and "arm" in result
        results.append(check(result, path, {"accuracy": Arm if is_arm else Training}))
    print(table(results))


def main(argv: list[str] | None = None) -> None:
    """Runs the command line."""
    run(parse_compare(argv))


if __name__ == "__main__":
    run_command(main)
