"""The one error type that reaches a user as a sentence instead of a traceback."""

import argparse
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any, NoReturn


class ZooError(ValueError):
    """Bad input: the message names the bad value and what to do about it."""


def one_of(kind: str, value: object, known: list[str]) -> ZooError:
    """The error for a name that is not known: the name, its nearest neighbours and the whole list when it is short."""
    from difflib import get_close_matches

    near = get_close_matches(str(value), known, n=3)
    listing = (", ".join(known) or "none") if len(known) <= 16 else f"{len(known)} names"
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return ZooError(f"unknown {kind} {value!r}{hint} (known: {listing})")


def one_line(error: BaseException) -> str:
    """The message of an error that is not ours, short enough for ours."""
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:300] + " ..."


class CommandParser(argparse.ArgumentParser):
    """An argument parser whose errors are ZooErrors: one line that names the bad argument, instead of the usage."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise ZooError(f"{message} (see {self.prog} --help)")


def run_command(main: Callable[[list[str] | None], None], argv: list[str] | None = None) -> None:
    """Run a command line; bad input and a failing disk end in one line on stderr and exit status 2."""
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"  # without the line of our code
    try:
        main(argv)
    except ZooError as error:
        sys.exit(_report(str(error)))
    except OSError as error:
        sys.exit(_report(f"{error.strerror or error}: {error.filename or 'an output of this command'}"))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def _report(message: str) -> int:
    if os.environ.get("RANK", "0") == "0":  # of several processes one speaks
        print(f"error: {message}", file=sys.stderr)
    return 2
