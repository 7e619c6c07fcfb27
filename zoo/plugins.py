"""Plugins: Python files of a user's, run before a command looks up names, and remembered by name and sha256.

A plugin registers what the zoo does not have: `zoo.register_family`, `register_neuron`, `register_surrogate`,
`register_scaling`, `register_dataset`. Results and checkpoints record every plugin of the process that made them.
"""

import argparse
import os
import re
import sys
import traceback
import warnings
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

from pydantic import Field

from .errors import ZooError
from .files import TEXT_LIMIT, read_bytes, sha256_of, user_path
from .schema import Model, Sha256, Text

_LOADED: dict[Path, dict[str, str]] = {}
# What a recipe says for "as the architecture has it" and for "none of them".
_RESERVED = ("model", "none")


class Plugin(Model):
    """What a record or a checkpoint says of a plugin."""

    file: Annotated[Text, Field(pattern=r"^[^/\\]{1,255}$")]
    """Its name, without a folder."""
    sha256: Sha256


Plugins = Annotated[list[Plugin], Field(min_length=1, max_length=100)] | None
"""The plugins behind a record or a checkpoint; None without any."""


def load_plugin(path: str | os.PathLike[str]) -> None:
    """Runs a Python file that registers networks, neurons, surrogates, rules or data sets of its own; again only
    where it has changed since.

    Raises:
        ZooError: no such file, or it fails; the message holds its error.
    """
    file = user_path(path).resolve()
    if not file.is_file():
        what = "a Python file that registers networks, neurons, rules ... of yours"
        raise ZooError(f"no such plugin: {path} ({what}); --plugin FILE says where it is")
    source = read_bytes(file, TEXT_LIMIT)
    if _LOADED.get(file, {}).get("sha256") == sha256_of(source):
        return
    # Named after its place, too: two plugins may share a file name.
    name = f"zoo_plugin_{re.sub(r'[^0-9A-Za-z_]', '_', file.stem)}_{sha256_of(str(file).encode())[:8]}"
    module = sys.modules[name] = ModuleType(name)
    module.__file__ = str(file)
    try:  # from the very bytes whose sha256 is recorded, and without a __pycache__ in the user's folder
        exec(compile(source, str(file), "exec"), vars(module))
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        if isinstance(error, ZooError):
            raise
        raise ZooError(f"plugin {path} fails{at_line(error, str(file))}: {error!r}") from error
    _LOADED[file] = {"file": file.name, "sha256": sha256_of(source)}


def at_line(error: BaseException, file: str) -> str:
    """Says where in a user's file an error comes from, " in line N"; "" if it comes from elsewhere."""
    if isinstance(error, SyntaxError) and error.filename == file:
        return f" in line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f" in line {lines[-1]}" if lines else ""


def loaded_plugins() -> list[dict[str, str]] | None:
    """Returns the plugins of this process, as results record them: [{"file", "sha256"}], None without any."""
    return list(_LOADED.values()) or None


def plugin_files() -> list[str]:
    """Returns the paths of this process's plugins, for another process that is to have them, too."""
    return list(map(str, _LOADED))


class _LoadPlugin(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, value: Any, option: Any = None) -> None:
        load_plugin(value)
        setattr(namespace, self.dest, value)


def add_plugin_option(parser: argparse.ArgumentParser) -> None:
    """Gives a command the option --plugin FILE, repeatable; a plugin runs as soon as it is read, and `plugin` is in the
    namespace where one did."""
    text = "run this Python file first: it registers networks, neurons, rules ... of yours (repeatable)"
    parser.add_argument("--plugin", metavar="FILE", action=_LoadPlugin, default=argparse.SUPPRESS, help=text)


def missing_plugins(recorded: list[dict[str, str]] | None) -> str:
    """Says which recorded plugins are not loaded here, and the option that loads them; "" if all are."""
    here = {text for plugin in _LOADED.values() for text in plugin.values()}
    missing = [plugin["file"] for plugin in recorded or [] if here.isdisjoint(plugin.values())]
    if not missing:
        return ""
    option = " ".join(f"--plugin {file}" for file in missing)
    return f"it was made with the plugin {', '.join(missing)}: say {option} (in Python, zoo.load_plugin first)"


def warn_of_changes(recorded: list[dict[str, str]] | None, origin: str) -> None:
    """Warns, in one line each, of loaded plugins that are not what `origin` was made with."""
    for file, was, now in changes_since(recorded):
        changed = f"the plugin {file} has changed since {origin} was made with it"
        warnings.warn(f"{changed} (sha256 {was}, now {now})", stacklevel=2)


def changes_since(recorded: list[dict[str, str]] | None) -> list[tuple[str, str, str]]:
    """Returns the recorded plugins that are loaded with other content: file, how its sha256 begins, then and now."""
    hashes = {plugin["sha256"] for plugin in _LOADED.values()}
    now = {plugin["file"]: plugin["sha256"] for plugin in _LOADED.values()}
    changed = [p for p in recorded or [] if p["sha256"] not in hashes and p["file"] in now]
    return [(p["file"], f"{p['sha256'][:12]}...", f"{now[p['file']][:12]}...") for p in changed]


def check_new(kind: str, name: Any, new: Any = None, before: Any = None) -> None:
    """Raises ZooError unless `name` can be one, and `new`, a user's, may take the place of `before` under it."""
    if not isinstance(name, str) or not name.isidentifier() or name in _RESERVED:
        form = f"take letters, digits and _, but not {' or '.join(_RESERVED)}"
        raise ZooError(f"{name!r} is no name for a {kind}: {form}")
    if before is not None and not same_file(before, new):
        raise ZooError(f"{kind} {name!r} is already registered: choose another name")


def same_file(before: Any, new: Any) -> bool:
    """Returns whether two functions or classes come from one module or file, so that the second may take the place of
    the first: a notebook's cell runs twice, a user's file is imported, and run as a plugin, too."""
    modules = {getattr(part, "__module__", None) for part in (before, new)}
    return len(modules) == 1 or len({getattr(sys.modules.get(str(name)), "__file__", name) for name in modules}) == 1
