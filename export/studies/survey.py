"""Exports and verifies many networks in many layouts: `python -m export.studies.survey NAME ... --json FILE`.

Untrained networks, initialised with seed 0; each in every layout that has a meaning for it. A network that fails is
told and does not stop the others; the exit status says whether one did.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import zoo
from zoo.errors import CommandParser, ZooError, run_command
from zoo.files import check_writable, write_json
from zoo.provenance import provenance
from zoo.specs import check_timesteps

from ..file import LAYOUTS
from ..graph import check_layout
from ..to_onnx import to_onnx


def main(argv: list[str] | None = None) -> None:
    """Runs the command line."""
    parser = CommandParser(
        prog="python -m export.studies.survey", description="Export and verify networks in every layout."
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help="architectures or wildcards, such as '*_w16'")
    parser.add_argument("--layouts", nargs="+", default=LAYOUTS[:3], metavar="LAYOUT", help="flat function step")
    parser.add_argument("--timesteps", type=int, default=4, metavar="N", help="time steps (4)")
    parser.add_argument("--json", metavar="FILE", help="write the reports here, after every network")
    args = parser.parse_args(argv)
    if lost := [wanted for wanted in args.names if not zoo.list_models(wanted)]:
        raise ZooError(f"no architecture is called {' or '.join(lost)}: python -m zoo list")
    for layout in args.layouts:
        check_layout(layout, "fp32")
    check_timesteps(args.timesteps)
    if args.json:
        check_writable(args.json)
    found: dict[str, dict[str, Any]] = {}
    for name in zoo.list_models(args.names):
        found[name] = {layout: survey(name, layout, args.timesteps) for layout in args.layouts}
        for layout, row in found[name].items():
            print(f"{name} {layout}: " + (row.get("error") or f"{row['nodes']} nodes, {row['seconds']} s"), flush=True)
        if args.json:
            write_json(args.json, {"timesteps": args.timesteps, "networks": found} | provenance())
    if failed := [name for name, rows in found.items() if any("error" in row for row in rows.values())]:
        sys.exit(f"{len(failed)} of {len(found)} networks failed: {', '.join(failed)}")


def survey(name: str, layout: str, timesteps: int) -> dict[str, Any]:
    """Returns what the export of one network in one layout came to; "error" if it failed."""
    torch.manual_seed(0)
    begin = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        try:
            model = zoo.create_model(name, timesteps=timesteps)
            report = to_onnx(model, Path(folder) / "model.onnx", layout=layout)
        except ZooError as error:
            return {"error": str(error)}
    real, dyadic = report["verification"]["real"], report["verification"]["dyadic"]
    kept = {key: report[key] for key in ("bytes", "nodes", "seconds", "verify_seconds", "peak_mb")}
    return kept | {
        "cpu_seconds": round(time.process_time() - begin, 2),  # of all threads: says more on a busy machine
        "identical": dyadic["identical"], "layers": dyadic["layers"], "flip_rate": real["flip_rate"],
        "rounding_flip_rate": real["rounding_flip_rate"], "top1_agreement": real["top1_agreement"],
    }  # fmt: skip


if __name__ == "__main__":
    run_command(main)
