"""Compares ways to train, arm by arm and seed by seed: `python -m recipes.ablate PLAN`.

Each arm runs with each seed as a training run of its own. A seed fixes initialisation, data order and augmentation, so
runs of one seed are pairs: what an arm changes is read from differences within them. One JSON file per run is the
evidence; the page and plot beside them are rendered from these files alone.

Several commands, on several machines with a common folder, share a plan: each takes the runs that no other one trains.
"""

import argparse
import csv
import glob
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from zoo.data import load_dataset
from zoo.errors import ZooError, one_of, quoted, run_command, shown
from zoo.files import atomic_write, check_writable, dump_yaml, is_locked, locked, read_json, user_path, write_json
from zoo.plugins import plugin_files
from zoo.provenance import command

from .commands import parse_ablate, usable_cores
from .on_ray import cluster
from .page import render
from .plan import Plan, Run, load_plan
from .processes import same_modules
from .recipe import RESULT, STATE
from .run import BUSY, LOG

_STARTED = "== started "


def ablate(
    plan: Plan, runs: list[Run], workers: int, work: Path, ray: str | None = None, plugins: Sequence[str] = ()
) -> None:
    """Trains those of a plan's runs that have no result yet, `workers` at a time, and renders its page after each.

    A run that was stopped goes on where it ended; one that another command trains is left to it, and its result taken
    if it is there at the end.

    Args:
        runs: those that are wanted now.
        work: folder of the run directories, a common one for commands that share a plan.
        ray: address of a Ray cluster, whose nodes train instead of this machine; see `recipes.on_ray`.
        plugins: what each run loads beside those of its recipe.

    Raises:
        ZooError: some run failed, which is told at once, too; or a result file is of another recipe than the plan says.
    """
    missing = [run for run in plan.runs if not plan.result_of(run)]  # of all: the page needs every result sound
    todo = [run for run in runs if run in missing]
    for run in todo:  # before the work, which may be hours
        check_writable(plan.folder / f"{run.name}.json")
        check_writable(work / run.name / RESULT)
    for data in {tuple(run.recipe.data.items()) for run in todo}:
        load_dataset(**dict(data))
    threads = max(1, usable_cores() // workers)
    environment = ({} if torch.cuda.is_available() else {"OMP_NUM_THREADS": str(threads)}) | os.environ | same_modules()
    start = cluster(ray) if ray else None
    active: dict[Any, tuple[Run, int]] = {}
    failed: list[str] = []
    others: list[Run] = []
    bar = tqdm(total=len(runs), initial=len(runs) - len(todo), desc=plan.name, unit="run")

    def fail(run: Run, why: str) -> None:
        failed.append(f"{run.name} ({why})")
        tqdm.write(f"{run.name} failed: {why}; the others go on")

    try:
        with bar:
            while todo or active:
                while todo and len(active) < workers:
                    run = todo.pop(0)
                    if is_locked(work / run.name) or plan.result_of(run):
                        others.append(run)
                    else:
                        place = min({*range(len(active) + 1)} - {used for _, used in active.values()})
                        gpu = {"LOCAL_RANK": str(place % max(1, torch.cuda.device_count()))}  # see `pick_device`
                        active[_start(run, work, plugins, environment | gpu, start)] = run, place
                time.sleep(0.2)
                for process in [p for p in active if p.poll() is not None]:
                    run, _ = active.pop(process)
                    if process.returncode or not (work / run.name / RESULT).is_file():
                        if process.returncode == BUSY:  # another command was faster
                            others.append(run)
                        else:
                            fail(run, _why(process.returncode, work / f"{run.name}.log"))
                        continue
                    r = _keep(plan, run, work)
                    tqdm.write(f"{run.name}: top-1 {r['top1']:.2f} %, {r['spikes_per_image']:,.0f} spikes")
                    bar.update()
                    try:
                        render(plan)
                    except ZooError as error:  # it does not fit the others, which go on
                        fail(run, str(error))
    finally:
        for process in active:  # on Ctrl-C: they save their states, from which they go on next time
            process.terminate()
        for process in active:
            process.wait()
    _collect(plan, others, work)
    if failed:
        raise ZooError(f"{len(failed)} of {len(runs)} runs failed: {'; '.join(failed)}")


def _collect(plan: Plan, others: list[Run], work: Path) -> None:
    """Takes the results of runs that other commands trained, and says which of them go on."""
    for run in others:
        if not plan.result_of(run) and not is_locked(work / run.name) and (work / run.name / RESULT).is_file():
            _keep(plan, run, work)
    render(plan)
    if left := [run.name for run in others if not plan.result_of(run)]:
        print(f"{len(left)} runs are left to other commands: {', '.join(left)}; the last of them renders the page")


def state_of(plan: Plan, run: Run, work: Path) -> str:
    """Says in a word how far a run is: done, running (in this or another command), started or open."""
    if plan.result_of(run):
        return "done"
    if is_locked(work / run.name):
        return "running"
    return "started" if (work / run.name / STATE).exists() else "open"


def _start(
    run: Run, work: Path, plugins: Sequence[str], environment: dict[str, str], start: Callable[..., Any] | None
) -> Any:
    folder, text, log_file = work / run.name, dump_yaml(run.recipe.model_dump()), work / f"{run.name}.log"
    with locked(work):  # several commands may want this run at once
        recipe = atomic_write(work / f"{run.name}.yaml", text)
    arguments = [sys.executable, "-m", "recipes.train", str(recipe), "--out", str(folder), "--resume"]
    files = [*plugins, *(str(user_path(file).absolute()) for file in run.recipe.plugins)]
    arguments += [word for file in files for word in ("--plugin", file)]
    if start is not None:
        return start(arguments, {recipe: text}, log_file, [glob.escape(str(folder / name)) for name in (RESULT, LOG)])
    with open(log_file, "ab") as log:
        log.write(f"{_STARTED}{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n".encode())
        log.flush()
        # A group of its own: Ctrl-C would meet it at once and, with the signal from here, twice, which ends it unsaved.
        return subprocess.Popen(arguments, stdout=log, stderr=subprocess.STDOUT, env=environment, process_group=0)


def _keep(plan: Plan, run: Run, work: Path) -> dict[str, Any]:
    folder = work / run.name
    with open(folder / "summary.csv", newline="") as log:
        *_, last = csv.DictReader(log)
    result = {"plan": plan.name, "arm": run.arm} | read_json(folder / RESULT)
    result |= {"command": command(), "train_loss": float(last["train_loss"]), "recipe": run.recipe.settings}
    with locked(plan.folder):  # another command may take it, too
        write_json(plan.folder / f"{run.name}.json", result)
    return result


def _why(code: int, log: Path) -> str:
    """Says why a run failed: its error or the signal that ended it, and the last lines of its log."""
    if not log.is_file():
        return "its node died, and left no log"
    lines = log.read_bytes().decode(errors="replace").rpartition(_STARTED)[2].rstrip().split("\n")
    if errors := [line for line in lines if line.startswith(("error: ", "no test and no "))]:
        return errors[-1]
    end = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
    last = " / ".join(shown(line.rpartition("\r")[2], 200) for line in lines[-3:])
    return f"{end}, see {log}: {last}"


def chosen(plan: Plan, arms: list[str] | None, seeds: list[int] | None, shard: str | None) -> list[Run]:
    """Returns the runs of these arms and seeds, all by default; of shard "i/n" every n-th, from the i-th on."""
    for what, given, known in (("arm", arms, plan.arms), ("seed", seeds, plan.seeds)):
        if unknown := [value for value in given or [] if value not in known]:
            raise one_of(f"{what} of {plan.name}", unknown[0], [str(value) for value in known])
    runs = [run for run in plan.runs if run.arm in (arms or plan.arms) and run.seed in (seeds or plan.seeds)]
    if not shard:
        return runs
    part = re.fullmatch(r"(\d{1,6})/(\d{1,6})", shard)
    first, count = (int(number) for number in part.groups()) if part else (0, 0)
    if not 1 <= first <= count:
        raise ZooError(f"--shard takes I/N with I from 1 to N, as 1/4, not {quoted(shard)}")
    return runs[first - 1 :: count]


def run(options: argparse.Namespace) -> None:
    """Trains what a command line says."""
    plugins = plugin_files()  # of the command line, before those of the plan
    plan = load_plan(options.plan)
    runs, work = chosen(plan, options.arms, options.seeds, options.shard), user_path(options.work_dir) / plan.name
    work = work.absolute() if options.ray else work  # the nodes' own working directory is another
    if options.list:
        for run in runs:
            print(f"{run.name:40} {state_of(plan, run, work)}")
        return
    for number in (signal.SIGTERM, signal.SIGHUP):  # end like Ctrl-C, and take the runs along
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, signal.default_int_handler)
    ablate(plan, runs, options.workers, work, options.ray, plugins)


def main(argv: list[str] | None = None) -> None:
    """Runs the command line."""
    run(parse_ablate(argv))


if __name__ == "__main__":
    run_command(main)
