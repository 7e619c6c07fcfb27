"""One training at a time in a run directory."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from zoo.errors import ZooError


class OccupiedError(ZooError):
    """Another process trains in that run directory: nothing in it is ours to change."""


@contextlib.contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Make a run directory and keep other trainings out of it; the lock ends with the process, however that ends.

    A file system without locks keeps nobody out.

    Raises:
        OccupiedError: another process is in there.
        ZooError: the directory cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        folder = os.open(out, os.O_RDONLY)
    except OSError as error:
        raise ZooError(f"cannot write {out}: {error.strerror}") from error
    try:
        with contextlib.suppress(OSError):
            _lock(folder, out)
        yield
    finally:
        os.close(folder)


def _lock(folder: int, out: Path) -> None:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OccupiedError(
            f"another process trains in {out}: wait for it, or name another directory (--out)"
        ) from None
