"""Two torchrun agents of two processes on loopback, some of which are killed: `torchrun_kills.py FOLDER KILLS [SEED]`.

Trains once undisturbed, and once with KILLS times SIGKILL to one of the four processes or two agents, each at a random
moment between the first step and the last. An agent that ends with an error is started again, as
`until torchrun ...; do sleep 1; done` does on each machine. Prints each kill, and whether weights and result are equal.
"""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from recipes.run import RESULT, STATE, load_state
from zoo.checkpoint import WEIGHTS

ROOT = Path(__file__).resolve().parents[2]
EPOCHS, STEPS = 5, 10  # in an epoch
SHORT = "--model sresnet19_w16_gs --dataset digits --timesteps 1 --train-images 160 --batch-size 16 --val-images 16 "
SHORT += f"--epochs {EPOCHS} --test false --checkpoint-minutes 0 --amp off --device cpu --seed 1"
LIMIT = 1500.0
"""Seconds for a run."""


class Agents:
    """Both agents of one run."""

    def __init__(self, out):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            endpoint = f"127.0.0.1:{free.getsockname()[1]}"
        self.out, self.log = out, open(f"{out}.log", "ab")  # noqa: SIM115
        self.command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "2"]
        self.command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint, "--rdzv-id", out.name]
        self.command += ["--local-addr", "127.0.0.1", "--max-restarts", "20", "-m", "recipes.train"]
        self.command += ["quickstart", "--out", str(out), "--resume"]
        self.command += SHORT.split()
        self.running = [self.start(), self.start()]

    def start(self):
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        environment |= {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
        return subprocess.Popen(self.command, cwd=ROOT, env=environment, stdout=self.log, stderr=subprocess.STDOUT)

    def have_ended(self):
        """Returns whether both have ended well; starts again those that have not."""
        self.running = [self.start() if agent.poll() else agent for agent in self.running]
        return all(agent.poll() == 0 for agent in self.running)

    def workers(self):
        """The process ids of those that train, by agent."""
        children = [Path(f"/proc/{a.pid}/task/{a.pid}/children") for a in self.running if a.poll() is None]
        return [int(pid) for file in children if file.exists() for pid in file.read_text().split()]

    @property
    def step(self):
        """How far the run is, by its last state."""
        return load_state(self.out / STATE)["step"] if (self.out / STATE).exists() else 0


def run(out, kills, draw):
    """Trains to the end; kills a process once the run is at each of these steps, after up to a second."""
    agents, left, deadline = Agents(out), sorted(kills), time.time() + LIMIT
    try:
        while not agents.have_ended():
            assert time.time() < deadline, Path(f"{out}.log").read_text()[-5000:]
            time.sleep(0.1)
            if left and agents.step >= left[0] and len(agents.workers()) == 4:
                time.sleep(draw.random())
                targets = [("worker", pid) for pid in agents.workers()] + [("agent", a.pid) for a in agents.running]
                kind, pid = draw.choice(targets)
                print(f"{kind} {pid} killed at step {agents.step} or behind", flush=True)
                os.kill(pid, signal.SIGKILL)
                left.pop(0)
    finally:
        for agent in agents.running:
            agent.kill()
    assert not left, f"the run was over before its kills at {left}"


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and takes its agents along
    folder, count, seed = Path(sys.argv[1]), int(sys.argv[2]), *map(int, sys.argv[3:] or ["0"])
    draw = random.Random(seed)
    if not (folder / "whole" / RESULT).exists():
        run(folder / "whole", [], draw)
    started = time.time()
    run(folder / f"killed{seed}", draw.sample(range(1, EPOCHS * STEPS), count), draw)
    one, two = ((folder / name / WEIGHTS).read_bytes() for name in ("whole", f"killed{seed}"))
    results = [json.loads((folder / name / RESULT).read_text()) for name in ("whole", f"killed{seed}")]
    assert one == two
    assert results[0]["top1"] == results[1]["top1"]
    print(f"bit-equal weights after {count} kills, {time.time() - started:.0f} s")


main()
