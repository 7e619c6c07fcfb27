"""A user's own Python file, run for what it registers."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from .errors import ZooError


def load_plugin(path: str | os.PathLike[str]) -> None:
    """Run a Python file that calls `zoo.register_scaling` or `zoo.register_model`; once a process, however often asked.

    Raises:
        ZooError: no such file, or it fails; the message holds its error.
    """
    file = Path(path).resolve()
    name = f"zoo_plugin_{file.stem}"
    if getattr(sys.modules.get(name), "__file__", None) == str(file):
        return
    spec = importlib.util.spec_from_file_location(name, file) if file.is_file() else None
    if spec is None or spec.loader is None:
        raise ZooError(f"no such plugin: {path} (a Python file that registers scaling rules or models)")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise error if isinstance(error, ZooError) else ZooError(f"plugin {path} fails: {error!r}") from error
