"""The one error type that reaches a user as a sentence instead of a traceback, and how foreign text is printed."""

import argparse
import os
import re
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NoReturn


def shown(text: object, limit: int = 200) -> str:
    """Returns text that may come from anybody on one line, with nothing that a terminal would obey: control characters
    become escapes, \\x1b, and what is longer than `limit` characters loses its middle."""
    line = str(text)
    if len(line) > limit:
        head = limit * 3 // 4
        line = f"{line[:head]} ... {line[-(limit - head) :]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def quoted(value: object, limit: int = 200) -> str:
    """Returns repr(value), as `shown` gives it."""
    try:
        return shown(repr(value), limit)
    except (ValueError, RecursionError):  # of an integer with thousands of digits, of a list in itself
        return f"a very long {type(value).__name__}"


def text_table(head: Sequence[object], rows: Iterable[Sequence[object]], right: Collection[int]) -> str:
    """Returns a table for a terminal, the columns of these numbers (from 0) aligned to the right."""
    columns = []
    for i, column in enumerate(zip(*[map(shown, row) for row in (head, *rows)], strict=True)):
        width = max(map(len, column))
        columns.append([cell.rjust(width) if i in right else cell.ljust(width) for cell in column])
    return "\n".join("  ".join(row).rstrip() for row in zip(*columns, strict=True))


class ZooError(ValueError):
    """Bad input: the message names the bad value and what to do about it, on one line."""

    def __init__(self, message: str, status: int = 2) -> None:
        super().__init__(shown(message, 1000))
        self.status = status
        """Exit status of a command that it ends."""


def one_of(kind: str, value: object, known: list[str]) -> ZooError:
    """Returns the error for an unknown name: the name, its nearest neighbours and the whole list when it is short."""
    from difflib import get_close_matches

    near = get_close_matches(shown(value), known, n=3) if isinstance(value, str) else []
    listing = (", ".join(known) or "none") if len(known) <= 16 else f"{len(known)} names"
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return ZooError(f"unknown {kind} {quoted(value)}{hint} (known: {listing})")


def one_line(error: BaseException) -> str:
    """Returns the message of an error that is not ours, short enough for ours."""
    return shown(" ".join(str(error).split()), 300)


def out_of_memory(error: BaseException) -> str | None:
    """Says how much memory was asked for in vain, if that is what an error is about; else None."""
    text = str(error)
    ours = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if not ours and not (isinstance(error, RuntimeError) and re.search(r"not enough memory|can.t allocate", text)):
        return None
    asked = re.search(r"allocate ([\d.]+ ?(?:[KMGT]i?B|bytes))", text)
    return f"not enough memory ({asked[1]} more were needed)" if asked else "not enough memory"


class CommandParser(argparse.ArgumentParser):
    """An argument parser whose errors are ZooErrors: one line that names the bad argument, instead of the usage."""

    reading = ""
    """The command, or the one below it, whose words are read."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, **kwargs)

    def parse_known_args(self, *args: Any, **kwargs: Any) -> Any:
        CommandParser.reading = self.prog
        return super().parse_known_args(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise ZooError(f"{message} (see {CommandParser.reading} --help)")


def count(text: str) -> int:
    """Reads a number of a command line, as a parser's `type`: 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, not {shown(text)}")
    return int(text)


def run_command(main: Callable[[list[str] | None], None], argv: list[str] | None = None) -> None:
    """Runs a command line; bad input, a full disk and too little memory end in one line on stderr, exit status 2."""
    # Without the line of our code.
    warnings.formatwarning = lambda message, *_, **__: f"warning: {shown(message, 2000)}\n"
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # what the terminal's encoding lacks is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    try:
        main(argv)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output has enough of it, as `head` has
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (for what Python would still write at its end)
        sys.exit(0)
    except ZooError as error:
        _report(str(error))
        sys.exit(error.status)
    except OSError as error:
        sys.exit(_report(f"{error.strerror or error}: {error.filename or 'an output of this command'}"))
    except (MemoryError, RuntimeError) as error:
        if (problem := out_of_memory(error)) is None:
            raise
        sys.exit(_report(f"{problem}: use a smaller batch, fewer time steps, or smaller images or networks"))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def _report(message: str) -> int:
    rank, several = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1") != "1"
    which = f"[process {shown(rank)}] " if several and rank != "0" else ""  # what is wrong may be wrong for one alone
    print(f"{which}error: {ZooError(message)}", file=sys.stderr)
    return 2
