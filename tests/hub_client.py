"""A user's processes in front of the loopback Hub: each can have a cache, a token and an environment of its own."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from forks import ROOT, Forks, as_module

NAME = min(folder.name for folder in (ROOT / "zoo" / "weights").glob("*_w16_gs.*"))  # a bundled checkpoint

# In front of all code: between two tries, nobody waits for a real Hub here.
IMPATIENT = "import time; time.sleep = lambda seconds, sleep=time.sleep: sleep(min(seconds, 0.01))\n"

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


class Client(Forks):
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
        super().__init__(self.environment)

    def hub(self, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        """`python -m zoo.hub ARGUMENTS`."""
        return self.run(as_module("zoo.hub", *arguments), **options)

    def do(self, *arguments: object, **options: Any) -> str:
        """Returns what `python -m zoo.hub ARGUMENTS` prints, which must succeed."""
        done = self.hub(*arguments, **options)
        assert done.returncode == 0, done.stderr
        assert "Warning" not in done.stderr
        return done.stdout

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
        return self.fork(IMPATIENT + code, cwd or self.home, env, {"HF_TOKEN": token} if token else {})


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
    # No TemporaryDirectory: a process that multiprocessing forks forgets what is to be done at the end, and with the
    # last reference to one it would remove the folder.
    home = Path(tempfile.mkdtemp())
    client = Client(hub.url, home)
    for last in (lambda: shutil.rmtree(home, ignore_errors=True), lambda: hub.__exit__(), client.close):
        atexit.register(last)
    return hub, client
