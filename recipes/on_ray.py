"""Trainings and measurements as tasks of a Ray cluster (`pip install -e '.[ray]'`).

A task whose node dies is started again on another one. Where all nodes see the work directory at the same path, a
training goes on from its last state; elsewhere from its beginning, and what it leaves comes back to the command's
machine.
"""

import glob
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from zoo.errors import ZooError, one_line
from zoo.files import atomic_write

from .processes import end_with_parent, same_modules

_TRIES = 20
"""How often a node may die under one run."""


def run_on_node(
    arguments: list[str], given: dict[Path, str], log: Path, kept: list[str], environment: dict[str, str], here: str
) -> dict[str, Any]:
    """Runs a command in a process of its own, in the working directory of the one that asks if the node has it, and
    returns its exit status, with the contents of its log and of the files that fit the patterns `kept`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    for path, text in given.items():
        path.write_text(text)
    with open(log, "ab") as file:
        process = subprocess.Popen(
            arguments, stdout=file, stderr=subprocess.STDOUT, env=os.environ | environment, preexec_fn=end_with_parent,
            cwd=here if os.path.isdir(here) else None,
        )  # fmt: skip
    try:
        code = process.wait()
    finally:
        process.send_signal(signal.SIGTERM)  # where the task is cancelled: a training saves its state
        process.wait()
    files = [str(log), *(file for pattern in kept for file in glob.glob(pattern))]
    return {"code": code, "files": {file: Path(file).read_bytes() for file in files}}


class Task:
    """A command on some node, asked as `subprocess.Popen` is."""

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
            if not Path(file).exists() or Path(file).read_bytes() != content:
                atomic_write(file, content)
        self.returncode = done["code"]

    def terminate(self) -> None:
        """Ends it; it saves its state first."""
        self._ray.cancel(self._reference)


def cluster(address: str, whole_nodes: bool = False) -> Callable[..., Task]:
    """Joins a Ray cluster and returns what starts `run_on_node` there.

    Args:
        address: of the cluster, "auto" for the one that this machine is in.
        whole_nodes: a task is alone on its node, as one that times something has to be: of nodes of several sizes on
            those with most cores. Else it has a GPU where the cluster has any, or as many cores as OMP_NUM_THREADS
            says, one by default.

    Raises:
        ZooError: Ray is not installed, or there is no cluster at the address.
    """
    try:
        import ray
    except ImportError:
        raise ZooError("--ray needs Ray: pip install -e '.[ray]'") from None
    host, _, port = address.rpartition(":")
    try:
        if host and port.isdigit():  # Ray would try for minutes
            socket.create_connection((host, int(port)), 10).close()
        ray.init(address, runtime_env={"env_vars": same_modules()}, log_to_driver=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise ZooError(f"cannot join a Ray cluster at {address}: {one_line(error)}") from error
    cores = int(os.environ.get("OMP_NUM_THREADS", "1"))
    needs = {"num_gpus": 1} if ray.cluster_resources().get("GPU") else {"num_cpus": cores}
    if whole_nodes:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        largest = max(nodes, key=lambda resources: resources.get("CPU", 0))
        needs = {"num_cpus": largest.get("CPU", 0), "num_gpus": largest.get("GPU", 0)}
        cores = int(needs["num_cpus"])
    task = ray.remote(run_on_node).options(max_retries=_TRIES, **needs)
    asked = {name: value for name, value in os.environ.items() if name.startswith("SNNZOO_")}
    environment = same_modules() | asked | ({} if torch.cuda.is_available() else {"OMP_NUM_THREADS": str(cores)})

    def start(arguments: list[str], given: dict[Path, str], log: Path, kept: list[str]) -> Task:
        return Task(ray, task.remote(arguments, given, log, kept, environment, os.getcwd()))

    return start
