"""Files: written whole or not at all, read within bounds, JSON and YAML as plain values, every mistake one line."""

import atexit
import contextlib
import functools
import hashlib
import io
import json
import math
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from .errors import ZooError, one_line, quoted

TEXT_LIMIT = 16 * 2**20
"""Bytes of a text file: beyond what any file of ours needs, and little enough to read."""
_DEEPEST = 64
_LARGEST = 2**63


def user_path(path: str | os.PathLike[str]) -> Path:
    """Returns a path as its user means it: `~` is the home folder, which a shell leaves to us in `--out=~/run`."""
    return Path(os.path.expanduser(path))


@functools.cache
def cache_folder(kind: str) -> Path:
    """Returns the folder for a kind of files that can be made again, in SNNZOO_CACHE or the user's cache folder; where
    that cannot be written, one for this process alone."""
    try:
        root = os.environ.get("SNNZOO_CACHE") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = user_path(root) / "snn-zoo" / kind
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except (OSError, RuntimeError):
        pass
    # Never a shared place such as /tmp/snn-zoo, where somebody else could leave a library for us to load.
    folder = Path(tempfile.mkdtemp(prefix="snn-zoo-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def atomic_write(path: str | os.PathLike[str], data: bytes | str) -> Path:
    """Writes `data` to a temporary file beside `path`, flushes it to the disk, then renames it.

    Where `path` is a link, that is done to what it points at; a device or a pipe is written into.

    Raises:
        ZooError: the file cannot be written (no space, no permission ...). Nothing is left behind, and a file that
            was at `path` before stays as it was.
    """
    given, content = Path(path), data.encode() if isinstance(data, str) else data
    try:
        if _is_special(user_path(path)):  # before links are followed: /dev/stdout may lead to a pipe without a path
            with open(user_path(path), "wb") as file:
                file.write(content)
            return given
        path = Path(os.path.realpath(user_path(path)))
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")  # others may write the same file now
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ZooError(f"cannot write {given}: {error.strerror}") from error
    except ValueError as error:  # NUL in its name
        raise ZooError(f"cannot write {str(given)!r}: {one_line(error)}") from error
    return given


def stamp(file: Path) -> tuple[int, int]:
    """Returns the size of a file and when it was changed, in nanoseconds."""
    about = file.stat()
    return about.st_size, about.st_mtime_ns


LOCK = ".lock"
"""The file by which a folder is locked; it stays, and a killed process frees it."""


@contextlib.contextmanager
def locked(folder: Path, busy: ZooError | None = None) -> Iterator[None]:
    """Makes a folder, and lets one process at a time inside the block, of all machines that share it.

    Where another process is inside, raises `busy`, or by default waits for it.

    Raises:
        ZooError: the folder cannot be made, or its file system keeps nobody out.
    """
    import fcntl  # which Windows has not; what only reads works there, too

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)  # a file: of folders, NFS keeps locks to itself
    except OSError as error:
        raise ZooError(f"cannot write {folder}: {error.strerror}") from error
    try:
        if options := _local_locks(folder):
            raise ZooError(f"{folder} is on NFS mounted with {options}, where locks keep no other machine out")
        try:
            for tries_left in range(4 if busy else 0, 0, -1):
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                time.sleep(0.1 * (tries_left > 1))  # `is_locked` holds it for a moment
            else:
                if busy:
                    raise busy
                fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            raise ZooError(f"cannot lock {folder} ({error.strerror}): use a folder on another file system") from error
        yield
    finally:
        os.close(lock)


def _local_locks(folder: Path) -> str | None:
    """Returns the mount option of a network file system that keeps its locks to this machine, None where there is none.

    NFS sends `flock` to the server, unless it is told not to.
    """
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return None
    device = folder.stat().st_dev
    for line in lines:
        mount, _, kind = line.partition(" - ")
        if mount.split()[2] == f"{os.major(device)}:{os.minor(device)}" and kind.startswith("nfs"):
            options = kind.split()[-1].split(",")
            return next((o for o in options if o in ("nolock", "local_lock=all", "local_lock=flock")), None)
    return None


def is_locked(folder: Path) -> bool:
    """Returns whether a process is inside `locked(folder)`."""
    if not folder.is_dir():
        return False
    busy = ZooError("busy")
    try:
        with locked(folder, busy):
            return False
    except ZooError as error:
        return error is busy


def write_json(path: str | os.PathLike[str], value: Any) -> Path:
    """Writes `value` as indented JSON, atomically."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    return atomic_write(path, text.encode(errors="backslashreplace"))  # half a surrogate pair becomes JSON's escape


def check_writable(path: str | os.PathLike[str], *others: str | os.PathLike[str]) -> None:
    """Raises ZooError before long work, not after it, where its file cannot be written, or is one of the `others` that
    the same command reads or writes; nothing is created yet."""
    path = user_path(path)
    if taken := [other for other in others if os.path.realpath(other) == os.path.realpath(path)]:
        raise ZooError(f"cannot write {path}: this command has {taken[0]} in another part; name another file")
    parent = Path(os.path.realpath(path)).parent
    while not parent.exists():
        parent = parent.parent
    if _is_special(path) and os.access(path, os.W_OK):
        return
    if path.is_dir():
        raise ZooError(f"cannot write {path}: it is a directory; name a file, such as {path / 'file'}")
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise ZooError(f"cannot write {path}: {parent} is not a directory that can be written to")


def _is_special(path: Path) -> bool:
    """Returns whether it is a device, a pipe or a socket."""
    return path.exists() and not path.is_file() and not path.is_dir()


@contextlib.contextmanager
def open_regular(path: str | os.PathLike[str], limit: int | None = None) -> Iterator[io.BufferedReader]:
    """Opens a file of at most `limit` bytes for reading; never waits for a pipe, never reads from a device. Raises
    ZooError for no such file, no ordinary one, none that can be read, or a larger one."""
    if "\0" in str(path):
        raise ZooError(f"cannot read {str(path)!r}: NUL is no character of a path")
    try:
        with open(os.open(user_path(path), os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                kind = "a directory" if stat.S_ISDIR(status.st_mode) else "a pipe, a socket or a device"
                raise ZooError(f"cannot read {path}: it is {kind}, not a file")
            if limit is not None and status.st_size > limit:
                raise ZooError(f"{path} has {status.st_size:,} bytes: at most {limit:,} are read of such a file")
            yield file
    except FileNotFoundError as error:
        raise ZooError(f"no such file: {path}") from error
    except OSError as error:
        raise ZooError(f"cannot read {path}: {error.strerror}") from error


def read_bytes(path: str | os.PathLike[str], limit: int) -> bytes:
    """Reads a file of at most `limit` bytes; see `open_regular` for errors."""
    with open_regular(path, limit) as file:
        return file.read(limit)


def read_text(path: str | os.PathLike[str], limit: int = TEXT_LIMIT) -> str:
    """Reads a UTF-8 file, line ends as they are; see `open_regular` for errors."""
    data = read_bytes(path, limit)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ZooError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start:,}") from error


def read_json(path: str | os.PathLike[str]) -> Any:
    """Reads the value of a JSON file; see `read_text` and `parse_json` for errors."""
    return parse_json(read_text(path), str(path))


def parse_json(text: str | bytes, origin: str) -> Any:
    """Reads the value of a JSON text, which may come from anybody; `origin` says from where, in errors.

    Raises:
        ZooError: it is no JSON; it holds NaN or another number, text or depth that no file of ours has.
    """
    try:
        return _bounded(json.loads(text))
    except RecursionError:
        raise ZooError(f"cannot read {origin} as JSON: it is nested too deeply") from None
    except ValueError as error:
        raise ZooError(f"cannot read {origin} as JSON: {one_line(error)}") from error


def _bounded(value: Any, depth: int = 0) -> Any:
    """Returns `value`; raises ValueError if it is too deep, or holds what `parse_json` refuses."""
    if depth > _DEEPEST:
        raise ValueError("it is nested too deeply")
    if isinstance(value, dict | list):
        for item in [*value, *value.values()] if isinstance(value, dict) else value:
            _bounded(item, depth + 1)
    elif isinstance(value, str) and re.search("[\ud800-\udfff\0]", value):
        raise ValueError(f"{quoted(value)} holds what is no character")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is no number that is finite")
    elif isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
        raise ValueError(f"the integer {quoted(value, 30)} does not fit 64 bits")
    return value


def sha256_of(data: bytes | str | os.PathLike[str]) -> str:
    """Returns the sha256 of some bytes, or of the file at a path, as 64 hexadecimal digits."""
    if isinstance(data, bytes):
        return hashlib.sha256(data).hexdigest()
    with open_regular(data) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _yaml() -> YAML:
    yaml = YAML(typ="safe", pure=True)  # 1.2, in which `5e-4` is a number and `off` a word
    yaml.default_flow_style, yaml.allow_unicode, yaml.width = False, True, 1000
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.representer.ignore_aliases = lambda data: True
    return yaml


def dump_yaml(value: Any) -> str:
    """Writes JSON values as YAML, letters of any language as they are."""
    _yaml().dump(value, text := io.StringIO())
    return text.getvalue()


def parse_yaml(text: str, origin: str) -> Any:
    """Reads the value of a YAML text of the user's; ZooError for no YAML of plain values, or a key given twice."""
    try:
        return _yaml().load(text)
    except MarkedYAMLError as error:
        place = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ZooError(f"cannot read {origin} as YAML: {error.problem}{place}") from error
    except (YAMLError, ValueError, LookupError, RecursionError) as error:
        raise ZooError(f"cannot read {origin} as YAML: {one_line(error)}") from error


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """Reads the value of a YAML file of the user's; see `read_text` and `parse_yaml` for errors."""
    return parse_yaml(read_text(path), str(path))
