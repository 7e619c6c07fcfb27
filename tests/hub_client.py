"""A user's processes in front of the loopback Hub, each with its own environment, without paying for torch each time.

huggingface_hub reads its environment when it is imported. So one process imports what is slow and does not look at it.
For every environment it forks a second one, which imports huggingface_hub, timm and the zoo in it; and that one forks a
third for every command. `python tests/hub_client.py` is the first: a JSON line in for a command, a line out for the
process id, one for the exit status.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
NAME = min(folder.name for folder in (ROOT / "zoo" / "weights").glob("*_w16_gs.*"))  # a bundled checkpoint

# In front of code that runs in the client: what came of each attempt, a line each.
TRY = """
import os, timm, torch, zoo

def attempt(action):
    try:
        model = action()
        print("ok", getattr(model, "weights_sha256", None))
    except zoo.ZooError as error:
        print("error:", error)

def logits(model):
    torch.manual_seed(0)
    return model.eval()(torch.randn(2, 3, 32, 32))
"""


class Client:
    """Runs commands against the Hub at `url`, with caches below `home`."""

    def __init__(self, url: str, home: Path) -> None:
        self.home = home
        kept = {
            key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING", "SNNZOO_DATA"))
        }
        self.environment = kept | {"HF_ENDPOINT": url, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        # The Hub runs in the process of the tests, which may have to wait for a processor.
        self.environment |= {"HF_HUB_ETAG_TIMEOUT": "60", "HF_HUB_DOWNLOAD_TIMEOUT": "60"}
        self.environment |= {"HF_HUB_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1", "NO_PROXY": "127.0.0.1,localhost"}
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=self.environment
        )
        self.pid = 0  # of the command that runs now

    def close(self) -> None:
        """End the process that forks."""
        self.process.communicate()

    def hub(self, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        """`python -m zoo.hub ARGUMENTS`."""
        words = list(map(str, arguments))
        code = f"import runpy, sys; sys.argv[1:] = {words!r}; runpy.run_module('zoo.hub', run_name='__main__')"
        return self.run(code, **options)

    def run(
        self,
        code: str,
        *,
        cache: str = "cache",
        token: str | None = None,
        offline: bool = False,
        zoo: Path = ROOT,
        cwd: Path | None = None,
        **env: str,
    ) -> subprocess.CompletedProcess[str]:
        """Run Python code in a process of its own.

        Args:
            cache: names one of the caches of this client.
            token: HF_TOKEN.
            offline: HF_HUB_OFFLINE.
            zoo: the folder with the zoo to import.
        """
        env |= {"HF_HOME": str(self.home / cache), "HF_HUB_OFFLINE": str(int(offline)), "ZOO": str(zoo)}
        # A token is looked up when it is needed.
        command = {"code": code, "env": env, "late": {"HF_TOKEN": token} if token else {}, "cwd": str(cwd or self.home)}
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder, "out"), Path(folder, "err")
            assert self.process.stdin
            assert self.process.stdout
            self.process.stdin.write(json.dumps(command | {"out": str(out), "err": str(err)}) + "\n")
            self.process.stdin.flush()
            self.pid = int(self.process.stdout.readline())
            status = int(self.process.stdout.readline())
            return subprocess.CompletedProcess([code], status, out.read_text(), err.read_text())


def outcomes(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What TRY and the code behind it printed, line by line."""
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@functools.cache
def loopback() -> tuple[Any, Client]:
    """The Hub and the client that all tests of one process share; each test names repositories of its own."""
    import atexit

    from minihub import MiniHub

    hub = MiniHub().__enter__()
    home = tempfile.TemporaryDirectory()
    client = Client(hub.url, Path(home.name))
    for last in (home.cleanup, lambda: hub.__exit__(), client.close):
        atexit.register(last)
    return hub, client


def _first() -> None:
    """Pass each command on to the process for its environment."""
    import safetensors.torch  # noqa: F401
    import torch  # noqa: F401
    import torchvision  # noqa: F401

    looked = {"huggingface_hub", "timm", "zoo"} & set(sys.modules)
    assert not looked, f"{looked} read the environment too early"
    seconds: dict[str, Any] = {}
    for line in sys.stdin:
        env = json.loads(line)["env"]
        key = json.dumps(env)
        if key not in seconds:
            reading, writing = os.pipe()
            if os.fork() == 0:
                os.close(writing)
                _second(env, os.fdopen(reading))
            os.close(reading)
            seconds[key] = os.fdopen(writing, "w")
        seconds[key].write(line)
        seconds[key].flush()


def _second(env: dict[str, str], lines: Any) -> NoReturn:
    """Import in this environment, then run each command in a process of its own, one after the other."""
    os.environ.update(env)
    sys.path[0] = env["ZOO"]
    import timm  # noqa: F401

    import zoo.hub.fetch  # noqa: F401

    sleep = time.sleep
    for line in lines:
        pid = os.fork()
        if pid == 0:
            time.sleep = lambda seconds: sleep(min(seconds, 0.01))  # between tries; nobody waits for a real Hub here
            _third(json.loads(line))
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    os._exit(0)


def _third(command: dict[str, Any]) -> NoReturn:
    """Run one command."""
    for number, path in ((1, command["out"]), (2, command["err"])):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.environ.update(command["late"])
    os.chdir(command["cwd"])
    status = 1
    try:
        exec(compile(command["code"], "<test>", "exec"), {"__name__": "__test__"})
        status = 0
    except SystemExit as exit_:
        status = exit_.code if isinstance(exit_.code, int) else 0 if exit_.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    _first()
