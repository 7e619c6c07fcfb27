"""One training at a time in a run directory."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from zoo.errors import ZooError
from zoo.files import locked


class OccupiedError(ZooError):
    """Another process trains in that run directory: nothing in it is ours to change."""


@contextlib.contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Make a run directory and keep other trainings out of it; the lock ends with the process, however that ends.

    Raises:
        OccupiedError: another process is in there.
        ZooError: the directory cannot be made.
    """
    busy = f"another process trains in {out}: wait for it, or name another directory (--out)"
    with locked(out, OccupiedError(busy)):
        yield
