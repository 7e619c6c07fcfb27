"""Times files of a network beside its baselines: `python -m export.studies.latency NAME ... [--timesteps 1 2 4 8]`.

Of each network and number of time steps it exports float32, int8 and int16 files, and one run of `export.bench_ort`
times them beside `--against`, on test images, in export/reports/latency/NAME.tT.json. What is there stays: a run that
was stopped goes on, and a file that is deleted is measured again. Needs a quiet machine.
`--table` prints the table of export/reports/latency/README.md from the files and measures nothing.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from export.commands import BASELINES
from zoo.errors import CommandParser, ZooError, run_command
from zoo.files import read_json

REPORTS = Path(__file__).parents[1] / "reports" / "latency"
_FILE = re.compile(r"(.+)\.t(\d+)\.json")
_FILES = ["fp32", "int8", "int16"]
_COLUMNS = ["fp32.onnx", "int8.onnx", "int16.onnx", "floor", "relu", "relu-int8", "eager", "event", "compiled"]
_COLUMNS += ["spikingjelly"]
_HEADS = ["float32", "int8", "**int16**", "floor", "ReLU, T = 1", "the same, int8", "PyTorch", "skipping zeros"]
_HEADS += ["compiled", "SpikingJelly"]


def main(argv: list[str] | None = None) -> None:
    """Runs the command line."""
    parser = CommandParser(prog="python -m export.studies.latency", description="Time files beside their baselines.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="networks; with --table all that were measured")
    parser.add_argument("--timesteps", type=int, nargs="+", default=[4], metavar="N", help="time steps (4)")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32], metavar="N", help="batch sizes (1 8 32)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], metavar="N", help="threads (1 2)")
    against = [name for name in BASELINES if name != "spikingjelly"]
    text = f"any of {', '.join(BASELINES)} (all but spikingjelly)"
    parser.add_argument("--against", nargs="+", default=against, choices=BASELINES, metavar="BASELINE", help=text)
    parser.add_argument("--data", default="cifar10", help="whose test images are run (cifar10)")
    parser.add_argument("--runs", type=int, default=20, metavar="N", help="timed runs (20)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="turns that they are dealt out to (5)")
    parser.add_argument("--out", type=Path, default=REPORTS, metavar="DIR", help="where the files go")
    parser.add_argument("--table", action="store_true", help="print the table of the files that are there")
    args = parser.parse_args(argv)
    if args.table:
        print(table(args.out, args.names))
        return
    if not args.names:
        raise ZooError("name a network to measure, or give --table")
    for name in args.names:
        for steps in args.timesteps:
            _measure(name, steps, args)


def _measure(name: str, steps: int, args: Any) -> None:
    out = args.out / f"{name}.t{steps}.json"
    if out.exists():
        print(f"{name}, T = {steps}: measured before")
        return
    with tempfile.TemporaryDirectory() as folder:
        for precision in _FILES:
            scales = ["--calibration", args.data] if precision == "int8" else []
            of = ["--timesteps", str(steps), "--precision", precision, *scales]
            _run("export", name, "-o", f"{folder}/{precision}.onnx", *of)
        files = [f"{folder}/{precision}.onnx" for precision in _FILES]
        out.parent.mkdir(parents=True, exist_ok=True)
        how = ["--batch", *args.batch, "--threads", *args.threads, "--runs", args.runs, "--rounds", args.rounds]
        how += ["--data", args.data, "--limit", 64, "--network", name, "--json", out]
        _run("export.bench_ort", *files, "--against", *args.against, *how, "--no-memory")


def _run(*words: Any) -> None:
    command = [sys.executable, "-m", *map(str, words)]
    if (code := subprocess.run(command).returncode) != 0:
        raise ZooError(f"exit status {code} of python -m {' '.join(command[2:])}")


def table(folder: Path, names: Sequence[str] = ()) -> str:
    """Returns the medians of all files in a folder in milliseconds, a row for each setting, in Markdown."""
    rows = []
    for file in folder.glob("*.json"):
        match = _FILE.fullmatch(file.name)
        if match and (not names or match[1] in names):
            subjects: dict[str, Any] = {s["name"]: s["latency"] for s in read_json(file)["subjects"]}
            for i, setting in enumerate(subjects["fp32.onnx"]):
                where = match[1], int(match[2]), setting["batch"], setting["threads"]
                rows.append((where, [f"{subjects[c][i]['p50_ms']:.1f}" if c in subjects else "" for c in _COLUMNS]))
    if not rows:
        raise ZooError(f"no file NAME.tT.json in {folder}: measure a network first")
    head = ["Network", "T", "Batch", "Threads", *_HEADS]
    lines = [f"| {' | '.join(head)} |", "|:--" + "|--:" * (len(head) - 1) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(map(str, (*where, *cells)))} |" for where, cells in sorted(rows))])


if __name__ == "__main__":
    run_command(main)
