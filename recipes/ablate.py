"""Compares ways to train, arm by arm and seed by seed: `python -m recipes.ablate PLAN`.

Each arm runs with each seed as a training run of its own. A seed fixes initialisation, data order and augmentation, so
runs of one seed are pairs: what an arm changes is read from differences within them. One JSON file per run is the
evidence; the page and plot beside them are rendered from these files alone.
"""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from zoo.errors import CommandParser, ZooError, one_of, run_command
from zoo.files import atomic_write, check_writable, dump_yaml, read_json, user_path, write_json
from zoo.plugins import add_plugin_option, plugin_files
from zoo.provenance import command

from .page import render
from .plan import Plan, Run, load_plan
from .processes import same_modules

_STARTED = "== started "


def ablate(plan: Plan, workers: int, work: Path, arms: Collection[str] | None = None) -> None:
    """Runs what of a plan has no result yet, `workers` at a time, then render its page.

    A run that was stopped goes on where it ended; one that fails is reported when the others are done.

    Args:
        arms: those that are wanted now; all by default.

    Raises:
        ZooError: some run failed, or a result file is of another recipe than the plan says.
    """
    missing = [run for run in plan.runs if not plan.result_of(run)]  # of all arms: the page needs every result sound
    wanted = [run for run in plan.runs if arms is None or run.arm in arms]
    todo = [run for run in wanted if run in missing]
    for run in todo:  # before the work, which may be hours
        check_writable(plan.folder / f"{run.name}.json")
        check_writable(work / run.name / "result.json")
    threads = max(1, (os.cpu_count() or 1) // workers)
    environment = ({} if torch.cuda.is_available() else {"OMP_NUM_THREADS": str(threads)}) | os.environ | same_modules()
    active: dict[subprocess.Popen[bytes], Run] = {}
    failed: list[str] = []
    bar = tqdm(total=len(wanted), initial=len(wanted) - len(todo), desc=plan.name, unit="run")
    try:
        with bar:
            while todo or active:
                while todo and len(active) < workers:
                    run = todo.pop(0)
                    active[_start(run, work, environment)] = run
                time.sleep(0.2)
                for process in [p for p in active if p.poll() is not None]:
                    run = active.pop(process)
                    if process.returncode or not (work / run.name / "result.json").is_file():
                        failed.append(f"{run.name} ({_last_line(work / f'{run.name}.log')})")
                        continue
                    r = _keep(plan, run, work)
                    tqdm.write(f"{run.name}: top-1 {r['top1']:.2f} %, {r['spikes_per_image']:,.0f} spikes")
                    bar.update()
                    try:
                        render(plan)
                    except ZooError as error:  # it does not fit the others, which go on
                        failed.append(f"{run.name} ({error})")
    finally:
        for process in active:  # on Ctrl-C: they save their states, from which they go on next time
            process.terminate()
        for process in active:
            process.wait()
    if failed:
        raise ZooError(f"{len(failed)} of {len(wanted)} runs failed: {'; '.join(failed)}")
    render(plan)


def _start(run: Run, work: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    folder = work / run.name
    recipe = atomic_write(work / f"{run.name}.yaml", dump_yaml(run.recipe.to_dict()))
    arguments = [sys.executable, "-m", "recipes.train", str(recipe), "--out", str(folder), "--resume"]
    arguments += [word for file in plugin_files() for word in ("--plugin", file)]
    with open(work / f"{run.name}.log", "ab") as log:
        log.write(f"{_STARTED}{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n".encode())
        log.flush()
        # A group of its own: Ctrl-C would meet it at once and, with the signal from here, twice, which ends it unsaved.
        return subprocess.Popen(arguments, stdout=log, stderr=subprocess.STDOUT, env=environment, process_group=0)


def _keep(plan: Plan, run: Run, work: Path) -> dict[str, Any]:
    folder = work / run.name
    with open(folder / "summary.csv", newline="") as log:
        *_, last = csv.DictReader(log)
    result = {"plan": plan.name, "arm": run.arm} | read_json(folder / "result.json")
    result |= {"command": command(), "train_loss": float(last["train_loss"]), "recipe": run.recipe.settings}
    write_json(plan.folder / f"{run.name}.json", result)
    return result


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").rpartition(_STARTED)[2].split("\n")
    return next((line for line in reversed(lines) if line.startswith(("error: ", "no test and no "))), f"see {log}")


def main(argv: list[str] | None = None) -> None:
    """Runs the command line."""
    parser = CommandParser(
        prog="python -m recipes.ablate",
        description="Train every arm of a plan with every seed, and compare them pair by pair.",
        epilog="Results go to the folder beside the plan that has its name: one JSON file per run, README.md with the "
        "table, plot.svg. Start it again after an interruption: finished runs are kept, a started one goes on. "
        "example: python -m recipes.ablate cpu_screening --workers 2",
    )
    parser.add_argument("plan", metavar="PLAN", help="a YAML file, or the name of one in studies/ablation/plans")
    parser.add_argument("--arms", nargs="+", metavar="ARM", help="run these now; a plan may be done in parts")
    parser.add_argument("--workers", type=int, default=1, help="runs at a time, which share the cores (default: 1)")
    parser.add_argument("--work-dir", default="runs/ablations", help="where run directories go (default: %(default)s)")
    add_plugin_option(parser)
    options = parser.parse_args(argv)
    if options.workers < 1:
        raise ZooError(f"--workers must be 1 or more, not {options.workers}")
    plan = load_plan(options.plan)
    if unknown := [arm for arm in options.arms or [] if arm not in plan.arms]:
        raise one_of(f"arm of {plan.name}", unknown[0], plan.arms)
    for number in (signal.SIGTERM, signal.SIGHUP):  # end like Ctrl-C, and take the runs along
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, signal.default_int_handler)
    ablate(plan, options.workers, user_path(options.work_dir) / plan.name, options.arms)


if __name__ == "__main__":
    run_command(main)
