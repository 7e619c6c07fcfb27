"""A run that is told to stop ends with a whole step and a training state, not in the middle of one."""

import contextlib
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any, Self

# Ctrl-C; what `kill`, batch systems and container engines send first; a terminal that is closed.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupt:
    """Notes the first of these signals while it is entered; a second one acts at once, as it would without this.

    Args:
        active: False leaves the signals as they are, as in one of several processes: it would leave the others waiting.
            One that is ignored, as by nohup or a shell script's background jobs, stays so in any case.
    """

    def __init__(self, *, active: bool) -> None:
        self.noted: signal.Signals | None = None
        ours = active and threading.current_thread() is threading.main_thread()  # only there Python lets us
        self._signals = [number for number in _SIGNALS if ours and signal.getsignal(number) is not signal.SIG_IGN]
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._handlers = {number: signal.signal(number, self._note) for number in self._signals}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.noted = signal.Signals(number)
        self.__exit__()
        text = f"\n{self.noted.name}: this step is finished and saved first; once more stops at once\n"
        with contextlib.suppress(OSError):  # of a terminal that is gone
            os.write(2, text.encode())  # print may be what was interrupted

    def obey(self, step: int) -> None:
        """End the run, if it was told to; call it when the state of `step` is saved.

        Raises:
            SystemExit: with the status of a process that the signal ended.
        """
        if self.noted is not None:
            print(f"stopped after step {step}; --resume goes on from there", file=sys.stderr)
            raise SystemExit(128 + self.noted)
