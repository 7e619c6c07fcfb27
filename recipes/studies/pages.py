"""Pages that are rendered from result files, and the check that they are current."""

from pathlib import Path

from zoo.errors import ZooError
from zoo.files import atomic_write, read_text


def row(*cells: object) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"


def write_page(file: Path, text: str, check: bool) -> None:
    """Write a page; in a check, only compare it with what is there.

    Raises:
        ZooError: `check`, and the file says something else; `python -m recipes.studies --render` is the way out.
    """
    if not check:
        atomic_write(file, text)
    elif not file.exists() or read_text(file) != text:
        raise outdated(file)


def outdated(file: Path) -> ZooError:
    """The error for a page or picture that is not what its result files say."""
    return ZooError(f"{file} is not what its result files say: python -m recipes.studies --render writes it")
