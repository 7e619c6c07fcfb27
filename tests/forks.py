"""Python in processes of their own, as a user starts it, without paying for the import of torch each time.

huggingface_hub reads its environment when it is imported. So one process imports what is slow and does not look at it.
For every environment it forks a second one, which imports huggingface_hub, timm and the zoo in it; and that one forks a
third for every command. `python tests/forks.py` is the first: a JSON line in for a command, a line out for the process
id, one for the exit status.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent


def as_module(name: str, *arguments: object) -> str:
    """Code that does what `python -m NAME ARGUMENTS` does."""
    words = list(map(str, arguments))
    start = f"runpy.run_module({name!r}, run_name='__main__', alter_sys=True)"
    return f"import runpy, sys; sys.path.insert(0, ''); sys.argv[1:] = {words!r}; {start}"


class Forks:
    """Runs commands, one after the other; all share the environment given."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.pid = 0  # of the command that runs now

    def close(self) -> None:
        """End the process that forks."""
        self.process.communicate()

    def fork(
        self, code: str, cwd: Path, env: dict[str, str] | None = None, late: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run Python code in a process of its own.

        Args:
            env: variables that are there before timm, huggingface_hub and the zoo are imported; ZOO names the folder
                that holds the zoo.
            late: variables that are set after that.
        """
        command = {"code": code, "cwd": str(cwd), "env": {"ZOO": str(ROOT)} | (env or {}), "late": late or {}}
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder, "out"), Path(folder, "err")
            assert self.process.stdin
            assert self.process.stdout
            self.process.stdin.write(json.dumps(command | {"out": str(out), "err": str(err)}) + "\n")
            self.process.stdin.flush()
            self.pid = int(self.process.stdout.readline())
            status = int(self.process.stdout.readline())
            return subprocess.CompletedProcess([code], status, out.read_text(), err.read_text())


def _first() -> None:
    """Pass each command on to the process for its environment."""
    import safetensors.torch  # noqa: F401
    import torch  # noqa: F401
    import torchvision  # noqa: F401
    from quick import import_early, read_operators_once

    import_early()
    read_operators_once()
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

    import zoo.hub  # noqa: F401

    for line in lines:
        pid = os.fork()
        if pid == 0:
            _third(json.loads(line))
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    os._exit(0)


def _third(command: dict[str, Any]) -> NoReturn:
    """Run one command."""
    status = 1
    try:
        for number, path in ((1, command["out"]), (2, command["err"])):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
        os.environ.update(command["late"])
        os.chdir(command["cwd"])
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
