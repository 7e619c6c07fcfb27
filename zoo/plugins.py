"""Plugins: Python files of a user's, run before a command looks up names, and remembered by name and sha256.

A plugin registers what the zoo does not have: `zoo.register_family`, `register_neuron`, `register_surrogate`,
`register_scaling`, `register_dataset`. Results and checkpoints record every plugin of the process that made them.
"""

import argparse
import os
import re
import sys
import warnings
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from .errors import ZooError
from .files import sha256_of, user_path

_LOADED: dict[Path, dict[str, str]] = {}
# What a recipe says for "as the architecture has it" and for "none of them".
_RESERVED = ("model", "none")


def load_plugin(path: str | os.PathLike[str]) -> None:
    """Run a Python file that registers networks, neurons, surrogates, rules or data sets of its own; once a process.

    Raises:
        ZooError: no such file, or it fails; the message holds its error.
    """
    file = user_path(path).resolve()
    if file in _LOADED:
        return
    try:
        source = file.read_bytes() if file.is_file() else None
    except OSError as error:
        raise ZooError(f"cannot read the plugin {path}: {error.strerror}") from error
    if source is None:
        raise ZooError(f"no such plugin: {path} (a Python file that registers networks, neurons, rules ... of yours)")
    # Named after its place, too: two plugins may share a file name.
    name = f"zoo_plugin_{re.sub(r'[^0-9A-Za-z_]', '_', file.stem)}_{sha256_of(str(file).encode())[:8]}"
    module = sys.modules[name] = ModuleType(name)
    module.__file__ = str(file)
    try:  # from the very bytes whose sha256 is recorded, and without a __pycache__ in the user's folder
        exec(compile(source, str(file), "exec"), vars(module))
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise error if isinstance(error, ZooError) else ZooError(f"plugin {path} fails: {error!r}") from error
    _LOADED[file] = {"file": file.name, "sha256": sha256_of(source)}


def loaded_plugins() -> list[dict[str, str]] | None:
    """The plugins of this process, as results and checkpoints record them: [{"file", "sha256"}], None without any."""
    return list(_LOADED.values()) or None


def plugin_files() -> list[str]:
    """Where the plugins of this process are, for another process that is to have them, too."""
    return list(map(str, _LOADED))


class _LoadPlugin(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, value: Any, option: Any = None) -> None:
        load_plugin(value)


def add_plugin_option(parser: argparse.ArgumentParser) -> None:
    """Give a command the option --plugin FILE, repeatable; a plugin runs as soon as it is read."""
    text = "run this Python file first: it registers networks, neurons, rules ... of yours (repeatable)"
    parser.add_argument("--plugin", metavar="FILE", action=_LoadPlugin, default=argparse.SUPPRESS, help=text)


def is_plugins(value: Any) -> bool:
    """Whether a value from a file is what `loaded_plugins` gives."""
    return value is None or (
        isinstance(value, list)
        and 0 < len(value) <= 100
        and all(
            isinstance(plugin, dict)
            and plugin.keys() == {"file", "sha256"}
            and all(isinstance(text, str) for text in plugin.values())
            and re.fullmatch(r"[^/\\]{1,255}", plugin["file"])
            and plugin["file"].isprintable()
            and re.fullmatch(r"[0-9a-f]{64}", plugin["sha256"])
            for plugin in value
        )
    )


def absent(recorded: list[dict[str, str]] | None) -> str:
    """What to say of recorded plugins that are not loaded here, their files and the option; "" if all are."""
    here = {plugin["file"] for plugin in _LOADED.values()} | {plugin["sha256"] for plugin in _LOADED.values()}
    missing = [plugin["file"] for plugin in recorded or [] if here.isdisjoint(plugin.values())]
    if not missing:
        return ""
    option = " ".join(f"--plugin {file}" for file in missing)
    return f"it was made with the plugin {', '.join(missing)}: say {option} (in Python, zoo.load_plugin first)"


def warn_of_changes(recorded: list[dict[str, str]] | None, origin: str) -> None:
    """Warn, in one line each, of loaded plugins that are not what `origin` was made with."""
    hashes = {plugin["sha256"] for plugin in _LOADED.values()}
    names = {plugin["file"]: plugin["sha256"] for plugin in _LOADED.values()}
    for plugin in recorded or []:
        if plugin["sha256"] not in hashes and plugin["file"] in names:
            was, now = plugin["sha256"][:12], names[plugin["file"]][:12]
            changed = f"the plugin {plugin['file']} has changed since {origin} was made with it"
            warnings.warn(f"{changed} (sha256 {was}..., now {now}...)", stacklevel=2)


def check_new(kind: str, name: Any, before: Any, now: Any = None) -> None:
    """Raise ZooError unless a part of somebody's own may be registered under `name`.

    The same function or class of the same module or file may be registered again, as when a file is imported and a
    plugin, too, or a notebook's cell runs twice.

    Args:
        kind: what it is, for the message.
        before: the function or class that the name stands for so far, None for none.
        now: the new one; None if it is not known yet, and only the zoo's own names are refused.
    """
    if not isinstance(name, str) or not name.isidentifier() or name in _RESERVED:
        form = f"take letters, digits and _, but not {' or '.join(_RESERVED)}"
        raise ZooError(f"{name!r} is no name for a {kind}: {form}")
    ours = not isinstance(before, FunctionType | type) or before.__module__.startswith("zoo.")
    if before is not None and (ours or (now is not None and not same_part(before, now))):
        raise ZooError(f"{kind} {name!r} is already registered: choose another name")


def same_part(before: Any, now: Any) -> bool:
    """Whether both are one function or class of a module or a file, which may have run twice."""
    named = all(isinstance(part, FunctionType | type) for part in (before, now)) and type(before) is type(now)
    if not named or before.__qualname__ != now.__qualname__:
        return False
    return bool(before.__module__ == now.__module__ or (_file(before) and _file(before) == _file(now)))


def _file(part: Any) -> str | None:
    """Where a function, or the functions of a class, were written."""
    functions = [part, *vars(part).values()]
    return next((f.__code__.co_filename for f in functions if isinstance(f, FunctionType)), None)
