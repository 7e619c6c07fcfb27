"""Results side by side: `python -m recipes.compare RESULT.json ...`."""

from typing import Any

from zoo.errors import CommandParser, ZooError, quoted, run_command
from zoo.files import read_json
from zoo.result import Arm, Training, check


def table(results: list[dict[str, Any]]) -> str:
    """Returns one line per result: name, seed, top-1 in percent, spikes per image, training time, with differences.

    Raises:
        ZooError: they are not of the same images.
    """
    first = results[0]
    for result in results[1:]:
        for key in ("dataset", "data_sha256", "split", "images"):
            if result[key] != first[key]:
                raise ZooError(f"results of {key} {quoted(first[key])} and {quoted(result[key])} have no difference")
    lines = [f"{'model':<28} {'seed':>4} {'top-1 %':>16} {'spikes/image':>20} {'train s':>8}"]
    for result in results:
        top1, spikes = f"{result['top1']:.2f}", f"{result['spikes_per_image']:,.0f}"
        if result is not first:
            top1 += f" ({result['top1'] - first['top1']:+.2f})"
            if first["spikes_per_image"]:  # of nothing there is no percentage
                spikes += f" ({100 * (result['spikes_per_image'] / first['spikes_per_image'] - 1):+.1f} %)"
        name, seconds = f"{result['model']}.{result['tag']}", result["train_seconds"]
        lines.append(f"{name:<28} {result['seed']:>4} {top1:>16} {spikes:>20} {seconds:>8.0f}")
    return "\n".join(lines)


def said(result: dict[str, Any]) -> str:
    """Says accuracy and spikes of one result, for people."""
    spikes = f"{result['spikes_per_image']:,.0f} spikes per image"
    return f"top-1 {result['top1']:.2f} %, top-5 {result['top5']:.2f} %, {spikes}"


def main(argv: list[str] | None = None) -> None:
    """Runs the command line."""
    parser = CommandParser(
        prog="python -m recipes.compare",
        description="Accuracy and spikes of several training runs, with differences to the first.",
        epilog="One run a side shows a direction at best: a claim needs several seeds (see leaderboard/README.md).",
    )
    parser.add_argument("results", metavar="RESULT.json", nargs="+", help="result.json of a run directory")
    print(table([_read(path) for path in parser.parse_args(argv).results]))


def _read(path: str) -> dict[str, Any]:
    result = read_json(path)
    is_arm = isinstance(result, dict) and "arm" in result
    return check(result, path, {"accuracy": Arm if is_arm else Training})


if __name__ == "__main__":
    run_command(main)
