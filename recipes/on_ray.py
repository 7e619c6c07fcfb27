"""Runs of a plan as tasks of a Ray cluster (`pip install 'snn-zoo[ray]'`), each on a node with free cores or a GPU.

A task whose node dies is started again on another one. Where all nodes see the work directory at the same path, it goes
on from its last state; elsewhere from its beginning, and what it leaves comes back to the command's machine.
"""

import os
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from zoo.errors import ZooError, one_line

from .processes import end_with_parent, same_modules
from .run import LOG, RESULT

_TRIES = 20
"""How often a node may die under one run."""


def train_on_node(
    arguments: list[str], recipe: str, folder: Path, environment: dict[str, str], here: str
) -> dict[str, Any]:
    """Trains in a process of its own, in the working directory of the command if the node has it, and returns its exit
    status, with the contents of the files to be kept."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.with_name(f"{folder.name}.yaml").write_text(recipe)
    log = folder.with_name(f"{folder.name}.log")
    with open(log, "ab") as file:
        process = subprocess.Popen(
            arguments, stdout=file, stderr=subprocess.STDOUT, env=os.environ | environment, preexec_fn=end_with_parent,
            cwd=here if os.path.isdir(here) else None,
        )  # fmt: skip
    try:
        code = process.wait()
    finally:
        process.send_signal(signal.SIGTERM)  # where the task is cancelled: it saves its state
        process.wait()
    kept = [file for file in (log, folder / RESULT, folder / LOG) if file.is_file()]
    return {"code": code, "files": {str(file): file.read_bytes() for file in kept}}


class Task:
    """A training on some node, asked as `subprocess.Popen` is."""

    def __init__(self, ray: Any, reference: Any) -> None:
        self._ray, self._reference = ray, reference
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Returns its exit status, None while it runs or waits for a node."""
        if self.returncode is None and self._ray.wait([self._reference], timeout=0)[0]:
            self.wait()
        return self.returncode

    def wait(self) -> None:
        """Waits for its end, and writes the files that it left and that are not here."""
        try:
            done = self._ray.get(self._reference)
        except self._ray.exceptions.RayError as error:
            print(one_line(error))
            self.returncode = 1
            return
        for file, content in done["files"].items():
            if not Path(file).exists():
                Path(file).parent.mkdir(parents=True, exist_ok=True)
                Path(file).write_bytes(content)
        self.returncode = done["code"]

    def terminate(self) -> None:
        """Ends it; it saves its state first."""
        self._ray.cancel(self._reference)


def cluster(address: str) -> Callable[..., Task]:
    """Joins a Ray cluster and returns what starts `train_on_node` there.

    A run has a GPU where the cluster has any, else as many cores as OMP_NUM_THREADS says, one by default.

    Raises:
        ZooError: Ray is not installed, or there is no cluster at the address.
    """
    try:
        import ray
    except ImportError:
        raise ZooError("--ray needs Ray: pip install 'snn-zoo[ray]'") from None
    host, _, port = address.rpartition(":")
    try:
        if host and port.isdigit():  # Ray would try for minutes
            socket.create_connection((host, int(port)), 10).close()
        ray.init(address, runtime_env={"env_vars": same_modules()}, log_to_driver=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise ZooError(f"cannot join a Ray cluster at {address}: {one_line(error)}") from error
    cores = int(os.environ.get("OMP_NUM_THREADS", "1"))
    needs = {"num_gpus": 1} if ray.cluster_resources().get("GPU") else {"num_cpus": cores}
    task = ray.remote(train_on_node).options(max_retries=_TRIES, **needs)
    threads = {} if torch.cuda.is_available() else {"OMP_NUM_THREADS": str(cores)}

    def start(arguments: list[str], recipe: str, folder: Path) -> Task:
        return Task(ray, task.remote(arguments, recipe, folder, threads | same_modules(), os.getcwd()))

    return start
