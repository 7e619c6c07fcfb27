"""Standard error, which a training outlives: a terminal may be closed, and what reads its log may end."""

import os
import sys
from typing import Any


class StandardError:
    """sys.stderr; where nobody reads that any more, nothing is written and nothing fails, now and at the end."""

    def write(self, text: str) -> int:
        """As a file has it."""
        try:
            return sys.stderr.write(text)
        except OSError:
            sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (for what Python itself would still write)
            return len(text)

    def flush(self) -> None:
        """As a file has it."""
        try:
            sys.stderr.flush()
        except OSError:
            sys.stderr = open(os.devnull, "w")  # noqa: SIM115

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)
